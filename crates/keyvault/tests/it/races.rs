//! Many at once, over a store that lets them run into one another: nothing acknowledged is lost, nothing is half
//! done.

use std::sync::Arc;

use arcadia_kernel::{Method, full_body};
use futures_util::future::{join, join_all};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::support::*;

async fn let_others_run() {
    for _ in 0..30 {
        tokio::task::yield_now().await;
    }
}

/// Every operation on one secret, over and over, by several at once.
#[tokio::test]
async fn a_secret_is_live_or_deleted_or_gone_and_never_two_of_them() {
    let world = Arc::new(World::interleaved().await);
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    let tasks = (0..8_usize).map(|task| {
        let (world, officer) = (world.clone(), officer.clone());
        tokio::spawn(async move {
            for round in 0..60 {
                let (method, path) = match (task + round * 7) % 5 {
                    0 | 1 => (Method::PUT, "/secrets/s"),
                    2 => (Method::DELETE, "/secrets/s"),
                    3 => (Method::POST, "/deletedsecrets/s/recover"),
                    _ => (Method::DELETE, "/deletedsecrets/s"),
                };
                let body = json!({ "value": format!("{task}/{round}") });
                let answer = world.data_with(&officer, method.clone(), "kv1", path, body).await;
                let known = matches!(answer.status, 200 | 204 | 400 | 404 | 409);
                assert!(known, "{method} {path}: {} {}", answer.status, answer.text);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
        let live = world.rows("keyvault/secrets").await;
        let deleted = world.rows("keyvault/deletedsecrets").await;
        assert!(live <= 1 && deleted <= 1, "{live} live and {deleted} deleted");
    }
    let live = world.rows("keyvault/secrets").await;
    let deleted = world.rows("keyvault/deletedsecrets").await;
    assert!(live + deleted <= 1, "{live} live and {deleted} deleted");
    assert_eq!(world.rows("keyvault/due").await, deleted);
    assert_eq!(world.rows("keyvault/remnants").await, 0);
    // Every version that is left belongs to the secret that is left.
    if deleted == 1 {
        world.data(&officer, Method::POST, "kv1", "/deletedsecrets/s/recover").await.ok();
    }
    let versions = world.rows("keyvault/versions").await;
    assert_eq!(versions > 0, live + deleted == 1);
    let mut listed = 0;
    let mut path = "/secrets/s/versions".to_owned();
    loop {
        let page = world.data(&officer, Method::GET, "kv1", &path).await.ok();
        listed += page["value"].as_array().unwrap().len();
        match page["nextLink"].as_str() {
            Some(next) => path = next.strip_prefix("https://kv1.vault.azure.net").unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(listed, versions);
}

#[tokio::test]
async fn first_sets_of_one_name_make_one_secret() {
    let world = World::interleaved().await;
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    let sets = (0..12).map(|round| {
        let (world, officer) = (&world, &officer);
        async move { world.set(officer, "kv1", "s", &format!("{round}")).await }
    });
    join_all(sets).await;
    let listed = world.data(&officer, Method::GET, "kv1", "/secrets/s/versions").await.ok();
    assert_eq!(listed["value"].as_array().unwrap().len(), 12);
    assert_eq!(world.rows("keyvault/versions").await, 12);
}

#[tokio::test]
async fn updates_of_different_fields_are_all_kept() {
    let world = World::interleaved().await;
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    for is_newest in [true, false] {
        let name = if is_newest { "newest" } else { "older" };
        let id = world.set(&officer, "kv1", name, "x").await["id"].as_str().unwrap().to_owned();
        if !is_newest {
            world.set(&officer, "kv1", name, "y").await;
        }
        let path = id.strip_prefix("https://kv1.vault.azure.net").unwrap();
        let changes = [
            json!({ "contentType": "c" }),
            json!({ "tags": { "t": "v" } }),
            json!({ "attributes": { "exp": 2_000_000_000 } }),
            json!({ "attributes": { "nbf": 1_000_000_000 } }),
        ];
        let updates = changes.into_iter().map(|change| {
            let (world, officer) = (&world, &officer);
            async move { world.data_with(officer, Method::PATCH, "kv1", path, change).await.ok() }
        });
        join_all(updates).await;
        let got = world.data(&officer, Method::GET, "kv1", path).await.ok();
        assert_eq!((&got["contentType"], &got["tags"]["t"]), (&json!("c"), &json!("v")), "{name}");
        assert_eq!(got["attributes"]["exp"], 2_000_000_000, "{name}");
        assert_eq!(got["attributes"]["nbf"], 1_000_000_000, "{name}");
    }
}

/// Sets while the vault is deleted and recovered: what was acknowledged is there afterwards, and nothing is
/// written into a vault that is deleted.
#[tokio::test]
async fn a_vault_that_comes_and_goes_keeps_what_was_acknowledged() {
    let world = Arc::new(World::interleaved().await);
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    let writers: Vec<_> = (0..6)
        .map(|task| {
            let (world, officer) = (world.clone(), officer.clone());
            tokio::spawn(async move {
                let mut kept = Vec::new();
                for round in 0..40 {
                    let name = format!("s-{task}-{round}");
                    let body = json!({ "value": name });
                    let path = format!("/secrets/{name}");
                    let answer = world.data_with(&officer, Method::PUT, "kv1", &path, body).await;
                    match answer.status {
                        200 => kept.push(name),
                        404 => assert_eq!(answer.refusal(), "404 VaultNotFound"),
                        _ => panic!("{} {}", answer.status, answer.text),
                    }
                }
                kept
            })
        })
        .collect();
    let mut recovering = vault_properties();
    recovering["createMode"] = json!("recover");
    for _ in 0..10 {
        let vault = world.vault("kv1");
        assert_eq!(world.manage(&world.owner, Method::DELETE, &vault, Value::Null).await.status, 200);
        let before = world.rows("keyvault/secrets").await;
        let_others_run().await;
        assert_eq!(world.rows("keyvault/secrets").await, before);
        assert_eq!(world.put_vault("kv1", recovering.clone()).await.status, 200);
        let_others_run().await;
    }
    let mut kept = 0;
    for writer in writers {
        for name in writer.await.unwrap() {
            assert_eq!(world.value(&officer, "kv1", &name).await, name);
            kept += 1;
        }
    }
    assert!(kept > 0);
    assert_eq!(world.rows("keyvault/secrets").await, kept);
}

#[tokio::test]
async fn one_of_many_gets_a_vaults_name() {
    let world = World::interleaved().await;
    let groups: Vec<String> = (0..5).map(|number| format!("{GROUP}{number}")).collect();
    for group in &groups {
        world.manage(&world.owner, Method::PUT, group, json!({ "location": "uksouth" })).await;
    }
    let body = json!({ "location": "uksouth", "properties": vault_properties() });
    let makes = groups.iter().map(|group| {
        let (world, body) = (&world, body.clone());
        let path = format!("{group}/providers/Microsoft.KeyVault/vaults/wanted");
        async move { world.manage(&world.owner, Method::PUT, &path, body).await.refusal() }
    });
    let mut answers = join_all(makes).await;
    answers.sort();
    assert_eq!(answers[0], "200 -");
    assert!(answers[1..].iter().all(|answer| answer == "409 VaultAlreadyExists"), "{answers:?}");
    assert_eq!(world.rows("arm/resources").await, 1);
}

/// A recovery and a purge of the same vault or secret: one of them wins.
#[tokio::test]
async fn recovered_or_purged_but_not_both() {
    for round in 0..12 {
        let world = World::interleaved().await;
        world.make_vault("kv1").await;
        let officer = world.officer().await;
        for _ in 0..round {
            world.set(&officer, "kv1", "other", "x").await;
        }
        world.set(&officer, "kv1", "s", "x").await;
        world.data(&officer, Method::DELETE, "kv1", "/secrets/s").await.ok();
        let recover = world.data(&officer, Method::POST, "kv1", "/deletedsecrets/s/recover");
        let purge = world.data(&officer, Method::DELETE, "kv1", "/deletedsecrets/s");
        let (recover, purge) = futures_util::future::join(recover, purge).await;
        assert_eq!((recover.status == 200) as u8 + (purge.status == 204) as u8, 1);
        let value = world.value(&officer, "kv1", "s").await;
        assert_eq!(value == "x", recover.status == 200, "{value}");

        let vault = world.vault("kv1");
        assert_eq!(world.manage(&world.owner, Method::DELETE, &vault, Value::Null).await.status, 200);
        let mut properties = vault_properties();
        properties["createMode"] = json!("recover");
        let path = format!(
            "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault/locations/uksouth/deletedVaults/kv1/purge"
        );
        let recover = world.put_vault("kv1", properties);
        let purge = world.manage(&world.owner, Method::POST, &path, Value::Null);
        let (recover, purge) = futures_util::future::join(recover, purge).await;
        let (recovered, purged) = (recover.status == 200, purge.status == 202);
        assert!(recovered != purged, "{} {}", recover.text, purge.text);
        assert_eq!(world.rows("keyvault/names").await, usize::from(recovered));
        assert_eq!(world.rows("keyvault/versions").await > 0, recovered && (value == "x" || round > 0));
    }
}

/// A set and a deletion: the one that comes second sees what the first did.
#[tokio::test]
async fn a_set_and_a_deletion_take_turns() {
    let world = World::interleaved().await;
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    for round in 0..60 {
        let name = format!("s-{round}");
        let path = format!("/secrets/{name}");
        world.set(&officer, "kv1", &name, "old").await;
        let set = world.data_with(&officer, Method::PUT, "kv1", &path, json!({ "value": "new" }));
        let delete = world.data(&officer, Method::DELETE, "kv1", &path);
        let (set, delete) = futures_util::future::join(set, delete).await;
        assert_eq!(delete.status, 200);
        let recover = format!("/deletedsecrets/{name}/recover");
        world.data(&officer, Method::POST, "kv1", &recover).await.ok();
        let expected = if set.status == 200 { "new" } else { "old" };
        assert_eq!(world.value(&officer, "kv1", &name).await, expected, "set answered {}", set.status);
    }
}

/// A first set beside one that is deleted again at once: the name is never live and deleted.
#[tokio::test]
async fn a_first_set_sees_a_deletion_of_the_moment_before() {
    let world = World::interleaved().await;
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    for round in 0..150 {
        let name = format!("s-{round}");
        let path = format!("/secrets/{name}");
        let put =
            |value: &str| world.data_with(&officer, Method::PUT, "kv1", &path, json!({ "value": value }));
        let short = async {
            put("short").await;
            world.data(&officer, Method::DELETE, "kv1", &path).await.status
        };
        let (slow, deleted) = futures_util::future::join(put("slow"), short).await;
        let live = world.value(&officer, "kv1", &name).await;
        let gone = format!("/deletedsecrets/{name}");
        let is_deleted = world.data(&officer, Method::GET, "kv1", &gone).await.status == 200;
        assert_eq!(is_deleted, live.starts_with("404"), "{live}, set {}, deleted {deleted}", slow.status);
    }
}

/// A vault that is recovered and deleted again while the sweep purges others: that deletion has its own time.
#[tokio::test]
async fn a_sweep_purges_the_deletion_that_is_due_and_no_later_one() {
    let world = World::interleaved().await;
    let names: Vec<String> = (1..=12).map(|number| format!("kv{number}")).collect();
    let officer = world.officer().await;
    for name in &names {
        world.make_vault(name).await;
        world.set(&officer, name, "s", name).await;
        assert_eq!(
            world.manage(&world.owner, Method::DELETE, &world.vault(name), Value::Null).await.status,
            200
        );
        // The sweep goes through them in this order.
        world.clock.advance_seconds(1);
    }
    world.clock.advance_seconds(7 * DAY);
    let mut recovering = vault_properties();
    recovering["createMode"] = json!("recover");
    let again = async {
        let_others_run().await;
        let recovered = world.put_vault("kv12", recovering.clone()).await.status;
        let deleted =
            world.manage(&world.owner, Method::DELETE, &world.vault("kv12"), Value::Null).await.status;
        (recovered, deleted)
    };
    let (swept, again) = join(world.sweep(), again).await;
    assert_eq!((swept.vaults, again), (11, (200, 200)));
    assert_eq!(world.rows("keyvault/deletedvaults").await, 1);
    assert_eq!(world.put_vault("kv12", recovering).await.status, 200);
    assert_eq!(world.value(&officer, "kv12", "s").await, "kv12");
    assert_eq!(world.rows("keyvault/due").await, 0);
}

/// What a request began with is not what counts: its body may take long to arrive.
#[tokio::test]
async fn a_purge_sees_protection_that_came_while_its_body_arrived() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    world.data(&officer, Method::DELETE, "kv1", "/secrets/s").await.ok();
    let (arrive, arrived) = tokio::sync::oneshot::channel();
    let slow = full_body("").with_trailers(async {
        arrived.await.unwrap();
        None
    });
    let ask = world.asking(Some(&officer), Method::DELETE, "kv1", "/deletedsecrets/s", Value::Null);
    let purge = world.ask_with_body(ask, slow.boxed_unsync());
    let protect = async {
        let mut properties = vault_properties();
        properties["enablePurgeProtection"] = json!(true);
        let answer = world.put_vault("kv1", properties).await.status;
        arrive.send(()).unwrap();
        answer
    };
    let (purge, protect) = join(purge, protect).await;
    assert_eq!((purge.refusal().as_str(), protect), ("403 Forbidden", 200));
    world.data(&officer, Method::POST, "kv1", "/deletedsecrets/s/recover").await.ok();
    assert_eq!(world.value(&officer, "kv1", "s").await, "x");
}

/// A purge that found a deletion without protection purges no other one.
#[tokio::test]
async fn a_purge_is_of_the_deletion_that_it_checked() {
    let (world, backend) = World::held_up().await;
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    let vault = world.vault("kv1");
    assert_eq!(world.manage(&world.owner, Method::DELETE, &vault, Value::Null).await.status, 200);
    let mut recovering = vault_properties();
    recovering["createMode"] = json!("recover");
    let mut protected = vault_properties();
    protected["enablePurgeProtection"] = json!(true);
    let path = format!(
        "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault/locations/uksouth/deletedVaults/kv1/purge"
    );
    let purge = world.manage(&world.owner, Method::POST, &path, Value::Null);
    let protect = async {
        for properties in [recovering.clone(), protected] {
            assert_eq!(world.put_vault("kv1", properties).await.status, 200);
        }
        assert_eq!(world.manage(&world.owner, Method::DELETE, &vault, Value::Null).await.status, 200);
    };
    let (purge, ()) = backend.between("keyvault/deletedvaults", purge, protect).await;
    assert_eq!(purge.refusal(), "404 DeletedVaultNotFound");
    assert_eq!(world.put_vault("kv1", recovering).await.status, 200);
    assert_eq!(world.value(&officer, "kv1", "s").await, "x");
}

/// The row that a purge finds without protection is the one that counts until it is committed.
#[tokio::test]
async fn a_purge_sees_protection_that_came_after_its_look() {
    let (world, backend) = World::held_up().await;
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    world.data(&officer, Method::DELETE, "kv1", "/secrets/s").await.ok();
    let mut protected = vault_properties();
    protected["enablePurgeProtection"] = json!(true);
    let purge = world.data(&officer, Method::DELETE, "kv1", "/deletedsecrets/s");
    let protect = world.put_vault("kv1", protected);
    let (purge, protect) = backend.between("arm/resources", purge, protect).await;
    assert_eq!((purge.refusal().as_str(), protect.status), ("403 Forbidden", 200));
    world.data(&officer, Method::POST, "kv1", "/deletedsecrets/s/recover").await.ok();
    assert_eq!(world.value(&officer, "kv1", "s").await, "x");
}

/// A secret that is recovered while the sweep looks at it stays, and so does one that is deleted again then.
#[tokio::test]
async fn a_sweep_purges_no_secret_that_was_recovered() {
    let (world, backend) = World::held_up().await;
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    let delete = async || world.data(&officer, Method::DELETE, "kv1", "/secrets/s").await.ok();
    let recover = async || world.data(&officer, Method::POST, "kv1", "/deletedsecrets/s/recover").await.ok();
    delete().await;
    world.clock.advance_seconds(7 * DAY);
    let (swept, _) = backend.between("keyvault/deletedsecrets", world.sweep(), recover()).await;
    assert_eq!(swept.secrets, 0);
    assert_eq!(world.value(&officer, "kv1", "s").await, "x");

    delete().await;
    world.clock.advance_seconds(7 * DAY);
    let again = async {
        recover().await;
        delete().await;
    };
    let (swept, ()) = backend.between("keyvault/due", world.sweep(), again).await;
    assert_eq!(swept.secrets, 0);
    recover().await;
    assert_eq!(world.value(&officer, "kv1", "s").await, "x");
}

/// Access policies that come at the same moment are all kept, and bring no vault back that is deleted at that moment.
#[tokio::test]
async fn changes_of_access_policies_take_turns() {
    let (world, backend) = World::held_up().await;
    world.make_vault("kv1").await;
    let vault = world.vault("kv1");
    let add = async |name: &str| {
        let policy = json!({
            "tenantId": TENANT,
            "objectId": world.caller(name).object_id,
            "permissions": { "secrets": ["get"] },
        });
        let body = json!({ "properties": { "accessPolicies": [policy] } });
        world.manage(&world.owner, Method::PUT, &format!("{vault}/accessPolicies/add"), body).await
    };
    let (first, other) = backend.between("arm/resources", add("first"), add("other")).await;
    assert_eq!((first.status, other.status), (200, 200));
    let shown = world.manage(&world.owner, Method::GET, &vault, Value::Null).await.ok();
    assert_eq!(shown["properties"]["accessPolicies"].as_array().unwrap().len(), 2);

    let delete = world.manage(&world.owner, Method::DELETE, &vault, Value::Null);
    let (late, deleted) = backend.between("arm/resources", add("late"), delete).await;
    assert_eq!((late.refusal().as_str(), deleted.status), ("404 ResourceNotFound", 200));
    assert_eq!(world.manage(&world.owner, Method::GET, &vault, Value::Null).await.status, 404);
}

/// A restore finds the name free, and takes it from nobody who comes in between.
#[tokio::test]
async fn a_restore_replaces_nothing() {
    for (table, is_deleted) in [("keyvault/secrets", false), ("keyvault/deletedsecrets", true)] {
        let (world, backend) = World::held_up().await;
        for vault in ["kv1", "kv2"] {
            world.make_vault(vault).await;
        }
        let officer = world.officer().await;
        world.set(&officer, "kv1", "s", "old").await;
        let backup = world.data(&officer, Method::POST, "kv1", "/secrets/s/backup").await.ok();
        let restore = world.data_with(&officer, Method::POST, "kv2", "/secrets/restore", backup);
        let meanwhile = async {
            world.set(&officer, "kv2", "s", "new").await;
            if is_deleted {
                world.data(&officer, Method::DELETE, "kv2", "/secrets/s").await.ok();
            }
        };
        let (restored, ()) = backend.between(table, restore, meanwhile).await;
        assert_eq!(restored.refusal(), "409 Conflict", "{table}");
        if is_deleted {
            world.data(&officer, Method::POST, "kv2", "/deletedsecrets/s/recover").await.ok();
        }
        assert_eq!(world.value(&officer, "kv2", "s").await, "new", "{table}");
    }
}

/// The key of backups is made with the first, and is one.
#[tokio::test]
async fn first_backups_are_under_one_key() {
    let (world, backend) = World::held_up().await;
    for vault in ["kv1", "kv2"] {
        world.make_vault(vault).await;
    }
    let officer = world.officer().await;
    for name in ["a", "b"] {
        world.set(&officer, "kv1", name, "x").await;
    }
    let backup = async |name: &str| {
        world.data(&officer, Method::POST, "kv1", &format!("/secrets/{name}/backup")).await.ok()
    };
    let (a, b) = backend.between("keyvault/backupkey", backup("a"), backup("b")).await;
    for blob in [a, b] {
        world.data_with(&officer, Method::POST, "kv2", "/secrets/restore", blob).await.ok();
    }
}

/// A set that found a secret which is purged and made anew by then is of the new one.
#[tokio::test]
async fn a_set_is_of_the_secret_that_is_there() {
    let (world, backend) = World::held_up().await;
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "old").await;
    let anew = async {
        world.data(&officer, Method::DELETE, "kv1", "/secrets/s").await.ok();
        world.data(&officer, Method::DELETE, "kv1", "/deletedsecrets/s").await;
        world.set(&officer, "kv1", "s", "first").await;
    };
    backend.between("keyvault/secrets", world.set(&officer, "kv1", "s", "second"), anew).await;
    let versions = world.data(&officer, Method::GET, "kv1", "/secrets/s/versions").await.ok();
    assert_eq!(versions["value"].as_array().unwrap().len(), 2);
}

/// A version that was set while the former one was updated stays the newest.
#[tokio::test]
async fn an_update_leaves_the_newest_version_what_it_is() {
    let (world, backend) = World::held_up().await;
    world.make_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "old").await;
    let update = world.data_with(&officer, Method::PATCH, "kv1", "/secrets/s", json!({ "contentType": "c" }));
    let set = world.set(&officer, "kv1", "s", "new");
    let (updated, _) = backend.between("keyvault/versions", update, set).await;
    assert_eq!(updated.ok()["contentType"], "c");
    assert_eq!(world.value(&officer, "kv1", "s").await, "new");
}
