//! What each command does.

pub mod access;
pub mod agent;
pub mod audit;
pub mod backup;
pub mod down;
pub mod env;
pub mod hosts;
pub mod keys;
pub mod reference;
pub mod restore;
pub mod run;
pub mod status;
pub mod token;
pub mod up;

use crate::machine;
use crate::serve::for_machines;
use crate::site::{DataDir, Running, State};

/// What a machine needs of the site, which must be running.
pub fn machine_site(data: &DataDir) -> anyhow::Result<machine::Site> {
    if !matches!(Running::state(data)?, State::Running(_)) {
        anyhow::bail!(not_running(data));
    }
    for_machines(data)
}

/// What is told where a command needs a site that runs.
fn not_running(data: &DataDir) -> String {
    format!("the site is not running; start it with `arcadia up --detach{}`", data.option())
}
