//! Where the proxy listens: a TCP port of the loopback, and a socket file for machines with a network of their own.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::drain::Drain;
use super::places::{Place, Places};
use super::proxy::{Peer, Proxy};
use super::stream::BoxStream;

/// Clients that the system keeps until they are accepted, as far as it lets (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// What the system's address of a socket file holds.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Rest after an accept that failed, for example because the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Binds an address to be listened on.
pub fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of an earlier run that are still closing do not keep the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds 127.0.0.1 and `port` (0 for any free one).
pub fn bind_loopback(port: u16) -> io::Result<TcpListener> {
    bind_tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Binds a socket file that only its owner can connect to. A file left by an earlier run is replaced: the caller
/// holds the lock of the data directory it is in.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let told = "the path is too long for a socket; use a data directory with a shorter one";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the proxy until the site stops.
pub async fn serve_tcp(listener: TcpListener, proxy: Arc<Proxy>, drain: Drain) {
    accept(Listener::Tcp(listener), proxy, drain, |proxy, stream, peer| Box::pin(proxy.serve(stream, peer)))
        .await;
}

/// Serves the proxy until the site stops.
pub async fn serve_unix(listener: UnixListener, proxy: Arc<Proxy>, drain: Drain) {
    accept(Listener::Unix(listener), proxy, drain, |proxy, stream, peer| Box::pin(proxy.serve(stream, peer)))
        .await;
}

/// Serves the site's names to clients that come without the proxy, until the site stops: TLS from the first byte.
pub async fn serve_tls(listener: TcpListener, proxy: Arc<Proxy>, drain: Drain) {
    let serve: Serve =
        |proxy, stream, peer| Box::pin(async move { proxy.serve_tls(stream, peer, None).await });
    accept(Listener::Tcp(listener), proxy, drain, serve).await;
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(BoxStream, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), Some(peer.ip())))
            }
            Self::Unix(listener) => Ok((Box::new(listener.accept().await?.0), None)),
        }
    }
}

type Serve = fn(Arc<Proxy>, BoxStream, Peer) -> Pin<Box<dyn Future<Output = ()> + Send>>;

async fn accept(listener: Listener, proxy: Arc<Proxy>, mut drain: Drain, serve: Serve) {
    let places = Places::new(&proxy.limits);
    loop {
        let accepted = tokio::select! {
            accepted = seated(&listener, &places) => accepted,
            () = drain.requested() => return,
        };
        if let Some((stream, remote, place)) = accepted {
            let peer = Peer { remote, drain: drain.clone(), activity: place.activity.clone() };
            tokio::spawn(place.hold(serve(proxy.clone(), stream, peer)));
        }
    }
}

/// The next connection, and a place for it.
async fn seated(listener: &Listener, places: &Arc<Places>) -> Option<(BoxStream, Option<IpAddr>, Place)> {
    match listener.accept().await {
        Ok((stream, remote)) => Some((stream, remote, places.take().await?)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            // It is a lack of file descriptors as a rule, and there are more where one gives way.
            places.make_room();
            tokio::time::sleep(ACCEPT_RETRY).await;
            None
        }
    }
}
