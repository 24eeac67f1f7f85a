//! Test programs with counters in every branch of the project and of its libraries.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Program, Target};
use crate::output::{capture, cargo, note, on_path};

/// What libFuzzer needs to see where an input leads.
const FLAGS: &str = "--cfg fuzzing --cfg fuzzing_libfuzzer -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The built test programs, by crate.
pub struct Programs(BTreeMap<(String, Program), PathBuf>);

impl Programs {
    pub fn of(&self, target: &Target) -> Result<&Path> {
        let program = self.0.get(&(target.member.clone(), target.program.clone()));
        Ok(program.with_context(|| format!("the crate {} has no test program for it", target.member))?)
    }
}

pub fn programs(root: &Path, targets: &[Target]) -> Result<Programs> {
    if !["c++", "g++", "clang++"].into_iter().any(on_path) {
        bail!("libFuzzer is built by a C++ compiler; install one, on Debian: apt-get install g++");
    }
    // Of one crate and kind at a time, as cargo takes no list of both.
    let mut wanted: BTreeMap<Vec<String>, BTreeSet<&str>> = BTreeMap::new();
    for target in targets {
        let kind = match &target.program {
            Program::Own if root.join("crates").join(&target.member).join("src/lib.rs").is_file() => {
                vec!["--lib".to_owned()]
            }
            Program::Own => vec!["--bins".to_owned()],
            Program::Beside(name) => vec!["--test".to_owned(), name.clone()],
        };
        wanted.entry(kind).or_default().insert(&target.member);
    }
    let mut built = BTreeMap::new();
    for (kind, members) in wanted {
        let members: Vec<&str> = members.into_iter().collect();
        note(format!("building the tests of {} ({})", members.join(", "), kind.join(" ")));
        built.extend(build(root, &members, &kind)?);
    }
    Ok(Programs(built))
}

fn build(root: &Path, members: &[&str], kind: &[String]) -> Result<BTreeMap<(String, Program), PathBuf>> {
    let mut command = cargo(root);
    command
        .args(["test", "--no-run", "--profile", "fuzz", "--message-format", "json-render-diagnostics"])
        .args(kind)
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

/// The crate's folder and which of its programs it is, of a message about a program.
fn program(root: &Path, message: &Value) -> Option<((String, Program), PathBuf)> {
    let program = message.get("executable")?.as_str()?;
    let manifest = Path::new(message.get("manifest_path")?.as_str()?);
    let member = manifest.parent()?.strip_prefix(root.join("crates")).ok()?.to_str()?.to_owned();
    let target = message.get("target")?;
    let is_beside = target.get("kind")?.as_array()?.iter().any(|kind| kind == "test");
    let name = target.get("name")?.as_str()?.to_owned();
    Some(((member, if is_beside { Program::Beside(name) } else { Program::Own }), program.into()))
}

/// With a target named, what runs while building is built without counters.
fn host() -> Result<String> {
    let version = capture(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say for which machine it is")
}
