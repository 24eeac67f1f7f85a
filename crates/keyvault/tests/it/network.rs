//! Network rules of a vault.

use std::net::IpAddr;

use arcadia_kernel::{Method, Outcome};
use serde_json::{Value, json};

use crate::support::*;

async fn from(world: &World, caller: &Caller, address: Option<&str>) -> String {
    let mut ask = world.asking(Some(caller), Method::GET, "kv1", "/secrets/s", Value::Null);
    ask.remote = address.map(|address| address.parse::<IpAddr>().unwrap());
    let answer = world.ask(ask).await;
    if answer.status == 200 { "200".to_owned() } else { answer.refusal() }
}

#[tokio::test]
async fn a_vault_that_denies_by_default_admits_the_addresses_it_names() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    let mut properties = vault_properties();
    properties["networkAcls"] = json!({ "defaultAction": "deny", "bypass": "None", "ipRules": [{ "value": "203.0.113.0/24" }, { "value": "2001:db8::1" }] });
    let shown = world.put_vault("kv1", properties).await.ok();
    assert_eq!(shown["properties"]["networkAcls"]["defaultAction"], "Deny");
    assert_eq!(from(&world, &officer, Some("203.0.113.200")).await, "200");
    assert_eq!(from(&world, &officer, Some("::ffff:203.0.113.1")).await, "200");
    assert_eq!(from(&world, &officer, Some("2001:db8::1")).await, "200");
    for other in [Some("203.0.114.1"), Some("2001:db8::2"), Some("127.0.0.1"), None] {
        assert_eq!(from(&world, &officer, other).await, "403 Forbidden/ForbiddenByFirewall", "{other:?}");
    }
    // Each of them was told, and is on record, under the vault.
    let log = world.store.audit_page(0, 1000).await.unwrap();
    let refused = log.iter().filter(
        |(_, event)| matches!(&event.outcome, Outcome::Denied { reason } if reason.contains("network")),
    );
    let scopes: Vec<_> = refused.map(|(_, event)| event.scope.as_str().to_owned()).collect();
    assert_eq!(scopes, vec![format!("{}/secrets/s", world.vault("kv1")); 4]);
    // So is who asks for a vault that does not exist.
    assert_eq!(world.data(&officer, Method::GET, "kv-none", "/secrets/s").await.status, 404);
    let log = world.store.audit_page(0, 1000).await.unwrap();
    let (_, last) = log.last().unwrap();
    assert_eq!(
        (&last.caller_object_id, &last.outcome),
        (&officer.object_id, &Outcome::Answered { status: 404 })
    );
    // A token is asked for first: an address alone learns nothing.
    let ask = world.asking(None, Method::GET, "kv1", "/secrets/s", Value::Null);
    assert_eq!(world.ask(ask).await.status, 401);
}

#[tokio::test]
async fn a_vault_without_public_access_admits_nobody() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let mut properties = vault_properties();
    properties["publicNetworkAccess"] = json!("Disabled");
    world.put_vault("kv1", properties).await.ok();
    assert_eq!(from(&world, &officer, Some("203.0.113.1")).await, "403 Forbidden/ForbiddenByConnection");
}

#[tokio::test]
async fn rules_that_cannot_be_read_are_refused() {
    let world = World::new().await;
    for rules in [
        json!({ "ipRules": [{ "value": "everyone" }] }),
        json!({ "ipRules": [{ "value": "10.0.0.0/33" }] }),
        json!({ "defaultAction": "Maybe" }),
        json!({ "bypass": "All" }),
        json!("Deny"),
    ] {
        let mut properties = vault_properties();
        properties["networkAcls"] = rules.clone();
        assert_eq!(world.put_vault("kv1", properties).await.refusal(), "400 BadRequest", "{rules}");
    }
}
