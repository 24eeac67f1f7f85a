//! A site is copied while it runs, and made again from the copy.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{ARM_SCOPE, SECRETS_OFFICER, Site, VAULT_SCOPE, arcadia, pipe_at, read_by_somebody};

const NEEDLE: &str = "needle-in-the-backup-5c";
const URL: &str = "https://kvbackup.vault.azure.net/secrets/s1?api-version=7.4";

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn restore(backup: &Path, key: Option<&Path>, into: &Path) -> Result<(), String> {
    let mut command = arcadia(into);
    command.arg("restore").arg(backup);
    if let Some(key) = key {
        command.arg("--root-key").arg(key);
    }
    let output = command.output().unwrap();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(String::from_utf8(output.stderr).unwrap()),
        other => panic!("{other:?} {output:?}"),
    }
}

#[tokio::test]
async fn a_copy_of_a_running_site_is_that_site() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    let wire = site.client();
    let vault = wire.vault("kvbackup").await;
    let officer = wire.application("officer").await;
    wire.assign(&vault, SECRETS_OFFICER, &officer.object_id).await;
    let token = wire.token_of(&officer.app_id, &officer.secret, VAULT_SCOPE).await;
    wire.must("PUT", URL, &token, Some(json!({ "value": NEEDLE }))).await;

    // Under load, so that "as of one moment" is not for free.
    let writing = async {
        for n in 0..40 {
            let url = format!("https://kvbackup.vault.azure.net/secrets/load{n}?api-version=7.4");
            wire.must("PUT", &url, &token, Some(json!({ "value": format!("{n}") }))).await;
        }
    };
    let backup = folder.path().join("backup");
    let copying = tokio::process::Command::from(arcadia(&site.data)).arg("backup").arg(&backup).output();
    let ((), copied) = tokio::join!(writing, copying);
    let copied = copied.unwrap();
    assert!(copied.status.success(), "{copied:?}");
    assert!(String::from_utf8_lossy(&copied.stderr).contains("root.key"), "{copied:?}");
    let expected = [
        "blobs",
        "ca.key.sealed",
        "ca.pem",
        "credentials.sealed",
        "manifest.json",
        "manifest.seal",
        "ring.json",
        "site.json",
        "store.db",
    ];
    assert_eq!(names(&backup), expected);
    assert_eq!(names(folder.path()), ["backup"], "no draft is left");
    for name in expected.into_iter().filter(|name| *name != "blobs") {
        let bytes = fs::read(backup.join(name)).unwrap();
        for secret in
            [NEEDLE, &wire.admin["AZURE_CLIENT_SECRET"], &wire.admin["ARCADIA_PASSWORD"], "PRIVATE KEY"]
        {
            assert!(
                !bytes.windows(secret.len()).any(|window| window == secret.as_bytes()),
                "{secret} in {name}"
            );
        }
    }
    let again = site.command(&["backup", &text(&backup)]);
    assert_eq!(again.status.code(), Some(1), "a backup replaces nothing");
    assert!(site.status()["trouble"].is_null());
    wire.must("PUT", URL, &token, Some(json!({ "value": "later" }))).await;
    let before = site.env(true);
    site.stop();

    let key = folder.path().join("root.key");
    fs::copy(site.data.join("root.key"), &key).unwrap();
    let into = folder.path().join("again");
    fs::create_dir(&into).unwrap();
    restore(&backup, Some(&key), &into).unwrap();
    let mut made = names(&into);
    made.retain(|name| !name.starts_with("store.db-"));
    assert_eq!(
        made,
        [
            "blobs",
            "ca.key.pem",
            "ca.pem",
            "credentials.json",
            "ring.json",
            "root.key",
            "site.json",
            "store.db"
        ]
    );
    let mut second = Site::over(into.clone());
    second.up(&["--offline"]);
    for name in ["AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "ARCADIA_PASSWORD"] {
        assert_eq!(second.env(true)[name], before[name]);
    }
    let wire = second.client();
    assert_eq!(wire.must("GET", URL, &token, None).await["value"], NEEDLE, "as of the backup; tokens hold");
    wire.admin_token(ARM_SCOPE).await;
    assert!(second.command(&["audit", "verify"]).status.success());
    second.stop();
    // A site that is there is not written over.
    let refused = restore(&backup, Some(&key), &into).unwrap_err();
    assert!(refused.contains("is not empty"), "{refused}");
}

#[test]
fn what_is_not_right_is_refused_and_nothing_is_made() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    site.stop();
    let (backup, with_key) = (folder.path().join("backup"), folder.path().join("with-key"));
    assert!(site.command(&["backup", &text(&backup)]).status.success(), "of a stopped site as well");
    assert!(site.command(&["backup", "--with-root-key", &text(&with_key)]).status.success());
    let key = site.data.join("root.key");
    let wrong = folder.path().join("wrong.key");
    fs::write(&wrong, [9; 32]).unwrap();
    let before = names(folder.path());
    let refused = |backup: &Path, key: Option<&Path>| {
        let refused = restore(backup, key, &folder.path().join("again")).unwrap_err();
        assert_eq!(names(folder.path()), before, "nothing is made: {refused}");
        refused
    };
    assert!(refused(&backup, None).contains("--root-key FILE"));
    let told = refused(&backup, Some(&wrong));
    assert!(told.contains("not the root key of the site"), "{told}");
    assert!(refused(&backup, Some(&folder.path().join("none"))).contains("does not exist"));
    assert!(refused(&site.data, Some(&key)).contains("is not a backup"));
    for name in names(&backup).into_iter().filter(|name| name != "blobs") {
        let path = backup.join(&name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        for (what, bytes) in [("changed", bad), ("cut", good[..middle].to_vec())] {
            fs::write(&path, bytes).unwrap();
            let told = refused(&backup, Some(&key));
            assert!(!told.is_empty(), "{name} {what}");
        }
        fs::remove_file(&path).unwrap();
        refused(&backup, Some(&key));
        fs::write(&path, good).unwrap();
    }
    restore(&backup, Some(&key), &folder.path().join("again")).unwrap();
    restore(&with_key, None, &folder.path().join("third")).unwrap();
    assert_eq!(fs::read(folder.path().join("third/root.key")).unwrap(), fs::read(key).unwrap());
    let empty = folder.path().join("nothing");
    let none = arcadia(&empty).arg("backup").arg(folder.path().join("x")).output().unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no site"), "{none:?}");
    assert!(!folder.path().join("x").exists() && !empty.exists());
}

/// A disk of its own is mounted somewhere, and what is there cannot be replaced.
#[test]
fn a_backup_and_a_site_are_made_where_a_disk_is_mounted() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    site.stop();
    let [backup, again, part] = ["backup", "again", "part"].map(|name| folder.path().join(name));
    for mounted in [&backup, &again, &part] {
        fs::create_dir(mounted).unwrap();
    }
    // The second is a part of the file system that it is mounted in.
    let script = "mount -t tmpfs tmpfs \"$2\" && mount --bind \"$4\" \"$3\" && \
                  \"$1\" backup --with-root-key \"$2\" && \"$1\" restore \"$2\" --data \"$3\" && ls -A \"$2\" \"$3\"";
    let mut command = std::process::Command::new("unshare");
    // Who is not root becomes it, in a user namespace.
    command.arg(if rustix::process::geteuid().is_root() { "-m" } else { "-rm" });
    command.args(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_arcadia")]).args([&backup, &again, &part]);
    let output = command.env("ARCADIA_DATA", &site.data).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(listed.contains("manifest.json") && listed.contains("credentials.json"), "{listed}");
    assert!(!listed.contains(".new"), "no draft is left: {listed}");
}

/// Ends the command while it reads the pipe; its exit code.
fn ended_at(command: &mut Command, pipe: &Path, signal: Signal) -> Option<i32> {
    let mut child: Child = command.spawn().unwrap();
    let _waiting = read_by_somebody(pipe);
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn a_command_that_is_ended_leaves_nothing_behind() {
    let (made, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut site = Site::start();
    site.stop();
    let (backup, again) = (made.path().join("backup"), data.path().join("again"));
    let (authority, pipe) = (site.data.join("ca.pem"), made.path().join("pipe"));
    fs::rename(&authority, site.data.join("away")).unwrap();
    pipe_at(&authority);
    let begin = || {
        // In a script, what runs in the background has them ignored.
        let mut command = std::process::Command::new("env");
        command.arg("--default-signal").arg(env!("CARGO_BIN_EXE_arcadia")).env("ARCADIA_DATA", &site.data);
        command.arg("backup").arg(&backup);
        command
    };
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        assert_eq!(ended_at(&mut begin(), &authority, signal), Some(code));
        assert!(names(made.path()).is_empty(), "{:?}", names(made.path()));
    }
    // Nobody can clean up after this, but the next one.
    assert_eq!(ended_at(&mut begin(), &authority, Signal::KILL), None);
    assert_eq!(names(made.path()).len(), 1);
    fs::rename(site.data.join("away"), &authority).unwrap();
    assert!(begin().output().unwrap().status.success());
    assert_eq!(names(made.path()), ["backup"]);

    pipe_at(&pipe);
    let mut restore = arcadia(&again);
    restore.arg("restore").arg(&backup).arg("--root-key").arg(&pipe);
    assert_eq!(ended_at(&mut restore, &pipe, Signal::TERM), Some(143));
    assert!(names(data.path()).is_empty(), "{:?}", names(data.path()));
}

#[test]
fn a_link_to_an_empty_directory_is_filled() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    site.stop();
    for name in ["backup", "again"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        std::os::unix::fs::symlink(name, folder.path().join(format!("{name}-link"))).unwrap();
    }
    let [backup, again] = ["backup-link", "again-link"].map(|name| folder.path().join(name));
    let made = site.command(&["backup", "--with-root-key", &text(&backup)]);
    assert!(made.status.success(), "{made:?}");
    restore(&backup, None, &again).unwrap();
    assert!(folder.path().join("again/site.json").exists() && again.is_symlink());
    let nowhere = folder.path().join("nowhere");
    std::os::unix::fs::symlink("none", &nowhere).unwrap();
    let refused = site.command(&["backup", &text(&nowhere)]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(names(folder.path()), ["again", "again-link", "backup", "backup-link", "nowhere"]);
}

#[test]
fn a_backup_into_the_site_itself_is_refused() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    site.stop();
    std::os::unix::fs::symlink(&site.data, folder.path().join("link")).unwrap();
    let before = names(&site.data);
    for inside in [site.data.join("inside"), site.data.join("log/a"), folder.path().join("link/inside")] {
        let told = site.command(&["backup", &text(&inside)]);
        assert_eq!(told.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&told.stderr).contains("name a directory elsewhere"), "{told:?}");
    }
    assert_eq!(names(&site.data), before);
}

#[test]
fn a_backup_that_lacks_a_file_is_said_not_to_be_whole() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    site.stop();
    let backup = folder.path().join("backup");
    assert!(site.command(&["backup", "--with-root-key", &text(&backup)]).status.success());
    for name in ["store.db", "ca.pem", "credentials.sealed", "site.json"] {
        fs::rename(backup.join(name), folder.path().join("away")).unwrap();
        let told = restore(&backup, None, &folder.path().join("again")).unwrap_err();
        assert!(told.contains(&format!("{name} is missing: the backup is not whole")), "{told}");
        fs::rename(folder.path().join("away"), backup.join(name)).unwrap();
    }
}

/// Of a disk that is only looked at, also where no command has made the files yet that it locks.
#[test]
fn a_site_on_a_file_system_that_cannot_be_written_to_is_read() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    site.stop();
    let backup = folder.path().join("backup");
    let script = "mount --bind \"$2\" \"$2\" && mount -o remount,bind,ro \"$2\" && ! touch \"$2/x\" 2>/dev/null && \
                  \"$1\" audit verify && \"$1\" audit tail && \"$1\" backup \"$3\"";
    for locks in [true, false] {
        if !locks {
            fs::remove_file(site.data.join("keys.lock")).unwrap();
            fs::remove_dir_all(&backup).unwrap();
        }
        let mut command = Command::new("unshare");
        command.arg(if rustix::process::geteuid().is_root() { "-m" } else { "-rm" });
        command.args(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_arcadia")]).args([&site.data, &backup]);
        let output = command.env("ARCADIA_DATA", &site.data).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// What the users of a machine put into it costs no other part.
#[test]
fn a_machine_that_there_is_no_room_for_is_left_out() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    site.stop();
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    for (machine, bytes) in [("m1", 10), ("m2", 100 << 20), ("m3", 10)] {
        fs::create_dir_all(site.data.join("machines").join(machine)).unwrap();
        fs::write(site.data.join("machines").join(machine).join("file"), vec![7; bytes]).unwrap();
    }
    let script = "mount -t tmpfs -o size=32m tmpfs \"$2\" && { \"$1\" backup \"$2/backup\"; echo $?; } && \
                  cd \"$2/backup\" && ls machines manifest.json";
    let mut command = Command::new("unshare");
    command.arg(if rustix::process::geteuid().is_root() { "-m" } else { "-rm" });
    command.args(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_arcadia")]).arg(&small);
    let output = command.env("ARCADIA_DATA", &site.data).output().unwrap();
    let [listed, told] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(listed.ends_with("\n1\nmanifest.json\n\nmachines:\nm1.sealed\nm3.sealed\n"), "{listed}{told}");
    assert!(
        told.contains("not in it: machine m2, which cannot be copied: ") && told.contains("No space"),
        "{told}"
    );
}
