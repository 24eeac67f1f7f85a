//! `docs/reference`, generated from the operation tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use super::output::{capture, cargo, say};

/// The folder's only file; it is what `arcadia reference` prints.
const FILE: &str = "docs/reference/README.md";

pub fn write(root: &Path) -> Result<ExitCode> {
    if !cargo(root).args(["build", "--quiet", "--bin", "arcadia"]).status()?.success() {
        bail!("the build failed");
    }
    let path = root.join(FILE);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, printed(root)?)?;
    say(format_args!("{FILE} is written"));
    Ok(ExitCode::SUCCESS)
}

/// The files that differ from what the program prints.
pub fn stale(root: &Path) -> Result<Vec<PathBuf>> {
    let now = fs::read_to_string(root.join(FILE)).unwrap_or_default();
    Ok(if now == printed(root)? { Vec::new() } else { vec![PathBuf::from(FILE)] })
}

fn printed(root: &Path) -> Result<String> {
    let text = capture(Command::new(root.join("target/debug/arcadia")).arg("reference"))?;
    if text.lines().count() < 10 {
        bail!("`arcadia reference` printed next to nothing");
    }
    Ok(text)
}
