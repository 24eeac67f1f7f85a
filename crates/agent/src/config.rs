//! `agentconfig.json`: the connection of this machine, present exactly while it is connected.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arcadia_client::{Endpoints, Proxy};
use arcadia_kernel::Entropy;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::accounts::{Accounts, Owner};
use crate::files::{Ownership, read_bounded, write_atomic};
use crate::layout::CONFIG;
use crate::{AgentFault, Layout};

const CONFIG_BYTES_MAX: u64 = 256 * 1024;

/// Who this machine is at the site. Every local process may read it, unless the proxy takes a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentConfig {
    pub subscription_id: Uuid,
    pub resource_group: String,
    pub resource_name: String,
    pub resource_id: String,
    pub tenant_id: Uuid,
    pub location: String,
    pub vm_id: Uuid,
    pub correlation_id: Uuid,
    /// `AzureCloud`, or another name that was given.
    pub cloud: String,
    /// The application id of the machine's identity: what it signs in as.
    pub client_id: Uuid,
    /// The object id of the machine's identity: what roles are given to.
    pub principal_id: Uuid,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_proxy: Option<String>,
    /// Hosts reached without the proxy, as `NO_PROXY` lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
    /// PEM files of the roots to trust, as they were when the machine was connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate_files: Vec<PathBuf>,
    #[serde(default)]
    pub endpoints: Endpoints,
}

impl AgentConfig {
    /// `None` when the machine is not connected.
    pub fn read(path: &Path) -> Result<Option<Self>, AgentFault> {
        let bytes = match read_bounded(path, CONFIG_BYTES_MAX) {
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|fault| AgentFault::file("cannot read", path, fault))?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|fault| AgentFault::content(path, fault))
    }

    pub(crate) fn write(
        &self,
        layout: &Layout,
        accounts: &Accounts,
        entropy: &dyn Entropy,
    ) -> Result<(), AgentFault> {
        let path = layout.config();
        let mut json = serde_json::to_vec_pretty(self).map_err(|fault| AgentFault::content(&path, fault))?;
        json.push(b'\n');
        let ownership = match self.has_proxy_password() {
            false => Ownership { accounts, owner: Owner::Root, mode: 0o644 },
            true => Ownership { accounts, owner: Owner::RootAndGroup, mode: 0o640 },
        };
        layout
            .open_root()
            .and_then(|root| write_atomic(&root, CONFIG, &json, ownership, entropy))
            .map_err(|fault| AgentFault::file("cannot write", &path, fault))
    }

    /// The proxy without its user and password; empty where there is none.
    pub(crate) fn proxy_shown(&self) -> String {
        self.proxy().map(|proxy| proxy.to_string()).unwrap_or_default()
    }

    fn has_proxy_password(&self) -> bool {
        self.proxy().is_some_and(|proxy| proxy.has_credentials())
    }

    fn proxy(&self) -> Option<Proxy> {
        // It was read when the machine was connected.
        self.https_proxy.as_deref().and_then(|proxy| Proxy::parse(proxy).ok())
    }
}

/// The file's state, as far as a look at its metadata tells. A rename brings another inode.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// What a look at the configuration found.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) config: Option<Arc<AgentConfig>>,
    /// Grows with every change.
    pub(crate) generation: u64,
}

/// The configuration as it is now: asked before each use, read again only when the file changed. So `connect` and
/// `disconnect` take effect on a running daemon at once.
pub(crate) struct ConfigWatch {
    path: PathBuf,
    seen: Mutex<Seen>,
}

struct Seen {
    stamp: Option<Stamp>,
    current: Current,
}

impl ConfigWatch {
    pub(crate) fn new(path: PathBuf) -> Self {
        let current = Current { config: None, generation: 0 };
        Self { path, seen: Mutex::new(Seen { stamp: None, current }) }
    }

    pub(crate) fn current(&self) -> Result<Current, AgentFault> {
        let stamp = std::fs::metadata(&self.path).ok().map(|found| Stamp {
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        });
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.stamp != stamp {
            let config = if stamp.is_some() { AgentConfig::read(&self.path)? } else { None };
            let generation = seen.current.generation + 1;
            *seen = Seen { stamp, current: Current { config: config.map(Arc::new), generation } };
        }
        Ok(seen.current.clone())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use arcadia_crypto::SystemEntropy;

    pub(crate) fn example() -> AgentConfig {
        AgentConfig {
            subscription_id: Uuid::from_u128(0x11),
            resource_group: "arc-hack".to_owned(),
            resource_name: "ubuntu-01".to_owned(),
            resource_id: format!(
                "/subscriptions/{}/resourceGroups/arc-hack/providers/Microsoft.HybridCompute/machines/ubuntu-01",
                Uuid::from_u128(0x11)
            ),
            tenant_id: Uuid::from_u128(0x22),
            location: "uksouth".to_owned(),
            vm_id: Uuid::from_u128(0x33),
            correlation_id: Uuid::from_u128(0x44),
            cloud: "AzureCloud".to_owned(),
            client_id: Uuid::from_u128(0x55),
            principal_id: Uuid::from_u128(0x66),
            tags: BTreeMap::from([
                ("datacentre".to_owned(), "The_Citadel".to_owned()),
                ("platform".to_owned(), "VMware_vSphere".to_owned()),
            ]),
            https_proxy: None,
            no_proxy: None,
            certificate_files: Vec::new(),
            endpoints: Endpoints::default(),
        }
    }

    #[test]
    fn a_running_daemon_sees_connect_change_and_disconnect() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        let path = layout.config();
        let watch = ConfigWatch::new(path.clone());
        assert!(watch.current().unwrap().config.is_none());
        let mut config = example();
        config.write(&layout, &Accounts::default(), &SystemEntropy).unwrap();
        let first = watch.current().unwrap();
        assert_eq!(first.config.as_deref(), Some(&config));
        assert_eq!(watch.current().unwrap().generation, first.generation);
        config.location = "ukwest".to_owned();
        config.write(&layout, &Accounts::default(), &SystemEntropy).unwrap();
        let second = watch.current().unwrap();
        assert_eq!(second.config.unwrap().location, "ukwest");
        assert!(second.generation > first.generation);
        std::fs::remove_file(&path).unwrap();
        assert!(watch.current().unwrap().config.is_none());
    }

    #[test]
    fn a_broken_file_is_said_and_not_taken_for_absence() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        let path = layout.config();
        std::fs::write(&path, b"{\"subscriptionId\": 1}").unwrap();
        let watch = ConfigWatch::new(path.clone());
        for _ in 0..2 {
            assert!(watch.current().err().unwrap().to_string().contains("agentconfig.json"));
        }
        example().write(&layout, &Accounts::default(), &SystemEntropy).unwrap();
        assert!(watch.current().unwrap().config.is_some());
    }

    #[test]
    fn a_proxys_password_is_not_for_everybody() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        let mode = || std::fs::metadata(layout.config()).unwrap().permissions().mode() & 0o777;
        let mut config = example();
        config.https_proxy = Some("http://proxy.test:3128".to_owned());
        config.write(&layout, &Accounts::default(), &SystemEntropy).unwrap();
        assert_eq!(mode(), 0o644);
        config.https_proxy = Some("http://nina:s3cret@proxy.test:3128".to_owned());
        config.write(&layout, &Accounts::default(), &SystemEntropy).unwrap();
        assert_eq!((mode(), config.proxy_shown().as_str()), (0o640, "http://proxy.test:3128"));
    }

    #[test]
    fn names_in_the_file_are_the_known_ones() {
        let json = serde_json::to_value(example()).unwrap();
        for name in [
            "subscriptionId",
            "resourceGroup",
            "resourceName",
            "tenantId",
            "location",
            "vmId",
            "correlationId",
            "cloud",
            "clientId",
            "principalId",
            "tags",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
    }
}
