//! Machines, as whoever makes and enters them has them.

use std::process::Output;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Site, arcadia};

const NAME: &str = "m1";

/// A machine that is gone with the test.
struct Machine<'a>(&'a Site);

impl<'a> Machine<'a> {
    fn create(site: &'a Site, environment: &[(&str, &str)]) -> Self {
        let mut command = arcadia(&site.data);
        let made =
            command.args(["machine", "create", NAME]).envs(environment.iter().copied()).output().unwrap();
        let machine = Self(site);
        assert!(made.status.success(), "{made:?}");
        machine
    }

    fn listed(&self) -> Value {
        let output = self.0.command(&["machine", "list", "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].take()
    }

    fn pid(&self) -> i32 {
        self.listed()["pid"].as_i64().unwrap() as i32
    }

    fn run(&self, user: &str, environment: &[(&str, &str)], words: &[&str]) -> Output {
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
