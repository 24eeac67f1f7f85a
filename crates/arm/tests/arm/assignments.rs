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
    let at_scope = format!("(atScope() and principalId eq '{NINA}') and atScope()");
    assert_eq!(found(&rg, at_scope).await, vec![rg.clone()]);
    let either = format!("atScope() or principalId eq '{NINA}'");
    for bad in ["principalId eq 'x'", "scope eq 'x'", "assignedTo()", "not atScope()", &either] {
        site.get(OWNER, &list(&rg, bad)).await.is(400);
    }
    let roles = format!("{rg}/providers/Microsoft.Authorization/roleDefinitions?$filter=");
    for bad in ["not atScopeAndBelow()", "atScopeAndBelow() or type eq 'CustomRole'", "atScopeAtAll()"] {
        site.get(OWNER, &format!("{roles}{bad}")).await.is(400);
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
    let at = |scope: &str| format!("{scope}/providers/Microsoft.Authorization/roleDefinitions/{id}");
    site.get(OWNER, &at(&rg)).await.is(200);
    assert_eq!(site.get(OWNER, &at(&rg2)).await.is(404).code(), "RoleDefinitionDoesNotExist");
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
    let mut conditional = body("x", "a/b", &rg);
    conditional["properties"]["permissions"][0]["condition"] = json!("ActionMatches{'a/b'}");
    let refused = site.put(OWNER, &path, conditional).await.is(400);
    assert!(refused.message().contains("Custom roles have no conditions"), "{}", refused.message());
    let owner = site.role_id("Owner").await;
    site.put(OWNER, &owner, body("Mine", "*", &rg)).await.is(400);
    site.delete(OWNER, &owner).await.is(400);
    // A group's administrator does not make roles for the subscription.
    site.assign(OWNER, 5, NINA, "Owner", &rg).await.is(201);
    site.put(NINA, &at(&rg), body("Wide", "*", &subscription())).await.is(403);
    site.put(NINA, &at(&rg), body("Narrow", "*", &rg)).await.is(201);
}

fn definition(id: u128) -> String {
    format!("{}/providers/Microsoft.Authorization/roleDefinitions/{}", subscription(), Uuid::from_u128(id))
}

fn role(name: &str, actions: &[String], scopes: &[String]) -> Value {
    let permissions = json!([{ "actions": actions }]);
    json!({ "properties": { "roleName": name, "assignableScopes": scopes, "permissions": permissions } })
}

#[tokio::test]
async fn a_custom_role_is_bounded() {
    let site = Site::new().await;
    let actions = |count: usize, action: &str| vec![action.to_owned(); count];
    let here = [subscription()];
    let scopes = |count: usize, name: &str| -> Vec<String> {
        (0..count).map(|number| group(&format!("{name}{number}"))).collect()
    };
    let long = format!("a/{}", "b".repeat(250));
    for (body, status, code) in [
        (role("a", &actions(1024, "a/b"), &here), 201, ""),
        (role("b", &actions(1025, "a/b"), &here), 400, "InvalidRequestContent"),
        (role("b", &actions(300, &long), &here), 413, "RequestContentTooLarge"),
        (role("b", &actions(1, "a/b"), &scopes(128, "rg")), 201, ""),
        (role("c", &actions(1, "a/b"), &scopes(129, "rg")), 400, "InvalidAssignableScopes"),
        (role("c", &actions(1, "a/b"), &scopes(128, &"long".repeat(20))), 413, "RequestContentTooLarge"),
        (role("c", &actions(1, "a/*/*/*/*/*/*/*/*"), &here), 201, ""),
        (role("d", &actions(1, "*/*/*/*/*/*/*/*/*"), &here), 400, "InvalidActionOrNotAction"),
    ] {
        let id = 0xC0 + body["properties"]["roleName"].as_str().unwrap().as_bytes()[0] as u128;
        let answer = site.put(OWNER, &definition(id), body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
    }
}

#[tokio::test]
async fn role_definitions_come_in_pages() {
    let site = Site::new().await;
    for id in 1..=3 {
        let body = role(&format!("Role {id}"), &["a/b".to_owned()], &[subscription()]);
        site.put(OWNER, &definition(id), body).await.is(201);
    }
    let list = format!("{}/providers/Microsoft.Authorization/roleDefinitions", subscription());
    let mut path = format!("{list}?$top=2");
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let answer = site.get(OWNER, &path).await.is(200);
        seen.extend(answer.names().into_iter().map(str::to_owned));
        pages += 1;
        // What a page ended at may be gone when the next one is asked for.
        if pages == 1 {
            site.delete(OWNER, &definition(2)).await.is(200);
        }
        let Some(link) = answer.body["nextLink"].as_str() else { break };
        path = link.replace("https://management.azure.com", "").replace("$top=2", "$top=500");
    }
    assert_eq!((seen.len(), pages), (3 + 928, 3));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 3 + 928);
    // All of them fit on one page where the client names no size.
    assert_eq!(site.get(OWNER, &list).await.is(200).names().len(), 2 + 928);
    site.get(OWNER, &format!("{list}?$top=0")).await.is(400);
    let link = site.get(OWNER, &format!("{list}?$top=2")).await.body["nextLink"].as_str().unwrap().to_owned();
    site.assign(OWNER, 1, NINA, "Reader", &subscription()).await.is(201);
    let link = link.replace("https://management.azure.com", "");
    assert_eq!(site.get(NINA, &link).await.is(400).code(), "InvalidSkipToken");
}

/// As large as roles may be, and their permissions as many as fit on a page.
#[tokio::test]
async fn large_roles_are_listed_in_pages_of_so_many_bytes() {
    let site = Site::new().await;
    let action = format!("a/{}", "b".repeat(254));
    let actions = vec![action; 255];
    for number in 1..=80 {
        let body = role(&format!("Role {number}"), &actions, &[subscription()]);
        site.put(OWNER, &definition(number), body).await.is(201);
        let grant = json!({ "properties": { "roleDefinitionId": definition(number), "principalId": NINA } });
        site.put(OWNER, &assignment(&subscription(), number), grant).await.is(201);
    }
    site.assign(OWNER, 100, NINA, "Reader", &subscription()).await.is(201);
    for (list, expected) in [("roleDefinitions", 80 + 928), ("permissions", 80 + 1)] {
        let mut path = format!("{}/providers/Microsoft.Authorization/{list}", subscription());
        let (mut seen, mut pages) = (0, 0);
        loop {
            let answer = site.get(NINA, &path).await.is(200);
            assert!(answer.body.to_string().len() < 5 * 1024 * 1024);
            (seen, pages) = (seen + answer.body["value"].as_array().unwrap().len(), pages + 1);
            let Some(link) = answer.body["nextLink"].as_str() else { break };
            path = link.replace("https://management.azure.com", "");
        }
        assert_eq!((seen, pages), (expected, 2), "{list}");
    }
}

#[tokio::test]
async fn the_last_administrator_of_a_subscription_stays() {
    let site = Site::new().await;
    let own = site.get(OWNER, &list(&subscription(), "atScope()")).await.is(200);
    let own = own.body["value"][0].clone();
    let path = own["id"].as_str().unwrap();
    let refused = site.delete(OWNER, path).await.is(412);
    assert_eq!(refused.code(), "CannotDeleteLastRbacAdminAssignment");
    assert_eq!(refused.message(), "Cannot delete the last RBAC admin assignment");
    let condition = "(!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'}))";
    let limited = |assignment: &Value| {
        let mut properties = assignment["properties"].clone();
        properties["condition"] = condition.into();
        properties["conditionVersion"] = "2.0".into();
        json!({ "properties": properties })
    };
    assert_eq!(site.put(OWNER, path, limited(&own)).await.is(412).code(), refused.code());

    // None of these could assign roles in the subscription: another scope, another role, nobody, a condition.
    let rg = site.group("rg").await;
    site.assign(OWNER, 1, NINA, "Owner", &rg).await.is(201);
    site.assign(OWNER, 2, NINA, "Contributor", &subscription()).await.is(201);
    let role = site.role_id("Owner").await;
    let nobody = json!({
        "roleDefinitionId": role, "principalId": Uuid::from_u128(0xDEAD), "principalType": "User",
    });
    site.put(OWNER, &assignment(&subscription(), 3), json!({ "properties": nobody })).await.is(201);
    let made = site.assign(OWNER, 4, NINA, "Owner", &subscription()).await.is(201).body;
    site.put(OWNER, &assignment(&subscription(), 4), limited(&made)).await.is(200);
    site.delete(OWNER, path).await.is(412);
    site.people.disabled.write().unwrap().insert(MACHINE);
    site.assign(OWNER, 5, MACHINE, "Owner", &subscription()).await.is(201);
    site.delete(OWNER, path).await.is(412);
    for number in 1..=5 {
        let scope = if number == 1 { &rg } else { &subscription() };
        site.delete(OWNER, &assignment(scope, number)).await.is(200);
    }

    site.assign(OWNER, 6, GROUP, "User Access Administrator", &subscription()).await.is(201);
    site.delete(OWNER, path).await.is(200);
    site.people.groups.write().unwrap().insert(NINA, [GROUP].into());
    site.delete(NINA, &assignment(&subscription(), 6)).await.is(412);
}

#[tokio::test]
async fn what_is_no_scope_has_no_assignment() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let role = site.role_id("Reader").await;
    let body = json!({ "properties": { "roleDefinitionId": role, "principalId": NINA } });
    let widget = format!("{rg}/providers/Test.Widgets/widgets");
    for (number, none) in [
        format!("{}/resourceGroups", subscription()),
        format!("{}/foo", subscription()),
        format!("{}/foo/bar", subscription()),
        format!("{rg}/extra"),
        format!("{rg}/providers"),
        format!("{rg}/providers/Test.Widgets"),
        widget.clone(),
        format!("{widget}/one/parts"),
    ]
    .iter()
    .enumerate()
    {
        let answer = site.put(OWNER, &assignment(none, number as u128), body.clone()).await;
        assert_eq!((answer.status, answer.code()), (400, "InvalidScope"), "{none}");
        let role = role_of(none);
        assert_eq!(site.put(OWNER, &definition(1), role).await.is(400).code(), "InvalidScope", "{none}");
        // What is there from before can still be found and deleted.
        site.get(OWNER, &list(none, "")).await.is(200);
        site.delete(OWNER, &assignment(none, number as u128)).await.is(204);
    }
    site.widget(&rg, "one").await;
    for (number, scope) in
        [format!("{widget}/one/things/p"), format!("{rg}/providers/No.Such/bars/x")].iter().enumerate()
    {
        site.put(OWNER, &assignment(scope, 20 + number as u128), body.clone()).await.is(201);
    }
}

fn role_of(scope: &str) -> Value {
    role("r", &["a/b".to_owned()], &[scope.to_owned()])
}

async fn last_event(site: &Site) -> arcadia_kernel::AuditEvent {
    site.store.audit_page(0, 1000).await.unwrap().pop().unwrap().1
}

#[tokio::test]
async fn every_right_that_a_role_needs_is_on_record() {
    let site = Site::new().await;
    let (rg, rg2) = (site.group("rg").await, site.group("rg2").await);
    site.assign(OWNER, 1, NINA, "Owner", &rg).await.is(201);
    let id = Uuid::from_u128(0xC0);
    let path = format!("{rg}/providers/Microsoft.Authorization/roleDefinitions/{id}");
    let actions = ["a/b".to_owned()];
    site.put(NINA, &path, role("r", &actions, &[rg.clone(), rg2.clone()])).await.is(403);
    let also = last_event(&site).await.also;
    let seen: Vec<_> = also.iter().map(|also| (also.scope.as_str(), also.assignment.as_deref())).collect();
    let own = assignment(&rg, 1);
    assert_eq!(seen, [(rg.as_str(), Some(own.as_str())), (rg2.as_str(), None)]);
    assert!(also.iter().all(|also| also.action == "Microsoft.Authorization/roleDefinitions/write"));

    site.put(NINA, &path, role("r", &actions, std::slice::from_ref(&rg))).await.is(201);
    assert_eq!(last_event(&site).await.also.len(), 1);
    site.delete(NINA, &path).await.is(200);
    let also = last_event(&site).await.also;
    assert_eq!((also.len(), also[0].action.as_str()), (1, "Microsoft.Authorization/roleDefinitions/delete"));

    // Nor does she delete what others may assign elsewhere.
    site.put(OWNER, &path, role("r", &actions, &[rg.clone(), rg2])).await.is(201);
    site.delete(NINA, &path).await.is(403);
    site.get(NINA, &path).await.is(200);
}

/// As many and as long as there may be, before and after, each allowed by an assignment of its own.
#[tokio::test]
async fn the_record_has_room_for_all_rights_that_a_role_needs() {
    let site = Site::new().await;
    let mut scopes = Vec::new();
    for number in 0..256 {
        scopes.push(site.group(&format!("{number:03}{}", "n".repeat(54))).await);
        site.assign(OWNER, number, NINA, "Owner", &scopes[number as usize]).await.is(201);
    }
    let id = Uuid::from_u128(0xC0);
    let path = format!("{}/providers/Microsoft.Authorization/roleDefinitions/{id}", scopes[0]);
    let (before, after) = scopes.split_at(128);
    site.put(NINA, &path, role("r", &["a/b".to_owned()], before)).await.is(201);
    site.put(NINA, &path, role("r", &["a/b".to_owned()], after)).await.is(201);
    assert_eq!(last_event(&site).await.also.len(), 256);
    site.delete(NINA, &path).await.is(200);
}

/// Two roles with conditions, of which the second alone allows what is asked for.
#[tokio::test]
async fn the_record_names_the_assignment_that_allowed_it() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let machine = site.role_id("Reader").await;
    let only = |role: &str| {
        let role = role.rsplit('/').next().unwrap().to_owned();
        format!(
            "@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals{{{role}}}"
        )
    };
    let administrator = site.role_id("Role Based Access Control Administrator").await;
    let owner = site.role_id("Owner").await;
    for (number, role) in [(1, &owner), (2, &machine)] {
        let scope = if number == 1 { subscription() } else { rg.clone() };
        let properties = json!({
            "roleDefinitionId": administrator, "principalId": NINA, "condition": only(role),
            "conditionVersion": "2.0",
        });
        site.put(OWNER, &assignment(&scope, number), json!({ "properties": properties })).await.is(201);
    }
    site.assign(NINA, 3, MACHINE, "Reader", &rg).await.is(201);
    let by = async || last_event(&site).await.assignment.map(|by| by.as_ref().to_owned());
    assert_eq!(by().await, Some(assignment(&rg, 2)));
    site.assign(NINA, 4, MACHINE, "Contributor", &rg).await.is(403);
    assert_eq!(by().await, None);
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
