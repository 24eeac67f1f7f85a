//! Accounts by the resource manager.

use std::sync::Arc;

use arcadia_kernel::Method;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn an_account_is_made_shown_changed_and_deleted() {
    let world = World::new().await;
    let az = json!({ "encryption": { "keySource": "Microsoft.Storage", "services": { "blob": {} } } });
    let made = world.put_account("stlab1", az).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let made = made.json();
    assert_eq!(made["properties"]["primaryEndpoints"]["blob"], "https://stlab1.blob.core.windows.net/");
    assert_eq!(made["properties"]["provisioningState"], "Succeeded");
    assert_eq!(made["properties"]["allowBlobPublicAccess"], false);
    assert_eq!(made["properties"]["minimumTlsVersion"], "TLS1_2");
    assert_eq!(made["sku"], json!({ "name": "Standard_LRS", "tier": "Standard" }));
    assert_eq!(made["kind"], "StorageV2");
    assert!(made["properties"].get("instance").is_none());
    assert!(made["properties"]["keyCreationTime"]["key1"].is_string());

    let path = world.account("stlab1");
    assert_eq!(world.manage(Method::GET, &path, Value::Null).await.json()["id"], made["id"]);
    let change = json!({ "properties": { "allowSharedKeyAccess": false }, "tags": { "a": "b" } });
    let changed = world.manage(Method::PATCH, &path, change).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(changed.json()["properties"]["allowSharedKeyAccess"], false);
    assert_eq!(changed.json()["tags"]["a"], "b");
    let again = world.put_account("stlab1", json!({})).await;
    assert_eq!(again.json()["properties"]["allowSharedKeyAccess"], false, "a PUT without it keeps it");
    let back = world.manage(Method::PUT, &path, changed.json()).await;
    assert_eq!((back.status, back.json()), (200, changed.json()), "what is shown can be put back");
    let list = format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Storage/storageAccounts");
    let listed = world.manage(Method::GET, &list, Value::Null).await.json();
    assert_eq!(listed["value"].as_array().unwrap().len(), 1);
    assert_eq!(world.manage(Method::DELETE, &path, Value::Null).await.status, 200);
    assert_eq!(world.manage(Method::DELETE, &path, Value::Null).await.status, 204);
    assert_eq!(world.manage(Method::GET, &path, Value::Null).await.status, 404);
}

#[tokio::test]
async fn names_are_unique_in_the_site_and_free_again() {
    let world = World::new().await;
    world.make_account("stlab1").await;
    let other = format!("{GROUP}2");
    world.make_group(&other).await;
    let body = json!({ "location": "uksouth", "sku": { "name": "Standard_LRS" } });
    let elsewhere = format!("{other}/providers/Microsoft.Storage/storageAccounts/stlab1");
    let taken = world.manage(Method::PUT, &elsewhere, body.clone()).await;
    assert_eq!((taken.status, &taken.json()["error"]["code"]), (409, &json!("StorageAccountAlreadyTaken")));
    let check = |name: &str| json!({ "name": name, "type": "Microsoft.Storage/storageAccounts" });
    let path = format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Storage/checkNameAvailability");
    for (name, available, reason) in [
        ("stlab1", false, json!("AlreadyExists")),
        ("stlab9", true, json!(null)),
        ("ST", false, json!("AccountNameInvalid")),
    ] {
        let answer = world.manage(Method::POST, &path, check(name)).await.json();
        assert_eq!((&answer["nameAvailable"], &answer["reason"]), (&json!(available), &reason), "{name}");
    }
    assert_eq!(world.manage(Method::DELETE, &world.account("stlab1"), Value::Null).await.status, 200);
    assert_eq!(world.manage(Method::PUT, &elsewhere, body).await.status, 200);
}

#[tokio::test]
async fn what_is_not_enforced_is_refused() {
    let world = World::new().await;
    for properties in [
        json!({ "networkAcls": { "defaultAction": "Deny" } }),
        json!({ "publicNetworkAccess": "Disabled" }),
        json!({ "minimumTlsVersion": "TLS1_3" }),
        json!({ "isHnsEnabled": true }),
    ] {
        let answer = world.put_account("stlab1", properties.clone()).await;
        assert_eq!(answer.status, 400, "{properties}: {}", answer.text());
    }
    for (name, value) in [
        ("zones", json!(["1"])),
        ("extendedLocation", json!({ "type": "EdgeZone", "name": "here" })),
        ("placement", json!({ "zonePlacementPolicy": "Any" })),
        ("somethingNew", json!(false)),
    ] {
        let mut body = json!({ "location": "uksouth", "sku": { "name": "Standard_LRS" } });
        body[name] = value;
        let answer = world.manage(Method::PUT, &world.account("stlab1"), body).await;
        assert_eq!((answer.status, answer.text().contains(name)), (400, true), "{name}: {}", answer.text());
    }
    let body = json!({ "location": "uksouth", "properties": {} });
    let no_sku = world.manage(Method::PUT, &world.account("stlab1"), body).await;
    assert_eq!(no_sku.status, 400, "{}", no_sku.text());
    assert_eq!(world.manage(Method::GET, &world.account("stlab1"), Value::Null).await.status, 404);
}

#[tokio::test]
async fn kind_and_performance_stay() {
    let world = World::new().await;
    let put = async |name: &str, kind: &str, sku: &str| {
        let body = json!({ "location": "uksouth", "kind": kind, "sku": { "name": sku } });
        let answer = world.manage(Method::PUT, &world.account(name), body).await;
        format!("{} {}", answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default())
    };
    let patch = async |name: &str, body: Value| {
        let answer = world.manage(Method::PATCH, &world.account(name), body).await;
        format!("{} {}", answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default())
    };
    let (no_sku, no_kind) = ("400 InvalidValuesForRequestParameters", "400 AccountPropertyCannotBeUpdated");
    for (name, kind, sku) in [
        ("general", "StorageV2", "Standard_LRS"),
        ("older", "Storage", "Standard_LRS"),
        ("ofblobs", "BlobStorage", "Standard_LRS"),
        ("ofblocks", "BlockBlobStorage", "Premium_LRS"),
        ("premium", "StorageV2", "Premium_LRS"),
    ] {
        assert_eq!(put(name, kind, sku).await, "200 ", "{name}");
        assert_eq!(put(name, kind, sku).await, "200 ", "{name} again");
    }
    assert_eq!(put("another", "BlockBlobStorage", "Standard_LRS").await, no_sku);
    for (name, kind) in [
        ("general", "Storage"),
        ("general", "BlobStorage"),
        ("general", "BlockBlobStorage"),
        ("older", "BlobStorage"),
        ("ofblocks", "StorageV2"),
        ("premium", "BlockBlobStorage"),
    ] {
        let sku =
            if name.starts_with(['o', 'p']) && name != "older" { "Premium_LRS" } else { "Standard_LRS" };
        assert_eq!(put(name, kind, sku).await, no_kind, "{name} {kind}");
        assert_eq!(patch(name, json!({ "kind": kind })).await, no_kind, "{name} {kind}");
    }
    for (name, sku) in [("general", "Premium_LRS"), ("premium", "Standard_LRS"), ("ofblocks", "Standard_GRS")]
    {
        assert_eq!(patch(name, json!({ "sku": { "name": sku } })).await, no_sku, "{name} {sku}");
    }
    for (name, change) in [
        ("general", json!({ "sku": { "name": "Standard_GRS" } })),
        ("premium", json!({ "sku": { "name": "premium_zrs" } })),
        ("older", json!({ "kind": "StorageV2" })),
        ("ofblobs", json!({ "kind": "storagev2", "properties": { "accessTier": "Cool" } })),
        ("ofblocks", json!({ "tags": { "a": "b" } })),
    ] {
        assert_eq!(patch(name, change).await, "200 ", "{name}");
    }
    let shown = async |name: &str| world.manage(Method::GET, &world.account(name), Value::Null).await.json();
    assert_eq!(shown("general").await["sku"], json!({ "name": "Standard_GRS", "tier": "Standard" }));
    assert_eq!(shown("premium").await["sku"], json!({ "name": "Premium_ZRS", "tier": "Premium" }));
    assert_eq!(
        (&shown("older").await["kind"], &shown("ofblobs").await["kind"]),
        (&json!("StorageV2"), &json!("StorageV2"))
    );
}

#[tokio::test]
async fn keys_are_random_and_a_new_one_ends_the_old() {
    let world = World::new().await;
    world.make_account("stlab1").await;
    world.make_account("stlab2").await;
    let before = world.keys("stlab1").await;
    assert_eq!(arcadia_crypto::b64_decode(&before[0]).unwrap().len(), 64);
    assert!(before[0] != before[1] && before[0] != world.keys("stlab2").await[0]);
    let list = |key: &str| Ask::new(Method::GET, "stlab1", "/?comp=list").signed("stlab1", key, START);
    assert_eq!(world.ask(list(&before[0])).await.status, 200);
    let path = format!("{}/regenerateKey", world.account("stlab1"));
    let made = world.manage(Method::POST, &path, json!({ "keyName": "key1" })).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let after = world.keys("stlab1").await;
    assert!(after[0] != before[0] && after[1] == before[1]);
    assert_eq!(world.ask(list(&before[0])).await.outcome(), "403 AuthenticationFailed");
    assert_eq!(world.ask(list(&after[0])).await.status, 200);
    assert_eq!(world.ask(list(&after[1])).await.status, 200);
    let unknown = world.manage(Method::POST, &path, json!({ "keyName": "kerb1" })).await;
    assert_eq!(unknown.status, 400);

    let change = json!({ "properties": { "allowSharedKeyAccess": false } });
    assert_eq!(world.manage(Method::PATCH, &world.account("stlab1"), change).await.status, 200);
    assert_eq!(world.ask(list(&after[0])).await.outcome(), "403 KeyBasedAuthenticationNotPermitted");
    let (_, last) = world.store.audit_page(0, 1000).await.unwrap().pop().unwrap();
    let off = arcadia_kernel::DenyReason::CredentialSwitchedOff.to_string();
    assert_eq!(last.outcome, arcadia_kernel::Outcome::Denied { reason: off });
}

#[tokio::test]
async fn what_arrives_for_an_account_that_is_gone_by_then_is_refused() {
    let world = Arc::new(World::new().await);
    let member = world.caller("contributor-of-blobs");
    world.grant(&member, BLOB_CONTRIBUTOR, GROUP).await;
    for (method, target, part) in [
        (Method::PUT, "/cc1/b", "x"),
        (Method::PUT, "/cc1/b?comp=block&blockid=YQ%3D%3D", "x"),
        (Method::PUT, "/cc1/b?comp=blocklist", "<BlockList/>"),
        (Method::PUT, "/cc1/b?comp=metadata", "x"),
        (Method::PUT, "/cc1/b?comp=tier", "x"),
        (Method::DELETE, "/cc1/b", "x"),
        (Method::PUT, "/cc2?restype=container", "x"),
        (Method::PUT, "/cc1?restype=container&comp=metadata", "x"),
        (Method::DELETE, "/cc1?restype=container", "x"),
    ] {
        world.make_account("acct1").await;
        world.make_container(&member, "acct1", "cc1").await;
        assert_eq!(world.put(&member, "acct1", "/cc1/b", "before").await.outcome(), "201");
        // Another one has its name then, so that the host and the role lead somewhere.
        let replaced = {
            let world = world.clone();
            async move {
                assert_eq!(
                    world.manage(Method::DELETE, &world.account("acct1"), Value::Null).await.status,
                    200
                );
                world.make_account("acct1").await;
            }
        };
        let ask = Ask::new(method.clone(), "acct1", target).by(&member);
        let ask = ask.with("x-ms-blob-type", "BlockBlob").with("x-ms-access-tier", "Cool");
        let answer = world.ask_with_body(ask, body_around("", replaced, part)).await;
        assert_eq!(answer.outcome(), "404 ResourceNotFound", "{method} {target}");
        assert_eq!(world.manage(Method::DELETE, &world.account("acct1"), Value::Null).await.status, 200);
    }
}

#[tokio::test]
async fn an_account_that_takes_over_a_name_sees_nothing_of_the_former() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/b", vec![7; 100_000]).await;
    let old_key = world.keys("acct1").await[0].clone();
    assert_eq!(world.manage(Method::DELETE, &world.account("acct1"), Value::Null).await.status, 200);
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.outcome(), "404 ResourceNotFound");
    world.make_account("acct1").await;
    // The former assignment is gone with the account.
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.outcome(), "403 AuthorizationPermissionMismatch");
    world.grant(&member, BLOB_CONTRIBUTOR, &world.account("acct1")).await;
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.outcome(), "404 ContainerNotFound");
    let signed = Ask::new(Method::GET, "acct1", "/?comp=list").signed("acct1", &old_key, START);
    assert_eq!(world.ask(signed).await.outcome(), "403 AuthenticationFailed");
    world.make_container(&member, "acct1", "cc1").await;
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.outcome(), "404 BlobNotFound");
    assert_eq!(world.files().0, 1);
    world.sweep().await;
    world.clock.advance_seconds(3601);
    world.sweep().await;
    assert_eq!(world.files().0, 0);
    assert_eq!(world.rows("storage/containers").await, 1);
    for table in ["storage/blobs", "storage/places", "storage/garbage"] {
        assert_eq!(world.rows(table).await, 0, "{table}");
    }
}
