//! `trouble.json`: why a running site cannot answer, for `arcadia status`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::files::{read_json, write_json};
use super::{DataDir, SiteFault};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    pub pid: u32,
    pub since: Timestamp,
    pub reason: String,
    /// Until the site is started again; else it may pass, as a full disk does.
    pub lasting: bool,
}

impl Trouble {
    /// Of this process.
    pub fn new(reason: String, lasting: bool, since: Timestamp) -> Self {
        Self { pid: std::process::id(), since, reason, lasting }
    }

    pub fn save(&self, data: &DataDir) -> Result<(), SiteFault> {
        write_json(&data.trouble_file(), self)
    }

    pub fn clear(data: &DataDir) {
        let _ = std::fs::remove_file(data.trouble_file());
    }

    /// That of the site which runs as `pid`; what a predecessor left says nothing.
    pub fn of(data: &DataDir, pid: u32) -> Result<Option<Self>, SiteFault> {
        Ok(read_json::<Self>(&data.trouble_file())?.filter(|trouble| trouble.pid == pid))
    }
}
