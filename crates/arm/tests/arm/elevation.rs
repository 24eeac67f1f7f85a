//! `elevateAccess`: a Global Administrator gets in, nobody else does, and it can be given up again.

use std::sync::Arc;

use arcadia_kernel::{DenyReason, Method, Outcome};
use arcadia_races::{THREADS, block_on, race, rounds};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::*;

const ELEVATE: &str = "/providers/Microsoft.Authorization/elevateAccess?api-version=2016-07-01";
const ASSIGNMENTS: &str = "/providers/Microsoft.Authorization/roleAssignments";
const ADMINISTRATOR: &str =
    "/providers/Microsoft.Authorization/roleDefinitions/18d7d88d-d35e-4fb5-a5c3-7773c20a72d9";

/// A site in which NINA is a Global Administrator, and OWNER owns the subscription.
async fn site() -> Site {
    let site = Site::new().await;
    site.people.global_administrators.write().unwrap().insert(NINA);
    site
}

async fn elevate(site: &Site, who: Uuid) -> Answer {
    site.call(who, Method::POST, ELEVATE, Value::Null).await
}

/// What is assigned at `/` itself.
async fn at_root(site: &Site) -> Vec<Value> {
    let path = format!("{}{ASSIGNMENTS}?$filter=atScope()", subscription());
    let found = site.get(OWNER, &path).await.is(200).body["value"].clone();
    let at_root = |item: &&Value| item["properties"]["scope"] == "/";
    found.as_array().unwrap().iter().filter(at_root).cloned().collect()
}

/// The role goes after the request was let in and before anything is written.
#[tokio::test]
async fn who_is_none_any_more_is_not_elevated() {
    let site = site().await;
    site.people.resigning.write().unwrap().insert(NINA);
    assert_eq!(elevate(&site, NINA).await.is(403).code(), "AuthorizationFailed");
    assert!(at_root(&site).await.is_empty());
    let (_, event) = site.store.audit_page(0, 1000).await.unwrap().into_iter().rev().nth(1).unwrap();
    assert_eq!((&*event.operation, event.assignment), ("GlobalAdministratorElevateAccess", None));
}

#[tokio::test]
async fn a_global_administrator_gets_in_at_once() {
    let site = site().await;
    let rg = site.group("rg").await;
    site.people.disabled.write().unwrap().insert(OWNER);
    site.get(NINA, &rg).await.is(403);
    site.get(NINA, ASSIGNMENTS).await.is(403);
    let answer = elevate(&site, NINA).await.is(200);
    assert_eq!((&answer.body, answer.header("content-type")), (&Value::Null, ""));
    let (_, event) = site.store.audit_page(0, 1000).await.unwrap().pop().unwrap();
    assert_eq!((&*event.operation, event.scope.as_str()), ("GlobalAdministratorElevateAccess", "/"));
    assert_eq!(event.assignment.as_deref(), Some("Global Administrator"));
    assert_eq!((event.caller_object_id, event.outcome), (NINA, Outcome::Committed));

    let own = site.get(NINA, ASSIGNMENTS).await.is(200).body["value"].clone();
    let own = own.as_array().unwrap().iter().find(|item| item["properties"]["scope"] == "/").unwrap();
    let properties = &own["properties"];
    assert_eq!(properties["roleDefinitionId"], ADMINISTRATOR);
    assert_eq!((&properties["principalId"], &properties["principalType"]), (&json!(NINA), &json!("User")));
    assert_eq!((&properties["condition"], &properties["createdBy"]), (&Value::Null, &json!(NINA)));
    assert_eq!(site.get(NINA, own["id"].as_str().unwrap()).await.is(200).body, *own);

    // Everything can be read and assigned, and nothing else be changed until a role is assigned for it.
    site.get(NINA, "/subscriptions").await.is(200);
    site.get(NINA, &rg).await.is(200);
    site.put(NINA, &rg, json!({ "location": "uksouth" })).await.is(403);
    let site = site.restarted().await;
    site.people.global_administrators.write().unwrap().clear();
    let role = "/providers/Microsoft.Authorization/roleDefinitions/8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
    let body = json!({ "properties": { "roleDefinitionId": role, "principalId": NINA } });
    site.put(NINA, &assignment(&subscription(), 1), body).await.is(201);
    site.put(NINA, &rg, json!({ "location": "uksouth" })).await.is(200);
}

#[tokio::test]
async fn it_is_given_once_and_whole() {
    let site = site().await;
    for version in ["2015-07-01", "2016-07-01", "2017-05-01"] {
        elevate(&site, NINA).await.is(200);
        let path = ELEVATE.replace("2016-07-01", version);
        site.call(NINA, Method::POST, &path, json!({})).await.is(200);
    }
    let own = at_root(&site).await;
    assert_eq!(own.len(), 1, "{own:?}");

    // A condition that somebody puts on it does not stay in the way.
    let mut properties = own[0]["properties"].clone();
    properties["condition"] = "(!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'}))".into();
    properties["conditionVersion"] = "2.0".into();
    let path = own[0]["id"].as_str().unwrap();
    site.put(NINA, path, json!({ "properties": properties })).await.is(200);
    site.assign(NINA, 1, NINA, "Reader", &subscription()).await.is(403);
    elevate(&site, NINA).await.is(200);
    site.assign(NINA, 1, NINA, "Reader", &subscription()).await.is(201);
    let again = at_root(&site).await;
    assert_eq!((again.len(), &again[0]["id"]), (1, &own[0]["id"]));
    assert_eq!(again[0]["properties"]["conditionVersion"], Value::Null);
}

/// All are told yes, and from then on it is in effect for each.
#[test]
fn of_many_at_once_one_makes_it() {
    let site = Arc::new(block_on(site()));
    for round in 0..rounds() {
        let answers = race(async |_| {
            let elevated = elevate(&site, NINA).await.status;
            (elevated, site.get(NINA, &subscription()).await.status)
        });
        assert_eq!(answers, vec![(200, 200); THREADS], "round {round}");
        block_on(async {
            let own = at_root(&site).await;
            assert_eq!(own.len(), 1, "round {round}: {own:?}");
            site.delete(NINA, own[0]["id"].as_str().unwrap()).await.is(200);
        });
    }
}

#[tokio::test]
async fn nobody_else_gets_in() {
    let site = site().await;
    elevate(&site, NINA).await.is(200);
    for (number, role) in ["Owner", "User Access Administrator", "Contributor"].into_iter().enumerate() {
        site.assign(NINA, 10 + number as u128, STRANGER, role, "").await.is(201);
    }
    let before = at_root(&site).await.len();
    site.people.global_administrators.write().unwrap().insert(MACHINE);
    let refused = async |who: Uuid, why: DenyReason| {
        let answer = elevate(&site, who).await.is(403);
        assert_eq!(answer.code(), "AuthorizationFailed");
        let name = who.simple();
        assert_eq!(
            answer.message(),
            format!(
                "The client '{name}@example.net' with object id '{who}' does not have authorization to perform \
                 action 'Microsoft.Authorization/elevateAccess/action' over scope '/' or the scope is invalid. If \
                 access was recently granted, please refresh your credentials."
            )
        );
        let (_, event) = site.store.audit_page(0, 1000).await.unwrap().pop().unwrap();
        assert_eq!(event.outcome, Outcome::Denied { reason: why.to_string() });
    };
    // Roles do not count, neither that of a subscription's owner nor one that allows everything everywhere.
    refused(OWNER, DenyReason::NoAssignment).await;
    refused(STRANGER, DenyReason::NoAssignment).await;
    // The directory's role does not make a person of an application.
    refused(MACHINE, DenyReason::NoAssignment).await;
    site.people.disabled.write().unwrap().insert(NINA);
    refused(NINA, DenyReason::NoSuchPrincipal).await;
    site.people.disabled.write().unwrap().clear();
    site.people.global_administrators.write().unwrap().remove(&NINA);
    refused(NINA, DenyReason::NoAssignment).await;
    site.people.global_administrators.write().unwrap().insert(NINA);

    let with = async |method: Method, path: &str, header: Option<String>| {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        site.send(request.body(String::new()).unwrap()).await
    };
    with(Method::POST, ELEVATE, None).await.is(401);
    let graph = format!("Bearer {NINA}@https://graph.microsoft.com/");
    let wrong = with(Method::POST, ELEVATE, Some(graph)).await.is(401);
    assert_eq!(wrong.code(), "InvalidAuthenticationTokenAudience");
    let own = format!("Bearer {NINA}");
    with(Method::GET, ELEVATE, Some(own.clone())).await.is(405);
    let (unversioned, _) = ELEVATE.split_once('?').unwrap();
    with(Method::POST, unversioned, Some(own.clone())).await.is(400);
    with(Method::POST, &format!("{}{ELEVATE}", subscription()), Some(own)).await.is(404);
    assert_eq!(at_root(&site).await.len(), before);
}

#[tokio::test]
async fn it_is_given_up_again_and_no_subscription_counts_on_it() {
    let site = site().await;
    elevate(&site, NINA).await.is(200);
    let elevated = at_root(&site).await[0]["id"].as_str().unwrap().to_owned();
    let own = site.get(OWNER, &format!("{}{ASSIGNMENTS}", subscription())).await.is(200);
    let is_owner = |item: &&Value| item["properties"]["principalId"] == json!(OWNER);
    let owner = own.body["value"].as_array().unwrap().iter().find(is_owner).unwrap()["id"].clone();
    let owner = owner.as_str().unwrap();
    for who in [NINA, OWNER] {
        let refused = site.delete(who, owner).await.is(412);
        assert_eq!(refused.code(), "CannotDeleteLastRbacAdminAssignment");
    }
    // An owner of the subscription has no say at `/`.
    site.delete(OWNER, &elevated).await.is(403);

    // The last owner is gone: what is left of it can go, and she can give up hers whatever she leaves.
    site.people.disabled.write().unwrap().insert(OWNER);
    site.delete(NINA, owner).await.is(200);
    site.delete(NINA, &elevated).await.is(200);
    site.get(NINA, &subscription()).await.is(403);
    site.delete(NINA, &elevated).await.is(403);
    elevate(&site, NINA).await.is(200);
    site.get(NINA, &subscription()).await.is(200);
}
