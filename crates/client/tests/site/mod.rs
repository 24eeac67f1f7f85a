//! A server behind TLS with a site's certificate, and a CONNECT proxy in front of it that leads every name to it.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arcadia_crypto::{IssuedLeaf, SiteCa};
use arcadia_kernel::Query;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A request as the fake server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub host: String,
    pub path: String,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn form(&self, name: &str) -> String {
        Query::parse(std::str::from_utf8(&self.body).unwrap()).first(name).unwrap_or("").to_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn bearer(&self) -> String {
        let value = self.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        value.and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned)).unwrap_or_default()
    }
}

pub type Answering = Response<Full<Bytes>>;

pub fn json(status: u16, body: serde_json::Value) -> Answering {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap()
}

pub struct Site {
    pub ca_pem: String,
    pub server: SocketAddr,
    pub proxy: SocketAddr,
    /// TLS connections accepted so far.
    pub connections: Arc<AtomicUsize>,
    /// `CONNECT` targets so far.
    pub tunnels: Arc<Mutex<Vec<String>>>,
}

pub const NAMES: [&str; 4] =
    ["login.microsoftonline.com", "management.azure.com", "gbl.his.arc.azure.com", "site.example.net"];

impl Site {
    /// `now` is the time its certificates are made for.
    pub async fn start<F>(now: i64, handler: F) -> Self
    where
        F: Fn(Seen) -> Answering + Send + Sync + 'static,
    {
        let ca = SiteCa::create("test site", &NAMES, &[], now, 10).unwrap();
        let leaf = ca.issue_server(&NAMES, &[], now, 30).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let tunnels = Arc::new(Mutex::new(Vec::new()));
        let server = serve(leaf, Arc::new(handler), connections.clone()).await;
        let proxy = serve_proxy(server, tunnels.clone()).await;
        Self { ca_pem: ca.certificate_pem(), server, proxy, connections, tunnels }
    }

    pub fn connection_count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve<F>(leaf: IssuedLeaf, handler: Arc<F>, connections: Arc<AtomicUsize>) -> SocketAddr
where
    F: Fn(Seen) -> Answering + Send + Sync + 'static,
{
    let chain = leaf.chain_der.into_iter().map(CertificateDer::from).collect();
    let key = PrivatePkcs8KeyDer::from(leaf.key_pkcs8_der.to_vec());
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key.into())
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, handler, connections) = (acceptor.clone(), handler.clone(), connections.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                connections.fetch_add(1, Ordering::SeqCst);
                let service = service_fn(move |request: Request<Incoming>| {
                    let handler = handler.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let host = parts.headers.get("host").unwrap().to_str().unwrap().to_owned();
                        let seen = Seen {
                            method: parts.method,
                            host,
                            path: parts.uri.path().to_owned(),
                            query: Query::parse(parts.uri.query().unwrap_or("")),
                            headers: parts.headers,
                            body,
                        };
                        Ok::<_, hyper::Error>(handler(seen))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = connection.await;
            });
        }
    });
    address
}

/// Answers 403 for `refused.example.net`, closes without an answer for `silent.example.net`, says something that is
/// no proxy's for `odd.example.net`; leads everything else to `server`.
async fn serve_proxy(server: SocketAddr, tunnels: Arc<Mutex<Vec<String>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let tunnels = tunnels.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
                assert!(head.contains(&format!("\r\nHost: {target}\r\n")), "{head}");
                tunnels.lock().unwrap().push(target.clone());
                match target.split('.').next().unwrap() {
                    "refused" => stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap(),
                    "odd" => stream.write_all(b"220 smtp ready\r\n\r\n").await.unwrap(),
                    "silent" => {}
                    _ => {
                        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                        let mut onward = TcpStream::connect(server).await.unwrap();
                        let _ = copy_bidirectional(&mut stream, &mut onward).await;
                    }
                }
            });
        }
    });
    address
}
