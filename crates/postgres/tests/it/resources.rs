//! Servers and databases as resources.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use arcadia_arm::{RESOURCES, Resource};
use arcadia_kernel::{ArmId, Method, Reason};
use arcadia_store::Batch;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::gateway::{lock_of, pid_of, signal};
use crate::world::{
    NINA, OWNER, PASSWORD, TEAM, TENANT, World, flexible, flexible_body, group, names, single, single_body,
};

const SUB: &str = "/subscriptions/00000000-0000-0000-0000-000000005001/providers/Microsoft.DBforPostgreSQL";

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_flexible_server() {
    let world = World::new().await;
    let server = flexible("pg-life");
    world.server(&server, flexible_body()).await;
    let view = world.arm(Method::GET, &server, Value::Null).await.is(200).body;
    let properties = &view["properties"];
    assert_eq!(properties["state"], "Ready", "{view}");
    assert_eq!(properties["fullyQualifiedDomainName"], "pg-life.postgres.database.azure.com");
    assert_eq!(properties["administratorLogin"], "arcadmin");
    assert_eq!(properties["replicationRole"], "Primary");
    let text = view.to_string();
    assert!(!text.contains(PASSWORD) && !text.contains("SCRAM") && !text.contains("ecret"), "{text}");

    let ask = |name: &str| json!({ "name": name, "type": "Microsoft.DBforPostgreSQL/flexibleServers" });
    for path in
        [format!("{SUB}/checkNameAvailability"), format!("{SUB}/locations/uksouth/checkNameAvailability")]
    {
        let taken = world.arm(Method::POST, &path, ask("pg-life")).await.is(200).body;
        assert_eq!((&taken["nameAvailable"], &taken["reason"]), (&json!(false), &json!("AlreadyExists")));
        let free = world.arm(Method::POST, &path, ask("pg-free")).await.is(200).body;
        assert_eq!(free["nameAvailable"], true);
    }
    // The other service has the same host names, and so the same names.
    let other = world.arm(Method::PUT, &single("pg-life"), single_body("Enabled")).await.is(409);
    assert_eq!(other.code(), "ServerNameAlreadyExists");

    let database = format!("{server}/databases/arc_hack");
    World::succeeded(&world.change(Method::PUT, &database, Value::Null).await);
    let shown = world.arm(Method::GET, &database, Value::Null).await.is(200).body;
    assert_eq!(shown["properties"], json!({ "charset": "UTF8", "collation": "en_US.utf8" }));
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let at = "host=pg-life.postgres.database.azure.com user=arcadmin dbname=arc_hack sslmode=verify-full";
    let sorted = "SELECT string_agg(a, ',' ORDER BY a) FROM (VALUES ('z'), ('é'), ('F')) AS t(a)";
    assert_eq!(World::says(&world.psql(PASSWORD, at, sorted).await), "é,F,z");

    let change = json!({ "properties": { "administratorLoginPassword": "Other-Antelope!" } });
    World::succeeded(&world.change(Method::PATCH, &server, change).await);
    World::fails(&world.psql(PASSWORD, at, "SELECT 1").await, "password authentication failed");
    assert_eq!(World::says(&world.psql("Other-Antelope!", at, "SELECT 1").await), "1");

    let settings =
        world.arm(Method::GET, &format!("{server}/configurations"), Value::Null).await.is(200).body;
    assert!(names(&settings).contains(&"fsync".to_owned()));
    let fsync =
        world.arm(Method::GET, &format!("{server}/configurations/fsync"), Value::Null).await.is(200).body;
    assert_eq!(fsync["properties"]["value"], "on");

    World::succeeded(&world.change(Method::DELETE, &database, Value::Null).await);
    World::fails(&world.psql("Other-Antelope!", at, "SELECT 1").await, "\"arc_hack\" does not exist");
    World::succeeded(&world.change(Method::DELETE, &server, Value::Null).await);
    world.arm(Method::GET, &server, Value::Null).await.is(404);
    world.arm(Method::DELETE, &server, Value::Null).await.is(204);
    World::fails(&world.psql("Other-Antelope!", at, "SELECT 1").await, "server \"pg-life\" does not exist");
    let left = std::fs::read_dir(world.folder.path().join("postgres")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| name.starts_with("template-")), "{left:?}");
    world.server(&server, flexible_body()).await;
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_server_as_az_postgres_up_makes_it() {
    let world = World::new().await;
    let server = single("postgres-926f133b");
    world.server(&server, single_body("Enabled")).await;
    let view = world.arm(Method::GET, &server, Value::Null).await.is(200).body;
    assert_eq!(
        view["sku"],
        json!({ "name": "GP_Gen5_2", "tier": "GeneralPurpose", "family": "Gen5", "capacity": 2 })
    );
    assert_eq!(view["properties"]["userVisibleState"], "Ready");
    assert_eq!(view["properties"]["version"], "10");
    assert_eq!(view["properties"]["storageProfile"]["storageMB"], 5120);
    World::succeeded(&world.change(Method::PUT, &format!("{server}/databases/arc_hack"), Value::Null).await);
    let list = world.arm(Method::GET, &format!("{server}/databases"), Value::Null).await.is(200).body;
    assert_eq!(list["value"][0]["properties"]["collation"], "English_United States.1252");
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let at = "--host=postgres-926f133b.postgres.database.azure.com --username=arcadmin@postgres-926f133b --dbname=arc_hack";
    let connection = at
        .split_whitespace()
        .map(|word| word.trim_start_matches("--").replace("username", "user"))
        .collect::<Vec<_>>()
        .join(" ");
    let roles = "CREATE USER app PASSWORD 'x'; GRANT ALL PRIVILEGES ON DATABASE arc_hack TO app; SELECT 7";
    assert!(World::says(&world.psql(PASSWORD, &connection, roles).await).ends_with('7'));
    // The group takes the server with it.
    let answer = world.arm(Method::DELETE, &group(), Value::Null).await.is(202);
    assert!(answer.headers.contains_key("location"));
    for _ in 0..200 {
        if world.arm(Method::GET, &group(), Value::Null).await.status == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.arm(Method::GET, &group(), Value::Null).await.is(404);
    // What every later server is made of is the site's alone: no server could change it.
    let left = std::fs::read_dir(world.folder.path().join("postgres")).unwrap();
    for entry in left.flatten() {
        assert!(entry.file_name().to_string_lossy().starts_with("template-"), "{entry:?}");
        let found = entry.metadata().unwrap();
        assert_eq!(
            (found.uid(), found.mode() & 0o077),
            (rustix::process::geteuid().as_raw(), 0),
            "{entry:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused() {
    let world = World::new().await;
    let put = async |change: &dyn Fn(&mut Value)| {
        let mut body = flexible_body();
        change(&mut body);
        world.arm(Method::PUT, &flexible("pg-refused"), body).await
    };
    let weak =
        put(&|body| body["properties"]["administratorLoginPassword"] = "password".into()).await.is(400);
    assert_eq!(weak.code(), "PasswordNotComplex");
    assert!(!weak.body.to_string().contains("\"password\""));
    for (name, value) in [
        ("administratorLogin", json!("azuresu")),
        ("administratorLogin", json!("a\"; DROP ROLE x")),
        ("administratorLogin", json!(7)),
        ("version", json!("9")),
        ("version", json!("")),
        ("createMode", json!("Replica")),
        ("highAvailability", json!({ "mode": "ZoneRedundant" })),
        ("network", json!({ "delegatedSubnetResourceId": "/subscriptions/s" })),
        ("storage", json!({ "storageSizeGB": 0 })),
        ("storage", json!({ "iops": "many" })),
        ("network", json!({ "privateDnsZoneArmResourceId": "/subscriptions/s" })),
        ("dataEncryption", json!({ "type": "AzureKeyVault" })),
        ("dataEncryption", json!({ "primaryKeyURI": "https://v.vault.azure.net/keys/k" })),
        ("dataEncryption", json!({ "geoBackupUserAssignedIdentityId": "/subscriptions/s" })),
        ("authConfig", json!({ "tenantId": NINA })),
        ("replicationRole", json!("AsyncReplica")),
        ("replica", json!({ "role": "Primary", "promoteMode": "Standalone" })),
        ("cluster", json!({ "clusterSize": 2 })),
        ("highAvailability", json!({ "standbyAvailabilityZone": "2" })),
        ("sourceServerResourceId", json!(flexible("pg-other"))),
        ("pointInTimeUTC", json!("2026-11-21T12:00:00Z")),
    ] {
        let refused = put(&|body| body["properties"][name] = value.clone()).await;
        assert_eq!(refused.status, 400, "{name} {value}: {}", refused.body);
    }
    for kind in ["SystemAssigned", "UserAssigned"] {
        put(&|body| body["identity"] = json!({ "type": kind })).await.is(400);
        let mut body = single_body("Enabled");
        body["identity"] = json!({ "type": kind });
        world.arm(Method::PUT, &single("pg-refused-too"), body).await.is(400);
    }
    let mut copy = single_body("Enabled");
    copy["properties"]["sourceServerId"] = json!(single("pg-other"));
    world.arm(Method::PUT, &single("pg-refused-too"), copy).await.is(400);
    assert_eq!(
        world.arm(Method::PUT, &flexible("Pg_Bad"), flexible_body()).await.is(400).code(),
        "InvalidResourceName"
    );
    let orphan = format!("{}/databases/x", flexible("pg-none"));
    world.arm(Method::PUT, &orphan, Value::Null).await.is(404);

    // What is there, or says that there is nothing, is taken; and so is what was shown.
    let server = flexible("pg-refused");
    let mut body = flexible_body();
    body["identity"] = json!({ "type": "None" });
    for (name, value) in [
        ("availabilityZone", json!("2")),
        ("storage", json!({ "storageSizeGB": 64, "iops": 3000, "throughput": 125 })),
        ("dataEncryption", json!({ "type": "SystemManaged", "primaryKeyURI": null })),
        (
            "authConfig",
            json!({ "activeDirectoryAuth": "Disabled", "passwordAuth": "Enabled", "tenantId": "" }),
        ),
        ("network", json!({ "delegatedSubnetResourceId": "", "privateDnsZoneArmResourceId": "" })),
        ("cluster", Value::Null),
        ("highAvailability", json!({ "mode": "Disabled" })),
        ("backup", json!({ "backupRetentionDays": 7, "geoRedundantBackup": "Disabled" })),
    ] {
        body["properties"][name] = value;
    }
    world.server(&server, body).await;
    let entra =
        json!({ "properties": { "authConfig": { "activeDirectoryAuth": "Enabled", "tenantId": TENANT } } });
    World::succeeded(&world.change(Method::PATCH, &server, entra).await);
    let shown = world.arm(Method::GET, &server, Value::Null).await.is(200).body;
    assert_eq!(shown["properties"]["availabilityZone"], "2");
    assert_eq!((&shown["properties"]["storage"]["iops"], &shown["identity"]), (&json!(3000), &Value::Null));
    world.server(&server, shown).await;
    let promoted = json!({ "properties": { "replica": { "role": "None", "promoteMode": "Standalone" } } });
    world.arm(Method::PATCH, &server, promoted).await.is(400);
    for name in ["postgres", "template1", "pg_x"] {
        world.arm(Method::PUT, &format!("{server}/databases/{name}"), Value::Null).await.is(400);
    }
    for properties in [json!({ "charset": "LATIN1" }), json!({ "collation": "x'; DROP DATABASE postgres" })] {
        let body = json!({ "properties": properties });
        world.arm(Method::PUT, &format!("{server}/databases/x"), body).await.is(400);
    }
    for (start, end) in [("10.0.0.2", "10.0.0.1"), ("x", "10.0.0.1"), ("::1", "::1")] {
        let body = json!({ "properties": { "startIpAddress": start, "endIpAddress": end } });
        world.arm(Method::PUT, &format!("{server}/firewallRules/r"), body).await.is(400);
    }
    let login = json!({ "properties": { "administratorLogin": "another" } });
    world.arm(Method::PATCH, &server, login).await.is(400);
    world.postgres.stop().await;
}

#[tokio::test]
async fn a_creation_that_fails_drops_no_database_that_was_there() {
    let world = World::new().await;
    let server = flexible("pg-kept");
    world.server(&server, flexible_body()).await;
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let at = |database: &str| {
        format!("host=pg-kept.postgres.database.azure.com user=arcadmin sslmode=require dbname={database}")
    };
    World::says(&world.psql(PASSWORD, &at("postgres"), "CREATE DATABASE app").await);
    World::says(&world.psql(PASSWORD, &at("app"), "CREATE TABLE kept AS SELECT 7 AS a").await);
    let database = format!("{server}/databases/app");
    world.postgres.stop().await;
    world.arm(Method::PUT, &database, Value::Null).await.is(202);
    for _ in 0..200 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(11 * 60)).await;
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(50)).await;
        if world.arm(Method::GET, &database, Value::Null).await.status != 200 {
            break;
        }
    }
    // It has no row any more; whether it is there all the same, a server that does not run cannot be asked.
    world.arm(Method::GET, &database, Value::Null).await.is(503);
    world.arm(Method::DELETE, &database, Value::Null).await.is(503);
    world.postgres.start().await;
    assert_eq!(World::says(&world.psql(PASSWORD, &at("app"), "SELECT a FROM kept").await), "7");

    // One that is there is taken as it is; and who asks for its end means it.
    World::succeeded(&world.change(Method::PUT, &database, Value::Null).await);
    assert_eq!(World::says(&world.psql(PASSWORD, &at("app"), "SELECT a FROM kept").await), "7");
    World::succeeded(&world.change(Method::DELETE, &database, Value::Null).await);
    World::fails(&world.psql(PASSWORD, &at("app"), "SELECT 1").await, "does not exist");
    world.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_made_in_sql_are_listed_read_and_dropped_like_others() {
    let world = World::new().await;
    for (server, body) in [(flexible("pg-sql"), flexible_body()), (single("pg-old"), single_body("Enabled"))]
    {
        world.server(&server, body).await;
        world.admit(&server, "127.0.0.1", "127.0.0.1").await;
        let name = server.rsplit('/').next().unwrap();
        let at = format!(
            "host={name}.postgres.database.azure.com user=arcadmin@{name} sslmode=require dbname=postgres"
        );
        World::succeeded(&world.change(Method::PUT, &format!("{server}/databases/made"), Value::Null).await);
        for sql in ["CREATE DATABASE app", "CREATE DATABASE \"App\"", "CREATE DATABASE \"no name\""] {
            World::says(&world.psql(PASSWORD, &at, sql).await);
        }
        let listed = async || {
            names(&world.arm(Method::GET, &format!("{server}/databases"), Value::Null).await.is(200).body)
        };
        assert_eq!(listed().await, ["App", "app", "made"]);
        let app = format!("{server}/databases/app");
        let answer = world.arm(Method::GET, &app, Value::Null).await.is(200);
        let (etag, shown) = (answer.headers["etag"].to_str().unwrap(), &answer.body);
        assert_eq!((&shown["name"], &shown["properties"]["charset"]), (&json!("app"), &json!("UTF8")));
        assert_eq!(shown.get("systemData"), None, "nobody is known to have made it");
        world.arm(Method::HEAD, &app, Value::Null).await.is(204);

        // By whoever may, and means this one.
        for (caller, header, status) in [
            (NINA, None, 403),
            (OWNER, Some(("if-match", "\"another\"")), 412),
            (OWNER, Some(("if-none-match", etag)), 412),
        ] {
            world.arm_as(caller, Method::DELETE, &app, header, Value::Null).await.is(status);
        }
        assert_eq!(listed().await, ["App", "app", "made"]);
        // By its own spelling only, and nobody else's database goes with it.
        world.arm(Method::DELETE, &format!("{server}/databases/APP"), Value::Null).await.is(204);
        world.arm(Method::DELETE, &format!("{server}/databases/postgres"), Value::Null).await.is(204);
        assert_eq!(listed().await, ["App", "app", "made"]);
        World::succeeded(&world.change(Method::DELETE, &app, Value::Null).await);
        assert_eq!(listed().await, ["App", "made"]);
        world.arm(Method::GET, &app, Value::Null).await.is(404);
        let left =
            "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database WHERE datname ILIKE 'app'";
        assert_eq!(World::says(&world.psql(PASSWORD, &at, left).await), "App");
        delete_slowly(&world, &server, async || {
            let database = format!("{server}/databases/App");
            let busy = world.arm(Method::DELETE, &database, Value::Null).await.is(409);
            assert_eq!(busy.code(), "AnotherOperationInProgress");
        })
        .await;
        world.arm(Method::GET, &app, Value::Null).await.is(404);
    }
    world.postgres.stop().await;
}

/// Deletes the only server, and does something before that comes to its end.
async fn delete_slowly(world: &World, server: &str, meanwhile: impl AsyncFnOnce()) {
    let postmaster = pid_of(&lock_of(world));
    signal(postmaster, Signal::STOP);
    let meanwhile = async {
        let view = async || world.arm(Method::GET, server, Value::Null).await.is(200).body.to_string();
        while view().await.contains("\"Ready\"") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        meanwhile().await;
        signal(postmaster, Signal::CONT);
    };
    let (deleted, ()) = tokio::join!(world.change(Method::DELETE, server, Value::Null), meanwhile);
    World::succeeded(&deleted);
}

/// Writes a server's row as it is not written here.
async fn write(world: &World, row: &Resource, properties: Value) {
    let mut batch = Batch::new();
    batch.put(RESOURCES, &row.id, &Resource { properties, ..row.clone() }).unwrap();
    world.store.commit(world.gate.as_system(Reason::Sweep).stamp(), batch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unreadable_or_missing_costs_no_data() {
    let world = World::new().await;
    let server = flexible("pg-data");
    world.server(&server, flexible_body()).await;
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let at = "host=pg-data.postgres.database.azure.com user=arcadmin sslmode=require dbname=postgres";
    World::says(&world.psql(PASSWORD, at, "CREATE TABLE kept AS SELECT 7 AS a").await);
    let database = format!("{server}/databases/app");
    World::succeeded(&world.change(Method::PUT, &database, Value::Null).await);
    let administrator = format!("{server}/administrators/{NINA}");
    let nina =
        json!({ "properties": { "principalName": "nina", "principalType": "User", "tenantId": TENANT } });
    World::succeeded(&world.change(Method::PUT, &administrator, nina).await);
    let row = world.store.get(RESOURCES, &ArmId::parse(&server).unwrap()).await.unwrap().unwrap().value;
    let data = world.folder.path().join("postgres").join(row.properties["instance"].as_str().unwrap());
    world.postgres.stop().await;
    write(&world, &row, json!({ "instance": 7 })).await;
    world.postgres.start().await;
    assert!(data.is_dir(), "the data of a server whose row cannot be read was removed");
    write(&world, &row, row.properties.clone()).await;

    // As when the volume that it is on was not mounted.
    let elsewhere = world.folder.path().join("elsewhere");
    std::fs::rename(&data, &elsewhere).unwrap();
    world.postgres.start().await;
    let failed = world.change(Method::PATCH, &server, json!({ "tags": { "a": "b" } })).await;
    assert_eq!(failed["error"]["code"], "ServerDataMissing", "{failed}");
    // What is taken away would be there again with the data.
    for nested in [&database, &administrator] {
        let failed = world.change(Method::DELETE, nested, Value::Null).await;
        assert_eq!(failed["error"]["code"], "ServerDataMissing", "{failed}");
        world.arm(Method::GET, nested, Value::Null).await.is(200);
    }
    for nested in [format!("{server}/databases/new"), format!("{server}/administrators/{TEAM}")] {
        let team = json!({ "principalName": "team", "principalType": "Group", "tenantId": TENANT });
        let body = if nested.contains("/databases/") { Value::Null } else { json!({ "properties": team }) };
        let failed = world.change(Method::PUT, &nested, body).await;
        assert_eq!(failed["error"]["code"], "ServerDataMissing", "{failed}");
        let unknown = if nested.contains("/databases/") { 409 } else { 404 };
        world.arm(Method::GET, &nested, Value::Null).await.is(unknown);
    }
    assert!(!data.exists(), "an empty server was made in its place");
    std::fs::rename(&elsewhere, &data).unwrap();
    world.postgres.start().await;
    World::succeeded(&world.change(Method::PATCH, &server, json!({ "tags": { "a": "b" } })).await);
    for _ in 0..200 {
        let output = world.psql(PASSWORD, at, "SELECT a FROM kept").await;
        if output.status.success() {
            assert_eq!(World::says(&output), "7");
            return world.postgres.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server does not come back");
}
