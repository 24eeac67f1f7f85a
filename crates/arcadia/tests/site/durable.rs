//! What was acknowledged has been synced before. A process that is killed leaves the kernel's memory behind, so no
//! `kill -9` shows this: strace sees it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arcadia_kernel::Clock as _;
use serde_json::json;
use tempfile::TempDir;

use crate::broken_disk::blobs;
use crate::databases::{made, server_body};
use crate::machines::Machine;
use crate::raw::PATIENCE;
use crate::support::{ARM_SCOPE, SECRETS_OFFICER, Site, SystemClock, VAULT_SCOPE, arcadia, succeeds};

/// More than what is packed with others into one file.
const LARGE_BYTES: usize = 100_000;

const TRACE: [&str; 6] = [
    "-fyqttt",
    "--seccomp-bpf",
    "-e",
    "signal=none",
    "-e",
    "trace=fsync,fdatasync,syncfs,rename,renameat,renameat2",
];

/// What a process asked the kernel to make durable, or to give a name.
#[derive(Debug, PartialEq)]
enum Step {
    /// Of a file, or of a folder for the names in it.
    Sync(PathBuf),
    /// Of a whole file system.
    SyncAll(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug)]
struct Call {
    /// When it was done, in seconds of the epoch.
    at: f64,
    thread: String,
    step: Step,
}

/// The same program under strace, which stays beside it: signals and exit codes are the program's own.
fn traced(data: &Path, log: &Path) -> Command {
    let untraced = arcadia(data);
    let mut command = Command::new("strace");
    command.env_clear().envs(untraced.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.arg("-D").args(TRACE).arg("-o").arg(log).arg(untraced.get_program());
    command
}

/// Everything that was done, once the traced process has ended.
fn calls_of(log: &Path, pid: u32) -> Vec<Call> {
    let (begun, end) = (Instant::now(), format!("{pid} "));
    loop {
        let text = fs::read_to_string(log).unwrap();
        if text.lines().any(|line| line.starts_with(&end) && line.contains("+++ exited")) {
            return calls(&text);
        }
        assert!(begun.elapsed() < PATIENCE, "strace does not tell the end of {pid}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn calls(text: &str) -> Vec<Call> {
    let (mut begun, mut calls) = (HashMap::new(), Vec::new());
    for line in text.lines() {
        let (thread, rest) = line.split_once(' ').unwrap();
        let (at, call) = rest.trim_start().split_once(' ').unwrap();
        if let Some(call) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, call);
            continue;
        }
        let whole = match call.strip_prefix("<... ").and_then(|rest| rest.split_once("resumed>")) {
            Some((_, rest)) => format!("{}{rest}", begun.remove(thread).unwrap_or_default()),
            None => call.to_owned(),
        };
        if let Some(step) = step(&whole) {
            calls.push(Call { at: at.parse().unwrap(), thread: thread.to_owned(), step });
        }
    }
    calls
}

/// One that succeeded.
fn step(call: &str) -> Option<Step> {
    let (name, rest) = call.trim().strip_suffix(" = 0")?.split_once('(')?;
    // Of what the call is about: descriptors have their paths in angle brackets, names are in quotation marks.
    let path = |argument: &str| {
        let folder = argument.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        let name = argument.split_once('"').and_then(|(_, rest)| rest.split_once('"'));
        let [folder, name] = [folder, name].map(|part| part.map_or("", |(part, _)| part));
        Path::new(folder).join(name)
    };
    let whole = || path(rest).components().collect();
    match name {
        "fsync" | "fdatasync" => Some(Step::Sync(whole())),
        "syncfs" => Some(Step::SyncAll(whole())),
        _ => {
            let (from, to) = rest.split_once("\", ")?;
            Some(Step::Rename(path(&format!("{from}\"")), path(to)))
        }
    }
}

/// The times of a request, and what was done meanwhile.
struct During(f64, f64);

impl During {
    async fn of<T>(work: impl Future<Output = T>) -> (Self, T) {
        let now = || SystemClock.now().as_duration().as_secs_f64();
        let begun = now();
        let done = work.await;
        (Self(begun, now()), done)
    }

    /// Where in it something of this kind was done.
    #[track_caller]
    fn at(&self, calls: &[Call], what: &str, is_it: impl Fn(&Step) -> bool) -> usize {
        let meanwhile = |call: &Call| self.0 <= call.at && call.at <= self.1;
        let found = calls.iter().rposition(|call| meanwhile(call) && is_it(&call.step));
        found.unwrap_or_else(|| {
            let seen: Vec<_> = calls.iter().filter(|call| meanwhile(call)).collect();
            panic!("{what} was not durable when it was acknowledged: {seen:#?}")
        })
    }
}

/// Each file that got its name in a folder was durable before, and its name at once after. How many there were.
fn check_renames(calls: &[Call], folder: &Path) -> Vec<PathBuf> {
    let mut named = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let Step::Rename(from, to) = &call.step else { continue };
        if to.parent() != Some(folder) {
            continue;
        }
        let own = |calls: &[Call]| calls.iter().position(|other| other.thread == call.thread);
        let before = calls[..at].iter().rfind(|other| other.thread == call.thread).map(|call| &call.step);
        let after = own(&calls[at + 1..]).map(|next| &calls[at + 1 + next].step);
        assert_eq!(before, Some(&Step::Sync(from.clone())), "{} was not synced", from.display());
        assert_eq!(after, Some(&Step::Sync(folder.to_owned())), "{} can lose its name", to.display());
        named.push(to.clone());
    }
    named
}

fn is_sync(step: &Step, path: &Path) -> bool {
    matches!(step, Step::Sync(synced) if synced == path)
}

/// Of something in a folder itself.
fn is_sync_in(step: &Step, folder: &Path) -> bool {
    matches!(step, Step::Sync(synced) if synced.parent() == Some(folder))
}

#[tokio::test]
async fn what_is_acknowledged_was_synced_before() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("calls");
    let mut site = Site::over(folder.path().join("data"));
    site.up_by(traced(&site.data, &log), &["--offline"]);
    let pid = site.pid().unsigned_abs();
    let wire = site.client();
    let vault = wire.vault("kvdurable").await;
    let officer = wire.application("officer").await;
    wire.assign(&vault, SECRETS_OFFICER, &officer.object_id).await;
    let token = wire.token_of(&officer.app_id, &officer.secret, VAULT_SCOPE).await;
    let url = "https://kvdurable.vault.azure.net/secrets/s1?api-version=7.4";
    let (secret, _) = During::of(wire.must("PUT", url, &token, Some(json!({ "value": "v" })))).await;
    let blobs = blobs(&wire).await;
    let (small, answer) = During::of(blobs.put(&wire, 100)).await;
    assert_eq!(answer.0, 201, "{}", answer.1);
    let (large, answer) = During::of(blobs.put(&wire, LARGE_BYTES)).await;
    assert_eq!(answer.0, 201, "{}", answer.1);
    let arm = wire.admin_token(ARM_SCOPE).await;
    let group = format!("/subscriptions/{}/resourceGroups/rg1", wire.subscription());
    let server = format!("{group}/providers/Microsoft.DBforPostgreSQL/flexibleServers/pg-durable");
    let (database, ()) = During::of(made(&wire, &arm, &server, server_body())).await;
    site.stop();

    let calls = calls_of(&log, pid);
    let data = fs::canonicalize(&site.data).unwrap();
    let named = check_renames(&calls, &data);
    for name in ["root.key", "ring.json", "credentials.json", "site.json", "ca.key.pem", "ca.pem"] {
        assert!(named.contains(&data.join(name)), "{name} was not seen to be made: {named:?}");
    }
    let row = |step: &Step| is_sync(step, &data.join("store.db-wal"));
    secret.at(&calls, "a secret", row);
    // Bytes, and the names of their files, come before the row that leads to them.
    let in_order = |during: &During, blob: &str, folder: &Path| {
        let bytes = during.at(&calls, blob, |step| is_sync_in(step, folder));
        let name = during.at(&calls, "the name of its file", |step| is_sync(step, folder));
        let row = during.at(&calls, "its row", row);
        assert!(bytes < row && name < row, "{blob}: {bytes} {name} {row}");
    };
    in_order(&small, "a small blob", &data.join("blobs/segments"));
    let files = data.join("blobs/files");
    let shard = large.at(&calls, "a large blob", |step| is_sync_in(step, &files));
    let Step::Sync(shard) = &calls[shard].step else { unreachable!() };
    in_order(&large, "a large blob", shard);
    let is_server = |step: &Step| {
        let Step::Rename(_, to) = step else { return false };
        to.parent() == Some(&data.join("postgres")) && !to.to_string_lossy().contains("template")
    };
    let renamed = database.at(&calls, "a database server", is_server);
    let own: Vec<_> = calls.iter().filter(|call| call.thread == calls[renamed].thread).collect();
    let at = own.iter().position(|call| call.at == calls[renamed].at).unwrap();
    let earlier = own[..at].iter().rfind(|call| !matches!(call.step, Step::Rename(..)));
    assert_eq!(earlier.map(|call| &call.step), Some(&Step::SyncAll(data.join("postgres"))));
    let later = own[at..].iter().find(|call| !matches!(call.step, Step::Rename(..)));
    assert_eq!(later.map(|call| &call.step), Some(&Step::Sync(data.join("postgres"))));
}

/// What a command makes as one directory is on the disk before it has its name, and its name before the command ends.
#[track_caller]
fn made_durably(calls: &[Call], target: &Path) {
    let renamed = calls.iter().position(|call| matches!(&call.step, Step::Rename(_, to) if to == target));
    let renamed = renamed.unwrap_or_else(|| panic!("{} never got its name: {calls:#?}", target.display()));
    let Step::Rename(draft, _) = &calls[renamed].step else { unreachable!() };
    assert_eq!(calls[renamed - 1].step, Step::SyncAll(draft.clone()));
    assert_eq!(calls[renamed + 1].step, Step::Sync(target.parent().unwrap().to_owned()));
}

#[tokio::test]
async fn a_backup_and_what_is_restored_are_synced_before_they_have_their_names() {
    let folder = TempDir::new().unwrap();
    let top = fs::canonicalize(folder.path()).unwrap();
    let site = Site::start();
    let (backup, again) = (top.join("backup"), top.join("again"));
    let of = |command: &mut Command, log: &str| {
        let log = top.join(log);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        succeeds(&child.wait_with_output().unwrap());
        calls_of(&log, pid)
    };
    let copied = of(traced(&site.data, &top.join("copied")).arg("backup").arg(&backup), "copied");
    made_durably(&copied, &backup);
    let mut restore = traced(&again, &top.join("restored"));
    restore.arg("restore").arg(&backup).arg("--root-key").arg(site.data.join("root.key"));
    let restored = of(&mut restore, "restored");
    made_durably(&restored, &again);
}

#[tokio::test]
async fn what_connect_leaves_on_a_machine_was_synced_before() {
    let site = Site::start();
    let wire = site.client();
    wire.vault("kvconnect").await;
    let machine = Machine::create(&site, &[]);
    let (log, folder) = ("/root/calls", Path::new("/var/opt/azcmagent"));
    let (id, secret) = (&wire.admin["AZURE_CLIENT_ID"], &wire.admin["AZURE_CLIENT_SECRET"]);
    let mut connect = vec!["strace"];
    connect.extend(TRACE);
    connect.extend(["-o", log, "azcmagent", "connect", "--location", "uksouth", "--resource-group", "rg1"]);
    connect.extend(["--service-principal-id", id, "--service-principal-secret", secret]);
    connect.extend(["--tenant-id", wire.tenant(), "--subscription-id", wire.subscription()]);
    succeeds(&machine.run("root", &[], &connect));
    let calls = calls(&succeeds(&machine.run("root", &[], &["cat", log])));
    for (folder, name) in [(folder.join("certs"), "machine.key"), (folder.to_owned(), "agentconfig.json")] {
        let named = check_renames(&calls, &folder);
        assert!(named.contains(&folder.join(name)), "{name} was not seen to be made: {calls:#?}");
    }
}
