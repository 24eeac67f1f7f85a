//! Network rules of a vault.

use std::net::IpAddr;
use std::sync::Arc;

use arcadia_kernel::{Method, Outcome, full_body};
use http_body_util::BodyExt as _;
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
    assert_eq!(
        shown["properties"]["networkAcls"]["ipRules"],
        json!([{ "value": "203.0.113.0/24" }, { "value": "2001:db8::1/128" }])
    );
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

/// The way to a vault ends for a request whose body is still on it.
#[tokio::test]
async fn a_body_that_comes_late_is_looked_at_again() {
    let world = Arc::new(World::with_vault("kv1").await);
    let officer = world.officer().await;
    let ask = world.asking(Some(&officer), Method::PUT, "kv1", "/secrets/s", json!({ "value": "late" }));
    let (other, mut shut) = (world.clone(), false);
    let body = full_body(ask.body.clone()).map_frame(move |frame| {
        if !std::mem::replace(&mut shut, true) {
            let world = other.clone();
            let shutting = async move {
                let mut properties = vault_properties();
                properties["publicNetworkAccess"] = json!("Disabled");
                world.put_vault("kv1", properties).await.ok();
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            std::thread::spawn(move || runtime.block_on(shutting)).join().unwrap();
        }
        frame
    });
    let late = world.ask_with_body(ask, body.boxed_unsync()).await;
    assert_eq!(late.refusal(), "403 Forbidden/ForbiddenByConnection");
    let (_, last) = world.store.audit_page(0, 1000).await.unwrap().pop().unwrap();
    assert!(matches!(&last.outcome, Outcome::Denied { reason } if reason.contains("network")), "{last:?}");
    world.put_vault("kv1", vault_properties()).await.ok();
    assert_eq!(world.value(&officer, "kv1", "s").await, "403 Forbidden/ForbiddenByConnection");
    let mut open = vault_properties();
    open["publicNetworkAccess"] = json!("Enabled");
    world.put_vault("kv1", open).await.ok();
    assert_eq!(world.value(&officer, "kv1", "s").await, "404 SecretNotFound");
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

/// Clients read them strictly: `az keyvault network-rule` ends at a block whose address is not its first.
#[tokio::test]
async fn rules_are_shown_as_the_service_writes_them() {
    let world = World::new().await;
    let mut properties = vault_properties();
    let given = ["203.0.113.7", "198.51.100.77/24", "::ffff:192.0.2.1", "10.1.2.3/0"];
    let given = given.map(|value| json!({ "value": value }));
    let network =
        "/subscriptions/S/resourceGroups/G/providers/Microsoft.Network/virtualNetworks/N/subnets/Default";
    properties["networkAcls"] = json!({ "ipRules": given, "virtualNetworkRules": [{ "id": network }] });
    let shown = world.put_vault("kv1", properties).await.ok();
    let shown = &shown["properties"]["networkAcls"];
    let blocks = ["203.0.113.7/32", "198.51.100.0/24", "192.0.2.1/32", "0.0.0.0/0"];
    assert_eq!(shown["ipRules"], json!(blocks.map(|value| json!({ "value": value }))));
    assert_eq!(shown["virtualNetworkRules"][0]["id"], network.to_lowercase());
}

#[tokio::test]
async fn rules_that_cannot_be_read_are_refused() {
    let world = World::new().await;
    for rules in [
        json!({ "ipRules": [{ "value": "everyone" }] }),
        json!({ "ipRules": [{ "value": "10.0.0.0/33" }] }),
        json!({ "ipRules": [{ "value": "10.0.0.0/0024" }] }),
        json!({ "ipRules": [{ "value": " 10.0.0.1 " }] }),
        json!({ "defaultAction": "Maybe" }),
        json!({ "bypass": "All" }),
        json!("Deny"),
    ] {
        let mut properties = vault_properties();
        properties["networkAcls"] = rules.clone();
        assert_eq!(world.put_vault("kv1", properties).await.refusal(), "400 BadRequest", "{rules}");
    }
}
