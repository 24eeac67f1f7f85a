//! Keys are replaced, of running sites and stopped ones, and nothing that was acknowledged is lost.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{SECRETS_OFFICER, Site, VAULT_SCOPE, Wire, arcadia, refused, succeeds};

const NEEDLE: &str = "needle-under-the-seal-7d";
const PATIENCE: Duration = Duration::from_secs(60);

fn url(name: &str) -> String {
    format!("https://kvkeys.vault.azure.net/secrets/{name}?api-version=7.4")
}

/// A vault, and a token that may write its secrets.
async fn officer(wire: &Wire) -> String {
    let vault = wire.vault("kvkeys").await;
    let officer = wire.application("officer").await;
    wire.assign(&vault, SECRETS_OFFICER, &officer.object_id).await;
    wire.token_of(&officer.app_id, &officer.secret, VAULT_SCOPE).await
}

fn shown(site: &Site) -> Value {
    serde_json::from_str(&succeeds(&site.command(&["keys", "show", "--json"]))).unwrap()
}

fn key_ids(site: &Site) -> Vec<u64> {
    shown(site)["dataKeys"].as_array().unwrap().iter().map(|key| key["id"].as_u64().unwrap()).collect()
}

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Every file below the directory.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn is_on_disk(data: &Path, text: &str) -> bool {
    let mut found = Vec::new();
    files(data, &mut found);
    assert!(found.len() > 5);
    found.iter().any(|path| {
        fs::read(path).unwrap_or_default().windows(text.len()).any(|window| window == text.as_bytes())
    })
}

async fn write(wire: &Wire, token: &str, name: &str, value: &str) {
    wire.must("PUT", &url(name), token, Some(json!({ "value": value }))).await;
}

async fn read(wire: &Wire, token: &str, name: &str) -> String {
    wire.must("GET", &url(name), token, None).await["value"].as_str().unwrap().to_owned()
}

/// Writers go on while the data key and the root key are replaced, back and forth.
#[tokio::test(flavor = "multi_thread")]
async fn all_keys_are_replaced_under_load() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    let wire = Arc::new(site.client());
    let token = Arc::new(officer(&wire).await);
    write(&wire, &token, "needle", NEEDLE).await;
    let before = wire.must("GET", &url("needle"), &token, None).await;

    let (go_on, written) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (wire, token, go_on, written) = (wire.clone(), token.clone(), go_on.clone(), written.clone());
            tokio::spawn(async move {
                let mut last = 0;
                while go_on.load(Ordering::Acquire) {
                    last += 1;
                    let name = format!("w{writer}-{}", last % 10);
                    write(&wire, &token, &name, &last.to_string()).await;
                    assert_eq!(read(&wire, &token, &name).await, last.to_string());
                    written.fetch_add(1, Ordering::AcqRel);
                }
                last
            })
        })
        .collect();

    let old_root = fs::read(site.data.join("root.key")).unwrap();
    let passphrase = file(&folder, "passphrase", "a passphrase for the test\n");
    let given = passphrase.to_str().unwrap();
    let steps: [&[&str]; 6] = [
        &["keys", "rotate", "--wait"],
        &["keys", "root", "--file"],
        &["keys", "rotate"],
        &["keys", "root", "--passphrase", "--new-passphrase-file", given],
        &["keys", "rotate", "--wait", "--passphrase-file", given],
        &["keys", "root", "--file", "--passphrase-file", given],
    ];
    for step in steps {
        let begun = written.load(Ordering::Acquire);
        while written.load(Ordering::Acquire) < begun + 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let done = tokio::process::Command::from(arcadia(&site.data)).args(step).output().await.unwrap();
        assert!(done.status.success(), "{step:?}: {done:?}");
    }
    succeeds(&site.command(&["keys", "rotate", "--wait"]));
    go_on.store(false, Ordering::Release);
    let mut last = Vec::new();
    for writer in writers {
        last.push(writer.await.unwrap());
    }
    let keys = shown(&site);
    assert_eq!(keys["dataKeys"].as_array().unwrap().len(), 1, "{keys}");
    assert_eq!(keys["dataKeys"][0]["id"], 5, "{keys}");
    assert_eq!(keys["rootKeys"][0]["source"], "file", "{keys}");
    assert_eq!(wire.must("GET", &url("needle"), &token, None).await, before, "no attribute changed");
    let verified = site.command(&["audit", "verify"]);
    assert!(succeeds(&verified).contains("unbroken"), "{verified:?}");
    assert!(String::from_utf8_lossy(&verified.stderr).contains("every row"), "{verified:?}");
    // The first keys, seven changes, and each data key that has left the ring: the one that nobody waited for may have
    // left it together with the next. Of the last one the file says so a moment before the record does.
    let begun = Instant::now();
    let recorded = loop {
        let records = succeeds(&site.command(&["audit", "tail", "-n", "1000000", "--json"]));
        let recorded = records.lines().filter(|line| line.contains(r#""operation":"keys""#)).count();
        if recorded >= 11 || begun.elapsed() > PATIENCE {
            break recorded;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!((11..=12).contains(&recorded), "a record of each change: {recorded}");

    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::TERM] {
        site.signal(signal);
        site.ended();
        site.up(&["--offline"]);
        let wire = site.client();
        assert_eq!(read(&wire, &token, "needle").await, NEEDLE);
        for (writer, last) in last.iter().enumerate() {
            assert_eq!(read(&wire, &token, &format!("w{writer}-{}", last % 10)).await, last.to_string());
        }
    }
    assert_eq!(key_ids(&site), [5]);
    assert!(!is_on_disk(&site.data, NEEDLE));
    site.stop();
    let new_root = fs::read(site.data.join("root.key")).unwrap();
    fs::write(site.data.join("root.key"), old_root).unwrap();
    let told = refused(&site.command(&["up", "--offline"]));
    assert!(told.contains("not the root key"), "{told}");
    fs::write(site.data.join("root.key"), new_root).unwrap();
    site.up(&["--offline"]);
}

#[tokio::test]
async fn a_passphrase_opens_the_site_and_nothing_on_the_disk_does() {
    let folder = TempDir::new().unwrap();
    let (right, wrong) = (
        file(&folder, "right", "correct horse battery staple\n"),
        file(&folder, "wrong", "correct horse battery stable\n"),
    );
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let mut site = Site::over(folder.path().join("data"));
    let short = file(&folder, "short", "short\n");
    let told = refused(&site.command(&["up", "--offline", "--passphrase-file", short.to_str().unwrap()]));
    assert!(told.contains("at least 12 characters"), "{told}");
    let none = arcadia(&site.data).args(["up", "--passphrase"]).stdin(Stdio::null()).output().unwrap();
    assert!(
        refused(&none).contains("no passphrase was given: name a file that holds it with --passphrase-file")
    );
    let missing = refused(&site.command(&["up", "--passphrase-file", "/nowhere"]));
    assert_eq!(missing.matches("No such file").count(), 1, "{missing}");
    assert!(!site.data.join("ring.json").exists(), "nothing is made");

    site.up(&["--offline", "--passphrase-file", right]);
    assert!(!site.data.join("root.key").exists());
    assert!(!is_on_disk(&site.data, "correct horse"));
    let kept = fs::read(site.data.join("ring.json")).unwrap();
    let without = |arguments: &[&str]| {
        refused(&arcadia(&site.data).args(arguments).stdin(Stdio::null()).output().unwrap())
    };
    let backup = folder.path().join("backup");
    let backup = backup.to_str().unwrap();
    for command in [&["audit", "tail"][..], &["audit", "verify"], &["backup", backup], &["keys", "rotate"]] {
        let told = without(command);
        assert!(told.contains("--passphrase-file or ARCADIA_PASSPHRASE_FILE"), "{command:?}: {told}");
        let told = without(&[command, &["--passphrase-file", wrong]].concat());
        assert!(told.contains("not the passphrase of the site; nothing was changed"), "{command:?}: {told}");
        let made = site.command(&[command, &["--passphrase-file", right]].concat());
        succeeds(&made);
        assert!(!String::from_utf8_lossy(&made.stderr).contains("root.key"), "there is none: {made:?}");
    }
    succeeds(&site.command(&["status"]));
    succeeds(&site.command(&["keys", "show"]));
    assert_ne!(fs::read(site.data.join("ring.json")).unwrap(), kept, "the data key was replaced");

    let again = folder.path().join("again");
    let restore =
        |file: &str| arcadia(&again).args(["restore", backup, "--passphrase-file", file]).output().unwrap();
    let told = refused(&restore(wrong));
    assert!(told.contains("not the passphrase") && !again.exists(), "{told}");
    succeeds(&restore(right));
    assert!(!again.join("root.key").exists());
    succeeds(&arcadia(&again).args(["audit", "verify", "--passphrase-file", right]).output().unwrap());

    site.stop();
    let told = refused(&arcadia(&site.data).args(["up"]).stdin(Stdio::null()).output().unwrap());
    assert!(told.contains("made of a passphrase"), "{told}");
    for detach in [&[][..], &["--detach"]] {
        let told = refused(&site.command(&[&["up", "--passphrase-file", wrong], detach].concat()));
        assert!(told.contains("not the passphrase of the site"), "{told}");
    }
    in_the_background_and_by_a_descriptor(&mut site, right);
}

/// As a supervisor or a shell hands a passphrase on.
fn in_the_background_and_by_a_descriptor(site: &mut Site, right: &str) {
    let variable = arcadia(&site.data)
        .args(["up", "--detach", "--offline"])
        .env("ARCADIA_PASSPHRASE_FILE", right)
        .output();
    succeeds(&variable.unwrap());
    assert_eq!(site.status()["state"], "running");
    succeeds(&site.command(&["down"]));
    let mut child = arcadia(&site.data)
        .args(["up", "--detach", "--offline", "--passphrase-file", "/dev/fd/0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse battery staple").unwrap();
    succeeds(&child.wait_with_output().unwrap());
    assert_eq!(site.status()["state"], "running");
    succeeds(&site.command(&["down"]));
}

#[test]
fn who_chooses_a_passphrase_is_told_how() {
    let site = Site::start();
    let mut command = arcadia(&site.data);
    let told =
        refused(&command.args(["keys", "root", "--passphrase"]).stdin(Stdio::null()).output().unwrap());
    assert!(told.contains("--new-passphrase-file") && !told.contains("is made of a passphrase"), "{told}");
}

/// The command that replaces a root key is killed at any moment.
#[tokio::test]
async fn a_change_that_is_killed_leaves_a_site_that_opens() {
    let folder = TempDir::new().unwrap();
    let (one, two) =
        (file(&folder, "one", "the first passphrase"), file(&folder, "two", "the second passphrase"));
    let secrets = [one.to_str().unwrap(), two.to_str().unwrap()];
    let mut site = Site::start();
    let wire = site.client();
    let token = officer(&wire).await;
    write(&wire, &token, "needle", NEEDLE).await;
    for round in 0..12 {
        if round == 6 {
            site.stop();
        }
        // Whichever the last round left it at opens it.
        let present = secrets.iter().find(|file| {
            arcadia(&site.data)
                .args(["audit", "tail", "-n", "1", "--passphrase-file", file])
                .stdin(Stdio::null())
                .output()
                .unwrap()
                .status
                .success()
        });
        let present =
            present.unwrap_or_else(|| panic!("round {round}: neither passphrase nor file opens it"));
        let mut command = arcadia(&site.data);
        match round % 3 {
            0 => command.args(["keys", "root", "--passphrase", "--new-passphrase-file", secrets[round % 2]]),
            1 => command.args(["keys", "root", "--file"]),
            _ => command.args(["keys", "rotate"]),
        };
        let mut child = command
            .args(["--passphrase-file", present])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let wait = Duration::from_millis(37 * (round as u64 % 7) + 11 * round as u64);
        tokio::time::sleep(wait).await;
        let _ = child.kill();
        child.wait().unwrap();
        if round < 6 {
            assert_eq!(read(&wire, &token, "needle").await, NEEDLE, "round {round}");
        }
    }
    let opened = secrets.iter().any(|file| {
        let mut command = arcadia(&site.data);
        let output = command.args(["up", "--detach", "--offline", "--passphrase-file", file]).output();
        output.unwrap().status.success()
    });
    assert!(opened);
    let wire = site.client();
    assert_eq!(read(&wire, &token, "needle").await, NEEDLE);
    succeeds(&site.command(&["down"]));
}

/// A site that is killed while it seals again goes on where it was.
#[tokio::test]
async fn a_site_replaces_its_data_key_by_itself_and_through_kills() {
    let mut site = Site::start_with(&["--offline", "--values-per-data-key", "1000"]);
    let wire = site.client();
    let token = officer(&wire).await;
    write(&wire, &token, "needle", NEEDLE).await;
    let begun = Instant::now();
    let mut rounds = 0;
    while key_ids(&site).last() < Some(&4) {
        assert!(begun.elapsed() < PATIENCE * 3, "the data key is not replaced: {}", shown(&site));
        let wire = site.client();
        for n in 0..60 {
            write(&wire, &token, &format!("s{}", n % 5), &format!("{rounds}-{n}")).await;
        }
        rounds += 1;
        site.signal(rustix::process::Signal::KILL);
        site.ended();
        site.up(&["--offline", "--values-per-data-key", "1000"]);
        let wire = site.client();
        assert_eq!(read(&wire, &token, "needle").await, NEEDLE);
        assert_eq!(read(&wire, &token, "s4").await, format!("{}-59", rounds - 1));
    }
    let begun = Instant::now();
    while key_ids(&site).len() > 1 {
        assert!(begun.elapsed() < PATIENCE, "an old key stays: {}", shown(&site));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    succeeds(&site.command(&["audit", "verify"]));
    assert!(!is_on_disk(&site.data, NEEDLE));
}

fn site_anchor(database: &Path) -> PathBuf {
    database.with_file_name("store.anchor")
}

/// What was true once, put back while the site was stopped.
#[tokio::test]
async fn what_was_put_back_is_noticed_at_the_start() {
    let mut site = Site::start();
    let wire = site.client();
    let token = officer(&wire).await;
    write(&wire, &token, "needle", "the old value").await;
    site.stop();
    let (database, old) = (site.data.join("store.db"), site.data.join("../old.db"));
    let checkpoint = |sql: &str| {
        let mut command = std::process::Command::new("python3");
        let script =
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.executescript(sys.argv[2]); c.commit()";
        let done = command.args(["-c", script]).arg(&database).arg(sql).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        // It would notice as well, as the log is another one now. Whoever goes to this length takes it away.
        fs::remove_file(site_anchor(&database)).unwrap();
    };
    checkpoint("PRAGMA wal_checkpoint(TRUNCATE)");
    fs::copy(&database, &old).unwrap();
    site.up(&["--offline"]);
    let wire = site.client();
    write(&wire, &token, "needle", "the new value").await;
    site.stop();
    checkpoint(&format!(
        "ATTACH '{}' AS old; UPDATE rows SET value = old.value, revision = old.revision FROM old.rows AS old
         WHERE rows.key = old.key AND rows.value <> old.value",
        old.display()
    ));
    for command in [&["audit", "verify"][..], &["up", "--offline"]] {
        let told = refused(&site.command(command));
        assert!(told.contains("put back to an earlier state"), "{command:?}: {told}");
    }
}

/// The log is whole: it is whoever follows it that has the old passphrase.
#[test]
fn who_follows_the_log_is_told_of_another_passphrase() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    let [old, new] = ["old", "new"].map(|name| file(&folder, name, &format!("the {name} passphrase\n")));
    let [old, new] = [&old, &new].map(|path| path.to_str().unwrap());
    succeeds(&site.command(&["keys", "root", "--passphrase", "--new-passphrase-file", old]));
    let mut tail = arcadia(&site.data);
    tail.args(["audit", "tail", "--follow", "-n", "1", "--passphrase-file", old]);
    let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().is_ok());
    let root = ["keys", "root", "--passphrase", "--passphrase-file", old, "--new-passphrase-file", new];
    succeeds(&site.command(&root));
    succeeds(&site.command(&["keys", "rotate", "--wait", "--passphrase-file", new]));
    let mut told = String::new();
    tail.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(tail.wait().unwrap().code(), Some(1), "{told}");
    assert!(told.contains("run this again with the new one") && !told.contains("does not open"), "{told}");
    let verified = site.command(&["audit", "verify", "--passphrase-file", new]);
    assert!(succeeds(&verified).contains("unbroken"));
    site.stop();
}
