//! The life of a secret after its deletion.

use arcadia_kernel::Method;
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn deleted_recovered_deleted_purged() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let first = world.set(&officer, "kv1", "Secret", "one").await;
    let second = world.set(&officer, "kv1", "secret", "two").await;
    let go = async |method: Method, path: &str| world.data(&officer, method, "kv1", path).await;
    let expected = json!({
        "recoveryId": "https://kv1.vault.azure.net/deletedsecrets/Secret",
        "deletedDate": START,
        "scheduledPurgeDate": START + 7 * DAY,
        "id": second["id"],
        "attributes": second["attributes"],
    });
    assert_eq!(go(Method::DELETE, "/secrets/SECRET").await.ok(), expected);
    assert_eq!(go(Method::GET, "/deletedsecrets/secret").await.ok(), expected);

    // While deleted, only show, recover and purge.
    for (method, path) in [
        (Method::GET, "/secrets/secret"),
        (Method::DELETE, "/secrets/secret"),
        (Method::PATCH, "/secrets/secret"),
        (Method::POST, "/secrets/secret/backup"),
    ] {
        let answer = world.data_with(&officer, method, "kv1", path, json!({})).await;
        assert_eq!(answer.refusal(), "404 SecretNotFound", "{path}");
    }
    let set = world.data_with(&officer, Method::PUT, "kv1", "/secrets/secret", json!({ "value": "x" })).await;
    assert_eq!(set.refusal(), "409 Conflict/ObjectIsDeletedButRecoverable");
    assert_eq!(go(Method::GET, "/secrets/secret/versions").await.text, "{\"value\":[],\"nextLink\":null}");

    let recovered = go(Method::POST, "/deletedsecrets/secret/recover").await.ok();
    assert_eq!(recovered, json!({ "id": second["id"], "attributes": second["attributes"] }));
    assert_eq!(world.value(&officer, "kv1", "secret").await, "two");
    let path = first["id"].as_str().unwrap().strip_prefix("https://kv1.vault.azure.net").unwrap();
    assert_eq!(go(Method::GET, path).await.ok()["value"], "one");
    assert_eq!(
        go(Method::POST, "/deletedsecrets/secret/recover").await.refusal(),
        "400 MethodNotAllowed/RequestNotAllowedOnNonDeletedObject"
    );
    assert_eq!(go(Method::DELETE, "/deletedsecrets/secret").await.refusal(), "404 SecretNotFound");

    go(Method::DELETE, "/secrets/secret").await.ok();
    let purged = go(Method::DELETE, "/deletedsecrets/secret").await;
    assert_eq!((purged.status, purged.text.as_str()), (204, ""));
    let gone = go(Method::GET, "/deletedsecrets/secret").await;
    assert_eq!(
        (gone.refusal().as_str(), gone.message().as_str()),
        ("404 SecretNotFound", "Deleted Secret not found: secret")
    );
    assert_eq!(go(Method::POST, "/deletedsecrets/secret/recover").await.refusal(), "404 SecretNotFound");

    // The name is free, and the old versions are gone with the old secret.
    world.set(&officer, "kv1", "secret", "three").await;
    assert_eq!(go(Method::GET, path).await.refusal(), "404 SecretNotFound");
    assert_eq!(world.value(&officer, "kv1", "secret").await, "three");
}

#[tokio::test]
async fn a_purge_leaves_no_version_behind() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    for round in 0..230 {
        world.set(&officer, "kv1", "s", &format!("{round}")).await;
    }
    world.data(&officer, Method::DELETE, "kv1", "/secrets/s").await.ok();
    assert_eq!(world.data(&officer, Method::DELETE, "kv1", "/deletedsecrets/s").await.status, 204);
    assert_eq!(world.rows("keyvault/versions").await, 0);
    assert_eq!(world.rows("keyvault/remnants").await, 0);
    assert_eq!(world.rows("keyvault/due").await, 0);
}

#[tokio::test]
async fn what_has_passed_its_time_is_swept_and_nothing_else() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    for name in ["old", "back", "young", "live"] {
        world.set(&officer, "kv1", name, "x").await;
    }
    for name in ["old", "back"] {
        world.data(&officer, Method::DELETE, "kv1", &format!("/secrets/{name}")).await.ok();
    }
    world.data(&officer, Method::POST, "kv1", "/deletedsecrets/back/recover").await.ok();
    world.clock.advance_seconds(DAY);
    world.data(&officer, Method::DELETE, "kv1", "/secrets/young").await.ok();
    world.clock.advance_seconds(6 * DAY - 1);
    assert_eq!(world.sweep().await.secrets, 0);
    world.clock.advance_seconds(1);
    assert_eq!(world.tidy().await, Default::default(), "nobody purged it");
    assert_eq!(world.sweep().await.secrets, 1);
    assert_eq!(world.sweep().await.secrets, 0);
    let list = world.data(&officer, Method::GET, "kv1", "/deletedsecrets").await.ok();
    assert_eq!(list["value"].as_array().unwrap().len(), 1);
    assert_eq!(world.value(&officer, "kv1", "back").await, "x");
    assert_eq!(world.value(&officer, "kv1", "live").await, "x");
    assert_eq!(world.rows("keyvault/versions").await, 3);
}

#[tokio::test]
async fn a_disabled_secret_is_kept_back_even_when_deleted() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let body = json!({ "value": "x", "attributes": { "enabled": false } });
    world.data_with(&officer, Method::PUT, "kv1", "/secrets/s", body).await.ok();
    world.data(&officer, Method::DELETE, "kv1", "/secrets/s").await.ok();
    let answer = world.data(&officer, Method::GET, "kv1", "/deletedsecrets/s").await;
    assert_eq!(answer.refusal(), "403 Forbidden/SecretDisabled");
    world.data(&officer, Method::POST, "kv1", "/deletedsecrets/s/recover").await.ok();
    assert_eq!(world.value(&officer, "kv1", "s").await, "403 Forbidden/SecretDisabled");
}

#[tokio::test]
async fn purge_protection_keeps_secrets_until_their_time() {
    let world = World::new().await;
    let mut properties = vault_properties();
    properties["enablePurgeProtection"] = json!(true);
    assert_eq!(world.put_vault("kv1", properties).await.status, 200);
    let officer = world.officer().await;
    let set = world.set(&officer, "kv1", "s", "x").await;
    assert_eq!(set["attributes"]["recoveryLevel"], "CustomizedRecoverable");
    world.data(&officer, Method::DELETE, "kv1", "/secrets/s").await.ok();
    let purge = world.data(&officer, Method::DELETE, "kv1", "/deletedsecrets/s").await;
    assert_eq!(purge.refusal(), "403 Forbidden");
    assert!(purge.message().starts_with("Operation \"purge\" is not allowed because purge protection"));
    world.clock.advance_seconds(7 * DAY);
    assert_eq!(world.sweep().await.secrets, 1);
    assert_eq!(world.data(&officer, Method::GET, "kv1", "/deletedsecrets/s").await.status, 404);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "live", "x").await;
    world.set(&officer, "kv1", "dead", "y").await;
    world.data(&officer, Method::DELETE, "kv1", "/secrets/dead").await.ok();
    let world = world.restarted().await;
    assert_eq!(world.value(&officer, "kv1", "live").await, "x");
    world.data(&officer, Method::POST, "kv1", "/deletedsecrets/dead/recover").await.ok();
    assert_eq!(world.value(&officer, "kv1", "dead").await, "y");
}
