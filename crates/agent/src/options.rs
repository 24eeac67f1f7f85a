//! What an agent is handed when it starts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arcadia_client::{ClientFault, Endpoints, NoProxy, Proxy};
use arcadia_kernel::{Clock, Entropy};

use crate::{DEFAULT_ROOT, FactSources, Layout};

/// The port is part of the protocol: clients have it built in.
pub const HIMDS_PORT: u16 = 40342;

/// How the site is reached. What is not named here is taken from the connection's configuration.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    pub proxy: Option<Proxy>,
    /// Only with `proxy`.
    pub no_proxy: NoProxy,
    /// PEM files of roots to trust.
    pub root_files: Vec<PathBuf>,
    /// Instead of the connection's own; Azure's names unless it says otherwise.
    pub endpoints: Option<Endpoints>,
}

/// Bounds on what local processes can ask of the metadata service.
#[derive(Clone, Debug)]
pub struct HimdsLimits {
    pub connections_max: usize,
    /// For a whole request header, and for the pause between two requests of one connection.
    pub header_timeout: Duration,
    pub header_bytes_max: usize,
    pub headers_max: usize,
    pub query_bytes_max: usize,
    pub query_fields_max: usize,
    /// Sustained rate; bursts of one second's worth are served.
    pub metadata_per_second: u32,
    pub identity_per_second: u32,
    /// Challenge files that may wait to be used; the oldest of the user who has most of them makes room.
    pub challenges_max: usize,
    pub challenge_lifetime_seconds: i64,
}

impl Default for HimdsLimits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            header_timeout: Duration::from_secs(10),
            header_bytes_max: 32 * 1024,
            headers_max: 64,
            query_bytes_max: 8 * 1024,
            query_fields_max: 32,
            metadata_per_second: 500,
            identity_per_second: 200,
            challenges_max: 512,
            challenge_lifetime_seconds: 5 * 60,
        }
    }
}

#[derive(Clone)]
pub struct AgentOptions {
    /// Where state lives; clients accept challenge files only below [`DEFAULT_ROOT`].
    pub root: PathBuf,
    /// The first must be had, the others are had where the machine offers them (a machine may lack IPv6).
    pub addresses: Vec<SocketAddr>,
    pub reach: Reach,
    pub heartbeat_interval: Duration,
    pub limits: HimdsLimits,
    pub sources: FactSources,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

impl AgentOptions {
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let at = |address: IpAddr| SocketAddr::new(address, HIMDS_PORT);
        Self {
            root: PathBuf::from(DEFAULT_ROOT),
            addresses: vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())],
            reach: Reach::default(),
            heartbeat_interval: Duration::from_secs(5 * 60),
            limits: HimdsLimits::default(),
            sources: FactSources::default(),
            clock,
            entropy,
        }
    }

    pub fn layout(&self) -> Layout {
        Layout::new(self.root.clone())
    }
}

/// Why the agent cannot start, or a command of its own cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum AgentFault {
    #[error("{what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "{} is not usable: {reason}; 'azcmagent disconnect --force-local-only' removes what is damaged, then connect \
         this machine anew",
        path.display()
    )]
    Content { path: PathBuf, reason: String },
    #[error("{address} cannot be listened on: {source}; is another agent running?")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("listen on a loopback address only; {0} would offer this machine's identity to others")]
    NotLoopback(SocketAddr),
    #[error("the machine's key cannot be used: {0}")]
    Key(#[from] arcadia_crypto::KeyFault),
    #[error("{0}")]
    Client(#[from] ClientFault),
    #[error("the machine is not connected; run 'azcmagent connect'")]
    NotConnected,
}

impl AgentFault {
    pub(crate) fn file(what: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File { what, path: path.to_owned(), source }
    }

    /// Whether a file is not for whoever runs this.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
    }

    pub(crate) fn content(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::Content { path: path.to_owned(), reason: reason.to_string() }
    }
}
