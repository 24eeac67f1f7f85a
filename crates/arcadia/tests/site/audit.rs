//! The log of a running site: it is read beside it, and holds no secret.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use arcadia_client::{Ask, AssertionKey, DevicePoll, OAuth};
use arcadia_crypto::{RsaBits, RsaKeyPair, SystemEntropy, b64, self_signed};
use arcadia_kernel::Clock as _;
use serde_json::{Value, json};

use crate::support::{
    ARM, ARM_SCOPE, GRAPH, GRAPH_SCOPE, LOGIN, SECRETS_OFFICER, Site, SystemClock, VAULT_SCOPE, Wire, arcadia,
};

const CLI: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

fn log(site: &Site) -> String {
    let output = site.command(&["audit", "tail", "-n", "1000000", "--json"]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn it_is_followed_and_verified_while_the_site_runs() {
    let site = Site::start();
    let wire = site.client();
    let mut follower = arcadia(&site.data)
        .args(["audit", "tail", "-n", "0", "--follow", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    std::thread::sleep(std::time::Duration::from_millis(500));
    wire.vault("kvfollow").await;
    let mut last: Option<u64> = None;
    loop {
        let record: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let sequence = record["sequence"].as_u64().unwrap();
        assert!(last.is_none_or(|last| sequence == last + 1), "no gap");
        last = Some(sequence);
        if record["scope"].as_str().unwrap().ends_with("/vaults/kvfollow") {
            break;
        }
    }
    assert!(follower.try_wait().unwrap().is_none(), "it goes on");
    follower.kill().unwrap();
    follower.wait().unwrap();
    let verified = site.command(&["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
    let told = site.command(&["audit", "verify", "--json"]);
    let verdict: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&verdict["unbroken"], &verdict["firstBroken"]), (&Value::Bool(true), &Value::Null));
    let number = verdict["records"].as_u64().unwrap();
    // As others name a record; no more come by now.
    let shown = site.command(&["audit", "tail", "-n", "2"]).stdout;
    let shown: Vec<&str> = std::str::from_utf8(&shown).unwrap().lines().collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown[1].trim_start().starts_with(&format!("{number} ")), "{number}: {shown:?}");
    wire.admin_token(ARM_SCOPE).await;
    assert_eq!(site.status()["state"], "running");
    assert!(site.status()["trouble"].is_null(), "readers are no trouble");
}

/// Everything that must not be in the log, each with a word for what it is.
#[derive(Default)]
struct Hidden(Vec<(&'static str, String)>);

impl Hidden {
    fn add(&mut self, what: &'static str, text: &str) {
        assert!(text.len() > 8, "{what}: too short to be looked for");
        self.0.push((what, text.to_owned()));
    }
}

async fn secrets(wire: &Wire, hidden: &mut Hidden) {
    let vault = wire.vault("kvhidden").await;
    let officer = wire.application("officer").await;
    wire.assign(&vault, SECRETS_OFFICER, &officer.object_id).await;
    hidden.add("a client secret", &officer.secret);
    let token = wire.token_of(&officer.app_id, &officer.secret, VAULT_SCOPE).await;
    hidden.add("a vault token", &token);
    let value = "needle-value-of-a-secret-91";
    hidden.add("a secret's value", value);
    let url = "https://kvhidden.vault.azure.net/secrets/s1?api-version=7.4";
    let body = json!({ "value": value, "tags": { "t": "needle-tag-of-a-secret-92" } });
    hidden.add("a secret's tag", "needle-tag-of-a-secret-92");
    wire.must("PUT", url, &token, Some(body)).await;
    assert_eq!(wire.must("GET", url, &token, None).await["value"], value);
    wire.must("DELETE", url, &token, None).await;
    // Refused as well as answered.
    let owner = wire.admin_token(VAULT_SCOPE).await;
    hidden.add("a token without a role", &owner);
    let body = json!({ "value": "needle-value-refused-93" });
    hidden.add("a refused value", "needle-value-refused-93");
    assert_eq!(wire.send("PUT", url, Some(&owner), Some(body)).await.status, 403);
    let forged = format!("{token}needle");
    hidden.add("a forged token", &forged);
    assert_eq!(wire.send("GET", url, Some(&forged), None).await.status, 401);
}

async fn sign_ins(wire: &Wire, hidden: &mut Hidden) {
    let oauth = OAuth::new(&wire.client, LOGIN, wire.tenant()).unwrap();
    let (app_id, secret) = (&wire.admin["AZURE_CLIENT_ID"], &wire.admin["AZURE_CLIENT_SECRET"]);
    let (user, password) = (&wire.admin["ARCADIA_USER"], &wire.admin["ARCADIA_PASSWORD"]);
    hidden.add("the first client secret", secret);
    hidden.add("the first password", password);
    for wrong in ["needle-wrong-secret-94", "needle-wrong-password-95"] {
        hidden.add("a wrong credential", wrong);
        assert!(oauth.client_secret(app_id, wrong, Ask::Scope(ARM_SCOPE)).await.is_err());
        assert!(oauth.password(CLI, user, wrong, Ask::Scope(ARM_SCOPE)).await.is_err());
    }
    // Typed in the wrong field.
    for (name, what) in
        [("needle-password-as-user-97", "a password for a name"), ("needle@as.user.98", "no name")]
    {
        hidden.add(what, name);
        assert!(oauth.password(CLI, name, "x", Ask::Scope(ARM_SCOPE)).await.is_err());
        assert!(oauth.client_secret(name, "x", Ask::Scope(ARM_SCOPE)).await.is_err());
    }
    let scope = format!("{ARM_SCOPE} offline_access openid profile");
    let token = oauth.password(CLI, user, password, Ask::Scope(&scope)).await.unwrap();
    hidden.add("a user's token", &token.access_token);
    let refresh = token.refresh_token.unwrap();
    hidden.add("a refresh token", &refresh);
    let again = oauth.refresh(CLI, &refresh, Ask::Scope(&scope)).await.unwrap();
    hidden.add("a refreshed token", &again.access_token);
    hidden.add("the next refresh token", &again.refresh_token.unwrap());
    let wrong = format!("{}needle", refresh.as_str());
    assert!(oauth.refresh(CLI, &wrong, Ask::Scope(&scope)).await.is_err());
}

async fn assertion(wire: &Wire, hidden: &mut Hidden) {
    let graph = wire.admin_token(GRAPH_SCOPE).await;
    hidden.add("a graph token", &graph);
    let application = wire.application("asserter").await;
    let key = RsaKeyPair::generate(RsaBits::Bits2048).unwrap();
    let certificate = self_signed("asserter", &key, SystemClock.epoch_seconds(), 1).unwrap();
    let filter = format!("{GRAPH}/v1.0/applications?$filter=appId%20eq%20'{}'", application.app_id);
    let found = wire.must("GET", &filter, &graph, None).await;
    let url = format!("{GRAPH}/v1.0/applications/{}", found["value"][0]["id"].as_str().unwrap());
    let body = json!({ "keyCredentials": [{
        "type": "AsymmetricX509Cert", "usage": "Verify", "key": b64(&certificate),
    }] });
    wire.must("PATCH", &url, &graph, Some(body)).await;
    let key = AssertionKey::from_certificate(key, &certificate);
    let url = format!("{LOGIN}/{}/oauth2/v2.0/token", wire.tenant());
    let assertion = key.sign(&application.app_id, &url, &SystemEntropy, SystemClock.epoch_seconds()).unwrap();
    hidden.add("an assertion", &assertion);
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", application.app_id.as_str()),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
        ("scope", ARM_SCOPE),
    ];
    let answer = wire.client.send(arcadia_client::Call::post(url).form(&fields)).await.unwrap();
    let found: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.status, 200, "{found}");
    hidden.add("a token for an assertion", found["access_token"].as_str().unwrap());
}

/// The pages of a sign-in with a code, as a browser goes through them.
async fn device(site: &Site, wire: &Wire, hidden: &mut Hidden) {
    let oauth = OAuth::new(&wire.client, LOGIN, wire.tenant()).unwrap();
    let code = oauth.device_start(CLI, &format!("{ARM_SCOPE} offline_access")).await.unwrap();
    hidden.add("a device code", &code.device_code);
    hidden.add("a user code", &code.user_code);
    assert!(matches!(oauth.device_poll(CLI, &code).await.unwrap(), DevicePoll::Pending));
    let jar = site.data.join("env/jar").display().to_string();
    let page = |fields: &[String]| {
        let mut arguments =
            vec!["--location", "--cookie", &jar, "--cookie-jar", &jar, &code.verification_uri];
        for field in fields {
            arguments.extend(["--data-urlencode", field]);
        }
        let page = site.curl(&arguments);
        assert_eq!(page.status, 200, "{page:?}");
        page.body
    };
    let ticket = |page: &str| {
        let (_, rest) = page.split_once("name=\"ticket\" value=\"").unwrap_or_else(|| panic!("{page}"));
        rest.split_once('"').unwrap().0.to_owned()
    };
    let mut seen = ticket(&page(&[]));
    let steps = [
        vec![format!("user_code={}", code.user_code)],
        vec![
            format!("username={}", wire.admin["ARCADIA_USER"]),
            format!("password={}", wire.admin["ARCADIA_PASSWORD"]),
        ],
    ];
    for fields in steps {
        hidden.add("a ticket", &seen);
        seen = ticket(&page(&[vec![format!("ticket={seen}")], fields].concat()));
    }
    hidden.add("a ticket", &seen);
    page(&[format!("ticket={seen}"), "answer=continue".to_owned()]);
    let token = oauth.device_wait(CLI, &code, std::time::Duration::from_secs(30)).await.unwrap();
    hidden.add("a token for a device", &token.access_token);
    let cookies = std::fs::read_to_string(&jar).unwrap();
    for value in
        cookies.lines().filter(|line| line.contains('\t')).filter_map(|line| line.rsplit('\t').next())
    {
        if value.len() > 16 {
            hidden.add("a cookie", value);
        }
    }
}

#[tokio::test]
async fn no_secret_token_or_password_is_in_it() {
    let site = Site::start();
    let wire = site.client();
    let mut hidden = Hidden::default();
    let arm = wire.admin_token(ARM_SCOPE).await;
    hidden.add("a management token", &arm);
    secrets(&wire, &mut hidden).await;
    sign_ins(&wire, &mut hidden).await;
    assertion(&wire, &mut hidden).await;
    device(&site, &wire, &mut hidden).await;
    let group =
        format!("{ARM}/subscriptions/{}/resourceGroups/rg1?api-version=2024-11-01", wire.subscription());
    hidden.add("a tag", "needle-tag-of-a-group-96");
    let body = json!({ "location": "uksouth", "tags": { "t": "needle-tag-of-a-group-96" } });
    wire.must("PUT", &group, &arm, Some(body)).await;

    let log = log(&site);
    // What is there shows that the search finds what is there, and that each kind came to be recorded.
    for there in [
        "setSecret",
        "getSecret",
        "kvhidden",
        "roleAssignments",
        "\"TokenV2\"",
        "DeviceSignIn",
        "DeviceCodeV2",
        "\"denied\"",
        "resourceGroups/rg1",
        &wire.admin["ARCADIA_USER"],
    ] {
        assert!(log.contains(there), "{there} is recorded");
    }
    for (what, text) in &hidden.0 {
        assert!(!log.contains(text.as_str()), "{what} is in the log");
        // Nor a telling part of one: the end of a token's signature, the second half of a secret.
        let tail = &text[text.len() - (text.len() / 2).min(24)..];
        assert!(tail.len() < 8 || !log.contains(tail), "a part of {what} is in the log");
    }
    assert!(hidden.0.len() > 25, "{}", hidden.0.len());
    assert!(site.command(&["audit", "verify"]).status.success());
}
