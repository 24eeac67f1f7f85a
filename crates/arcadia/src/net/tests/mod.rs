//! The proxy over real sockets, with a real TLS client that trusts the site's authority alone.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arcadia_crypto::SiteCa;
use arcadia_kernel::{Body, Clock, Endpoint, FixedClock, Incoming, OpInfo, full_body};
use http_body_util::BodyExt as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use panics::NoPanics;

use super::*;

mod limits;
mod panics;

const NOW: i64 = 1_800_000_000;

/// Says what it was asked, and for `/slow` only after a while.
struct Echo(&'static str);

impl Endpoint for Echo {
    fn serve(
        self: Arc<Self>,
        incoming: Incoming,
    ) -> Pin<Box<dyn Future<Output = http::Response<Body>> + Send>> {
        Box::pin(async move {
            if incoming.head.uri.path() == "/slow" {
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
            let body = incoming.body.collect().await.map(|body| body.to_bytes().len());
            let body = body.map_err(|error| error.is_too_slow());
            let text = format!(
                "{} {} {} {} {} {:?}",
                self.0, incoming.head.method, incoming.head.uri, incoming.host, incoming.origin, body
            );
            http::Response::new(full_body(text))
        })
    }

    fn service_name(&self) -> &'static str {
        self.0
    }

    fn catalogue(&self) -> Vec<OpInfo> {
        Vec::new()
    }
}

struct Fixture {
    address: SocketAddr,
    authority: Vec<u8>,
    drainer: Drainer,
    _no_panics: NoPanics,
}

async fn fixture() -> Fixture {
    fixture_with(Limits::default(), Outside::new(true, None)).await
}

/// A proxy for three services that say what they are asked, and the certificate of its authority.
pub fn echoing(limits: Limits, outside: Outside) -> (Arc<Proxy>, Vec<u8>) {
    let mut hosts = HostTable::default();
    hosts.serve("management.azure.com", Arc::new(Echo("arm")));
    hosts.serve("*.vault.azure.net", Arc::new(Echo("vault")));
    hosts.serve("*.blob.core.windows.net", Arc::new(Echo("blob")));
    let hosts = Arc::new(hosts);
    let ca = create_authority(&crate::names::SiteNames::azure(), "test", NOW).unwrap();
    let authority = ca.certificate_der().to_vec();
    let clock: Arc<dyn Clock> = Arc::new(FixedClock::at_epoch_seconds(NOW));
    let tls = SiteTls::new(ca, hosts.clone(), clock).unwrap();
    (Arc::new(Proxy { hosts, tls, outside, limits }), authority)
}

async fn fixture_with(limits: Limits, outside: Outside) -> Fixture {
    let (proxy, authority) = echoing(limits, outside);
    let listener = bind_loopback(0).unwrap();
    let address = listener.local_addr().unwrap();
    let (drainer, drain) = Drainer::new();
    let no_panics = NoPanics::watch();
    tokio::spawn(serve_tcp(listener, proxy, drain));
    Fixture { address, authority, drainer, _no_panics: no_panics }
}

#[derive(Debug)]
struct FixedTime;

impl rustls::time_provider::TimeProvider for FixedTime {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        Some(rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(NOW as u64)))
    }
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// A client's side of TLS that trusts one authority.
pub fn connector(authority: &[u8], alpn: &[&[u8]], sni: bool) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(FixedTime))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.enable_sni = sni;
    TlsConnector::from(Arc::new(config))
}

impl Fixture {
    fn connector(&self, alpn: &[&[u8]], sni: bool) -> TlsConnector {
        connector(&self.authority, alpn, sni)
    }

    /// The first answer of the proxy to `head`, and the stream.
    async fn ask(&self, head: &str) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => answer.push(byte),
                Err(_) => break,
            }
        }
        (String::from_utf8(answer).unwrap(), stream)
    }

    async fn tls(&self, connect: &str, name: &str, connector: TlsConnector) -> std::io::Result<Tls> {
        let (answer, stream) = self.ask(&format!("CONNECT {connect}:443 HTTP/1.0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        connector.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
    }

    async fn http1(&self, name: &str) -> Tls {
        self.tls(name, name, self.connector(&[b"http/1.1"], true)).await.unwrap()
    }
}

async fn exchange(stream: &mut Tls, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk).await.unwrap_or(0);
        answer.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let complete = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head
                .to_lowercase()
                .split_once("content-length: ")
                .map(|(_, rest)| rest.split("\r\n").next().unwrap_or_default().parse::<usize>().unwrap());
            length.is_some_and(|length| body.len() >= length)
        });
        if count == 0 || complete {
            return text;
        }
    }
}

#[tokio::test]
async fn own_names_are_answered_inside_the_tunnel() {
    let fixture = fixture().await;
    let mut stream = fixture.http1("kv1.vault.azure.net").await;
    let request = "GET /secrets/a?x=1 HTTP/1.1\r\nHost: KV1.vault.azure.net:443\r\n\r\n";
    let answer = exchange(&mut stream, request).await;
    assert!(
        answer.ends_with("vault GET /secrets/a?x=1 kv1.vault.azure.net https://kv1.vault.azure.net Ok(0)"),
        "{answer}"
    );
    // The connection is kept, and an absolute target is the same as a relative one.
    let request = "POST https://kv1.vault.azure.net/b HTTP/1.1\r\nHost: kv1.vault.azure.net\r\nContent-Length: 3\r\n\r\nabc";
    let answer = exchange(&mut stream, request).await;
    assert!(answer.contains("vault POST /b kv1") && answer.ends_with("Ok(3)"), "{answer}");
}

#[tokio::test]
async fn a_request_for_another_name_is_misdirected() {
    let fixture = fixture().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: management.azure.com\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\nHost: kv2.vault.azure.net\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\nHost: kv1.vault.azure.net:444\r\n\r\n", "421"),
        ("GET https://management.azure.com/ HTTP/1.1\r\nHost: kv1.vault.azure.net\r\n\r\n", "421"),
        ("GET https://kv1.vault.azure.net/ HTTP/1.1\r\nHost: management.azure.com\r\n\r\n", "421"),
        ("GET https://a@kv1.vault.azure.net/ HTTP/1.1\r\nHost: kv1.vault.azure.net\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: kv1.vault.azure.net\r\nHost: management.azure.com\r\n\r\n", "400"),
    ] {
        let mut stream = fixture.http1("kv1.vault.azure.net").await;
        let answer = exchange(&mut stream, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request} -> {answer}");
    }
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_offered() {
    let fixture = fixture().await;
    let connector = fixture.connector(&[b"h2", b"http/1.1"], true);
    let stream = fixture.tls("management.azure.com", "management.azure.com", connector).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    for (uri, status) in [("https://management.azure.com/x", 200), ("https://kv1.vault.azure.net/x", 421)] {
        let request = http::Request::get(uri).body(full_body("")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{uri}");
    }
}

#[tokio::test]
async fn names_that_are_not_served_have_no_certificate() {
    let fixture = fixture().await;
    for name in
        ["graph.microsoft.com", "a.b.vault.azure.net", "azcliprod.blob.core.windows.net", "example.com"]
    {
        let result = fixture.tls("kv1.vault.azure.net", name, fixture.connector(&[], true)).await;
        assert!(result.is_err(), "{name}");
    }
    // A hello without a name gets the certificate of the name that the proxy was asked for.
    let unnamed = |name| fixture.tls("kv1.vault.azure.net", name, fixture.connector(&[], false));
    unnamed("kv1.vault.azure.net").await.unwrap();
    assert!(unnamed("management.azure.com").await.is_err());
}

#[tokio::test]
async fn refusals_say_why() {
    let fixture = fixture().await;
    for (head, status, word) in [
        ("CONNECT azcliprod.blob.core.windows.net:443 HTTP/1.1\r\n\r\n", "403", "updates"),
        ("CONNECT dc.services.visualstudio.com:443 HTTP/1.0\r\n\r\n", "403", "telemetry"),
        ("CONNECT x.file.core.windows.net:443 HTTP/1.1\r\n\r\n", "403", "not serve"),
        ("CONNECT a.b.vault.azure.net:443 HTTP/1.1\r\n\r\n", "403", "not serve"),
        ("CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n", "403", "private network"),
        ("CONNECT localhost:443 HTTP/1.1\r\n\r\n", "403", "private network"),
        ("CONNECT [::1]:443 HTTP/1.1\r\n\r\n", "403", "private network"),
        ("CONNECT 169.254.169.254:443 HTTP/1.1\r\n\r\n", "403", "private network"),
        ("CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1\r\n\r\n", "403", "private network"),
        ("CONNECT management.azure.com:8443 HTTP/1.1\r\n\r\n", "403", "only port 443"),
        ("CONNECT example.com:443 HTTP/1.1\r\n\r\n", "403", "--offline"),
        ("GET http://127.0.0.1:40342/metadata/instance HTTP/1.1\r\nHost: x\r\n\r\n", "403", "HTTP_PROXY"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "400", "HTTPS_PROXY"),
        ("CONNECT nonsense HTTP/1.1\r\n\r\n", "400", "host:port"),
        ("\u{16}\u{3}\u{1}", "400", "method"),
    ] {
        let (answer, mut stream) = fixture.ask(head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?} -> {answer:?}");
        let mut body = String::new();
        stream.read_to_string(&mut body).await.unwrap();
        assert!(body.contains(word), "{head:?} -> {body:?}");
    }
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let fixture = fixture().await;
    let mut stream = fixture.http1("kv1.vault.azure.net").await;
    let long = "a".repeat(70 * 1024);
    let request = format!("GET / HTTP/1.1\r\nHost: kv1.vault.azure.net\r\nX: {long}\r\n\r\n");
    let answer = exchange(&mut stream, &request).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_takes_nothing_new() {
    let fixture = fixture().await;
    let mut idle = fixture.http1("kv1.vault.azure.net").await;
    let mut busy = fixture.http1("kv1.vault.azure.net").await;
    let slow = tokio::spawn(async move {
        exchange(&mut busy, "GET /slow HTTP/1.1\r\nHost: kv1.vault.azure.net\r\n\r\n").await
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let address = fixture.address;
    assert!(fixture.drainer.drain(Duration::from_secs(5)).await, "all finished");
    assert!(slow.await.unwrap().contains("vault GET /slow"));
    assert_eq!(idle.read(&mut [0]).await.unwrap_or(0), 0, "idle connections are closed");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
}

/// Resolves everything to a public address, which is then not connected to: the upstream proxy is.
struct Public;

#[async_trait::async_trait]
impl super::outside::Resolve for Public {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        Ok(vec![[1, 1, 1, 1].into()])
    }
}

#[tokio::test]
async fn other_hosts_go_through_the_upstream_proxy() {
    // An upstream that says what it was asked and then returns what it gets; it refuses one host.
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = upstream.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = upstream.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            if head.starts_with("CONNECT refused.example.com") {
                stream.write_all(b"HTTP/1.1 407 Who are you\r\n\r\n").await.unwrap();
                continue;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n").await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let upstream = Upstream::parse(&format!("http://me:secret@{at}"), "").unwrap();
    let outside = Outside::with_resolver(false, Some(upstream), Arc::new(Public));
    let fixture = fixture_with(Limits::default(), outside).await;

    let (answer, mut stream) = fixture.ask("CONNECT example.com:443 HTTP/1.0\r\n\r\nearly").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let expected = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\
                    Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\nearly";
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), expected);
    stream.write_all(b"later").await.unwrap();
    let mut got = [0; 5];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"later");

    let (answer, mut stream) = fixture.ask("CONNECT refused.example.com:443 HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let mut told = String::new();
    stream.read_to_string(&mut told).await.unwrap();
    assert!(told.contains("407") && !told.contains("secret"), "{told}");
}

#[test]
fn the_authority_certifies_nothing_else() {
    let ca: SiteCa = create_authority(&crate::names::SiteNames::azure(), "test", NOW).unwrap();
    for name in ["kv1.vault.azure.net", "management.azure.com", "gbl.his.arc.azure.com", "jwt.ms"] {
        assert!(ca.permits_dns(name), "{name}");
    }
    let withheld = [
        "x.queue.core.windows.net",
        "core.windows.net",
        "portal.azure.com",
        "x.guestconfiguration.azure.com",
    ];
    let others = ["microsoft.com", "packages.microsoft.com", "azure.com", "portal.office.com", "example.com"];
    for name in withheld.into_iter().chain(others) {
        assert!(!ca.permits_dns(name), "{name}");
    }
}
