//! Where the site listens: a TCP port of the loopback, and a socket file for machines with a network of their own.
//! Accepting is the same for everything that listens.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arcadia_kernel::{Place, Places, Waited};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};

use super::activity::Activity;
use super::bodies::Bodies;
use super::drain::Drain;
use super::proxy::{Peer, Proxy};
use super::stream::BoxStream;

/// Clients that the system keeps until they are accepted, as far as it lets (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// What the system's address of a socket file holds.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Rest after an accept that failed, for example because the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A client that is silent for this long is asked whether it is still there, ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// ... this often until it answers, ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// ... and this many times, before its connection ends: one whose machine or network is gone would have its place, or
/// its session with a database, for ever.
const KEEPALIVE_PROBES: u32 = 6;

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
    serve(Listener::Tcp(listener), proxy, drain, |proxy, stream, peer| Box::pin(proxy.serve(stream, peer)))
        .await;
}

/// Serves the proxy until the site stops.
pub async fn serve_unix(listener: UnixListener, proxy: Arc<Proxy>, drain: Drain) {
    serve(Listener::Unix(listener), proxy, drain, |proxy, stream, peer| Box::pin(proxy.serve(stream, peer)))
        .await;
}

/// Serves the site's names to clients that come without the proxy, until the site stops: TLS from the first byte.
pub async fn serve_tls(listener: TcpListener, proxy: Arc<Proxy>, drain: Drain) {
    let tls: Serve = |proxy, stream, peer| Box::pin(async move { proxy.serve_tls(stream, peer, None).await });
    serve(Listener::Tcp(listener), proxy, drain, tls).await;
}

type Serve = fn(Arc<Proxy>, BoxStream, Peer) -> Pin<Box<dyn Future<Output = ()> + Send>>;

async fn serve(listener: Listener, proxy: Arc<Proxy>, drain: Drain, serve: Serve) {
    let places = Places::new(proxy.limits.connections_max, proxy.limits.give_way_after);
    let bodies = Bodies::new(&proxy.limits, places.clone());
    let arrive = || Arc::new(Activity::new(Arc::downgrade(&bodies)));
    let stopping = drain.clone();
    let serve = |Accepted { stream, remote, visitor: activity }| {
        serve(proxy.clone(), stream, Peer { remote, drain: drain.clone(), activity })
    };
    accept(listener, places, stopping, arrive, serve).await;
}

pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(BoxStream, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                let _ = keep_alive(&stream);
                Ok((Box::new(stream), Some(peer.ip())))
            }
            Self::Unix(listener) => Ok((Box::new(listener.accept().await?.0), None)),
        }
    }
}

fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    sockopt::set_socket_keepalive(stream, true)
}

/// A connection that has a place.
pub struct Accepted<V> {
    pub stream: BoxStream,
    /// Its address, where it has one.
    pub remote: Option<IpAddr>,
    pub visitor: Arc<V>,
}

/// Accepts until the site stops. `arrive` is called for each connection, and `serve` once it has a place; a connection
/// that is told to give way is dropped.
pub async fn accept<V: Waited, F>(
    listener: Listener,
    places: Arc<Places<V>>,
    mut drain: Drain,
    arrive: impl Fn() -> Arc<V>,
    serve: impl Fn(Accepted<V>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let seated = tokio::select! {
            seated = seated(&listener, &places, &arrive) => seated,
            () = drain.requested() => return,
        };
        if let Some((accepted, place)) = seated {
            let served = serve(accepted);
            tokio::spawn(async move {
                if place.hold(served).await.is_none() {
                    tracing::debug!("a connection gave way to a new one");
                }
            });
        }
    }
}

/// The next connection, and a place for it.
async fn seated<V: Waited>(
    listener: &Listener,
    places: &Arc<Places<V>>,
    arrive: impl Fn() -> Arc<V>,
) -> Option<(Accepted<V>, Place<V>)> {
    match listener.accept().await {
        Ok((stream, remote)) => {
            let visitor = arrive();
            let place = places.take(visitor.clone()).await;
            Some((Accepted { stream, remote, visitor }, place))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            // It is a lack of file descriptors as a rule, and there are more where one gives way.
            places.make_room();
            tokio::time::sleep(ACCEPT_RETRY).await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the system has it: the state (1: established), and the timer (2: asks whether the client is there) with its
    /// hundredths of a second.
    fn timer(own: SocketAddr, client: SocketAddr) -> Option<u64> {
        let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let ends = format!(" 0100007F:{:04X} 0100007F:{:04X} ", own.port(), client.port());
        let row = table.lines().find(|row| row.contains(&ends))?;
        let fields: Vec<_> = row.split_whitespace().collect();
        let (kind, left) = fields[5].split_once(':').unwrap();
        (fields[3] == "01" && kind == "02").then(|| u64::from_str_radix(left, 16).unwrap())
    }

    #[tokio::test]
    async fn a_client_that_is_silent_is_asked_whether_it_is_there() {
        let listener = bind_loopback(0).unwrap();
        let own = listener.local_addr().unwrap();
        let client = TcpStream::connect(own).await.unwrap();
        let _accepted = Listener::Tcp(listener).accept().await.unwrap();
        let left = timer(own, client.local_addr().unwrap()).unwrap_or_else(|| panic!("nobody asks it"));
        assert!(left <= KEEPALIVE_IDLE.as_secs() * 100, "{left}");
    }
}
