//! Many at once: nothing acknowledged is lost, nothing is half done.

use std::sync::Arc;

use arcadia_kernel::Method;
use serde_json::{Value, json};

use crate::support::*;

/// Every operation on one secret, over and over, by several at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secret_is_live_or_deleted_or_gone_and_never_two_of_them() {
    let world = Arc::new(World::with_vault("kv1").await);
    let officer = world.officer().await;
    let tasks: Vec<_> = (0..8_usize)
        .map(|task| {
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
                    let live = world.rows("keyvault/secrets").await;
                    assert!(live <= 1 && world.rows("keyvault/deletedsecrets").await <= 1);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let live = world.rows("keyvault/secrets").await;
    let deleted = world.rows("keyvault/deletedsecrets").await;
    assert!(live + deleted <= 1, "{live} live and {deleted} deleted");
    assert_eq!(world.rows("keyvault/due").await, deleted);
    assert_eq!(world.rows("keyvault/remnants").await, 0);
    // Every version that is left can be reached.
    let got = world.data(&officer, Method::POST, "kv1", "/deletedsecrets/s/recover").await.status;
    assert_eq!(got == 200, deleted == 1);
    let versions = world.rows("keyvault/versions").await;
    let blob = world.data(&officer, Method::POST, "kv1", "/secrets/s/backup").await;
    assert_eq!(blob.status == 200, versions > 0);
}

/// Sets while the vault is deleted and recovered: what was acknowledged is there afterwards, and nothing is
/// written into a vault that is deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_vault_that_comes_and_goes_keeps_what_was_acknowledged() {
    let world = Arc::new(World::with_vault("kv1").await);
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
        tokio::task::yield_now().await;
        assert_eq!(world.rows("keyvault/secrets").await, before);
        assert_eq!(world.put_vault("kv1", recovering.clone()).await.status, 200);
    }
    let mut kept = 0;
    for writer in writers {
        for name in writer.await.unwrap() {
            assert_eq!(world.value(&officer, "kv1", &name).await, name);
            kept += 1;
        }
    }
    assert_eq!(world.rows("keyvault/secrets").await, kept);
}
