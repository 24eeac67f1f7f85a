//! From an origin to a connection that requests can be sent on.

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ClientFault;
use crate::origin::{Origin, is_loopback};
use crate::proxy::{NoProxy, Proxy};

const HEADERS_MAX: usize = 100;
const HEADER_BYTES_MAX: usize = 64 * 1024;
const CONNECT_ANSWER_BYTES_MAX: usize = 8 * 1024;

pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// How connections are made; shared by all of a client's.
pub(crate) struct Connector {
    /// Missing when there is nobody to trust.
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) no_proxy: NoProxy,
}

impl Connector {
    pub(crate) async fn connect(&self, origin: &Origin) -> Result<Sender, ClientFault> {
        if !origin.secure {
            // Only ever this machine itself; a proxy has no part in that.
            debug_assert!(is_loopback(&origin.host));
            return handshake(tcp(&origin.host, origin.port, &origin.authority()).await?, origin).await;
        }
        let tls = self.tls.as_ref().ok_or_else(|| {
            ClientFault::Options(
                "no certificate authority is known; set SSL_CERT_FILE to a file of the roots to trust"
                    .to_owned(),
            )
        })?;
        let stream = match &self.proxy {
            Some(proxy) if !self.no_proxy.covers(&origin.host) => through(proxy, origin).await?,
            _ => tcp(&origin.host, origin.port, &origin.authority()).await?,
        };
        let name =
            ServerName::try_from(origin.host.clone()).map_err(|_| ClientFault::Url(origin.authority()))?;
        let stream = tls
            .connect(name, stream)
            .await
            .map_err(|source| ClientFault::Tls { host: origin.host.clone(), source })?;
        handshake(stream, origin).await
    }
}

async fn tcp(host: &str, port: u16, target: &str) -> Result<TcpStream, ClientFault> {
    let unreachable = |source| ClientFault::Unreachable { target: target.to_owned(), source };
    let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

/// Asks the proxy for a tunnel (RFC 9110 section 9.3.6).
async fn through(proxy: &Proxy, origin: &Origin) -> Result<TcpStream, ClientFault> {
    let target = origin.authority();
    let refused =
        |reason: String| ClientFault::Proxy { proxy: proxy.to_string(), target: target.clone(), reason };
    let mut stream = tcp(&proxy.host, proxy.port, &format!("the proxy {proxy}")).await?;
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| refused(error.to_string()))?;
    let mut answer = Vec::with_capacity(512);
    while !answer.ends_with(b"\r\n\r\n") {
        // A server behind the tunnel speaks only after our hello, so nothing follows the header yet; reading to its
        // end and finding more means that this is no tunnel.
        if answer.len() >= CONNECT_ANSWER_BYTES_MAX || answer.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
        let read = stream.read_buf(&mut answer).await.map_err(|error| refused(error.to_string()))?;
        if read == 0 {
            return Err(refused("it closed the connection without an answer".to_owned()));
        }
    }
    match connect_status(&answer) {
        Some(200..=299) if answer.ends_with(b"\r\n\r\n") => Ok(stream),
        Some(status) if !(200..=299).contains(&status) => Err(refused(format!("it answered {status}"))),
        _ => Err(refused("its answer is not that of an HTTP proxy".to_owned())),
    }
}

/// The status of `HTTP/1.x NNN ...`.
fn connect_status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let rest = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let digits = rest.split(' ').nth(1)?;
    (digits.len() == 3 && digits.bytes().all(|digit| digit.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

async fn handshake<S>(stream: S, origin: &Origin) -> Result<Sender, ClientFault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ClientFault::Broken { host: origin.host.clone(), source })?;
    let host = origin.host.clone();
    tokio::spawn(async move {
        // A fault is also reported to whoever waits for an answer; between answers it only ends the connection.
        if let Err(fault) = connection.await {
            tracing::debug!(host, %fault, "a connection ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_proxies() {
        assert_eq!(connect_status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(connect_status(b"HTTP/1.0 403\r\n\r\n"), Some(403));
        for answer in
            [&b"HTTP/1.1 2000 x\r\n"[..], b"SSH-2.0\r\n", b"", b"HTTP/2 200\r\n", b"HTTP/1.1 +20 x\r\n"]
        {
            assert_eq!(connect_status(answer), None);
        }
    }
}
