//! Requests that meet: nothing is granted twice, and nothing is left of what was deleted.

use std::sync::Arc;

use arcadia_arm::RESOURCES;
use arcadia_crypto::{KeyRing, SystemEntropy};
use arcadia_kernel::{ArmId, FixedClock, Outcome};
use arcadia_races::{THREADS, block_on, race, rounds};
use arcadia_store::Store;
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

/// The last two who administer a subscription are taken away at the same moment: one stays.
#[test]
fn one_of_the_last_two_administrators_stays() {
    let site = block_on(Site::new());
    let list =
        format!("{}/providers/Microsoft.Authorization/roleAssignments?$filter=atScope()", subscription());
    let (owner, founder) = block_on(async {
        site.assign(OWNER, 0, STRANGER, "Role Based Access Control Administrator", &subscription())
            .await
            .is(201);
        let held = site.get(OWNER, &format!("{list} and principalId eq '{OWNER}'")).await.is(200);
        (site.role_id("Owner").await, held.body["value"][0]["id"].as_str().unwrap().to_owned())
    });
    let path = |number: usize| assignment(&subscription(), 1 + number as u128);
    for round in 0..rounds() {
        block_on(async {
            for (number, who) in [NINA, MACHINE].into_iter().enumerate() {
                let body = json!({ "properties": { "roleDefinitionId": owner, "principalId": who } });
                assert!([200, 201].contains(&site.put(STRANGER, &path(number), body).await.status));
            }
            assert!([200, 204].contains(&site.delete(STRANGER, &founder).await.status));
        });
        let answers = race(async |number| site.delete(STRANGER, &path(number % 2)).await.status);
        let count = |status: u16| answers.iter().filter(|answer| **answer == status).count();
        assert_eq!((count(200), count(412)), (1, THREADS / 2), "round {round}: {answers:?}");
        let left = block_on(site.get(NINA, &list)).status.min(block_on(site.get(MACHINE, &list)).status);
        assert_eq!(left, 200, "round {round}: {answers:?}");
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
    let id = ArmId::parse(&widget).unwrap();
    let revision = async || site.store.get(RESOURCES, &id).await.unwrap().unwrap().revision;
    let tag = async || site.get(OWNER, &widget).await.is(200).header("etag").to_owned();
    let (before, unchanged) = (revision().await, tag().await);
    site.assign(OWNER, 1, NINA, "Reader", &format!("{widget}/things/x")).await.is(201);
    let assigned = revision().await;
    assert_ne!(before, assigned);
    site.put(OWNER, &format!("{widget}/parts/p"), json!({})).await.is(200);
    assert_ne!(assigned, revision().await);
    // For clients it is what it was.
    assert_eq!(tag().await, unchanged);
}

/// Resources, and roles at and below the group: what it had before is deleted with it, and nothing comes after.
#[test]
fn nothing_is_put_into_a_group_that_is_being_deleted() {
    let site = block_on(Site::new());
    let role = block_on(site.role_id("Reader"));
    let mut seen = 0;
    for round in 0..rounds() {
        let rg = block_on(site.group(&format!("rg{round}")));
        let deletes = round % THREADS;
        let answers = race(async |number| {
            let (path, body) = match number % 2 {
                _ if number == deletes => return site.delete(OWNER, &rg).await.status,
                0 => {
                    let scope =
                        if number < 4 { rg.clone() } else { format!("{rg}/providers/No.Such/bars/x") };
                    let who = if number % 4 == 0 { NINA } else { MACHINE };
                    let path = assignment(&scope, (round * THREADS + number) as u128);
                    (path, json!({ "properties": { "roleDefinitionId": role, "principalId": who } }))
                }
                _ => {
                    let path = format!("{rg}/providers/Test.Widgets/widgets/one{number}");
                    (path, json!({ "location": "uksouth" }))
                }
            };
            site.put(OWNER, &path, body).await.status
        });
        assert_eq!(answers[deletes], 202, "round {round}: {answers:?}");
        assert!(answers.iter().all(|status| [201, 202, 409].contains(status)), "round {round}: {answers:?}");
        // A record is in the commit of its change.
        let page = block_on(site.store.audit_page(seen, 1000)).unwrap();
        seen = page.last().unwrap().0;
        let committed = page.into_iter().filter(|(_, record)| record.outcome == Outcome::Committed);
        let last = committed.last().unwrap().1;
        assert_eq!(last.operation, "ResourceGroupDelete", "round {round}: {answers:?}");
    }
}

async fn custom_role(site: &Site, number: usize) -> String {
    let name = uuid::Uuid::from_u128(0xC0_0000 + number as u128);
    let path = format!("{}/providers/Microsoft.Authorization/roleDefinitions/{name}", subscription());
    let body = json!({ "properties": {
        "roleName": format!("Watcher {number}"),
        "assignableScopes": [subscription()],
        "permissions": [{ "actions": ["*/read"] }],
    }});
    site.put(OWNER, &path, body).await.is(201);
    path
}

/// Whoever asks for a role by its name gets the one.
#[test]
fn a_name_is_one_custom_roles() {
    let site = block_on(Site::new());
    for round in 0..rounds() {
        let body = json!({ "properties": {
            "roleName": format!("Watcher {round}"),
            "assignableScopes": [subscription()],
            "permissions": [{ "actions": ["*/read"] }],
        }});
        let mut answers = race(async |number| {
            let id = uuid::Uuid::from_u128(0xC0_0000 + (round * THREADS + number) as u128);
            let path = format!("{}/providers/Microsoft.Authorization/roleDefinitions/{id}", subscription());
            site.put(OWNER, &path, body.clone()).await.status
        });
        answers.sort_unstable();
        assert_eq!(answers, [&[201][..], &[409; THREADS - 1]].concat(), "round {round}");
    }
}

/// A role is deleted while it is assigned: either nobody has it afterwards, or it is still there.
#[test]
fn no_assignment_outlives_its_role() {
    let site = block_on(Site::new());
    let all = format!("{}/providers/Microsoft.Authorization/roleAssignments", subscription());
    for round in 0..rounds() {
        let role = block_on(custom_role(&site, round));
        let path = |number: usize| assignment(&subscription(), (round * THREADS + number) as u128);
        let answers = race(async |number| {
            if number == round % THREADS {
                return site.delete(OWNER, &role).await.status;
            }
            let body = json!({ "properties": { "roleDefinitionId": role, "principalId": NINA } });
            site.put(OWNER, &path(number), body).await.status
        });
        assert!(answers.iter().all(|status| [200, 201, 400, 409].contains(status)), "{answers:?}");
        let held = block_on(site.get(OWNER, &format!("{all}?$filter=principalId eq '{NINA}'"))).is(200);
        let made = answers.iter().filter(|status| **status == 201).count();
        assert_eq!(held.body["value"].as_array().unwrap().len(), made, "round {round}: {answers:?}");
        let is_deleted = answers[round % THREADS] == 200;
        assert_eq!(block_on(site.get(OWNER, &role)).status, if is_deleted { 404 } else { 200 });
        assert!(made <= 1 && !(is_deleted && made > 0), "round {round}: {answers:?}");
        for number in 0..THREADS {
            block_on(site.delete(OWNER, &path(number)));
        }
    }
}

/// More than any of them may try again: they come one after the other. On a file, where a commit takes its time and they
/// all run into one another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_assign_one_custom_role_at_one_resource() {
    const MANY: u128 = 60;
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(FixedClock::at_epoch_seconds(1_700_000_000));
    let ring = KeyRing::generate(&SystemEntropy).unwrap();
    let store = Store::open(directory.path(), ring, clock.clone(), Arc::new(SystemEntropy)).unwrap();
    let site = Arc::new(Site::over(store, Arc::default(), clock, i64::MAX).await);
    let rg = site.group("rg").await;
    let widget = site.widget(&rg, "one").await;
    let role = custom_role(&site, 0).await;
    let tasks: Vec<_> = (0..MANY)
        .map(|number| {
            let path = assignment(&format!("{widget}/things/{number}"), number);
            let body = json!({ "properties": { "roleDefinitionId": role, "principalId": NINA } });
            let site = site.clone();
            tokio::spawn(async move { site.put(OWNER, &path, body).await.status })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 201);
    }
}
