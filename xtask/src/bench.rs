//! `cargo xtask bench`: builds the program and the bench for release, and measures.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use super::install;
use super::output::{cargo, say};

const TABLE: &str = "docs/performance.md";
const JSON: &str = "docs/performance.json";

/// Runs every row and writes the table and the JSON of docs; a run of some rows, or one to look at only, writes
/// nothing.
pub fn run(root: &Path, arguments: &[String]) -> Result<ExitCode> {
    install::for_bench(root)?;
    say("building arcadia and its bench for release");
    let packages = ["build", "--release", "--package", "arcadia", "--package", "arcadia-bench"];
    if !cargo(root).args(packages).status()?.success() {
        bail!("the build failed");
    }
    let built = root.join("target/release");
    let mut bench = Command::new(built.join("arcadia-bench"));
    bench.arg("run").arg("--arcadia").arg(built.join("arcadia")).args(arguments);
    if arguments.is_empty() {
        bench.arg("--table").arg(root.join(TABLE)).arg("--json").arg(root.join(JSON));
    }
    Ok(if bench.status()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
