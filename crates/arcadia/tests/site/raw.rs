//! Clients that send what they like, byte by byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::Site;

/// Longer than a loaded machine takes for anything, and shorter than a test may hang.
pub const PATIENCE: Duration = Duration::from_secs(40);
pub const LOGIN_HOST: &str = "login.microsoftonline.com";
pub const ARM_HOST: &str = "management.azure.com";

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Where a site is, and what its clients trust.
#[derive(Clone)]
pub struct Door {
    pub proxy: SocketAddr,
    roots: Arc<RootCertStore>,
}

impl Door {
    pub fn of(site: &Site) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(site.data.join("ca.pem")).unwrap()).unwrap();
        let proxy = site.proxy().strip_prefix("http://").unwrap().parse().unwrap();
        Self { proxy, roots: Arc::new(roots) }
    }

    /// A connection to the proxy.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.proxy)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Through the proxy to one of the site's names.
    pub fn tunnel(&self, host: &str) -> io::Result<TcpStream> {
        let mut stream = self.connect()?;
        write!(stream, "CONNECT {host}:443 HTTP/1.1\r\n\r\n")?;
        let answer = head(&mut stream)?;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        Ok(stream)
    }

    pub fn tls(&self, host: &str, protocol: &[u8]) -> io::Result<Tls> {
        let stream = self.tunnel(host)?;
        self.tls_over(stream, host, protocol)
    }

    pub fn tls_over(&self, mut stream: TcpStream, host: &str, protocol: &[u8]) -> io::Result<Tls> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    /// What the site says to `request` on a connection of its own, until it closes or has answered once.
    pub fn answer(&self, host: &str, request: &[u8]) -> String {
        let mut stream = self.tls(host, b"http/1.1").unwrap();
        // A refusal may leave, and the connection end, before everything was sent.
        let _ = stream.write_all(request).and_then(|()| stream.flush());
        whole(&mut stream).unwrap_or_default()
    }

    /// A well-behaved client: a small request, answered as always.
    pub fn is_served(&self) -> io::Result<()> {
        let mut stream = self.tls(LOGIN_HOST, b"http/1.1")?;
        write!(stream, "GET /common/discovery/v2.0/keys HTTP/1.1\r\nHost: {LOGIN_HOST}\r\n\r\n")?;
        let answer = whole(&mut stream)?;
        if answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"keys\"") {
            return Ok(());
        }
        Err(io::Error::other(answer))
    }
}

/// Reads to the blank line, or to the end.
pub fn head(stream: &mut impl Read) -> io::Result<String> {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Reads one answer and its body, by its length or in chunks; less where the connection ends.
pub fn whole(stream: &mut impl Read) -> io::Result<String> {
    let head = head(stream)?;
    let field = |name: &str| {
        let lower = head.to_ascii_lowercase();
        let found = lower.split_once(&format!("\r\n{name}: "));
        found.map(|(_, rest)| rest.split("\r\n").next().unwrap_or_default().to_owned())
    };
    let mut body = Vec::new();
    if let Some(length) = field("content-length") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body)?;
    } else if field("transfer-encoding").is_some() {
        while !body.ends_with(b"0\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            body.push(byte[0]);
        }
    }
    Ok(head + &String::from_utf8_lossy(&body))
}

/// Waits until the other side ends the connection.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}
