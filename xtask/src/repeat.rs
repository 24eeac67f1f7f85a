//! `cargo xtask access` and `cargo xtask races`: tests that every run has a little of, run for long.
//!
//! A filter that fits no test makes a run that succeeds. So what counts is what the tests say, not that nothing failed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use super::directions;
use super::output::{cargo, note, say, stream};

/// What is compared here is computed, and quick only with optimization. Beside the other builds, so that they stay.
const FOLDER: &str = "target/soak";
/// How the last line of an oracle's test begins, the package it is in, and its name.
const ORACLES: [(&str, &str, &str); 2] = [
    ("access", "arcadia-arm", "access::oracle::the_engine_agrees_with_the_oracle"),
    ("groups", "arcadia-directory", "snapshot::oracle::nested_groups_agree_with_the_oracle"),
];
const RECORD: &str = "docs/access.json";

/// The access engine and the directory's groups against their oracles, over `cases` random worlds.
pub fn access(root: &Path, cases: u32, seed: Option<u64>, keep: bool) -> Result<ExitCode> {
    let mut command = test(root, &ORACLES.map(|(_, package, _)| package));
    command.args(["--lib", "--", "--nocapture", "--exact"]).args(ORACLES.map(|(_, _, name)| name));
    command.env("ARCADIA_ACCESS_CASES", cases.to_string());
    if let Some(seed) = seed {
        command.env("ARCADIA_ACCESS_SEED", seed.to_string());
    }
    let (lines, succeeded) = stream(&mut command)?;
    let mut compared = BTreeMap::new();
    for (what, package, name) in ORACLES {
        match outcome(&lines, what, cases) {
            Some(outcome) => drop(compared.insert(what, outcome)),
            None => note(format!(
                "{package}: {name} did not say that {cases} cases had no difference; was it renamed?"
            )),
        }
    }
    if !succeeded || compared.len() < ORACLES.len() {
        return Ok(ExitCode::FAILURE);
    }
    if keep {
        let now = now();
        compared.insert("ranAt", &now);
        fs::write(root.join(RECORD), format!("{}\n", serde_json::to_string_pretty(&compared)?))?;
        note(format!("written to {RECORD}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What the test said of all its cases. The harness may have begun the line.
fn outcome<'a>(lines: &'a [String], what: &str, cases: u32) -> Option<&'a str> {
    let start = format!("{what}: ");
    let said = lines.iter().filter_map(|line| Some(line.split_once(&start)?.1));
    let wanted = format!("{cases} cases ");
    said.into_iter().find(|said| said.starts_with(&wanted) && said.contains("no difference"))
}

#[allow(clippy::disallowed_methods, reason = "the record says when it was made")]
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Every race for what is good once, `rounds` times: half of them with the store in memory, where most come to pass, half
/// with the store on disk, where a site has it.
pub fn races(root: &Path, rounds: u32) -> Result<ExitCode> {
    let packages = directions::users_of(root, "arcadia-races")?;
    let (mut tests, mut clean) = (0, !packages.is_empty());
    for package in &packages {
        for on_disk in [false, true] {
            let mut command = test(root, &[package]);
            command.args(["--tests", "--", "races::"]);
            command.env("ARCADIA_RACE_ROUNDS", rounds.div_ceil(2).to_string());
            if on_disk {
                command.env("ARCADIA_RACE_ON_DISK", "1");
            }
            let (lines, succeeded) = stream(&mut command)?;
            let passed: usize = lines.iter().filter_map(|line| passed(line)).sum();
            if passed == 0 {
                note(format!("{package}: no race was run; its races are the tests of a module named races"));
            }
            clean &= succeeded && passed > 0;
            tests += passed;
        }
    }
    say(format!("races: {tests} runs of tests of {} packages, {rounds} rounds", packages.len()));
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many tests passed, where the line sums up a binary's.
fn passed(line: &str) -> Option<usize> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    counts.split_once(" passed")?.0.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_counts_by_what_its_tests_say() {
        let of = |text: &str| {
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            outcome(&lines, "access", 20).map(str::to_owned)
        };
        let said = "20 cases from seed 7, no difference, 44.0 % allowed";
        assert_eq!(of(&format!("running 1 test\naccess: {said}\ntest a ... ok")).as_deref(), Some(said));
        assert_eq!(of(&format!("test access::oracle::x ... access: {said}")).as_deref(), Some(said));
        for nothing in
            ["running 0 tests", "access: 2 cases from seed 7, no difference", "access: 20 cases from"]
        {
            assert_eq!(of(nothing), None, "{nothing}");
        }
        assert_eq!(passed("test result: ok. 14 passed; 0 failed; 0 ignored; 0 measured"), Some(14));
        assert_eq!(passed("test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured"), Some(3));
        assert_eq!(passed("test races::one ... ok"), None);
    }
}
