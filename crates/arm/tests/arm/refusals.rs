//! Who gets nothing, and in what words.

use arcadia_kernel::{Access, Method};
use serde_json::{Value, json};

use crate::support::*;

/// A path that fits the row, with names that exist where a row needs one.
fn sample(pattern: &str, group: &str) -> String {
    let segments = pattern.split('/').filter(|segment| !segment.is_empty());
    let filled = segments.map(|segment| match segment {
        "{scope*}" => group.trim_start_matches('/').to_owned(),
        "{subscriptionId}" => SUBSCRIPTION.to_string(),
        "{resourceGroupName}" => "rg".to_owned(),
        "{providerNamespace}" => "Microsoft.Resources".to_owned(),
        "{roleAssignmentName}" | "{roleDefinitionId}" | "{operationId}" => NINA.to_string(),
        "{name1}" => "one".to_owned(),
        name if name.starts_with('{') => "x".to_owned(),
        literal => literal.to_owned(),
    });
    format!("/{}", filled.collect::<Vec<_>>().join("/"))
}

#[tokio::test]
async fn every_operation_refuses_strangers() {
    let site = Site::new().await;
    let group = site.group("rg").await;
    site.widget(&group, "one").await;
    let rows = site.catalogue();
    assert!(rows.len() > 40, "{}", rows.len());
    for row in rows {
        let path = sample(row.pattern.as_str(), &group);
        let body =
            if row.method == Method::GET || row.method == Method::HEAD { Value::Null } else { json!({}) };
        let anonymous = http::Request::builder()
            .method(row.method.clone())
            .uri(format!("{path}?{V}"))
            .body(body.to_string())
            .unwrap();
        let anonymous = site.send(anonymous).await;
        let stranger = site.call(STRANGER, row.method.clone(), &path, body).await;
        match &row.access {
            Access::Public { .. } => assert_eq!(anonymous.status, 200, "{}", row.name),
            Access::Decided { action, .. } => {
                assert_eq!(anonymous.status, 401, "{}", row.name);
                assert_eq!(stranger.status, 403, "{} {path}", row.name);
                if row.method != Method::HEAD {
                    assert_eq!(stranger.code(), "AuthorizationFailed", "{}", row.name);
                    assert!(stranger.message().contains(&format!("'{action}'")), "{}", row.name);
                }
            }
            Access::SignedIn { .. } => {
                assert_eq!(anonymous.status, 401, "{}", row.name);
                let public_knowledge = row.name.starts_with("Provider") && row.name.ends_with("AtTenant")
                    || row.name.ends_with("BuiltIn")
                    || row.name == "TenantList";
                let nothing = stranger.status == 404 || stranger.body["value"] == json!([]);
                assert!(nothing || public_knowledge, "{}: {}", row.name, stranger.body);
            }
        }
    }
    // And nothing of what the strangers tried is there.
    let left = site.get(OWNER, &format!("{}/resources", subscription())).await.is(200);
    assert_eq!(left.names(), ["one"]);
}

#[tokio::test]
async fn challenges_name_the_fault_and_where_to_sign_in() {
    let site = Site::new().await;
    let send = async |header: Option<&str>| {
        let mut request = http::Request::builder().uri(format!("{}?{V}", subscription()));
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        site.send(request.body(String::new()).unwrap()).await
    };
    let storage = format!("Bearer {OWNER}@https://storage.azure.com/");
    let slashes = format!("bearer {OWNER}@https://management.core.windows.net//");
    for (header, code) in [
        (None, "AuthenticationFailed"),
        (Some("Basic eDp5"), "AuthenticationFailedInvalidHeader"),
        (Some("Bearer"), "AuthenticationFailedInvalidHeader"),
        (Some("Bearer expired"), "ExpiredAuthenticationToken"),
        (Some("Bearer forged"), "InvalidAuthenticationToken"),
        (Some("Bearer nonsense"), "InvalidAuthenticationToken"),
        (Some("Bearer foreign"), "InvalidAuthenticationTokenTenant"),
        (Some(storage.as_str()), "InvalidAuthenticationTokenAudience"),
    ] {
        let answer = send(header).await;
        assert_eq!((answer.status, answer.code()), (401, code), "{header:?}");
        let challenge = answer.header("www-authenticate");
        let start =
            format!("Bearer authorization_uri=\"https://login.microsoftonline.com/{TENANT}\", error=\"");
        assert!(challenge.starts_with(&start), "{challenge}");
        assert!(challenge.contains("error_description=\""), "{challenge}");
    }
    send(Some(slashes.as_str())).await.is(200);
    // Also for paths that do not exist: a stranger learns nothing of what there is.
    let request = http::Request::builder().uri("/no/such").body(String::new()).unwrap();
    site.send(request).await.is(401);
}

/// az sends a token as long as it lasts, also after a new sign-in.
#[tokio::test]
async fn who_is_gone_is_told_how_to_lose_the_old_token() {
    let site = Site::new().await;
    site.assign(OWNER, 1, NINA, "Reader", &subscription()).await.is(201);
    site.people.disabled.write().unwrap().insert(NINA);
    // Where no role is asked for, which is what `az login` asks first.
    let refused = site.get(NINA, "/subscriptions").await.is(403);
    assert_eq!(refused.code(), "AuthorizationFailed");
    let words = ["does not exist in the directory any more", "'az account clear'"];
    assert!(words.iter().all(|words| refused.message().contains(words)), "{}", refused.message());
    site.people.disabled.write().unwrap().clear();
    site.get(NINA, &subscription()).await.is(200);
}

#[tokio::test]
async fn the_version_is_required_and_any_date_is_served() {
    let site = Site::new().await;
    let send = async |path: String| {
        let request = http::Request::builder().uri(path).header("authorization", format!("Bearer {OWNER}"));
        site.send(request.body(String::new()).unwrap()).await
    };
    let missing = send(subscription()).await.is(400);
    assert_eq!(missing.code(), "MissingApiVersionParameter");
    assert_eq!(
        missing.message(),
        "The api-version query parameter (?api-version=) is required for all requests."
    );
    let bad = send(format!("{}?api-version=7.4", subscription())).await.is(400);
    assert_eq!(bad.code(), "InvalidApiVersionParameter");
    send(format!("{}?API-Version=2099-01-01-preview", subscription())).await.is(200);
    let unknown = format!("/subscriptions/{NINA}?{V}");
    assert_eq!(send(unknown).await.is(404).code(), "SubscriptionNotFound");
    let malformed = format!("/subscriptions/mine/resourceGroups?{V}");
    assert_eq!(send(malformed).await.is(400).code(), "InvalidSubscriptionId");
    send(format!("/no/such?{V}")).await.is(404);
}

#[tokio::test]
async fn headers_that_every_answer_carries() {
    let site = Site::new().await;
    let request = http::Request::builder()
        .uri(format!("{}?{V}", subscription()))
        .header("authorization", format!("Bearer {OWNER}"))
        .header("x-ms-client-request-id", "mine")
        .header("x-ms-correlation-request-id", NINA.to_string())
        .body(String::new())
        .unwrap();
    let answer = site.send(request).await.is(200);
    let id = answer.header("x-ms-request-id").to_owned();
    assert_eq!(id.len(), 36);
    assert_eq!(answer.header("x-ms-correlation-request-id"), NINA.to_string());
    assert_eq!(answer.header("x-ms-routing-request-id"), format!("ARCADIA:20231114T221320Z:{id}"));
    assert_eq!(answer.header("x-ms-client-request-id"), "mine");
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000; includeSubDomains");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let refused = site.get(STRANGER, &subscription()).await.is(403);
    assert_eq!(refused.header("x-ms-failure-cause"), "gateway");
    assert_eq!(refused.header("content-type"), "application/json; charset=utf-8");
}

#[tokio::test]
async fn metadata_needs_no_token() {
    let site = Site::new().await;
    let send = async |query: &str| {
        let request = http::Request::builder().uri(format!("/metadata/endpoints?{query}"));
        site.send(request.body(String::new()).unwrap()).await
    };
    let one = send("api-version=2022-09-01").await.is(200);
    assert_eq!(one.body["resourceManager"], "https://management.azure.com/");
    assert_eq!(send("api-version=2019-05-01").await.is(200).body[0], one.body);
    let old = send("api-version=2015-01-01").await.is(200);
    assert_eq!(old.body["authentication"]["loginEndpoint"], "https://login.microsoftonline.com/");
    send("").await.is(400);
}
