//! Where database servers are reached: port 5432 of a loopback address of the site's own, and a socket file for
//! machines with a network of their own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arcadia_postgres::Gateway;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::drain::Drain;
use super::stream::BoxStream;

/// The port that connection strings name.
pub const DATABASE_PORT: u16 = 5432;
/// Nothing else listens there, so that nothing loses its port. Machines have this address for themselves.
pub const FIRST_DATABASE_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 40, 34, 2);
/// Sites on one machine have one address each.
const ADDRESSES: u8 = 32;
const CONNECTIONS_MAX: usize = 1024;
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Binds the first free address; those of `preferred` come before all others. The address is told by `arcadia env`
/// (PGHOSTADDR), and the port stays the one that connection strings name.
pub async fn bind_databases(preferred: impl IntoIterator<Item = IpAddr>) -> io::Result<TcpListener> {
    let [a, b, c, first] = FIRST_DATABASE_ADDRESS.octets();
    let own = (0..ADDRESSES).map(|at| IpAddr::V4(Ipv4Addr::new(a, b, c, first + at)));
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for address in preferred.into_iter().chain(own) {
        match TcpListener::bind(SocketAddr::new(address, DATABASE_PORT)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Accepts on both until the site stops. On a thread of its own: a session passes small messages to and fro, and
/// to wake another thread for each costs more than to carry it.
pub fn serve_databases(
    tcp: Option<TcpListener>,
    unix: UnixListener,
    gateway: Arc<Gateway>,
    drain: Drain,
) -> io::Result<()> {
    let tcp = tcp.map(TcpListener::into_std).transpose()?;
    let unix = unix.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serving = async move {
        // They belong to the thread that made them until they are made anew.
        let listeners = tcp
            .map(TcpListener::from_std)
            .transpose()
            .and_then(|tcp| Ok((tcp, UnixListener::from_std(unix)?)));
        let (tcp, unix) = match listeners {
            Ok(listeners) => listeners,
            Err(error) => return tracing::error!(%error, "databases are not reached"),
        };
        let over_tcp = async {
            if let Some(tcp) = tcp {
                serve_tcp(tcp, gateway.clone(), drain.clone()).await;
            }
        };
        tokio::join!(over_tcp, serve_unix(unix, gateway.clone(), drain.clone()));
    };
    std::thread::Builder::new().name("databases".to_owned()).spawn(move || runtime.block_on(serving))?;
    Ok(())
}

async fn serve_tcp(listener: TcpListener, gateway: Arc<Gateway>, mut drain: Drain) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.requested() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                spawn(gateway.clone(), Box::new(stream), Some(peer.ip()), drain.clone(), slot);
            }
            Err(error) => {
                tracing::warn!(%error, "a database connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn serve_unix(listener: UnixListener, gateway: Arc<Gateway>, mut drain: Drain) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.requested() => return,
        };
        match accepted {
            Ok((stream, _)) => spawn(gateway.clone(), Box::new(stream), None, drain.clone(), slot),
            Err(error) => {
                tracing::warn!(%error, "a database connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Sessions last for as long as clients like, so a site that stops cuts them; what is not committed is undone.
fn spawn(
    gateway: Arc<Gateway>,
    stream: BoxStream,
    remote: Option<IpAddr>,
    mut drain: Drain,
    slot: OwnedSemaphorePermit,
) {
    tokio::spawn(async move {
        tokio::select! {
            () = gateway.serve(stream, remote) => {}
            () = drain.requested() => {}
        }
        drop(slot);
    });
}
