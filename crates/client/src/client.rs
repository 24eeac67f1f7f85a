//! Sending.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arcadia_kernel::Clock;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::connect::{Connector, Sender};
use crate::origin::{Origin, Target};
use crate::pool::Pool;
use crate::{Answer, Call, ClientFault, NoProxy, Proxy, tls};

pub const DEFAULT_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a client is made of. The default trusts nobody, and reaches only plain HTTP on this machine's loopback.
#[derive(Clone)]
pub struct ClientOptions {
    pub proxy: Option<Proxy>,
    pub no_proxy: NoProxy,
    /// PEM files of roots to trust: the system's, the site's.
    pub root_files: Vec<PathBuf>,
    /// PEM texts of roots to trust.
    pub root_pems: Vec<String>,
    /// Name resolution, TCP, CONNECT and TLS together.
    pub connect_timeout: Duration,
    /// From the call to the last byte of the answer.
    pub whole_timeout: Duration,
    /// How long an unused connection is kept. Shorter than servers do, so that they seldom close it first.
    pub idle_timeout: Duration,
    pub body_bytes_max: usize,
    pub user_agent: String,
    /// The time at which certificates are judged.
    pub clock: Arc<dyn Clock>,
}

impl ClientOptions {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            proxy: None,
            no_proxy: NoProxy::default(),
            root_files: Vec::new(),
            root_pems: Vec::new(),
            connect_timeout: Duration::from_secs(15),
            whole_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(20),
            body_bytes_max: DEFAULT_BODY_BYTES_MAX,
            user_agent: concat!("arcadia/", env!("CARGO_PKG_VERSION")).to_owned(),
            clock,
        }
    }
}

/// Sends calls and keeps connections. Clones share both.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    connector: Connector,
    pool: Pool,
    user_agent: HeaderValue,
    connect_timeout: Duration,
    whole_timeout: Duration,
    body_bytes_max: usize,
}

impl Client {
    /// Reads the root files; a file that is missing, unreadable or empty is a fault, not a gap in trust.
    pub fn new(options: ClientOptions) -> Result<Self, ClientFault> {
        let tls = tls::client_config(&options.root_files, &options.root_pems, options.clock)?;
        let user_agent = HeaderValue::from_str(&options.user_agent)
            .map_err(|_| ClientFault::Header("the user agent's name"))?;
        Ok(Self(Arc::new(Inner {
            connector: Connector {
                tls: tls.map(|config| TlsConnector::from(Arc::new(config))),
                proxy: options.proxy,
                no_proxy: options.no_proxy,
            },
            pool: Pool::new(options.idle_timeout),
            user_agent,
            connect_timeout: options.connect_timeout,
            whole_timeout: options.whole_timeout,
            body_bytes_max: options.body_bytes_max,
        })))
    }

    /// Sends a call and reads the whole answer, whatever its status.
    pub async fn send(&self, call: Call) -> Result<Answer, ClientFault> {
        let inner = &self.0;
        let target = Target::parse(&call.url)?;
        let host = target.origin.host.clone();
        // Boxed: the state of a TLS handshake is too large to be carried inside every caller's future.
        match timeout(inner.whole_timeout, Box::pin(inner.exchange(call, target))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientFault::Timeout {
                what: format!("the answer of {host}"),
                seconds: inner.whole_timeout.as_secs(),
            }),
        }
    }

    /// [`Client::send`], with any status but a success as a fault.
    pub async fn accepted(&self, call: Call) -> Result<Answer, ClientFault> {
        self.send(call).await?.accepted()
    }

    /// A successful answer's body as JSON.
    pub async fn json<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<T, ClientFault> {
        self.accepted(call).await?.json()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("proxy", &self.0.connector.proxy).finish_non_exhaustive()
    }
}

impl Inner {
    async fn exchange(&self, call: Call, target: Target) -> Result<Answer, ClientFault> {
        let repeatable = call.repeatable;
        let origin = target.origin;
        let request = self.request(call, &origin, &target.path)?;
        if let Some(mut sender) = self.kept(&origin).await {
            match sender.try_send_request(request.clone()).await {
                Ok(response) => return self.read(response, sender, origin).await,
                Err(mut fault) => {
                    let unsent = fault.take_message().is_some();
                    if !unsent && !repeatable {
                        return Err(ClientFault::Broken { host: origin.host, source: fault.into_error() });
                    }
                    // The server closed the kept connection; a fresh one tells whether it is still there.
                    tracing::debug!(host = origin.host, "a kept connection was closed; connecting again");
                }
            }
        }
        let mut sender = self.connect(&origin).await?;
        match sender.send_request(request).await {
            Ok(response) => self.read(response, sender, origin).await,
            Err(source) => Err(ClientFault::Broken { host: origin.host, source }),
        }
    }

    fn request(&self, call: Call, origin: &Origin, path: &str) -> Result<Request<Full<Bytes>>, ClientFault> {
        // A body that is left empty on purpose says so (RFC 9110, 8.6); hyper leaves its length out.
        let says_empty =
            call.body.is_empty() && [Method::PUT, Method::POST, Method::PATCH].contains(&call.method);
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = path.parse().map_err(|_| ClientFault::Url(origin.authority()))?;
        *request.headers_mut() = call.headers;
        let host =
            HeaderValue::from_str(&origin.host_header()).map_err(|_| ClientFault::Url(origin.authority()))?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, host);
        if says_empty {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        headers.entry(header::USER_AGENT).or_insert_with(|| self.user_agent.clone());
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json, */*;q=0.5"));
        Ok(request)
    }

    async fn kept(&self, origin: &Origin) -> Option<Sender> {
        while let Some(mut sender) = self.pool.take(origin) {
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self, origin: &Origin) -> Result<Sender, ClientFault> {
        match timeout(self.connect_timeout, self.connector.connect(origin)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientFault::Timeout {
                what: format!("connecting to {}", origin.authority()),
                seconds: self.connect_timeout.as_secs(),
            }),
        }
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        sender: Sender,
        origin: Origin,
    ) -> Result<Answer, ClientFault> {
        let too_long = || ClientFault::TooLong { host: origin.host.clone(), bytes_max: self.body_bytes_max };
        let (parts, mut incoming) = response.into_parts();
        let expected = usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX);
        if expected > self.body_bytes_max {
            return Err(too_long());
        }
        let mut body = BytesMut::with_capacity(expected.min(64 * 1024));
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|source| ClientFault::Broken { host: origin.host.clone(), source })?;
            if let Ok(data) = frame.into_data() {
                if body.len() + data.len() > self.body_bytes_max {
                    return Err(too_long());
                }
                body.extend_from_slice(&data);
            }
        }
        let host = origin.host.clone();
        self.pool.give_back(origin, sender);
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.freeze(), host })
    }
}
