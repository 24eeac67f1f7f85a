//! Whether a site runs, and where: the lock says whether, `running.json` says where.

use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::files::{read_json, write_json};
use super::lock::holder;
use super::{DataDir, SiteFault, Trouble};

/// Written when the site can serve, removed when it has stopped.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    pub pid: u32,
    pub version: String,
    pub started_at: Timestamp,
    pub proxy: SocketAddr,
    /// Where the site's names are served without the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    pub proxy_socket: PathBuf,
    /// Where database servers are reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<SocketAddr>,
    pub offline: bool,
    /// Patterns of the names served, each with its service.
    pub names: Vec<(String, String)>,
}

/// A site as it is seen from outside.
#[derive(Clone, Debug)]
pub enum State {
    Stopped,
    /// The lock is held, but the site does not serve yet (or no longer).
    Changing(Option<i32>),
    Running(Box<Running>),
}

impl Running {
    pub fn save(&self, data: &DataDir) -> Result<(), SiteFault> {
        write_json(&data.running_file(), self)
    }

    pub fn clear(data: &DataDir) {
        let _ = std::fs::remove_file(data.running_file());
        Trouble::clear(data);
    }

    /// What the data directory says now.
    pub fn state(data: &DataDir) -> Result<State, SiteFault> {
        let lock = data.lock_file();
        let Some(pid) = holder(&lock).map_err(SiteFault::file(&lock))? else { return Ok(State::Stopped) };
        let running: Option<Self> = read_json(&data.running_file())?;
        Ok(match running {
            // What a killed predecessor left behind names another process.
            Some(running) if i64::from(running.pid) == i64::from(pid.unwrap_or(0)) => {
                State::Running(Box::new(running))
            }
            _ => State::Changing(pid),
        })
    }
}
