//! How the connection is: what the site said last, and when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arcadia_kernel::{Clock, Entropy};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::accounts::{Accounts, Owner};
use crate::files::{Ownership, read_bounded, write_atomic};
use crate::layout::{HEARTBEAT, Part};
use crate::{AGENT_VERSION, AgentConfig, AgentFault, Layout};

const FILE_BYTES_MAX: u64 = 256 * 1024;
/// As the site sees it: silent for longer than this is not connected.
const CONNECTED_SECONDS_MAX: i64 = 15 * 60;

/// What the site said of the machine with its last heartbeat; kept so that metadata is right after a restart with
/// the site away. Belongs to the connection whose machine it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Heard {
    pub(crate) resource_id: String,
    pub(crate) vm_id: Uuid,
    pub(crate) location: String,
    pub(crate) tags: BTreeMap<String, String>,
    /// As the site sees it: `Connected`.
    pub(crate) status: String,
    pub(crate) last_heartbeat: Timestamp,
}

/// Why the last heartbeat failed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trouble {
    code: String,
    details: String,
    at: Timestamp,
}

pub(crate) struct Health {
    layout: Layout,
    accounts: Accounts,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    heard: Option<Heard>,
    trouble: Option<Trouble>,
}

impl Health {
    pub(crate) fn open(
        layout: &Layout,
        accounts: Accounts,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let path = layout.part(Part::State).join(HEARTBEAT);
        // What was heard is a cache: an unreadable one is none, and the next heartbeat brings it back.
        let heard =
            read_bounded(&path, FILE_BYTES_MAX).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let state = Mutex::new(State { heard, trouble: None });
        Self { layout: layout.clone(), accounts, clock, entropy, state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the site said, and keeps it on disk.
    pub(crate) fn heard(&self, heard: Heard) -> Result<(), AgentFault> {
        let path = self.layout.part(Part::State).join(HEARTBEAT);
        let json = serde_json::to_vec(&heard).map_err(|error| AgentFault::content(&path, error))?;
        *self.lock() = State { heard: Some(heard), trouble: None };
        let ownership = Ownership { accounts: &self.accounts, owner: Owner::Himds, mode: 0o644 };
        self.layout
            .open_part(Part::State)
            .and_then(|folder| write_atomic(&folder, HEARTBEAT, &json, ownership, &*self.entropy))
            .map_err(|fault| AgentFault::file("cannot write", &path, fault))
    }

    pub(crate) fn failed(&self, code: &str, details: &str) {
        let trouble = Trouble { code: code.to_owned(), details: details.to_owned(), at: self.clock.now() };
        self.lock().trouble = Some(trouble);
    }

    /// A new connection starts without the failures of the one before.
    pub(crate) fn forget_trouble(&self) {
        self.lock().trouble = None;
    }

    /// The configuration with what was heard since in place of what it was connected with.
    pub(crate) fn refreshed(&self, config: &AgentConfig) -> (String, BTreeMap<String, String>) {
        match self.of(config) {
            Some(heard) => (heard.location, heard.tags),
            None => (config.location.clone(), config.tags.clone()),
        }
    }

    fn of(&self, config: &AgentConfig) -> Option<Heard> {
        let heard = self.lock().heard.clone()?;
        let same = heard.vm_id == config.vm_id && heard.resource_id.eq_ignore_ascii_case(&config.resource_id);
        same.then_some(heard)
    }

    /// `GET /agentstatus`, which `azcmagent show` and onboarding scripts read.
    pub(crate) fn status(&self, config: Option<&AgentConfig>) -> Value {
        let Some(config) = config else {
            return json!({ "status": "Disconnected", "agentVersion": AGENT_VERSION, "lastHeartbeat": "",
                "errorCode": "", "errorDetails": "", "errorTimestamp": "", "httpsProxy": "" });
        };
        let heard = self.of(config);
        let trouble = self.lock().trouble.clone();
        let silent = |heard: &Heard| self.clock.now().as_second() - heard.last_heartbeat.as_second();
        let status = match &heard {
            _ if trouble.as_ref().is_some_and(|trouble| trouble.code == "Expired") => "Expired",
            Some(heard) if silent(heard) <= CONNECTED_SECONDS_MAX => "Connected",
            _ => "Disconnected",
        };
        let (location, _) = self.refreshed(config);
        json!({
            "status": status,
            "lastHeartbeat": heard.map(|heard| seconds(heard.last_heartbeat)).unwrap_or_default(),
            "agentVersion": AGENT_VERSION,
            "errorCode": trouble.as_ref().map(|trouble| trouble.code.clone()).unwrap_or_default(),
            "errorDetails": trouble.as_ref().map(|trouble| trouble.details.clone()).unwrap_or_default(),
            "errorTimestamp": trouble.map(|trouble| seconds(trouble.at)).unwrap_or_default(),
            "httpsProxy": config.proxy_shown(),
            "resourceName": config.resource_name,
            "resourceGroup": config.resource_group,
            "resourceId": config.resource_id,
            "subscriptionId": config.subscription_id,
            "tenantId": config.tenant_id,
            "location": location,
            "vmId": config.vm_id,
            "correlationId": config.correlation_id,
            "cloud": config.cloud,
            "agentLogfile": self.layout.log_file(),
        })
    }
}

/// RFC 3339 without a fraction.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcadia_crypto::SystemEntropy;
    use arcadia_kernel::FixedClock;

    fn heard(config: &AgentConfig, at: i64) -> Heard {
        Heard {
            resource_id: config.resource_id.to_uppercase(),
            vm_id: config.vm_id,
            location: "ukwest".to_owned(),
            tags: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            status: "Connected".to_owned(),
            last_heartbeat: Timestamp::from_second(at).unwrap(),
        }
    }

    #[test]
    fn what_was_heard_outlives_a_restart_and_ages() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        layout.prepare(&Accounts::default()).unwrap();
        let clock = Arc::new(FixedClock::at_epoch_seconds(1_800_000_000));
        let open = || Health::open(&layout, Accounts::default(), clock.clone(), Arc::new(SystemEntropy));
        let config = crate::config::tests::example();
        let health = open();
        assert_eq!(health.status(Some(&config))["status"], "Disconnected");
        assert_eq!(health.refreshed(&config).0, "uksouth");
        health.failed("503", "away");
        assert_eq!(health.status(Some(&config))["errorCode"], "503");
        health.failed("Expired", "connect again");
        assert_eq!(health.status(Some(&config))["status"], "Expired");
        health.heard(heard(&config, 1_800_000_000)).unwrap();
        let health = open();
        let status = health.status(Some(&config));
        assert_eq!((&status["status"], &status["errorCode"]), (&json!("Connected"), &json!("")));
        assert_eq!(status["lastHeartbeat"], "2027-01-15T08:00:00Z");
        assert_eq!(health.refreshed(&config).1["k"], "v");
        clock.advance_seconds(901);
        assert_eq!(health.status(Some(&config))["status"], "Disconnected");
        let other = AgentConfig { vm_id: Uuid::from_u128(0x99), ..config };
        assert_eq!(health.refreshed(&other).0, "uksouth", "what another machine heard is not ours");
        assert_eq!(health.status(None)["status"], "Disconnected");
    }
}
