//! Disks that are full, and files that a crash or a bad disk left incomplete.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use arcadia_client::Call;
use http::{HeaderName, HeaderValue};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{ARM, ARM_SCOPE, SECRETS_OFFICER, Site, VAULT_SCOPE, Wire};

/// Set in the child to the folder that its disk is mounted on.
const MOUNT: &str = "ARCADIA_SITE_SMALL_DISK";
const SURVIVED: &str = "survived a full disk";
/// Blobs leave 64 MiB free for the database.
const DISK_BYTES: usize = 160 * 1024 * 1024;
const WRITES_MAX: usize = 2000;
const BLOB_CONTRIBUTOR: &str = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";

fn url(n: usize) -> String {
    format!("https://kvbroken.vault.azure.net/secrets/s{n}?api-version=7.4")
}

fn value(n: usize) -> String {
    format!("{n} {}", "x".repeat(n * 97 % 3000))
}

/// A vault, and somebody who may write its secrets.
async fn writer(wire: &Wire) -> String {
    let vault = wire.vault("kvbroken").await;
    let officer = wire.application("officer").await;
    wire.assign(&vault, SECRETS_OFFICER, &officer.object_id).await;
    wire.token_of(&officer.app_id, &officer.secret, VAULT_SCOPE).await
}

async fn set(wire: &Wire, token: &str, n: usize) -> (u16, String) {
    let answer = wire.send("PUT", &url(n), Some(token), Some(json!({ "value": value(n) }))).await;
    (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
}

async fn all_there(wire: &Wire, token: &str, count: usize) {
    for n in 0..count {
        assert_eq!(wire.must("GET", &url(n), token, None).await["value"], value(n), "secret {n}");
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &output.stderr].concat()).into_owned()
}

fn verified(site: &Site) {
    let verified = site.command(&["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn a_full_disk_is_told_and_survived() {
    with_a_small_disk("broken_disk::on_a_small_disk", DISK_BYTES);
}

/// Runs another test of this program with a disk of its own, of so many bytes, which nobody else sees.
pub fn with_a_small_disk(test: &str, bytes: usize) {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new("unshare");
    // Who is not root mounts as the root of a user namespace, and is itself again in one inside.
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let (mounts, again) = if user.is_root() {
        ("-m", String::new())
    } else {
        let (user, group) = (user.as_raw(), group.as_raw());
        ("-rm", format!("unshare --user --map-user={user} --map-group={group}"))
    };
    let script = format!("mount -t tmpfs -o size={bytes} small \"${MOUNT}\" && exec {again} \"$@\"");
    command.args([mounts, "sh", "-c", &script, "sh"]).arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    let output = command.env(MOUNT, folder.path()).output().unwrap();
    let told = told(&output);
    assert!(output.status.success() && told.contains(SURVIVED), "{told}");
}

/// The disk of a test that runs with one of its own.
#[allow(clippy::disallowed_methods, reason = "a re-executed test binary is told its task in the environment")]
pub fn small_disk() -> Option<PathBuf> {
    std::env::var_os(MOUNT).map(PathBuf::from)
}

/// What such a test says when it came to its end.
#[allow(clippy::print_stdout, reason = "it is looked for by the test that runs it")]
pub fn survived(what: &str) {
    println!("{SURVIVED}: {what}");
}

/// The child of the first test; does nothing when it has no disk of its own.
#[tokio::test]
async fn on_a_small_disk() {
    let Some(disk) = small_disk() else { return };
    let mut site = Site::over(disk.join("data"));
    site.up(&["--offline"]);
    let wire = site.client();
    let token = writer(&wire).await;
    let blobs = blobs(&wire).await;
    let (mut written, refused) = fill(&wire, &token, &disk).await;

    // Reads as well: what cannot be recorded is not answered. Nobody is kept waiting, and everybody is told.
    let arm = wire.send("GET", &format!("{ARM}/subscriptions?api-version=2022-12-01"), None, None).await;
    assert_eq!(arm.status.as_u16(), 401, "strangers are told what they always are");
    let read = wire.send("GET", &url(0), Some(&token), None).await;
    let blob = blobs.put(&wire, 2 << 20).await;
    for (what, status, body) in [
        ("the write", refused.0, refused.1),
        ("the read", read.status.as_u16(), String::from_utf8_lossy(&read.body).into_owned()),
        ("the blob", blob.0, blob.1),
    ] {
        assert_eq!(status, 503, "{what}: {body}");
        assert!(body.to_lowercase().contains("retry"), "{what}: {body}");
    }
    let begun = Instant::now();
    let status = loop {
        let status = site.command(&["status", "--json"]);
        let found: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        if !found["trouble"].is_null() {
            assert_eq!(status.status.code(), Some(1));
            break found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{found}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(status["trouble"]["lasting"], false, "{status}");
    let reason = status["trouble"]["reason"].as_str().unwrap();
    assert!(reason.contains("full") && reason.contains("free space"), "{reason}");

    // Space comes back, and with it everything, without a restart.
    fs::remove_file(disk.join("ballast")).unwrap();
    let (status, body) = set(&wire, &token, written).await;
    assert_eq!(status, 200, "{body}");
    written += 1;
    assert_eq!(blobs.put(&wire, 100_000).await.0, 201);
    all_there(&wire, &token, written).await;
    verified(&site);
    let begun = Instant::now();
    while !site.status()["trouble"].is_null() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(100));
    }

    // Killed on a full disk, it starts without more room than it had; where there is no site yet, none begins.
    let (more, _) = fill_from(&wire, &token, &disk, written).await;
    written = more;
    site.signal(Signal::KILL);
    site.ended();
    fill_up(&disk);
    let up = site.command(&["up", "--offline", "--detach"]);
    assert!(up.status.success(), "{}", told(&up));
    assert!(site.command(&["down"]).status.success());
    fill_up(&disk);
    let other = Site::over(disk.join("other"));
    let up = other.command(&["up", "--offline", "--detach"]);
    assert!(up.status.code() == Some(1) && told(&up).contains("No space left"), "{}", told(&up));
    fs::remove_file(disk.join("ballast")).unwrap();
    site.up(&["--offline"]);
    all_there(&site.client(), &token, written).await;
    verified(&site);
    site.stop();
    survived(&format!("{written} writes"));
}

async fn fill(wire: &Wire, token: &str, disk: &Path) -> (usize, (u16, String)) {
    for n in 0..20 {
        let (status, body) = set(wire, token, n).await;
        assert_eq!(status, 200, "{body}");
    }
    fill_from(wire, token, disk, 20).await
}

fn fill_up(disk: &Path) {
    let mut ballast = File::options().create(true).append(true).open(disk.join("ballast")).unwrap();
    while ballast.write_all(&[7; 4096]).is_ok() {}
}

/// Fills the disk and writes on until a write is refused: how many were not, and how that one was.
async fn fill_from(wire: &Wire, token: &str, disk: &Path, from: usize) -> (usize, (u16, String)) {
    fill_up(disk);
    // The log has room in its own file for a while.
    for n in from..WRITES_MAX {
        let refused = set(wire, token, n).await;
        if refused.0 != 200 {
            return (n, refused);
        }
    }
    panic!("{WRITES_MAX} writes fit on a full disk");
}

/// A storage account, and the first service principal's right to its blobs.
pub struct Blobs {
    token: String,
}

pub async fn blobs(wire: &Wire) -> Blobs {
    let arm = wire.admin_token(ARM_SCOPE).await;
    let account = format!(
        "/subscriptions/{}/resourceGroups/rg1/providers/Microsoft.Storage/storageAccounts/stbroken",
        wire.subscription()
    );
    let body = json!({ "location": "uksouth", "kind": "StorageV2", "sku": { "name": "Standard_LRS" } });
    wire.must("PUT", &format!("{ARM}{account}?api-version=2023-05-01"), &arm, Some(body)).await;
    let member = wire.application("member").await;
    wire.assign(&account, BLOB_CONTRIBUTOR, &member.object_id).await;
    let scope = "https://storage.azure.com/.default";
    let token = wire.token_of(&member.app_id, &member.secret, scope).await;
    let blobs = Blobs { token };
    let made =
        blobs.send(wire, "https://stbroken.blob.core.windows.net/broken?restype=container", Vec::new()).await;
    assert_eq!(made.0, 201, "{}", made.1);
    blobs
}

impl Blobs {
    pub async fn put(&self, wire: &Wire, bytes: usize) -> (u16, String) {
        self.send(wire, "https://stbroken.blob.core.windows.net/broken/b", vec![7; bytes]).await
    }

    async fn send(&self, wire: &Wire, url: &str, body: Vec<u8>) -> (u16, String) {
        let call = Call::put(url)
            .bearer(&self.token)
            .unwrap()
            .header(HeaderName::from_static("x-ms-version"), HeaderValue::from_static("2020-10-02"))
            .header(HeaderName::from_static("x-ms-blob-type"), HeaderValue::from_static("BlockBlob"))
            .body("application/octet-stream", body);
        let answer = wire.client.send(call).await.unwrap();
        (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
    }
}

fn cut(file: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

/// A site that was killed after it acknowledged something, and its write-ahead log cut off: it says so, and does not
/// start with less.
#[tokio::test]
async fn a_log_that_was_cut_off_is_refused_and_put_back_it_starts() {
    const COUNT: usize = 30;
    let mut site = Site::start();
    let wire = site.client();
    let token = writer(&wire).await;
    for n in 0..COUNT {
        assert_eq!(set(&wire, &token, n).await.0, 200);
    }
    site.signal(Signal::KILL);
    site.ended();
    let log = site.data.join("store.db-wal");
    let whole = fs::read(&log).unwrap();
    for bytes in [0, 31, 5000, whole.len() / 3, whole.len() / 2 + 1, whole.len() - 4120, whole.len() - 1] {
        cut(&log, bytes as u64);
        let up = site.command(&["up", "--offline"]);
        assert_eq!(up.status.code(), Some(1), "cut at {bytes}");
        let said = told(&up);
        assert!(said.contains("not everything that was acknowledged"), "cut at {bytes}: {said}");
        assert!(said.contains("arcadia restore") && said.contains("store.anchor"), "{said}");
        let verified = site.command(&["audit", "verify"]);
        assert_eq!(verified.status.code(), Some(1), "cut at {bytes}: {verified:?}");
        fs::write(&log, &whole).unwrap();
    }
    site.up(&["--offline"]);
    all_there(&site.client(), &token, COUNT).await;
    verified(&site);
}

/// The database file's last page, torn: the log has it, or the site says that the file is damaged.
#[tokio::test]
async fn a_torn_last_page_is_recovered_or_refused() {
    const COUNT: usize = 30;
    const PAGE_BYTES: u64 = 4096;
    let mut site = Site::start();
    let wire = site.client();
    let token = writer(&wire).await;
    for n in 0..COUNT {
        assert_eq!(set(&wire, &token, n).await.0, 200);
    }
    site.signal(Signal::KILL);
    site.ended();
    let file = site.data.join("store.db");
    // As a crash in the middle of moving the log into the file leaves it.
    let database = OpenOptions::new().write(true).open(&file).unwrap();
    let bytes = database.metadata().unwrap().len();
    database.write_all_at(&[0xFF; 1500], bytes.saturating_sub(1500)).unwrap();
    drop(database);
    site.up(&["--offline"]);
    all_there(&site.client(), &token, COUNT).await;
    verified(&site);

    // A restored site has everything in the file and no log.
    let folder = TempDir::new().unwrap();
    let (backup, data) = (folder.path().join("backup"), folder.path().join("data"));
    let backed_up = site.command(&["backup", backup.to_str().unwrap()]);
    assert!(backed_up.status.success(), "{backed_up:?}");
    let key = site.data.join("root.key");
    let words = ["restore", backup.to_str().unwrap(), "--root-key", key.to_str().unwrap()];
    site.stop();
    let mut again = Site::over(data);
    let restored = again.command(&words);
    assert!(restored.status.success(), "{restored:?}");
    let file = again.data.join("store.db");
    let whole = fs::read(&file).unwrap();
    for bytes in [1, 512, 2048, 4095] {
        let left = whole.len() as u64 - PAGE_BYTES + bytes;
        // What is missing reads as zeros; where it was zeros, nothing is lost.
        let lost = whole[left as usize..].iter().any(|byte| *byte != 0);
        cut(&file, left);
        let up = again.command(&["up", "--offline", "--detach"]);
        let said = told(&up);
        if up.status.success() {
            // A byte of one record alone: pages fit together, and the walk over all records finds it.
            let verified = again.command(&["audit", "verify"]);
            assert_eq!(
                verified.status.code(),
                Some(i32::from(lost)),
                "the last page has {bytes} bytes: {verified:?}"
            );
            again.command(&["down"]);
        } else {
            assert!(said.contains("damaged") && said.contains("backup"), "{said}");
        }
        fs::write(&file, &whole).unwrap();
    }
    again.up(&["--offline"]);
    all_there(&again.client(), &token, COUNT).await;
}
