//! What runs on a connected machine: onboarding, the Hybrid Instance Metadata Service (HIMDS), heartbeats.
//!
//! The agent is a client of the public wire like any other. Its private key is made on the machine and never
//! leaves it; the site knows the public half. What it keeps lives under one folder ([`Layout`]).
//!
//! [`Agent`] is the daemon, [`run`] binds and runs it. [`azcmagent`] is the command line: it answers as `azcmagent`
//! and, called by that name, as `himds`. Everything but the command line prints nothing and reads no environment.

mod accounts;
mod challenge;
pub mod cli;
mod config;
mod daemon;
mod facts;
mod files;
mod health;
mod heartbeat;
mod himds;
mod identity;
mod layout;
mod link;
mod log;
pub mod onboard;
mod options;
mod serve;
mod tokens;

pub use cli::{Environment, azcmagent, azcmagent_to};
pub use config::AgentConfig;
pub use daemon::{Agent, run};
pub use facts::{FactSources, Facts};
pub use identity::MachineIdentity;
pub use layout::{DEFAULT_ROOT, Layout};
pub use options::{AgentFault, AgentOptions, HIMDS_PORT, HimdsLimits, Reach};

/// The agent's own version, as `azcmagent version`, heartbeats and the machine resource show it.
pub const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");
