use arcadia_directory::AZURE_CLI_APP_ID;
use serde_json::{Value, json};

use crate::world::{ARM, START, World, text};

#[tokio::test]
async fn documents_name_the_tenant_or_leave_it_open() {
    let world = World::new().await;
    let tenant = world.tenant();
    let document = world.get(&format!("/{tenant}/v2.0/.well-known/openid-configuration")).await.ok();
    assert_eq!(document["issuer"], format!("https://login.microsoftonline.com/{tenant}/v2.0"));
    assert_eq!(
        document["token_endpoint"],
        format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token")
    );
    let document = world.get("/organizations/v2.0/.well-known/openid-configuration").await.ok();
    assert_eq!(document["issuer"], "https://login.microsoftonline.com/{tenantid}/v2.0");
    let document = world.get("/common/.well-known/openid-configuration").await.ok();
    assert_eq!(document["issuer"], "https://sts.windows.net/{tenantid}/");
    assert_eq!(document["token_endpoint"], "https://login.microsoftonline.com/common/oauth2/token");
    let keys = world.get("/common/discovery/v2.0/keys").await;
    assert!(keys.headers["cache-control"].to_str().unwrap().contains("max-age"));
    assert_eq!(keys.ok()["keys"][0]["issuer"], format!("https://login.microsoftonline.com/{tenant}/v2.0"));
    assert!(world.get("/arcadia.example/discovery/keys").await.ok()["keys"][0]["x5c"][0].is_string());
}

#[tokio::test]
async fn unknown_tenants_and_instances_are_refused() {
    let world = World::new().await;
    let answer = world.get("/nosuch/v2.0/.well-known/openid-configuration").await;
    assert_eq!(answer.refusal(), (400, "invalid_tenant".into(), 90_002));
    let answer = world.get("/consumers/v2.0/.well-known/openid-configuration").await;
    assert_eq!(answer.refusal().2, 9_002_332);
    let ask = |endpoint: &str| {
        format!("/common/discovery/instance?api-version=1.1&authorization_endpoint={endpoint}")
    };
    let answer = world.get(&ask("https://login.windows.net/contoso/oauth2/v2.0/authorize")).await.ok();
    assert_eq!(
        answer["tenant_discovery_endpoint"],
        "https://login.windows.net/contoso/v2.0/.well-known/openid-configuration"
    );
    for foreign in
        ["https://evil.example/common", "http://login.windows.net/common", "x", "https://login.windows.net/"]
    {
        assert_eq!(world.get(&ask(foreign)).await.refusal(), (400, "invalid_instance".into(), 50_049));
    }
    let realm = world.get("/common/userrealm/nina@arcadia.example?api-version=1.0").await.ok();
    assert_eq!(realm["account_type"], "Managed");
    let realm = world.get("/common/userrealm/nina@elsewhere.example?api-version=1.0").await.ok();
    assert_eq!(realm["account_type"], "Unknown");
}

#[tokio::test]
async fn an_application_gets_a_version_1_token_with_the_resource_as_it_was_asked_for() {
    let world = World::new().await;
    let answer = world.first_principal_token(ARM).await.ok();
    assert_eq!((answer["expires_in"].as_i64(), answer["token_type"].as_str()), (Some(3599), Some("Bearer")));
    let token = text(&answer, "access_token");
    let claims = world.claims(&token);
    assert_eq!(claims["aud"], "https://management.core.windows.net/");
    assert_eq!(claims["iss"], format!("https://sts.windows.net/{}/", world.tenant()));
    assert_eq!(claims["oid"], world.first.service_principal_object_id.to_string());
    assert_eq!(claims["sub"], claims["oid"]);
    assert_eq!(claims["appid"], world.first.app_id.to_string());
    assert_eq!(
        (&claims["appidacr"], &claims["idtyp"], &claims["ver"]),
        (&json!("1"), &json!("app"), &json!("1.0"))
    );
    assert_eq!(claims["exp"].as_i64(), Some(START + 3600));
    assert!(!claims.contains_key("scp") && !claims.contains_key("upn"));
    let (header, _) = arcadia_crypto::peek(&token).unwrap();
    assert_eq!((&header["typ"], &header["alg"]), (&json!("JWT"), &json!("RS256")));
    assert_eq!(header["x5t"], header["kid"]);
    let other = world.first_principal_token("https://vault.azure.net/.default").await.ok();
    assert_eq!(world.claims(&text(&other, "access_token"))["aud"], "https://vault.azure.net");
    assert!(other.get("refresh_token").is_none() && other.get("id_token").is_none());
}

#[tokio::test]
async fn version_1_answers_write_numbers_as_text() {
    let world = World::new().await;
    let (app, secret) = (world.first.app_id.to_string(), world.first.client_secret.clone());
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("resource", "https://management.azure.com/"),
    ];
    let answer = world.post(&format!("/{}/oauth2/token", world.tenant()), &fields).await.ok();
    assert_eq!(answer["expires_in"], "3599");
    assert_eq!(answer["expires_on"], (START + 3600).to_string());
    assert_eq!(answer["resource"], "https://management.azure.com/");
    let claims = world.claims(&text(&answer, "access_token"));
    assert_eq!(claims["aud"], "https://management.azure.com/");
}

#[tokio::test]
async fn a_secret_may_come_in_the_header() {
    let world = World::new().await;
    let pair = format!("{}:{}", world.first.app_id, crate::world::encode(&world.first.client_secret));
    let basic = format!("Basic {}", arcadia_crypto::b64(pair.as_bytes()));
    let path = format!("/{}/oauth2/v2.0/token", world.tenant());
    let fields = [("grant_type", "client_credentials"), ("scope", ARM)];
    world.post_with(&path, &[("authorization", &basic)], &fields).await.ok();
}

#[tokio::test]
async fn a_person_gets_access_id_and_refresh_tokens() {
    let world = World::new().await;
    let id = world.user("nina").await;
    let answer = world.password_token("Nina@Arcadia.example", "Passw0rd!", ARM).await;
    assert_eq!(answer.headers["cache-control"], "no-store, no-cache");
    let answer = answer.ok();
    assert!(text(&answer, "scope").split(' ').any(|scope| scope == ARM));
    assert_eq!(answer["foci"], "1");
    let claims = world.claims(&text(&answer, "access_token"));
    assert_eq!(claims["aud"], "https://management.core.windows.net/");
    assert_eq!(claims["upn"], "nina@arcadia.example");
    assert_eq!(claims["unique_name"], "nina@arcadia.example");
    assert_eq!(claims["scp"], "user_impersonation");
    assert_eq!(claims["oid"], id.as_str());
    assert_eq!((&claims["appidacr"], &claims["xms_cc"]), (&json!("0"), &json!(["CP1"])));
    let id_token = arcadia_crypto::peek(&text(&answer, "id_token")).unwrap().1;
    assert_eq!(id_token["aud"], AZURE_CLI_APP_ID.to_string());
    assert_eq!(id_token["preferred_username"], "nina@arcadia.example");
    assert_eq!((&id_token["tid"], &id_token["ver"]), (&json!(world.tenant()), &json!("2.0")));
    let info = arcadia_crypto::b64url_decode(&text(&answer, "client_info")).unwrap();
    let info: Value = serde_json::from_slice(&info).unwrap();
    assert_eq!(info, json!({ "uid": id, "utid": world.tenant() }));
}

pub async fn refresh(world: &World, token: &str, scope: &str) -> crate::world::Answer {
    let az = AZURE_CLI_APP_ID.to_string();
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", az.as_str()),
        ("refresh_token", token),
        ("scope", scope),
    ];
    world.token(&world.tenant(), &fields).await
}

#[tokio::test]
async fn refresh_tokens_rotate_and_their_reuse_ends_the_sign_in() {
    let world = World::new().await;
    world.user("nina").await;
    let first =
        text(&world.password_token("nina@arcadia.example", "Passw0rd!", ARM).await.ok(), "refresh_token");
    let vault = "https://vault.azure.net/.default offline_access openid profile";
    let answer = refresh(&world, &first, vault).await.ok();
    assert_eq!(world.claims(&text(&answer, "access_token"))["aud"], "https://vault.azure.net");
    let second = text(&answer, "refresh_token");
    assert_ne!(first, second);
    // Another process with the same cache, a moment later.
    world.clock.advance_seconds(30);
    refresh(&world, &first, vault).await.ok();
    world.clock.advance_seconds(60);
    assert_eq!(refresh(&world, &first, vault).await.refusal(), (400, "invalid_grant".into(), 50_173));
    assert_eq!(refresh(&world, &second, vault).await.refusal().2, 50_173, "the whole session ended");
    assert_eq!(refresh(&world, "1.nonsense", vault).await.refusal().2, 9_002_313);
}

#[tokio::test]
async fn refresh_tokens_survive_a_restart_and_run_out_after_90_days() {
    let world = World::new().await;
    world.user("nina").await;
    let token =
        text(&world.password_token("nina@arcadia.example", "Passw0rd!", ARM).await.ok(), "refresh_token");
    let world = world.restarted().await;
    let token = text(&refresh(&world, &token, ARM).await.ok(), "refresh_token");
    world.clock.advance_seconds(90 * 24 * 3600 - 1);
    let token = text(&refresh(&world, &token, ARM).await.ok(), "refresh_token");
    world.clock.advance_seconds(90 * 24 * 3600);
    assert_eq!(refresh(&world, &token, ARM).await.refusal().2, 700_082);
}

#[tokio::test]
async fn a_refused_scope_leaves_the_refresh_token_alone() {
    let world = World::new().await;
    world.user("nina").await;
    let token =
        text(&world.password_token("nina@arcadia.example", "Passw0rd!", ARM).await.ok(), "refresh_token");
    for (scope, refusal) in [
        ("https://nobody.example/.default", (400, "invalid_resource", 500_011)),
        ("https://graph.microsoft.com/Mail.Read", (400, "invalid_grant", 65_001)),
        ("https://vault.azure.net/nosuch", (400, "invalid_scope", 650_053)),
    ] {
        let (status, error, number) = refresh(&world, &token, scope).await.refusal();
        assert_eq!((status, error.as_str(), number), refusal, "{scope}");
    }
    world.clock.advance_seconds(600);
    refresh(&world, &token, ARM).await.ok();
}

#[tokio::test]
async fn what_a_sign_in_was_for_is_asked_again_before_its_refresh_token_is_used_up() {
    let world = World::new().await;
    let (id, _, principal, _) = world.application("api").await;
    let admin = world.admin_graph_token().await;
    let api = json!({ "identifierUris": ["api://orders"], "api": { "oauth2PermissionScopes": [{ "value": "read" }] } });
    world.graph(&admin, "PATCH", &format!("/v1.0/applications/{id}"), api).await.ok();
    let (user, password) = (world.first.user_principal_name.clone(), world.first.user_password.clone());
    let token =
        text(&world.password_token(&user, &password, "api://orders/read").await.ok(), "refresh_token");
    let path = format!("/v1.0/servicePrincipals/{principal}");
    let require = async |on: bool| {
        world.graph(&admin, "PATCH", &path, json!({ "appRoleAssignmentRequired": on })).await.ok();
    };
    require(true).await;
    assert_eq!(refresh(&world, &token, "").await.refusal().2, 501_051);
    require(false).await;
    world.clock.advance_seconds(600);
    refresh(&world, &token, "").await.ok();
}

#[tokio::test]
async fn what_is_switched_off_for_an_application_ends_its_refreshes_too() {
    let world = World::new().await;
    let (id, app_id, principal, secret) = world.application("desktop").await;
    world.consent(&id).await;
    let admin = world.admin_graph_token().await;
    let application = format!("/v1.0/applications/{id}");
    let set = async |path: &str, change: Value| drop(world.graph(&admin, "PATCH", path, change).await.ok());
    set(&application, json!({ "isFallbackPublicClient": true })).await;
    let (user, password) = (world.first.user_principal_name.clone(), world.first.user_password.clone());
    let scope = format!("{ARM} offline_access");
    let fields = [
        ("grant_type", "password"),
        ("client_id", app_id.as_str()),
        ("username", user.as_str()),
        ("password", password.as_str()),
        ("scope", scope.as_str()),
    ];
    let token = text(&world.token("organizations", &fields).await.ok(), "refresh_token");
    let ask = async |token: &str, secret: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", app_id.as_str()),
            ("client_secret", secret),
            ("refresh_token", token),
        ];
        world.token("organizations", &fields).await
    };
    let token = text(&ask(&token, "").await.ok(), "refresh_token");
    set(&application, json!({ "isFallbackPublicClient": false })).await;
    assert_eq!(ask(&token, "").await.refusal(), (401, "invalid_client".into(), 7_000_218));
    set(&application, json!({ "publicClient": { "redirectUris": ["http://localhost"] } })).await;
    let token = text(&ask(&token, "").await.ok(), "refresh_token");
    set(&application, json!({ "publicClient": { "redirectUris": [] } })).await;
    assert_eq!(ask(&token, "").await.refusal().2, 7_000_218);
    let principal = format!("/v1.0/servicePrincipals/{principal}");
    set(&principal, json!({ "appRoleAssignmentRequired": true })).await;
    assert_eq!(ask(&token, &secret).await.refusal(), (400, "invalid_grant".into(), 50_105));
    set(&principal, json!({ "appRoleAssignmentRequired": false })).await;
    world.clock.advance_seconds(600);
    ask(&token, &secret).await.ok();
}

/// Of two processes with one cache, one may be some exchanges ahead.
#[tokio::test]
async fn within_the_grace_minute_the_token_that_is_given_is_good() {
    let world = World::new().await;
    world.user("nina").await;
    let first =
        text(&world.password_token("nina@arcadia.example", "Passw0rd!", ARM).await.ok(), "refresh_token");
    let mut last = first.clone();
    for _ in 0..3 {
        last = text(&refresh(&world, &last, ARM).await.ok(), "refresh_token");
    }
    let late = text(&refresh(&world, &first, ARM).await.ok(), "refresh_token");
    assert_eq!(late, last);
    world.clock.advance_seconds(61);
    refresh(&world, &late, ARM).await.ok();
}

#[tokio::test]
async fn the_graph_rights_of_a_person_depend_on_the_application() {
    let world = World::new().await;
    let (id, app_id, ..) = world.application("desktop").await;
    let admin = world.admin_graph_token().await;
    let path = format!("/v1.0/applications/{id}");
    world.graph(&admin, "PATCH", &path, json!({ "isFallbackPublicClient": true })).await.ok();
    let (user, password) = (world.first.user_principal_name.clone(), world.first.user_password.clone());
    let fields = [
        ("grant_type", "password"),
        ("client_id", app_id.as_str()),
        ("username", user.as_str()),
        ("password", password.as_str()),
        ("scope", "https://graph.microsoft.com/.default openid"),
    ];
    let token = text(&world.token("organizations", &fields).await.ok(), "access_token");
    assert_eq!(world.claims(&token)["scp"], "User.Read");
    world.graph(&token, "GET", "/v1.0/me", Value::Null).await.ok();
    let refused = world.graph(&token, "GET", "/v1.0/users", Value::Null).await;
    assert_eq!(refused.graph_refusal().0, 403);
    let mut asking = fields;
    asking[4].1 = "https://graph.microsoft.com/Directory.AccessAsUser.All";
    assert_eq!(world.token("organizations", &asking).await.refusal().2, 65_001);
}

#[tokio::test]
async fn an_application_can_be_a_resource() {
    let world = World::new().await;
    let (id, app_id, principal, _) = world.application("api").await;
    let admin = world.admin_graph_token().await;
    let path = format!("/v1.0/applications/{id}");
    let body = json!({
        "identifierUris": ["api://orders"],
        "api": { "requestedAccessTokenVersion": 2, "oauth2PermissionScopes": [{ "value": "read" }] },
    });
    world.graph(&admin, "PATCH", &path, body).await.ok();
    let token = text(&world.first_principal_token("api://orders/.default").await.ok(), "access_token");
    let claims = world.claims(&token);
    assert_eq!((&claims["aud"], &claims["ver"]), (&json!(app_id), &json!("2.0")));
    assert_eq!(claims["azp"], world.first.app_id.to_string());
    let (user, password) = (world.first.user_principal_name.clone(), world.first.user_password.clone());
    let answer = world.password_token(&user, &password, "api://orders/read").await.ok();
    assert_eq!(world.claims(&text(&answer, "access_token"))["scp"], "read");
    let refused = world.password_token(&user, &password, "api://orders/write").await.refusal();
    assert_eq!(refused, (400, "invalid_scope".into(), 650_053));
    let scopes = json!([{ "value": "read", "isEnabled": false }, { "value": "list", "isEnabled": true }]);
    let body = json!({ "api": { "oauth2PermissionScopes": scopes } });
    world.graph(&admin, "PATCH", &path, body).await.ok();
    assert_eq!(world.password_token(&user, &password, "api://orders/read").await.refusal().2, 650_053);
    let answer = world.password_token(&user, &password, "api://orders/.default").await.ok();
    assert_eq!(world.claims(&text(&answer, "access_token"))["scp"], "list");
    let path = format!("/v1.0/servicePrincipals/{principal}");
    world.graph(&admin, "PATCH", &path, json!({ "accountEnabled": false })).await.ok();
    assert_eq!(world.first_principal_token("api://orders/.default").await.refusal().2, 500_011);
    assert_eq!(world.password_token(&user, &password, "api://orders/list").await.refusal().2, 500_011);
    world.graph(&admin, "PATCH", &path, json!({ "accountEnabled": true })).await.ok();
    world.graph(&admin, "PATCH", &path, json!({ "appRoleAssignmentRequired": true })).await.ok();
    assert_eq!(world.first_principal_token("api://orders/.default").await.refusal().2, 501_051);
    world.graph(&admin, "DELETE", &path, Value::Null).await.ok();
    assert_eq!(world.first_principal_token("api://orders/.default").await.refusal().2, 500_011);
}

#[tokio::test]
async fn the_sweep_removes_what_has_passed_its_time() {
    let world = World::new().await;
    world.user("nina").await;
    world.password_token("nina@arcadia.example", "Passw0rd!", ARM).await.ok();
    let sweep = || world.directory.sweep(world.gate.as_system(arcadia_kernel::Reason::Sweep));
    assert_eq!(sweep().await.unwrap(), 0);
    world.clock.advance_seconds(91 * 24 * 3600);
    assert_eq!(sweep().await.unwrap(), 2, "a session and its refresh token");
    assert_eq!(sweep().await.unwrap(), 0);
}

#[tokio::test]
async fn a_session_lasts_as_long_as_its_latest_refresh_token() {
    let world = World::new().await;
    world.user("nina").await;
    let answer = world.password_token("nina@arcadia.example", "Passw0rd!", ARM).await.ok();
    world.clock.advance_seconds(60 * 24 * 3600);
    let token = text(&refresh(&world, &text(&answer, "refresh_token"), ARM).await.ok(), "refresh_token");
    world.clock.advance_seconds(60 * 24 * 3600);
    let swept = world.directory.sweep(world.gate.as_system(arcadia_kernel::Reason::Sweep)).await;
    assert_eq!(swept.unwrap(), 1, "the first refresh token");
    refresh(&world, &token, ARM).await.ok();
}

#[tokio::test]
async fn a_deleted_application_can_come_back_for_30_days() {
    let world = World::new().await;
    let (id, ..) = world.application("gone").await;
    let deleted = async || {
        let admin = world.admin_graph_token().await;
        world.graph(&admin, "DELETE", &format!("/v1.0/applications/{id}"), Value::Null).await.ok();
    };
    let restored = async || {
        let admin = world.admin_graph_token().await;
        let path = format!("/v1.0/directory/deletedItems/{id}/restore");
        world.graph(&admin, "POST", &path, Value::Null).await.status.as_u16()
    };
    let sweep = || world.directory.sweep(world.gate.as_system(arcadia_kernel::Reason::Sweep));
    deleted().await;
    world.clock.advance_seconds(30 * 24 * 3600);
    assert_eq!(sweep().await.unwrap(), 0);
    assert_eq!(restored().await, 200);
    deleted().await;
    world.clock.advance_seconds(30 * 24 * 3600 + 1);
    assert_eq!(sweep().await.unwrap(), 1);
    assert_eq!(restored().await, 404);
}

/// Tickets, and the refresh tokens that follow on others, are no harder to guess than the site's own key.
#[tokio::test]
async fn the_key_for_what_the_site_hands_itself_is_random_to_its_end() {
    let mut parts = std::collections::HashSet::new();
    for _ in 0..2 {
        let rows = World::new().await.all("directory/form-key").await;
        let key = arcadia_crypto::b64_decode(&text(&rows[0], "key")).unwrap();
        assert_eq!((rows.len(), key.len()), (1, 32));
        parts.extend(key.chunks(8).map(<[u8]>::to_vec));
    }
    assert_eq!(parts.len(), 8);
}
