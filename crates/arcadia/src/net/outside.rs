//! Tunnels to hosts that are not the site's: by name or address, to port 443 of the public Internet only.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::hosts::fold_host;
use super::lookups::Lookups;
use super::proxy::Peer;
use super::public_address::is_public;
use super::stream::{BoxStream, Timed};
use super::upstream::Upstream;

pub const TUNNEL_PORT: u16 = 443;
/// For a name's turn to be looked up.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Why a host is not connected to.
#[derive(Debug)]
pub enum Refusal {
    Offline,
    NotPublic,
    Unknown,
    Unreachable(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline => f.write_str("the site was started with --offline and carries nothing outside"),
            Self::NotPublic => f.write_str(
                "it is an address of this machine or of a private network, which the proxy never connects to; \
                 add it to NO_PROXY to reach it directly",
            ),
            Self::Unknown => f.write_str("its name does not resolve here"),
            Self::Unreachable(error) => write!(f, "it cannot be reached: {error}"),
        }
    }
}

/// Turns names into addresses; a trait so that tests decide what a name resolves to.
#[async_trait::async_trait]
pub trait Resolve: Send + Sync {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver: DNS, /etc/hosts and whatever else it is configured for.
pub struct SystemResolver {
    lookups: Arc<Lookups>,
    look_up: fn(&str) -> io::Result<Vec<IpAddr>>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { lookups: Arc::default(), look_up: by_the_system }
    }
}

fn by_the_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, TUNNEL_PORT).to_socket_addrs()?.map(|address| address.ip()).collect())
}

#[async_trait::async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.lookups.begin(host)).await?;
        let (lookups, look_up, host) = (self.lookups.clone(), self.look_up, host.to_owned());
        let name = host.clone();
        let lookup = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            look_up(&name)
        });
        // A task of its own: one that hangs is noted also when its client is gone by then.
        let timed = tokio::spawn(async move {
            let found = tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await;
            found.inspect_err(|_| lookups.hung(&host))?.map_err(io::Error::other)?
        });
        timed.await.map_err(io::Error::other)?
    }
}

/// The way out of the site.
pub struct Outside {
    offline: bool,
    upstream: Option<Upstream>,
    resolver: Arc<dyn Resolve>,
}

/// What a host name comes to.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Addresses(Vec<IpAddr>),
    Upstream,
}

impl Outside {
    pub fn new(offline: bool, upstream: Option<Upstream>) -> Self {
        Self { offline, upstream, resolver: Arc::new(SystemResolver::default()) }
    }

    #[cfg(test)]
    pub fn with_resolver(offline: bool, upstream: Option<Upstream>, resolver: Arc<dyn Resolve>) -> Self {
        Self { offline, upstream, resolver }
    }

    /// Connects to port 443 of `host`, a name or an address.
    pub async fn connect(&self, host: &str) -> Result<TcpStream, Refusal> {
        match self.way(host).await? {
            Way::Upstream => {
                let upstream = self.upstream.as_ref().ok_or(Refusal::Unknown)?;
                tokio::time::timeout(CONNECT_TIMEOUT, upstream.connect(host, TUNNEL_PORT))
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    .map_err(Refusal::Unreachable)
            }
            Way::Addresses(addresses) => connect_first(&addresses).await.map_err(Refusal::Unreachable),
        }
    }

    /// Decides before anything is connected. The addresses that were checked are the ones that are used, so a name
    /// cannot resolve to something else between the two.
    async fn way(&self, host: &str) -> Result<Way, Refusal> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return match (is_public(address), self.offline) {
                (false, _) => Err(Refusal::NotPublic),
                (true, true) => Err(Refusal::Offline),
                (true, false) if self.upstream_for(host).is_some() => Ok(Way::Upstream),
                (true, false) => Ok(Way::Addresses(vec![address])),
            };
        }
        if is_local_name(host) {
            return Err(Refusal::NotPublic);
        }
        if self.offline {
            return Err(Refusal::Offline);
        }
        let found = self.resolver.resolve(host).await;
        match (found, self.upstream_for(host)) {
            // One private address among public ones is enough: which of them is used is not the name's choice.
            (Ok(addresses), _) if addresses.iter().any(|address| !is_public(*address)) => {
                Err(Refusal::NotPublic)
            }
            // Behind an upstream proxy, public names need not resolve here.
            (_, Some(_)) => Ok(Way::Upstream),
            (Ok(addresses), None) if !addresses.is_empty() => {
                Ok(Way::Addresses(addresses.into_iter().take(ADDRESSES_MAX).collect()))
            }
            _ => Err(Refusal::Unknown),
        }
    }

    fn upstream_for(&self, host: &str) -> Option<&Upstream> {
        self.upstream.as_ref().filter(|upstream| !upstream.bypasses(host))
    }
}

/// Names that only ever mean something near (RFC 6761, RFC 6762, RFC 8375, RFC 9476).
fn is_local_name(host: &str) -> bool {
    let host = fold_host(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    !host.contains('.')
        || matches!(last, "localhost" | "local" | "internal" | "alt" | "onion" | "test" | "invalid")
        || host == "home.arpa"
        || host.ends_with(".home.arpa")
        || host.ends_with(".localdomain")
}

async fn connect_first(addresses: &[IpAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        let attempt = TcpStream::connect(SocketAddr::new(*address, TUNNEL_PORT));
        match tokio::time::timeout(CONNECT_TIMEOUT / 2, attempt).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Copies both ways until one side ends, nothing moves for `idle`, or the site stops.
pub async fn tunnel(client: BoxStream, server: TcpStream, peer: Peer, idle: Duration) {
    let Peer { activity, mut drain, .. } = peer;
    let mut client = Timed::carried(client, idle, activity.clone());
    let mut server = Timed::carried(server, idle, activity);
    tokio::select! {
        result = copy_bidirectional(&mut client, &mut server) => {
            if let Err(error) = result {
                tracing::debug!(%error, "tunnel ended");
            }
        }
        // What runs inside is not visible, so there is no good moment: the site's own answers are drained, tunnels cut.
        () = drain.requested() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Fixed(&'static [&'static str]);

    #[async_trait::async_trait]
    impl Resolve for Fixed {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            if self.0.is_empty() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(self.0.iter().map(|text| text.parse().unwrap()).collect())
        }
    }

    fn outside(addresses: &'static [&'static str], upstream: Option<&str>) -> Outside {
        let upstream = upstream.map(|address| Upstream::parse(address, "direct.example").unwrap());
        Outside::with_resolver(false, upstream, Arc::new(Fixed(addresses)))
    }

    async fn refused(outside: &Outside, host: &str) -> bool {
        matches!(outside.way(host).await, Err(Refusal::NotPublic))
    }

    #[tokio::test]
    async fn near_targets_are_refused_by_literal_and_by_name() {
        for upstream in [None, Some("p.example:3128")] {
            let public = outside(&["1.1.1.1"], upstream);
            for host in [
                "127.0.0.1",
                "10.0.0.1",
                "169.254.169.254",
                "::1",
                "::ffff:127.0.0.1",
                "localhost",
                "LOCALHOST.",
                "a.localhost",
                "printer.local",
                "metadata.google.internal",
                "intranet",
                "localhost.localdomain",
            ] {
                assert!(refused(&public, host).await, "{host} {upstream:?}");
            }
            let rebinding = outside(&["1.1.1.1", "192.168.0.1"], upstream);
            assert!(refused(&rebinding, "rebind.example.com").await);
            assert!(refused(&outside(&["::ffff:10.0.0.1"], upstream), "mapped.example.com").await);
        }
    }

    #[tokio::test]
    async fn public_names_are_connected_by_the_addresses_that_were_checked() {
        let direct = outside(&["1.1.1.1", "2606:4700::1111"], None);
        let addresses = ["1.1.1.1", "2606:4700::1111"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(direct.way("example.com").await.unwrap(), Way::Addresses(addresses));
        assert!(matches!(outside(&[], None).way("example.com").await, Err(Refusal::Unknown)));
    }

    /// Public at first, and then this machine's.
    #[derive(Default)]
    struct Rebinding(AtomicUsize);

    #[async_trait::async_trait]
    impl Resolve for Rebinding {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            let first = self.0.fetch_add(1, Ordering::SeqCst) == 0;
            Ok(vec![if first { [1, 1, 1, 1].into() } else { [127, 0, 0, 1].into() }])
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_once_for_each_connection() {
        let resolver = Arc::new(Rebinding::default());
        let outside = Outside::with_resolver(false, None, resolver.clone());
        let checked = Way::Addresses(vec![[1, 1, 1, 1].into()]);
        assert_eq!(outside.way("rebind.example.com").await.unwrap(), checked);
        assert_eq!(resolver.0.load(Ordering::SeqCst), 1);
        assert!(refused(&outside, "rebind.example.com").await, "the next one is checked anew");
    }

    #[tokio::test]
    async fn a_name_waits_for_its_turn() {
        let resolver = SystemResolver::default();
        let mut all = Vec::new();
        tokio::time::pause();
        while let Ok(turn) = tokio::time::timeout(TURN_TIMEOUT, resolver.lookups.begin("localhost")).await {
            all.push(turn);
        }
        let error = resolver.resolve("localhost").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        tokio::time::resume();
        drop(all);
        assert!(!resolver.resolve("localhost").await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_hangs_is_noted_also_when_its_client_is_gone() {
        static HANGING: Barrier = Barrier::new(2);
        fn hang(_: &str) -> io::Result<Vec<IpAddr>> {
            HANGING.wait();
            HANGING.wait();
            Ok(Vec::new())
        }
        let resolver = SystemResolver { look_up: hang, ..SystemResolver::default() };
        let lookups = resolver.lookups.clone();
        let others_run = async || {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        let is_free = async || {
            tokio::select! {
                biased;
                _turn = lookups.begin("n2.silent.example") => true,
                () = others_run() => false,
            }
        };
        let client = tokio::spawn(async move { resolver.resolve("n1.silent.example").await });
        others_run().await;
        HANGING.wait();
        let while_it_may = is_free().await;
        client.abort();
        tokio::time::advance(RESOLVE_TIMEOUT).await;
        others_run().await;
        let after_that = is_free().await;
        HANGING.wait();
        assert_eq!((while_it_may, after_that), (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_proxy_that_does_not_answer_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let outside = outside(&["1.1.1.1"], Some(&address));
        let given_up = tokio::time::timeout(2 * CONNECT_TIMEOUT, outside.connect("example.com")).await;
        let Ok(Err(Refusal::Unreachable(error))) = given_up else { panic!("{given_up:?}") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_upstream_proxy_takes_what_it_is_for() {
        let unresolved = outside(&[], Some("p.example:3128"));
        assert_eq!(unresolved.way("example.com").await.unwrap(), Way::Upstream);
        assert_eq!(unresolved.way("1.1.1.1").await.unwrap(), Way::Upstream);
        assert!(matches!(unresolved.way("direct.example").await, Err(Refusal::Unknown)));
    }

    #[tokio::test]
    async fn offline_refuses_everything() {
        let offline = Outside::with_resolver(true, None, Arc::new(Fixed(&["1.1.1.1"])));
        assert!(matches!(offline.way("example.com").await, Err(Refusal::Offline)));
        assert!(matches!(offline.way("1.1.1.1").await, Err(Refusal::Offline)));
        assert!(refused(&offline, "127.0.0.1").await);
    }
}
