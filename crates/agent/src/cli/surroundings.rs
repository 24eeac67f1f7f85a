//! What the process finds around it: environment, time, randomness, signals.

use std::collections::HashMap;
use std::future::Future;
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
    pub(super) fn read(env: &HashMap<String, String>) -> Self {
        let first = |names: [&str; 2]| {
            names.iter().find_map(|name| env.get(*name)).filter(|value| !value.is_empty()).cloned()
        };
        Self {
            https_proxy: first(["HTTPS_PROXY", "https_proxy"]),
            no_proxy: first(["NO_PROXY", "no_proxy"]),
            certificate_file: env.get("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from),
            domain: env.get("ARCADIA_DOMAIN").filter(|name| !name.is_empty()).cloned(),
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
    /// system's roots stand in only where neither names any.
    pub(super) fn options(&self, root: &Path) -> Result<AgentOptions, OnboardFault> {
        let mut options = AgentOptions::new(Arc::new(SystemClock), Arc::new(SystemEntropy));
        options.root = root.to_owned();
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
        let env = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let read =
            Surroundings::read(&env(&[("https_proxy", "http://127.0.0.1:1"), ("SSL_CERT_FILE", "/x.pem")]));
        assert_eq!(read.https_proxy.as_deref(), Some("http://127.0.0.1:1"));
        let folder = tempfile::tempdir().unwrap();
        let options = read.options(folder.path()).unwrap();
        assert_eq!(options.reach.root_files, [PathBuf::from("/x.pem")]);
        assert!(options.reach.proxy.is_some());
        let wrong = Surroundings::read(&env(&[("HTTPS_PROXY", "socks5://h:1")]));
        assert_eq!(wrong.options(folder.path()).err().unwrap().failure, Failure::BadArguments);
        assert!(Surroundings::read(&env(&[("HTTPS_PROXY", "")])).https_proxy.is_none());
    }
}
