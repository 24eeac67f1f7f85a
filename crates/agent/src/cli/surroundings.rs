//! What the process finds around it: environment, time, randomness, signals.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arcadia_client::{NoProxy, Proxy};
use arcadia_crypto::SystemEntropy;
use arcadia_kernel::Clock;
use jiff::Timestamp;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::onboard::{Failure, OnboardFault};
use crate::{AgentOptions, Reach};

/// Where systems keep the roots that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A variable's value by its name; what is not text is none that the agent knows.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

struct SystemClock;

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "the program's entry hands the system's time to everything else"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The parts of the environment that matter, in the spellings that other programs read.
pub(super) struct Surroundings {
    pub(super) https_proxy: Option<String>,
    pub(super) no_proxy: Option<String>,
    pub(super) certificate_file: Option<PathBuf>,
    /// The domain of a site that has names of its own.
    pub(super) domain: Option<String>,
}

impl Surroundings {
    pub(super) fn read(env: &Environment) -> Self {
        let one = |name: &str| env(name).filter(|value| !value.is_empty());
        let first = |names: [&str; 2]| names.into_iter().find_map(one);
        Self {
            https_proxy: first(["HTTPS_PROXY", "https_proxy"]),
            no_proxy: first(["NO_PROXY", "no_proxy"]),
            certificate_file: one("SSL_CERT_FILE").map(PathBuf::from),
            domain: one("ARCADIA_DOMAIN"),
        }
    }

    /// The files of roots that the environment or, failing that, the system names.
    pub(super) fn certificate_files(&self) -> Vec<PathBuf> {
        match &self.certificate_file {
            Some(file) => vec![file.clone()],
            None => SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists()).into_iter().collect(),
        }
    }

    /// Options with what the environment says. Where it says nothing, what was kept at `connect` holds; the
    /// system's roots stand in only where neither names any. Without `addresses` the service is where it usually is.
    pub(super) fn options(
        &self,
        root: &Path,
        addresses: &[SocketAddr],
    ) -> Result<AgentOptions, OnboardFault> {
        let mut options = AgentOptions::new(Arc::new(SystemClock), Arc::new(SystemEntropy));
        options.root = root.to_owned();
        if !addresses.is_empty() {
            options.addresses = addresses.to_owned();
        }
        let proxy = self.https_proxy.as_deref().map(Proxy::parse).transpose();
        let proxy = proxy
            .map_err(|fault| OnboardFault::new(Failure::BadArguments, format!("HTTPS_PROXY: {fault}")))?;
        let kept = crate::AgentConfig::read(&options.layout().config()).ok().flatten();
        let are_kept = kept.is_some_and(|config| !config.certificate_files.is_empty());
        options.reach = Reach {
            proxy,
            no_proxy: NoProxy::parse(self.no_proxy.as_deref().unwrap_or("")),
            root_files: match &self.certificate_file {
                None if are_kept => Vec::new(),
                _ => self.certificate_files(),
            },
            endpoints: None,
        };
        Ok(options)
    }
}

/// One thread is enough for a command, and keeps the daemon small.
pub(super) fn runtime() -> Result<Runtime, OnboardFault> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|fault| OnboardFault::new(Failure::Internal, format!("cannot start: {fault}")))
}

/// Completes with SIGTERM or SIGINT. Must be called on a runtime; from then on the signals do not end the process.
pub(super) fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_in_both_spellings() {
        let read = |pairs: &[(&str, &str)]| {
            Surroundings::read(&|name: &str| {
                pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let told = read(&[("https_proxy", "http://127.0.0.1:1"), ("SSL_CERT_FILE", "/x.pem")]);
        assert_eq!(told.https_proxy.as_deref(), Some("http://127.0.0.1:1"));
        let folder = tempfile::tempdir().unwrap();
        let options = told.options(folder.path(), &[]).unwrap();
        assert_eq!(options.reach.root_files, [PathBuf::from("/x.pem")]);
        assert!(options.reach.proxy.is_some());
        let wrong = read(&[("HTTPS_PROXY", "socks5://h:1")]);
        assert_eq!(wrong.options(folder.path(), &[]).err().unwrap().failure, Failure::BadArguments);
        assert!(read(&[("HTTPS_PROXY", "")]).https_proxy.is_none());
        let other =
            read(&[("HTTPS_PROXY", ""), ("https_proxy", "http://p:1"), ("NO_PROXY", ""), ("no_proxy", "*")]);
        assert_eq!(
            (other.https_proxy.as_deref(), other.no_proxy.as_deref()),
            (Some("http://p:1"), Some("*"))
        );
    }
}
