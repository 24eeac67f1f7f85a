//! Arcadia: configuration, listeners, wiring, and the command line. The only crate that knows every other.
//! [`main`] is the program.

mod cli;
mod commands;
mod environment;
mod extensions;
mod host;
mod lab;
mod logging;
mod machine;
mod names;
mod net;
mod pages;
mod quote;
mod roots;
mod serve;
mod signals;
mod site;
mod terminal;
mod wiring;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use site::DataDir;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the agent: its arguments, which begin with the name that it is called by.
pub type Agent = fn(Vec<OsString>) -> ExitCode;

/// The program, from its arguments to its exit code.
pub fn main(agent: Agent) -> ExitCode {
    begin(agent).unwrap_or_else(|error| {
        terminal::note(format!("arcadia: {error:#}"));
        ExitCode::FAILURE
    })
}

fn begin(agent: Agent) -> anyhow::Result<ExitCode> {
    // Before anything else: the kernel gives a new user namespace to processes with a single thread only.
    if let Some(part) = machine::part() {
        host::keep_open_files_to_itself()?;
        return Ok(part());
    }
    let cli = Cli::parse();
    // What `arcadia run` becomes is given all that its shell has open, as by env(1).
    if !matches!(cli.command, Command::Run(_)) {
        host::keep_open_files_to_itself()?;
    }
    run(cli, agent)
}

fn run(cli: Cli, agent: Agent) -> anyhow::Result<ExitCode> {
    let data = || {
        let path = host::data_directory(cli.data.clone())?;
        let passphrase = host::passphrase_file(cli.passphrase_file.clone());
        anyhow::Ok(DataDir::ours(path)?.unlocked_by(passphrase))
    };
    match &cli.command {
        Command::Up(arguments) => commands::up::run(&data()?, arguments),
        Command::Down(arguments) => commands::down::run(&data()?, arguments),
        Command::Status(arguments) => commands::status::run(&data()?, arguments),
        Command::Env(arguments) => commands::env::run(&data()?, arguments),
        Command::Run(arguments) => commands::run::run(&data()?, arguments),
        Command::Hosts(arguments) => commands::hosts::run(&data()?, arguments),
        Command::Lab(arguments) => lab::run(cli.data.clone(), arguments),
        Command::Machine(command) => {
            let data = data()?;
            machine::run(command, &data, || commands::machine_site(&data))
        }
        Command::Token(command) => commands::token::run(command),
        Command::Access(command) => commands::access::run(&data()?, command),
        Command::Keys(command) => commands::keys::run(&data()?, command),
        Command::Audit(command) => commands::audit::run(&data()?, command),
        Command::Backup(arguments) => commands::backup::run(&data()?, arguments),
        Command::Restore(arguments) => commands::restore::run(&data()?, arguments),
        Command::Agent(command) => Ok(commands::agent::run(command, agent)),
        Command::Reference(arguments) => commands::reference::run(arguments),
    }
}
