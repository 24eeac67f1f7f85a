//! The command line's shape. Each command's arguments stand with the command.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{
    access, agent, audit, backup, down, env, hosts, keys, reference, restore, run, status, token, up,
};
use crate::lab;
use crate::machine;

/// Gives machines that are in no cloud what a cloud gives its own: an identity, and with it secrets, without a
/// stored password. Speaks Azure's wire protocols, so that az, the SDKs and curl work as they are.
#[derive(Debug, Parser)]
#[command(
    name = "arcadia",
    version,
    disable_help_subcommand = true,
    after_help = "Start here:\n  arcadia up --detach\n  eval \"$(arcadia env --admin)\"\n  \
                  az login --service-principal -u $AZURE_CLIENT_ID \\\n    \
                  -p $AZURE_CLIENT_SECRET --tenant $AZURE_TENANT_ID"
)]
pub struct Cli {
    // Their variables are read in `host`, as an empty one is none.
    /// The site's data directory [env: ARCADIA_DATA] [default: /var/lib/arcadia for root, else $XDG_DATA_HOME/arcadia]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Where the passphrase is that the root key is made of, if it is: a file, a systemd credential, /dev/fd/N [env:
    /// ARCADIA_PASSPHRASE_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Up(up::Arguments),
    Down(down::Arguments),
    Status(status::Arguments),
    Env(env::Arguments),
    Run(run::Arguments),
    Hosts(hosts::Arguments),
    Lab(lab::Arguments),
    #[command(subcommand)]
    Machine(machine::Command),
    #[command(subcommand)]
    Token(token::Command),
    #[command(subcommand)]
    Access(access::Command),
    #[command(subcommand)]
    Audit(audit::Command),
    #[command(subcommand)]
    Keys(keys::Command),
    Backup(backup::Arguments),
    Restore(restore::Arguments),
    #[command(subcommand)]
    Agent(agent::Command),
    #[command(hide = true)]
    Reference(reference::Arguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// A line that is wrapped is another command when it is pasted.
    #[test]
    fn examples_fit_a_terminal() {
        fn walk(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                assert!(line.chars().count() <= 78, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
