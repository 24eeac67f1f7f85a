//! The daemon: listeners, sweeps, heartbeats, and an orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::accounts::Accounts;
use crate::challenge::Challenges;
use crate::health::Health;
use crate::himds::Limiter;
use crate::link::Links;
use crate::log::Log;
use crate::tokens::Tokens;
use crate::{AGENT_VERSION, AgentFault, AgentOptions, Facts, heartbeat, serve};

const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// How long requests under way may take once the daemon was told to stop.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What the parts of the daemon share.
pub(crate) struct Core {
    pub(crate) options: AgentOptions,
    pub(crate) facts: Facts,
    pub(crate) links: Links,
    pub(crate) tokens: Tokens,
    pub(crate) challenges: Challenges,
    pub(crate) health: Health,
    pub(crate) log: Log,
    pub(crate) limiter: Limiter,
}

impl Core {
    pub(crate) fn open(options: AgentOptions) -> Result<Self, AgentFault> {
        let layout = options.layout();
        let accounts = Accounts::read(&options.sources.passwd, &options.sources.group);
        layout.prepare(&accounts)?;
        let (clock, entropy) = (options.clock.clone(), options.entropy.clone());
        Ok(Self {
            facts: Facts::read(&options.sources),
            links: Links::new(options.clone()),
            tokens: Tokens::new(clock.clone(), entropy.clone()),
            challenges: Challenges::new(
                layout.clone(),
                accounts,
                &options.limits,
                clock.clone(),
                entropy.clone(),
            ),
            health: Health::open(&layout, accounts, clock.clone(), entropy),
            log: Log::new(layout.log_file(), accounts, clock),
            limiter: Limiter::new(&options.limits),
            options,
        })
    }
}

/// A daemon that listens already. Its memory stays small on a current-thread runtime.
pub struct Agent {
    core: Arc<Core>,
    listeners: Vec<TcpListener>,
}

impl Agent {
    /// Prepares the folders, listens, and voids the challenges of an earlier daemon. Only loopback addresses are
    /// accepted: whoever reaches HIMDS may ask for the machine's metadata.
    pub async fn bind(options: AgentOptions) -> Result<Self, AgentFault> {
        if let Some(outside) = options.addresses.iter().find(|address| !address.ip().is_loopback()) {
            return Err(AgentFault::NotLoopback(*outside));
        }
        let addresses = options.addresses.clone();
        let core = Arc::new(Core::open(options)?);
        let listeners = listen(&addresses, &core.log).await?;
        // After the bind: it keeps a second daemon from voiding the challenges of the first.
        let swept = core.challenges.sweep_all()?;
        if swept > 0 {
            core.log.info(&format!("removed {swept} challenge files of an earlier run"));
        }
        Ok(Self { core, listeners })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `shutdown` completes; requests under way are then finished within five seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AgentFault> {
        let Self { core, listeners } = self;
        let listening: Vec<String> = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .map(|address| address.to_string())
            .collect();
        core.log.info(&format!("himds {AGENT_VERSION} listens on {}", listening.join(" and ")));
        let (stop, stopping) = watch::channel(false);
        let mut servers = JoinSet::new();
        let places = serve::places(&core);
        for listener in listeners {
            servers.spawn(serve::serve(core.clone(), listener, places.clone(), stopping.clone()));
        }
        let mut background = JoinSet::new();
        background.spawn(heartbeat::run(core.clone()));
        background.spawn(sweep(core.clone()));
        shutdown.await;
        core.log.info("himds stops");
        background.abort_all();
        // Whether anyone still listens does not matter: those who do not have ended.
        let _ = stop.send(true);
        while servers.join_next().await.is_some() {}
        core.challenges.sweep_all()?;
        Ok(())
    }
}

/// [`Agent::bind`] and [`Agent::run`].
pub async fn run(options: AgentOptions, shutdown: impl Future<Output = ()>) -> Result<(), AgentFault> {
    Agent::bind(options).await?.run(shutdown).await
}

async fn listen(addresses: &[SocketAddr], log: &Log) -> Result<Vec<TcpListener>, AgentFault> {
    let mut listeners = Vec::new();
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            // A machine without IPv6 has no ::1; a port that is taken is another matter.
            Err(fault) if !listeners.is_empty() && fault.kind() != std::io::ErrorKind::AddrInUse => {
                log.warning(&format!("not listening on {address}: {fault}"));
            }
            Err(source) => return Err(AgentFault::Listen { address: *address, source }),
        }
    }
    Ok(listeners)
}

async fn sweep(core: Arc<Core>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let expired = core.challenges.sweep_expired();
        if expired > 0 {
            core.log.info(&format!("removed {expired} challenge files that nobody used in time"));
        }
    }
}
