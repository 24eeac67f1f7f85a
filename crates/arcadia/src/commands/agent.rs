//! `arcadia agent`.

use std::process::ExitCode;

use clap::Subcommand;

/// The agent of a connected machine
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arcadia agent run")]
pub enum Command {
    /// Run the agent's daemon: the metadata service on 127.0.0.1:40342, and heartbeats
    #[command(
        after_help = "Examples:\n  arcadia agent run\n\nThe same program answers as `azcmagent` and `himds` \
                            when it is called by these names."
    )]
    Run,
}

pub fn run(command: &Command, agent: crate::Agent) -> ExitCode {
    match command {
        Command::Run => agent(vec!["himds".into()]),
    }
}
