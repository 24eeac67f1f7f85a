//! Vaults as resources.

use arcadia_kernel::Method;
use serde_json::{Value, json};

use crate::support::*;

const PROVIDER: &str = "/subscriptions/5b5c0000-0000-4000-8000-000000000001/providers/Microsoft.KeyVault";

async fn delete(world: &World, name: &str) -> Answer {
    world.manage(&world.owner, Method::DELETE, &world.vault(name), Value::Null).await
}

fn recovering() -> Value {
    let mut properties = vault_properties();
    properties["createMode"] = json!("recover");
    properties
}

#[tokio::test]
async fn a_vault_is_made_and_shown() {
    let world = World::new().await;
    let made = world.put_vault("Vault-1", vault_properties()).await;
    assert_eq!(made.status, 200);
    let properties = made.json()["properties"].clone();
    assert_eq!(
        properties,
        json!({
            "sku": { "family": "A", "name": "standard" },
            "tenantId": TENANT,
            "accessPolicies": [],
            "enabledForDeployment": false,
            "enableSoftDelete": true,
            "softDeleteRetentionInDays": 7,
            "enableRbacAuthorization": true,
            "vaultUri": "https://vault-1.vault.azure.net/",
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Enabled",
            "networkAcls": {
                "bypass": "AzureServices", "defaultAction": "Allow", "ipRules": [], "virtualNetworkRules": [],
            },
        })
    );
    let shown = world.manage(&world.owner, Method::GET, &world.vault("VAULT-1"), Value::Null).await.ok();
    assert_eq!(shown["name"], "Vault-1");
    assert_eq!(shown["properties"], properties);
    // What `az keyvault update` does: the answer of GET with a change, as the body of PUT.
    let mut again = shown.clone();
    again["properties"]["enablePurgeProtection"] = json!(true);
    let put = world.manage(&world.owner, Method::PUT, &world.vault("Vault-1"), again).await.ok();
    assert_eq!(put["properties"]["enablePurgeProtection"], true);
    let patch = json!({ "tags": { "a": "b" }, "properties": { "enabledForDeployment": true } });
    let patched = world.manage(&world.owner, Method::PATCH, &world.vault("vault-1"), patch).await.ok();
    assert_eq!(
        (&patched["tags"]["a"], &patched["properties"]["enabledForDeployment"]),
        (&json!("b"), &json!(true))
    );
    assert_eq!(patched["properties"]["enablePurgeProtection"], true);
    let list = world
        .manage(
            &world.owner,
            Method::GET,
            &format!("{GROUP}/providers/Microsoft.KeyVault/vaults"),
            Value::Null,
        )
        .await;
    assert_eq!(list.ok()["value"][0]["name"], "Vault-1");
}

/// A script that gives a role to "the vault's identity" must not give it to whoever wrote there.
#[tokio::test]
async fn a_vault_shows_no_identity_that_a_client_claims() {
    let world = World::with_vault("kv1").await;
    let claimed =
        json!({ "type": "SystemAssigned", "principalId": world.owner.object_id, "tenantId": TENANT });
    let body = json!({ "identity": claimed, "sku": { "name": "x" }, "kind": "k" });
    let path = world.vault("kv1");
    let patched = world.manage(&world.owner, Method::PATCH, &path, body.clone()).await.ok();
    let mut whole = json!({ "location": "uksouth", "properties": vault_properties() });
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let put = world.manage(&world.owner, Method::PUT, &path, whole).await.ok();
    for shown in [patched, put, world.manage(&world.owner, Method::GET, &path, Value::Null).await.ok()] {
        assert!(["identity", "sku", "kind"].iter().all(|name| shown.get(name).is_none()), "{shown}");
        assert_eq!(shown["properties"]["sku"]["name"], "standard");
    }
}

#[tokio::test]
async fn what_a_vault_cannot_be_is_refused() {
    let world = World::new().await;
    let with = |name: &str, value: Value| {
        let mut properties = vault_properties();
        properties[name] = value;
        properties
    };
    for properties in [
        json!({}),
        with("sku", Value::Null),
        with("sku", json!({ "family": "B", "name": "standard" })),
        with("sku", json!({ "family": "A", "name": "basic" })),
        with("tenantId", Value::Null),
        with("tenantId", json!("00000000-0000-0000-0000-000000000001")),
        with("tenantId", json!("no-guid")),
        with("softDeleteRetentionInDays", json!(6)),
        with("softDeleteRetentionInDays", json!(91)),
        with("softDeleteRetentionInDays", json!("7")),
        with("enableSoftDelete", json!(false)),
        with("enablePurgeProtection", json!(false)),
        with("enableRbacAuthorization", json!("yes")),
        with("createMode", json!("steal")),
        with("publicNetworkAccess", json!("Perhaps")),
        with("accessPolicies", json!({})),
    ] {
        let answer = world.put_vault("v1x", properties.clone()).await;
        assert_eq!(answer.refusal(), "400 BadRequest", "{properties}: {}", answer.text);
    }
    for name in ["ab", "1abc", "a--b", "abc-", "a_bc", &"a".repeat(25)] {
        assert_eq!(world.put_vault(name, vault_properties()).await.status, 400, "{name}");
    }
    assert_eq!(world.put_vault("v1x", vault_properties()).await.status, 200);
    let answer = world.put_vault("v1x", with("softDeleteRetentionInDays", json!(90))).await;
    assert_eq!(
        answer.message(),
        "The property \"softDeleteRetentionInDays\" has been set already and it can't be modified."
    );
    assert_eq!(world.put_vault("v1x", with("enablePurgeProtection", json!(true))).await.status, 200);
    let answer = world.put_vault("v1x", with("enablePurgeProtection", json!(false))).await;
    assert!(answer.message().contains("irreversible action"), "{}", answer.message());
}

#[tokio::test]
async fn a_name_is_taken_in_the_whole_site_until_it_is_purged() {
    let world = World::with_vault("taken").await;
    let other_group = GROUP.replace("/rg", "/rg2");
    world.make_group(&other_group).await;
    let elsewhere = format!("{other_group}/providers/Microsoft.KeyVault/vaults/TAKEN");
    let body = json!({ "location": "uksouth", "properties": vault_properties() });
    let put = async |path: &str| world.manage(&world.owner, Method::PUT, path, body.clone()).await.refusal();
    assert_eq!(put(&elsewhere).await, "409 VaultAlreadyExists");
    assert_eq!(delete(&world, "taken").await.status, 200);
    assert_eq!(put(&elsewhere).await, "409 VaultAlreadyExists");
    assert_eq!(put(&world.vault("taken")).await, "409 ConflictError");
    let check = async |name: &str| {
        let path = format!("{PROVIDER}/checkNameAvailability");
        let body = json!({ "name": name, "type": "Microsoft.KeyVault/vaults" });
        let answer = world.manage(&world.owner, Method::POST, &path, body).await.ok();
        (answer["nameAvailable"].as_bool().unwrap(), answer["reason"].as_str().unwrap_or("").to_owned())
    };
    assert_eq!(check("Taken").await, (false, "AlreadyExists".to_owned()));
    assert_eq!(check("t").await, (false, "AccountNameInvalid".to_owned()));
    assert_eq!(check("untaken").await, (true, String::new()));
    let purge = format!("{PROVIDER}/locations/uksouth/deletedVaults/taken/purge");
    assert_eq!(world.manage(&world.owner, Method::POST, &purge, Value::Null).await.status, 202);
    assert_eq!(check("taken").await, (true, String::new()));
    assert_eq!(put(&elsewhere).await, "200 -");
}

#[tokio::test]
async fn deleted_shown_recovered() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "live", "x").await;
    world.set(&officer, "kv1", "dead", "y").await;
    world.data(&officer, Method::DELETE, "kv1", "/secrets/dead").await.ok();
    let made = world.manage(&world.owner, Method::GET, &world.vault("kv1"), Value::Null).await.ok();
    let deleted = delete(&world, "kv1").await;
    assert_eq!((deleted.status, deleted.text.as_str()), (200, ""));
    assert_eq!(delete(&world, "kv1").await.status, 204);
    assert_eq!(world.value(&officer, "kv1", "live").await, "404 VaultNotFound");
    let list =
        world.manage(&world.owner, Method::GET, &format!("{PROVIDER}/deletedVaults"), Value::Null).await.ok();
    let expected = json!({
        "id": format!("{PROVIDER}/locations/uksouth/deletedVaults/kv1"),
        "name": "kv1",
        "type": "Microsoft.KeyVault/deletedVaults",
        "properties": {
            "vaultId": world.vault("kv1"),
            "location": "uksouth",
            "tags": {},
            "deletionDate": "2026-11-21T12:00:00Z",
            "scheduledPurgeDate": "2026-11-28T12:00:00Z",
        },
    });
    assert_eq!(list, json!({ "value": [expected] }));
    let path = format!("{PROVIDER}/locations/UK South/deletedVaults/KV1").replace(' ', "%20");
    assert_eq!(world.manage(&world.owner, Method::GET, &path, Value::Null).await.ok(), expected);
    let elsewhere = path.replace("UK%20South", "eastus");
    let answer = world.manage(&world.owner, Method::GET, &elsewhere, Value::Null).await;
    assert_eq!(answer.refusal(), "404 DeletedVaultNotFound");

    let world = world.restarted().await;
    world.clock.advance_seconds(60);
    let recovered = world.put_vault("kv1", recovering()).await.ok();
    let (before, after) = (&made["systemData"], &recovered["systemData"]);
    assert_eq!((&after["createdAt"], &after["createdBy"]), (&before["createdAt"], &before["createdBy"]));
    assert_ne!(after["lastModifiedAt"], before["lastModifiedAt"]);
    assert_eq!(recovered["properties"]["softDeleteRetentionInDays"], 7);
    assert!(recovered["properties"].get("createMode").is_none());
    assert_eq!(world.value(&officer, "kv1", "live").await, "x");
    world.data(&officer, Method::POST, "kv1", "/deletedsecrets/dead/recover").await.ok();
    assert_eq!(world.value(&officer, "kv1", "dead").await, "y");
    let list =
        world.manage(&world.owner, Method::GET, &format!("{PROVIDER}/deletedVaults"), Value::Null).await.ok();
    assert_eq!(list, json!({ "value": [] }));
    assert_eq!(world.put_vault("nothing", recovering()).await.refusal(), "404 DeletedVaultNotFound");
    // Recovering what is live changes nothing.
    assert_eq!(world.put_vault("kv1", recovering()).await.status, 200);
}

/// Who may write in another group must not come by the secrets of this one.
#[tokio::test]
async fn a_vault_is_recovered_where_it_was_and_nowhere_else() {
    let world = World::with_vault("kv1").await;
    delete(&world, "kv1").await;
    for (group, location) in [
        (GROUP.replace("/rg", "/rg2"), "uksouth"),
        (GROUP.replace(SUBSCRIPTION, OTHER_SUBSCRIPTION), "uksouth"),
        (GROUP.to_owned(), "eastus"),
    ] {
        world.make_group(&group).await;
        let path = format!("{group}/providers/Microsoft.KeyVault/vaults/kv1");
        let body = json!({ "location": location, "properties": recovering() });
        let refused = world.manage(&world.owner, Method::PUT, &path, body).await;
        assert_eq!(refused.refusal(), "404 DeletedVaultNotFound", "{path} in {location}");
    }
    assert_eq!(world.put_vault("kv1", recovering()).await.status, 200);
}

#[tokio::test]
async fn deleted_vaults_are_those_of_one_subscription() {
    let world = World::with_vault("kv1").await;
    delete(&world, "kv1").await;
    let elsewhere = |path: &str| path.replace(SUBSCRIPTION, OTHER_SUBSCRIPTION);
    let get = async |path: &str| world.manage(&world.owner, Method::GET, path, Value::Null).await;
    let list = format!("{PROVIDER}/deletedVaults");
    assert_eq!(get(&list).await.ok()["value"][0]["name"], "kv1");
    assert_eq!(get(&elsewhere(&list)).await.ok(), json!({ "value": [] }));
    let vault = format!("{PROVIDER}/locations/uksouth/deletedVaults/kv1");
    assert_eq!(get(&vault).await.status, 200);
    assert_eq!(get(&elsewhere(&vault)).await.refusal(), "404 DeletedVaultNotFound");
    let purge = async |path: &str| {
        world.manage(&world.owner, Method::POST, &format!("{path}/purge"), Value::Null).await
    };
    assert_eq!(purge(&elsewhere(&vault)).await.refusal(), "404 DeletedVaultNotFound");
    let purged = purge(&vault).await;
    let result = purged.header("location").strip_prefix("https://management.azure.com").unwrap();
    let result = result.split('?').next().unwrap();
    assert_eq!(get(result).await.ok()["status"], "Succeeded");
    assert_eq!(get(&elsewhere(result)).await.refusal(), "404 OperationNotFound");
}

#[tokio::test]
async fn a_recovered_vault_is_spelled_as_it_was() {
    let world = World::with_vault("kvAtt1").await;
    let id = world.vault("kvAtt1");
    delete(&world, "KVATT1").await;
    let recovered = world.put_vault("KVATT1", recovering()).await.ok();
    let shown = world.manage(&world.owner, Method::GET, &world.vault("kvatt1"), Value::Null).await.ok();
    for vault in [recovered, shown] {
        assert_eq!((&vault["id"], &vault["name"]), (&json!(id), &json!("kvAtt1")));
    }
    delete(&world, "kvatt1").await;
    let list =
        world.manage(&world.owner, Method::GET, &format!("{PROVIDER}/deletedVaults"), Value::Null).await.ok();
    assert_eq!(list["value"][0]["properties"]["vaultId"], json!(id));
}

/// The namespace may be given up while nothing but deleted vaults is left of it; they come back all the same.
#[tokio::test]
async fn a_vault_is_recovered_whatever_is_registered() {
    let world = World::with_vault("kv1").await;
    let unregister = async || {
        world.manage(&world.owner, Method::POST, &format!("{PROVIDER}/unregister"), Value::Null).await
    };
    assert_eq!(unregister().await.refusal(), "409 CannotUnregisterProviderWithExistingResources");
    delete(&world, "kv1").await;
    assert_eq!(unregister().await.status, 200);
    let refused = world.put_vault("kv2", vault_properties()).await;
    assert_eq!(refused.refusal(), "409 MissingSubscriptionRegistration");
    let missing = world.put_vault("kv2", recovering()).await;
    assert_eq!(missing.refusal(), "404 DeletedVaultNotFound");
    assert_eq!(world.put_vault("kv1", recovering()).await.status, 200);
}

#[tokio::test]
async fn purged_with_all_it_held_and_a_new_vault_of_the_name_is_empty() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    for number in 0..30 {
        world.set(&officer, "kv1", &format!("s-{number}"), "one").await;
        world.set(&officer, "kv1", &format!("s-{number}"), "two").await;
    }
    world.data(&officer, Method::DELETE, "kv1", "/secrets/s-0").await.ok();
    delete(&world, "kv1").await;
    let path = format!("{PROVIDER}/locations/uksouth/deletedVaults/kv1/purge");
    let contributor = world.caller("contributor");
    let subscription = format!("/subscriptions/{SUBSCRIPTION}");
    world.grant(&contributor, KEYVAULT_CONTRIBUTOR, &subscription).await;
    let refused = world.manage(&contributor, Method::POST, &path, Value::Null).await;
    assert_eq!(refused.refusal(), "403 AuthorizationFailed");
    let purge = world.manage(&world.owner, Method::POST, &path, Value::Null).await;
    assert_eq!((purge.status, purge.header("retry-after")), (202, "1"));
    let location = purge.header("location").to_owned();
    let target = location.strip_prefix("https://management.azure.com").unwrap().split('?').next().unwrap();
    let result = world.manage(&world.owner, Method::GET, target, Value::Null).await.ok();
    assert_eq!(result["status"], "Succeeded");
    let unknown = format!("{}/{}", target.rsplit_once('/').unwrap().0, "0".repeat(32));
    assert_eq!(world.manage(&world.owner, Method::GET, &unknown, Value::Null).await.status, 404);
    assert_eq!(
        world.manage(&world.owner, Method::POST, &path, Value::Null).await.refusal(),
        "404 DeletedVaultNotFound"
    );
    assert_eq!(world.put_vault("kv1", recovering()).await.refusal(), "404 DeletedVaultNotFound");
    world.make_vault("kv1").await;
    for list in ["/secrets", "/deletedsecrets", "/secrets/s-1/versions"] {
        assert_eq!(world.data(&officer, Method::GET, "kv1", list).await.ok()["value"], json!([]), "{list}");
    }
    assert_eq!(world.value(&officer, "kv1", "s-1").await, "404 SecretNotFound");
    // The result is kept for a day.
    let world = world.restarted().await;
    assert_eq!(world.manage(&world.owner, Method::GET, target, Value::Null).await.status, 200);
    world.clock.advance_seconds(DAY + 1);
    world.sweep().await;
    assert_eq!(world.manage(&world.owner, Method::GET, target, Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_purge_too_large_for_one_request_goes_on_after_a_restart() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    for number in 0..5_200 {
        world.set(&officer, "kv1", &format!("s-{}", number % 13), "x").await;
    }
    delete(&world, "kv1").await;
    let path = format!("{PROVIDER}/locations/uksouth/deletedVaults/kv1/purge");
    let purge = world.manage(&world.owner, Method::POST, &path, Value::Null).await;
    assert_eq!(purge.status, 202);
    let location = purge.header("location").to_owned();
    let target = location.strip_prefix("https://management.azure.com").unwrap().split('?').next().unwrap();
    // The name is free at once, and what is left of the former vault is not the new one's.
    world.make_vault("kv1").await;
    let world = world.restarted().await;
    let running = world.manage(&world.owner, Method::GET, target, Value::Null).await;
    assert_eq!((running.status, running.header("location")), (202, location.as_str()));
    assert_eq!(running.header("retry-after"), "1");
    assert_eq!(running.json()["status"], "NotStarted");
    assert_eq!(world.data(&officer, Method::GET, "kv1", "/secrets").await.ok()["value"], json!([]));
    assert_eq!(world.tidy().await.finished, 1);
    let done = world.manage(&world.owner, Method::GET, target, Value::Null).await.ok();
    assert_eq!(done["status"], "Succeeded");
    assert_eq!(world.rows("keyvault/versions").await, 0);
}

#[tokio::test]
async fn a_deleted_vault_is_swept_when_its_time_is_over() {
    let world = World::new().await;
    let mut properties = vault_properties();
    properties["enablePurgeProtection"] = json!(true);
    world.put_vault("kv1", properties).await.ok();
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    delete(&world, "kv1").await;
    let path = format!("{PROVIDER}/locations/uksouth/deletedVaults/kv1/purge");
    let purge = world.manage(&world.owner, Method::POST, &path, Value::Null).await;
    assert_eq!(purge.refusal(), "403 Forbidden");
    let list =
        world.manage(&world.owner, Method::GET, &format!("{PROVIDER}/deletedVaults"), Value::Null).await.ok();
    assert_eq!(list["value"][0]["properties"]["purgeProtectionEnabled"], true);
    world.clock.advance_seconds(7 * DAY - 1);
    assert_eq!(world.sweep().await.vaults, 0);
    world.clock.advance_seconds(1);
    assert_eq!(world.tidy().await, Default::default(), "nobody purged it");
    assert_eq!(world.sweep().await.vaults, 1);
    assert_eq!(world.put_vault("kv1", vault_properties()).await.status, 200);
    assert_eq!(world.value(&officer, "kv1", "s").await, "404 SecretNotFound");
}

#[tokio::test]
async fn deleting_a_group_soft_deletes_its_vaults() {
    let world = World::with_vault("kv1").await;
    let answer = world.manage(&world.owner, Method::DELETE, GROUP, Value::Null).await;
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text);
    let path = format!("{PROVIDER}/deletedVaults");
    for _ in 0..200 {
        let list = world.manage(&world.owner, Method::GET, &path, Value::Null).await.ok();
        if list["value"][0]["name"] == "kv1" {
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the vault of the deleted group is not among the deleted vaults");
}

#[tokio::test]
async fn there_are_no_managed_hsms_and_their_lists_say_so() {
    let world = World::new().await;
    for path in [
        format!("{PROVIDER}/managedHSMs"),
        format!("{GROUP}/providers/Microsoft.KeyVault/managedHSMs"),
        format!("{PROVIDER}/deletedManagedHSMs"),
    ] {
        let answer = world.manage(&world.owner, Method::GET, &path, Value::Null).await;
        assert_eq!(answer.ok(), json!({ "value": [] }), "{path}");
    }
    let path = format!("{PROVIDER}/checkMhsmNameAvailability");
    let answer = world.manage(&world.owner, Method::POST, &path, json!({ "name": "kvlab9" })).await;
    assert_eq!(answer.ok(), json!({ "nameAvailable": true }));
}

#[tokio::test]
async fn every_management_row_of_key_vault_refuses_strangers() {
    let world = World::with_vault("kv1").await;
    let stranger = world.caller("stranger");
    let rows: Vec<_> = world
        .arm_rows()
        .into_iter()
        .filter(|row| row.pattern.as_str().contains("Microsoft.KeyVault"))
        .collect();
    assert!(rows.len() >= 16, "{}", rows.len());
    for row in rows {
        let path: String = row
            .pattern
            .as_str()
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| match part {
                "{subscription}" | "{subscriptionId}" => format!("/{SUBSCRIPTION}"),
                "{group}" | "{resourceGroupName}" => "/rg".to_owned(),
                "{location}" => "/uksouth".to_owned(),
                "{kind}" => "/add".to_owned(),
                other if other.starts_with('{') => "/kv1".to_owned(),
                literal => format!("/{literal}"),
            })
            .collect();
        let anonymous = world.send_arm(None, row.method.clone(), &path, MANAGEMENT, json!({})).await;
        assert_eq!(anonymous.status, 401, "{} {path}", row.name);
        let refused = world.manage(&stranger, row.method.clone(), &path, json!({})).await;
        match row.access {
            arcadia_kernel::Access::Decided { .. } => assert_eq!(refused.status, 403, "{} {path}", row.name),
            _ => assert_eq!(refused.ok()["value"], json!([]), "{} {path}", row.name),
        }
    }
}
