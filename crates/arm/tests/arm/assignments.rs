//! Role definitions and assignments, and that they are in effect at once.

use arcadia_kernel::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::*;

fn list(scope: &str, filter: &str) -> String {
    format!("{scope}/providers/Microsoft.Authorization/roleAssignments?$filter={filter}")
}

fn scopes(answer: &Answer) -> Vec<String> {
    let items = answer.body["value"].as_array().unwrap();
    items.iter().map(|item| item["properties"]["scope"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn create_list_delete_in_effect_at_once() {
    let site = Site::new().await;
    let rg = site.group("arc-hack").await;
    site.get(NINA, &rg).await.is(403);
    let role = site.role_id("Reader").await;
    let path = assignment(&rg, 1);
    let body =
        json!({ "properties": { "principalId": NINA, "principalType": "User", "roleDefinitionId": role } });
    let created = site.put(OWNER, &path, body.clone()).await.is(201);
    assert_eq!(created.body["id"], json!(path));
    assert_eq!(created.body["properties"]["scope"], json!(rg));
    assert_eq!(created.body["properties"]["createdBy"], Value::Null);
    assert_eq!(created.body["properties"]["roleDefinitionId"], json!(role));
    site.get(NINA, &rg).await.is(200);
    assert_eq!(
        site.put(OWNER, &path, body.clone()).await.is(200).body["properties"]["createdBy"],
        json!(OWNER)
    );

    let twin = site.put(OWNER, &assignment(&rg, 2), body.clone()).await.is(409);
    assert_eq!(
        (twin.code(), twin.message()),
        ("RoleAssignmentExists", "The role assignment already exists.")
    );
    let listed = site.get(OWNER, &list(&rg, "atScope()")).await.is(200);
    // The role's id is the same text as in the list of definitions at that scope.
    let definitions =
        format!("{rg}/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName eq 'reader'");
    let definition = site.get(OWNER, &definitions).await.is(200).body["value"][0]["id"].clone();
    let reader =
        listed.body["value"].as_array().unwrap().iter().find(|item| item["id"] == json!(path)).unwrap();
    assert_eq!(reader["properties"]["roleDefinitionId"], definition);

    let site = site.restarted().await;
    site.get(NINA, &rg).await.is(200);
    assert_eq!(site.get(OWNER, &path).await.is(200).body["name"], json!(Uuid::from_u128(0xA000_0001)));
    assert_eq!(site.delete(OWNER, &path).await.is(200).body["id"], json!(path));
    site.get(NINA, &rg).await.is(403);
    site.delete(OWNER, &path).await.is(204);
    assert_eq!(site.get(OWNER, &path).await.is(404).code(), "RoleAssignmentNotFound");
    // Its name and what it said are free again.
    site.put(OWNER, &path, body).await.is(201);
}

#[tokio::test]
async fn the_filters_that_az_uses() {
    let site = Site::new().await;
    let (rg, rg2) = (site.group("rg").await, site.group("rg2").await);
    let widget = site.widget(&rg, "one").await;
    site.people.groups.write().unwrap().insert(NINA, [GROUP].into());
    site.assign(OWNER, 1, NINA, "Reader", &rg).await.is(201);
    site.assign(OWNER, 2, MACHINE, "Reader", &widget).await.is(201);
    site.assign(OWNER, 3, GROUP, "Reader", &rg2).await.is(201);
    site.assign(OWNER, 4, NINA, "Contributor", &format!("{widget}/things/x")).await.is(201);
    let all = subscription();
    let found =
        async |scope: &str, filter: String| scopes(&site.get(OWNER, &list(scope, &filter)).await.is(200));
    let below = format!("{widget}/things/x");
    assert_eq!(found(&rg, "atScope()".into()).await, [all.clone(), rg.clone()]);
    let mut everything = found(&all, String::new()).await;
    everything.sort();
    let mut expected = vec![all.clone(), rg.clone(), widget.clone(), below.clone(), rg2.clone()];
    expected.sort();
    assert_eq!(everything, expected);
    assert_eq!(found(&all, format!("principalId eq '{MACHINE}'")).await, vec![widget.clone()]);
    assert_eq!(found(&all, format!("principalId eq '{GROUP}'")).await, vec![rg2.clone()]);
    let mut assigned = found(&all, format!("assignedTo('{NINA}')")).await;
    assigned.sort();
    let mut expected = vec![rg.clone(), below, rg2.clone()];
    expected.sort();
    assert_eq!(assigned, expected);
    assert_eq!(found(&rg2, format!("atScope() and assignedTo('{NINA}')")).await, vec![rg2.clone()]);
    assert!(found(&rg2, format!("principalId eq '{STRANGER}'")).await.is_empty());
    for bad in ["principalId eq 'x'", "scope eq 'x'", "assignedTo()"] {
        site.get(OWNER, &list(&rg, bad)).await.is(400);
    }
    // Through the group, and only as long as it is one.
    site.get(NINA, &rg2).await.is(200);
    site.people.groups.write().unwrap().clear();
    site.get(NINA, &rg2).await.is(403);
    site.get(NINA, &rg).await.is(200);
    site.people.disabled.write().unwrap().insert(NINA);
    site.get(NINA, &rg).await.is(403);
}

#[tokio::test]
async fn bad_assignments_are_refused() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let reader = site.role_id("Reader").await;
    let nobody = Uuid::from_u128(0xDEAD);
    let properties =
        |role: &str, principal: &str| json!({ "roleDefinitionId": role, "principalId": principal });
    let nina = NINA.to_string();
    let no_role = format!("/providers/Microsoft.Authorization/roleDefinitions/{nobody}");
    let mut wrong_type = properties(&reader, &nina);
    wrong_type["principalType"] = json!("ServicePrincipal");
    let mut other_type = properties(&reader, &nina);
    other_type["principalType"] = json!("Wizard");
    let mut conditional = properties(&reader, &nina);
    conditional["condition"] = json!("@Resource[x:y] StringEquals 'z'");
    conditional["conditionVersion"] = json!("2.0");
    let mut unversioned = conditional.clone();
    unversioned["conditionVersion"] = Value::Null;
    for (properties, code) in [
        (properties(&no_role, &nina), "RoleDefinitionDoesNotExist"),
        (properties("/subscriptions/x", &nina), "InvalidRoleDefinitionId"),
        (properties(&reader, "nina"), "InvalidPrincipalId"),
        (properties(&reader, &nobody.to_string()), "PrincipalNotFound"),
        (wrong_type, "UnmatchedPrincipalType"),
        (other_type, "InvalidPrincipalType"),
        (conditional, "InvalidCondition"),
        (unversioned, "InvalidConditionVersion"),
        (json!({}), "InvalidRequestContent"),
    ] {
        let answer = site.put(OWNER, &assignment(&rg, 1), json!({ "properties": properties })).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{}", answer.body);
    }
    let answer = site.assign(OWNER, 1, nobody, "Reader", &rg).await.is(400);
    let expected = format!("Principal {} does not exist in the directory {TENANT}. Check", nobody.simple());
    assert!(answer.message().starts_with(&expected), "{}", answer.message());
    // A client that knows the type may be ahead of the directory.
    let mut early = properties(&reader, &nobody.to_string());
    early["principalType"] = json!("ServicePrincipal");
    site.put(OWNER, &assignment(&rg, 9), json!({ "properties": early })).await.is(201);

    let scope = group("nope");
    assert_eq!(site.assign(OWNER, 1, NINA, "Reader", &scope).await.is(404).code(), "ResourceGroupNotFound");
    let scope = format!("{rg}/providers/Test.Widgets/widgets/none/things/x");
    assert_eq!(site.assign(OWNER, 1, NINA, "Reader", &scope).await.is(404).code(), "ResourceNotFound");
    site.assign(OWNER, 1, NINA, "Reader", &rg).await.is(201);
    let moved = site.assign(OWNER, 1, NINA, "Reader", &subscription()).await.is(400);
    assert_eq!(moved.code(), "RoleAssignmentUpdateNotPermitted");
    assert_eq!(
        site.assign(OWNER, 1, MACHINE, "Reader", &rg).await.is(400).code(),
        "RoleAssignmentUpdateNotPermitted"
    );
    let path = format!("{rg}/providers/Microsoft.Authorization/roleAssignments/not-a-guid");
    assert_eq!(site.get(OWNER, &path).await.is(400).code(), "InvalidRoleAssignmentId");
}

#[tokio::test]
async fn only_those_who_may_assign_assign() {
    let site = Site::new().await;
    let (rg, rg2) = (site.group("rg").await, site.group("rg2").await);
    site.assign(OWNER, 1, NINA, "Contributor", &rg).await.is(201);
    let refused = site.assign(NINA, 2, NINA, "Owner", &rg).await.is(403);
    assert_eq!(refused.code(), "AuthorizationFailed");
    let path = assignment(&rg, 2);
    assert_eq!(
        refused.message(),
        format!(
            "The client '{}@example.net' with object id '{NINA}' does not have authorization to perform action \
             'Microsoft.Authorization/roleAssignments/write' over scope '{path}' or the scope is invalid. If \
             access was recently granted, please refresh your credentials.",
            NINA.simple()
        )
    );
    site.delete(NINA, &assignment(&rg, 1)).await.is(403);
    site.assign(OWNER, 3, NINA, "User Access Administrator", &rg).await.is(201);
    site.assign(NINA, 4, MACHINE, "Owner", &rg).await.is(201);
    site.assign(NINA, 5, MACHINE, "Owner", &rg2).await.is(403);
    site.assign(NINA, 5, MACHINE, "Owner", &subscription()).await.is(403);
}

#[tokio::test]
async fn a_role_whose_condition_names_roles() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    site.assign(OWNER, 1, NINA, "Key Vault Data Access Administrator", &rg).await.is(201);
    site.assign(NINA, 2, MACHINE, "Key Vault Secrets User", &rg).await.is(201);
    site.assign(NINA, 3, NINA, "Owner", &rg).await.is(403);
    site.assign(OWNER, 4, MACHINE, "Reader", &rg).await.is(201);
    site.delete(NINA, &assignment(&rg, 4)).await.is(403);
    site.delete(NINA, &assignment(&rg, 1)).await.is(403);
    site.delete(NINA, &assignment(&rg, 2)).await.is(200);

    // The same, as a condition of an assignment: may assign Reader and nothing else.
    let reader = site.role_id("Reader").await;
    let reader = reader.rsplit('/').next().unwrap().to_owned();
    let condition = format!(
        "((!(ActionMatches{{'Microsoft.Authorization/roleAssignments/write'}})) OR \
         (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] \
         ForAnyOfAnyValues:GuidEquals{{{reader}}}))"
    );
    let role = site.role_id("Role Based Access Control Administrator").await;
    let properties = json!({
        "roleDefinitionId": role, "principalId": STRANGER, "condition": condition, "conditionVersion": "2.0",
    });
    let made = site.put(OWNER, &assignment(&rg, 6), json!({ "properties": properties })).await.is(201);
    assert_eq!(made.body["properties"]["condition"], json!(condition));
    site.assign(STRANGER, 7, STRANGER, "Owner", &rg).await.is(403);
    site.assign(STRANGER, 8, STRANGER, "Reader", &rg).await.is(201);
}

#[tokio::test]
async fn custom_roles() {
    let site = Site::new().await;
    let (rg, rg2) = (site.group("rg").await, site.group("rg2").await);
    let widget = site.widget(&rg, "one").await;
    let id = Uuid::from_u128(0xC0);
    let path = format!("{}/providers/Microsoft.Authorization/roleDefinitions/{id}", subscription());
    let body = |name: &str, action: &str, scope: &str| {
        json!({ "properties": {
            "roleName": name, "description": "d", "assignableScopes": [scope],
            "permissions": [{ "actions": [action], "notActions": [], "dataActions": [], "notDataActions": [] }],
        } })
    };
    let created = site.put(OWNER, &path, body("Lab Role", "Test.Widgets/widgets/read", &rg)).await.is(201);
    assert_eq!(created.body["properties"]["type"], "CustomRole");
    assert_eq!(created.body["id"], json!(path));
    let by_name = |scope: &str| {
        format!("{scope}/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName eq 'lab role'")
    };
    assert_eq!(site.get(OWNER, &by_name(&rg)).await.is(200).names().len(), 1);
    assert!(site.get(OWNER, &by_name(&rg2)).await.is(200).names().is_empty());
    let below = format!(
        "{}/providers/Microsoft.Authorization/roleDefinitions?$filter=atScopeAndBelow() and type eq 'CustomRole'",
        subscription()
    );
    assert_eq!(site.get(OWNER, &below).await.is(200).names().len(), 1);

    let grant = json!({ "properties": { "roleDefinitionId": path, "principalId": NINA } });
    assert_eq!(
        site.put(OWNER, &assignment(&rg2, 1), grant.clone()).await.is(400).code(),
        "RoleDefinitionDoesNotExist"
    );
    site.put(OWNER, &assignment(&rg, 1), grant).await.is(201);
    site.get(NINA, &widget).await.is(200);
    site.delete(NINA, &widget).await.is(403);
    // A change of the role is in effect at once, and survives a restart.
    site.put(OWNER, &path, body("Lab Role", "Test.Widgets/widgets/delete", &rg)).await.is(201);
    let site = site.restarted().await;
    site.get(NINA, &widget).await.is(403);
    site.delete(NINA, &widget).await.is(200);

    assert_eq!(site.delete(OWNER, &path).await.is(400).code(), "RoleDefinitionHasAssignments");
    site.delete(OWNER, &assignment(&rg, 1)).await.is(200);
    site.delete(OWNER, &path).await.is(200);
    site.delete(OWNER, &path).await.is(204);

    for (body, code) in [
        (body("Reader", "a/b", &rg), "RoleDefinitionWithSameNameExists"),
        (body("", "a/b", &rg), "InvalidRoleDefinitionName"),
        (body("x", "a b", &rg), "InvalidActionOrNotAction"),
        (body("x", "a/b", "/"), "InvalidAssignableScopes"),
        (body("x", "a/b", "/subscriptions/nope"), "InvalidSubscriptionId"),
    ] {
        assert_eq!(site.put(OWNER, &path, body).await.code(), code);
    }
    let owner = site.role_id("Owner").await;
    site.put(OWNER, &owner, body("Mine", "*", &rg)).await.is(400);
    site.delete(OWNER, &owner).await.is(400);
    // A group's administrator does not make roles for the subscription.
    site.assign(OWNER, 5, NINA, "Owner", &rg).await.is(201);
    let in_group = format!("{rg}/providers/Microsoft.Authorization/roleDefinitions/{id}");
    site.put(NINA, &in_group, body("Wide", "*", &subscription())).await.is(403);
    site.put(NINA, &in_group, body("Narrow", "*", &rg)).await.is(201);
}

#[tokio::test]
async fn definitions_are_all_there() {
    let site = Site::new().await;
    let path = format!("{}/providers/Microsoft.Authorization/roleDefinitions", subscription());
    assert_eq!(site.get(OWNER, &path).await.is(200).names().len(), 928);
    let one = site.role_id("Key Vault Secrets User").await;
    let shown = site.get(OWNER, &one).await.is(200);
    assert_eq!(shown.body["properties"]["roleName"], "Key Vault Secrets User");
    assert_eq!(shown.body["id"], json!(one));
    site.get(STRANGER, &one).await.is(403);
    // Without a scope they are public knowledge.
    site.get(STRANGER, "/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName eq 'Owner'")
        .await
        .is(200);
    let rg = site.group("rg").await;
    let deny =
        site.get(OWNER, &format!("{rg}/providers/Microsoft.Authorization/denyAssignments")).await.is(200);
    assert_eq!(deny.body, json!({ "value": [] }));
    let mine = site.get(OWNER, &format!("{rg}/providers/Microsoft.Authorization/permissions")).await.is(200);
    assert_eq!(mine.body["value"][0]["actions"], json!(["*"]));
    let explained = {
        let caller = arcadia_kernel::Caller { object_id: OWNER, ..arcadia_kernel::Caller::anonymous() };
        let scope = arcadia_kernel::ArmId::parse(&rg).unwrap();
        site.arm.explain(&arcadia_kernel::Question {
            caller: &caller,
            action: "Microsoft.Resources/subscriptions/resourceGroups/read",
            plane: arcadia_kernel::Plane::Control,
            scope: &scope,
        })
    };
    assert!(explained.allowed);
    assert_eq!(explained.considered[0].role_name.as_deref(), Some("Owner"));
    site.call(OWNER, Method::PATCH, &assignment(&rg, 1), json!({})).await.is(405);
}

#[tokio::test]
async fn founding_happens_once() {
    let site = Site::new().await;
    site.assign(OWNER, 1, NINA, "Owner", &subscription()).await.is(201);
    let listed = site.get(NINA, &list(&subscription(), &format!("principalId eq '{OWNER}'"))).await.is(200);
    let first = listed.body["value"][0]["id"].as_str().unwrap().to_owned();
    site.delete(NINA, &first).await.is(200);
    let site = site.restarted().await;
    // The founding ran again; it did not make an owner of somebody who was removed.
    site.get(OWNER, &subscription()).await.is(403);
    site.get(NINA, &subscription()).await.is(200);
}
