//! HTTP/1.1 and HTTP/2 inside the TLS of one name.

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use arcadia_kernel::{Body, Endpoint, Incoming, empty_body, full_body};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_rustls::server::TlsStream;

use super::activity::Activity;
use super::body::PacedBody;
use super::drain::Drain;
use super::hosts::is_same_host;
use super::limits::Limits;
use super::stream::{BoxStream, Timed};

/// One accepted connection: the name it is for and what answers there.
pub struct Connection {
    pub name: String,
    pub endpoint: Arc<dyn Endpoint>,
    pub remote: Option<IpAddr>,
    pub limits: Limits,
    pub activity: Arc<Activity>,
}

/// Answers requests until the client or a drain ends the connection.
pub async fn serve(stream: TlsStream<BoxStream>, connection: Connection, drain: Drain) {
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let connection = Arc::new(connection);
    let service = service_fn({
        let connection = connection.clone();
        move |request| {
            let (connection, running) = (connection.clone(), connection.activity.begin());
            async move {
                let response = connection.answer(request).await;
                Ok::<_, std::convert::Infallible>(response.map(|body| running.leaving(body)))
            }
        }
    });
    let (limits, activity) = (&connection.limits, connection.activity.clone());
    let result = if h2 {
        let stream = TokioIo::new(Timed::http2(stream, limits.idle_timeout, activity));
        let builder = http2_builder(limits);
        let served = pin!(builder.serve_connection(stream, service));
        drive(served, drain, |served| served.graceful_shutdown()).await
    } else {
        let stream = TokioIo::new(Timed::http1(stream, limits.idle_timeout, limits.head_timeout, activity));
        let builder = http1_builder(limits);
        let served = pin!(builder.serve_connection(stream, service));
        drive(served, drain, |served| served.graceful_shutdown()).await
    };
    if let Err(error) = result {
        tracing::debug!(name = connection.name, %error, "connection ended");
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Silence and slow heads are bounded by `Timed`, which tells an idle connection from a slow one.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder.max_buf_size(limits.head_bytes_max).max_header_size(limits.head_bytes_max);
    // Its own bound, 100 headers, stays: with another it writes over the room for them before each request.
    builder.keep_alive(true);
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    let head_bytes_max = u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX);
    builder.max_header_list_size(head_bytes_max).max_concurrent_streams(limits.streams_max);
    builder
}

/// Runs a connection to its end; once a drain is requested, to the end of the requests under way.
async fn drive<C, E>(
    mut served: Pin<&mut C>,
    mut drain: Drain,
    finish: impl FnOnce(Pin<&mut C>),
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    tokio::select! {
        result = served.as_mut() => return result,
        () = drain.requested() => finish(served.as_mut()),
    }
    served.await
}

impl Connection {
    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        if let Err(refusal) = check_name(&self.name, &head) {
            return refusal;
        }
        // Past this point only the path counts; an absolute target has been compared already.
        if let Some(path) = head.uri.path_and_query().cloned()
            && head.uri.authority().is_some()
        {
            head.uri = http::Uri::from(path);
        }
        let body = if body.is_end_stream() {
            empty_body()
        } else {
            PacedBody::new(body, self.limits.body, self.activity.clone()).boxed_unsync()
        };
        let incoming = Incoming {
            head,
            body,
            host: self.name.clone(),
            origin: ["https://", &self.name].concat(),
            remote: self.remote,
        };
        self.endpoint.clone().serve(incoming).await
    }
}

/// The name a request is for must be the one of its connection, wherever the request says it: a client that mixes them
/// up would be answered by the wrong service.
pub(super) fn check_name(name: &str, head: &http::request::Parts) -> Result<(), Response<Body>> {
    // Who sends such a request may mean the next one otherwise, too.
    let refused = |text: &'static str| {
        let mut refusal = plain(StatusCode::BAD_REQUEST, text);
        refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        refusal
    };
    let mut headers = head.headers.get_all(header::HOST).iter();
    let header = match (headers.next(), headers.next()) {
        (Some(_), Some(_)) => return Err(refused("The request has more than one Host header.\n")),
        (Some(value), None) => {
            Some(value.to_str().map_err(|_| refused("The request's Host header is no name.\n"))?)
        }
        (None, _) => None,
    };
    let target = head.uri.authority().map(http::uri::Authority::as_str);
    if target.or(header).is_none() {
        return Err(refused("The request has no Host header.\n"));
    }
    let Some(other) = [target, header].into_iter().flatten().find(|named| !is_named(named, name)) else {
        return Ok(());
    };
    let shown: String = other.chars().filter(|c| !c.is_control()).take(253).collect();
    let text = format!(
        "This connection is for {name}, and the request is for {shown}. Open a connection of its own for it.\n"
    );
    Err(plain(StatusCode::MISDIRECTED_REQUEST, text))
}

fn is_named(found: &str, name: &str) -> bool {
    let host = match found.rsplit_once(':') {
        Some((host, "443")) => host,
        _ => found,
    };
    is_same_host(host, name)
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full_body(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
