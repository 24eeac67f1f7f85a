//! Where database servers are reached: port 5432 of a loopback address of the site's own, and a socket file for
//! machines with a network of their own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arcadia_kernel::{GIVE_WAY_AFTER, Places, Progress};
use arcadia_postgres::Gateway;
use tokio::net::{TcpListener, UnixListener};

use super::drain::Drain;
use super::listen::{Accepted, Listener, accept};

/// The port that connection strings name.
pub const DATABASE_PORT: u16 = 5432;
/// Nothing else listens there, so that nothing loses its port. Machines have this address for themselves.
pub const FIRST_DATABASE_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 40, 34, 2);
/// Sites on one machine have one address each.
const ADDRESSES: u8 = 32;
/// Of each listener.
const CONNECTIONS_MAX: usize = 1024;

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
                serve(Listener::Tcp(tcp), gateway.clone(), drain.clone()).await;
            }
        };
        tokio::join!(over_tcp, serve(Listener::Unix(unix), gateway.clone(), drain.clone()));
    };
    std::thread::Builder::new().name("databases".to_owned()).spawn(move || runtime.block_on(serving))?;
    Ok(())
}

/// Sessions last for as long as clients like, so a site that stops cuts them; what is not committed is undone.
async fn serve(listener: Listener, gateway: Arc<Gateway>, drain: Drain) {
    let places = Places::new(CONNECTIONS_MAX, GIVE_WAY_AFTER);
    let stopping = drain.clone();
    let serve = |Accepted { stream, remote, visitor: progress }| {
        let (gateway, mut drain) = (gateway.clone(), drain.clone());
        async move {
            tokio::select! {
                () = gateway.serve(stream, remote, &progress) => {}
                () = drain.requested() => {}
            }
        }
    };
    accept(listener, places, stopping, Progress::begin, serve).await;
}
