//! A running site: from the lock on its data directory to the last request answered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arcadia_crypto::SystemEntropy;
use arcadia_kernel::Clock;
use arcadia_postgres::Gateway;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::host::{SystemClock, raise_file_limit};
use crate::machine;
use crate::names::SiteNames;
use crate::net::{self, Drain, Drainer, Limits, Outside, Proxy, SiteTls, Upstream};
use crate::roots;
use crate::signals::StopSignals;
use crate::site::{self, DataDir, Lock, Running, SiteRecord, Trouble};
use crate::wiring::{self, Background, FirstNames, Standings, Wired};

/// Where the proxy listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 8440;
/// How long requests under way are waited for.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long what runs on threads of its own is waited for at the end.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

pub struct Options {
    pub offline: bool,
    /// This port or none.
    pub port: Option<u16>,
    /// Where clients come that do not use the proxy.
    pub listen: Option<SocketAddr>,
    /// The domain of the site's own names, as asked for at this start.
    pub domain: Option<String>,
    /// The proxy by which the site reaches the Internet.
    pub upstream: Option<Upstream>,
    pub first: FirstNames,
    /// A data key is replaced after it has sealed this many values.
    pub values_per_data_key: u64,
}

/// What is told when the site can serve.
pub struct Ready {
    pub running: Running,
    pub record: SiteRecord,
    pub user: String,
    pub upstream: Option<String>,
}

/// Runs a site until a signal ends it. `ready` is called once it can serve.
pub fn serve(
    data: &DataDir,
    options: Options,
    ready: impl FnOnce(&Ready) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    data.prepare()?;
    let lock = Lock::take(&data.lock_file()).map_err(|fault| {
        anyhow::anyhow!("{}: {fault}{}", data.path().display(), fault.next_commands(&data.option()))
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(run(data, options, ready));
    // Whoever uses the store ends with the runtime, so that the lock is free once the store is closed. Look-ups of names
    // that nobody waits for any more may take longer than an operator does.
    runtime.shutdown_timeout(SHUTDOWN_PATIENCE);
    drop(lock);
    served
}

async fn run(
    data: &DataDir,
    options: Options,
    ready: impl FnOnce(&Ready) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    Running::clear(data);
    raise_file_limit();
    let mut stop = StopSignals::new()?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let last = SiteRecord::load(data)?;
    let names = names(data, last.as_ref(), options.domain.as_deref())?;
    // Before anything is founded, which is for ever.
    let direct = listen_directly(options.listen).await?;
    let listener = listen(options.port, last.and_then(|record| record.port)).await?;
    let entropy = Arc::new(SystemEntropy);
    let (first, per_key) = (&options.first, options.values_per_data_key);
    let (wired, background) = wiring::wire(data, names, first, per_key, clock.clone(), entropy).await?;
    let mut standings = wired.standings.clone();
    let (drainer, drain) = Drainer::new();
    let opened = open(data, options, clock, wired, (listener, direct), drain).await;
    let mut restarted = None;
    let over = match opened.and_then(|told| ready(&told)) {
        Ok(()) => {
            restarted = Some(restart_machines(data));
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            let reason = tokio::select! {
                _ = stop.wait() => None,
                reason = standings.over() => Some(reason),
            };
            tracing::info!("stopping");
            Ok(reason)
        }
        Err(error) => Err(error),
    };
    // Also where it could not be opened: database servers and other things run by then.
    end(data, stop, drainer, background, restarted).await;
    match over? {
        None => Ok(()),
        Some(reason) => {
            // For `arcadia status`, which finds no site any more.
            Trouble::new(reason.clone(), true, SystemClock.now()).save(data)?;
            Err(anyhow::anyhow!("the site ended by itself: {reason}"))
        }
    }
}

/// Serves a site that is wired, until it is drained.
async fn open(
    data: &DataDir,
    options: Options,
    clock: Arc<dyn Clock>,
    wired: Wired,
    (listener, direct): (TcpListener, Option<TcpListener>),
    drain: Drain,
) -> anyhow::Result<Ready> {
    let mut record = SiteRecord::expect(data)?;
    let address = listener.local_addr()?;
    let upstream = options.upstream.filter(|upstream| !upstream.is_loopback_port(address.port()));

    let ca = site::load_or_create_authority(data, &record, clock.epoch_seconds())?;
    if let Some(notice) = site::authority_notice(data, clock.now()) {
        tracing::warn!("{notice}");
    }
    let hosts = Arc::new(wired.hosts);
    let databases = listen_for_databases(database_addresses(options.listen, &record)).await;
    let bound_databases = databases.as_ref().and_then(|listener| listener.local_addr().ok());
    remember(data, &mut record, address, bound_databases)?;
    let bound = direct.as_ref().map(TcpListener::local_addr).transpose()?;
    let mut running = describe(data, (address, bound), options.offline, &hosts, clock.now());
    running.postgres = bound_databases;
    let told_upstream = upstream.as_ref().map(ToString::to_string);
    let proxy = Arc::new(Proxy {
        tls: SiteTls::new(ca, hosts.clone(), clock)?,
        hosts,
        outside: Outside::new(options.offline, upstream),
        limits: Limits::default(),
    });
    let socket_path = data.proxy_socket();
    let socket = net::bind_unix(&socket_path).with_context(|| socket_path.display().to_string())?;

    let database_socket = net::bind_unix(&data.postgres_socket())
        .with_context(|| data.postgres_socket().display().to_string())?;
    let certificate = proxy.tls.config_for(wired.postgres.names().wildcard(), b"postgresql");
    let gateway = Gateway::new(wired.postgres.clone(), certificate, wired.trust);

    tokio::spawn(cut_when_silent(gateway.clone(), wired.standings));

    net::serve_databases(databases, database_socket, gateway, drain.clone())?;
    tokio::spawn(net::serve_tcp(listener, proxy.clone(), drain.clone()));
    if let Some(direct) = direct {
        tokio::spawn(net::serve_tls(direct, proxy.clone(), drain.clone()));
    }
    tokio::spawn(net::serve_unix(socket, proxy, drain));
    running.save(data)?;
    Ok(Ready { running, record, user: wired.user, upstream: told_upstream })
}

/// Answers what is under way, and closes everything.
async fn end(
    data: &DataDir,
    mut stop: StopSignals,
    drainer: Drainer,
    background: Background,
    restarted: Option<JoinHandle<()>>,
) {
    // One that never served has its log on the terminal, and nothing to tell there but why.
    let served = restarted.is_some();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    Running::clear(data);
    if let Some(restarted) = restarted {
        // One that is just starting could not be stopped.
        tokio::select! {
            _ = restarted => {}
            _ = stop.wait() => {}
        }
    }
    stop_machines(data).await;
    let _ = std::fs::remove_file(data.proxy_socket());
    let _ = std::fs::remove_file(data.postgres_socket());
    tokio::select! {
        finished = drainer.drain(DRAIN_PATIENCE) => {
            if !finished {
                tracing::warn!("requests under way were cut off after {} s", DRAIN_PATIENCE.as_secs());
            }
        }
        _ = stop.wait() => tracing::warn!("stopped at once by a second signal"),
    }
    background.stop().await;
    if served {
        tracing::info!("stopped");
    }
}

/// Sessions with databases have no request to refuse.
async fn cut_when_silent(gateway: Arc<Gateway>, mut standings: Standings) {
    standings.silent().await;
    gateway.fall_silent();
}

fn describe(
    data: &DataDir,
    (proxy, listen): (SocketAddr, Option<SocketAddr>),
    offline: bool,
    hosts: &net::HostTable,
    now: jiff::Timestamp,
) -> Running {
    let names = hosts.patterns().into_iter().map(|(name, service)| (name, service.to_owned())).collect();
    Running {
        pid: std::process::id(),
        version: crate::VERSION.to_owned(),
        started_at: now,
        proxy,
        listen,
        proxy_socket: data.proxy_socket(),
        postgres: None,
        offline,
        names,
    }
}

/// The site's names: those of its first start, which is this one where there is no record yet.
fn names(data: &DataDir, record: Option<&SiteRecord>, asked: Option<&str>) -> anyhow::Result<SiteNames> {
    let Some(record) = record else { return Ok(SiteNames::of(asked)) };
    let names = record.names();
    if asked.is_some_and(|asked| names != SiteNames::of_domain(asked)) {
        let has = names.domain().map_or("Azure's names".to_owned(), |domain| format!("the domain {domain}"));
        anyhow::bail!(
            "the site in {} has {has} since its first start, and its tokens and identifiers hold them: start it \
             without --domain, or make another site with --data",
            data.path().display()
        );
    }
    Ok(names)
}

async fn listen_directly(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = net::bind_tcp(address).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"
            }
            io::ErrorKind::AddrInUse => {
                "; on the loopback name an address of its own, such as 127.40.34.2:443"
            }
            _ => "",
        };
        anyhow::anyhow!("{address} cannot be listened on: {error}{hint}")
    })?;
    Ok(Some(listener))
}

/// Keeps where the site listens, so that shells and connection strings of this start are good at the next.
fn remember(
    data: &DataDir,
    record: &mut SiteRecord,
    proxy: SocketAddr,
    databases: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let bound = databases.map(|address| address.ip()).filter(IpAddr::is_loopback);
    let database_address = bound.or(record.database_address.filter(IpAddr::is_loopback));
    if record.port != Some(proxy.port()) || record.database_address != database_address {
        record.port = Some(proxy.port());
        record.database_address = database_address;
        record.save(data)?;
    }
    Ok(())
}

/// Without an address for them, databases are reached from machines only, and the site serves all else.
async fn listen_for_databases(preferred: impl IntoIterator<Item = IpAddr>) -> Option<TcpListener> {
    let bound = net::bind_databases(preferred).await;
    let told = |error: &io::Error| {
        let (address, port) = (net::FIRST_DATABASE_ADDRESS, net::DATABASE_PORT);
        tracing::warn!(
            "databases are not reached from this machine: port {port} of {address} and of the addresses \
                        after it cannot be listened on ({error}); stop what listens there and start the site again"
        );
    };
    bound.inspect_err(told).ok()
}

/// Where clients that do not use the proxy come, they find databases as well; else where they were at the last start.
/// An address of the network is not taken from there: only while it is asked for.
fn database_addresses(listen: Option<SocketAddr>, record: &SiteRecord) -> impl Iterator<Item = IpAddr> {
    let last = record.database_address.filter(IpAddr::is_loopback);
    listen.map(|address| address.ip()).into_iter().chain(last)
}

/// The port that was asked for, or else the one of the last start, the default, any: in this order.
async fn listen(asked: Option<u16>, last: Option<u16>) -> anyhow::Result<TcpListener> {
    if let Some(port) = asked {
        return net::bind_loopback(port).with_context(|| {
            format!("port {port} of 127.0.0.1 cannot be listened on; name another one with --port")
        });
    }
    let preferred = last.unwrap_or(DEFAULT_PORT);
    match net::bind_loopback(preferred) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let listener = net::bind_loopback(0).context("no free port on 127.0.0.1")?;
            let port = listener.local_addr()?.port();
            let again = if last.is_some() { "; run `arcadia env` again in open shells" } else { "" };
            tracing::warn!("port {preferred} is taken, so the proxy listens on {port}{again}");
            Ok(listener)
        }
        Err(error) => Err(error).context(format!("port {preferred} of 127.0.0.1 cannot be listened on")),
    }
}

/// What connected machines need of this site.
pub fn for_machines(data: &DataDir) -> anyhow::Result<machine::Site> {
    let system: Vec<PathBuf> = roots::system_bundle().into_iter().collect();
    Ok(machine::Site {
        data: data.path().to_owned(),
        proxy_socket: data.proxy_socket(),
        database_socket: data.postgres_socket(),
        ca_bundle: roots::bundle(data, "machine", &system)?,
        domain: SiteRecord::expect(data)?.domain,
    })
}

/// Machines that were there before come back, in their own processes and time.
fn restart_machines(data: &DataDir) -> JoinHandle<()> {
    let data = data.clone();
    tokio::task::spawn_blocking(move || {
        let restarted = for_machines(&data).and_then(|site| machine::restart_all(&site));
        match restarted {
            Ok(machines) => {
                for (name, result) in machines {
                    match result {
                        Ok(()) => tracing::info!(%name, "machine started"),
                        Err(error) => tracing::warn!(%name, "the machine does not start: {error:#}"),
                    }
                }
            }
            Err(error) => tracing::warn!("machines were not started: {error:#}"),
        }
    })
}

/// Machines stop before the site does, so that what they have under way is answered.
async fn stop_machines(data: &DataDir) {
    let path = data.path().to_owned();
    let stopped = tokio::task::spawn_blocking(move || machine::stop_all(&path)).await;
    match stopped {
        Ok(Ok(machines)) => {
            for (name, result) in machines {
                if let Err(error) = result {
                    tracing::warn!(%name, "the machine does not stop: {error:#}");
                }
            }
        }
        Ok(Err(error)) => tracing::warn!("machines were not stopped: {error:#}"),
        Err(error) => tracing::warn!("machines were not stopped: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn databases_are_on_the_network_only_while_that_is_asked_for() {
        let folder = TempDir::new().unwrap();
        let data = DataDir::at(folder.path().to_owned());
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut record = SiteRecord::new(Uuid::nil(), Uuid::nil(), "a.example".into(), None, now);
        let proxy = SocketAddr::from(([127, 0, 0, 1], 8440));
        let own = SocketAddr::from(([127, 40, 34, 3], 5432));
        let network = SocketAddr::from(([0, 0, 0, 0], 5432));
        for bound in [own, network] {
            remember(&data, &mut record, proxy, Some(bound)).unwrap();
            let next = SiteRecord::expect(&data).unwrap();
            assert_eq!(database_addresses(None, &next).collect::<Vec<_>>(), [own.ip()], "after {bound}");
        }
        // As an older version wrote it.
        record.database_address = Some(network.ip());
        assert_eq!(database_addresses(None, &record).next(), None);
        let asked: Vec<_> = database_addresses(Some(network), &record).collect();
        assert_eq!(asked, [network.ip()]);
        remember(&data, &mut record, proxy, None).unwrap();
        assert_eq!(SiteRecord::expect(&data).unwrap().database_address, None);
    }
}
