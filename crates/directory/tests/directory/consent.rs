//! What an application may do for the people who sign in to it.

use arcadia_directory::AZURE_CLI_APP_ID;
use arcadia_kernel::Outcome;
use serde_json::{Value, json};

use crate::pages::{REDIRECT, VERIFIER, authorize_path};
use crate::world::{ARM, Answer, World, encode, text};

const VAULT: &str = "https://vault.azure.net/.default";

/// An application that people sign in to without a secret: its object id, application id and principal id.
async fn desktop(world: &World) -> (String, String, String) {
    let (id, app_id, principal, _) = world.application("desktop").await;
    let change =
        json!({ "isFallbackPublicClient": true, "publicClient": { "redirectUris": ["http://localhost"] } });
    set(world, &format!("/v1.0/applications/{id}"), change).await;
    (id, app_id, principal)
}

async fn set(world: &World, path: &str, change: Value) {
    let admin = world.admin_graph_token().await;
    world.graph(&admin, "PATCH", path, change).await.ok();
}

async fn sign_in(world: &World, app_id: &str, scope: &str) -> Answer {
    let (user, password) = (world.first.user_principal_name.clone(), world.first.user_password.clone());
    let fields = [
        ("grant_type", "password"),
        ("client_id", app_id),
        ("username", user.as_str()),
        ("password", password.as_str()),
        ("scope", scope),
    ];
    world.token("organizations", &fields).await
}

async fn refresh(world: &World, app_id: &str, token: &str, scope: &str) -> Answer {
    let fields =
        [("grant_type", "refresh_token"), ("client_id", app_id), ("refresh_token", token), ("scope", scope)];
    world.token("organizations", &fields).await
}

#[tokio::test]
async fn signing_in_to_an_application_gives_it_none_of_the_services() {
    let world = World::new().await;
    let (_, app_id, _) = desktop(&world).await;
    for scope in [
        ARM,
        VAULT,
        "https://management.azure.com/user_impersonation",
        "797f4846-ba00-4fd7-ba43-dac1f8f63013/.default",
        "https://storage.azure.com/.default",
        "https://acct1.blob.core.windows.net/.default",
        "https://ossrdbms-aad.database.windows.net/.default",
        "https://his.arc.azure.com/.default",
    ] {
        let refused = sign_in(&world, &app_id, scope).await;
        assert_eq!(refused.refusal(), (400, "invalid_grant".into(), 65_001), "{scope}");
        assert_eq!(refused.json()["suberror"], "consent_required");
    }
    let told = text(&sign_in(&world, &app_id, VAULT).await.json(), "error_description");
    let command = format!(
        "az ad app permission add --id {app_id} --api cfa8b339-82a2-471a-a3c9-0fc0be7a4093 --api-permissions \
         f53da476-18e3-4152-8e01-aec403e6edc0=Scope"
    );
    assert!(told.contains(&command), "{told}");
    // Nor by a page or another screen, before anybody types a password.
    let page = world.get(&authorize_path(&app_id, REDIRECT, "")).await;
    let back = page.headers["location"].to_str().unwrap();
    assert!(back.contains("error=consent_required&") && back.contains("AADSTS65001"), "{back}");
    let fields = [("client_id", app_id.as_str()), ("scope", ARM)];
    let device = world.post("/organizations/oauth2/v2.0/devicecode", &fields).await;
    assert_eq!(device.refusal().2, 65_001);
}

#[tokio::test]
async fn an_administrator_names_the_services_that_an_application_may_use() {
    let world = World::new().await;
    let (id, app_id, _) = desktop(&world).await;
    let token = text(&sign_in(&world, &app_id, "openid offline_access").await.ok(), "refresh_token");
    assert_eq!(refresh(&world, &app_id, &token, VAULT).await.refusal().2, 65_001);
    let needed = |kind: &str| {
        json!({ "requiredResourceAccess": [{
            "resourceAppId": "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
            "resourceAccess": [{ "id": "f53da476-18e3-4152-8e01-aec403e6edc0", "type": kind }],
        }] })
    };
    let path = format!("/v1.0/applications/{id}");
    set(&world, &path, needed("Role")).await;
    assert_eq!(refresh(&world, &app_id, &token, VAULT).await.refusal().2, 65_001);
    set(&world, &path, needed("Scope")).await;
    let answer = refresh(&world, &app_id, &token, VAULT).await.ok();
    assert_eq!(world.claims(&text(&answer, "access_token"))["scp"], "user_impersonation");
    let token = text(&answer, "refresh_token");
    assert_eq!(refresh(&world, &app_id, &token, ARM).await.refusal().2, 65_001, "one is not all");
    let unknown = refresh(&world, &app_id, &token, "https://vault.azure.net/nosuch").await;
    assert_eq!(unknown.refusal(), (400, "invalid_scope".into(), 650_053));
    set(&world, &path, json!({ "requiredResourceAccess": [] })).await;
    assert_eq!(refresh(&world, &app_id, &token, VAULT).await.refusal().2, 65_001, "and it can be taken back");
}

/// Another may have been given less, or be one that needs a secret.
#[tokio::test]
async fn a_refresh_token_is_for_the_client_that_it_was_given_to() {
    let world = World::new().await;
    let (id, app_id, _) = desktop(&world).await;
    world.consent(&id).await;
    let az = AZURE_CLI_APP_ID.to_string();
    for (own, other) in [(&app_id, &az), (&az, &app_id)] {
        let signed_in = sign_in(&world, own, &format!("{ARM} offline_access")).await;
        let token = text(&signed_in.ok(), "refresh_token");
        let refused = refresh(&world, other, &token, ARM).await;
        assert_eq!(refused.refusal(), (400, "invalid_grant".into(), 70_000));
        assert!(refused.text.contains("issued to another client"), "{}", refused.text);
        // Nor was it used up.
        world.clock.advance_seconds(600);
        refresh(&world, own, &token, ARM).await.ok();
    }
}

/// The account's name is no service's, whatever it is.
#[tokio::test]
async fn what_is_given_of_storage_is_given_of_each_account() {
    let world = World::new().await;
    let (id, app_id, _) = desktop(&world).await;
    let own = ["https://acct1.blob.core.windows.net", "https://vault.blob.core.windows.net"];
    let ask = async |name: &str| sign_in(&world, &app_id, &format!("{name}/.default")).await;
    let needed = |service: &str, permission: &str| {
        json!({ "requiredResourceAccess": [{
            "resourceAppId": service, "resourceAccess": [{ "id": permission, "type": "Scope" }],
        }] })
    };
    let path = format!("/v1.0/applications/{id}");
    let (vault, storage) = ("cfa8b339-82a2-471a-a3c9-0fc0be7a4093", "e406a681-f3d4-42a8-90b6-c2b029497af1");
    set(&world, &path, needed(vault, "f53da476-18e3-4152-8e01-aec403e6edc0")).await;
    for name in own {
        let refused = ask(name).await;
        assert_eq!(refused.refusal().2, 65_001, "{name}");
        assert!(text(&refused.json(), "error_description").contains(&format!("--api {storage} ")));
    }
    set(&world, &path, needed(storage, "03e0da56-190b-40ad-a80c-ea378c433f7f")).await;
    for name in own {
        let claims = world.claims(&text(&ask(name).await.ok(), "access_token"));
        assert_eq!((&claims["aud"], &claims["scp"]), (&json!(name), &json!("user_impersonation")));
    }
    assert_eq!(ask("https://acct1.queue.core.windows.net").await.refusal().2, 500_011);
}

#[tokio::test]
async fn a_code_for_a_sign_in_alone_is_redeemed_for_no_service() {
    let world = World::new().await;
    world.user("nina").await;
    let (_, app_id, _) = desktop(&world).await;
    let path = authorize_path(&app_id, REDIRECT, "").replace(&encode(ARM), "openid");
    let answer = crate::pages::sign_in(&world, &path).await;
    let location = answer.headers["location"].to_str().unwrap();
    let code = location.split(['=', '&']).nth(1).unwrap();
    let redeem = async |scope: &str| {
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", app_id.as_str()),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", REDIRECT),
            ("scope", scope),
        ];
        world.token("organizations", &fields).await
    };
    assert_eq!(redeem(ARM).await.refusal(), (400, "invalid_grant".into(), 65_001));
    redeem("openid").await.ok();
}

/// What blocks an application stands on its service principal.
#[tokio::test]
async fn an_application_is_not_opened_by_deleting_its_principal() {
    let world = World::new().await;
    for block in [json!({ "accountEnabled": false }), json!({ "appRoleAssignmentRequired": true })] {
        let (_, app_id, principal) = desktop(&world).await;
        let token = text(&sign_in(&world, &app_id, "openid offline_access").await.ok(), "refresh_token");
        let path = format!("/v1.0/servicePrincipals/{principal}");
        set(&world, &path, block).await;
        assert_eq!(sign_in(&world, &app_id, "openid").await.status, 400);
        let admin = world.admin_graph_token().await;
        world.graph(&admin, "DELETE", &path, Value::Null).await.ok();
        for refused in
            [sign_in(&world, &app_id, "openid").await, refresh(&world, &app_id, &token, "openid").await]
        {
            assert_eq!(refused.refusal(), (401, "invalid_client".into(), 7_000_229));
        }
        let page = world.get(&authorize_path(&app_id, REDIRECT, "")).await;
        assert!(page.text.contains("AADSTS7000229"), "{}", page.text);
    }
}

#[tokio::test]
async fn no_application_takes_the_name_of_a_vault_an_account_or_a_service() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let register = async |uri: &str| {
        let body = json!({ "displayName": "impostor", "identifierUris": [uri] });
        world.graph(&admin, "POST", "/v1.0/applications", body).await
    };
    for taken in [
        "https://a1.blob.core.windows.net",
        "https://A1.Blob.core.windows.net:443/",
        "https://a1.blob.core.windows.net./x",
        "https://kv.vault.azure.net",
        "https://db.postgres.database.azure.com",
        "https://gbl.his.arc.azure.com",
        "https://login.microsoftonline.com/x",
        "https://portal.azure.com",
        "https://graph.microsoft.com/",
        "https://management.core.windows.net//",
    ] {
        assert_eq!(register(taken).await.graph_refusal(), (400, "Request_BadRequest".into()), "{taken}");
    }
    for free in ["api://orders", "https://arcadia.example/orders", "https://notazure.com", "urn:x:y"] {
        register(free).await.ok();
    }
}

/// It has the person's token, not the person.
#[tokio::test]
async fn an_application_that_is_gone_uses_no_ones_rights() {
    let world = World::new().await;
    let (id, app_id, principal) = desktop(&world).await;
    let token = text(&sign_in(&world, &app_id, "User.Read").await.ok(), "access_token");
    let by_az = world.password_token(
        &world.first.user_principal_name,
        &world.first.user_password,
        "https://graph.microsoft.com/.default",
    );
    let by_az = text(&by_az.await.ok(), "access_token");
    let path = format!("/v1.0/servicePrincipals/{principal}");
    let me = async |token: &str| world.graph(token, "GET", "/v1.0/me", Value::Null).await;
    me(&token).await.ok();
    let refused = async |token: &str| {
        let refused = me(token).await;
        assert_eq!(refused.graph_refusal(), (403, "Authorization_RequestDenied".into()), "{}", refused.text);
        let records = world.store.audit_page(0, 1000).await.unwrap();
        let reason = "the principal no longer exists or is disabled".to_owned();
        assert_eq!(records.last().unwrap().1.outcome, Outcome::Denied { reason });
    };
    set(&world, &path, json!({ "accountEnabled": false })).await;
    refused(&token).await;
    set(&world, &path, json!({ "accountEnabled": true })).await;
    me(&token).await.ok();
    let admin = world.admin_graph_token().await;
    world.graph(&admin, "DELETE", &format!("/v1.0/applications/{id}"), Value::Null).await.ok();
    refused(&token).await;
    let deleted = format!("/v1.0/directory/deletedItems/{id}");
    world.graph(&admin, "POST", &format!("{deleted}/restore"), Value::Null).await.ok();
    me(&token).await.ok();
    world.graph(&admin, "DELETE", &format!("/v1.0/applications/{id}"), Value::Null).await.ok();
    world.graph(&admin, "DELETE", &deleted, Value::Null).await.ok();
    refused(&token).await;
    me(&by_az).await.ok();
    let az = world.directory.service_principal_of(AZURE_CLI_APP_ID).unwrap().object_id;
    set(&world, &format!("/v1.0/servicePrincipals/{az}"), json!({ "accountEnabled": false })).await;
    refused(&by_az).await;
}
