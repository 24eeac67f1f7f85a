//! Machines, as whoever makes and enters them has them.

use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Site, arcadia};

const NAME: &str = "m1";

/// A machine that is gone with the test.
pub struct Machine<'a>(pub &'a Site);

impl<'a> Machine<'a> {
    pub fn create(site: &'a Site, environment: &[(&str, &str)]) -> Self {
        let mut command = arcadia(&site.data);
        let made =
            command.args(["machine", "create", NAME]).envs(environment.iter().copied()).output().unwrap();
        let machine = Self(site);
        assert!(made.status.success(), "{made:?}");
        machine
    }

    pub fn listed(&self) -> Value {
        let output = self.0.command(&["machine", "list", "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].take()
    }

    fn pid(&self) -> i32 {
        self.listed()["pid"].as_i64().unwrap() as i32
    }

    pub fn run(&self, user: &str, environment: &[(&str, &str)], words: &[&str]) -> Output {
        let mut command = arcadia(&self.0.data);
        command.args(["machine", "exec", "--user", user, NAME, "--"]).args(words);
        command.envs(environment.iter().copied()).output().unwrap()
    }

    fn told(&self, user: &str, words: &[&str]) -> String {
        let output = self.run(user, &[], words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.0.command(&["machine", "delete", NAME]);
    }
}

#[test]
fn a_machine_knows_nothing_of_the_shells_that_make_and_enter_it() {
    let site = Site::start();
    let machine = Machine::create(&site, &[("SECRET", "of-the-shell")]);
    let held = std::fs::read(format!("/proc/{}/environ", machine.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&held).contains("of-the-shell"));

    let callers = [
        ("AZURE_STORAGE_KEY", "callers"),
        ("IDENTITY_HEADER", "callers"),
        ("PGPASSWORD", "callers"),
        ("PGHOSTADDR", "callers"),
        ("AZURE_CORE_OUTPUT", "table"),
    ];
    let output = machine.run("root", &callers, &["env"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("AZURE_CORE_OUTPUT=table\n") && !text.contains("callers"), "{text}");
}

#[test]
fn a_command_on_a_machine_has_the_groups_of_its_user() {
    let site = Site::start();
    let machine = Machine::create(&site, &[]);
    if machine.listed()["separateUsers"] != true {
        return;
    }
    assert_eq!(machine.told("arcadmin", &["id", "-Gn"]), "arcadmin\n");
    let refused = machine.run("arcadmin", &[], &["ls", "/var/opt/azcmagent/tokens"]);
    assert!(!refused.status.success());
    let join = "groups=$(sed 's/^himds:.*/&arcadmin/' /etc/group) && echo \"$groups\" > /etc/group";
    machine.told("root", &["sh", "-c", join]);
    assert_eq!(machine.told("arcadmin", &["id", "-Gn"]), "arcadmin himds\n");
    machine.told("arcadmin", &["ls", "/var/opt/azcmagent/tokens"]);
    assert_eq!(machine.told("himds", &["id", "-un"]), "himds\n");

    // What a shell says.
    let missing = machine.run("arcadmin", &[], &["no-such-program"]);
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no-such-program: command not found"));
    assert_eq!(machine.run("arcadmin", &[], &["/etc"]).status.code(), Some(126));
    assert_eq!(machine.run("arcadmin", &[], &["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
}

#[test]
fn a_machine_that_was_killed_is_started_again_by_who_enters_it() {
    let site = Site::start();
    let machine = Machine::create(&site, &[]);
    for _ in 0..3 {
        kill_process(Pid::from_raw(machine.pid()).unwrap(), Signal::KILL).unwrap();
        // Whoever got in before it had ended is ended with it.
        let entered = (0..20).map(|_| machine.run("root", &[], &["hostname"])).find(|output| {
            assert!(!String::from_utf8_lossy(&output.stderr).contains("/proc/"), "{output:?}");
            output.status.success()
        });
        assert_eq!(entered.unwrap().stdout, format!("{NAME}\n").as_bytes());
    }
}

/// A shell on the machine, whose users do what they like there.
fn does(machine: &Machine<'_>, script: &str) {
    machine.told("root", &["sh", "-c", script]);
}

fn told_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folders(site: &Site) -> Vec<String> {
    let entries = std::fs::read_dir(site.data.join("machines")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_a_machines_users_make_costs_no_backup_and_no_restore() {
    let folder = TempDir::new().unwrap();
    let [backup, again] = ["backup", "again"].map(|name| folder.path().join(name));
    let site = Site::start();
    let machine = Machine::create(&site, &[]);
    if !rustix::process::geteuid().is_root() && machine.listed()["separateUsers"] == true {
        return; // a backup leaves the machine out
    }
    does(&machine, "cd /var/opt/azcmagent && echo kept > kept && truncate -s 1500M huge");
    for (levels, length) in [(19, 199), (90, 3)] {
        let script = format!(
            "cd /var/opt/azcmagent && n=$(printf '%0{length}d' 1) && for i in $(seq {levels}); do mkdir $n && cd $n; done"
        );
        does(&machine, &script);
    }
    let command = |name: &str, path: &Path| site.command(&[name, "--with-root-key", path.to_str().unwrap()]);
    let made = command("backup", &backup);
    let told = told_of(&made);
    assert_eq!(made.status.code(), Some(1), "{told}");
    assert!(told.contains("not in it: of machine m1: var-opt-azcmagent/") && told.contains(" and 2 more ("));
    let size = std::fs::metadata(backup.join("machines/m1.sealed")).unwrap().len();
    assert!(size < 100 << 20, "{size}");

    let restored = arcadia(&again).arg("restore").arg(&backup).output().unwrap();
    assert!(restored.status.success(), "{restored:?}");
    assert!(told_of(&restored).contains("not there now: of machine m1: "), "{restored:?}");
    let kept = again.join("machines/m1/var-opt-azcmagent/kept");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "kept\n");
}

#[test]
fn a_machine_with_folders_of_any_depth_is_deleted() {
    let site = Site::start();
    let machine = Machine::create(&site, &[]);
    does(&machine, "mkdir -p /var/opt/azcmagent/$(printf 'a/%.0s' $(seq 1900))");
    // What a deletion left that was killed.
    std::fs::create_dir(site.data.join("machines/.gone-1")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 128 && exec \"$0\" machine delete m1", env!("CARGO_BIN_EXE_arcadia")]);
    let deleted = command.env("ARCADIA_DATA", &site.data).output().unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
    assert!(folders(&site).is_empty(), "{:?}", folders(&site));
}

#[test]
fn a_machine_is_deleted_whatever_its_root_mounts() {
    let site = Site::start();
    let machine = Machine::create(&site, &[]);
    let pid = machine.pid();
    does(&machine, "mount -t tmpfs tmpfs /var/opt/azcmagent && { sleep 600 > /dev/null 2>&1 & }");
    assert_eq!(machine.pid(), pid);
    let deleted = site.command(&["machine", "delete", NAME]);
    assert!(deleted.status.success(), "{deleted:?}");
    // Empty where its parent has not collected it.
    let held = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(held.is_empty(), "{held}");
    assert!(folders(&site).is_empty(), "{:?}", folders(&site));
}

#[test]
fn what_is_left_of_a_deletion_is_told() {
    let mut site = Site::start();
    std::fs::create_dir_all(site.data.join("machines")).unwrap();
    std::fs::write(site.data.join("machines/.gone-1"), "no folder").unwrap();
    let why = "what is left of a deleted machine stays: cannot remove ";
    let deleted = site.command(&["machine", "delete", NAME]);
    assert!(told_of(&deleted).contains(&format!("Note: {why}")), "{deleted:?}");
    site.stop();
    site.up(&["--offline"]);
    let begun = std::time::Instant::now();
    while !site.told().contains(why) {
        assert!(begun.elapsed() < crate::raw::PATIENCE, "{}", site.told());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_copied_site_has_nothing_of_the_machines_of_the_first() {
    let folder = TempDir::new().unwrap();
    let site = Site::start();
    let machine = Machine::create(&site, &[]);
    let pid = machine.pid();
    let copied = Site::over(folder.path().join("copied"));
    let mut copy = Command::new("cp");
    copy.arg("-a").args([&site.data, &copied.data]);
    assert!(copy.status().unwrap().success());
    let copy = Machine(&copied);
    assert_eq!(copy.listed()["running"], false);
    let entered = copy.run("root", &[], &["true"]);
    assert!(told_of(&entered).contains("Machine m1 is stopped; starting it"), "{entered:?}");
    drop(copy);
    assert!(folders(&copied).is_empty(), "{:?}", folders(&copied));
    assert_eq!(machine.pid(), pid);
    assert_eq!(machine.told("root", &["hostname"]), format!("{NAME}\n"));
}

#[test]
fn a_machine_is_deleted_while_others_enter_it() {
    let site = Site::start();
    for _ in 0..4 {
        let _machine = Machine::create(&site, &[]);
        let begin = |words: &[&str]| {
            let mut command = arcadia(&site.data);
            command.arg("machine").args(words).stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let deleting = begin(&["delete", NAME]);
        let entering = [(); 3].map(|()| begin(&["exec", NAME, "--", "true"]));
        let deleted = deleting.wait_with_output().unwrap();
        assert!(deleted.status.success(), "{deleted:?}");
        for entered in entering.map(|child| child.wait_with_output().unwrap()) {
            let told = told_of(&entered);
            assert!(!told.contains("cannot put"), "{told}");
        }
        assert!(folders(&site).is_empty(), "{:?}", folders(&site));
    }
}

#[test]
fn a_machine_comes_with_its_site_to_another_place() {
    let folder = TempDir::new().unwrap();
    let [first, moved] = ["first", "moved"].map(|name| folder.path().join(name));
    let mut site = Site::over(first.clone());
    site.up(&["--offline"]);
    assert!(site.command(&["machine", "create", NAME]).status.success());
    site.signal(Signal::KILL);
    site.ended();
    std::fs::rename(&first, &moved).unwrap();
    let mut site = Site::over(moved);
    site.up(&["--offline"]);
    let machine = Machine(&site);
    // The site says what is no request to it; without the site, the forwarder says so.
    let ask = "exec 3<>/dev/tcp/127.0.0.1/40344 && printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' >&3 && head -n 1 <&3";
    let begun = std::time::Instant::now();
    loop {
        let asked = machine.run("root", &[], &["bash", "-c", ask]);
        let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
        if answer.starts_with("HTTP/1.1 ") && !answer.contains("503") {
            break;
        }
        assert!(begun.elapsed() < crate::raw::PATIENCE, "{asked:?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
