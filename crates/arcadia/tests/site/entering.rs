//! What machines, and the commands in them, are given of the shells that start them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::machines::Machine;
use crate::support::Site;

/// The numbers of the processes that have a file open.
fn who_has_open(path: &Path) -> Vec<u32> {
    let has = |process: &PathBuf| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == path))
    };
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()).filter(has);
    processes.filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect()
}

/// The program in a shell that has a file open as 9, and does with it what `script` says.
fn with_open(data: &Path, file: &Path, script: &str) -> Command {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("exec 9<\"$1\" && {script}")).arg(env!("CARGO_BIN_EXE_arcadia")).arg(file);
    shell.env("ARCADIA_DATA", data);
    shell
}

/// A lock of the shell, or the file with its passphrase: machines outlive the shell, and other users are on them.
#[test]
fn what_a_shell_has_open_is_handed_to_nothing_but_what_it_runs() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("passphrase");
    fs::write(&file, "of-the-shell").unwrap();
    let mut site = Site::start();
    let shell = |script: &str| with_open(&site.data, &file, script).output().unwrap();
    let made = shell("\"$0\" machine create m1");
    assert!(made.status.success(), "{made:?}");
    assert_eq!(who_has_open(&file), [0_u32; 0]);
    for user in ["root", "arcadmin"] {
        let read = format!("\"$0\" machine exec --user {user} m1 -- sh -c 'ls -l /proc/self/fd; cat <&9'");
        let output = shell(&read);
        assert!(!output.status.success(), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("of-the-shell"), "{output:?}");
    }
    let run = shell("\"$0\" run -- sh -c 'cat <&9'");
    assert_eq!(run.stdout, b"of-the-shell", "as by env(1): {run:?}");

    site.stop();
    let mut shell = with_open(&site.data, &file, "exec \"$0\" up --offline --passphrase-file /dev/fd/9");
    let mut up = shell.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(up.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
    let machine = Machine(&site);
    let is_running = || machine.listed()["running"] == true;
    while !is_running() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(who_has_open(&file), [up.id()]);
    drop(machine);
    assert!(site.command(&["down"]).status.success());
    assert!(up.wait().unwrap().success());
}

/// What root finds first, another user may not come to.
#[test]
fn a_program_is_looked_for_as_the_user_that_runs_it() {
    let site = Site::start();
    let machine = Machine::create(&site, &[]);
    if machine.listed()["separateUsers"] != true {
        return;
    }
    let folder = TempDir::new().unwrap();
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(folder.path(), 0o755);
    let [closed, not_run, open] = ["closed", "not-run", "open"].map(|name| folder.path().join(name));
    for (place, mode, program_mode) in
        [(&closed, 0o700, 0o755), (&not_run, 0o755, 0o644), (&open, 0o755, 0o755)]
    {
        fs::create_dir(place).unwrap();
        set_mode(place, mode);
        let program = place.join("where");
        fs::write(&program, format!("#!/bin/sh\necho {}\n", place.display())).unwrap();
        set_mode(&program, program_mode);
    }
    let run = |user: &str, folders: &[&PathBuf], word: &str| {
        let mut path: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        path.push("/usr/bin:/bin".to_owned());
        machine.run(user, &[("PATH", &path.join(":"))], &[word])
    };
    for (user, found) in [("root", &closed), ("arcadmin", &open)] {
        let output = run(user, &[&closed, &not_run, &open], "where");
        assert_eq!(output.stdout, format!("{}\n", found.display()).as_bytes(), "{output:?}");
    }
    for (folders, word, code) in [
        (&[&closed][..], "where", 127),
        (&[&closed], "no-such-program", 127),
        (&[&closed, &not_run], "where", 126),
    ] {
        let output = run("arcadmin", folders, word);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

/// It is the caller's process that is about to run it.
#[test]
fn what_a_machines_root_puts_in_a_place_is_not_started_by_who_enters() {
    let site = Site::start();
    let machine = Machine::create(&site, &[]);
    let script = "mount -t tmpfs tmpfs /proc && mkdir /proc/self && cd /proc/self && \
                  printf '#!/bin/sh\necho theirs\n' > exe && chmod 755 exe";
    let put = machine.run("root", &[], &["sh", "-c", script]);
    assert!(put.status.success(), "{put:?}");
    assert_eq!(machine.run("root", &[], &["echo", "ours"]).stdout, b"ours\n");
}
