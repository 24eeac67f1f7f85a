//! `cargo xtask lab`: the walk-through with everything it needs.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use super::install;
use super::output::{cargo, say};

pub fn run(root: &Path, arguments: &[String]) -> Result<ExitCode> {
    install::for_lab(root)?;
    say("building arcadia");
    if !cargo(root).args(["build", "--bin", "arcadia"]).status()?.success() {
        bail!("the build failed");
    }
    let status = command(root)?.arg("lab").args(arguments).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The built `arcadia`, with the installed clients on its search path.
pub fn command(root: &Path) -> Result<Command> {
    let mut command = Command::new(root.join("target/debug/arcadia"));
    install::with_tools(root, &mut command)?;
    Ok(command)
}
