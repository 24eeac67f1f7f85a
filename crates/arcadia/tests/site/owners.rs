//! Whose a site is: under systemd another user's, and root the one who looks after it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{Site, pipe_at, refused, succeeds};

const NOBODY: u32 = 65534;

/// Whose everything in a directory is, itself included, and when it was changed last.
fn all_in(folder: &Path) -> Vec<(PathBuf, u32, (i64, i64))> {
    let described = |path: &Path| {
        let found = path.symlink_metadata().unwrap();
        (path.to_owned(), found.uid(), (found.ctime(), found.ctime_nsec()))
    };
    let mut found = vec![described(folder)];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.symlink_metadata().unwrap().is_dir() {
            true => found.extend(all_in(&path)),
            false => found.push(described(&path)),
        }
    }
    found.sort();
    found
}

/// Stopped, and not ours.
struct Theirs {
    site: Site,
    folder: TempDir,
}

impl Theirs {
    /// `None` where this user cannot give anything away.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let data = folder.path().join("data");
        let mut site = Site::start();
        site.stop();
        assert!(Command::new("cp").arg("-a").args([&site.data, &data]).status().unwrap().success());
        for (path, ..) in all_in(&data) {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        // The other user may not come to where this one is built.
        fs::copy(env!("CARGO_BIN_EXE_arcadia"), folder.path().join("arcadia")).unwrap();
        Some(Self { site: Site::over(data), folder })
    }

    fn owner(&self, arguments: &[&str]) -> Output {
        self.owner_by(&[], arguments)
    }

    /// By way of another program.
    fn owner_by(&self, program: &[&str], arguments: &[&str]) -> Output {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(program);
        command.arg(self.folder.path().join("arcadia")).args(arguments);
        command.env("ARCADIA_DATA", &self.site.data).output().unwrap()
    }

    /// As this user, who is another. What waits for a pipe of the owner's is ended.
    fn ours(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.arg("60").arg(env!("CARGO_BIN_EXE_arcadia")).args(arguments);
        command.env("ARCADIA_DATA", &self.site.data).output().unwrap()
    }
}

/// Its owner may have put links and pipes into it, and machines that are the owner's processes.
#[test]
fn no_command_takes_root_into_a_site_of_another_user() {
    const COMMANDS: [&[&str]; 20] = [
        &["up", "--offline"],
        &["up", "--offline", "--detach"],
        &["down"],
        &["status"],
        &["status", "--json"],
        &["env", "--admin"],
        &["run", "--", "true"],
        &["hosts", "--address", "127.0.0.1"],
        &["machine", "create", "m2"],
        &["machine", "list"],
        &["machine", "exec", "m1", "--", "true"],
        &["machine", "shell", "m1"],
        &["machine", "delete", "m1"],
        &["access", "explain", "--caller", "a@b.example", "--action", "a/read", "--scope", "/"],
        &["audit", "verify"],
        &["audit", "tail"],
        &["keys", "show"],
        &["keys", "rotate"],
        &["keys", "root", "--file"],
        &["restore", "nowhere"],
    ];
    let Some(theirs) = Theirs::new() else { return };
    let [roots, backup] = ["of-root", "backup"].map(|name| theirs.folder.path().join(name));
    let backup = ["backup", backup.to_str().unwrap()];
    let refuses_all = || {
        let before = all_in(&theirs.site.data);
        for command in COMMANDS.into_iter().chain([&backup[..]]) {
            let told = refused(&theirs.ours(command));
            assert!(told.contains("(`sudo -u nobody arcadia ...`)"), "{command:?}: {told}");
            assert_eq!(all_in(&theirs.site.data), before, "{command:?}");
        }
        assert!(!Path::new(backup[1]).exists());
    };
    refuses_all();

    fs::write(&roots, "of root").unwrap();
    let machine = theirs.site.data.join("machines/m1");
    fs::create_dir_all(&machine).unwrap();
    let (lock, record) = (theirs.site.data.join("lock"), theirs.site.data.join("site.json"));
    let aside = theirs.site.data.join("aside");
    fs::remove_file(&lock).unwrap();
    fs::rename(&record, &aside).unwrap();
    pipe_at(&record);
    symlink(&roots, &lock).unwrap();
    symlink(&roots, machine.join("lock")).unwrap();
    refuses_all();
    assert_eq!(fs::read_to_string(&roots).unwrap(), "of root");

    fs::rename(aside, record).unwrap();
    fs::remove_file(lock).unwrap();
    fs::remove_dir_all(machine.parent().unwrap()).unwrap();
    succeeds(&theirs.owner(&["up", "--detach", "--offline"]));
    for command in [&["down"][..], &["status"], &["audit", "verify"]] {
        assert!(refused(&theirs.ours(command)).contains("sudo -u nobody"), "{command:?}");
    }
    succeeds(&theirs.owner(&["status"]));
    succeeds(&theirs.owner(&["down"]));
    assert!(all_in(&theirs.site.data).iter().all(|(_, owner, _)| *owner == NOBODY));
}

#[test]
fn who_may_not_enter_is_told_who_may() {
    let Some(theirs) = Theirs::new() else { return };
    let data = &theirs.site.data;
    let machines = data.join("machines");
    fs::create_dir(&machines).unwrap();
    fs::set_permissions(&machines, fs::Permissions::from_mode(0o700)).unwrap();
    let into = theirs.folder.path().join("into");
    fs::create_dir(&into).unwrap();
    chown(&into, Some(NOBODY), Some(NOBODY)).unwrap();
    let told = refused(&theirs.owner(&["backup", into.join("backup").to_str().unwrap()]));
    assert!(told.contains("machines cannot be read: Permission denied"), "{told}");

    chown(data, Some(0), Some(0)).unwrap();
    for command in [&["down"][..], &["status"], &["machine", "list"], &["audit", "verify"], &["backup", "x"]]
    {
        let told = refused(&theirs.owner(command));
        assert!(told.contains("another user") && told.contains("sudo -u root"), "{command:?}: {told}");
    }
}

/// Whoever is in a machine with a single user may close what is in it to its owner, too.
#[test]
fn a_machine_that_its_owner_may_not_read_is_missed_in_a_backup() {
    let Some(theirs) = Theirs::new() else { return };
    let (closed, into) = (theirs.site.data.join("machines/m1/closed"), theirs.folder.path().join("into"));
    fs::create_dir_all(&closed).unwrap();
    fs::create_dir(&into).unwrap();
    for path in [&closed, closed.parent().unwrap(), &theirs.site.data.join("machines"), &into] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let made = |name: &str| theirs.owner(&["backup", into.join(name).to_str().unwrap()]);
    let told = refused(&made("without"));
    assert!(
        told.contains("machine m1, as this user may not read") && told.contains("`unshare --map"),
        "{told}"
    );
    assert!(into.join("without/manifest.json").is_file());
    let whole = into.join("whole");
    succeeds(&theirs.owner_by(&["unshare", "--map-root-user"], &["backup", whole.to_str().unwrap()]));
    assert!(whole.join("machines/m1.sealed").is_file());
}
