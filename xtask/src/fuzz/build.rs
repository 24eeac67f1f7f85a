//! Test programs with counters in every branch of the project and of its libraries.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Target;
use crate::output::{capture, cargo, say};

/// What libFuzzer needs to see where an input leads.
const FLAGS: &str = "--cfg fuzzing --cfg fuzzing_libfuzzer -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The built test program of each crate.
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    pub fn of(&self, target: &Target) -> Result<&Path> {
        let program = self.0.get(&target.member);
        Ok(program.with_context(|| format!("the crate {} has no test program", target.member))?)
    }
}

pub fn programs(root: &Path, targets: &[Target]) -> Result<Programs> {
    let members: BTreeSet<&str> = targets.iter().map(|target| target.member.as_str()).collect();
    let (libraries, programs): (Vec<&str>, Vec<&str>) =
        members.into_iter().partition(|member| root.join("crates").join(member).join("src/lib.rs").is_file());
    let mut built = BTreeMap::new();
    for (members, kind) in [(libraries, "--lib"), (programs, "--bins")] {
        if !members.is_empty() {
            say(format!("building {}", members.join(", ")));
            built.extend(build(root, &members, kind)?);
        }
    }
    Ok(Programs(built))
}

fn build(root: &Path, members: &[&str], kind: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo(root);
    command
        .args(["test", "--no-run", "--profile", "fuzz", "--message-format", "json-render-diagnostics", kind])
        .args(["--target", &host()?])
        .arg("--target-dir")
        .arg(root.join("target/fuzz/build"))
        .env("RUSTFLAGS", FLAGS)
        .stderr(Stdio::inherit());
    for member in members {
        // A program has the project's name, its parts have names of their own after it.
        let package = if *member == "arcadia" { "arcadia".to_owned() } else { format!("arcadia-{member}") };
        command.args(["-p", &package]);
    }
    let done = command.output().context("cannot run cargo")?;
    if !done.status.success() {
        bail!("the fuzz targets of {} cannot be built", members.join(", "));
    }
    let lines = String::from_utf8(done.stdout)?;
    Ok(lines.lines().filter_map(|line| program(root, &serde_json::from_str(line).ok()?)).collect())
}

/// The crate's folder and the program, of a message about one.
fn program(root: &Path, message: &Value) -> Option<(String, PathBuf)> {
    let program = message.get("executable")?.as_str()?;
    let manifest = Path::new(message.get("manifest_path")?.as_str()?);
    let member = manifest.parent()?.strip_prefix(root.join("crates")).ok()?;
    Some((member.to_str()?.to_owned(), program.into()))
}

/// With a target named, what runs while building is built without counters.
fn host() -> Result<String> {
    let version = capture(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say for which machine it is")
}
