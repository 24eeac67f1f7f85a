//! The proxy by which the site itself reaches the Internet, where there is one.

#[cfg(test)]
mod fuzz;

use std::fmt;
use std::io;

use arcadia_crypto::b64;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::hosts::fold_host;
use super::request_head::parse_authority;

const ANSWER_BYTES_MAX: usize = 16 * 1024;
const DEFAULT_PORT: u16 = 80;
const BYPASS_ENTRIES_MAX: usize = 256;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamFault {
    #[error("`{0}` is not the address of an HTTP proxy; write it as http://host:port")]
    Address(String),
    #[error("a proxy that is itself reached by TLS ({0}) is not supported; use its http:// address")]
    Tls(String),
}

/// An HTTP proxy and the hosts that are reached without it.
#[derive(Clone)]
pub struct Upstream {
    host: String,
    port: u16,
    authorization: Option<String>,
    bypass: Vec<String>,
}

impl Upstream {
    /// Reads `http://[user:password@]host[:port]` (`http://` may be absent) and a `NO_PROXY` list.
    pub fn parse(proxy: &str, no_proxy: &str) -> Result<Self, UpstreamFault> {
        let shown = || without_credentials(proxy);
        let rest = match proxy.split_once("://") {
            None => proxy,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(UpstreamFault::Tls(shown()));
            }
            Some(_) => return Err(UpstreamFault::Address(shown())),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let (host, port) = parse_authority(address)
            .or_else(|| parse_authority(&format!("{address}:{DEFAULT_PORT}")))
            .ok_or_else(|| UpstreamFault::Address(shown()))?;
        let authorization = user.map(|user| format!("Basic {}", b64(&percent_decoded(user))));
        let bypass = no_proxy
            .split([',', ' '])
            .map(|entry| entry.trim().trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase())
            .filter(|entry| !entry.is_empty())
            .take(BYPASS_ENTRIES_MAX)
            .collect();
        Ok(Self { host, port, authorization, bypass })
    }

    /// Whether this is a proxy at `port` of this machine's loopback: the site itself, if that is its port.
    pub fn is_loopback_port(&self, port: u16) -> bool {
        let loopback = self.host == "localhost"
            || self.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        loopback && self.port == port
    }

    /// Whether `host` is reached without this proxy.
    pub fn bypasses(&self, host: &str) -> bool {
        let host = fold_host(host);
        self.bypass.iter().any(|entry| {
            entry == "*"
                || host
                    .strip_suffix(entry.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    /// A tunnel through the proxy.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        read_answer(&mut stream).await?;
        Ok(stream)
    }
}

/// Reads the proxy's answer to its blank line and not a byte further: what follows belongs to the tunnel.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err(io::Error::other("the upstream proxy's answer is too long"));
        }
        answer.push(stream.read_u8().await?);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut parts = line.split(' ');
    let (version, status) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if version.starts_with("HTTP/1.") && matches!(status.as_bytes(), [b'2', b'0'..=b'9', b'0'..=b'9']) {
        return Ok(());
    }
    let shown: String = line.chars().filter(|c| !c.is_control()).take(100).collect();
    Err(io::Error::other(format!("the upstream proxy answered `{shown}`")))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    out
}

fn without_credentials(address: &str) -> String {
    match (address.rsplit_once('@'), address.split_once("://")) {
        (Some((_, host)), Some((scheme, _))) => format!("{scheme}://{host}"),
        (Some((_, host)), None) => host.to_owned(),
        (None, _) => address.to_owned(),
    }
}

/// Shows no credentials.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        let shown = |text: &str| Upstream::parse(text, "").map(|upstream| upstream.to_string());
        assert_eq!(shown("http://proxy.corp:3128").unwrap(), "http://proxy.corp:3128");
        assert_eq!(shown("http://proxy.corp:3128/").unwrap(), "http://proxy.corp:3128");
        assert_eq!(shown("proxy.corp:3128").unwrap(), "http://proxy.corp:3128");
        assert_eq!(shown("HTTP://10.0.0.1").unwrap(), "http://10.0.0.1:80");
        let with_user = Upstream::parse("http://me:p%40ss@proxy.corp:3128", "").unwrap();
        assert_eq!(with_user.to_string(), "http://proxy.corp:3128");
        assert_eq!(with_user.authorization.unwrap(), "Basic bWU6cEBzcw==");
        assert_eq!(
            shown("https://u:secret@p:1").unwrap_err(),
            UpstreamFault::Tls("https://p:1".into()),
            "and the credentials are not shown"
        );
        assert!(shown("socks5://p:1").is_err());
        assert!(shown("http://").is_err());
    }

    #[test]
    fn hosts_that_need_no_proxy() {
        let upstream = Upstream::parse("p:1", "localhost, .corp.example,*.lab.example,10.0.0.1").unwrap();
        for host in ["localhost", "corp.example", "a.corp.example", "x.y.lab.example", "10.0.0.1"] {
            assert!(upstream.bypasses(host), "{host}");
        }
        for host in ["notcorp.example", "example", "example.com"] {
            assert!(!upstream.bypasses(host), "{host}");
        }
        assert!(Upstream::parse("p:1", "*").unwrap().bypasses("example.com"));
    }

    #[test]
    fn the_site_itself_is_recognized() {
        assert!(Upstream::parse("http://127.0.0.1:8440", "").unwrap().is_loopback_port(8440));
        assert!(Upstream::parse("http://localhost:8440", "").unwrap().is_loopback_port(8440));
        assert!(!Upstream::parse("http://127.0.0.1:3128", "").unwrap().is_loopback_port(8440));
    }
}
