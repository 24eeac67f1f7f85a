//! Resource groups, and their deletion as an operation that survives a restart.

use std::time::Duration;

use arcadia_kernel::Method;
use serde_json::{Value, json};

use crate::support::*;

/// Polls an operation's `Location` until it is done.
async fn finished(site: &Site, location: &str) -> Answer {
    let path = location.strip_prefix("https://management.azure.com").unwrap();
    for _ in 0..200 {
        let answer = site.get(OWNER, path).await;
        if answer.status != 202 {
            return answer;
        }
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.header("location"), location);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the operation does not end");
}

#[tokio::test]
async fn create_show_update_list() {
    let site = Site::new().await;
    let path = group("arc-hack");
    let created = site.put(OWNER, &path, json!({ "location": "UK South" })).await.is(201);
    assert_eq!(
        created.body,
        json!({
            "id": path,
            "name": "arc-hack",
            "type": "Microsoft.Resources/resourceGroups",
            "location": "uksouth",
            "properties": { "provisioningState": "Succeeded" },
        })
    );
    let lower = path.replace("resourceGroups", "resourcegroups").replace("arc-hack", "ARC-HACK");
    assert_eq!(site.get(OWNER, &lower).await.is(200).body["id"], json!(path));
    let again = json!({ "location": "uksouth", "tags": { "a": "b" } });
    assert_eq!(site.put(OWNER, &lower, again).await.is(200).body["id"], json!(path));
    let patched = site.call(OWNER, Method::PATCH, &path, json!({ "tags": { "c": "d" } })).await.is(200);
    assert_eq!(patched.body["tags"], json!({ "c": "d" }));
    site.call(OWNER, Method::HEAD, &path, Value::Null).await.is(204);
    let missing = site.call(OWNER, Method::HEAD, &group("nope"), Value::Null).await.is(404);
    assert_eq!(missing.body, Value::Null);
    let missing = site.get(OWNER, &group("nope")).await.is(404);
    assert_eq!(missing.code(), "ResourceGroupNotFound");
    assert_eq!(missing.message(), "Resource group 'nope' could not be found.");
    site.group("arc-hack2").await;
    let listed = site.get(OWNER, &format!("{}/resourcegroups", subscription())).await.is(200);
    assert_eq!(listed.names(), ["arc-hack", "arc-hack2"]);
    let tagged = format!("{}/resourcegroups?$filter=tagName eq 'c' and tagValue eq 'd'", subscription());
    assert_eq!(site.get(OWNER, &tagged).await.is(200).names(), ["arc-hack"]);
}

#[tokio::test]
async fn bad_groups_are_refused() {
    let site = Site::new().await;
    for (name, body, code) in [
        ("rg", json!({}), "LocationRequired"),
        ("rg", json!({ "location": "moon" }), "LocationNotAvailableForResourceGroup"),
        ("rg", json!([]), "InvalidRequestContent"),
        ("rg", json!({ "location": 1 }), "InvalidRequestContent"),
        ("rg", json!({ "location": "uksouth", "tags": { "a<b": "" } }), "InvalidTagNameCharacters"),
        ("rg", json!({ "location": "uksouth", "tags": { "a": "x".repeat(300) } }), "InvalidTagValueLength"),
        ("rg.", json!({ "location": "uksouth" }), "InvalidResourceGroupName"),
        ("r%25g", json!({ "location": "uksouth" }), "InvalidResourceGroupName"),
        ("providers", json!({ "location": "uksouth" }), "InvalidResourceGroupName"),
        (&"x".repeat(91), json!({ "location": "uksouth" }), "InvalidResourceGroupName"),
    ] {
        let answer = site.put(OWNER, &group(name), body).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{name}");
    }
    site.group("rg").await;
    let moved = site.put(OWNER, &group("rg"), json!({ "location": "westeurope" })).await.is(409);
    assert_eq!(moved.code(), "InvalidResourceGroupLocation");
}

#[tokio::test]
async fn delete_takes_the_contents_and_the_roles_with_it() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let (rg, kept) = (site.group("rg").await, site.group("rg2").await);
    let widget = site.widget(&rg, "one").await;
    site.put(OWNER, &format!("{widget}/parts/p"), json!({})).await.is(200);
    site.widget(&rg, "two").await;
    let other = site.widget(&kept, "three").await;
    site.assign(OWNER, 1, NINA, "Reader", &rg).await.is(201);
    site.assign(OWNER, 2, NINA, "Reader", &widget).await.is(201);
    site.assign(OWNER, 3, NINA, "Reader", &kept).await.is(201);

    let accepted = site.delete(OWNER, &rg).await.is(202);
    assert_eq!(accepted.header("retry-after"), "1");
    let done = finished(&site, accepted.header("location")).await;
    assert_eq!(done.status, 200);
    site.get(OWNER, &rg).await.is(404);
    assert!(site.store.get(WIDGET_INDEX, "one").await.unwrap().is_none());
    site.get(OWNER, &other).await.is(200);

    // What was granted in the old group is not granted in a new one of the same name.
    site.group("rg").await;
    site.widget(&rg, "one").await;
    site.get(NINA, &rg).await.is(403);
    site.get(NINA, &widget).await.is(403);
    site.get(NINA, &kept).await.is(200);
    site.assign(OWNER, 1, NINA, "Reader", &rg).await.is(201);
}

#[tokio::test]
async fn a_deletion_is_taken_up_after_a_restart() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    for name in ["one", "two", "three"] {
        site.widget(&rg, name).await;
    }
    site.assign(OWNER, 1, NINA, "Reader", &rg).await.is(201);
    // This run deletes one widget; then its backend fails, and then the process ends.
    let Site { store, people, clock, .. } = site;
    let site = Site::over(store, people, clock, 1).await;
    site.arm.start(site.gate.clone()).await;
    let accepted = site.delete(OWNER, &rg).await.is(202);
    let location = accepted.header("location").to_owned();
    let status = location
        .strip_prefix("https://management.azure.com")
        .unwrap()
        .replace("operationresults", "operationstatuses");
    for _ in 0..200 {
        if site.widget.deletions_left.load(std::sync::atomic::Ordering::SeqCst) < 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(site.get(OWNER, &status).await.is(200).body["status"], "InProgress");
    let half = site.get(OWNER, &format!("{rg}/resources")).await.is(200);
    assert_eq!(half.names().len(), 2);
    assert_eq!(site.get(OWNER, &rg).await.is(200).body["properties"]["provisioningState"], "Deleting");
    // Nothing can be put into a group on its way out.
    let late = format!("{rg}/providers/Test.Widgets/widgets/late");
    let refused = site.put(OWNER, &late, json!({ "location": "uksouth" })).await.is(409);
    assert_eq!(refused.code(), "ResourceGroupBeingDeleted");
    assert_eq!(site.assign(OWNER, 2, NINA, "Reader", &rg).await.is(409).code(), "ResourceGroupBeingDeleted");
    site.put(OWNER, &rg, json!({ "location": "uksouth" })).await.is(409);
    assert_eq!(site.delete(OWNER, &rg).await.is(202).header("location"), location);

    let site = site.restarted().await;
    site.arm.start(site.gate.clone()).await;
    assert_eq!(finished(&site, &location).await.status, 200);
    assert_eq!(site.get(OWNER, &status).await.is(200).body["status"], "Succeeded");
    site.get(OWNER, &rg).await.is(404);
    for name in ["one", "two", "three"] {
        assert!(site.store.get(WIDGET_INDEX, name).await.unwrap().is_none());
    }
    let left = site.get(OWNER, &format!("{}/resources", subscription())).await.is(200);
    assert!(left.names().is_empty());
}

#[tokio::test]
async fn a_kind_that_refuses_keeps_the_group() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let rg = site.group("rg").await;
    let widget = site.widget(&rg, "one").await;
    let lock = json!({ "location": "uksouth", "properties": { "locked": true } });
    site.put(OWNER, &widget, lock).await.is(200);
    let accepted = site.delete(OWNER, &rg).await.is(202);
    let failed = finished(&site, accepted.header("location")).await;
    assert_eq!((failed.status, failed.code()), (409, "ResourceGroupDeletionBlocked"));
    assert_eq!(site.get(OWNER, &rg).await.is(200).body["properties"]["provisioningState"], "Succeeded");
    site.put(OWNER, &widget, json!({ "properties": { "locked": false } })).await.is(200);
    let accepted = site.delete(OWNER, &rg).await.is(202);
    assert_eq!(finished(&site, accepted.header("location")).await.status, 200);
}

#[tokio::test]
async fn operations_are_shown_to_those_they_concern() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    site.assign(OWNER, 1, NINA, "Contributor", &rg).await.is(201);
    let accepted = site.delete(NINA, &rg).await.is(202);
    let path = accepted.header("location").strip_prefix("https://management.azure.com").unwrap().to_owned();
    site.get(NINA, &path).await.is(202);
    site.get(OWNER, &path).await.is(202);
    assert_eq!(site.get(STRANGER, &path).await.is(404).code(), "OperationNotFound");
    site.arm.start(site.gate.clone()).await;
    assert_eq!(finished(&site, accepted.header("location")).await.status, 200);
    // Its group and its role are gone, but it is still her operation.
    site.get(NINA, &path).await.is(200);
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let (rg, rg2) = (site.group("rg").await, site.group("rg2").await);
    let first = site.delete(OWNER, &rg).await.is(202).header("location").to_owned();
    assert_eq!(finished(&site, &first).await.status, 200);
    site.clock.advance_seconds(2 * 24 * 60 * 60);
    let second = site.delete(OWNER, &rg2).await.is(202).header("location").to_owned();
    assert_eq!(finished(&site, &second).await.status, 200);
    // The sweep comes after the work of the same round.
    for _ in 0..200 {
        if finished(&site, &first).await.status == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the first operation is still there");
}
