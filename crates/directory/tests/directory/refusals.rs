use arcadia_directory::AZURE_CLI_APP_ID;
use serde_json::{Value, json};

use crate::world::{ARM, World, text};

#[tokio::test]
async fn wrong_and_expired_secrets() {
    let world = World::new().await;
    let app = world.first.app_id.to_string();
    let answer = world.secret_token(&app, "wrong", ARM).await;
    assert_eq!(answer.refusal(), (401, "invalid_client".into(), 7_000_215));
    assert!(answer.headers.get("retry-after").is_none());
    let id = text(&answer.json(), "trace_id");
    assert_eq!(answer.headers["x-ms-request-id"], id.as_str());
    let token = world.admin_graph_token().await;
    let path = format!("/v1.0/applications/{}/addPassword", world.first.application_object_id);
    let body =
        json!({ "passwordCredential": { "displayName": "short", "endDateTime": "2026-11-30T00:00:00Z" } });
    let secret = text(&world.graph(&token, "POST", &path, body).await.ok(), "secretText");
    world.secret_token(&app, &secret, ARM).await.ok();
    let body = json!({ "passwordCredential": { "startDateTime": "2026-12-01T00:00:00Z" } });
    let next = text(&world.graph(&token, "POST", &path, body).await.ok(), "secretText");
    let refused = (401, "invalid_client".into(), 7_000_222);
    assert_eq!(world.secret_token(&app, &next, ARM).await.refusal(), refused, "not yet");
    world.clock.advance_seconds(30 * 24 * 3600);
    assert_eq!(world.secret_token(&app, &secret, ARM).await.refusal(), refused, "no more");
    world.secret_token(&app, &next, ARM).await.ok();
}

#[tokio::test]
async fn malformed_token_requests() {
    let world = World::new().await;
    let tenant = world.tenant();
    let az = AZURE_CLI_APP_ID.to_string();
    let app = world.first.app_id.to_string();
    let secret = world.first.client_secret.clone();
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, (u16, &'a str, u64));
    let cases: &[Case<'_>] = &[
        (&tenant, vec![], (400, "invalid_request", 900_144)),
        (&tenant, vec![("grant_type", "client_credentials")], (400, "invalid_request", 900_144)),
        (&tenant, vec![("grant_type", "x"), ("client_id", &az)], (400, "unsupported_grant_type", 70_003)),
        (
            &tenant,
            vec![("grant_type", "client_credentials"), ("client_id", "nobody")],
            (400, "unauthorized_client", 700_016),
        ),
        (
            &tenant,
            vec![("grant_type", "client_credentials"), ("client_id", &app), ("scope", ARM)],
            (401, "invalid_client", 7_000_216),
        ),
        (
            "organizations",
            vec![("grant_type", "client_credentials"), ("client_id", &app), ("client_secret", &secret)],
            (400, "invalid_request", 50_059),
        ),
        (
            &tenant,
            vec![("grant_type", "client_credentials"), ("client_id", &app), ("client_secret", &secret)],
            (400, "invalid_request", 900_144),
        ),
        (
            &tenant,
            vec![
                ("grant_type", "client_credentials"),
                ("client_id", &app),
                ("client_secret", &secret),
                ("scope", "https://management.azure.com/user_impersonation"),
            ],
            (400, "invalid_scope", 1_002_012),
        ),
        (
            &tenant,
            vec![("grant_type", "password"), ("client_id", &az), ("client_secret", "x"), ("scope", ARM)],
            (401, "invalid_client", 700_025),
        ),
        (
            &tenant,
            vec![("grant_type", "password"), ("client_id", &app), ("scope", ARM)],
            (401, "invalid_client", 7_000_218),
        ),
        ("common", vec![("grant_type", "password"), ("client_id", &az)], (400, "invalid_request", 9_001_023)),
        ("nosuch", vec![("grant_type", "password"), ("client_id", &az)], (400, "invalid_request", 90_002)),
    ];
    for (tenant, fields, (status, error, number)) in cases {
        let answer = world.token(tenant, fields).await;
        assert_eq!(answer.refusal(), (*status, (*error).to_owned(), *number), "{fields:?}");
        if *status == 400 {
            assert_eq!(answer.headers["retry-after"], "0", "a cached refusal would last a minute");
        }
    }
}

/// azure-core sends again whatever is answered with `Retry-After`; what az keeps on disk without it, it does not.
#[tokio::test]
async fn who_would_send_a_refused_sign_in_again_is_not_told_to() {
    let world = World::new().await;
    world.user("nina").await;
    let az = AZURE_CLI_APP_ID.to_string();
    let path = "/organizations/oauth2/v2.0/token";
    let wrong = [
        ("grant_type", "password"),
        ("client_id", az.as_str()),
        ("username", "nina@arcadia.example"),
        ("password", "wrong"),
        ("scope", ARM),
    ];
    for (agent, retry_after) in [
        ("azsdk-python-identity/1.25.1 Python/3.11.2 (Linux-6.1)", None),
        ("my-app azsdk-net-Identity/1.14.0 (.NET 8.0.1; Linux)", None),
        ("python-requests/2.33.0", Some("0")),
        ("no-azsdk-at-all/1.0", Some("0")),
    ] {
        let answer = world.post_with(path, &[("user-agent", agent)], &wrong).await;
        assert_eq!(answer.refusal().2, 50_126);
        let found = answer.headers.get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(found, retry_after, "{agent}");
    }
    for _ in 0..6 {
        assert_eq!(world.post(path, &wrong).await.refusal().2, 50_126);
    }
    let locked = world.post(path, &wrong).await;
    assert_eq!(locked.refusal(), (400, "invalid_grant".into(), 50_053));
    assert!(!locked.headers.contains_key("retry-after"), "the account stays locked for a minute");
}

/// An application in its own name asks for all that it was given on one resource.
#[tokio::test]
async fn applications_ask_for_a_resource_as_a_whole() {
    let world = World::new().await;
    for scope in [
        "https://graph.microsoft.com",
        "https://vault.azure.net/",
        "https://management.azure.com/user_impersonation",
        "https://vault.azure.net/.default https://vault.azure.net/user_impersonation",
        "User.Read",
        "openid",
        "openid offline_access",
    ] {
        let refused = world.first_principal_token(scope).await;
        assert_eq!(refused.refusal(), (400, "invalid_scope".into(), 1_002_012), "{scope}");
        assert!(refused.text.contains(&format!("for scope {scope} is not valid")), "{}", refused.text);
    }
    for scope in
        [".default", "https://graph.microsoft.com/.default openid", "https://vault.azure.net//.default"]
    {
        world.first_principal_token(scope).await.ok();
    }
}

#[tokio::test]
async fn people_who_may_not_sign_in() {
    let world = World::new().await;
    let id = world.user("nina").await;
    let upn = "nina@arcadia.example";
    assert_eq!(
        world.password_token(upn, "wrong", ARM).await.refusal(),
        (400, "invalid_grant".into(), 50_126)
    );
    assert_eq!(world.password_token("nobody@arcadia.example", "x", ARM).await.refusal().2, 50_034);
    let refresh_token = text(&world.password_token(upn, "Passw0rd!", ARM).await.ok(), "refresh_token");
    let admin = world.admin_graph_token().await;
    let path = format!("/v1.0/users/{id}");
    world.graph(&admin, "PATCH", &path, json!({ "accountEnabled": false })).await.ok();
    assert_eq!(world.password_token(upn, "Passw0rd!", ARM).await.refusal().2, 50_057);
    let az = AZURE_CLI_APP_ID.to_string();
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", &*az),
        ("refresh_token", &*refresh_token),
        ("scope", ARM),
    ];
    assert_eq!(world.token("organizations", &fields).await.refusal().2, 50_057);
    world.graph(&admin, "PATCH", &path, json!({ "accountEnabled": true })).await.ok();
    assert_eq!(world.token("organizations", &fields).await.refusal().2, 50_173, "dead for good");
    world.graph(&admin, "DELETE", &path, Value::Null).await.ok();
    assert_eq!(world.token("organizations", &fields).await.refusal().2, 50_034);
}

#[tokio::test]
async fn a_new_password_ends_sessions() {
    let world = World::new().await;
    let id = world.user("nina").await;
    let upn = "nina@arcadia.example";
    let refresh_token = text(&world.password_token(upn, "Passw0rd!", ARM).await.ok(), "refresh_token");
    let admin = world.admin_graph_token().await;
    let body =
        json!({ "passwordProfile": { "password": "Fr3shPassword", "forceChangePasswordNextSignIn": false } });
    world.graph(&admin, "PATCH", &format!("/v1.0/users/{id}"), body).await.ok();
    assert_eq!(world.password_token(upn, "Passw0rd!", ARM).await.refusal().2, 50_126);
    world.password_token(upn, "Fr3shPassword", ARM).await.ok();
    let az = AZURE_CLI_APP_ID.to_string();
    let fields = [("grant_type", "refresh_token"), ("client_id", &*az), ("refresh_token", &*refresh_token)];
    assert_eq!(world.token("organizations", &fields).await.refusal().2, 50_173);
}

#[tokio::test]
async fn disabled_and_deleted_applications_get_nothing() {
    let world = World::new().await;
    let (id, app_id, principal, secret) = world.application("robot").await;
    world.secret_token(&app_id, &secret, ARM).await.ok();
    let graph_token = text(
        &world.secret_token(&app_id, &secret, "https://graph.microsoft.com/.default").await.ok(),
        "access_token",
    );
    let own = format!("/v1.0/servicePrincipals/{principal}");
    world.graph(&graph_token, "GET", &own, Value::Null).await.ok();
    let admin = world.admin_graph_token().await;
    world.graph(&admin, "PATCH", &own, json!({ "accountEnabled": false })).await.ok();
    assert_eq!(world.secret_token(&app_id, &secret, ARM).await.refusal().2, 7_000_112);
    assert_eq!(world.graph(&graph_token, "GET", &own, Value::Null).await.graph_refusal().0, 403);
    world.graph(&admin, "PATCH", &own, json!({ "accountEnabled": true })).await.ok();
    world.graph(&admin, "DELETE", &own, Value::Null).await.ok();
    assert_eq!(
        world.secret_token(&app_id, &secret, ARM).await.refusal(),
        (401, "invalid_client".into(), 7_000_229)
    );
    world.graph(&admin, "DELETE", &format!("/v1.0/applications/{id}"), Value::Null).await.ok();
    assert_eq!(world.secret_token(&app_id, &secret, ARM).await.refusal().2, 700_016);
    assert!(world.directory.groups_of(principal.parse().unwrap()).is_none());
}

#[tokio::test]
async fn guessing_a_password_locks_the_account_for_a_minute_where_it_is_guessed() {
    let world = World::new().await;
    world.user("nina").await;
    let upn = "nina@arcadia.example";
    for _ in 0..10 {
        assert_eq!(world.password_token(upn, "wrong", ARM).await.refusal().2, 50_126);
    }
    assert_eq!(
        world.password_token(upn, "Passw0rd!", ARM).await.refusal(),
        (400, "invalid_grant".into(), 50_053)
    );
    let az = AZURE_CLI_APP_ID.to_string();
    let fields = [
        ("grant_type", "password"),
        ("client_id", az.as_str()),
        ("username", upn),
        ("password", "Passw0rd!"),
        ("scope", ARM),
    ];
    world.post_from("10.1.2.3", "/organizations/oauth2/v2.0/token", &fields).await.ok();
    world.clock.advance_seconds(61);
    world.password_token(upn, "Passw0rd!", ARM).await.ok();
}

#[tokio::test]
async fn guessing_a_password_from_many_places_locks_the_account_everywhere() {
    let world = World::new().await;
    world.user("nina").await;
    let az = AZURE_CLI_APP_ID.to_string();
    let ask = async |address: &str, password: &str| {
        let fields = [
            ("grant_type", "password"),
            ("client_id", az.as_str()),
            ("username", "nina@arcadia.example"),
            ("password", password),
            ("scope", ARM),
        ];
        world.post_from(address, "/organizations/oauth2/v2.0/token", &fields).await
    };
    for guess in 0..50 {
        let refused = ask(&format!("10.1.{}.1", guess % 10), "wrong").await;
        assert_eq!(refused.refusal().2, 50_126, "{guess}");
    }
    let locked = ask("10.1.99.1", "Passw0rd!").await;
    assert_eq!(locked.refusal(), (400, "invalid_grant".into(), 50_053));
    world.clock.advance_seconds(61);
    ask("10.1.99.1", "Passw0rd!").await.ok();
}

/// So many at once that all of them would be one too many, were they wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn passwords_sent_at_once_count_as_many_as_are_wrong() {
    let world = std::sync::Arc::new(World::new().await);
    world.user("nina").await;
    let send_all = async |passwords: Vec<&'static str>| {
        let sent = passwords.into_iter().map(|password| {
            let world = world.clone();
            tokio::spawn(async move { world.password_token("nina@arcadia.example", password, ARM).await })
        });
        let mut numbers = Vec::new();
        for one in sent.collect::<Vec<_>>() {
            let answer = one.await.unwrap();
            numbers.push(if answer.status == 200 { 0 } else { answer.refusal().2 });
        }
        numbers
    };
    assert_eq!(send_all(vec!["Passw0rd!"; 24]).await, [0; 24]);
    let numbers = send_all([["Passw0rd!"; 9], ["wrong"; 9]].concat()).await;
    assert_eq!(numbers, [[0; 9], [50_126; 9]].concat());
    let numbers = send_all(vec!["wrong"; 12]).await;
    let looked_at = numbers.iter().filter(|number| **number == 50_126).count();
    let refused = numbers.iter().filter(|number| **number == 50_053).count();
    assert_eq!((looked_at, refused), (1, 11), "{numbers:?}");
}

/// Their records and those that the audit log bounds itself are counted by the same minutes.
#[tokio::test]
async fn device_codes_are_handed_out_by_the_minute() {
    let world = World::new().await;
    let az = AZURE_CLI_APP_ID.to_string();
    let fields = [("client_id", az.as_str()), ("scope", ARM)];
    let start = async |address: &str| {
        world.post_from(address, "/organizations/oauth2/v2.0/devicecode", &fields).await.status.as_u16()
    };
    let rest = 60 - crate::world::START % 60;
    world.clock.advance_seconds(rest - 1);
    for _ in 0..60 {
        assert_eq!(start("10.1.2.3").await, 200);
    }
    assert_eq!(start("10.1.2.3").await, 429);
    world.clock.advance_seconds(1);
    for network in 0..20 {
        for _ in 0..60 {
            assert_eq!(start(&format!("10.1.{network}.1")).await, 200);
        }
    }
    for seconds in [0, 59] {
        world.clock.advance_seconds(seconds);
        assert_eq!(start("10.1.99.1").await, 429, "no more in this minute");
    }
    world.clock.advance_seconds(1);
    assert_eq!(start("10.1.99.1").await, 200);
}

/// There is no end of them: counted one by one, they would take the place of the counters of those who exist.
#[tokio::test]
async fn names_that_nobody_has_count_for_the_address_only() {
    let world = World::new().await;
    let az = AZURE_CLI_APP_ID.to_string();
    let guess = async |address: &str, name: &str| {
        let fields = [
            ("grant_type", "password"),
            ("client_id", az.as_str()),
            ("username", name),
            ("password", "x"),
            ("scope", ARM),
        ];
        world.post_from(address, "/organizations/oauth2/v2.0/token", &fields).await.refusal()
    };
    for _ in 0..300 {
        assert_eq!(guess("10.1.2.3", "nobody@arcadia.example").await.2, 50_034);
    }
    assert_eq!(guess("10.1.2.3", "nobody@arcadia.example").await.0, 429);
    assert_eq!(guess("10.1.2.4", "nobody@arcadia.example").await.2, 50_034);
}

#[tokio::test]
async fn wrong_secrets_are_throttled_and_right_ones_never() {
    let world = World::new().await;
    let app = world.first.app_id.to_string();
    for _ in 0..10 {
        assert_eq!(world.secret_token(&app, "x", ARM).await.refusal().2, 7_000_215);
    }
    let answer = world.secret_token(&app, "x", ARM).await;
    assert_eq!(answer.refusal().0, 429);
    assert_eq!(answer.headers["retry-after"], "60");
    for _ in 0..30 {
        world.first_principal_token(ARM).await.ok();
    }
}

#[tokio::test]
async fn sign_ins_are_recorded_under_who_signed_in() {
    let world = World::new().await;
    let nina = world.user("nina").await;
    world.password_token("nina@arcadia.example", "wrong", ARM).await;
    world.password_token("nina@arcadia.example", "Passw0rd!", ARM).await.ok();
    world.secret_token("nobody", "x", ARM).await;
    world.secret_token(&world.first.app_id.to_string(), "x", ARM).await;
    world.first_principal_token(ARM).await.ok();
    let records = world.store.audit_page(0, 1000).await.unwrap();
    let seen: Vec<(String, String, String)> = records
        .into_iter()
        .map(|record| serde_json::to_value(record.1).unwrap())
        .filter(|record| record["operation"] == "TokenV2")
        .map(|record| {
            let outcome = record["status"].as_u64().map_or("commit".to_owned(), |status| status.to_string());
            (text(&record, "callerKind"), text(&record, "callerName"), outcome)
        })
        .collect();
    let app = world.first.app_id.to_string();
    let expected = [
        ("application", app.as_str(), "200"),
        ("anonymous", "nina@arcadia.example", "400"),
        ("user", "nina@arcadia.example", "commit"),
        ("anonymous", "anonymous", "400"),
        ("anonymous", app.as_str(), "401"),
        ("application", app.as_str(), "200"),
    ];
    let expected = expected.map(|(kind, name, end)| (kind.to_owned(), name.to_owned(), end.to_owned()));
    assert_eq!(seen, expected, "{nina}");
}

#[tokio::test]
async fn nothing_else_is_served() {
    let world = World::new().await;
    assert_eq!(world.get("/whatever/it/is").await.status, 404);
    assert_eq!(world.get("/whatever/it/is").await.refusal().2, 900_561);
    for path in ["oauth2/v2.0/token", "oauth2/token", "oauth2/v2.0/devicecode"] {
        let refused = world.get(&format!("/{}/{path}", world.tenant())).await;
        assert_eq!(refused.refusal(), (405, "invalid_request".into(), 900_561), "{path}");
        assert_eq!(refused.headers["allow"], "POST");
        let message = "The endpoint only accepts POST requests. Received a GET request.";
        assert!(refused.text.contains(message), "{}", refused.text);
    }
    let refused = world.post("/organizations/v2.0/.well-known/openid-configuration", &[]).await;
    assert_eq!(refused.status, 405);
    assert_eq!(refused.headers["allow"], "GET");
    let page = world.get("/decode").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("connect-src 'none'") && policy.contains("default-src 'none'"));
    assert!(!page.text.contains("src=") && !page.text.contains("fetch("));
}

/// By oneself or by an administrator; nobody is kept from signing in again.
#[tokio::test]
async fn sessions_are_revoked() {
    let world = World::new().await;
    let (first, other) = (world.user("nina").await, world.user("other").await);
    let upn = "nina@arcadia.example";
    let graph = "https://graph.microsoft.com/.default";
    let token = text(&world.password_token(upn, "Passw0rd!", graph).await.ok(), "access_token");
    let admin = world.admin_graph_token().await;
    let done =
        json!({ "@odata.context": "https://graph.microsoft.com/v1.0/$metadata#Edm.Boolean", "value": true });
    let own = format!("/v1.0/users/{first}/revokeSignInSessions");
    for (by, path) in [(&admin, own.as_str()), (&token, &own), (&token, "/v1.0/me/revokeSignInSessions")] {
        let session = text(&world.password_token(upn, "Passw0rd!", ARM).await.ok(), "refresh_token");
        assert_eq!(world.graph(by, "POST", path, Value::Null).await.ok(), done);
        let refused = crate::grants::refresh(&world, &session, ARM).await;
        assert_eq!(refused.refusal(), (400, "invalid_grant".into(), 50_173), "{path}");
    }
    let refused =
        async |token: &str, path: &str| world.graph(token, "POST", path, Value::Null).await.graph_refusal();
    let denied = (403, "Authorization_RequestDenied".to_owned());
    assert_eq!(refused(&token, &format!("/v1.0/users/{other}/revokeSignInSessions")).await, denied);
    assert_eq!(refused(&admin, "/v1.0/me/revokeSignInSessions").await, (400, "BadRequest".to_owned()));
    // An application that people merely sign in to does not sign them out of others.
    let (app, app_id, ..) = world.application("app").await;
    let public = json!({ "isFallbackPublicClient": true });
    world.graph(&admin, "PATCH", &format!("/v1.0/applications/{app}"), public).await.ok();
    let fields = [
        ("grant_type", "password"),
        ("client_id", app_id.as_str()),
        ("username", upn),
        ("password", "Passw0rd!"),
        ("scope", "User.Read"),
    ];
    let token = text(&world.token("organizations", &fields).await.ok(), "access_token");
    for path in [own.as_str(), "/v1.0/me/revokeSignInSessions"] {
        assert_eq!(refused(&token, path).await, denied, "{path}");
    }
}
