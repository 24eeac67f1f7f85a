//! A small HTTPS client through the site's proxy, which tells what was surely not sent from what is in doubt.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An answer that takes longer counts as none.
const ANSWER_SECONDS_MAX: u64 = 60;
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const CONNECT_ANSWER_BYTES_MAX: usize = 8 * 1024;

/// The way to a site: its proxy on this machine's loopback, and its authority alone to trust.
#[derive(Clone)]
pub struct Way {
    proxy: SocketAddr,
    tls: TlsConnector,
}

impl Way {
    /// `proxy` as `arcadia status` tells it. An address that is not this machine's loopback is refused.
    pub fn to(proxy: &str, authority: &Path) -> Result<Self> {
        let address = proxy.strip_prefix("http://").unwrap_or(proxy).trim_end_matches('/');
        let proxy: SocketAddr =
            address.parse().with_context(|| format!("{proxy} is not a literal address"))?;
        ensure!(
            proxy.ip().is_loopback(),
            "{proxy} is not this machine's loopback; only a site there is tried"
        );
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).context("the site's ca.pem")?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { proxy, tls: TlsConnector::from(Arc::new(config)) })
    }

    pub fn client(&self) -> Client {
        Client { way: self.clone(), open: HashMap::new() }
    }

    async fn connect(&self, host: &str) -> Result<SendRequest<Full<Bytes>>> {
        let mut stream = TcpStream::connect(self.proxy).await?;
        stream.set_nodelay(true)?;
        let hello = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n");
        stream.write_all(hello.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            ensure!(answer.len() < CONNECT_ANSWER_BYTES_MAX, "the proxy's answer does not end");
            ensure!(stream.read_buf(&mut answer).await? > 0, "the proxy closed the connection");
        }
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            bail!(
                "the proxy answered {}",
                String::from_utf8_lossy(&answer).lines().next().unwrap_or_default()
            );
        }
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TokioIo::new(self.tls.connect(name, stream).await?);
        let (sender, connection) = http1::handshake(stream).await?;
        // Its end is told to whoever waits for an answer.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Status and body in a line, for people.
    pub fn told(&self) -> String {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(300).collect();
        format!("{} {body}", self.status)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Silence {
    /// Nothing was sent.
    Unsent(anyhow::Error),
    /// It may have been done or not.
    Doubt(String),
}

impl std::fmt::Display for Silence {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsent(error) => write!(formatter, "nothing was sent: {error:#}"),
            Self::Doubt(reason) => write!(formatter, "no answer: {reason}"),
        }
    }
}

impl std::error::Error for Silence {}

/// A request to one of the site's names.
pub struct Ask {
    method: Method,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Ask {
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: Bytes::new() }
    }

    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").bytes(body.to_string())
    }

    pub fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// Keeps one connection for each name. Not shared: every writer has its own.
pub struct Client {
    way: Way,
    open: HashMap<String, SendRequest<Full<Bytes>>>,
}

impl Client {
    pub async fn send(&mut self, ask: Ask) -> Result<Answer, Silence> {
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        let (host, request) = request(ask).map_err(Silence::Unsent)?;
        let mut sender = self.sender(&host).await.map_err(Silence::Unsent)?;
        let doubt = |error: &dyn std::fmt::Display| Silence::Doubt(error.to_string());
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| doubt(&error))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| doubt(&error))?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        let answer = tokio::time::timeout(limit, exchange)
            .await
            .map_err(|_| Silence::Doubt(format!("{ANSWER_SECONDS_MAX} s without an answer")))??;
        self.open.insert(host, sender);
        Ok(answer)
    }

    /// Sends, and fails unless the status is one of success; the JSON of the answer.
    pub async fn must(&mut self, ask: Ask) -> Result<Value> {
        let what = format!("{} {}", ask.method, ask.url);
        let answer = self.send(ask).await.with_context(|| what.clone())?;
        ensure!(answer.status.is_success(), "{what}: {}", answer.told());
        Ok(answer.json())
    }

    async fn sender(&mut self, host: &str) -> Result<SendRequest<Full<Bytes>>> {
        if let Some(mut kept) = self.open.remove(host)
            && kept.ready().await.is_ok()
        {
            return Ok(kept);
        }
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        tokio::time::timeout(limit, self.way.connect(host)).await.context("no connection in time")?
    }
}

fn request(ask: Ask) -> Result<(String, Request<Full<Bytes>>)> {
    let uri: http::Uri = ask.url.parse().with_context(|| ask.url.clone())?;
    let host =
        uri.host().filter(|_| uri.scheme_str() == Some("https")).context("only https is asked")?.to_owned();
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let says_empty = ask.body.is_empty() && ask.method == Method::PUT;
    let mut request = Request::builder().method(ask.method).uri(path).header(header::HOST, &host);
    // Hyper leaves out the length of an empty body, which a blob is not made of then.
    if says_empty {
        request = request.header("content-length", "0");
    }
    for (name, value) in ask.headers {
        request = request.header(name, value);
    }
    Ok((host, request.body(Full::new(ask.body))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_site_on_this_machine_is_tried() {
        for far in
            ["http://10.0.0.1:8440", "http://169.254.169.254:80", "http://0.0.0.0:1", "localhost:1", "[::]:1"]
        {
            let error = Way::to(far, Path::new("/nowhere")).err().unwrap().to_string();
            assert!(error.contains("loopback") || error.contains("literal"), "{far}: {error}");
        }
        let near = Way::to("http://127.0.0.1:8440", Path::new("/nowhere")).err().unwrap().to_string();
        assert!(near.contains("ca.pem"), "{near}");
    }

    #[test]
    fn plain_http_is_not_asked() {
        assert!(request(Ask::get("http://127.0.0.1/")).is_err());
        let (host, request) = request(Ask::get("https://a.test/b?c=d")).unwrap();
        assert_eq!((host.as_str(), request.uri().to_string().as_str()), ("a.test", "/b?c=d"));
    }
}
