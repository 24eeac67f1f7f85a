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
    let mut built = BTreeMap::new();
    for (kind, members) in kinds(root, targets) {
        built.extend(build(root, &kind, &members)?);
    }
    Ok(Programs(built))
}

/// Which programs cargo is to build, and the crates that have them. One kind at a time: of crates together cargo builds
/// every program of a name, and one without a target has no libFuzzer to be linked with.
fn kinds<'a>(root: &Path, targets: &'a [Target]) -> BTreeMap<String, BTreeSet<&'a str>> {
    let mut kinds: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for target in targets {
        let kind = match &target.program {
            Program::Own if has_library(root, &target.member) => "--lib".to_owned(),
            Program::Own => "--bins".to_owned(),
            Program::Beside(name) => format!("--test={name}"),
        };
        kinds.entry(kind).or_default().insert(&target.member);
    }
    kinds
}

fn build(root: &Path, kind: &str, members: &BTreeSet<&str>) -> Result<BTreeMap<(String, Program), PathBuf>> {
    let names = members.iter().copied().collect::<Vec<_>>().join(", ");
    note(format!("building the tests of {names} ({kind})"));
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
        bail!("the fuzz targets of {names} cannot be built");
    }
    let lines = String::from_utf8(done.stdout)?;
    Ok(lines.lines().filter_map(|line| program(root, &serde_json::from_str(line).ok()?)).collect())
}

fn has_library(root: &Path, member: &str) -> bool {
    root.join("crates").join(member).join("src/lib.rs").is_file()
}

/// The crate's folder and which of its programs it is, of a message about a program.
fn program(root: &Path, message: &Value) -> Option<((String, Program), PathBuf)> {
    let program = message.get("executable")?.as_str()?;
    let manifest = Path::new(message.get("manifest_path")?.as_str()?);
    let member = manifest.parent()?.strip_prefix(root.join("crates")).ok()?.to_str()?.to_owned();
    let target = message.get("target")?;
    let is = |kind: &str| {
        target.get("kind").and_then(Value::as_array).is_some_and(|all| all.iter().any(|k| k == kind))
    };
    let place = match target.get("name")?.as_str()? {
        name if is("test") => Program::Beside(name.to_owned()),
        // Of a crate that is a library and programs, the library has the tests.
        _ if is("bin") && has_library(root, &member) => return None,
        _ => Program::Own,
    };
    // A program that tests start is built too, and is none of them.
    let is_tests = message.pointer("/profile/test")?.as_bool()?;
    is_tests.then(|| ((member, place), program.into()))
}

/// With a target named, what runs while building is built without counters.
fn host() -> Result<String> {
    let version = capture(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say for which machine it is")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_are_told_apart() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let built = |member: &str, kind: &str, name: &str, test: bool| {
            let message = json!({
                "executable": "/x", "manifest_path": root.join("crates").join(member).join("Cargo.toml"),
                "target": { "kind": [kind], "name": name }, "profile": { "test": test },
            });
            program(root, &message).map(|((member, _), _)| member)
        };
        assert_eq!(built("kernel", "lib", "arcadia_kernel", true), Some("kernel".to_owned()));
        assert_eq!(built("arcadia", "lib", "arcadia", true), Some("arcadia".to_owned()));
        assert_eq!(built("bench", "bin", "arcadia-bench", true), Some("bench".to_owned()));
        assert_eq!(built("storage", "test", "it", true), Some("storage".to_owned()));
        assert_eq!(built("arcadia", "bin", "arcadia", true), None);
        assert_eq!(built("arcadia", "bin", "arcadia", false), None);
        let mut all = crate::fuzz::targets(root).unwrap();
        all.retain(|target| ["jwt", "startup", "proxy_head", "vault_requests"].contains(&&*target.name));
        let kinds = kinds(root, &all);
        let members = |kind: &str| kinds[kind].iter().copied().collect::<Vec<_>>();
        assert_eq!((kinds.len(), members("--test=it")), (2, vec!["keyvault"]));
        assert_eq!(members("--lib"), ["arcadia", "crypto", "postgres"]);
    }
}
