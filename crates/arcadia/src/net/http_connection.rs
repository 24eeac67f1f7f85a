//! HTTP/1.1 and HTTP/2 inside the TLS of one name.

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arcadia_kernel::{Body, BodyError, Endpoint, Incoming, full_body};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::drain::Drain;
use super::hosts::fold_host;
use super::stream::{BoxStream, Requests, Timed};

/// Longest head of a request, in bytes: room for the largest token and the longest target.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients keep connections for a minute or more and fail when one ends under a new request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(100);
const STREAMS_MAX: u32 = 64;
/// What is still read of a body that nobody wants, and for how long.
const REST_BYTES_MAX: usize = 1024 * 1024;
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// One accepted connection: the name it is for and what answers there.
pub struct Connection {
    pub name: String,
    pub endpoint: Arc<dyn Endpoint>,
    pub remote: Option<IpAddr>,
    pub body_timeout: Duration,
}

/// Answers requests until the client or a drain ends the connection.
pub async fn serve(stream: TlsStream<BoxStream>, connection: Connection, drain: Drain) {
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let requests = Arc::new(Requests::default());
    let connection = Arc::new(connection);
    let service = service_fn({
        let (connection, requests) = (connection.clone(), requests.clone());
        move |request| {
            let (connection, running) = (connection.clone(), requests.begin());
            async move {
                let response = connection.answer(request).await;
                drop(running);
                Ok::<_, std::convert::Infallible>(response)
            }
        }
    });
    // HTTP/2 frames come at any time, so only HTTP/1 has a moment at which a head begins.
    let head_timeout = (!h2).then_some(HEAD_TIMEOUT);
    let stream = TokioIo::new(Timed::new(stream, IDLE_TIMEOUT, head_timeout, requests));
    let result = if h2 {
        let builder = http2_builder();
        let served = pin!(builder.serve_connection(stream, service));
        drive(served, drain, |served| served.graceful_shutdown()).await
    } else {
        let builder = http1_builder();
        let served = pin!(builder.serve_connection(stream, service));
        drive(served, drain, |served| served.graceful_shutdown()).await
    };
    if let Err(error) = result {
        tracing::debug!(name = connection.name, %error, "connection ended");
    }
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Silence and slow heads are bounded by `Timed`, which tells an idle connection from a slow one.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder.max_buf_size(HEAD_BYTES_MAX).max_header_size(HEAD_BYTES_MAX);
    builder.max_headers(HEADERS_MAX).keep_alive(true);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    builder.max_header_list_size(HEAD_BYTES_MAX as u32).max_concurrent_streams(STREAMS_MAX);
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
        if let Err(refusal) = self.check_name(&head) {
            return refusal;
        }
        // Past this point only the path counts; an absolute target has been compared already.
        if let Some(path) = head.uri.path_and_query().cloned()
            && head.uri.authority().is_some()
        {
            head.uri = http::Uri::from(path);
        }
        let body = TimedBody { inner: Some(body), alarm: Box::pin(tokio::time::sleep(self.body_timeout)) };
        let incoming = Incoming {
            head,
            body: body.boxed_unsync(),
            host: self.name.clone(),
            origin: format!("https://{}", self.name),
            remote: self.remote,
        };
        self.endpoint.clone().serve(incoming).await
    }

    /// The name a request is for must be the one of its connection: a client that mixes them up would be answered
    /// by the wrong service.
    fn check_name(&self, head: &http::request::Parts) -> Result<(), Response<Body>> {
        let misdirected = |text: String| plain(StatusCode::MISDIRECTED_REQUEST, text);
        let mut headers = head.headers.get_all(header::HOST).iter();
        let header = match (headers.next(), headers.next()) {
            (Some(_), Some(_)) => {
                return Err(plain(StatusCode::BAD_REQUEST, "The request has more than one Host header.\n"));
            }
            (Some(value), None) => value.to_str().ok(),
            (None, _) => None,
        };
        let Some(found) = head.uri.authority().map(http::uri::Authority::as_str).or(header) else {
            return Err(plain(StatusCode::BAD_REQUEST, "The request has no Host header.\n"));
        };
        let host = match found.rsplit_once(':') {
            Some((host, "443")) => host,
            _ => found,
        };
        if fold_host(host) == self.name {
            return Ok(());
        }
        let shown: String = found.chars().filter(|c| !c.is_control()).take(253).collect();
        Err(misdirected(format!(
            "This connection is for {}, and the request is for {shown}. Open a connection of its own for it.\n",
            self.name
        )))
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full_body(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A request body that must be complete in time.
///
/// An answer that does not depend on the body (a refusal) leaves before the body has arrived. To drop the body
/// then would reset the stream under the client, which may take that for a failure and not read the answer; so
/// what is left is read and forgotten, up to a bound.
struct TimedBody {
    /// There until it is dropped.
    inner: Option<hyper::body::Incoming>,
    alarm: Pin<Box<Sleep>>,
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        use hyper::body::Body as _;
        let Some(rest) = self.inner.take().filter(|inner| !inner.is_end_stream()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(REST_TIMEOUT, forget(rest)));
        }
    }
}

async fn forget(rest: hyper::body::Incoming) {
    let mut rest = Limited::new(rest, REST_BYTES_MAX);
    while let Some(Ok(_)) = rest.frame().await {}
}

impl hyper::body::Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError(error.into()))))
            }
            Poll::Pending => {
                std::task::ready!(self.alarm.as_mut().poll(cx));
                Poll::Ready(Some(Err(BodyError("it did not arrive in time".into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(hyper::body::Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, hyper::body::Incoming::size_hint)
    }
}
