use arcadia_kernel::{Access, Endpoint as _};
use serde_json::{Value, json};

use crate::world::{Answer, World, encode, text};

const NONE: Value = Value::Null;

async fn filtered(world: &World, token: &str, set: &str, filter: &str) -> Answer {
    world.graph(token, "GET", &format!("/v1.0/{set}?$filter={}", encode(filter)), NONE).await
}

fn ids(list: &Value) -> Vec<String> {
    list["value"].as_array().unwrap().iter().map(|item| text(item, "id")).collect()
}

#[tokio::test]
async fn every_operation_refuses_strangers() {
    let world = World::new().await;
    let (_, app_id, principal, secret) = world.application("stranger").await;
    let answer = world.secret_token(&app_id, &secret, "https://graph.microsoft.com/.default").await.ok();
    let stranger = text(&answer, "access_token");
    let arm = text(&world.first_principal_token(crate::world::ARM).await.ok(), "access_token");
    let some_id = world.first.user_object_id.to_string();
    let mut decided = 0;
    for row in world.graph.catalogue() {
        let path = row
            .pattern
            .as_str()
            .replace("{api}", "v1.0")
            .replace("{id}", &some_id)
            .replace("{other}", &some_id)
            .replace("{assignment}", "x");
        let method = row.method.as_str();
        let name = &row.name;
        let answer = world.graph("", method, &path, NONE).await;
        assert_eq!(answer.graph_refusal(), (401, "InvalidAuthenticationToken".into()), "{name}");
        assert!(answer.headers.contains_key("www-authenticate"), "{name}");
        for wrong in ["x", arm.as_str()] {
            assert_eq!(world.graph(wrong, method, &path, NONE).await.status, 401, "{name}");
        }
        let answer = world.graph(&stranger, method, &path, NONE).await;
        match row.access {
            Access::Decided { .. } => {
                decided += 1;
                assert_eq!(answer.graph_refusal(), (403, "Authorization_RequestDenied".into()), "{name}");
            }
            Access::SignedIn { .. } => {
                assert_eq!(answer.graph_refusal(), (400, "BadRequest".into()), "{name}: not a person");
            }
            Access::Public { .. } => panic!("{name}: nothing here is public"),
        }
    }
    assert!(decided > 50, "{decided}");
    world.graph(&stranger, "GET", &format!("/v1.0/servicePrincipals/{principal}"), NONE).await.ok();
}

#[tokio::test]
async fn a_member_reads_and_changes_nothing() {
    let world = World::new().await;
    let id = world.user("nina").await;
    let scope = "https://graph.microsoft.com//.default";
    let token =
        text(&world.password_token("nina@arcadia.example", "Passw0rd!", scope).await.ok(), "access_token");
    let me = world.graph(&token, "GET", "/v1.0/me", NONE).await.ok();
    assert_eq!((&me["id"], &me["objectId"]), (&json!(id), &json!(id)));
    assert_eq!(me["userPrincipalName"], "nina@arcadia.example");
    assert_eq!(me["@odata.context"], "https://graph.microsoft.com/v1.0/$metadata#users/$entity");
    for set in ["users", "groups", "applications", "servicePrincipals", "organization", "domains"] {
        world.graph(&token, "GET", &format!("/beta/{set}"), NONE).await.ok();
    }
    let cases = [
        ("POST", "/v1.0/users".to_owned()),
        ("POST", "/v1.0/applications".to_owned()),
        ("POST", "/v1.0/groups".to_owned()),
        ("PATCH", format!("/v1.0/users/{id}")),
        ("DELETE", format!("/v1.0/users/{id}")),
        ("GET", "/v1.0/roleManagement/directory/roleAssignments".to_owned()),
        ("POST", "/v1.0/roleManagement/directory/roleAssignments".to_owned()),
        ("GET", "/v1.0/directory/deletedItems/microsoft.graph.application".to_owned()),
    ];
    for (method, path) in cases {
        assert_eq!(world.graph(&token, method, &path, json!({})).await.status, 403, "{method} {path}");
    }
}

/// Clients compare it with what the id token says, and must not use it when another `sub` is in it.
#[tokio::test]
async fn user_info_is_of_the_person_in_the_id_token() {
    let world = World::new().await;
    let id = world.user("nina").await;
    let answer = world.password_token("nina@arcadia.example", "Passw0rd!", "openid").await.ok();
    let id_token = arcadia_crypto::peek(&text(&answer, "id_token")).unwrap().1;
    let token = text(&answer, "access_token");
    let info = world.graph(&token, "GET", "/oidc/userinfo", NONE).await.ok();
    let mut wanted = json!({
        "sub": id_token["sub"], "name": "nina", "preferred_username": "nina@arcadia.example",
    });
    assert_eq!(info, wanted, "what is not set is left out");
    let admin = world.admin_graph_token().await;
    let body = json!({ "givenName": "Nina", "mail": "n@x.example" });
    world.graph(&admin, "PATCH", &format!("/v1.0/users/{id}"), body).await.ok();
    (wanted["given_name"], wanted["email"]) = ("Nina".into(), "n@x.example".into());
    assert_eq!(world.graph(&token, "POST", "/oidc/userinfo", NONE).await.ok(), wanted);
}

#[tokio::test]
async fn the_role_counts_directly_and_by_group_and_ends_at_once() {
    let world = World::new().await;
    let id = world.user("nina").await;
    let admin = world.admin_graph_token().await;
    let scope = "https://graph.microsoft.com//.default";
    let token =
        text(&world.password_token("nina@arcadia.example", "Passw0rd!", scope).await.ok(), "access_token");
    let group = |name: &str| json!({ "displayName": name, "mailNickname": name, "mailEnabled": false, "securityEnabled": true });
    let outer = text(&world.graph(&admin, "POST", "/v1.0/groups", group("outer")).await.ok(), "id");
    let inner = text(&world.graph(&admin, "POST", "/v1.0/groups", group("inner")).await.ok(), "id");
    let reference =
        |id: &str| json!({ "@odata.id": format!("https://graph.microsoft.com/v1.0/directoryObjects/{id}") });
    for (group, member) in [(&outer, &inner), (&inner, &id), (&inner, &outer)] {
        let path = format!("/v1.0/groups/{group}/members/$ref");
        world.graph(&admin, "POST", &path, reference(member)).await.ok();
        let again = world.graph(&admin, "POST", &path, reference(member)).await;
        assert_eq!(again.graph_refusal(), (400, "Request_BadRequest".into()));
    }
    let may = async || world.graph(&token, "POST", "/v1.0/groups", group("x")).await.status == 201;
    assert!(!may().await);
    let role = json!({
        "roleDefinitionId": "62e90394-69f5-4237-9190-012177145e10", "principalId": outer, "directoryScopeId": "/",
    });
    let path = "/v1.0/roleManagement/directory/roleAssignments";
    let assignment = text(&world.graph(&admin, "POST", path, role).await.ok(), "id");
    assert!(may().await, "by a group in a group");
    world.graph(&admin, "DELETE", &format!("/v1.0/groups/{inner}/members/{id}/$ref"), NONE).await.ok();
    assert!(!may().await, "at once");
    world.graph(&admin, "DELETE", &format!("{path}/{assignment}"), NONE).await.ok();
    let groups = world.directory.groups_of(id.parse().unwrap()).unwrap();
    assert!(groups.is_empty());
    let inner_id = inner.parse().unwrap();
    world.graph(&admin, "POST", &format!("/v1.0/groups/{outer}/members/$ref"), reference(&id)).await.ok();
    assert!(world.directory.groups_of(id.parse().unwrap()).unwrap().contains(&inner_id), "circles end");
    let check = json!({ "groupIds": [inner, uuid::Uuid::nil()] });
    let path = format!("/v1.0/directoryObjects/{id}/checkMemberGroups");
    assert_eq!(world.graph(&admin, "POST", &path, check).await.ok()["value"], json!([inner]));
    let path = format!("/v1.0/users/{id}/getMemberGroups");
    let found = world.graph(&admin, "POST", &path, json!({ "securityEnabledOnly": true })).await.ok();
    assert_eq!(found["value"].as_array().unwrap().len(), 2);
    let members = world.graph(&admin, "GET", &format!("/v1.0/groups/{outer}/members"), NONE).await.ok();
    let kinds: Vec<String> =
        members["value"].as_array().unwrap().iter().map(|item| text(item, "@odata.type")).collect();
    assert!(
        kinds.contains(&"#microsoft.graph.user".to_owned())
            && kinds.contains(&"#microsoft.graph.group".to_owned())
    );
    world.graph(&admin, "DELETE", &format!("/v1.0/groups/{outer}"), NONE).await.ok();
    world.graph(&admin, "DELETE", &format!("/v1.0/groups/{inner}"), NONE).await.ok();
    assert!(world.directory.groups_of(id.parse().unwrap()).unwrap().is_empty());
    let gone = world.graph(&admin, "GET", &format!("/v1.0/groups/{inner}"), NONE).await;
    assert_eq!(gone.graph_refusal(), (404, "Request_ResourceNotFound".into()));
}

#[tokio::test]
async fn users_are_made_found_changed_and_removed() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let id = world.user("bob").await;
    let by_name = world.graph(&admin, "GET", "/v1.0/users/BOB@arcadia.example", NONE).await.ok();
    assert_eq!(by_name["id"], id.as_str());
    let keyed = format!("/v1.0/users({})", encode("'bob@arcadia.example'"));
    assert_eq!(world.graph(&admin, "GET", &keyed, NONE).await.ok()["id"], id.as_str());
    let found = filtered(&world, &admin, "users", "userPrincipalName eq 'bob@arcadia.example'").await.ok();
    assert_eq!(ids(&found), [id.as_str()]);
    assert!(ids(&filtered(&world, &admin, "users", "userPrincipalName eq 'x'").await.ok()).is_empty());
    let body = json!({ "userPrincipalName": "bob@arcadia.example", "displayName": "B", "mailNickname": "b",
        "accountEnabled": true, "passwordProfile": { "password": "Xx12345!" } });
    let again = world.graph(&admin, "POST", "/v1.0/users", body.clone()).await;
    assert_eq!(again.graph_refusal(), (400, "Request_BadRequest".into()));
    assert!(again.text.contains("userPrincipalName already exists"));
    for (name, value) in [
        ("userPrincipalName", json!("eve@elsewhere.example")),
        ("userPrincipalName", json!("no spaces@arcadia.example")),
        ("displayName", json!("")),
        ("passwordProfile", json!({ "password": "weak" })),
        ("passwordProfile", json!({ "password": "Xx12345!", "forceChangePasswordNextSignIn": true })),
        ("accountEnabled", json!("true")),
        ("isAdmin", json!(true)),
        ("objectId", json!("x")),
    ] {
        let mut body = body.clone();
        body["userPrincipalName"] = json!("eve@arcadia.example");
        body[name] = value;
        let refused = world.graph(&admin, "POST", "/v1.0/users", body).await;
        assert_eq!(refused.graph_refusal().0, 400, "{name}");
    }
    assert!(world.directory.user_named("eve@arcadia.example").is_none());
    let path = format!("/v1.0/users/{id}");
    let change = json!({ "userPrincipalName": "robert@arcadia.example", "givenName": "Robert", "mail": "r@x.example" });
    assert_eq!(world.graph(&admin, "PATCH", &path, change).await.status, 204);
    let shown = world.graph(&admin, "GET", &path, NONE).await.ok();
    assert_eq!((&shown["givenName"], &shown["mail"]), (&json!("Robert"), &json!("r@x.example")));
    assert!(shown.get("passwordProfile").is_none());
    world.user("bob").await;
    assert_eq!(world.graph(&admin, "DELETE", &path, NONE).await.status, 204);
    assert_eq!(world.graph(&admin, "DELETE", &path, NONE).await.status, 404);
    world.user("robert").await;
}

#[tokio::test]
async fn applications_and_their_service_principals() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let (id, app_id, principal, secret) = world.application("rbac1").await;
    let shown = world.graph(&admin, "GET", &format!("/v1.0/applications/{id}"), NONE).await.ok();
    assert_eq!(shown["keyCredentials"], json!([]));
    assert_eq!(shown["passwordCredentials"][0]["secretText"], Value::Null);
    assert_eq!(shown["passwordCredentials"][0]["hint"], &secret[..3]);
    assert!(!shown.to_string().contains(&secret));
    for (set, filter, wanted) in [
        ("applications", format!("appId eq '{app_id}'"), &id),
        ("applications", "startswith(displayName,'RBAC')".to_owned(), &id),
        ("servicePrincipals", format!("servicePrincipalNames/any(c:c eq '{app_id}')"), &principal),
        ("servicePrincipals", "displayName eq 'rbac1'".to_owned(), &principal),
        ("servicePrincipals", format!("appId eq '{app_id}'"), &principal),
    ] {
        assert_eq!(ids(&filtered(&world, &admin, set, &filter).await.ok()), [wanted.as_str()], "{filter}");
    }
    for filter in ["nosuch eq 'x'", "displayName gt 'x'", "(", "displayName eq 'x"] {
        let refused = filtered(&world, &admin, "applications", filter).await;
        assert_eq!(refused.graph_refusal(), (400, "Request_UnsupportedQuery".into()), "{filter}");
    }
    let again = world.graph(&admin, "POST", "/v1.0/servicePrincipals", json!({ "appId": app_id })).await;
    assert_eq!(again.status, 409);
    let unknown = json!({ "appId": uuid::Uuid::nil() });
    assert_eq!(world.graph(&admin, "POST", "/v1.0/servicePrincipals", unknown).await.status, 400);
    let body = json!({ "ids": [principal, world.first.user_object_id, uuid::Uuid::nil()],
        "types": ["user", "group", "servicePrincipal", "directoryObjectPartnerReference"] });
    let found = world.graph(&admin, "POST", "/v1.0/directoryObjects/getByIds", body).await.ok();
    assert_eq!(found["value"][0]["@odata.type"], "#microsoft.graph.servicePrincipal");
    assert_eq!(found["value"][0]["servicePrincipalNames"], json!([app_id]));
    assert_eq!(found["value"][1]["@odata.type"], "#microsoft.graph.user");
    assert_eq!(found["value"].as_array().unwrap().len(), 2);
    let key = &shown["passwordCredentials"][0]["keyId"];
    let remove = format!("/v1.0/applications/{id}/removePassword");
    world.graph(&admin, "POST", &remove, json!({ "keyId": key })).await.ok();
    assert_eq!(world.secret_token(&app_id, &secret, crate::world::ARM).await.refusal().2, 7_000_215);
    assert_eq!(world.graph(&admin, "POST", &remove, json!({ "keyId": key })).await.status, 400);
}

/// As the command line changes an application: with the part of a section that it knows of.
#[tokio::test]
async fn a_part_of_a_section_leaves_the_rest_of_it() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let (id, ..) = world.application("app").await;
    let path = format!("/v1.0/applications/{id}");
    let mut shown = Value::Null;
    for change in [
        json!({
            "api": { "oauth2PermissionScopes": [{ "value": "read" }, { "value": "write" }] },
            "web": { "redirectUris": ["https://a.example/cb"], "homePageUrl": "https://a.example" },
        }),
        json!({ "api": { "requestedAccessTokenVersion": 2 } }),
        json!({ "web": { "implicitGrantSettings": { "enableIdTokenIssuance": true } } }),
        json!({ "web": { "implicitGrantSettings": { "enableAccessTokenIssuance": false }, "homePageUrl": null } }),
        json!({ "api": { "oauth2PermissionScopes": [{ "value": "write" }] }, "notes": "n" }),
    ] {
        world.graph(&admin, "PATCH", &path, change).await.ok();
        shown = world.graph(&admin, "GET", &path, NONE).await.ok();
    }
    let api = json!({ "oauth2PermissionScopes": [{ "value": "write" }], "requestedAccessTokenVersion": 2 });
    let web = json!({
        "redirectUris": ["https://a.example/cb"],
        "homePageUrl": null,
        "implicitGrantSettings": { "enableIdTokenIssuance": true, "enableAccessTokenIssuance": false },
    });
    for (section, wanted) in [("api", api), ("web", web)] {
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(&shown[section][name], value, "{section}.{name}");
        }
    }
    world.graph(&admin, "PATCH", &path, json!({ "web": null })).await.ok();
    let shown = world.graph(&admin, "GET", &path, NONE).await.ok();
    assert_ne!(shown["web"]["redirectUris"], json!(["https://a.example/cb"]));
}

/// Whatever is served of an object by its id is served by its key.
#[tokio::test]
async fn objects_are_named_by_keys_in_parentheses() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let (id, app_id, principal, _) = world.application("app").await;
    world.user("$nina").await;
    let own = format!("/v1.0/applications/{id}");
    for (named, id) in [
        (format!("/v1.0/applications(appId='{app_id}')"), &id),
        (format!("/v1.0/servicePrincipals(appId='{}')", app_id.to_uppercase()), &principal),
        (format!("/v1.0/servicePrincipals('{principal}')"), &principal),
    ] {
        assert_eq!(world.graph(&admin, "GET", &named, NONE).await.ok()["id"], id.as_str(), "{named}");
        assert_eq!(world.graph(&admin, "PATCH", &named, json!({ "notes": "n" })).await.status, 204);
        assert_eq!(world.graph(&admin, "GET", &named, NONE).await.ok()["notes"], "n", "{named}");
        let added = world.graph(&admin, "POST", &format!("{named}/addPassword"), json!({})).await.ok();
        let remove = json!({ "keyId": added["keyId"] });
        world.graph(&admin, "POST", &format!("{named}/removePassword"), remove).await.ok();
        world.graph(&admin, "GET", &format!("{named}/owners"), NONE).await.ok();
    }
    let user = format!("/v1.0/users({})", encode("'$nina@arcadia.example'"));
    for path in ["", "/memberOf", "/transitiveMemberOf"] {
        world.graph(&admin, "GET", &format!("{user}{path}"), NONE).await.ok();
    }
    assert_eq!(world.graph(&admin, "DELETE", &user, NONE).await.status, 204);
    let named = format!("/v1.0/applications(appId='{app_id}')");
    for wrong in [named.replace("appId", "displayName"), named.replace("applications", "groups")] {
        let refused = world.graph(&admin, "DELETE", &wrong, NONE).await;
        assert_eq!(refused.graph_refusal(), (404, "Request_ResourceNotFound".into()), "{wrong}");
    }
    assert_eq!(world.graph(&admin, "DELETE", &named, NONE).await.status, 204);
    assert_eq!(world.graph(&admin, "GET", &own, NONE).await.status, 404);
}

#[tokio::test]
async fn identifier_uris_are_unique_and_never_the_platforms() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let (first, ..) = world.application("a").await;
    let (second, ..) = world.application("b").await;
    let set = async |id: &str, uri: &str| {
        let path = format!("/v1.0/applications/{id}");
        world.graph(&admin, "PATCH", &path, json!({ "identifierUris": [uri] })).await.status.as_u16()
    };
    assert_eq!(set(&first, "api://one").await, 204);
    assert_eq!(set(&second, "API://one").await, 400);
    assert_eq!(set(&second, "https://vault.azure.net/").await, 400);
    assert_eq!(set(&second, "https://management.core.windows.net").await, 400);
    assert_eq!(set(&first, "api://two").await, 204);
    assert_eq!(set(&second, "api://one").await, 204);
}

#[tokio::test]
async fn a_deleted_application_takes_its_principal_along_and_can_come_back() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let (id, app_id, principal, secret) = world.application("gone").await;
    let path = format!("/v1.0/applications/{id}");
    assert_eq!(world.graph(&admin, "DELETE", &path, NONE).await.status, 204);
    let at = format!("/v1.0/servicePrincipals/{principal}");
    assert_eq!(world.graph(&admin, "GET", &at, NONE).await.status, 404);
    assert_eq!(world.secret_token(&app_id, &secret, crate::world::ARM).await.refusal().2, 700_016);
    let deleted = "/v1.0/directory/deletedItems";
    let list = world.graph(&admin, "GET", &format!("{deleted}/microsoft.graph.application"), NONE).await.ok();
    assert_eq!(ids(&list), [id.as_str()]);
    world.graph(&admin, "POST", &format!("{deleted}/{id}/restore"), NONE).await.ok();
    world.graph(&admin, "GET", &at, NONE).await.ok();
    world.secret_token(&app_id, &secret, crate::world::ARM).await.ok();
    world.graph(&admin, "DELETE", &path, NONE).await.ok();
    assert_eq!(world.graph(&admin, "DELETE", &format!("{deleted}/{id}"), NONE).await.status, 204);
    assert_eq!(world.graph(&admin, "POST", &format!("{deleted}/{id}/restore"), NONE).await.status, 404);
}

/// A client that takes the first of what it finds must not be given what it did not ask for.
#[tokio::test]
async fn lists_of_the_directory_itself_are_filtered_like_others() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let (definitions, assignments) =
        ("roleManagement/directory/roleDefinitions", "roleManagement/directory/roleAssignments");
    let role = "62e90394-69f5-4237-9190-012177145e10";
    let user = world.first.user_object_id;
    let domain = text(&world.graph(&admin, "GET", "/v1.0/domains", NONE).await.ok()["value"][0], "id");
    for (set, filter, found) in [
        (definitions, "displayName eq 'Directory Readers'".to_owned(), 0),
        (definitions, "displayName eq 'Global Administrator'".to_owned(), 1),
        (definitions, format!("templateId eq '{role}' and isBuiltIn eq true"), 1),
        (definitions, "isEnabled eq false".to_owned(), 0),
        (assignments, "principalId eq 'nobody'".to_owned(), 0),
        (assignments, format!("principalId eq '{user}'"), 1),
        (assignments, format!("principalId eq '{user}' and roleDefinitionId eq '{role}'"), 1),
        (assignments, format!("principalId eq '{user}' and roleDefinitionId eq '{user}'"), 0),
        (assignments, format!("roleDefinitionId eq '{role}' and directoryScopeId eq '/'"), 2),
        ("organization", format!("id eq '{}'", world.tenant()), 1),
        ("organization", "displayName eq 'nobody'".to_owned(), 0),
        ("domains", format!("id eq '{domain}' and isDefault eq true"), 1),
        ("domains", "isVerified eq false".to_owned(), 0),
    ] {
        assert_eq!(ids(&filtered(&world, &admin, set, &filter).await.ok()).len(), found, "{set}: {filter}");
    }
    for set in [definitions, assignments, "organization", "domains"] {
        let refused = filtered(&world, &admin, set, "nosuch eq 'x'").await;
        assert_eq!(refused.graph_refusal(), (400, "Request_UnsupportedQuery".into()), "{set}");
        let refused = world.graph(&admin, "GET", &format!("/v1.0/{set}?$expand=principal"), NONE).await;
        assert_eq!(refused.graph_refusal(), (400, "Request_UnsupportedQuery".into()), "{set}");
        let counted = world.graph(&admin, "GET", &format!("/v1.0/{set}?$count=true&$select=id"), NONE).await;
        let counted = counted.ok();
        assert_eq!(counted["@odata.count"], ids(&counted).len(), "{set}");
        assert_eq!(counted["value"][0].as_object().unwrap().len(), 1, "{set}");
    }
    let first = world.graph(&admin, "GET", &format!("/v1.0/{assignments}?$top=1"), NONE).await.ok();
    let next = first["@odata.nextLink"].as_str().unwrap().strip_prefix("https://graph.microsoft.com");
    let second = world.graph(&admin, "GET", next.unwrap(), NONE).await.ok();
    assert_eq!((ids(&first).len(), ids(&second).len()), (1, 1));
    assert_ne!(ids(&first), ids(&second));
    assert!(second.get("@odata.nextLink").is_none());
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    for n in 0..7 {
        let body = json!({ "displayName": format!("g{n}"), "mailNickname": "g", "mailEnabled": false, "securityEnabled": true });
        world.graph(&admin, "POST", "/v1.0/groups", body).await.ok();
    }
    // Clients may write the token's name as they like; a link holds its own token and no other.
    for spelled in ["$skiptoken", "%24SkipToken", "$skip%74oken"] {
        let mut path = format!(
            "/v1.0/groups?$top=3&$select=id,displayName&$filter={}",
            encode("startswith(displayName,'g')")
        );
        let mut seen = Vec::new();
        loop {
            let page = world.graph(&admin, "GET", &path, NONE).await.ok();
            assert!(page["value"].as_array().unwrap().len() <= 3);
            assert!(page["value"][0].get("mailNickname").is_none(), "selected");
            seen.extend(ids(&page));
            assert!(seen.len() <= 7, "{path} goes round");
            match page["@odata.nextLink"].as_str() {
                Some(next) => {
                    let next = next.strip_prefix("https://graph.microsoft.com").unwrap();
                    path = next.replace("$skiptoken", spelled);
                }
                None => break,
            }
        }
        seen.dedup();
        assert_eq!(seen.len(), 7, "{spelled}");
    }
    let counted = world.graph(&admin, "GET", "/v1.0/groups?$count=true&$top=2", NONE).await.ok();
    assert_eq!(counted["@odata.count"], 7);
    for bad in ["$top=0", "$top=x", "$top=1000", "$skiptoken=x", "$search=x", "$expand=owners", "$select=a/b"]
    {
        assert_eq!(
            world.graph(&admin, "GET", &format!("/v1.0/groups?{bad}"), NONE).await.status,
            400,
            "{bad}"
        );
    }
    let group = counted["value"][0]["id"].as_str().unwrap();
    for bad in ["$expand=members", "$expand=owners($select=id)", "$search=x", "$select=a/b"] {
        let refused = world.graph(&admin, "GET", &format!("/v1.0/groups/{group}?{bad}"), NONE).await;
        assert_eq!(refused.status, 400, "{bad}");
    }
    let expanded = world.graph(&admin, "GET", &format!("/v1.0/groups/{group}?$expand=members"), NONE).await;
    assert_eq!(expanded.graph_refusal(), (400, "Request_UnsupportedQuery".into()));
}

#[tokio::test]
async fn paths_and_bodies_that_are_not_graphs() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    for path in ["/v1.0/nosuch", "/v1.0/nosuch('x')", "/v3/users", "/v1.0/users/x/y/z"] {
        let refused = world.graph(&admin, "GET", path, NONE).await;
        assert_eq!(refused.graph_refusal(), (400, "BadRequest".into()), "{path}");
    }
    assert_eq!(world.graph(&admin, "PUT", "/v1.0/users", NONE).await.status, 405);
    let bearer = format!("Bearer {admin}");
    let headers = [("authorization", bearer.as_str())];
    for body in ["{", "[]", "\"x\"", "null"] {
        let answer = world
            .send(world.graph.clone(), "graph.microsoft.com", "POST", "/v1.0/groups", &headers, body)
            .await;
        assert_eq!(answer.graph_refusal(), (400, "BadRequest".into()), "{body}");
    }
    let me = world.graph(&admin, "GET", "/v1.0/me", NONE).await;
    assert_eq!(me.graph_refusal(), (400, "BadRequest".into()));
}

#[tokio::test]
async fn the_last_administrator_and_foreign_identities_stay() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let path = "/v1.0/roleManagement/directory/roleAssignments";
    let list = world.graph(&admin, "GET", path, NONE).await.ok();
    let assignments = ids(&list);
    assert_eq!(assignments.len(), 2);
    let cli = world.directory.service_principal_of(arcadia_directory::AZURE_CLI_APP_ID).unwrap();
    let at = format!("/v1.0/servicePrincipals/{}", cli.object_id);
    assert_eq!(world.graph(&admin, "DELETE", &at, NONE).await.status, 400);
    assert_eq!(world.graph(&admin, "POST", &format!("{at}/addPassword"), json!({})).await.status, 400);
    let own = list["value"].as_array().unwrap().iter();
    let mine = world.first.service_principal_object_id.to_string();
    let (mine, other): (Vec<_>, Vec<_>) = own.partition(|row| row["principalId"] == mine.as_str());
    world.graph(&admin, "DELETE", &format!("{path}/{}", text(other[0], "id")), NONE).await.ok();
    let last = world.graph(&admin, "DELETE", &format!("{path}/{}", text(mine[0], "id")), NONE).await;
    assert_eq!(last.graph_refusal().0, 400);
    // Nor with the application that is it, which would take its role along.
    let principal = format!("/v1.0/servicePrincipals/{}", world.first.service_principal_object_id);
    let list = world.graph(&admin, "GET", "/v1.0/applications", NONE).await.ok();
    let application = format!("/v1.0/applications/{}", ids(&list)[0]);
    for path in [principal, application] {
        let last = world.graph(&admin, "DELETE", &path, NONE).await;
        assert_eq!(last.graph_refusal().0, 400, "{path}");
        world.graph(&admin, "GET", &path, NONE).await.ok();
    }
}

#[tokio::test]
async fn what_is_kept_of_an_application_is_bounded() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let (object, ..) = world.application("app").await;
    let path = format!("/v1.0/applications/{object}");
    let part = "x".repeat(400_000);
    let put = async |name: &str| world.graph(&admin, "PATCH", &path, json!({ "api": { name: part } })).await;
    assert_eq!(put("a").await.status, 204);
    assert_eq!(put("b").await.status, 204);
    assert_eq!(put("c").await.graph_refusal(), (400, "Request_BadRequest".into()));
    world.graph(&admin, "DELETE", &path, NONE).await.ok();
}

/// What cannot be shown again would be shown as another time.
#[tokio::test]
async fn a_secret_ends_at_a_time_that_can_be_written() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let (object, ..) = world.application("app").await;
    let path = format!("/v1.0/applications/{object}/addPassword");
    let add =
        async |asked: Value| world.graph(&admin, "POST", &path, json!({ "passwordCredential": asked })).await;
    let refused = add(json!({ "startDateTime": "9999-12-01T00:00:00Z" })).await;
    assert_eq!(refused.graph_refusal(), (400, "Request_BadRequest".into()));
    assert!(refused.text.contains("'endDateTime'"), "{}", refused.text);
    let last = json!({ "startDateTime": "9997-12-01T00:00:00Z", "endDateTime": "9999-12-01T00:00:00Z" });
    assert_eq!(add(last).await.ok()["endDateTime"], "9999-12-01T00:00:00Z");
}
