//! `arcadia agent`, and the names under which this program is the agent.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

/// The agent of a connected machine
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent's daemon: the metadata service on 127.0.0.1:40342, and heartbeats
    #[command(after_help = "Examples:\n  arcadia agent run\n\nThe same program answers as `azcmagent` and `himds` \
                            when it is called by these names.")]
    Run,
}

pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run => Ok(arcadia_agent::azcmagent("himds", Vec::new())),
    }
}

/// Answers as `azcmagent` or `himds` when called by that name.
pub fn answer_by_name() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let called = arguments.next()?;
    let name = Path::new(&called).file_name()?.to_str()?.to_owned();
    if !matches!(name.as_str(), "azcmagent" | "himds") {
        return None;
    }
    let rest: Vec<OsString> = arguments.collect();
    Some(arcadia_agent::azcmagent(&name, rest))
}
