//! A site under a domain of its own: its names, and that Azure's are nothing here, nor these there.

use arcadia_crypto::peek;
use serde_json::{Value, json};

use crate::support::{ARM, ARM_SCOPE, Curl, SECRETS_OFFICER, Site, VAULT_SCOPE, Wire};

const DOMAIN: &str = "site.test";
const OWN: &[&str] = &["--offline", "--domain", DOMAIN];
const OWN_VAULT_SCOPE: &str = "https://vault.site.test/.default";

/// curl to the site's own listener: what the names resolve to, and nothing else, is told to it.
fn direct(site: &Site, arguments: &[&str]) -> Curl {
    let listen = site.status()["addresses"]["listen"].as_str().unwrap().to_owned();
    let to = format!("::{listen}");
    site.curl(&[&["--noproxy", "*", "--connect-to", &to], arguments].concat())
}

fn claims(token: &str) -> serde_json::Map<String, Value> {
    peek(token).unwrap().1
}

/// Every text in a document.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn tokens_identifiers_and_links_hold_the_own_names() {
    let site = Site::start_with(OWN);
    let wire = site.client();
    assert_eq!(wire.admin["ARCADIA_USER"], "admin@site.test");
    assert_eq!(wire.admin["AZURE_AUTHORITY_HOST"], "https://login.site.test");
    assert_eq!(wire.admin["AZURE_CORE_INSTANCE_DISCOVERY"], "false");

    let token = wire.admin_token(&wire.at.management_scope()).await;
    let claims = claims(&token);
    assert_eq!(claims["iss"], format!("https://login.site.test/{}/", wire.tenant()));
    assert_eq!(claims["aud"], "https://management.site.test/");

    let id = wire.vault("kvown").await;
    let vault = wire
        .must("GET", &format!("https://management.site.test{id}?api-version=2026-02-01"), &token, None)
        .await;
    assert_eq!(vault["properties"]["vaultUri"], "https://kvown.vault.site.test/");

    let officer = wire.application("officer").await;
    wire.assign(&id, SECRETS_OFFICER, &officer.object_id).await;
    let secrets = "https://kvown.vault.site.test/secrets";
    let refused = wire.send("GET", &format!("{secrets}?api-version=7.4"), None, None).await;
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header_named("www-authenticate").unwrap(),
        format!(
            "Bearer authorization=\"https://login.site.test/{}\", resource=\"https://vault.site.test\"",
            wire.tenant()
        )
    );
    let token = wire.token_of(&officer.app_id, &officer.secret, OWN_VAULT_SCOPE).await;
    for name in ["a", "b"] {
        let url = format!("{secrets}/{name}?api-version=7.4");
        let made = wire.must("PUT", &url, &token, Some(json!({ "value": "v" }))).await;
        assert!(made["id"].as_str().unwrap().starts_with(&format!("{secrets}/{name}/")), "{made}");
    }
    let explained = site.command(&[
        "access",
        "explain",
        "--caller",
        &officer.object_id,
        "--action",
        "Microsoft.KeyVault/vaults/secrets/setSecret/action",
        "--scope",
        &id,
    ]);
    assert!(
        explained.stdout.starts_with(b"allowed"),
        "the command line asks under these names too: {explained:?}"
    );
    let first = wire.must("GET", &format!("{secrets}?api-version=7.4&maxresults=1"), &token, None).await;
    let next = first["nextLink"].as_str().unwrap();
    assert!(next.starts_with("https://kvown.vault.site.test"), "{next}");
    assert_eq!(wire.must("GET", next, &token, None).await["value"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn deletions_are_followed_under_the_own_names() {
    let site = Site::start_with(OWN);
    let wire = site.client();
    wire.vault("kvgone").await;
    let token = wire.admin_token(&wire.at.management_scope()).await;
    let group =
        format!("https://management.site.test/subscriptions/{}/resourceGroups/rg1", wire.subscription());
    let url = format!("{group}?api-version=2024-11-01");
    let accepted = wire.send("DELETE", &url, Some(&token), None).await;
    assert_eq!(accepted.status, 202);
    let location = accepted.header_named("location").unwrap().to_owned();
    assert!(location.starts_with("https://management.site.test/"), "{location}");
    assert!(wire.send("GET", &location, Some(&token), None).await.status.is_success());
}

#[test]
fn metadata_in_each_shape_names_nothing_outside_the_domain() {
    let site = Site::start_with(OWN);
    let url =
        |version: &str| format!("https://management.site.test/metadata/endpoints?api-version={version}");
    let get = |version: &str| site.curl(&[&url(version)]).json();
    let (object, list) = (get("2022-09-01"), get("2019-05-01"));
    assert_eq!(list, json!([object]));
    for document in [&object, &get("2015-01-01")] {
        for text in texts(document).iter().filter(|text| text.contains('.')) {
            assert!(text.contains(DOMAIN), "{text}");
        }
    }
    // Every name that is given is answered: by a service, or by a refusal in words.
    for text in texts(&object).iter().filter(|text| text.starts_with("https://")) {
        let answer = site.curl(&[text]);
        assert!(answer.exit == 0 && answer.status != 0, "{text}: {answer:?}");
        let served =
            ["login.", "management.", "graph."].iter().any(|name| text.contains(&format!("//{name}")));
        assert!(
            served || (answer.status == 404 && answer.body.contains("ServiceNotServed")),
            "{text}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn tokens_of_a_site_of_other_names_are_refused_by_both() {
    let (own, azure) = (Site::start_with(OWN), Site::start());
    let (own_wire, azure_wire) = (own.client(), azure.client());
    let own_token = own_wire.admin_token(&own_wire.at.management_scope()).await;
    let azure_token = azure_wire.admin_token(ARM_SCOPE).await;
    assert!(claims(&azure_token)["iss"].as_str().unwrap().starts_with("https://sts.windows.net/"));
    let at = |origin: &str| format!("{origin}/subscriptions?api-version=2022-12-01");
    for (wire, origin, good, foreign) in [
        (&own_wire, "https://management.site.test", &own_token, &azure_token),
        (&azure_wire, ARM, &azure_token, &own_token),
    ] {
        assert_eq!(wire.send("GET", &at(origin), Some(good), None).await.status, 200);
        assert_eq!(wire.send("GET", &at(origin), Some(foreign), None).await.status, 401, "{origin}");
    }
    // Neither issues tokens for the other's services.
    for (wire, scope) in [(&own_wire, ARM_SCOPE), (&own_wire, VAULT_SCOPE), (&azure_wire, OWN_VAULT_SCOPE)] {
        let text = refused(wire, scope).await;
        assert!(text.contains("500011"), "{scope}: {text}");
    }
    // Neither answers to the other's names, nor lets them out.
    for (site, name) in [
        (&own, "login.microsoftonline.com"),
        (&own, "management.azure.com"),
        (&own, "kv.vault.azure.net"),
        (&own, "evilsite.test"),
        (&azure, "login.site.test"),
    ] {
        let answer = site.curl(&[&format!("https://{name}/")]);
        assert_eq!((answer.proxy_status, answer.status), (403, 0), "{name}");
    }
}

/// What the login service says instead of a token.
async fn refused(wire: &Wire, scope: &str) -> String {
    let oauth = arcadia_client::OAuth::new(&wire.client, &wire.at.login, wire.tenant()).unwrap();
    let secret = &wire.admin["AZURE_CLIENT_SECRET"];
    let ask = arcadia_client::Ask::Scope(scope);
    oauth.client_secret(&wire.admin["AZURE_CLIENT_ID"], secret, ask).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_vault_takes_its_own_audience_alone() {
    let site = Site::start_with(OWN);
    let wire = site.client();
    wire.vault("kvaudience").await;
    // Signed by this very site, for an application that took the public cloud's name for itself.
    let graph = wire.admin_token("https://graph.site.test/.default").await;
    let body = json!({ "displayName": "impostor", "identifierUris": ["https://vault.azure.net"] });
    let applications = "https://graph.site.test/v1.0/applications";
    let made = wire.must("POST", applications, &graph, Some(body)).await;
    let body = json!({ "appId": made["appId"] });
    wire.must("POST", "https://graph.site.test/v1.0/servicePrincipals", &graph, Some(body)).await;
    let impostor = wire.admin_token(VAULT_SCOPE).await;
    assert_eq!(claims(&impostor)["aud"], "https://vault.azure.net");
    let url = "https://kvaudience.vault.site.test/secrets?api-version=7.4";
    let answer = wire.send("GET", url, Some(&impostor), None).await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 401, "{text}");
    assert!(text.contains("AKV10022") && text.contains("https://vault.site.test"), "{text}");
    // Nobody takes the site's own names.
    for uri in ["https://vault.site.test", "https://management.site.test/", "https://storage.azure.com"] {
        let body = json!({ "displayName": "impostor", "identifierUris": [uri] });
        assert_eq!(wire.send("POST", applications, Some(&graph), Some(body)).await.status, 400, "{uri}");
    }
}

#[test]
fn names_are_chosen_once() {
    let mut own = Site::start_with(OWN);
    own.stop();
    own.up(&["--offline"]);
    assert_eq!(own.env(false)["ARCADIA_DOMAIN"], DOMAIN, "they are remembered");
    own.stop();
    own.up(&["--offline", "--domain", "SITE.test"]);
    own.stop();
    let mut azure = Site::start();
    azure.stop();
    for (site, domain, told) in [(&own, "other.test", "site.test"), (&azure, DOMAIN, "Azure's names")] {
        let up = site.command(&["up", "--offline", "--domain", domain]);
        let text = String::from_utf8_lossy(&up.stderr);
        assert_eq!(up.status.code(), Some(1));
        assert!(text.contains(told) && text.contains("without --domain"), "{text}");
    }
    for wrong in ["test", "10.0.0.1", "*.test", "a b.test", "site.test."] {
        assert_eq!(own.command(&["up", "--domain", wrong]).status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn the_listener_serves_without_a_proxy() {
    let site = Site::start_with(&[OWN, &["--listen", "127.0.0.1:0"]].concat());
    for version in ["--http1.1", "--http2"] {
        let answer =
            direct(&site, &[version, "https://login.site.test/common/v2.0/.well-known/openid-configuration"]);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.json()["token_endpoint"].as_str().unwrap().starts_with("https://login.site.test/"));
    }
    for name in ["portal.site.test", "account.queue.site.test", "a.b.vault.site.test", "site.test"] {
        let url = format!("https://{name}/");
        for unserved in [direct(&site, &[&url]), site.curl(&[&url])] {
            assert_eq!(unserved.status, 404, "{unserved:?}");
            assert!(unserved.body.contains(&format!("does not serve {name}.")), "{unserved:?}");
        }
    }
    // Names that are not the site's have no certificate, and neither has a client that names none.
    for url in ["https://management.azure.com/", "https://evilsite.test/", "https://127.0.0.1/"] {
        assert_eq!(direct(&site, &[url]).exit, 35, "{url}");
    }
    let other = direct(&site, &["-H", "Host: graph.site.test", "https://management.site.test/subscriptions"]);
    assert_eq!(other.status, 421, "{other:?}");
    // It is no proxy.
    let listen = site.status()["addresses"]["listen"].as_str().unwrap().to_owned();
    let proxied = site.curl(&["--proxy", &format!("http://{listen}"), "https://login.site.test/"]);
    assert!(proxied.exit != 0 && proxied.status == 0, "{proxied:?}");
    // The shell's variables lead around the proxy where they are asked to.
    let output = site.command(&["env", "--direct", "--format", "json"]);
    let direct: serde_json::Map<String, Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(direct.contains_key("SSL_CERT_FILE") && !direct.contains_key("HTTPS_PROXY"));
    assert!(direct["no_proxy"].as_str().unwrap().split(',').any(|entry| entry == ".site.test"), "{direct:?}");
    // So what a shell has of a proxy stays, and does not matter.
    let proxied = "HTTPS_PROXY=http://127.0.0.1:1 exec \"$@\"";
    let run = ["run", "--direct", "--", "sh", "-c", proxied, "sh"];
    let to = format!("::{listen}");
    let url = "https://login.site.test/common/v2.0/.well-known/openid-configuration";
    let curl = ["curl", "-sSf", "--connect-to", &to, "-o", "/dev/null", url];
    let around = site.command(&[&run[..], &curl[..]].concat());
    assert!(around.status.success(), "{around:?}");
}

#[test]
fn a_shell_can_change_from_one_site_to_another() {
    let azure = Site::start();
    let env = |domain: &str| -> serde_json::Map<String, Value> {
        let mut command = crate::support::arcadia(&azure.data);
        let command = command.args(["env", "--format", "json"]).env("ARCADIA_DOMAIN", domain);
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
    };
    let after = env(DOMAIN);
    assert_eq!(after["AZURE_AUTHORITY_HOST"], "https://login.microsoftonline.com");
    assert_eq!(
        (&after["AZURE_CORE_INSTANCE_DISCOVERY"], &after["ARCADIA_DOMAIN"]),
        (&json!("true"), &json!(""))
    );
    assert!(!env("").contains_key("AZURE_AUTHORITY_HOST"), "nothing to say back");
}

#[test]
fn what_cannot_be_listened_on_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let up = crate::support::arcadia(&data).args(["up", "--listen", &address]).output().unwrap();
    assert_eq!(up.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&up.stderr).contains(&address), "{up:?}");
    assert!(!data.join("site.json").exists(), "nothing was founded");
}

#[test]
fn hosts_prints_what_resolvers_need() {
    let site = Site::start_with(OWN);
    let run = |arguments: &[&str]| site.command(&[&["hosts"], arguments].concat());
    let none = run(&[]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("--listen"), "{none:?}");
    let lines = run(&["--address", "127.40.34.2", "kv1.vault.site.test"]);
    let text = String::from_utf8(lines.stdout).unwrap();
    assert!(text.contains("127.40.34.2\tkv1.vault.site.test\n"), "{text}");
    assert_eq!(run(&["--address", "127.40.34.2", "kv1.vault.azure.net"]).status.code(), Some(1));
    let zone = String::from_utf8(run(&["--address", "::1", "--format", "zone"]).stdout).unwrap();
    assert!(zone.contains("*.vault") && zone.contains("IN AAAA ::1"), "{zone}");
}
