//! What a server's administrators may try, and how they are taken away again.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arcadia_kernel::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::world::{AUDIENCE, NINA, NOW, OWNER, PASSWORD, TENANT, World, flexible, flexible_body, token};

pub const LOGIN: &str =
    "host=pg-m.postgres.database.azure.com dbname=postgres sslmode=verify-full user=arcadmin";
pub const NINA_AT: &str = "host=pg-m.postgres.database.azure.com dbname=postgres sslmode=verify-full \
                       user=nina@arcadia.example";

pub fn administrator(name: &str) -> Value {
    json!({ "properties": { "principalName": name, "principalType": "User", "tenantId": TENANT } })
}

pub fn row(id: Uuid) -> String {
    format!("{}/administrators/{id}", flexible("pg-m"))
}

pub async fn world() -> World {
    let world = World::new().await;
    world.server(&flexible("pg-m"), flexible_body()).await;
    world.admit(&flexible("pg-m"), "127.0.0.1", "127.0.0.1").await;
    world
}

pub async fn with_nina() -> (World, String) {
    let world = world().await;
    let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
    World::succeeded(&put);
    (world, token(NINA, AUDIENCE, NOW + 3600))
}

pub async fn asked(world: &World, sql: &str) -> String {
    World::says(&world.psql(PASSWORD, LOGIN, sql).await)
}

/// Waits until as many sessions sleep, each in a transaction.
pub async fn asleep(world: &World, count: usize) {
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    for _ in 0..200 {
        if asked(world, sleeping).await == count.to_string() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody holds what it should");
}

/// Waits until so many sessions at least wait for a lock on an object.
async fn waiting(world: &World, count: usize) {
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'object'";
    for _ in 0..200 {
        if asked(world, waiting).await.parse::<usize>().unwrap() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody waits for what is held");
}

/// A transaction of the owner's that does not end by itself.
pub fn begun(world: &Arc<World>, sql: &str) -> JoinHandle<Output> {
    let (world, sql) = (world.clone(), sql.to_owned());
    tokio::spawn(async move { world.psql(PASSWORD, LOGIN, &sql).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_administrators_make_does_not_run_as_the_site() {
    let (world, _) = with_nina().await;
    for (arguments, result) in [
        ("array_to_string(text[], text)", "text"),
        ("format(text, regrole)", "text"),
        ("format(text, regrole, regrole)", "text"),
        ("format(text, regrole, text, text, text)", "text"),
    ] {
        let body = "BEGIN ALTER ROLE arcadmin SUPERUSER; RETURN NULL; END";
        let trap =
            format!("CREATE FUNCTION public.{arguments} RETURNS {result} LANGUAGE plpgsql AS $${body}$$");
        World::says(&world.psql(PASSWORD, LOGIN, &trap).await);
    }
    let settings = format!("{}/configurations", flexible("pg-m"));
    let settings = world.arm(Method::GET, &settings, Value::Null).await.is(200).body;
    let of = |name: &str| {
        let all = settings["value"].as_array().unwrap();
        all.iter().find(|row| row["name"] == name).unwrap()["properties"].clone()
    };
    assert_eq!(of("log_min_messages")["source"], "user-override");
    // The site's own bounds are none of the server's settings.
    for name in ["lock_timeout", "statement_timeout"] {
        assert_eq!((&of(name)["value"], &of(name)["source"]), (&json!("0"), &json!("system-default")));
    }
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    assert_eq!(asked(&world, "SELECT rolsuper FROM pg_roles WHERE rolname = 'arcadmin'").await, "f");
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_open_transaction_keeps_an_administrator() {
    let (world, good) = with_nina().await;
    let world = Arc::new(world);
    let own = world.psql(&good, NINA_AT, "ALTER ROLE CURRENT_USER PASSWORD 'x'; SELECT pg_sleep(300)");
    let version = asked(&world, "SHOW server_version_num").await.parse::<u32>().unwrap();
    // Before PostgreSQL 16 whoever may make roles may change every other; a membership is everybody's.
    let granting = r#"GRANT azure_pg_admin TO "nina@arcadia.example""#;
    let changes = if version < 160_000 {
        let comment = r#"COMMENT ON ROLE "nina@arcadia.example" IS 'mine'"#;
        [r#"ALTER ROLE "nina@arcadia.example" PASSWORD 'x'"#, comment]
    } else {
        [granting, granting]
    };
    let changes = changes.map(|change| format!("{change}; SELECT pg_sleep(300)"));
    let removed = async {
        asleep(&world, 1).await;
        World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    };
    let ((), ended) = tokio::join!(removed, own);
    World::fails(&ended, "terminating connection");
    World::fails(&world.psql(&good, NINA_AT, "SELECT 1").await, "failed");

    let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
    World::succeeded(&put);
    let mut others = vec![begun(&world, &changes[0])];
    asleep(&world, 1).await;
    // So many wait one behind the other that ending each in its turn would take too long.
    others.extend((0..9).map(|_| begun(&world, &changes[1])));
    waiting(&world, 8).await;
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    for ended in others {
        World::fails(&ended.await.unwrap(), "terminating connection");
    }
    let left = "SELECT count(*) FROM pg_roles WHERE rolname = 'nina@arcadia.example'";
    assert_eq!(asked(&world, left).await, "0");
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_open_transaction_holds_other_operations_up() {
    let world = Arc::new(world().await);
    let server = flexible("pg-m");
    let database = format!("{server}/databases/app");
    World::succeeded(&world.change(Method::PUT, &database, Value::Null).await);
    let template = "ALTER DATABASE app IS_TEMPLATE true";
    World::says(&world.psql(PASSWORD, LOGIN, template).await);
    // So many wait one behind the other that ending each in its turn would take too long.
    let comment = "COMMENT ON DATABASE app IS 'mine'; SELECT pg_sleep(300)";
    let mut sessions = vec![begun(&world, &format!("{template}; SELECT pg_sleep(300)"))];
    sessions.extend((0..9).map(|_| begun(&world, comment)));
    waiting(&world, 8).await;
    asleep(&world, 2).await;
    World::succeeded(&world.change(Method::DELETE, &database, Value::Null).await);
    for ended in sessions {
        World::fails(&ended.await.unwrap(), "terminating connection");
    }

    let making = begun(&world, r#"CREATE ROLE "nina@arcadia.example"; SELECT pg_sleep(300)"#);
    asleep(&world, 1).await;
    let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
    World::succeeded(&put);
    World::fails(&making.await.unwrap(), "terminating connection");
    let good = token(NINA, AUDIENCE, NOW + 3600);
    let own = begun(&world, "ALTER ROLE CURRENT_USER PASSWORD 'x'; SELECT pg_sleep(300)");
    asleep(&world, 1).await;
    let reset = json!({ "properties": { "administratorLoginPassword": "Other-Antelope!" } });
    World::succeeded(&world.change(Method::PATCH, &server, reset).await);
    World::fails(&own.await.unwrap(), "terminating connection");
    assert_eq!(World::says(&world.psql("Other-Antelope!", LOGIN, "SELECT 7").await), "7");
    assert_eq!(World::says(&world.psql(&good, NINA_AT, "SELECT 7").await), "7");
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_made_an_administrator_by_one_who_goes_stays_one() {
    let (world, good) = with_nina().await;
    let roles = "CREATE ROLE eve LOGIN PASSWORD 'x'; CREATE ROLE fred; \
                 GRANT azure_pg_admin TO eve WITH ADMIN OPTION; GRANT azure_pg_admin TO arcadmin";
    World::says(&world.psql(&good, NINA_AT, roles).await);
    let eve = LOGIN.replace("arcadmin", "eve");
    World::says(&world.psql("x", &eve, "GRANT azure_pg_admin TO fred").await);
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    let members = "SELECT string_agg(DISTINCT member::regrole::text || admin_option, ' ' ORDER BY \
                   member::regrole::text || admin_option) FROM pg_auth_members \
                   WHERE roleid = 'azure_pg_admin'::regrole";
    assert_eq!(asked(&world, members).await, "arcadmintrue evetrue fredfalse");
    let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'nina%'";
    assert_eq!(asked(&world, left).await, "0");
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_of_one_administrator() {
    let world = Arc::new(world().await);
    world.behind_milliseconds.store(600, Ordering::SeqCst);
    let put = |id: Uuid| {
        let world = world.clone();
        tokio::spawn(async move { world.arm(Method::PUT, &row(id), administrator("shared")).await })
    };
    let first = put(NINA);
    // Its row is there by now, and memory does not know of it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let second = put(OWNER);
    first.await.unwrap().is(202);
    assert!(second.await.unwrap().is(400).body.to_string().contains("has this name"));
    world.behind_milliseconds.store(0, Ordering::SeqCst);
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_was_made_in_sql_is_nobody_elses() {
    let world = world().await;
    let role = r#"CREATE ROLE "nina@arcadia.example" LOGIN PASSWORD 'own'"#;
    World::says(&world.psql(PASSWORD, LOGIN, role).await);
    let failed = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
    assert_eq!(failed["error"]["code"], "AadAuthPrincipalRoleExists", "{failed}");
    world.arm(Method::GET, &row(NINA), Value::Null).await.is(404);
    let suffixed = NINA_AT.replace("nina@arcadia.example", "nina@arcadia.example@pg-m");
    let who = "SELECT current_user, pg_has_role('azure_pg_admin', 'MEMBER')";
    assert_eq!(World::says(&world.psql("own", &suffixed, who).await), "nina@arcadia.example|f");

    // Once it has another name there is room; and what was made for a principal is its own again.
    let rename = r#"ALTER ROLE "nina@arcadia.example" RENAME TO nina"#;
    World::says(&world.psql(PASSWORD, LOGIN, rename).await);
    let good = token(NINA, AUDIENCE, NOW + 3600);
    for table in ["CREATE TABLE hers AS SELECT 7 AS a", "SELECT a FROM hers"] {
        let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
        World::succeeded(&put);
        World::says(&world.psql(&good, NINA_AT, table).await);
        World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    }
    world.postgres.stop().await;
}

/// Stops the only server, lets its superuser say something, and starts it again.
pub async fn superuser(world: &World, sql: &str) {
    stopped(world, sql).await;
    world.postgres.start().await;
    for _ in 0..200 {
        if world.psql(PASSWORD, LOGIN, "SELECT 7").await.status.success() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server does not come back");
}

/// Stops the only server, and lets its superuser say something.
pub async fn stopped(world: &World, sql: &str) {
    world.postgres.stop().await;
    let folders = std::fs::read_dir(world.folder.path().join("postgres")).unwrap();
    let mut folders = folders.map(|entry| entry.unwrap().path());
    let data = folders.find(|path| path.join("postmaster.opts").exists()).unwrap();
    let program = std::fs::read_to_string(data.join("postmaster.opts")).unwrap();
    let owner = std::fs::metadata(&data).unwrap();
    // The server's user has no way to its directory but through a handle.
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", r#"exec 3<&1 >&2; exec "$@""#, "sh", program.split(' ').next().unwrap()]);
    command.args(["--single", "-j", "-D", "/proc/self/fd/3", "postgres"]).current_dir("/");
    command.uid(owner.uid()).gid(owner.gid());
    command.stdin(Stdio::piped()).stdout(File::open(&data).unwrap()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    running.stdin.take().unwrap().write_all(format!("{sql};\n\n").as_bytes()).await.unwrap();
    let said = running.wait_with_output().await.unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && !words.contains("ERROR"), "{words}");
}

/// What an older version left had no mark, or one that anybody could write. Nobody is made an administrator of what may
/// be anyone's role, but there is somebody who can put it away.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_a_mark_that_holds_can_be_renamed() {
    let (world, good) = with_nina().await;
    World::says(&world.psql(&good, NINA_AT, "CREATE TABLE hers AS SELECT 7 AS a").await);
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    superuser(&world, &format!(r#"COMMENT ON ROLE "nina@arcadia.example" IS '{}'"#, older_mark())).await;
    let failed = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
    assert_eq!(failed["error"]["code"], "AadAuthPrincipalRoleExists", "{failed}");
    let rename = r#"ALTER ROLE "nina@arcadia.example" RENAME TO nina"#;
    World::says(&world.psql(PASSWORD, LOGIN, rename).await);
    let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
    World::succeeded(&put);
    World::fails(&world.psql(&good, NINA_AT, "SELECT a FROM hers").await, "permission denied");
    let grant = r#"GRANT nina TO "nina@arcadia.example""#;
    World::says(&world.psql(PASSWORD, LOGIN, grant).await);
    assert_eq!(World::says(&world.psql(&good, NINA_AT, "SELECT a FROM hers").await), "7");

    // What somebody has is left to them.
    World::says(&world.psql(&good, NINA_AT, "CREATE ROLE shared").await);
    let failed = world.change(Method::PUT, &row(OWNER), administrator("shared")).await;
    assert_eq!(failed["error"]["code"], "AadAuthPrincipalRoleExists", "{failed}");
    assert_eq!(asked(&world, "SELECT pg_has_role('azure_pg_admin', 'shared', 'MEMBER')").await, "f");
    world.postgres.stop().await;
}

/// Such as every version but the newest left, and as anybody can write.
fn older_mark() -> String {
    format!("Made for the directory principal {NINA}.")
}

const MARK: &str =
    "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'nina@arcadia.example'";

/// Whoever may make roles waits with one for the administrator's, and would be in it when it becomes one.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_the_site_did_not_write_on_this_role_is_none() {
    let (world, _) = with_nina().await;
    let copied = asked(&world, MARK).await;
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    let (eve, second) = (LOGIN.replace("arcadmin", "eve"), LOGIN.replace("arcadmin", "second"));
    World::says(&world.psql(PASSWORD, LOGIN, "CREATE ROLE eve LOGIN CREATEROLE PASSWORD 'x'").await);
    // From PostgreSQL 16 on who made a role has it, and nobody has it when they are gone.
    for (maker, dropper, mark) in [
        (&eve, ("x", &*eve), older_mark()),
        (&second, (PASSWORD, LOGIN), older_mark()),
        (&second, (PASSWORD, LOGIN), copied),
    ] {
        World::says(&world.psql("x", &eve, "CREATE ROLE second LOGIN CREATEROLE PASSWORD 'x'").await);
        let make = format!(
            r#"CREATE ROLE "nina@arcadia.example"; COMMENT ON ROLE "nina@arcadia.example" IS '{mark}'"#
        );
        World::says(&world.psql("x", maker, &make).await);
        World::says(&world.psql("x", &eve, "DROP ROLE second").await);
        let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
        assert_eq!(put["error"]["code"], "AadAuthPrincipalRoleExists", "{mark} {put}");
        let is_one = "SELECT pg_has_role('nina@arcadia.example', 'azure_pg_admin', 'MEMBER')";
        assert_eq!(asked(&world, is_one).await, "f");
        World::says(&world.psql(dropper.0, dropper.1, r#"DROP ROLE "nina@arcadia.example""#).await);
    }
    let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
    World::succeeded(&put);
    world.postgres.stop().await;
}

/// The row of an administrator counts for more than what is written on its role: an older mark, or one that no longer
/// holds since the role has another number, as when the data was dumped and restored.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_keeps_a_role_whose_mark_does_not_hold() {
    let (world, good) = with_nina().await;
    let older = format!(r#"COMMENT ON ROLE "nina@arcadia.example" IS '{}'"#, older_mark());
    let renumber = |number: u32| {
        let old = "(SELECT oid FROM pg_authid WHERE rolname = 'nina@arcadia.example')";
        format!(
            "UPDATE pg_auth_members SET member = {number} WHERE member = {old}; \
             UPDATE pg_shdescription SET objoid = {number} WHERE objoid = {old}; \
             UPDATE pg_authid SET oid = {number} WHERE rolname = 'nina@arcadia.example'"
        )
    };
    for change in [older, renumber(60_001)] {
        superuser(&world, &change).await;
        assert_eq!(World::says(&world.psql(&good, NINA_AT, "SELECT 7").await), "7");
        let before = asked(&world, MARK).await;
        let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
        World::succeeded(&put);
        assert_eq!(World::says(&world.psql(&good, NINA_AT, "SELECT 7").await), "7");
        assert_ne!(asked(&world, MARK).await, before);
    }
    // What it leaves behind is its own again, under the number that it has by now.
    World::says(&world.psql(&good, NINA_AT, "CREATE TABLE hers AS SELECT 7 AS a").await);
    superuser(&world, &format!(r#"COMMENT ON ROLE "nina@arcadia.example" IS '{}'"#, older_mark())).await;
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    World::fails(&world.psql(&good, NINA_AT, "SELECT 1").await, "failed");
    let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
    World::succeeded(&put);
    assert_eq!(World::says(&world.psql(&good, NINA_AT, "SELECT a FROM hers").await), "7");
    World::says(&world.psql(&good, NINA_AT, "DROP TABLE hers").await);
    superuser(&world, &renumber(60_002)).await;
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    assert_eq!(asked(&world, MARK).await, "");
    assert_eq!(asked(&world, "SELECT count(*) FROM pg_roles WHERE oid IN (60001, 60002)").await, "0");
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_end_was_cut_off_is_dropped_and_made_again() {
    let world = world().await;
    let database = format!("{}/databases/app", flexible("pg-m"));
    let cut_off = "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'app'";
    World::succeeded(&world.change(Method::PUT, &database, Value::Null).await);
    superuser(&world, cut_off).await;
    let app = LOGIN.replace("dbname=postgres", "dbname=app");
    World::fails(&world.psql(PASSWORD, &app, "SELECT 7").await, "invalid database");
    World::succeeded(&world.change(Method::PUT, &database, Value::Null).await);
    assert_eq!(World::says(&world.psql(PASSWORD, &app, "SELECT 7").await), "7");

    superuser(&world, cut_off).await;
    World::succeeded(&world.change(Method::DELETE, &database, Value::Null).await);
    assert_eq!(asked(&world, "SELECT count(*) FROM pg_database WHERE datname = 'app'").await, "0");
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_passwords_needs_none() {
    let world = World::new().await;
    let server = flexible("pg-m");
    let mut body = flexible_body();
    let properties = body["properties"].as_object_mut().unwrap();
    properties.remove("administratorLoginPassword");
    let of = |properties: &serde_json::Map<String, Value>| json!({ "location": "uksouth", "properties": properties });
    world.arm(Method::PUT, &server, of(properties)).await.is(400);
    properties["authConfig"]["passwordAuth"] = "Disabled".into();
    // Az sends a name always; the protocol does not ask for one.
    properties.remove("administratorLogin");
    world.server(&flexible("pg-n"), of(properties)).await;
    let shown = world.arm(Method::GET, &flexible("pg-n"), Value::Null).await.is(200).body;
    assert!(shown["properties"].get("administratorLogin").is_none(), "{shown}");
    properties.insert("administratorLogin".into(), "arcadmin".into());
    world.server(&server, body).await;
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
    World::succeeded(&put);
    let good = token(NINA, AUDIENCE, NOW + 3600);
    assert_eq!(World::says(&world.psql(&good, NINA_AT, "SELECT 7").await), "7");
    let refused = world.psql(PASSWORD, LOGIN, "SELECT 1").await;
    World::fails(&refused, "password authentication is disabled");

    let enable = json!({ "properties": {
        "authConfig": { "passwordAuth": "Enabled" }, "administratorLoginPassword": PASSWORD,
    } });
    World::succeeded(&world.change(Method::PATCH, &server, enable).await);
    assert_eq!(asked(&world, "SELECT 7").await, "7");
    world.postgres.stop().await;
}

const BOSS: &str = "host=pg-m.postgres.database.azure.com dbname=postgres sslmode=verify-full user=boss";

fn enabling(login: &str) -> Value {
    json!({ "properties": {
        "createMode": "Update", "authConfig": { "passwordAuth": "Enabled" }, "administratorLogin": login,
        "administratorLoginPassword": PASSWORD,
    } })
}

/// A server without passwords and without a login, which takes nina's tokens.
async fn without_login() -> World {
    let (world, server) = (World::new().await, flexible("pg-m"));
    let auth = json!({ "activeDirectoryAuth": "Enabled", "passwordAuth": "Disabled" });
    world.server(&server, json!({ "location": "uksouth", "properties": { "authConfig": auth } })).await;
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
    World::succeeded(&put);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_given_once_and_when_passwords_are_taken() {
    let (world, server) = (without_login().await, flexible("pg-m"));
    let good = token(NINA, AUDIENCE, NOW + 3600);
    let made = "SELECT count(*) FROM pg_roles WHERE oid >= 16384 AND rolcanlogin";
    assert_eq!(World::says(&world.psql(&good, NINA_AT, made).await), "1");
    let of = |changed: Value| json!({ "properties": changed });
    let enabled = json!({ "passwordAuth": "Enabled" });
    for missing in [
        json!({ "authConfig": enabled }),
        json!({ "authConfig": enabled, "administratorLogin": "boss" }),
        json!({ "authConfig": enabled, "administratorLoginPassword": PASSWORD }),
        json!({ "administratorLoginPassword": PASSWORD }),
    ] {
        let refused = world.arm(Method::PATCH, &server, of(missing)).await.is(400);
        assert_eq!(refused.code(), "EngineCredentialsNotProvided");
    }
    world.arm(Method::PATCH, &server, enabling("nina@arcadia.example")).await.is(400);
    let entra = json!({ "properties": { "principalName": "team", "principalType": "Group" } });
    World::succeeded(&world.change(Method::PUT, &row(crate::world::TEAM), entra).await);
    let taken = world.arm(Method::PATCH, &server, enabling("team")).await.is(400);
    assert!(taken.body.to_string().contains("Microsoft Entra administrator"), "{}", taken.body);

    // Whoever made a role of the name would be in the administrator's.
    World::says(&world.psql(&good, NINA_AT, "CREATE ROLE boss; CREATE ROLE eve; GRANT boss TO eve").await);
    let failed = world.change(Method::PATCH, &server, enabling("boss")).await;
    assert_eq!(failed["error"]["code"], "AdministratorRoleExists", "{failed}");
    World::says(&world.psql(&good, NINA_AT, "DROP ROLE boss").await);
    let mut body = enabling("boss");
    body["location"] = "uksouth".into();
    World::succeeded(&world.change(Method::PUT, &server, body).await);
    let shown = world.arm(Method::GET, &server, Value::Null).await.is(200).body;
    assert_eq!(shown["properties"]["administratorLogin"], "boss");
    let is_one = "SELECT current_user, pg_has_role('azure_pg_admin', 'MEMBER')";
    assert_eq!(World::says(&world.psql(PASSWORD, BOSS, is_one).await), "boss|t");
    // With a password known, as Terraform sends it: off and on again.
    for auth in ["Disabled", "Enabled"] {
        let changed = of(json!({ "authConfig": { "passwordAuth": auth } }));
        World::succeeded(&world.change(Method::PATCH, &server, changed).await);
        let shown = world.arm(Method::GET, &server, Value::Null).await.is(200).body;
        assert_eq!(shown["properties"]["administratorLogin"], "boss");
    }
    assert_eq!(World::says(&world.psql(PASSWORD, BOSS, is_one).await), "boss|t");
    let other = world.arm(Method::PATCH, &server, enabling("other")).await.is(400);
    assert!(other.body.to_string().contains("cannot be changed"), "{}", other.body);
    world.postgres.stop().await;
}

/// Administrators are in the group with the admin option, and so may what makes the group one of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_in_an_administrator_is_taken_out() {
    let (world, good) = with_nina().await;
    // From PostgreSQL 16 on whoever makes a role is in it.
    let given = r#"CREATE ROLE eve LOGIN PASSWORD 'x'; CREATE ROLE between; GRANT between TO azure_pg_admin;
        REVOKE azure_pg_admin FROM arcadmin, "nina@arcadia.example" CASCADE;
        GRANT arcadmin TO eve WITH ADMIN OPTION; GRANT "nina@arcadia.example" TO azure_pg_admin"#;
    superuser(&world, given).await;
    let eve = LOGIN.replace("arcadmin", "eve");
    World::says(&world.psql("x", &eve, "GRANT arcadmin TO azure_pg_admin; GRANT arcadmin TO between").await);
    let renamed = "ALTER ROLE azure_pg_admin RENAME TO zzz; CREATE ROLE azure_pg_admin; \
                   GRANT arcadmin TO azure_pg_admin";
    for (change, password) in [(None, "Other-Antelope!"), (Some(renamed), "Third-Antelope!")] {
        if let Some(change) = change {
            stopped(&world, change).await;
            world.postgres.start().await;
        }
        let reset = json!({ "properties": { "administratorLoginPassword": password } });
        World::succeeded(&world.change(Method::PATCH, &flexible("pg-m"), reset).await);
        let put = world.change(Method::PUT, &row(NINA), administrator("nina@arcadia.example")).await;
        World::succeeded(&put);
        World::fails(&world.psql(PASSWORD, LOGIN, "SELECT 1").await, "failed");
        assert_eq!(World::says(&world.psql(&good, NINA_AT, "SELECT 7").await), "7");
        let circles = "SELECT pg_has_role('azure_pg_admin', 'arcadmin', 'MEMBER'), \
                       pg_has_role('azure_pg_admin', 'nina@arcadia.example', 'MEMBER'), \
                       pg_has_role('arcadmin', 'azure_pg_admin', 'MEMBER'), pg_has_role('eve', 'arcadmin', 'MEMBER')";
        assert_eq!(World::says(&world.psql(password, LOGIN, circles).await), "f|f|t|t");
    }
    world.postgres.stop().await;
}
