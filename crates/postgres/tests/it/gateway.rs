//! Logins by password, through the gateway.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arcadia_kernel::Method;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{PASSWORD, World, flexible, flexible_body, single, single_body};

const HOST: &str = "host=pg-a.postgres.database.azure.com dbname=postgres";

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_of_the_user_and_both_versions_of_tls() {
    let world = World::new().await;
    world.server(&flexible("pg-a"), flexible_body()).await;
    world.server(&single("pg-b"), single_body("Enabled")).await;
    let verified = format!("{HOST} sslmode=verify-full");
    let refused = world.psql(PASSWORD, &format!("{verified} user=arcadmin"), "SELECT 1").await;
    World::fails(
        &refused,
        "no pg_hba.conf entry for host \"127.0.0.1\", user \"arcadmin\", database \"postgres\", SSL encryption",
    );
    for server in [flexible("pg-a"), single("pg-b")] {
        world.admit(&server, "127.0.0.1", "127.0.0.9").await;
    }
    for (user, more) in [
        ("arcadmin", ""),
        ("arcadmin@pg-a", ""),
        ("arcadmin@PG-A", "sslsni=0"),
        ("arcadmin", "ssl_min_protocol_version=TLSv1.2 ssl_max_protocol_version=TLSv1.2"),
        ("arcadmin@pg-a", "ssl_min_protocol_version=TLSv1.3"),
        // Through a tunnel, whose end has another name.
        ("arcadmin@pg-a", "host=localhost sslmode=require"),
    ] {
        let output =
            world.psql(PASSWORD, &format!("{verified} user={user} {more}"), "SELECT current_user").await;
        assert_eq!(World::says(&output), "arcadmin", "{user} {more}");
    }
    for (connection, words) in [
        (format!("{verified} user=arcadmin@pg-b"), "the user names server \"pg-b\""),
        (format!("{verified} user=azuresu"), "not permitted to log in"),
        (format!("{verified} user=arcadmin sslsni=0"), "<username@hostname>"),
        (format!("{verified} user=arcadmin@pg-z sslsni=0"), "server \"pg-z\" does not exist"),
        (
            format!("{verified} user=arcadmin host=localhost sslmode=require"),
            "server \"localhost\" does not exist",
        ),
        (format!("{verified} user=arcadmin channel_binding=require"), "channel binding is required"),
        (format!("{HOST} user=arcadmin@pg-a sslmode=disable"), "SSL connection is required"),
        (format!("{verified} user=arcadmin replication=database"), "replication connections are not served"),
        (format!("{verified} user=arcadmin dbname=none"), "database \"none\" does not exist"),
        (format!("{verified} user=nobody"), "password authentication failed"),
    ] {
        World::fails(&world.psql(PASSWORD, &connection, "SELECT 1").await, words);
    }
    let wrong = world.psql("Wrong-Antelope!", &format!("{verified} user=arcadmin"), "SELECT 1").await;
    World::fails(&wrong, "password authentication failed for user \"arcadmin\"");
    // Nobody learns what is not on record, be it that a password is wrong.
    world.records.broken.store(true, Ordering::SeqCst);
    for password in ["Wrong-Antelope!", PASSWORD] {
        let untold = world.psql(password, &format!("{verified} user=arcadmin"), "SELECT 1").await;
        World::fails(&untold, "the login could not be recorded");
    }
    world.records.broken.store(false, Ordering::SeqCst);
    *world.remote.lock().unwrap() = Some(IpAddr::from([127, 0, 0, 10]));
    let outside = world.psql(PASSWORD, &format!("{verified} user=arcadmin"), "SELECT 1").await;
    World::fails(&outside, "no pg_hba.conf entry for host \"127.0.0.10\"");
    let log = world.store.audit_page(0, 1000).await.unwrap();
    let logins: Vec<_> = log.iter().filter(|(_, event)| event.operation == "Login").collect();
    assert!(logins.iter().any(|(_, event)| format!("{:?}", event.outcome).contains("200")));
    assert!(logins.iter().any(|(_, event)| format!("{:?}", event.outcome).contains("Denied")));
    // A name that nobody proved to have may be a password that was typed in the wrong place.
    let names = |name: &str| logins.iter().filter(|(_, event)| event.caller_name == name).count();
    assert!(names("arcadmin") >= 5 && names("anonymous") >= 2 && names("nobody") == 0);
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_without_a_rule_or_where_access_is_not_public() {
    let world = World::new().await;
    let disabled = json!({ "publicNetworkAccess": "Disabled" });
    for (server, body, closed) in [
        (flexible("pg-a"), flexible_body(), json!({ "network": disabled })),
        (single("pg-b"), single_body("Enabled"), disabled.clone()),
    ] {
        world.server(&server, body).await;
        let name = server.rsplit('/').next().unwrap();
        let at = format!(
            "host={name}.postgres.database.azure.com dbname=postgres sslmode=require user=arcadmin@{name}"
        );
        let is_let_in = async |admitted: bool| {
            let output = world.psql(PASSWORD, &at, "SELECT 7").await;
            match admitted {
                true => assert_eq!(World::says(&output), "7"),
                false => World::fails(&output, "no pg_hba.conf entry for host \"127.0.0.1\""),
            }
        };
        world.admit(&server, "127.0.0.1", "127.0.0.1").await;
        is_let_in(true).await;
        let rule = format!("{server}/firewallRules/r");
        World::succeeded(&world.change(Method::DELETE, &rule, Value::Null).await);
        is_let_in(false).await;
        world.admit(&server, "127.0.0.1", "127.0.0.1").await;
        is_let_in(true).await;
        let closed = json!({ "properties": closed });
        World::succeeded(&world.change(Method::PATCH, &server, closed).await);
        is_let_in(false).await;
    }
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_is_no_superuser() {
    let world = World::new().await;
    world.server(&flexible("pg-a"), flexible_body()).await;
    world.admit(&flexible("pg-a"), "127.0.0.1", "127.0.0.1").await;
    let at = format!("{HOST} user=arcadmin sslmode=require");
    for (sql, words) in [
        ("COPY (SELECT 1) TO PROGRAM 'id'", "to or from an external program"),
        ("COPY (SELECT 1) TO '/tmp/x'", "to COPY to a file"),
        ("GRANT pg_execute_server_program TO arcadmin", "does not exist"),
        ("GRANT pg_read_server_files TO arcadmin", "does not exist"),
        ("GRANT pg_write_server_files TO arcadmin", "does not exist"),
        // System views are data, and through these roles would have other numbers and databases other names.
        ("GRANT pg_write_all_data TO arcadmin", "does not exist"),
        ("GRANT pg_read_all_data TO arcadmin", "does not exist"),
        ("UPDATE pg_group SET grosysid = 4571 WHERE groname = 'arcadmin'", "permission denied for view"),
        ("UPDATE pg_stat_database_conflicts SET datname = 'x'", "permission denied for view"),
        ("DELETE FROM information_schema.enabled_roles", "permission denied for view"),
        ("BEGIN; LOCK TABLE pg_group IN ACCESS EXCLUSIVE MODE", "permission denied for view"),
        ("SELECT pg_read_file('postgresql.conf')", "permission denied"),
        ("CREATE ROLE x SUPERUSER", "superuser"),
        ("ALTER ROLE azuresu PASSWORD 'x'", "superuser"),
        ("GRANT azuresu TO arcadmin", "superuser"),
        ("ALTER SYSTEM SET fsync = off", "permission denied"),
        ("CREATE EXTENSION dblink", "permission denied"),
        ("SELECT rolpassword FROM pg_authid", "permission denied"),
    ] {
        World::fails(&world.psql(PASSWORD, &at, sql).await, words);
    }
    let path = "CREATE ROLE evil; GRANT pg_write_all_data, pg_read_all_data TO arcadmin; \
                UPDATE pg_group SET grosysid = 4571 WHERE groname = 'evil'; GRANT evil TO arcadmin";
    world.psql(PASSWORD, &at, path).await;
    let program = world.psql(PASSWORD, &at, "COPY (SELECT 1) TO PROGRAM 'cat'").await;
    World::fails(&program, "to or from an external program");
    let may = "CREATE DATABASE mine; ";
    assert!(world.psql(PASSWORD, &at, may).await.status.success());
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_comes_back_after_a_crash_and_a_restart() {
    let world = World::new().await;
    world.server(&flexible("pg-a"), flexible_body()).await;
    world.admit(&flexible("pg-a"), "127.0.0.1", "127.0.0.1").await;
    let at = format!("{HOST} user=arcadmin sslmode=require");
    World::says(&world.psql(PASSWORD, &at, "CREATE TABLE kept AS SELECT 7 AS a").await);
    let lock = lock_of(&world);
    let pid = || pid_of(&lock);
    let first = pid();
    signal(first, Signal::KILL);
    eventually(&world, &at).await;
    assert_ne!(pid(), first);
    // A process of the server that does not notice its end, as one that waits for a lock of a killed one.
    let second = pid();
    let children = std::fs::read_to_string(format!("/proc/{second}/task/{second}/children")).unwrap();
    let deaf: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    let mut bystander = Command::new("sleep");
    bystander.arg("600").current_dir(lock.parent().unwrap()).stdout(Stdio::null()).kill_on_drop(true);
    let mut bystander = bystander.spawn().unwrap();
    signal(deaf, Signal::STOP);
    signal(second, Signal::KILL);
    eventually(&world, &at).await;
    assert_ne!(pid(), second);
    assert!(!Path::new(&format!("/proc/{deaf}/fd/0")).exists(), "it was ended");
    assert!(bystander.try_wait().unwrap().is_none(), "who only stands in the directory was ended as well");
    // Its log is cut while it runs, and what it says next is in it.
    let log = lock.parent().unwrap().with_extension("log");
    std::fs::File::options().write(true).open(&log).unwrap().set_len(17 << 20).unwrap();
    let is_cut = || (1..2 << 20).contains(&std::fs::metadata(&log).unwrap().len());
    for _ in 0..600 {
        if is_cut() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(is_cut());
    World::fails(&world.psql("Wrong", &at, "SELECT 1").await, "password authentication failed");
    let bytes = std::fs::read(&log).unwrap();
    let said = bytes.rsplit(|byte| *byte == 0).next().unwrap();
    assert!(String::from_utf8_lossy(said).contains("password authentication failed"));
    assert!(is_cut(), "it did not follow what is kept");
    world.postgres.stop().await;
    World::fails(&world.psql(PASSWORD, &at, "SELECT 1").await, "starting up");
    world.postgres.start().await;
    eventually(&world, &at).await;
    world.postgres.stop().await;
}

/// What the one server that runs has written down of itself.
pub fn lock_of(world: &World) -> PathBuf {
    let folder = std::fs::read_dir(world.folder.path().join("postgres")).unwrap().flatten();
    folder.map(|entry| entry.path().join("postmaster.pid")).find(|path| path.exists()).unwrap()
}

/// Its process.
pub fn pid_of(lock: &Path) -> i32 {
    std::fs::read_to_string(lock).unwrap().lines().next().unwrap().parse().unwrap()
}

pub fn signal(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

async fn eventually(world: &World, at: &str) {
    for _ in 0..200 {
        let output = world.psql(PASSWORD, at, "SELECT a FROM kept").await;
        if output.status.success() {
            assert_eq!(World::says(&output), "7");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server does not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_while_another_runs_is_refused() {
    let world = World::new().await;
    let server = flexible("pg-a");
    world.arm(Method::PUT, &server, flexible_body()).await.is(202);
    let second = world.arm(Method::PUT, &server, flexible_body()).await.is(409);
    assert_eq!(second.code(), "AnotherOperationInProgress");
    let early = world.arm(Method::PUT, &format!("{server}/databases/x"), Value::Null).await.is(409);
    assert_eq!(early.code(), "ServerIsNotReady");
    for _ in 0..400 {
        let view = world.arm(Method::GET, &server, Value::Null).await.is(200).body;
        if view["properties"]["state"] == "Ready" {
            let tags = json!({ "tags": { "a": "b" } });
            World::succeeded(&world.change(Method::PATCH, &server, tags).await);
            world.postgres.stop().await;
            return;
        }
        assert_eq!(view["properties"]["state"], "Provisioning");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server is never ready");
}
