//! What objects are made with and shown as.

use serde_json::{Value, json};

use crate::world::{Answer, World, text};

async fn create(world: &World, set: &str, body: Value) -> Answer {
    world.graph(&world.admin_graph_token().await, "POST", &format!("/v1.0/{set}"), body).await
}

/// A body with one more property.
fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Whoever reads it later would take another type for nothing.
#[tokio::test]
async fn what_is_kept_of_an_application_has_its_type() {
    let world = World::new().await;
    let permission = |value: Value| json!([{ "resourceAppId": uuid::Uuid::nil(), "resourceAccess": value }]);
    for (wrong, named) in [
        (json!({ "isFallbackPublicClient": "true" }), "isFallbackPublicClient"),
        (json!({ "tags": "x" }), "tags"),
        (json!({ "tags": [1] }), "tags"),
        (json!({ "notes": 1 }), "notes"),
        (json!({ "api": [] }), "api"),
        (json!({ "api": { "requestedAccessTokenVersion": "2" } }), "api.requestedAccessTokenVersion"),
        (json!({ "api": { "requestedAccessTokenVersion": 3 } }), "api.requestedAccessTokenVersion"),
        (json!({ "api": { "oauth2PermissionScopes": {} } }), "api.oauth2PermissionScopes"),
        (json!({ "api": { "oauth2PermissionScopes": ["x"] } }), "api.oauth2PermissionScopes"),
        (
            json!({ "api": { "oauth2PermissionScopes": [{ "isEnabled": "false" }] } }),
            "api.oauth2PermissionScopes.isEnabled",
        ),
        (json!({ "appRoles": [{ "value": 1 }] }), "appRoles.value"),
        (json!({ "web": "https://a.example" }), "web"),
        (json!({ "web": { "redirectUris": "https://a.example" } }), "web.redirectUris"),
        (json!({ "spa": { "redirectUris": ["javascript:alert(1)"] } }), "spa.redirectUris"),
        (json!({ "spa": { "redirectUris": ["JavaScript://x/%0aalert(1)"] } }), "spa.redirectUris"),
        (json!({ "publicClient": { "redirectUris": ["data://x/,y"] } }), "publicClient.redirectUris"),
        (json!({ "web": { "redirectUris": ["https://*.a.example"] } }), "web.redirectUris"),
        (json!({ "web": { "redirectUris": ["//a.example"] } }), "web.redirectUris"),
        (json!({ "requiredResourceAccess": {} }), "requiredResourceAccess"),
        (
            json!({ "requiredResourceAccess": permission(json!("x")) }),
            "requiredResourceAccess.resourceAccess",
        ),
        (
            json!({ "requiredResourceAccess": permission(json!([{ "id": "x" }])) }),
            "requiredResourceAccess.resourceAccess.id",
        ),
    ] {
        let refused = create(&world, "applications", with(json!({ "displayName": "app" }), wrong)).await;
        assert_eq!(refused.graph_refusal(), (400, "Request_BadRequest".into()), "{named}");
        assert!(refused.text.contains(&format!("'{named}'")), "{named}: {}", refused.text);
    }
}

#[tokio::test]
async fn what_tokens_would_not_follow_is_not_taken() {
    let world = World::new().await;
    let (_, app_id, principal, _) = world.application("app").await;
    let admin = world.admin_graph_token().await;
    let own = format!("/v1.0/servicePrincipals/{principal}");
    for asked in [
        json!({ "groupMembershipClaims": "SecurityGroup" }),
        json!({ "tokenEncryptionKeyId": app_id }),
        json!({ "optionalClaims": { "idToken": [{ "name": "email" }] } }),
    ] {
        let refused =
            create(&world, "applications", with(json!({ "displayName": "x" }), asked.clone())).await;
        assert_eq!(refused.graph_refusal(), (400, "Request_BadRequest".into()), "{asked}");
        assert!(refused.text.contains("is not supported"), "{}", refused.text);
    }
    let key = json!({ "tokenEncryptionKeyId": app_id });
    assert_eq!(world.graph(&admin, "PATCH", &own, key).await.status, 400);
    // As the clients send what nobody set.
    for empty in [
        json!({ "groupMembershipClaims": null, "tokenEncryptionKeyId": null, "optionalClaims": null }),
        json!({
            "groupMembershipClaims": "None",
            "optionalClaims": { "accessToken": [], "idToken": [], "saml2Token": [] },
            "isFallbackPublicClient": null,
            "api": {
                "acceptMappedClaims": null,
                "knownClientApplications": [],
                "requestedAccessTokenVersion": null,
                "oauth2PermissionScopes": [],
                "preAuthorizedApplications": [],
            },
            "web": { "homePageUrl": null, "redirectUris": [], "implicitGrantSettings": {} },
            "requiredResourceAccess": [],
        }),
    ] {
        create(&world, "applications", with(json!({ "displayName": "x" }), empty)).await.ok();
    }
    world.graph(&admin, "PATCH", &own, json!({ "tokenEncryptionKeyId": null })).await.ok();
}

#[tokio::test]
async fn a_principal_shows_what_its_application_offers() {
    let world = World::new().await;
    let (id, _, principal, _) = world.application("api").await;
    let admin = world.admin_graph_token().await;
    let path = format!("/v1.0/servicePrincipals/{principal}");
    let shown = async || world.graph(&admin, "GET", &path, Value::Null).await.ok();
    let before = shown().await;
    assert_eq!((&before["appRoles"], &before["oauth2PermissionScopes"]), (&json!([]), &json!([])));
    assert_eq!(before["signInAudience"], "AzureADMyOrg");
    let scopes = json!([{ "id": principal, "value": "read", "isEnabled": true, "type": "User" }]);
    let roles = json!([{ "id": id, "value": "Orders.Read", "allowedMemberTypes": ["Application"] }]);
    let change = json!({
        "api": { "oauth2PermissionScopes": scopes },
        "appRoles": roles,
        "signInAudience": "AzureADMultipleOrgs",
    });
    world.graph(&admin, "PATCH", &format!("/v1.0/applications/{id}"), change).await.ok();
    let after = shown().await;
    assert_eq!((&after["appRoles"], &after["oauth2PermissionScopes"]), (&roles, &scopes));
    assert_eq!(after["signInAudience"], "AzureADMultipleOrgs");
}

#[tokio::test]
async fn a_principal_is_called_as_its_application_is() {
    let world = World::new().await;
    let (id, app_id, principal, secret) = world.application("before").await;
    let admin = world.admin_graph_token().await;
    let own = format!("/v1.0/servicePrincipals/{principal}");
    let change = json!({ "displayName": "after" });
    world.graph(&admin, "PATCH", &format!("/v1.0/applications/{id}"), change).await.ok();
    let shown = world.graph(&admin, "GET", &own, Value::Null).await.ok();
    assert_eq!((&shown["displayName"], &shown["appDisplayName"]), (&json!("after"), &json!("after")));
    for (name, found) in [("before", 0), ("after", 1)] {
        let path = format!("/v1.0/servicePrincipals?$filter=displayName%20eq%20'{name}'");
        let list = world.graph(&admin, "GET", &path, Value::Null).await.ok();
        assert_eq!(list["value"].as_array().unwrap().len(), found, "{name}");
    }
    let facts = world.directory.principal(principal.parse().unwrap()).unwrap();
    assert_eq!(facts.display_name, "after");
    world.graph(&admin, "PATCH", &own, json!({ "accountEnabled": false })).await.ok();
    let refused = world.secret_token(&app_id, &secret, crate::world::ARM).await;
    assert!(refused.text.contains("(after) is disabled"), "{}", refused.text);
}

#[tokio::test]
async fn objects_are_made_with_their_owners_and_members() {
    let world = World::new().await;
    let (nina, bob) = (world.user("nina").await, world.user("bob").await);
    let (_, _, robot, _) = world.application("robot").await;
    let admin = world.admin_graph_token().await;
    let links = |ids: &[&String]| -> Value {
        ids.iter().map(|id| format!("https://graph.microsoft.com/v1.0/directoryObjects/{id}")).collect()
    };
    let ids = async |set: &str, id: &str, links: &str| {
        let list = world.graph(&admin, "GET", &format!("/v1.0/{set}/{id}/{links}"), Value::Null).await.ok();
        let mut ids: Vec<String> =
            list["value"].as_array().unwrap().iter().map(|item| text(item, "id")).collect();
        ids.sort();
        ids
    };
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    let group =
        json!({ "displayName": "g", "mailNickname": "g", "mailEnabled": false, "securityEnabled": true });
    let more =
        json!({ "owners@odata.bind": links(&[&nina]), "members@odata.bind": links(&[&nina, &bob, &bob]) });
    let made = text(&create(&world, "groups", with(group.clone(), more)).await.ok(), "id");
    assert_eq!(ids("groups", &made, "owners").await, [nina.as_str()]);
    assert_eq!(ids("groups", &made, "members").await, sorted(vec![nina.clone(), bob.clone()]));
    assert!(world.directory.groups_of(bob.parse().unwrap()).unwrap().contains(&made.parse().unwrap()));
    let owned = json!({ "displayName": "owned", "owners@odata.bind": links(&[&nina, &robot]) });
    let application = create(&world, "applications", owned).await.ok();
    let owners = ids("applications", &text(&application, "id"), "owners").await;
    assert_eq!(owners, sorted(vec![nina.clone(), robot.clone()]));
    let body = json!({ "appId": application["appId"], "owners@odata.bind": links(&[&bob]) });
    let principal = text(&create(&world, "servicePrincipals", body).await.ok(), "id");
    assert_eq!(ids("servicePrincipals", &principal, "owners").await, [bob.as_str()]);
    let nobody = uuid::Uuid::nil().to_string();
    for (wrong, status) in [
        (json!({ "owners@odata.bind": links(&[&nobody]) }), 404),
        (json!({ "members@odata.bind": links(&[&nina, &nobody]) }), 404),
        (json!({ "owners@odata.bind": links(&[&made]) }), 404),
        (json!({ "owners@odata.bind": "x" }), 400),
        (json!({ "owners@odata.bind": ["x"] }), 400),
        (json!({ "members@odata.bind": links(&[&nina; 21]) }), 400),
        (json!({ "friends@odata.bind": links(&[&nina]) }), 400),
    ] {
        let refused = create(&world, "groups", with(group.clone(), wrong.clone())).await;
        assert_eq!(refused.graph_refusal().0, status, "{wrong}");
    }
    assert_eq!(world.rows("directory/group").await, 1);
    world.graph(&admin, "DELETE", &format!("/v1.0/users/{nina}"), Value::Null).await.ok();
    assert_eq!(ids("groups", &made, "members").await, [bob]);
    assert_eq!(ids("applications", &text(&application, "id"), "owners").await, [robot]);
}
