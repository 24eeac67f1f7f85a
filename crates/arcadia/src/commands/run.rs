//! `arcadia run`

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::environment::{self, Wanted};
use crate::site::{DataDir, Running, State};
use crate::terminal::note;

/// Exit codes of a command that could not be run, as shells give them.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Run a command inside the site's environment
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  arcadia run -- curl https://management.azure.com/\n  \
                        arcadia run --admin -- sh -c 'az login --service-principal \\\n    \
                        -u $AZURE_CLIENT_ID -p $AZURE_CLIENT_SECRET --tenant $AZURE_TENANT_ID'\n\n\
                        The exit status is the command's; 127 when it was not found, 126 when it cannot be run.")]
pub struct Arguments {
    /// Add the first credentials: AZURE_*, ARM_*, ARCADIA_USER, ARCADIA_PASSWORD
    #[arg(long)]
    admin: bool,
    /// Go around the proxy: the site's names resolve by themselves (see `arcadia hosts`)
    #[arg(long)]
    direct: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub fn run(data: &DataDir, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let variables =
        environment::variables(data, Wanted { admin: arguments.admin, direct: arguments.direct })?;
    if !matches!(Running::state(data)?, State::Running(_)) {
        anyhow::bail!(super::not_running(data));
    }
    let Some((program, rest)) = arguments.command.split_first() else {
        anyhow::bail!("name a command to run");
    };
    // Takes this process's place, so signals and the exit status need no passing on.
    let error = Command::new(program).args(rest).envs(variables).exec();
    note(format!("arcadia: {}: {error}", program.to_string_lossy()));
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    Ok(ExitCode::from(code))
}
