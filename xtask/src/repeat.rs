//! `cargo xtask access` and `cargo xtask races`: tests that every run has a little of, run for long.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use super::output::cargo;

/// What is compared here is computed, and quick only with optimization. Beside the other builds, so that they stay.
const FOLDER: &str = "target/soak";
/// The packages with a module of tests `races`.
const WITH_RACES: [&str; 6] =
    ["arcadia", "arcadia-agent", "arcadia-arm", "arcadia-directory", "arcadia-machines", "arcadia-storage"];

/// The access engine against its oracle, over `cases` random worlds.
pub fn access(root: &Path, cases: u32, seed: Option<u64>) -> Result<ExitCode> {
    let mut command = test(root, &["arcadia-arm"]);
    command.args(["--lib", "--", "--nocapture", "--exact"]);
    command.arg("access::oracle::the_engine_agrees_with_the_oracle");
    command.env("ARCADIA_ACCESS_CASES", cases.to_string());
    if let Some(seed) = seed {
        command.env("ARCADIA_ACCESS_SEED", seed.to_string());
    }
    run(&mut command)
}

/// Every race for what is good once, `rounds` times.
pub fn races(root: &Path, rounds: u32) -> Result<ExitCode> {
    let mut command = test(root, &WITH_RACES);
    command.args(["--", "races::"]).env("ARCADIA_RACE_ROUNDS", rounds.to_string());
    run(&mut command)
}

fn test(root: &Path, packages: &[&str]) -> Command {
    let mut command = cargo(root);
    command.args(["test", "--release", "--no-fail-fast"]).env("CARGO_TARGET_DIR", root.join(FOLDER));
    // Only to be quick here, so without what makes a release small.
    command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    for package in packages {
        command.args(["--package", package]);
    }
    command
}

fn run(command: &mut Command) -> Result<ExitCode> {
    Ok(if command.status()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
