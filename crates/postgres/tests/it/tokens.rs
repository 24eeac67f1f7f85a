//! Logins by directory token.

use arcadia_kernel::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{
    AUDIENCE, GONE, NINA, NOW, PASSWORD, TEAM, TENANT, World, flexible, flexible_body, token,
};

fn administrator(name: &str, kind: &str) -> Value {
    json!({ "properties": { "principalName": name, "principalType": kind, "tenantId": TENANT } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_its_own_role_and_no_other() {
    let world = World::new().await;
    let server = flexible("pg-t");
    world.server(&server, flexible_body()).await;
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let row = |id: Uuid| format!("{server}/administrators/{id}");
    for (id, name, kind) in [
        (NINA, "nina@arcadia.example", "User"),
        (TEAM, "Database Team", "Group"),
        (GONE, "gone@arcadia.example", "User"),
    ] {
        World::succeeded(&world.change(Method::PUT, &row(id), administrator(name, kind)).await);
    }
    let at = |user: &str| {
        format!("host=pg-t.postgres.database.azure.com dbname=postgres sslmode=verify-full user='{user}'")
    };
    let good = token(NINA, AUDIENCE, NOW + 3600);
    for user in ["nina@arcadia.example", "nina@arcadia.example@pg-t", "Database Team"] {
        let output = world.psql(&good, &at(user), "SELECT current_user").await;
        assert_eq!(World::says(&output), user.trim_end_matches("@pg-t"));
    }
    let slashed = token(NINA, &format!("{AUDIENCE}/"), NOW + 3600);
    assert!(world.psql(&slashed, &at("nina@arcadia.example"), "SELECT 1").await.status.success());
    for (user, credential, words) in [
        ("nina@arcadia.example", token(NINA, AUDIENCE, NOW - 1), "has expired"),
        ("nina@arcadia.example", token(NINA, "https://vault.azure.net", NOW + 3600), "another audience"),
        ("nina@arcadia.example", token(Uuid::from_u128(9), AUDIENCE, NOW + 3600), "another principal"),
        ("nina@arcadia.example", PASSWORD.to_owned(), "not well formed"),
        ("gone@arcadia.example", token(GONE, AUDIENCE, NOW + 3600), "no longer exists"),
        ("gone@arcadia.example", good.clone(), "another principal"),
        ("arcadmin", good.clone(), "password authentication failed"),
    ] {
        World::fails(&world.psql(&credential, &at(user), "SELECT 1").await, words);
    }
    // A password that a principal's role gave itself opens nothing, also where no token is asked for any more.
    let own = "ALTER ROLE CURRENT_USER PASSWORD 'Own-Antelope!'";
    let nina = at("nina@arcadia.example");
    assert!(world.psql(&good, &nina, own).await.status.success());
    let entra = |state: &str| json!({ "properties": { "authConfig": { "activeDirectoryAuth": state } } });
    World::succeeded(&world.change(Method::PATCH, &server, entra("Disabled")).await);
    for user in [&nina, &at("nina@arcadia.example@pg-t")] {
        let refused = world.psql("Own-Antelope!", user, "SELECT 1").await;
        World::fails(&refused, "Microsoft Entra authentication is disabled");
    }
    World::succeeded(&world.change(Method::PATCH, &server, entra("Enabled")).await);
    let others = row(Uuid::from_u128(9));
    world.arm(Method::PUT, &others, administrator("x", "User")).await.is(400);
    world.arm(Method::PUT, &row(NINA), administrator("arcadmin", "User")).await.is(400);
    world.arm(Method::PUT, &row(TEAM), administrator("azuresu", "Group")).await.is(400);
    let shown = world.arm(Method::GET, &row(NINA), Value::Null).await.is(200).body;
    assert_eq!(shown["properties"]["objectId"], json!(NINA));
    assert!(!shown.to_string().contains("ecret"), "{shown}");
    let again = administrator("nina@arcadia.example", "User");
    World::succeeded(&world.change(Method::PUT, &row(NINA), again).await);
    assert_eq!(World::says(&world.psql(&good, &nina, "SELECT 7").await), "7");
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    World::fails(&world.psql(&good, &nina, "SELECT 1").await, "failed");
    world.postgres.stop().await;
}
