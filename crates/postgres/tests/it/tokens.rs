//! Logins by directory token.

use arcadia_kernel::{AuditEvent, Method};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

use crate::raw::{encrypted, message, packet};
use crate::world::{
    AUDIENCE, GONE, NINA, NOW, OWNER, PASSWORD, TEAM, TENANT, World, flexible, flexible_body, token,
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
    let log = world.store.audit_page(0, 1000).await.unwrap();
    let logins: Vec<_> =
        log.iter().map(|(_, event)| event).filter(|event| event.operation == "Login").collect();
    let by = |role: Uuid, caller: Uuid, name: &str| {
        let is_it = |event: &&&AuditEvent| {
            event.scope.to_string() == row(role)
                && event.caller_object_id == caller
                && event.caller_name == name
        };
        logins.iter().filter(is_it).count()
    };
    // Who it was, and not whose role it is; and of who proved nothing nothing.
    assert_eq!((by(TEAM, NINA, "nina@arcadia.example"), by(NINA, NINA, "nina@arcadia.example")), (1, 3));
    assert_eq!((by(NINA, Uuid::nil(), "anonymous"), by(GONE, Uuid::nil(), "anonymous")), (4, 2));
    assert_eq!(logins.iter().filter(|event| event.scope.to_string() == server).count(), 1);
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
    // And it keeps nobody out that has a token; but what ends a role does. From PostgreSQL 16 on no administrator may end one.
    assert_eq!(World::says(&world.psql(&good, &nina, "SELECT 7").await), "7");
    let version = World::says(&world.psql(&good, &nina, "SHOW server_version_num").await);
    if version.parse::<u32>().unwrap() < 160_000 {
        let ended = "ALTER ROLE CURRENT_USER VALID UNTIL '2020-01-01'";
        World::says(&world.psql(&good, &nina, ended).await);
        let refused = world.psql(&good, &nina, "SELECT 1").await;
        World::fails(&refused, "create the administrator again");
    }
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

/// Goes as far as being asked for a token, by a client that knows more of the protocol than any server does.
async fn asked_for_a_token(world: &World) -> TlsStream<TcpStream> {
    let option = "_pq_.test_protocol_negotiation";
    let parameters = format!("user\0nina@arcadia.example\0database\0postgres\0{option}\0\0\0");
    let mut stream = encrypted(world, "pg-v").await;
    let startup = packet(&[&0x0003_270f_u32.to_be_bytes(), parameters.as_bytes()].concat());
    stream.write_all(&startup).await.unwrap();
    let (kind, body) = message(&mut stream).await;
    let known = [3 << 16, 3 << 16 | 2].map(|version: u32| {
        [&version.to_be_bytes()[..], &1_u32.to_be_bytes(), option.as_bytes(), &[0]].concat()
    });
    assert!(kind == 'v' && known.contains(&body), "{kind} {body:?}");
    assert_eq!(message(&mut stream).await, ('R', vec![0, 0, 0, 3]));
    stream
}

/// Gives the token, and reads up to the server's readiness or refusal.
async fn answered(stream: &mut TlsStream<TcpStream>, token: &str) -> (char, String) {
    let answer = [b"p", &*packet(format!("{token}\0").as_bytes())].concat();
    stream.write_all(&answer).await.unwrap();
    loop {
        let (kind, body) = message(stream).await;
        if matches!(kind, 'Z' | 'E') {
            return (kind, String::from_utf8_lossy(&body).into_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_hears_the_version_before_it_gives_its_token() {
    let world = World::new().await;
    let server = flexible("pg-v");
    world.server(&server, flexible_body()).await;
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let row = |id: Uuid| format!("{server}/administrators/{id}");
    let named = || administrator("nina@arcadia.example", "User");
    World::succeeded(&world.change(Method::PUT, &row(NINA), named()).await);
    let good = token(NINA, AUDIENCE, NOW + 3600);
    let mut stream = asked_for_a_token(&world).await;
    assert_eq!(answered(&mut stream, &good).await, ('Z', "I".to_owned()));
    let mut stream = asked_for_a_token(&world).await;
    let (kind, words) = answered(&mut stream, &token(GONE, AUDIENCE, NOW + 3600)).await;
    assert!(kind == 'E' && words.contains("another principal"), "{words}");
    // The role may become another's while its token is waited for.
    let mut waiting = asked_for_a_token(&world).await;
    World::succeeded(&world.change(Method::DELETE, &row(NINA), Value::Null).await);
    World::succeeded(&world.change(Method::PUT, &row(OWNER), named()).await);
    let (kind, words) = answered(&mut waiting, &good).await;
    assert!(kind == 'E' && words.contains("password authentication failed"), "{words}");
    world.postgres.stop().await;
}
