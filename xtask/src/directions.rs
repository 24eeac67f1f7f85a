//! Which crate may use which.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::output::{capture, cargo};

/// Every crate of the workspace and what it may use of the others, for building and for testing alike.
const ALLOWED: [(&str, &[&str]); 17] = [
    ("arcadia-fuzz", &[]),
    ("arcadia-races", &[]),
    ("arcadia-interleaved", &["arcadia-crypto", "arcadia-store"]),
    ("arcadia-kernel", &[]),
    ("arcadia-crypto", &["arcadia-kernel"]),
    ("arcadia-store", BELOW_STORE),
    ("arcadia-directory", BELOW_SERVICES),
    ("arcadia-arm", BELOW_SERVICES),
    ("arcadia-keyvault", BELOW_RESOURCES),
    ("arcadia-machines", BELOW_MACHINES),
    ("arcadia-storage", BELOW_RESOURCES),
    ("arcadia-postgres", BELOW_RESOURCES),
    ("arcadia-client", BELOW_STORE),
    ("arcadia-agent", &["arcadia-kernel", "arcadia-crypto", "arcadia-client"]),
    ("arcadia", EVERYTHING),
    ("arcadia-bench", EVERYTHING),
    ("xtask", &[]),
];

/// What tests of every crate may use.
const TEST_SUPPORT: [&str; 3] = ["arcadia-fuzz", "arcadia-races", "arcadia-interleaved"];

const BELOW_STORE: &[&str] = &["arcadia-kernel", "arcadia-crypto"];
const BELOW_SERVICES: &[&str] = &["arcadia-kernel", "arcadia-crypto", "arcadia-store"];
const BELOW_RESOURCES: &[&str] = &["arcadia-kernel", "arcadia-crypto", "arcadia-store", "arcadia-arm"];
/// A machine's identity is the directory's, and made in one commit with the machine.
const BELOW_MACHINES: &[&str] =
    &["arcadia-kernel", "arcadia-crypto", "arcadia-store", "arcadia-arm", "arcadia-directory"];
const EVERYTHING: &[&str] = &[
    "arcadia-kernel",
    "arcadia-crypto",
    "arcadia-store",
    "arcadia-directory",
    "arcadia-arm",
    "arcadia-keyvault",
    "arcadia-machines",
    "arcadia-storage",
    "arcadia-postgres",
    "arcadia-client",
    "arcadia-agent",
];

/// What is wrong, a line each.
pub fn faults(root: &Path) -> Result<Vec<String>> {
    Ok(wrong(&all_uses(&metadata(root)?)?))
}

/// The crates that use this one of the workspace.
pub fn users_of(root: &Path, used: &str) -> Result<Vec<String>> {
    let metadata = metadata(root)?;
    let uses = all_uses(&metadata)?;
    Ok(uses.iter().filter(|(_, uses)| uses.contains(&used)).map(|(name, _)| (*name).to_owned()).collect())
}

fn metadata(root: &Path) -> Result<Value> {
    let text = capture(cargo(root).args(["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    serde_json::from_str(&text).context("cargo metadata is not JSON")
}

fn all_uses(metadata: &Value) -> Result<BTreeMap<&str, Vec<&str>>> {
    let packages =
        metadata.get("packages").and_then(Value::as_array).context("cargo metadata has no packages")?;
    let names: Vec<&str> = packages.iter().filter_map(|package| package.get("name")?.as_str()).collect();
    let named = |package| Some((Value::get(package, "name")?.as_str()?, uses(package, &names)));
    Ok(packages.iter().filter_map(named).collect())
}

fn uses<'a>(package: &'a Value, names: &[&str]) -> Vec<&'a str> {
    let dependencies =
        package.get("dependencies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let used = dependencies.iter().filter_map(|dependency| dependency.get("name")?.as_str());
    used.filter(|name| names.contains(name)).collect()
}

fn wrong(uses: &BTreeMap<&str, Vec<&str>>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, used) in uses {
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| known == name) else {
            found.push(format!("crate {name} is not in xtask/src/directions.rs; say there what it may use"));
            continue;
        };
        for other in used.iter().filter(|other| !TEST_SUPPORT.contains(other) && !allowed.contains(other)) {
            found.push(format!(
                "crate {name} uses {other}, which the directions of ARCHITECTURE.md do not allow"
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_do_not_use_one_another() {
        let uses = BTreeMap::from([
            ("arcadia-arm", vec!["arcadia-store", "arcadia-directory"]),
            ("arcadia-agent", vec!["arcadia-client", "arcadia-store"]),
            ("arcadia-keyvault", vec!["arcadia-arm", "arcadia-directory"]),
            ("arcadia-machines", vec!["arcadia-arm", "arcadia-directory"]),
            ("arcadia", vec!["arcadia-agent", "arcadia-arm"]),
            ("new", vec![]),
        ]);
        let found = wrong(&uses);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].contains("arcadia-agent uses arcadia-store"));
        assert!(found[1].contains("arcadia-arm uses arcadia-directory"));
        assert!(found[2].contains("arcadia-keyvault uses arcadia-directory"));
        assert!(found[3].contains("crate new is not in"));
    }
}
