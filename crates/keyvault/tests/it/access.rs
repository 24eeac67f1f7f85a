//! Who may do what where: by roles.

use arcadia_kernel::Method;
use serde_json::json;

use crate::support::*;

const REFUSED: &str = "403 Forbidden/ForbiddenByRbac";

#[tokio::test]
async fn a_role_on_the_vault_allows_at_once_and_no_longer_than_it_lasts() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "NinaIsTheMole").await;
    let nina = world.caller("nina");
    assert_eq!(world.value(&nina, "kv1", "s").await, REFUSED);
    let assignment = world.grant(&nina, SECRETS_USER, &world.vault("kv1")).await;
    assert_eq!(world.value(&nina, "kv1", "s").await, "NinaIsTheMole");
    let put = world.data_with(&nina, Method::PUT, "kv1", "/secrets/s", json!({ "value": "x" })).await;
    assert_eq!(put.refusal(), REFUSED);
    assert_eq!(world.data(&nina, Method::DELETE, "kv1", "/secrets/s").await.refusal(), REFUSED);
    assert_eq!(world.data(&nina, Method::GET, "kv1", "/secrets").await.status, 200);
    world.revoke(&assignment).await;
    assert_eq!(world.value(&nina, "kv1", "s").await, REFUSED);
}

#[tokio::test]
async fn roles_that_manage_a_vault_see_none_of_its_data() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    for (name, role) in [
        ("reader", READER),
        ("contributor", CONTRIBUTOR),
        ("manager", KEYVAULT_CONTRIBUTOR),
        ("second", OWNER),
    ] {
        let caller = world.caller(name);
        world.grant(&caller, role, &world.vault("kv1")).await;
        world.grant(&caller, role, GROUP).await;
        assert_eq!(world.value(&caller, "kv1", "s").await, REFUSED, "{name}");
        assert_eq!(world.data(&caller, Method::GET, "kv1", "/secrets").await.refusal(), REFUSED, "{name}");
    }
    assert_eq!(world.value(&world.owner, "kv1", "s").await, REFUSED);
}

#[tokio::test]
async fn a_reader_of_metadata_lists_but_does_not_get() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    let reader = world.caller("metadata");
    world.grant(&reader, KEYVAULT_READER, &world.vault("kv1")).await;
    for path in ["/secrets", "/secrets/s/versions", "/deletedsecrets"] {
        let answer = world.data(&reader, Method::GET, "kv1", path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert!(!answer.text.contains("\"value\":\"x\""));
    }
    assert_eq!(world.value(&reader, "kv1", "s").await, REFUSED);
}

#[tokio::test]
async fn a_role_reaches_no_further_than_its_scope() {
    let world = World::with_vault("kv1").await;
    world.make_vault("kv12").await;
    let officer = world.officer().await;
    for (vault, name) in [("kv1", "s"), ("kv1", "s2"), ("kv12", "s")] {
        world.set(&officer, vault, name, "x").await;
    }
    let of_vault = world.caller("of-vault");
    world.grant(&of_vault, SECRETS_USER, &world.vault("kv1")).await;
    assert_eq!(world.value(&of_vault, "kv1", "s2").await, "x");
    assert_eq!(world.value(&of_vault, "kv12", "s").await, REFUSED);

    let of_other = world.caller("of-other");
    world.grant(&of_other, KEYVAULT_ADMINISTRATOR, &world.vault("kv12")).await;
    assert_eq!(world.value(&of_other, "kv1", "s").await, REFUSED);

    let of_secret = world.caller("of-secret");
    world.grant(&of_secret, SECRETS_USER, &format!("{}/secrets/s", world.vault("kv1"))).await;
    assert_eq!(world.value(&of_secret, "kv1", "s").await, "x");
    assert_eq!(world.value(&of_secret, "kv1", "S").await, "x");
    assert_eq!(world.value(&of_secret, "kv1", "s2").await, REFUSED);
    assert_eq!(world.data(&of_secret, Method::GET, "kv1", "/secrets/s/versions").await.status, 200);
    assert_eq!(world.data(&of_secret, Method::GET, "kv1", "/secrets/s2/versions").await.refusal(), REFUSED);
    assert_eq!(world.data(&of_secret, Method::GET, "kv1", "/secrets").await.refusal(), REFUSED);
}

#[tokio::test]
async fn scopes_compare_without_case() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "Secret-One", "x").await;
    let nina = world.caller("nina");
    let scope =
        format!("{}/Secrets/SECRET-one", world.vault("KV1").replace("resourceGroups", "RESOURCEGROUPS"));
    world.grant(&nina, SECRETS_USER, &scope).await;
    assert_eq!(world.value(&nina, "kv1", "secret-ONE").await, "x");
    let answer = world.data(&nina, Method::GET, "kv1", "//SECRETS//secret-one/").await;
    assert_eq!(answer.ok()["id"].as_str().unwrap().split('/').nth(4), Some("Secret-One"));
}

#[tokio::test]
async fn a_refusal_says_who_asked_for_what_where() {
    let world = World::with_vault("Vault-One").await;
    for (name, method, path) in [
        ("nina", Method::GET, "/secrets/My-Secret"),
        ("nina", Method::GET, "/secrets"),
        ("nina", Method::GET, "/secrets/My-Secret/versions"),
        ("machine-01", Method::GET, "/secrets/My-Secret"),
    ] {
        let caller = world.caller(name);
        let answer = world.data(&caller, method, "vault-one", path).await;
        assert_eq!(answer.refusal(), REFUSED);
        let message = answer.message().replace(&caller.object_id.to_string(), "OID");
        let snapshot = format!("{name}{}", path.replace('/', "-"));
        insta::assert_snapshot!(snapshot, message.escape_debug().to_string());
    }
}

#[tokio::test]
async fn a_principal_that_is_gone_holds_nothing() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    world.directory.remove(&officer);
    assert_eq!(world.value(&officer, "kv1", "s").await, REFUSED);
}

#[tokio::test]
async fn a_deleted_vault_takes_its_assignments_with_it() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    let nina = world.caller("nina");
    world.grant(&nina, SECRETS_USER, &world.vault("kv1")).await;
    assert_eq!(world.value(&nina, "kv1", "s").await, "x");
    let vault = world.vault("kv1");
    assert_eq!(world.manage(&world.owner, Method::DELETE, &vault, json!(null)).await.status, 200);
    assert_eq!(world.value(&nina, "kv1", "s").await, "404 VaultNotFound");
    let mut properties = vault_properties();
    properties["createMode"] = json!("recover");
    assert_eq!(world.put_vault("kv1", properties).await.status, 200);
    assert_eq!(world.value(&officer, "kv1", "s").await, "x");
    assert_eq!(world.value(&nina, "kv1", "s").await, REFUSED);
}
