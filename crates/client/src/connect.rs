//! From an origin to a connection that requests can be sent on.

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ClientFault;
use crate::origin::{Origin, is_loopback};
use crate::proxy::{NoProxy, Proxy};

const HEADERS_MAX: usize = 100;
const HEADER_BYTES_MAX: usize = 64 * 1024;

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
            Some(proxy) if !self.no_proxy.covers(&origin.host) => {
                proxy.tunnel(&origin.host, origin.port).await?
            }
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

pub(crate) async fn tcp(host: &str, port: u16, target: &str) -> Result<TcpStream, ClientFault> {
    let unreachable = |source| ClientFault::Unreachable { target: target.to_owned(), source };
    let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
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
