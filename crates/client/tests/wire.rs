//! The client against real sockets: TLS with a site's authority, CONNECT, bounds, refusals, grants.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arcadia_client::{
    Ask, AssertionKey, Call, Client, ClientFault, ClientOptions, NoProxy, OAuth, Proxy, StatusCode,
};
use arcadia_crypto::{RsaBits, RsaKeyPair, SiteCa, SystemEntropy, verify_assertion};
use arcadia_kernel::FixedClock;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::json;
use site::{Answering, Seen, Site};

const NOW: i64 = 1_800_000_000;

fn options(site: &Site) -> ClientOptions {
    options_at(site, NOW)
}

fn options_at(site: &Site, now: i64) -> ClientOptions {
    ClientOptions {
        proxy: Some(Proxy::parse(&format!("http://{}", site.proxy)).unwrap()),
        root_pems: vec![site.ca_pem.clone()],
        connect_timeout: Duration::from_secs(5),
        whole_timeout: Duration::from_secs(10),
        ..ClientOptions::new(Arc::new(FixedClock::at_epoch_seconds(now)))
    }
}

fn echo(seen: Seen) -> Answering {
    site::json(
        200,
        json!({
            "method": seen.method.as_str(), "host": seen.host, "path": seen.path, "bearer": seen.bearer(),
            "agent": seen.headers["user-agent"].to_str().unwrap(), "body": String::from_utf8_lossy(&seen.body),
        }),
    )
}

#[tokio::test]
async fn a_call_goes_through_the_proxy_and_the_connection_is_kept() {
    let site = Site::start(NOW, echo).await;
    let client = Client::new(options(&site)).unwrap();
    for turn in 0..3 {
        let call = Call::put(format!("https://management.azure.com/a//b?turn={turn}"))
            .bearer("t0k3n")
            .unwrap()
            .json(&json!({"x": 1}))
            .unwrap();
        let seen: serde_json::Value = client.json(call).await.unwrap();
        assert_eq!(seen["path"], "/a//b");
        assert_eq!((&seen["method"], &seen["host"]), (&json!("PUT"), &json!("management.azure.com")));
        assert_eq!((&seen["bearer"], &seen["body"]), (&json!("t0k3n"), &json!(r#"{"x":1}"#)));
        assert!(seen["agent"].as_str().unwrap().starts_with("arcadia/"));
    }
    assert_eq!(site.connection_count(), 1);
    assert_eq!(*site.tunnels.lock().unwrap(), ["management.azure.com:443"]);
}

/// Azure refuses a PUT that says nothing of its length.
#[tokio::test]
async fn an_empty_body_says_that_it_is_empty() {
    let length = |seen: Seen| {
        let length = seen.headers.get("content-length").map(|value| value.to_str().unwrap().to_owned());
        site::json(200, json!({ "length": length }))
    };
    let site = Site::start(NOW, length).await;
    let client = Client::new(options(&site)).unwrap();
    let url = "https://management.azure.com/a";
    for (call, length) in [
        (Call::put(url), json!("0")),
        (Call::post(url), json!("0")),
        (Call::put(url).body("text/plain", "four"), json!("4")),
        (Call::get(url), json!(null)),
        (Call::delete(url), json!(null)),
    ] {
        let seen: serde_json::Value = client.json(call).await.unwrap();
        assert_eq!(seen["length"], length);
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced() {
    let site = Site::start(NOW, |seen| {
        let mut answer = echo(seen);
        answer.headers_mut().insert("connection", "close".parse().unwrap());
        answer
    })
    .await;
    let client = Client::new(options(&site)).unwrap();
    for _ in 0..4 {
        client.accepted(Call::post("https://site.example.net/")).await.unwrap();
    }
    assert_eq!(site.connection_count(), 4);
}

#[tokio::test]
async fn trust_needs_the_right_root_name_and_time() {
    let site = Site::start(NOW, echo).await;
    let stranger = SiteCa::create("stranger", &site::NAMES, &[], NOW, 10).unwrap();
    let year = 365 * 24 * 3600;
    let cases = [
        (
            "another authority",
            ClientOptions { root_pems: vec![stranger.certificate_pem()], ..options(&site) },
            "site.example.net",
        ),
        ("a name it was not issued for", options(&site), "other.example.net"),
        ("after it expired", options_at(&site, NOW + year), "site.example.net"),
        ("before it begins", options_at(&site, NOW - year), "site.example.net"),
    ];
    for (what, options, host) in cases {
        let client = Client::new(options).unwrap();
        let fault = client.send(Call::get(format!("https://{host}/"))).await.err().unwrap();
        assert!(matches!(fault, ClientFault::Tls { .. }), "{what}: {fault}");
        assert!(!fault.is_passing());
    }
    assert_eq!(site.connection_count(), 0);
}

#[tokio::test]
async fn roots_come_from_files_too_and_their_absence_is_said() {
    let site = Site::start(NOW, echo).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roots.pem");
    std::fs::write(&file, format!("# a comment\n{}", site.ca_pem)).unwrap();
    let from_file = ClientOptions { root_pems: Vec::new(), root_files: vec![file.clone()], ..options(&site) };
    let client = Client::new(from_file.clone()).unwrap();
    client.accepted(Call::get("https://site.example.net/")).await.unwrap();

    let nobody = ClientOptions { root_files: Vec::new(), ..from_file.clone() };
    let fault = Client::new(nobody).unwrap().send(Call::get("https://site.example.net/")).await.unwrap_err();
    assert!(fault.to_string().contains("SSL_CERT_FILE"), "{fault}");
    assert_eq!(site.tunnels.lock().unwrap().len(), 1);
    std::fs::write(&file, "no certificate here").unwrap();
    assert!(Client::new(from_file.clone()).unwrap_err().to_string().contains("roots.pem"));
    std::fs::remove_file(&file).unwrap();
    assert!(Client::new(from_file).unwrap_err().to_string().contains("roots.pem"));
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_none_is_named() {
    let site = Site::start(NOW, echo).await;
    let client = Client::new(options(&site)).unwrap();
    for (host, word) in [("refused", "403"), ("silent", "closed"), ("odd", "not that of an HTTP proxy")] {
        let fault = client.send(Call::get(format!("https://{host}.example.net/"))).await.unwrap_err();
        assert!(matches!(fault, ClientFault::Proxy { .. }), "{fault}");
        assert!(fault.to_string().contains(word), "{fault}");
    }
    let nowhere =
        ClientOptions { proxy: Some(Proxy::parse("http://127.0.0.1:9").unwrap()), ..options(&site) };
    let fault = Client::new(nowhere).unwrap().send(Call::get("https://site.example.net/")).await.unwrap_err();
    assert!(fault.is_passing(), "{fault}");
}

#[tokio::test]
async fn exceptions_go_straight() {
    let site = Site::start(NOW, echo).await;
    let options = ClientOptions { no_proxy: NoProxy::parse("localhost"), ..options(&site) };
    let client = Client::new(options).unwrap();
    // Straight to the server, whose certificate is for other names: the refusal shows which way it went.
    let url = format!("https://127.0.0.1:{}/", site.server.port());
    assert!(matches!(client.send(Call::get(url)).await.unwrap_err(), ClientFault::Tls { .. }));
    assert!(site.tunnels.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bodies_are_bounded() {
    let site = Site::start(NOW, |seen| {
        let mut answer = Response::new(Full::new(Bytes::from(vec![b'x'; 2000])));
        if seen.path == "/chunked" {
            answer.headers_mut().insert("transfer-encoding", "chunked".parse().unwrap());
        }
        answer
    })
    .await;
    for (path, is_told) in [("/", true), ("/chunked", false)] {
        let call = || Call::get(format!("https://site.example.net{path}"));
        let small = ClientOptions { body_bytes_max: 1999, ..options(&site) };
        let fault = Client::new(small).unwrap().send(call()).await.unwrap_err();
        assert!(matches!(fault, ClientFault::TooLong { bytes_max: 1999, .. }), "{path}: {fault}");
        let exact = ClientOptions { body_bytes_max: 2000, ..options(&site) };
        let answer = Client::new(exact).unwrap().accepted(call()).await.unwrap();
        assert_eq!(answer.headers.contains_key("content-length"), is_told, "{path}");
    }
}

#[tokio::test]
async fn a_server_that_never_speaks_times_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ca = SiteCa::create("test site", &site::NAMES, &[], NOW, 10).unwrap();
    let options = ClientOptions {
        root_pems: vec![ca.certificate_pem()],
        connect_timeout: Duration::from_millis(200),
        whole_timeout: Duration::from_millis(400),
        ..ClientOptions::new(Arc::new(FixedClock::at_epoch_seconds(NOW)))
    };
    let client = Client::new(options).unwrap();
    let fault = client.send(Call::get(format!("https://127.0.0.1:{port}/"))).await.unwrap_err();
    assert!(fault.to_string().contains("connecting"), "{fault}");
    let fault = client.send(Call::get(format!("http://127.0.0.1:{port}/"))).await.unwrap_err();
    assert!(matches!(fault, ClientFault::Timeout { .. }), "{fault}");
}

#[tokio::test]
async fn redirects_are_not_followed_and_refusals_carry_the_services_words() {
    let site = Site::start(NOW, |seen| match seen.path.as_str() {
        "/moved" => Response::builder()
            .status(302)
            .header("location", "https://site.example.net/")
            .body(Full::default())
            .unwrap(),
        _ => site::json(
            403,
            json!({"error": {"code": "AuthorizationFailed", "message": "The client may not."}}),
        ),
    })
    .await;
    let client = Client::new(options(&site)).unwrap();
    let answer = client.send(Call::get("https://site.example.net/moved")).await.unwrap();
    assert_eq!(answer.status, StatusCode::FOUND);
    let fault = client.accepted(Call::get("https://site.example.net/x")).await.err().unwrap();
    let refusal = fault.refusal().unwrap();
    assert_eq!(
        (refusal.code.as_str(), refusal.message.as_str()),
        ("AuthorizationFailed", "The client may not.")
    );
}

#[tokio::test]
async fn secret_and_assertion_grants_send_what_the_directory_reads() {
    let key = RsaKeyPair::generate(RsaBits::Bits2048).unwrap();
    let public = key.public().clone();
    let site = Site::start(NOW, move |seen| {
        assert_eq!(seen.host, "login.microsoftonline.com");
        assert_eq!(seen.form("grant_type"), "client_credentials");
        if !seen.form("client_secret").is_empty() {
            assert_eq!(seen.path, "/t/oauth2/v2.0/token");
            assert_eq!(seen.form("scope"), "https://management.core.windows.net//.default");
            return match seen.form("client_secret").as_str() {
                "s+e&c=ret é" => site::json(200, json!({"access_token": "by-secret", "expires_in": 3599})),
                _ => site::json(
                    401,
                    json!({"error": "invalid_client", "error_description": "AADSTS7000215: wrong"}),
                ),
            };
        }
        assert_eq!(seen.path, "/t/oauth2/token");
        assert_eq!(seen.form("resource"), "https://vault.azure.net");
        assert_eq!(
            seen.form("client_assertion_type"),
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        );
        let audience = "https://login.microsoftonline.com/t/oauth2/token";
        let keys = [public.clone()];
        let assertion = verify_assertion(&seen.form("client_assertion"), &keys, &[audience], NOW).unwrap();
        assert_eq!((assertion.issuer.as_str(), assertion.subject.as_str()), ("app", "app"));
        site::json(200, json!({"access_token": "by-key", "expires_in": "86399", "not_before": "1799999700"}))
    })
    .await;
    let client = Client::new(options(&site)).unwrap();
    let oauth = OAuth::new(&client, "https://login.microsoftonline.com/", "t").unwrap();
    let scope = Ask::Scope("https://management.core.windows.net//.default");
    let token = oauth.client_secret("app", "s+e&c=ret é", scope).await.unwrap();
    assert_eq!(token.access_token.as_str(), "by-secret");
    let fault = oauth.client_secret("app", "wrong", scope).await.unwrap_err();
    assert_eq!(fault.refusal().unwrap().code, "invalid_client");
    let key = AssertionKey::from_key(key);
    let ask = Ask::Resource("https://vault.azure.net");
    let token = oauth.client_assertion("app", &key, ask, &SystemEntropy, NOW).await.unwrap();
    assert_eq!((token.access_token.as_str(), token.expires_in_seconds), ("by-key", 86_399));
    assert_eq!(token.not_before, Some(1_799_999_700));
    for tenant in ["", "a/b", "a?b", "../x"] {
        assert!(OAuth::new(&client, "https://login.microsoftonline.com", tenant).is_err(), "{tenant}");
    }
}

#[tokio::test]
async fn device_sign_in_waits_slows_down_and_ends() {
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = polls.clone();
    let site = Site::start(NOW, move |seen| {
        if seen.path.ends_with("/devicecode") {
            assert_eq!(seen.form("scope"), "s");
            return site::json(
                200,
                json!({"user_code": "ABCD1234", "device_code": "d", "verification_uri": "https://h/device",
                       "expires_in": 900, "interval": 1, "message": "open it"}),
            );
        }
        assert_eq!(seen.form("device_code"), "d");
        let error = match counted.fetch_add(1, Ordering::SeqCst) {
            0 => "authorization_pending",
            1 => return site::json(503, json!({"error": "temporarily_unavailable"})),
            2 => {
                return site::json(200, json!({"access_token": "a", "expires_in": 60, "refresh_token": "r"}));
            }
            _ => "authorization_declined",
        };
        site::json(400, json!({"error": error, "error_description": "later"}))
    })
    .await;
    let client = Client::new(options(&site)).unwrap();
    let oauth = OAuth::new(&client, "https://login.microsoftonline.com", "organizations").unwrap();
    let code = oauth.device_start("c", "s").await.unwrap();
    assert_eq!(code.user_code, "ABCD1234");
    let token = oauth.device_wait("c", &code, Duration::from_secs(30)).await.unwrap();
    assert_eq!(token.refresh_token.unwrap().as_str(), "r");
    let fault = oauth.device_wait("c", &code, Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(fault.refusal().unwrap().code, "authorization_declined");
    let fault = oauth.device_wait("c", &code, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(fault, ClientFault::Timeout { .. }));
}
