//! What roles of a server may not make of it: a way to its machine, or one in which the site is kept from its work.

use std::time::Duration;

use arcadia_kernel::Method;
use serde_json::{Value, json};

use crate::administrators::{
    LOGIN, NINA_AT, administrator, asked, begun, row, stopped, superuser, with_nina, world,
};
use crate::gateway::lock_of;
use crate::world::{AUDIENCE, NINA, NOW, PASSWORD, World, flexible, token};

const OTHER: &str = "Other-Antelope!";

fn reset() -> Value {
    json!({ "properties": { "administratorLoginPassword": OTHER } })
}

const LEADING_OUT: &str = "SELECT count(*) FROM pg_roles WHERE oid IN (4569, 4570, 4571, 6181, 6182)";

/// Such as every version but the newest left. It is closed before anybody is let in.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_before_is_closed_at_its_next_start() {
    let world = world().await;
    assert_eq!(asked(&world, LEADING_OUT).await, "0");
    let put_back = "INSERT INTO pg_authid (oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, \
                    rolcanlogin, rolreplication, rolbypassrls, rolconnlimit) \
                    VALUES (6182, 'pg_write_all_data', false, true, false, false, false, false, false, -1); \
                    GRANT pg_write_all_data TO arcadmin";
    superuser(&world, put_back).await;
    assert_eq!(asked(&world, LEADING_OUT).await, "0");
    let members = "SELECT count(*) FROM pg_auth_members WHERE roleid = 6182";
    assert_eq!(asked(&world, members).await, "0");
    let program = world.psql(PASSWORD, LOGIN, "COPY (SELECT 1) TO PROGRAM 'cat'").await;
    World::fails(&program, "to or from an external program");

    // Where somebody was faster nobody is let in any more, whatever the role is called.
    World::says(&world.psql(PASSWORD, LOGIN, "CREATE ROLE evil").await);
    let lock = lock_of(&world);
    let set = |what: &str| {
        format!("UPDATE pg_authid SET {what} WHERE rolname IN ('evil', 'pg_execute_server_program')")
    };
    // Each takes back what the one before it did.
    for made in [
        "oid = 4571",
        "rolname = 'pg_execute_server_program'",
        "rolname = 'evil', oid = 20001, rolsuper = true",
        "rolsuper = false, rolreplication = true",
        "rolreplication = false, rolbypassrls = true",
    ] {
        stopped(&world, &set(made)).await;
        world.postgres.start().await;
        let says_ready = || std::fs::read_to_string(&lock).is_ok_and(|text| text.contains("ready"));
        for _ in 0..200 {
            if says_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(says_ready());
        // Said after a client was kept waiting for a while.
        World::fails(&world.psql(PASSWORD, LOGIN, "SELECT 1").await, "starting up");
        let shown = world.arm(Method::GET, &flexible("pg-m"), Value::Null).await.is(200).body;
        assert_eq!(shown["properties"]["state"], "Starting", "{made}");
    }
    superuser(&world, &set("rolbypassrls = false")).await;
    stopped(&world, &set("rolsuper = true")).await;
    world.postgres.start().await;
    World::succeeded(&world.change(Method::DELETE, &flexible("pg-m"), Value::Null).await);
    world.postgres.stop().await;
}

/// Whatever roles a version of PostgreSQL comes with.
#[tokio::test(flavor = "multi_thread")]
async fn no_role_that_can_be_granted_writes_what_the_server_believes() {
    let world = world().await;
    let grant = "DO $$ DECLARE role text; BEGIN \
                 FOR role IN SELECT rolname FROM pg_roles LOOP \
                     BEGIN EXECUTE format('GRANT %I TO arcadmin', role); EXCEPTION WHEN OTHERS THEN NULL; END; \
                 END LOOP; END $$";
    World::says(&world.psql(PASSWORD, LOGIN, grant).await);
    // What is set through that view is the session's own.
    let writable = "SELECT string_agg(DISTINCT c.oid::regclass::text, ' ') FROM pg_class c, \
                    unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS what \
                    WHERE c.oid < 16384 AND has_table_privilege(c.oid, what)";
    assert_eq!(asked(&world, writable).await, "pg_settings");
    let readable = "SELECT has_table_privilege('pg_authid', 'SELECT')";
    assert_eq!(asked(&world, readable).await, "f");
    for (sql, words) in [
        ("COPY (SELECT 1) TO PROGRAM 'cat'", "to or from an external program"),
        ("COPY (SELECT 1) TO '/tmp/x'", "to COPY to a file"),
        ("SELECT pg_read_file('postgresql.conf')", "permission denied"),
        ("SELECT lo_import('/etc/passwd')", "permission denied"),
    ] {
        World::fails(&world.psql(PASSWORD, LOGIN, sql).await, words);
    }
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_of_administrators_has_its_name_back() {
    let (world, _) = with_nina().await;
    let group = "SELECT oid FROM pg_roles WHERE rolname = 'azure_pg_admin'";
    let before = asked(&world, group).await;
    World::says(&world.psql(PASSWORD, LOGIN, "ALTER ROLE azure_pg_admin RENAME TO zzz").await);
    World::succeeded(&world.change(Method::PATCH, &flexible("pg-m"), reset()).await);
    assert_eq!(World::says(&world.psql(OTHER, LOGIN, group).await), before);

    // What bears no mark is made anew.
    let lost = "COMMENT ON ROLE azure_pg_admin IS NULL; ALTER ROLE azure_pg_admin RENAME TO zzz";
    World::says(&world.psql(OTHER, LOGIN, lost).await);
    let database = format!("{}/databases/app", flexible("pg-m"));
    World::succeeded(&world.change(Method::PUT, &database, Value::Null).await);
    let owner = "SELECT datdba::regrole FROM pg_database WHERE datname = 'app'";
    assert_eq!(World::says(&world.psql(OTHER, LOGIN, owner).await), "azure_pg_admin");
    World::succeeded(&world.change(Method::PATCH, &flexible("pg-m"), reset()).await);
    let is_one = "SELECT pg_has_role('azure_pg_admin', 'MEMBER') AND pg_has_role('zzz', 'MEMBER')";
    assert_eq!(World::says(&world.psql(OTHER, LOGIN, is_one).await), "t");

    // Another one in its place serves as well.
    let other = "ALTER ROLE azure_pg_admin RENAME TO yyy; CREATE ROLE azure_pg_admin";
    World::says(&world.psql(OTHER, LOGIN, other).await);
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    World::succeeded(&world.change(Method::PATCH, &flexible("pg-m"), reset()).await);
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_is_found_under_another_name() {
    let (world, good) = with_nina().await;
    let number = "SELECT oid FROM pg_roles WHERE rolname = 'nina@arcadia.example'";
    let before = asked(&world, number).await;
    let rename = r#"ALTER ROLE "nina@arcadia.example" RENAME TO hidden"#;
    superuser(&world, rename).await;
    let again = administrator("nina@arcadia.example");
    World::succeeded(&world.change(Method::PUT, &row(NINA), again).await);
    assert_eq!(asked(&world, number).await, before);
    assert_eq!(World::says(&world.psql(&good, NINA_AT, "SELECT 7").await), "7");
    World::says(&world.psql(&good, NINA_AT, "ALTER ROLE CURRENT_USER PASSWORD 'own'").await);
    // Another one in its place is nobody's.
    superuser(&world, &format!("{rename}; CREATE ROLE \"nina@arcadia.example\"")).await;
    let hidden = LOGIN.replace("arcadmin", "hidden");
    assert_eq!(World::says(&world.psql("own", &hidden, "SELECT 7").await), "7");
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    World::fails(&world.psql("own", &hidden, "SELECT 7").await, "failed");
    assert_eq!(asked(&world, "SELECT count(*) FROM pg_roles WHERE rolname = 'hidden'").await, "0");
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_opens_a_role_that_somebody_closed() {
    let (world, good) = with_nina().await;
    let closed = "NOLOGIN CONNECTION LIMIT 0 VALID UNTIL '2000-01-01'";
    let close = format!(r#"ALTER ROLE arcadmin {closed}; ALTER ROLE "nina@arcadia.example" {closed}"#);
    stopped(&world, &close).await;
    world.postgres.start().await;
    World::succeeded(&world.change(Method::PATCH, &flexible("pg-m"), reset()).await);
    assert_eq!(World::says(&world.psql(OTHER, LOGIN, "SELECT 7").await), "7");
    let again = administrator("nina@arcadia.example");
    World::succeeded(&world.change(Method::PUT, &row(NINA), again).await);
    assert_eq!(World::says(&world.psql(&good, NINA_AT, "SELECT 7").await), "7");
    world.postgres.stop().await;
}

/// A server cuts a longer name, and would take it for another role's.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_server_would_cut_is_nobodys() {
    let world = world().await;
    let name = "a".repeat(63);
    let put = world.change(Method::PUT, &row(NINA), administrator(&name)).await;
    World::succeeded(&put);
    let at = |user: &str| LOGIN.replace("arcadmin", user);
    let good = token(NINA, AUDIENCE, NOW + 3600);
    let own = "ALTER ROLE CURRENT_USER PASSWORD 'own'";
    World::says(&world.psql(&good, &at(&name), own).await);
    let entra = json!({ "properties": { "authConfig": { "activeDirectoryAuth": "Disabled" } } });
    World::succeeded(&world.change(Method::PATCH, &flexible("pg-m"), entra).await);
    for user in [format!("{name}x"), format!("{name}x@pg-m"), format!("{name}@x")] {
        World::fails(&world.psql("own", &at(&user), "SELECT 1").await, "does not exist");
    }
    World::fails(&world.psql("own", &at(&name), "SELECT 1").await, "authentication is disabled");
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_site_and_others_say_of_passwords_is_not_shown() {
    let (world, _) = with_nina().await;
    let world = std::sync::Arc::new(world);
    let locked = "BEGIN; LOCK TABLE pg_settings IN ACCESS EXCLUSIVE MODE; ALTER ROLE CURRENT_USER PASSWORD 'x'; \
                  SELECT pg_sleep(300)";
    let holding = begun(&world, locked);
    crate::administrators::asleep(&world, 1).await;
    let settings = format!("{}/configurations", flexible("pg-m"));
    world.arm(Method::GET, &settings, Value::Null).await.is(200);

    // It waits for the role until who holds it is ended.
    let server = flexible("pg-m");
    let changing = world.change(Method::PATCH, &server, reset());
    let looking = async {
        let waits = "SELECT count(*), coalesce(string_agg(query, ''), '') FROM pg_stat_activity \
                     WHERE usename = 'azuresu' AND wait_event_type = 'Lock'";
        for _ in 0..200 {
            let said = asked(&world, waits).await;
            if said != "0|" {
                return assert_eq!(said, "1|");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not wait");
    };
    let (changed, ()) = tokio::join!(changing, looking);
    World::succeeded(&changed);
    World::fails(&holding.await.unwrap(), "terminating connection");

    let failing = "ALTER ROLE nobody_at_all PASSWORD 'a-needle'";
    World::fails(&world.psql(OTHER, LOGIN, failing).await, "does not exist");
    let within = "DO $$ BEGIN EXECUTE 'ALTER ROLE nobody_at_all PASSWORD ''a-needle'''; END $$";
    World::fails(&world.psql(OTHER, LOGIN, within).await, "does not exist");
    let log = std::fs::read_to_string(lock_of(&world).parent().unwrap().with_extension("log")).unwrap();
    assert!(log.contains("nobody_at_all") && !log.contains("needle"), "{log}");
    world.postgres.stop().await;
}
