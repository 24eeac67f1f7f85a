//! The resource: made with its identity, never taken over, gone with its identity.

use arcadia_crypto::{b64, peek};
use arcadia_kernel::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, body, key, machine};

const VM: Uuid = Uuid::from_u128(0xA1);

#[tokio::test]
async fn connecting_makes_the_resource_and_its_identity_in_one_go() {
    let world = World::new().await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    assert_eq!(made.body["properties"]["status"], "AwaitingConnection");
    assert_eq!(made.body["properties"]["vmId"], VM.to_string());
    assert_eq!(made.body["properties"]["detectedProperties"]["coreCount"], "2");
    assert!(made.body["properties"].get("clientId").is_none(), "{}", made.body);
    let principal: Uuid = made.body["identity"]["principalId"].as_str().unwrap().parse().unwrap();
    assert!(world.directory.principal(principal).is_some());

    let client_id = made.headers["x-ms-arcadia-identity-client-id"].to_str().unwrap().to_owned();
    let answer = world.assertion(&key(0), &client_id, "https://vault.azure.net").await.is(200);
    let (_, claims) = peek(answer.body["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(claims["aud"], "https://vault.azure.net");
    assert_eq!(claims["oid"], principal.to_string());
    let resource = machine("ubuntu-01").replace("resourceGroups", "resourcegroups");
    assert_eq!(claims["xms_mirid"], resource);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 86_400);
    // Another machine's key proves nothing about this one.
    world.assertion(&key(1), &client_id, "https://vault.azure.net").await.is(401);
}

#[tokio::test]
async fn an_identity_cannot_be_taken_over_by_writing_its_machine() {
    let world = World::new().await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    for (vm_id, other) in [(VM, key(1)), (Uuid::from_u128(0xB2), key(0))] {
        let refused = world.connect("UBUNTU-01", vm_id, &other).await.is(409);
        assert_eq!(refused.code(), "HCRP409");
    }
    let owner = world.owner().await;
    let change = json!({ "properties": { "clientPublicKey": b64(&key(1).public().to_pkcs1_der()) } });
    world.arm(&owner, Method::PATCH, &machine("ubuntu-01"), change).await.is(409);
    let forged = json!({ "location": "uksouth", "identity": {
        "type": "SystemAssigned", "principalId": world.founded.service_principal_object_id } });
    let again = world.arm(&owner, Method::PUT, &machine("ubuntu-01"), forged).await.is(200);
    assert_eq!(again.body["identity"], made.body["identity"]);
    // The same machine again is welcome, with its tags as it says them now.
    let mut same = body(VM, &key(0));
    same["tags"] = json!({ "new": "tag" });
    let again = world.arm(&owner, Method::PUT, &machine("ubuntu-01"), same).await.is(200);
    assert_eq!(again.body["tags"], json!({ "new": "tag" }));
    assert_eq!(again.body["identity"], made.body["identity"]);
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_removes_what_is_null() {
    let world = World::new().await;
    world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let owner = world.owner().await;
    let patch = |properties: Value| {
        let change = json!({ "properties": properties });
        let (world, owner) = (&world, &owner);
        async move { world.arm(owner, Method::PATCH, &machine("ubuntu-01"), change).await.is(200) }
    };
    let place = json!({ "name": "cellar", "city": "Leeds" });
    patch(json!({ "locationData": place, "osVersion": "12" })).await;
    let changed = patch(json!({ "locationData": { "city": null }, "osVersion": null })).await;
    let shown = world.arm(&owner, Method::GET, &machine("ubuntu-01"), Value::Null).await.is(200);
    assert_eq!(shown.body["properties"], changed.body["properties"]);
    assert_eq!(shown.body["properties"]["locationData"], json!({ "name": "cellar" }));
    assert!(shown.body["properties"].get("osVersion").is_none(), "{}", shown.body);
    assert_eq!(shown.body["properties"]["osType"], "linux");
    assert_eq!(shown.body["properties"]["vmId"], VM.to_string());
    let gone = patch(json!({ "locationData": null, "vmId": null })).await;
    assert!(gone.body["properties"].get("locationData").is_none(), "{}", gone.body);
    assert_eq!(gone.body["properties"]["vmId"], VM.to_string());
}

#[tokio::test]
async fn what_an_agent_says_does_not_grow_without_end() {
    let world = World::new().await;
    world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let owner = world.owner().await;
    let patch = async |field: &str| {
        let change = json!({ "properties": { "cloudMetadata": { field: "x".repeat(40_000) } } });
        world.arm(&owner, Method::PATCH, &machine("ubuntu-01"), change).await
    };
    patch("a").await.is(200);
    let refused = patch("b").await.is(400);
    assert_eq!(refused.body["error"]["code"], "InvalidParameter", "{}", refused.body);
    patch("a").await.is(200);
}

#[tokio::test]
async fn the_longest_key_that_is_promised_is_taken() {
    let world = World::new().await;
    let mut der = vec![0x30, 0x82, 0x04, 0x0A, 0x02, 0x82, 0x04, 0x01, 0x00];
    der.extend([0xC3; 1024]);
    der.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
    let mut long = body(VM, &key(0));
    long["properties"]["clientPublicKey"] = json!(b64(&der));
    let owner = world.owner().await;
    world.arm(&owner, Method::PUT, &machine("ubuntu-01"), long).await.is(200);
}

#[tokio::test]
async fn a_machine_that_is_made_again_is_somebody_else() {
    let world = World::new().await;
    let first = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let token = world.machine_token(&first, &key(0)).await;
    let owner = world.owner().await;
    let gone = world.arm(&owner, Method::DELETE, &machine("ubuntu-01"), Value::Null).await;
    assert!(matches!(gone.status, 200 | 204), "{}", gone.body);
    let client_id = first.headers["x-ms-arcadia-identity-client-id"].to_str().unwrap().to_owned();
    let refused = world.assertion(&key(0), &client_id, "https://vault.azure.net").await;
    assert!(matches!(refused.status, 400 | 401), "{}", refused.body);

    let second = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    assert_ne!(first.body["identity"]["principalId"], second.body["identity"]["principalId"]);
    // The old token still verifies, and speaks for nobody.
    let beat = json!({ "vmId": VM }).to_string();
    world.heartbeat(Some(&token), &beat).await.is(403);
}

#[tokio::test]
async fn what_is_not_a_machine_is_refused() {
    let world = World::new().await;
    let owner = world.owner().await;
    let good = body(VM, &key(0));
    let changed = |path: &[&str], value: Value| {
        let mut bad = good.clone();
        let mut at = &mut bad;
        for part in path {
            at = &mut at[*part];
        }
        *at = value;
        bad
    };
    let short_key = {
        // A 1024-bit modulus in PKCS#1.
        let mut der = vec![0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00];
        der.extend([0xC3; 128]);
        der.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
        b64(&der)
    };
    for bad in [
        changed(&["properties", "vmId"], json!("not-a-uuid")),
        changed(&["properties", "vmId"], Value::Null),
        changed(&["properties", "clientPublicKey"], Value::Null),
        changed(&["properties", "clientPublicKey"], json!("AAAA")),
        changed(&["properties", "clientPublicKey"], json!(short_key)),
        changed(&["properties", "clientPublicKey"], json!("A".repeat(5000))),
        changed(&["properties", "osName"], json!("x".repeat(2000))),
        changed(&["properties", "osName"], json!({ "an": "object" })),
        changed(&["properties", "detectedProperties"], json!("text")),
        changed(&["identity"], Value::Null),
        changed(&["identity", "type"], json!("UserAssigned")),
        changed(&["properties"], json!("text")),
    ] {
        let answer = world.arm(&owner, Method::PUT, &machine("bad"), bad.clone()).await;
        assert_eq!(answer.status, 400, "{bad} {}", answer.body);
    }
    for name in ["a b", "x".repeat(55).as_str(), "a%2Fb"] {
        let answer = world.arm(&owner, Method::PUT, &machine(&name.replace(' ', "%20")), good.clone()).await;
        assert_eq!(answer.status, 400, "{name} {}", answer.body);
    }
    world.arm(&owner, Method::GET, &machine("bad"), Value::Null).await.is(404);
}
