//! Where the proxy listens: a TCP port of the loopback, and a socket file for machines with a network of their own.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::drain::Drain;
use super::proxy::Proxy;
use super::stream::BoxStream;

/// The most connections at a time, of each listener; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 1024;
/// What the system's address of a socket file holds.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Rest after an accept that failed, for example because the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Binds 127.0.0.1 and `port` (0 for any free one).
pub async fn bind_loopback(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
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
    accept_tcp(listener, drain, |stream, peer, drain, slot| {
        spawn(proxy.clone(), stream, Some(peer), drain, slot);
    })
    .await;
}

/// Serves the site's names to clients that come without the proxy, until the site stops: TLS from the first byte.
pub async fn serve_tls(listener: TcpListener, proxy: Arc<Proxy>, drain: Drain) {
    accept_tcp(listener, drain, |stream, peer, drain, slot| {
        let proxy = proxy.clone();
        tokio::spawn(async move {
            proxy.serve_tls(stream, Some(peer), None, drain).await;
            drop(slot);
        });
    })
    .await;
}

async fn accept_tcp(
    listener: TcpListener,
    mut drain: Drain,
    serve: impl Fn(BoxStream, IpAddr, Drain, OwnedSemaphorePermit),
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.requested() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        serve(Box::new(stream), peer.ip(), drain.clone(), slot);
    }
}

/// Serves the proxy until the site stops.
pub async fn serve_unix(listener: UnixListener, proxy: Arc<Proxy>, mut drain: Drain) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.requested() => return,
        };
        match accepted {
            Ok((stream, _)) => spawn(proxy.clone(), Box::new(stream), None, drain.clone(), slot),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn spawn(
    proxy: Arc<Proxy>,
    stream: BoxStream,
    remote: Option<IpAddr>,
    drain: Drain,
    slot: OwnedSemaphorePermit,
) {
    tokio::spawn(async move {
        proxy.serve(stream, remote, drain).await;
        drop(slot);
    });
}
