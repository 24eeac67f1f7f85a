//! Backup and restore.

use arcadia_kernel::Method;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::*;

const MAGIC: &str = ")AzureKeyVaultSecretBackupV1.microsoft.com";

async fn backup(world: &World, caller: &Caller, name: &str) -> String {
    let answer = world.data(caller, Method::POST, "kv1", &format!("/secrets/{name}/backup")).await.ok();
    answer["value"].as_str().unwrap().to_owned()
}

async fn restore(world: &World, caller: &Caller, vault: &str, blob: &str) -> Answer {
    world.data_with(caller, Method::POST, vault, "/secrets/restore", json!({ "value": blob })).await
}

#[tokio::test]
async fn every_version_comes_back_once_the_name_is_free() {
    let world = World::with_vault("kv1").await;
    world.make_vault("kv2").await;
    let officer = world.officer().await;
    let first = world.set(&officer, "kv1", "Secret", "one").await;
    let body = json!({ "value": "two", "tags": { "k": "v" }, "attributes": { "enabled": false } });
    let second = world.data_with(&officer, Method::PUT, "kv1", "/secrets/secret", body).await.ok();
    let blob = backup(&world, &officer, "secret").await;
    let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(&blob).unwrap()).unwrap();
    assert!(decoded.starts_with(&format!("{MAGIC}eyJraWQi")), "{decoded:.80}");
    assert!(!decoded.contains("two"));

    let taken = restore(&world, &officer, "kv1", &blob).await;
    assert_eq!(taken.refusal(), "409 Conflict");
    let start = format!("There was a conflict restoring the secret '{}'", second["id"].as_str().unwrap());
    assert!(taken.message().starts_with(&start), "{}", taken.message());
    world.data(&officer, Method::DELETE, "kv1", "/secrets/secret").await.ok();
    assert_eq!(restore(&world, &officer, "kv1", &blob).await.refusal(), "409 Conflict");
    world.data(&officer, Method::DELETE, "kv1", "/deletedsecrets/secret").await;

    let restored = restore(&world, &officer, "kv1", &blob).await.ok();
    assert_eq!(
        restored,
        json!({ "id": second["id"], "attributes": second["attributes"], "tags": { "k": "v" } })
    );
    assert_eq!(world.value(&officer, "kv1", "secret").await, "403 Forbidden/SecretDisabled");
    let path = first["id"].as_str().unwrap().strip_prefix("https://kv1.vault.azure.net").unwrap();
    assert_eq!(world.data(&officer, Method::GET, "kv1", path).await.ok()["value"], "one");
    // Into another vault, after a restart, as a copy of its own.
    let world = world.restarted().await;
    restore(&world, &officer, "kv2", &blob).await.ok();
    assert_eq!(world.data(&officer, Method::GET, "kv2", path).await.ok()["value"], "one");
    world.data(&officer, Method::DELETE, "kv2", "/secrets/secret").await.ok();
    assert_eq!(world.data(&officer, Method::GET, "kv1", path).await.ok()["value"], "one");
}

#[tokio::test]
async fn foreign_and_altered_blobs_are_refused() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let not_ours = URL_SAFE_NO_PAD.encode(format!("{MAGIC}eyJraWQiOiJ4In0..AQAAAAEAAAA"));
    // Before this site ever made a backup.
    assert_eq!(restore(&world, &officer, "kv1", &not_ours).await.refusal(), "400 Malformed backup blob");
    world.set(&officer, "kv1", "s", "x").await;
    let blob = backup(&world, &officer, "s").await;
    world.data(&officer, Method::DELETE, "kv1", "/secrets/s").await.ok();
    world.data(&officer, Method::DELETE, "kv1", "/deletedsecrets/s").await;

    let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(&blob).unwrap()).unwrap();
    let (head, sealed) = decoded.split_once("..").unwrap();
    let other_head = format!("{}..{sealed}", head.replace("eyJ", "eyI"));
    let other = World::with_vault("kv1").await;
    let other_officer = other.officer().await;
    other.set(&other_officer, "kv1", "s", "x").await;
    let altered = [
        not_ours,
        String::new(),
        "AAAA".to_owned(),
        "not base64 !".to_owned(),
        blob[..blob.len() - 8].to_owned(),
        URL_SAFE_NO_PAD.encode(&decoded[1..]),
        URL_SAFE_NO_PAD.encode(other_head),
        URL_SAFE_NO_PAD.encode(decoded.replacen(MAGIC, "&AzureKeyVaultKeyBackupV1.microsoft.com", 1)),
        backup(&other, &other_officer, "s").await,
    ];
    for (at, blob) in altered.iter().enumerate() {
        let answer = restore(&world, &officer, "kv1", blob).await;
        assert_eq!(answer.refusal(), "400 Malformed backup blob", "{at}");
        assert_eq!(answer.message(), "Backup blob contains invalid or corrupt version.");
    }
    let answer = world.data_with(&officer, Method::POST, "kv1", "/secrets/restore", json!({})).await;
    assert_eq!(answer.refusal(), "400 BadParameter");
    assert_eq!(world.data(&officer, Method::GET, "kv1", "/secrets").await.ok()["value"], json!([]));
    restore(&world, &officer, "kv1", &blob).await.ok();
}

#[tokio::test]
async fn a_backup_stays_in_its_subscription() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    let blob = backup(&world, &officer, "s").await;
    let group = GROUP.replace(SUBSCRIPTION, OTHER_SUBSCRIPTION);
    world.make_group(&group).await;
    world.grant(&officer, SECRETS_OFFICER, &group).await;
    let path = format!("{group}/providers/Microsoft.KeyVault/vaults/kv2");
    let body = json!({ "location": "uksouth", "properties": vault_properties() });
    world.manage(&world.owner, Method::PUT, &path, body).await.ok();
    let refused = restore(&world, &officer, "kv2", &blob).await;
    assert_eq!(refused.refusal(), "400 BadParameter");
    assert!(refused.message().contains("another subscription"), "{}", refused.message());
    assert_eq!(world.value(&officer, "kv2", "s").await, "404 SecretNotFound");
}

#[tokio::test]
async fn backup_and_restore_need_their_own_permissions() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    let user = world.caller("user");
    world.grant(&user, SECRETS_USER, &world.vault("kv1")).await;
    let answer = world.data(&user, Method::POST, "kv1", "/secrets/s/backup").await;
    assert_eq!(answer.refusal(), "403 Forbidden/ForbiddenByRbac");
    // On one secret alone nothing is restored: the blob's name is not known before it is opened.
    let of_secret = world.caller("of-secret");
    world.grant(&of_secret, SECRETS_OFFICER, &format!("{}/secrets/s", world.vault("kv1"))).await;
    let blob = backup(&world, &of_secret, "s").await;
    assert_eq!(restore(&world, &of_secret, "kv1", &blob).await.refusal(), "403 Forbidden/ForbiddenByRbac");
}

#[tokio::test]
async fn a_backup_covers_500_versions() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    for round in 0..500 {
        world.set(&officer, "kv1", "s", &format!("{round}")).await;
    }
    let blob = backup(&world, &officer, "s").await;
    world.set(&officer, "kv1", "s", "one more").await;
    let answer = world.data(&officer, Method::POST, "kv1", "/secrets/s/backup").await;
    assert_eq!(answer.refusal(), "400 BadParameter");
    world.make_vault("kv2").await;
    restore(&world, &officer, "kv2", &blob).await.ok();
    assert_eq!(world.value(&officer, "kv2", "s").await, "499");
}
