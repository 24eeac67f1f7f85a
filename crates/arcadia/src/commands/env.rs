//! `arcadia env`

use std::process::ExitCode;

use clap::Args;

use crate::environment::{self, Wanted};
use crate::quote::{self, Format};
use crate::site::{DataDir, Running, State};
use crate::terminal::{note, say};

/// Print what a shell needs to use the site
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  eval \"$(arcadia env)\"\n  eval \"$(arcadia env --admin)\"\n  \
                        arcadia env --format fish | source\n  arcadia env --format json | jq -r .HTTPS_PROXY")]
pub struct Arguments {
    /// Add the first credentials: AZURE_*, ARM_*, ARCADIA_USER, ARCADIA_PASSWORD
    #[arg(long)]
    admin: bool,
    /// Go around the proxy: the site's names resolve by themselves (see `arcadia hosts`)
    #[arg(long)]
    direct: bool,
    /// How the variables are written
    #[arg(long, value_enum, default_value_t = Format::Sh)]
    format: Format,
}

pub fn run(data: &DataDir, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let variables =
        environment::variables(data, Wanted { admin: arguments.admin, direct: arguments.direct })?;
    if !matches!(Running::state(data)?, State::Running(_)) {
        note(format!("arcadia: {}", super::not_running(data)));
    }
    say(quote::render(arguments.format, &variables)?);
    Ok(ExitCode::SUCCESS)
}
