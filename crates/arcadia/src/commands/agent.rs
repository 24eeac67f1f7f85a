//! `arcadia agent`, and the names under which this program is the agent.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

/// The agent of a connected machine
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent's daemon: the metadata service on 127.0.0.1:40342, and heartbeats
    #[command(
        after_help = "Examples:\n  arcadia agent run\n\nThe same program answers as `azcmagent` and `himds` \
                            when it is called by these names."
    )]
    Run,
}

pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run => Ok(agent(vec!["himds".into()])),
    }
}

/// Answers as `azcmagent` or `himds` when called by that name.
pub fn answer_by_name() -> Option<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = Path::new(arguments.first()?).file_name()?;
    (name == "azcmagent" || name == "himds").then(|| agent(arguments))
}

fn agent(arguments: Vec<OsString>) -> ExitCode {
    let code = arcadia_agent::azcmagent(arguments, &crate::host::variable);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
