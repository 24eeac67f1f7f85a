//! Requests that meet: nothing is granted twice, and nothing is left of what was deleted.

use std::sync::Arc;

use arcadia_races::{THREADS, block_on, race, rounds};
use serde_json::json;

use crate::support::*;

/// Eight threads, released together, two of them under each name. The twin of the one that makes it may be told that it
/// is there (200); all others are refused.
#[test]
fn one_of_many_equal_assignments_is_made() {
    let site = Arc::new(block_on(Site::new()));
    for round in 0..rounds() {
        let (rg, role) =
            block_on(async { (site.group(&format!("rg{round}")).await, site.role_id("Reader").await) });
        let mut answers: Vec<u16> = race(async |number| {
            let path = assignment(&rg, (round * THREADS + number / 2) as u128);
            let body = json!({ "properties": { "roleDefinitionId": role, "principalId": NINA } });
            site.put(OWNER, &path, body).await.status
        });
        answers.sort_unstable();
        let count = |status: u16| answers.iter().filter(|answer| **answer == status).count();
        let (made, there, refused) = (count(201), count(200), count(409));
        assert!(made == 1 && there <= 1 && refused == THREADS - 1 - there, "round {round}: {answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_outlives_what_it_belongs_to() {
    let site = Arc::new(Site::new().await);
    let rg = site.group("rg").await;
    let role = site.role_id("Reader").await;
    for round in 0..40 {
        let widget = site.widget(&rg, "one").await;
        let assign = {
            let (site, path, role) =
                (site.clone(), assignment(&format!("{widget}/things/x"), round), role.clone());
            tokio::spawn(async move {
                let body = json!({ "properties": { "roleDefinitionId": role, "principalId": NINA } });
                site.put(OWNER, &path, body).await.status
            })
        };
        let nest = {
            let (site, path) = (site.clone(), format!("{widget}/parts/p"));
            tokio::spawn(async move { site.put(OWNER, &path, json!({})).await.status })
        };
        let delete = {
            let (site, path) = (site.clone(), widget.clone());
            tokio::spawn(async move { site.delete(OWNER, &path).await.status })
        };
        assert_eq!(delete.await.unwrap(), 200);
        assert!([201, 404].contains(&assign.await.unwrap()));
        assert!([200, 404].contains(&nest.await.unwrap()));
        let left = site.get(OWNER, &format!("{rg}/resources")).await.is(200);
        assert!(left.names().is_empty(), "round {round}: {}", left.body);
        let roles = format!("{}/providers/Microsoft.Authorization/roleAssignments", subscription());
        let roles = site.get(OWNER, &format!("{roles}?$filter=principalId eq '{NINA}'")).await.is(200);
        assert_eq!(roles.body["value"], json!([]), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_role_outlives_its_resource() {
    let site = Arc::new(Site::new().await);
    let rg = site.group("rg").await;
    let role = site.role_id("Reader").await;
    for round in 0..60_u128 {
        let widget = site.widget(&rg, "one").await;
        let assigns: Vec<_> = (0..8)
            .map(|number| {
                let scope = format!("{widget}/things/{number}");
                let (site, path, role) = (site.clone(), assignment(&scope, round * 8 + number), role.clone());
                tokio::spawn(async move {
                    let body = json!({ "properties": { "roleDefinitionId": role, "principalId": NINA } });
                    site.put(OWNER, &path, body).await.status
                })
            })
            .collect();
        // Deleted somewhere among them.
        for _ in 0..round % 8 {
            tokio::task::yield_now().await;
        }
        site.delete(OWNER, &widget).await.is(200);
        for assign in assigns {
            assert!([201, 404].contains(&assign.await.unwrap()));
        }
        let roles = format!("{}/providers/Microsoft.Authorization/roleAssignments", subscription());
        let roles = site.get(OWNER, &format!("{roles}?$filter=principalId eq '{NINA}'")).await.is(200);
        assert_eq!(roles.body["value"], json!([]), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_of_one_resource_do_not_get_lost() {
    let site = Arc::new(Site::new().await);
    let rg = site.group("rg").await;
    let widget = site.widget(&rg, "one").await;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let (site, path) = (site.clone(), widget.clone());
            tokio::spawn(async move {
                let body = json!({ "sku": { format!("field{number}"): number } });
                site.call(OWNER, arcadia_kernel::Method::PATCH, &path, body).await.is(200);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let sku = site.get(OWNER, &widget).await.is(200).body["sku"].clone();
    assert_eq!(sku.as_object().unwrap().len(), 8, "{sku}");
}

/// What the two tests above rely on, by itself: whoever planned a deletion before must plan it again.
#[tokio::test]
async fn what_comes_below_a_resource_changes_its_revision() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let widget = site.widget(&rg, "one").await;
    let tag = async || site.get(OWNER, &widget).await.is(200).header("etag").to_owned();
    let before = tag().await;
    site.assign(OWNER, 1, NINA, "Reader", &format!("{widget}/things/x")).await.is(201);
    let assigned = tag().await;
    assert_ne!(before, assigned);
    site.put(OWNER, &format!("{widget}/parts/p"), json!({})).await.is(200);
    assert_ne!(assigned, tag().await);
}
