//! Vaults with access policies instead of roles.

use arcadia_crypto::SystemEntropy;
use arcadia_kernel::{ArmId, Decision, EntropyExt as _, Method, Plane, Question};
use serde_json::{Value, json};

use crate::support::*;

const REFUSED: &str = "403 Forbidden/ForbiddenByPolicy";

fn policy(caller: &Caller, secrets: &[&str]) -> Value {
    json!({ "tenantId": TENANT, "objectId": caller.object_id, "permissions": { "secrets": secrets } })
}

async fn policy_vault(world: &World, policies: Value) {
    let mut properties = vault_properties();
    properties["enableRbacAuthorization"] = json!(false);
    properties["accessPolicies"] = policies;
    let answer = world.put_vault("kv1", properties).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

async fn change(world: &World, caller: &Caller, kind: &str, policies: Value) -> Answer {
    let path = format!("{}/accessPolicies/{kind}", world.vault("kv1"));
    let body = json!({ "properties": { "accessPolicies": policies } });
    world.manage(caller, Method::PUT, &path, body).await
}

#[tokio::test]
async fn policies_decide_and_roles_do_not() {
    let world = World::new().await;
    let (nina, officer) = (world.caller("nina"), world.officer().await);
    policy_vault(&world, json!([policy(&nina, &["get", "set"])])).await;
    world.set(&nina, "kv1", "s", "x").await;
    assert_eq!(world.value(&nina, "kv1", "s").await, "x");
    let listed = world.data(&nina, Method::GET, "kv1", "/secrets").await;
    assert_eq!(listed.refusal(), REFUSED);
    assert!(listed.headers.get("x-ms-keyvault-rbac-assignment-id").is_none());
    // A role that would allow everything in a vault with roles.
    assert_eq!(world.value(&officer, "kv1", "s").await, REFUSED);
    assert_eq!(world.value(&world.owner, "kv1", "s").await, REFUSED);
    let message = world.data(&officer, Method::GET, "kv1", "/secrets/s").await.message();
    insta::assert_snapshot!(message.replace(&officer.object_id.to_string(), "OID"));
}

#[tokio::test]
async fn each_operation_needs_its_own_permission() {
    let world = World::new().await;
    let writer = world.caller("writer");
    let most = world.caller("most");
    policy_vault(&world, json!([policy(&writer, &["all", "purge"]), policy(&most, &["all"])])).await;
    let operations = [
        ("get", Method::GET, "/secrets/NAME", 200),
        ("list", Method::GET, "/secrets", 200),
        ("list", Method::GET, "/secrets/NAME/versions", 200),
        ("list", Method::GET, "/deletedsecrets", 200),
        ("get", Method::GET, "/deletedsecrets/NAME", 200),
        ("set", Method::PUT, "/secrets/NAME", 200),
        ("set", Method::PATCH, "/secrets/NAME", 200),
        ("delete", Method::DELETE, "/secrets/NAME", 200),
        ("purge", Method::DELETE, "/deletedsecrets/NAME", 204),
        ("recover", Method::POST, "/deletedsecrets/NAME/recover", 200),
        ("backup", Method::POST, "/secrets/NAME/backup", 200),
        ("restore", Method::POST, "/secrets/restore", 200),
    ];
    assert_eq!(operations.len(), world.data_rows().len());
    let all = ["get", "list", "set", "delete", "purge", "recover", "backup", "restore"];
    for (verb, method, path, status) in operations {
        let (with, without) =
            (world.caller(&format!("with-{verb}")), world.caller(&format!("without-{verb}")));
        let others: Vec<&str> = all.into_iter().filter(|other| *other != verb).collect();
        let policies = json!([policy(&with, &[verb]), policy(&without, &others)]);
        assert_eq!(change(&world, &world.owner, "replace", policies).await.status, 200);
        let refused = world.data(&without, method.clone(), "kv1", path).await;
        assert_eq!(refused.refusal(), REFUSED, "{method} {path}");
        assert!(refused.message().contains(&format!("does not have secrets {verb} permission")));
        // `all` is everything but what nothing brings back.
        let by_most = if verb == "purge" { 403 } else { status };
        for (caller, status) in [(&with, status), (&most, by_most), (&writer, status)] {
            let (path, body) = prepared(&world, &writer, path).await;
            let answer = world.data_with(caller, method.clone(), "kv1", &path, body).await;
            assert_eq!(answer.status, status, "{method} {path} by {}: {}", caller.name, answer.text);
        }
    }
}

/// A new secret, live or deleted or gone, as an operation on it at this path needs it; the path with its name; and a body
/// with a value that can be set or restored.
async fn prepared(world: &World, by: &Caller, path: &str) -> (String, Value) {
    let name = SystemEntropy.uuid().to_string();
    world.set(by, "kv1", &name, "x").await;
    let secret = format!("/secrets/{name}");
    let backup = world.data(by, Method::POST, "kv1", &format!("{secret}/backup")).await.ok();
    let is_restored = path.ends_with("/restore");
    if is_restored || path.starts_with("/deletedsecrets/") {
        world.data(by, Method::DELETE, "kv1", &secret).await.ok();
    }
    if is_restored {
        let purged = world.data(by, Method::DELETE, "kv1", &format!("/deletedsecrets/{name}")).await;
        assert_eq!(purged.status, 204, "{}", purged.text);
    }
    (path.replace("NAME", &name), json!({ "value": backup["value"] }))
}

#[tokio::test]
async fn a_vault_has_no_more_policies_than_it_may_one_by_one_either() {
    let world = World::new().await;
    let policies: Vec<Value> = (0..1024).map(|n| policy(&world.caller(&n.to_string()), &["get"])).collect();
    policy_vault(&world, json!(policies)).await;
    let one_more = policy(&world.caller("one-more"), &["get"]);
    let refused = change(&world, &world.owner, "add", json!([one_more])).await;
    assert_eq!(refused.refusal(), "400 BadRequest");
    change(&world, &world.owner, "remove", json!([policies[0]])).await.ok();
    change(&world, &world.owner, "add", json!([one_more])).await.ok();
}

#[tokio::test]
async fn a_policy_may_name_a_group_or_an_application() {
    let world = World::new().await;
    let (nina, group, other) = (world.caller("nina"), world.caller("a-group"), world.caller("other"));
    let mut through = policy(&other, &["set"]);
    through["applicationId"] = json!("00000000-0000-0000-0000-000000000bad");
    policy_vault(&world, json!([policy(&group, &["set", "get"]), through])).await;
    assert_eq!(world.value(&nina, "kv1", "s").await, REFUSED);
    world.directory.join(&nina, &group);
    assert_eq!(world.value(&nina, "kv1", "s").await, "404 SecretNotFound");
    // The tokens of this test are all from the application a99.
    let set = world.data_with(&other, Method::PUT, "kv1", "/secrets/s", json!({ "value": "x" })).await;
    assert_eq!(set.refusal(), REFUSED);
    let mut through = policy(&other, &["set"]);
    through["applicationId"] = json!("00000000-0000-0000-0000-000000000a99");
    assert_eq!(change(&world, &world.owner, "add", json!([through])).await.status, 200);
    world.set(&other, "kv1", "s", "x").await;
    world.directory.remove(&nina);
    assert_eq!(world.value(&nina, "kv1", "s").await, REFUSED);
}

#[tokio::test]
async fn policies_are_changed_one_by_one() {
    let world = World::new().await;
    let (nina, other) = (world.caller("nina"), world.caller("other"));
    policy_vault(&world, json!([policy(&nina, &["Set"])])).await;
    world.set(&nina, "kv1", "s", "x").await;
    let added =
        change(&world, &world.owner, "add", json!([policy(&nina, &["get"]), policy(&other, &["list"])]))
            .await;
    let policies = added.ok()["properties"]["accessPolicies"].clone();
    assert_eq!(policies, json!([policy(&nina, &["set", "get"]), policy(&other, &["list"])]));
    assert_eq!(world.value(&nina, "kv1", "s").await, "x");
    change(&world, &world.owner, "replace", json!([policy(&nina, &["list"])])).await.ok();
    assert_eq!(world.value(&nina, "kv1", "s").await, REFUSED);
    let left = change(&world, &world.owner, "remove", json!([policy(&nina, &["list"])])).await.ok();
    assert_eq!(left["properties"]["accessPolicies"], json!([policy(&other, &["list"])]));
    let shown = world.manage(&world.owner, Method::GET, &world.vault("kv1"), Value::Null).await.ok();
    assert_eq!(shown["properties"]["accessPolicies"], left["properties"]["accessPolicies"]);

    let mut foreign = policy(&nina, &["get"]);
    foreign["tenantId"] = json!("00000000-0000-0000-0000-000000000001");
    for (kind, policies) in [
        ("drop", json!([policy(&nina, &["get"])])),
        ("add", json!([policy(&nina, &["read"])])),
        ("add", json!([policy(&nina, &["get"]), policy(&nina, &["list"])])),
        ("add", json!([foreign])),
        ("add", json!([{ "tenantId": TENANT, "objectId": "not-a-guid", "permissions": {} }])),
    ] {
        let answer = change(&world, &world.owner, kind, policies).await;
        assert_eq!(answer.status, 400, "{kind}: {}", answer.text);
    }
    let reader = world.caller("reader");
    world.grant(&reader, READER, GROUP).await;
    let answer = change(&world, &reader, "add", json!([policy(&reader, &["get"])])).await;
    assert_eq!(answer.refusal(), "403 AuthorizationFailed");
}

#[tokio::test]
async fn only_who_may_assign_roles_changes_the_permission_model() {
    let world = World::with_vault("kv1").await;
    let manager = world.caller("manager");
    world.grant(&manager, CONTRIBUTOR, GROUP).await;
    let mut properties = vault_properties();
    properties["enableRbacAuthorization"] = json!(false);
    properties["accessPolicies"] = json!([policy(&manager, &["all"])]);
    let body = json!({ "location": "uksouth", "properties": properties });
    let vault = world.vault("kv1");
    let answer = world.manage(&manager, Method::PUT, &vault, body.clone()).await;
    assert_eq!(answer.refusal(), "403 AuthorizationFailed");
    let patch = json!({ "properties": { "enableRbacAuthorization": false } });
    let answer = world.manage(&manager, Method::PATCH, &vault, patch).await;
    assert_eq!(answer.refusal(), "403 AuthorizationFailed");
    assert_eq!(world.value(&manager, "kv1", "s").await, "403 Forbidden/ForbiddenByRbac");
    // Policies of a vault with roles are kept, but count for nothing.
    world
        .manage(
            &manager,
            Method::PATCH,
            &vault,
            json!({ "properties": { "accessPolicies": [policy(&manager, &["all"])] } }),
        )
        .await
        .ok();
    assert_eq!(world.value(&manager, "kv1", "s").await, "403 Forbidden/ForbiddenByRbac");
    assert_eq!(world.manage(&world.owner, Method::PUT, &vault, body).await.status, 200);
    assert_eq!(world.value(&manager, "kv1", "s").await, "404 SecretNotFound");
}

#[tokio::test]
async fn the_model_of_a_new_vault_follows_the_api_version() {
    let world = World::new().await;
    let mut properties = vault_properties();
    properties.as_object_mut().unwrap().remove("enableRbacAuthorization");
    let body = json!({ "location": "uksouth", "properties": properties });
    for (name, version, rbac) in
        [("vold", "2023-07-01", false), ("vnew", "2026-02-01", true), ("vnewer", "2027-01-01", true)]
    {
        let path = world.vault(name);
        let made = world.send_arm(Some(&world.owner), Method::PUT, &path, version, body.clone()).await.ok();
        assert_eq!(made["properties"]["enableRbacAuthorization"], rbac, "{version}");
        // An update that does not say does not change it.
        let other = if rbac { "2023-07-01" } else { "2026-02-01" };
        let again = world.send_arm(Some(&world.owner), Method::PUT, &path, other, body.clone()).await.ok();
        assert_eq!(again["properties"]["enableRbacAuthorization"], rbac, "{version}");
    }
}

#[tokio::test]
async fn policies_answer_for_the_data_of_their_own_vault_alone() {
    let world = World::new().await;
    let nina = world.caller("nina");
    policy_vault(&world, json!([policy(&nina, &["all"])])).await;
    let caller = world.directory.kernel_caller("nina");
    let action = "Microsoft.KeyVault/vaults/secrets/getSecret/action";
    let decide = |scope: &str, action: &str, plane: Plane| {
        let scope = ArmId::parse(scope).unwrap();
        world.keyvault.decide_by_policy(&Question { caller: &caller, action, plane, scope: &scope })
    };
    let secret = format!("{}/secrets/s", world.vault("KV1"));
    assert!(matches!(decide(&secret, action, Plane::Data), Some(Decision::Allowed { .. })));
    let other = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read";
    assert!(matches!(decide(&secret, other, Plane::Data), Some(Decision::Denied(_))));
    assert_eq!(decide(&secret, "Microsoft.KeyVault/vaults/write", Plane::Control), None);
    let elsewhere = secret.replace("/resourceGroups/rg/", "/resourceGroups/rg2/");
    assert_eq!(decide(&elsewhere, action, Plane::Data), None);
    assert_eq!(decide(GROUP, action, Plane::Data), None);
    assert_eq!(decide("/", action, Plane::Data), None);
}
