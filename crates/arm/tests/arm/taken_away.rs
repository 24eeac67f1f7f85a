//! Rights that end: while a request is under way, with the principal, and by way of a role that changes.

use std::sync::Arc;

use arcadia_kernel::{AuditEvent, DenyReason, Method, Outcome, full_body};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::*;

/// NINA changes the group's tags; `meanwhile` happens when the body is first looked at, which is after the decision.
async fn tags_changed(site: &Site, group: &str, meanwhile: impl FnOnce() + Send + 'static) -> u16 {
    let mut meanwhile = Some(meanwhile);
    let body = full_body(json!({ "location": "uksouth", "tags": { "late": "yes" } }).to_string());
    let body = body.map_frame(move |frame| {
        if let Some(meanwhile) = meanwhile.take() {
            meanwhile();
        }
        frame
    });
    let request = http::Request::builder()
        .method(Method::PUT)
        .uri(format!("{group}?{V}"))
        .header("authorization", format!("Bearer {NINA}"))
        .body(body.boxed_unsync())
        .unwrap();
    site.send_streamed(request).await.status
}

/// Runs to its end on a thread of its own.
fn at_once(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    std::thread::spawn(move || runtime.block_on(work)).join().unwrap();
}

async fn tags(site: &Site, group: &str) -> Value {
    site.get(OWNER, group).await.is(200).body["tags"].clone()
}

async fn last_event(site: &Site) -> AuditEvent {
    site.store.audit_page(0, 1000).await.unwrap().pop().unwrap().1
}

async fn last_outcome(site: &Site) -> Outcome {
    last_event(site).await.outcome
}

#[tokio::test]
async fn a_body_that_comes_late_changes_nothing() {
    let site = Arc::new(Site::new().await);
    let rg = site.group("rg").await;
    site.assign(OWNER, 1, NINA, "Contributor", &rg).await.is(201);
    assert_eq!(tags_changed(&site, &rg, || {}).await, 200);
    site.put(OWNER, &rg, json!({ "location": "uksouth", "tags": {} })).await.is(200);

    let (other, role) = (site.clone(), assignment(&rg, 1));
    let meanwhile = || at_once(async move { drop(other.delete(OWNER, &role).await.is(200)) });
    assert_eq!(tags_changed(&site, &rg, meanwhile).await, 403, "the role was removed");
    assert_eq!(last_outcome(&site).await, Outcome::Denied { reason: DenyReason::NoAssignment.to_string() });
    assert_ne!(tags(&site, &rg).await["late"], json!("yes"));

    site.assign(OWNER, 2, NINA, "Contributor", &rg).await.is(201);
    let people = site.people.clone();
    let meanwhile = move || assert!(people.disabled.write().unwrap().insert(NINA));
    assert_eq!(tags_changed(&site, &rg, meanwhile).await, 403, "the principal was disabled");
    assert_eq!(
        last_outcome(&site).await,
        Outcome::Denied { reason: DenyReason::NoSuchPrincipal.to_string() }
    );
    assert_ne!(tags(&site, &rg).await["late"], json!("yes"));
}

/// Two assignments allow it, and one of them ends while the body arrives.
#[tokio::test]
async fn the_record_names_what_allowed_it_in_the_end() {
    let site = Arc::new(Site::new().await);
    let rg = site.group("rg").await;
    let (above, own) = (assignment(&subscription(), 1), assignment(&rg, 2));
    site.assign(OWNER, 1, NINA, "Contributor", &subscription()).await.is(201);
    site.assign(OWNER, 2, NINA, "Contributor", &rg).await.is(201);
    assert_eq!(tags_changed(&site, &rg, || {}).await, 200);
    assert_eq!(last_event(&site).await.assignment.as_deref(), Some(above.as_str()));
    let other = site.clone();
    let meanwhile = || at_once(async move { drop(other.delete(OWNER, &above).await.is(200)) });
    assert_eq!(tags_changed(&site, &rg, meanwhile).await, 200);
    assert_eq!(last_event(&site).await.assignment.as_deref(), Some(own.as_str()));
    let (other, role) = (site.clone(), own);
    let meanwhile = || at_once(async move { drop(other.delete(OWNER, &role).await.is(200)) });
    assert_eq!(tags_changed(&site, &rg, meanwhile).await, 403);
    assert_eq!(last_event(&site).await.assignment, None);
}

#[tokio::test]
async fn a_principal_that_is_gone_is_refused_where_no_role_is_asked_for() {
    let site = Site::new().await;
    let paths =
        ["/subscriptions", "/tenants", "/providers", "/providers/Microsoft.Authorization/roleDefinitions"];
    for path in paths {
        site.get(NINA, path).await.is(200);
    }
    site.people.disabled.write().unwrap().insert(NINA);
    for path in paths {
        let refused = site.get(NINA, path).await.is(403);
        assert_eq!(refused.code(), "AuthorizationFailed", "{path}");
        assert!(refused.message().contains("is disabled"), "{path}: {}", refused.message());
    }
}

#[tokio::test]
async fn a_role_is_not_changed_by_those_who_may_only_where_it_is_no_longer_assignable() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let role = Uuid::from_u128(0xC0FF);
    let path = format!("{}/providers/Microsoft.Authorization/roleDefinitions/{role}", subscription());
    let wanted = |scopes: &[&str], action: &str| {
        json!({ "properties": {
            "roleName": "shrinking",
            "assignableScopes": scopes,
            "permissions": [{ "actions": [action] }],
        }})
    };
    let everywhere = subscription();
    site.put(OWNER, &path, wanted(&[&everywhere], "*/read")).await.is(201);
    let held = json!({ "properties": { "roleDefinitionId": path, "principalId": NINA } });
    site.put(OWNER, &assignment(&everywhere, 1), held).await.is(201);
    site.assign(OWNER, 2, NINA, "Owner", &rg).await.is(201);

    // Once only the group counts, its owner could write `*` into a role that is assigned to her everywhere.
    let refused = site.put(OWNER, &path, wanted(&[&rg], "*/read")).await.is(400);
    assert_eq!(refused.code(), "RoleDefinitionHasAssignments");
    let in_group = format!("{rg}/providers/Microsoft.Authorization/roleDefinitions/{role}");
    site.put(NINA, &in_group, wanted(&[&rg], "*")).await.is(403);
    site.put(NINA, &group("another"), json!({ "location": "uksouth" })).await.is(403);

    site.delete(OWNER, &assignment(&everywhere, 1)).await.is(200);
    site.put(OWNER, &path, wanted(&[&rg], "*/read")).await.is(201);
}

#[tokio::test]
async fn a_subscription_is_written_in_one_way() {
    let site = Site::new().await;
    let upper = SUBSCRIPTION.to_string().to_uppercase();
    site.get(OWNER, &format!("/subscriptions/{upper}/resourceGroups")).await.is(200);
    for text in [
        SUBSCRIPTION.simple().to_string(),
        format!("%7B{SUBSCRIPTION}%7D"),
        format!("urn:uuid:{SUBSCRIPTION}"),
    ] {
        let path = format!("/subscriptions/{text}/resourceGroups/rg");
        let refused = site.put(OWNER, &path, json!({ "location": "uksouth" })).await.is(400);
        assert_eq!(refused.code(), "InvalidSubscriptionId", "{text}");
    }
}
