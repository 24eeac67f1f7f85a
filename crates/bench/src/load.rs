//! The load generator: keep-alive connections of HTTP/1.1, bounded in count and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::loopback::LoopbackTarget;
use crate::process::Meter;

const CONNECTIONS_MAX: usize = 1024;
const TIME_MAX: Duration = Duration::from_secs(120);
const REQUESTS_MAX: u64 = 5_000_000;
/// How long the last requests of a run may take.
const PATIENCE: Duration = Duration::from_secs(60);
const SHOWN_BYTES_MAX: usize = 400;

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Ask {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub fn with_body(method: Method, path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method, path: path.into(), headers: HeaderMap::new(), body: body.into() }
    }

    pub fn header(mut self, name: header::HeaderName, value: &str) -> Result<Self> {
        self.headers.insert(name, value.parse()?);
        Ok(self)
    }

    pub fn bearer(self, token: &str) -> Result<Self> {
        self.header(header::AUTHORIZATION, &format!("Bearer {token}"))
    }

    pub fn json(self) -> Result<Self> {
        self.header(header::CONTENT_TYPE, "application/json")
    }

    pub fn form(self) -> Result<Self> {
        self.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
    }
}

/// A peer: where it is, by which name it is asked, and whose certificate is trusted.
#[derive(Clone)]
pub struct Peer {
    pub target: LoopbackTarget,
    /// In the TLS hello and the `Host` header.
    pub name: String,
    pub trust: Arc<rustls::ClientConfig>,
}

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    connections: usize,
    time: Duration,
    requests: u64,
    is_fresh: bool,
}

impl Load {
    /// Until the time is over.
    pub fn lasting(connections: usize, time: Duration) -> Result<Self> {
        Self::new(connections, time, REQUESTS_MAX)
    }

    /// So many requests, or until the time is over.
    pub fn new(connections: usize, time: Duration, requests: u64) -> Result<Self> {
        ensure!((1..=CONNECTIONS_MAX).contains(&connections), "1 to {CONNECTIONS_MAX} connections");
        ensure!(time <= TIME_MAX, "load lasts at most {} s", TIME_MAX.as_secs());
        ensure!(requests <= REQUESTS_MAX, "load is at most {REQUESTS_MAX} requests");
        Ok(Self { connections, time, requests, is_fresh: false })
    }

    /// A new connection for every request, without resumption of TLS sessions.
    pub fn fresh(mut self) -> Self {
        self.is_fresh = true;
        self
    }

    /// Asks, and takes no other answer than `expected`. `ask` makes the n-th request. `meter` is read when all
    /// connections stand and when the last answer is there.
    pub async fn run(
        self,
        peer: &Peer,
        meter: &Meter,
        expected: StatusCode,
        ask: impl Fn(u64) -> Ask + Send + Sync + 'static,
    ) -> Result<Loaded> {
        let shared = Arc::new(Shared {
            load: self,
            peer: peer.clone(),
            expected,
            next: AtomicU64::new(0),
            ready: Barrier::new(self.connections + 1),
            go: Barrier::new(self.connections + 1),
            ask: Box::new(ask),
        });
        let mut running = JoinSet::new();
        for _ in 0..self.connections {
            running.spawn(client(shared.clone()));
        }
        let all = async {
            tokio::select! {
                _ = shared.ready.wait() => {}
                // A client that ends before it stands has failed.
                Some(failed) = running.join_next() => {
                    failed??;
                    bail!("a client ended before it began");
                }
            }
            let (cpu, start) = (meter.cpu()?, Instant::now());
            shared.go.wait().await;
            let mut loaded = Loaded::default();
            while let Some(done) = running.join_next().await {
                let done = done??;
                loaded.latencies.extend(done.latencies);
                loaded.body_bytes += done.body_bytes;
            }
            loaded.elapsed = start.elapsed();
            loaded.cpu = meter.cpu()?.saturating_sub(cpu);
            loaded.latencies.sort_unstable();
            ensure!(!loaded.latencies.is_empty(), "nothing was answered");
            Ok(loaded)
        };
        let result = tokio::time::timeout(self.time + PATIENCE, Box::pin(all)).await;
        result.with_context(|| format!("{} does not answer in time", peer.target))?
    }
}

/// What a run saw.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub elapsed: Duration,
    /// Of the metered processes.
    pub cpu: Duration,
    pub body_bytes: u64,
    /// Of every request, in order of length.
    latencies: Vec<Duration>,
}

impl Loaded {
    pub fn requests(&self) -> u64 {
        self.latencies.len() as u64
    }

    pub fn per_second(&self) -> f64 {
        self.requests() as f64 / self.elapsed.as_secs_f64()
    }

    /// Processor time a request, in microseconds.
    pub fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests() as f64
    }

    /// The latency that `share` of the requests stay below, in milliseconds.
    pub fn quantile_millis(&self, share: f64) -> f64 {
        let at = ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

struct Shared {
    load: Load,
    peer: Peer,
    expected: StatusCode,
    next: AtomicU64,
    ready: Barrier,
    go: Barrier,
    ask: Box<dyn Fn(u64) -> Ask + Send + Sync>,
}

#[derive(Default)]
struct Done {
    latencies: Vec<Duration>,
    body_bytes: u64,
}

async fn client(shared: Arc<Shared>) -> Result<Done> {
    let Shared { load, peer, .. } = &*shared;
    let mut kept = if load.is_fresh { None } else { Some(connect(peer).await?) };
    shared.ready.wait().await;
    shared.go.wait().await;
    let until = Instant::now() + load.time;
    let mut done = Done::default();
    while Instant::now() < until {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= load.requests {
            break;
        }
        let ask = (shared.ask)(number);
        let start = Instant::now();
        let (status, body) = match &mut kept {
            Some(sender) => exchange(sender, peer, ask).await?,
            None => exchange(&mut connect(peer).await?, peer, ask).await?,
        };
        done.latencies.push(start.elapsed());
        done.body_bytes += body.len() as u64;
        if status != shared.expected {
            let shown = &body[..body.len().min(SHOWN_BYTES_MAX)];
            bail!("{} answers {status}: {}", peer.name, String::from_utf8_lossy(shown));
        }
    }
    Ok(done)
}

/// A connection that is ready for requests.
pub async fn connect(peer: &Peer) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(peer.target.address()).await?;
    stream.set_nodelay(true)?;
    if !peer.target.is_tls() {
        return shake(stream).await;
    }
    let name = ServerName::try_from(peer.name.clone())?;
    shake(TlsConnector::from(peer.trust.clone()).connect(name, stream).await?).await
}

async fn shake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender; a failure shows in the request it befalls.
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends one request over a connection and reads the whole answer.
pub async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    peer: &Peer,
    ask: Ask,
) -> Result<(StatusCode, Bytes)> {
    let response = send(sender, peer, ask).await?;
    let status = response.status();
    let mut body = response.into_body();
    // One frame is the usual case, and needs no copy.
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                rest.extend_from_slice(&data);
            }
        }
    }
    if rest.is_empty() {
        return Ok((status, first));
    }
    Ok((status, [first.as_ref(), &rest].concat().into()))
}

/// Sends one request and hands out the answer as it begins.
pub async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    peer: &Peer,
    ask: Ask,
) -> Result<http::Response<Incoming>> {
    let mut request = Request::new(Full::new(ask.body));
    *request.method_mut() = ask.method;
    *request.uri_mut() = ask.path.parse().context("a path")?;
    *request.headers_mut() = ask.headers;
    request.headers_mut().insert(header::HOST, peer.name.parse()?);
    sender.ready().await?;
    Ok(sender.send_request(request).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_has_bounds() {
        let second = Duration::from_secs(1);
        assert!(Load::lasting(32, second).is_ok());
        assert!(Load::lasting(0, second).is_err());
        assert!(Load::lasting(CONNECTIONS_MAX + 1, second).is_err());
        assert!(Load::lasting(1, TIME_MAX + second).is_err());
        assert!(Load::new(1, second, REQUESTS_MAX + 1).is_err());
    }

    #[test]
    fn quantiles_are_of_the_requests() {
        let latencies = (1..=100).map(Duration::from_millis).collect();
        let loaded = Loaded {
            latencies,
            elapsed: Duration::from_secs(2),
            cpu: Duration::from_millis(1),
            ..Loaded::default()
        };
        assert_eq!(loaded.quantile_millis(0.5), 51.0);
        assert_eq!(loaded.quantile_millis(1.0), 100.0);
        assert_eq!((loaded.per_second(), loaded.cpu_micros()), (50.0, 10.0));
    }
}
