//! Who is not known is told how to become known, and nothing else.

use arcadia_kernel::Method;
use serde_json::Value;

use crate::support::*;

const CHALLENGE: &str = "Bearer authorization=\"https://login.microsoftonline.com/00000000-0000-0000-0000-00000000007e\", resource=\"https://vault.azure.net\"";

#[tokio::test]
async fn any_path_of_any_host_is_challenged_before_anything_else() {
    let world = World::with_vault("kv1").await;
    let asks = [
        (Method::GET, "kv1", "/secrets/s?api-version=7.4"),
        (Method::PUT, "kv1", "/secrets/s?api-version=7.4"),
        (Method::PUT, "kv1", "/secrets/_hostile_?api-version=7.4"),
        (Method::GET, "kv1", "/secrets/s?api-version="),
        (Method::DELETE, "kv1", "/nothing/like/this?api-version=7.4"),
        (Method::TRACE, "kv1", "/?api-version=7.4"),
        (Method::GET, "nosuch", "/secrets/s?api-version=7.4"),
        (Method::GET, "a.b", "/secrets/s?api-version=7.4"),
    ];
    for (method, vault, path) in asks {
        let answer = world.ask(world.asking(None, method.clone(), vault, path, Value::Null)).await;
        assert_eq!(answer.refusal(), "401 Unauthorized", "{method} {vault} {path}");
        assert_eq!(answer.header("www-authenticate"), CHALLENGE);
        assert_eq!(answer.message(), "AKV10000: Request is missing a Bearer or PoP token.");
    }
}

#[tokio::test]
async fn every_row_is_challenged_without_a_token_and_refused_to_a_stranger() {
    let world = World::with_vault("kv1").await;
    let stranger = world.caller("stranger");
    let rows = world.data_rows();
    assert_eq!(rows.len(), 12);
    for row in rows {
        let path = row.pattern.as_str().replace("{name}", "s").replace("/{version?}", "");
        let anonymous = world.ask(world.asking(None, row.method.clone(), "kv1", &path, Value::Null)).await;
        assert_eq!(anonymous.refusal(), "401 Unauthorized", "{}", row.name);
        let refused = world.data(&stranger, row.method.clone(), "kv1", &path).await;
        assert_eq!(refused.refusal(), "403 Forbidden/ForbiddenByRbac", "{}", row.name);
        let action = row.action();
        assert!(refused.message().contains(&format!("Action: '{action}'")), "{}", refused.message());
    }
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_challenged_with_what_is_wrong() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let of = |authorization: String| {
        let mut ask = world.asking(None, Method::GET, "kv1", "/secrets/s", Value::Null);
        ask.headers.push(("authorization", authorization));
        ask
    };
    let mut seen = Vec::new();
    for authorization in [
        officer.bearer("https://management.azure.com"),
        officer.bearer("https://vault.azure.net.evil.example"),
        "Bearer !issuer".to_owned(),
        "Bearer !expired".to_owned(),
        "Bearer !early".to_owned(),
        "Bearer !key".to_owned(),
        "Bearer !signature".to_owned(),
        "Bearer !algorithm".to_owned(),
        "Bearer nonsense".to_owned(),
        "Basic b3duZXI6".to_owned(),
        "Bearer".to_owned(),
        String::new(),
    ] {
        let answer = world.ask(of(authorization)).await;
        assert_eq!(answer.refusal(), "401 Unauthorized");
        assert_eq!(answer.header("www-authenticate"), CHALLENGE);
        seen.push(answer.message());
    }
    insta::assert_json_snapshot!(seen);
    for audience in ["https://vault.azure.net", "https://vault.azure.net/", "HTTPS://Vault.Azure.Net//"] {
        assert_eq!(world.ask(of(officer.bearer(audience))).await.status, 404, "{audience}");
    }
}

#[tokio::test]
async fn a_host_without_a_vault_and_a_path_without_a_row_are_not_found() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    for host in ["nosuch", "kv1.kv1", "v"] {
        let answer = world.data(&officer, Method::GET, host, "/secrets/s").await;
        assert_eq!(answer.refusal(), "404 VaultNotFound", "{host}");
    }
    for path in ["/", "/keys/k", "/certificates/c", "/secrets/s/v/x", "/secrets/s/versions/x", "/deletedkeys"]
    {
        let answer = world.data(&officer, Method::GET, "kv1", path).await;
        assert_eq!(answer.refusal(), "404 NotFound", "{path}");
    }
    let answer = world.data(&officer, Method::POST, "kv1", "/secrets/s").await;
    assert_eq!(answer.refusal(), "405 MethodNotAllowed");
}

#[tokio::test]
async fn every_answer_carries_the_services_headers() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    for caller in [None, Some(&officer)] {
        let mut ask = world.asking(caller, Method::GET, "kv1", "/secrets/s", Value::Null);
        ask.headers.push(("x-ms-client-request-id", "mine".to_owned()));
        let answer = world.ask(ask).await;
        let fixed = [
            ("cache-control", "no-cache"),
            ("pragma", "no-cache"),
            ("expires", "-1"),
            ("x-content-type-options", "nosniff"),
            ("strict-transport-security", "max-age=31536000;includeSubDomains"),
            ("content-type", "application/json; charset=utf-8"),
            ("x-ms-client-request-id", "mine"),
            ("x-ms-keyvault-region", "uksouth"),
            ("x-ms-keyvault-network-info", "conn_type=Ipv4;addr=198.51.100.7;act_addr_fam=InterNetwork;"),
        ];
        for (name, value) in fixed {
            assert_eq!(answer.header(name), value, "{name}");
        }
        assert!(uuid::Uuid::try_parse(answer.header("x-ms-request-id")).is_ok());
        let assignment = answer.header("x-ms-keyvault-rbac-assignment-id");
        assert_eq!(assignment.len(), if caller.is_some() { 32 } else { 0 });
        assert!(assignment.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

#[tokio::test]
async fn the_api_version_is_required_and_any_known_form_is_served() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    for version in ["7.0", "7.1", "7.6-preview.2", "2025-07-01", "2026-04-01", "2016-10-01", "2031-01-01"] {
        let path = format!("/secrets/s/?api-version={version}");
        let bundle = world.data(&officer, Method::GET, "kv1", &path).await.ok();
        let gated = matches!(version, "7.0" | "2016-10-01");
        assert_eq!(bundle["attributes"]["recoverableDays"].is_null(), gated, "{version}");
        assert_eq!(bundle["attributes"]["recoveryLevel"], "CustomizedRecoverable+Purgeable");
    }
    for version in ["", "6.0", "latest", "7.4'", "2026-04-31x"] {
        let path = format!("/secrets/s?api-version={version}");
        let answer = world.data(&officer, Method::GET, "kv1", &path).await;
        assert_eq!(answer.refusal(), "400 BadParameter", "{version}");
    }
}
