//! Blob services, file services and containers by the resource manager.

use arcadia_kernel::{Access, Method, OpInfo};
use serde_json::{Value, json};

use crate::support::*;

const VERSION: &str = "2025-08-01";
const REFUSED: &str = "AuthorizationFailed";

/// `404 ContainerNotFound`, or the status alone.
fn outcome(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default())
        .trim()
        .to_owned()
}

fn service(world: &World, account: &str, name: &str) -> String {
    format!("{}/{name}/default", world.account(account))
}

/// By the owner, with a query and headers of its own.
async fn ask(world: &World, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let bearer = world.owner.bearer("https://management.azure.com/");
    let mut ask = Ask::new(method, "none", target).with("authorization", &bearer);
    ask.host = "management.azure.com".to_owned();
    for (name, value) in headers {
        ask = ask.with(name, value);
    }
    ask.body = body.to_owned().into();
    world.ask_arm(ask).await
}

async fn listed(world: &World, query: &str) -> Value {
    let path = format!("{}/containers?api-version={VERSION}{query}", service(world, "acct1", "blobServices"));
    let answer = ask(world, Method::GET, &path, &[], "").await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()
}

fn names(list: &Value) -> Vec<&str> {
    list["value"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_blob_service_is_shown_and_takes_what_is_so() {
    let (world, _) = World::with_account("acct1").await;
    let path = service(&world, "acct1", "blobServices");
    let shown = world.manage(Method::GET, &path, Value::Null).await;
    let wanted = json!({
        "sku": { "name": "Standard_LRS", "tier": "Standard" },
        "id": path,
        "name": "default",
        "type": "Microsoft.Storage/storageAccounts/blobServices",
        "properties": {
            "cors": { "corsRules": [] },
            "deleteRetentionPolicy": { "allowPermanentDelete": false, "enabled": false },
        },
    });
    assert_eq!((shown.status, shown.json()), (200, wanted.clone()));
    let list = world.manage(Method::GET, path.trim_end_matches("/default"), Value::Null).await;
    assert_eq!(list.json(), json!({ "value": [wanted] }));
    for body in [json!({}), json!({ "properties": { "isVersioningEnabled": false } }), wanted.clone()] {
        let set = world.manage(Method::PUT, &path, body.clone()).await;
        assert_eq!((set.status, set.json()), (200, wanted.clone()), "{body}");
    }
    for body in [
        json!({ "properties": { "deleteRetentionPolicy": { "enabled": true, "days": 7 } } }),
        json!({ "properties": { "defaultServiceVersion": "2018-11-09" } }),
        json!({ "properties": { "unknown": {} } }),
        json!({ "sku": { "name": "Premium_LRS" } }),
    ] {
        let refused = world.manage(Method::PUT, &path, body.clone()).await;
        assert_eq!(outcome(&refused), "400 FeatureNotSupported", "{body}");
    }
    let bytes = ask(&world, Method::PUT, &format!("{path}?api-version={VERSION}"), &[], "{").await;
    assert_eq!(outcome(&bytes), "400 InvalidRequestContent");
    let other = world.manage(Method::GET, &path.replace("/default", "/other"), Value::Null).await;
    assert_eq!(other.status, 404);
    let missing = world.manage(Method::GET, &service(&world, "acct2", "blobServices"), Value::Null).await;
    assert_eq!(outcome(&missing), "404 ResourceNotFound");
}

#[tokio::test]
async fn a_file_service_is_there_for_accounts_of_the_general_kinds() {
    let (world, _) = World::with_account("acct1").await;
    let path = service(&world, "acct1", "fileServices");
    let shown = world.manage(Method::GET, &path, Value::Null).await;
    let properties = json!({
        "protocolSettings": { "smb": {} },
        "cors": { "corsRules": [] },
        "shareDeleteRetentionPolicy": { "enabled": false },
    });
    assert_eq!((shown.status, &shown.json()["properties"]), (200, &properties));
    assert_eq!(shown.json()["type"], "Microsoft.Storage/storageAccounts/fileServices");
    let list = world.manage(Method::GET, path.trim_end_matches("/default"), Value::Null).await;
    assert_eq!(list.json(), json!({ "value": [shown.json()] }));
    let set = world.manage(Method::PUT, &path, shown.json()).await;
    assert_eq!((set.status, set.json()), (200, shown.json()));
    let days = json!({ "properties": { "shareDeleteRetentionPolicy": { "enabled": true, "days": 7 } } });
    assert_eq!(outcome(&world.manage(Method::PUT, &path, days).await), "400 FeatureNotSupported");
    for (account, kind, sku) in [
        ("acct3", "BlobStorage", "Standard_LRS"),
        ("acct4", "BlockBlobStorage", "Premium_LRS"),
        ("acct5", "StorageV2", "Premium_LRS"),
    ] {
        let body = json!({ "location": "uksouth", "sku": { "name": sku }, "kind": kind });
        assert_eq!(world.manage(Method::PUT, &world.account(account), body).await.status, 200);
        let path = service(&world, account, "fileServices");
        for (method, body) in [(Method::GET, Value::Null), (Method::PUT, json!({}))] {
            let refused = world.manage(method, &path, body).await;
            assert_eq!(outcome(&refused), "400 FeatureNotSupportedForAccount", "{kind}");
        }
        let blobs = world.manage(Method::GET, &service(&world, account, "blobServices"), Value::Null).await;
        assert_eq!(blobs.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn a_container_is_made_shown_changed_and_deleted() {
    let (world, member) = World::with_account("acct1").await;
    let path = world.container("acct1", "cc1");
    assert_eq!(outcome(&world.manage(Method::GET, &path, Value::Null).await), "404 ContainerNotFound");
    assert_eq!(outcome(&world.manage(Method::PATCH, &path, json!({})).await), "404 ContainerNotFound");
    assert_eq!(outcome(&world.manage(Method::DELETE, &path, Value::Null).await), "204");
    let body = json!({ "properties": { "metadata": { "k1": "v1" }, "publicAccess": "None" } });
    let made = world.manage(Method::PUT, &path, body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let shown = world.manage(Method::GET, &path, Value::Null).await;
    assert_eq!((shown.status, shown.json()), (200, made.json()));
    assert!(shown.header("etag").starts_with("\"0x8D"));
    let wanted = json!({
        "id": path,
        "name": "cc1",
        "type": "Microsoft.Storage/storageAccounts/blobServices/containers",
        "etag": shown.header("etag"),
        "properties": {
            "deleted": false,
            "remainingRetentionDays": 0,
            "defaultEncryptionScope": "$account-encryption-key",
            "denyEncryptionScopeOverride": false,
            "metadata": { "k1": "v1" },
            "publicAccess": "None",
            "leaseStatus": "Unlocked",
            "leaseState": "Available",
            "lastModifiedTime": "2026-11-21T12:00:00.0000000Z",
            "legalHold": { "hasLegalHold": false, "tags": [] },
            "hasImmutabilityPolicy": false,
            "hasLegalHold": false,
        },
    });
    assert_eq!(shown.json(), wanted);

    world.clock.advance_seconds(60);
    let again = world.manage(Method::PUT, &path, json!({})).await;
    assert_eq!((again.status, again.json()), (200, wanted.clone()), "a PUT without metadata keeps it");
    let back = world.manage(Method::PUT, &path, wanted.clone()).await;
    assert_eq!(back.status, 200, "what is shown can be put back: {}", back.text());
    let body = json!({ "properties": { "metadata": { "K2": "v2" } } });
    let changed = world.manage(Method::PATCH, &path, body).await;
    assert_eq!((changed.status, &changed.json()["properties"]["metadata"]), (200, &json!({ "K2": "v2" })));
    assert_eq!(changed.json()["properties"]["lastModifiedTime"], "2026-11-21T12:01:00.0000000Z");
    assert!(changed.json()["etag"] != wanted["etag"]);
    let target = "/cc1?restype=container";
    let of_data = world.get(&member, "acct1", target).await;
    assert_eq!((of_data.header("etag"), of_data.header("x-ms-meta-k2")), (changed.header("etag"), "v2"));
    let cleared = world.manage(Method::PATCH, &path, json!({ "properties": { "metadata": {} } })).await;
    assert_eq!(cleared.json()["properties"].get("metadata"), None);

    world.put(&member, "acct1", "/cc1/b", vec![7; 100_000]).await;
    let gone = world.manage(Method::DELETE, &path, Value::Null).await;
    assert_eq!((gone.status, gone.bytes.len()), (200, 0));
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.outcome(), "404 ContainerNotFound");
    assert_eq!(world.manage(Method::PUT, &path, json!({})).await.status, 201);
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.outcome(), "404 BlobNotFound");
    world.sweep().await;
    world.clock.advance_seconds(3601);
    world.sweep().await;
    assert_eq!((world.files().0, world.rows("storage/blobs").await), (0, 0));
}

#[tokio::test]
async fn both_sides_have_the_same_containers() {
    let (world, member) = World::with_account("acct1").await;
    let set = Ask::new(Method::PUT, "acct1", "/cc1?restype=container").with("x-ms-meta-a", "b");
    assert_eq!(world.ask(set.by(&member)).await.outcome(), "201");
    let shown = world.manage(Method::GET, &world.container("acct1", "cc1"), Value::Null).await;
    assert_eq!((shown.status, &shown.json()["properties"]["metadata"]), (200, &json!({ "a": "b" })));
    assert_eq!(world.manage(Method::PUT, &world.container("acct1", "cc2"), json!({})).await.status, 201);
    assert_eq!(world.get(&member, "acct1", "/?comp=list").await.all("Name"), ["cc1", "cc2"]);
    assert_eq!(world.put(&member, "acct1", "/cc2/b", "x").await.outcome(), "201");
    let twice = Ask::new(Method::PUT, "acct1", "/cc2?restype=container").by(&member);
    assert_eq!(world.ask(twice).await.outcome(), "409 ContainerAlreadyExists");
    assert_eq!(world.delete(&member, "acct1", "/cc2?restype=container").await.outcome(), "202");
    let gone = world.manage(Method::GET, &world.container("acct1", "cc2"), Value::Null).await;
    assert_eq!(outcome(&gone), "404 ContainerNotFound");
    assert_eq!(names(&listed(&world, "").await), ["cc1"]);

    world.make_account("acct2").await;
    let other = world.manage(Method::GET, &world.container("acct2", "cc1"), Value::Null).await;
    assert_eq!(outcome(&other), "404 ContainerNotFound");
    assert_eq!(world.manage(Method::DELETE, &world.account("acct1"), Value::Null).await.status, 200);
    for (method, body) in [
        (Method::GET, Value::Null),
        (Method::PUT, json!({})),
        (Method::PATCH, json!({})),
        (Method::DELETE, Value::Null),
    ] {
        let answer = world.manage(method.clone(), &world.container("acct1", "cc1"), body).await;
        assert_eq!(outcome(&answer), "404 ResourceNotFound", "{method}");
    }
    world.make_account("acct1").await;
    assert_eq!(names(&listed(&world, "").await), [""; 0], "an account of the same name has none of them");
}

#[tokio::test]
async fn what_a_container_cannot_be_is_refused() {
    let (world, _) = World::with_account("acct1").await;
    let path = world.container("acct1", "cc1");
    for (properties, refusal) in [
        (json!({ "publicAccess": "Blob" }), "409 PublicAccessNotPermitted"),
        (json!({ "publicAccess": "container" }), "409 PublicAccessNotPermitted"),
        (json!({ "defaultEncryptionScope": "mine" }), "400 FeatureNotSupported"),
        (json!({ "denyEncryptionScopeOverride": true }), "400 FeatureNotSupported"),
        (json!({ "immutableStorageWithVersioning": { "enabled": true } }), "400 FeatureNotSupported"),
        (json!({ "somethingNew": 1 }), "400 FeatureNotSupported"),
        (json!({ "metadata": { "no-hyphens": "x" } }), "400 InvalidMetadata"),
        (json!({ "metadata": { "a": "x", "A": "y" } }), "400 InvalidMetadata"),
        (json!({ "metadata": { "a": "x".repeat(8192) } }), "400 MetadataTooLarge"),
    ] {
        let body = json!({ "properties": properties });
        for method in [Method::PUT, Method::PATCH] {
            let refused = world.manage(method.clone(), &path, body.clone()).await;
            assert_eq!(outcome(&refused), refusal, "{method} {properties}");
        }
    }
    for (name, code) in [
        ("ab", "OutOfRangeInput"),
        ("Cc1", "InvalidResourceName"),
        ("a--b", "InvalidResourceName"),
        ("-abc", "InvalidResourceName"),
        ("$root", "InvalidResourceName"),
        ("a.b", "InvalidResourceName"),
        (&"a".repeat(64), "OutOfRangeInput"),
    ] {
        let path = world.container("acct1", name);
        for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
            let refused = world.manage(method.clone(), &path, json!({})).await;
            assert_eq!(outcome(&refused), format!("400 {code}"), "{method} {name}");
        }
    }
    let target = format!("{path}?api-version={VERSION}");
    let long = format!("{{\"properties\":null,\"name\":\"{}\"}}", "x".repeat(64 * 1024));
    for (body, refusal) in [
        ("", "400 InvalidRequestContent"),
        ("[]", "400 InvalidRequestContent"),
        ("{}{}", "400 InvalidRequestContent"),
        (long.as_str(), "413 RequestEntityTooLarge"),
    ] {
        let refused = ask(&world, Method::PUT, &target, &[], body).await;
        assert_eq!(outcome(&refused), refusal, "{body:.20}");
    }
    assert_eq!(outcome(&ask(&world, Method::PUT, &path, &[], "{}").await), "400 MissingApiVersionParameter");
    assert_eq!(world.rows("storage/containers").await, 0);
    for version in ["2019-06-01", "2023-05-01", "2031-01-01-preview"] {
        let made = world.send_arm(&world.owner, Method::PUT, &path, version, json!({})).await;
        assert!(matches!(made.status, 200 | 201), "{version}");
    }
    for below in ["immutabilityPolicies/default", "setLegalHold", "lease", "migrate"] {
        for method in [Method::GET, Method::PUT, Method::POST] {
            let refused = world.manage(method, &format!("{path}/{below}"), json!({})).await;
            assert!(matches!(refused.status, 404 | 405), "{below}: {}", refused.text());
        }
    }
}

#[tokio::test]
async fn conditions_are_kept() {
    let (world, _) = World::with_account("acct1").await;
    let target = format!("{}?api-version={VERSION}", world.container("acct1", "cc1"));
    let put = async |headers: &[(&str, &str)]| ask(&world, Method::PUT, &target, headers, "{}").await;
    assert_eq!(outcome(&put(&[("if-match", "*")]).await), "412 ConditionNotMet");
    let made = put(&[("if-none-match", "*")]).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(outcome(&put(&[("if-none-match", "*")]).await), "412 ConditionNotMet");
    let (tag, body) = (made.header("etag"), r#"{"properties":{"metadata":{"a":"b"}}}"#);
    let changed = ask(&world, Method::PATCH, &target, &[("if-match", tag)], body).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        for headers in [("if-match", tag), ("x-ms-lease-id", "b5a3c5a5-0000-4000-8000-000000000001")] {
            let refused = ask(&world, method.clone(), &target, &[headers], "{}").await;
            assert_eq!(refused.status, 412, "{method} {headers:?}: {}", refused.text());
        }
    }
    let gone = ask(&world, Method::DELETE, &target, &[("if-match", changed.header("etag"))], "").await;
    assert_eq!(gone.status, 200, "{}", gone.text());
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let (world, _) = World::with_account("acct1").await;
    assert_eq!(listed(&world, "").await, json!({ "value": [] }));
    for number in 0..7 {
        for prefix in ["aa", "bb"] {
            let path = world.container("acct1", &format!("{prefix}{number}"));
            let body = json!({ "properties": { "metadata": { "a": "b" } } });
            assert_eq!(world.manage(Method::PUT, &path, body).await.status, 201);
        }
    }
    let whole = listed(&world, "").await;
    assert_eq!((names(&whole).len(), whole.get("nextLink")), (14, None));
    let item = &whole["value"][0];
    assert_eq!(item["id"], world.container("acct1", "aa0"));
    assert_eq!(item["properties"]["immutableStorageWithVersioning"], json!({ "enabled": false }));
    assert_eq!((item["properties"].get("metadata"), item["properties"].get("legalHold")), (None, None));

    for (query, wanted) in [("", 14), ("&$filter=bb", 7), ("&$filter=c", 0), ("&$include=deleted", 14)] {
        let mut page = listed(&world, &format!("{query}&$maxpagesize=3")).await;
        let mut found: Vec<String> = Vec::new();
        loop {
            assert!(names(&page).len() <= 3, "{query}");
            found.extend(names(&page).into_iter().map(str::to_owned));
            let Some(next) = page["nextLink"].as_str().map(str::to_owned) else { break };
            assert!(next.contains("maxpagesize=3") && next.matches("kip").count() == 1, "{next}");
            let target = next.strip_prefix("https://management.azure.com").unwrap().to_owned();
            let same = ask(&world, Method::GET, &target, &[], "").await;
            page = same.json();
            assert_eq!(ask(&world, Method::GET, &target, &[], "").await.json(), page, "a link is stable");
        }
        let mut sorted = found.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!((found.len(), &found), (wanted, &sorted), "{query}");
    }
    let path = format!("{}/containers", service(&world, "acct1", "blobServices"));
    for (query, refusal) in [
        ("$maxpagesize=0", "400 OutOfRangeQueryParameterValue"),
        ("$maxpagesize=-1", "400 OutOfRangeQueryParameterValue"),
        ("$maxpagesize=x", "400 InvalidQueryParameterValue"),
        ("$include=snapshots", "400 InvalidQueryParameterValue"),
        ("$skipToken=x", "400 InvalidSkipToken"),
        (&format!("$filter={}", "a".repeat(1025)), "400 InvalidQueryParameterValue"),
    ] {
        let target = format!("{path}?api-version={VERSION}&{query}");
        assert_eq!(outcome(&ask(&world, Method::GET, &target, &[], "").await), refusal, "{query:.40}");
    }
    assert_eq!(names(&listed(&world, "&$maxpagesize=99999999999999").await).len(), 14);
}

#[tokio::test]
async fn every_row_refuses_strangers() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.make_group(&format!("{GROUP}2")).await;
    let is_ours = |row: &OpInfo| row.pattern.as_str().contains("/storageAccounts/{name}/");
    let rows: Vec<OpInfo> = world.arm_rows().into_iter().filter(is_ours).collect();
    assert_eq!(rows.len(), 13);
    let (stranger, reader) = (world.caller("stranger"), world.caller("reader"));
    world.grant(&reader, READER, &world.account("acct1")).await;
    for row in rows {
        let Access::Decided { action, .. } = &row.access else { panic!("{} is not decided", row.name) };
        assert!(action.starts_with("Microsoft.Storage/storageAccounts/"), "{action}");
        let path = row
            .pattern
            .as_str()
            .replace("{subscription}", SUBSCRIPTION)
            .replace("{group}", "rg")
            .replace("{name}", "acct1")
            .replace("{container}", "cc1");
        let mut anonymous = Ask::new(row.method.clone(), "none", &format!("{path}?api-version={VERSION}"));
        anonymous.host = "management.azure.com".to_owned();
        assert_eq!(world.ask_arm(anonymous).await.status, 401, "{}", row.name);
        let refused = world.send_arm(&stranger, row.method.clone(), &path, VERSION, json!({})).await;
        assert_eq!(outcome(&refused), format!("403 {REFUSED}"), "{}", row.name);
        let read = world.send_arm(&reader, row.method.clone(), &path, VERSION, json!({})).await;
        let reads = row.method == Method::GET;
        assert_eq!(read.status, if reads { 200 } else { 403 }, "{}: {}", row.name, read.text());
        // Whoever may do so in another group does not do it here.
        let elsewhere = path.replace("/rg/", "/rg2/");
        let strayed = world.manage(row.method.clone(), &elsewhere, json!({ "keyName": "key1" })).await;
        assert_eq!(outcome(&strayed), "404 ResourceNotFound", "{}", row.name);
    }
}

#[tokio::test]
async fn a_role_on_a_container_is_for_that_one() {
    let (world, member) = World::with_account("acct1").await;
    for name in ["ccc", "ccc2", "ccc-2"] {
        world.make_container(&member, "acct1", name).await;
    }
    let one = world.caller("of-one");
    world.grant(&one, BLOB_CONTRIBUTOR, &world.container("acct1", "ccc")).await;
    let send = async |method: Method, path: &str, body: Value| {
        let answer = world.send_arm(&one, method, path, VERSION, body).await;
        outcome(&answer)
    };
    let own = world.container("acct1", "ccc");
    assert_eq!(send(Method::GET, &own, Value::Null).await, "200");
    assert_eq!(send(Method::PATCH, &own, json!({ "properties": { "metadata": { "a": "b" } } })).await, "200");
    let refused = format!("403 {REFUSED}");
    for path in [
        world.container("acct1", "ccc2"),
        world.container("acct1", "ccc-2"),
        service(&world, "acct1", "blobServices"),
        format!("{}/containers", service(&world, "acct1", "blobServices")),
    ] {
        assert_eq!(send(Method::GET, &path, Value::Null).await, refused, "{path}");
    }
    assert_eq!(send(Method::DELETE, &world.container("acct1", "ccc2"), Value::Null).await, refused);
    assert_eq!(send(Method::DELETE, &own, Value::Null).await, "200");
    // The role went with it.
    assert_eq!(send(Method::PUT, &own, json!({})).await, refused);

    let all = world.caller("of-all");
    let at = service(&world, "acct1", "blobServices");
    world.grant(&all, READER, &at).await;
    let list = format!("{at}/containers");
    assert_eq!(world.send_arm(&all, Method::GET, &list, VERSION, Value::Null).await.status, 200);
    let files = service(&world, "acct1", "fileServices");
    let answer = world.send_arm(&all, Method::GET, &files, VERSION, Value::Null).await;
    assert_eq!(outcome(&answer), refused);
}

#[tokio::test]
async fn a_change_is_in_the_audit_log() {
    let (world, _) = World::with_account("acct1").await;
    let path = world.container("acct1", "cc1");
    for (method, body, operation) in [
        (Method::PUT, json!({}), "BlobContainerCreate"),
        (Method::PUT, json!({}), "BlobContainerCreate"),
        (Method::PATCH, json!({ "properties": { "metadata": { "a": "b" } } }), "BlobContainerUpdate"),
        (Method::DELETE, Value::Null, "BlobContainerDelete"),
        (Method::DELETE, Value::Null, "BlobContainerDelete"),
    ] {
        let before = world.store.audit_page(0, 1000).await.unwrap().len();
        world.manage(method, &path, body).await;
        let records = world.store.audit_page(0, 1000).await.unwrap();
        assert_eq!(records.len(), before + 1, "{operation}");
        let (_, last) = records.last().unwrap();
        assert_eq!((&*last.operation, last.scope.to_string()), (operation, path.clone()));
    }
}
