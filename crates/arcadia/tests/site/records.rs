//! The audit log and the table of operations: whoever asks for whatever, there is one record of it when the client
//! learns the status.

use std::collections::HashMap;

use arcadia_client::{Answer, Call};
use serde_json::{Value, json};

use crate::audit::{Hidden, KEY_VAULT_ADMINISTRATOR, log};
use crate::strangers::{HIS_SCOPE, Row, STORAGE_SCOPE, account, rows, url};
use crate::support::{ARM, ARM_SCOPE, GRAPH_SCOPE, LOGIN, Site, VAULT_SCOPE, Wire};

pub const STORAGE_BLOB_DATA_OWNER: &str = "b7e6dc6d-f1e8-4753-8033-0f276bb0955b";
/// What may be written meanwhile without being asked for.
const LOOK_BACK: &str = "60";

/// Tokens by service.
async fn tokens(wire: &Wire, app_id: &str, secret: &str) -> HashMap<&'static str, String> {
    let mut tokens = HashMap::new();
    for (service, scope) in [
        ("arm", ARM_SCOPE),
        ("graph", GRAPH_SCOPE),
        ("keyvault", VAULT_SCOPE),
        ("storage", STORAGE_SCOPE),
        ("his", HIS_SCOPE),
    ] {
        tokens.insert(service, wire.token_of(app_id, secret, scope).await);
    }
    tokens
}

/// The needle is wherever a client can put a secret, by mistake or not: all but the path.
async fn ask(wire: &Wire, row: &Row, token: Option<&String>, needle: &str) -> Answer {
    let header = (http::HeaderName::from_static("x-needle"), needle.parse().unwrap());
    let url = format!("{}&needle={needle}", url(row, wire));
    let mut call = Call::new(row.method.parse().unwrap(), url).header(header.0, header.1);
    if let Some(token) = token {
        call = call.bearer(token).unwrap();
    }
    let has_body = matches!(row.method.as_str(), "PUT" | "POST" | "PATCH");
    let body = match (row.service.as_str(), row.path.as_str()) {
        ("arm", "/subscriptions/{subscriptionId}/resourcegroups/{group}") => {
            json!({ "location": "uksouth", "tags": { "t": needle } })
        }
        ("keyvault", "/secrets/{name}") => {
            json!({ "value": needle, "contentType": needle, "tags": { "t": needle } })
        }
        _ => json!({
            "value": needle, "displayName": needle, "password": needle, "secretText": needle,
            "passwordProfile": { "password": needle },
            "properties": { "administratorLoginPassword": needle, "publicKey": needle },
        }),
    };
    if has_body && is_sign_in(row) {
        let secrets = ["client_id", "client_secret", "username", "password", "code", "refresh_token"];
        let fields: Vec<_> = secrets.iter().map(|name| (*name, needle)).collect();
        call = call.form(&[&[("grant_type", "password")], &*fields].concat());
    } else if has_body {
        call = call.json(&body).unwrap();
    }
    if row.service == "storage" {
        let version = http::HeaderValue::from_static("2021-12-02");
        call = call.header(http::HeaderName::from_static("x-ms-version"), version);
    }
    wire.client.send(call).await.unwrap()
}

/// The results on record of the request that was answered so.
fn results(site: &Site, answer: &Answer) -> Vec<String> {
    let id = answer.header_named("x-ms-request-id").or_else(|| answer.header_named("request-id"));
    let id = id.unwrap_or("no request id").to_owned();
    let output = site.command(&["audit", "tail", "-n", LOOK_BACK, "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    // What the site does later on the request's behalf has the request's number too.
    let of_request = |record: &Value| record["requestId"] == id.as_str() && record["service"] != "site";
    let own = records.filter(of_request);
    own.map(|record| record["result"].as_str().unwrap().to_owned()).collect()
}

/// Whether this row leaves a record although anyone may ask.
fn is_sign_in(row: &Row) -> bool {
    row.service == "login" && row.method == "POST"
}

#[tokio::test]
async fn every_operation_leaves_one_record_before_its_answer() {
    let site = Site::start();
    let wire = site.client();
    wire.vault("kvstrangers").await;
    account(&wire).await;
    let stranger = wire.application("stranger").await;
    let group = format!("/subscriptions/{}/resourceGroups/rg1", wire.subscription());
    let admin = admin_object_id(&wire).await;
    wire.assign(&group, KEY_VAULT_ADMINISTRATOR, &admin).await;
    wire.assign(&group, STORAGE_BLOB_DATA_OWNER, &admin).await;
    let refused = tokens(&wire, &stranger.app_id, &stranger.secret).await;
    let admin = &wire.admin;
    let allowed = tokens(&wire, &admin["AZURE_CLIENT_ID"], &admin["AZURE_CLIENT_SECRET"]).await;
    let mut rows = rows(&site);
    // What others are below of is deleted last: vaults and accounts after what they hold, groups after all.
    rows.sort_by_key(|row| (row.method == "DELETE", row.service == "arm", std::cmp::Reverse(row.path.len())));
    let (mut faults, mut done) = (Vec::new(), 0);
    let mut hidden = Hidden::default();
    for (service, token) in refused.iter().chain(&allowed) {
        hidden.add(format!("a token for {service}"), token);
    }
    hidden.add("the stranger's secret", &stranger.secret);
    hidden.add("the first secret", &admin["AZURE_CLIENT_SECRET"]);
    for row in &rows {
        let shown = format!("{} {} ({})", row.method, url(row, &wire), row.access);
        if row.access == "public" {
            let answer = ask(&wire, row, None, &hidden.needle(&shown)).await;
            hidden.add_secrets_of(&shown, &serde_json::from_slice(&answer.body).unwrap_or_default());
            let found = results(&site, &answer);
            if found.len() != usize::from(is_sign_in(row)) {
                faults.push(format!("{shown}: {} {found:?}", answer.status));
            }
            continue;
        }
        for (who, tokens) in [("refused", &refused), ("allowed", &allowed)] {
            let needle = hidden.needle(format!("{shown} {who}"));
            let answer = ask(&wire, row, Some(&tokens[row.service.as_str()]), &needle).await;
            hidden.add_secrets_of(&shown, &serde_json::from_slice(&answer.body).unwrap_or_default());
            let found = results(&site, &answer);
            let status = answer.status.as_u16();
            let expected = match status {
                403 => "denied",
                200..300 if found == ["committed"] => "committed",
                _ => "answered",
            };
            done += usize::from(who == "allowed" && answer.status.is_success());
            let right = match (who, row.service.as_str(), row.access.as_str()) {
                ("refused", _, "signedIn") => status != 401,
                ("refused", ..) => status == 403,
                // A machine's own.
                (_, "his", _) => true,
                // A person's own, and this is an application.
                _ if row.path.ends_with("/elevateAccess") => status == 403,
                _ => status != 401 && status != 403,
            };
            if !right || found != [expected] {
                let text = String::from_utf8_lossy(&answer.body).chars().take(160).collect::<String>();
                faults.push(format!("{shown} {who}: {status} {found:?} {text}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), rows.len(), faults.join("\n"));
    assert!(done > 40, "only {done} of {} succeeded", rows.len());
    // Paths are recorded, so a search finds what is there.
    let arm = &allowed["arm"];
    let shown = format!(
        "{ARM}/subscriptions/{}/resourceGroups/needle-shown?api-version=2024-11-01",
        wire.subscription()
    );
    assert_eq!(wire.send("GET", &shown, Some(arm), None).await.status, 404);
    let log = log(&site);
    assert!(log.contains("needle-shown"));
    assert!(hidden.len() > rows.len(), "{}", hidden.len());
    hidden.are_not_in(&log);
}

/// Of the first service principal.
async fn admin_object_id(wire: &Wire) -> String {
    let token = wire.admin_token(GRAPH_SCOPE).await;
    let (_, claims) = arcadia_crypto::peek(&token).unwrap();
    claims["oid"].as_str().unwrap().to_owned()
}

/// Many wrong passwords make the log longer by a bounded number of records, and by their number.
#[tokio::test]
async fn strangers_do_not_fill_the_log() {
    const REQUESTS: u64 = 250;
    let mut site = Site::start();
    let wire = site.client();
    let url = format!("{LOGIN}/{}/oauth2/v2.0/token", wire.tenant());
    for _ in 0..REQUESTS {
        let fields = [("grant_type", "password"), ("client_id", "x"), ("username", "x"), ("password", "x")];
        let answer = wire.client.send(Call::post(url.clone()).form(&fields)).await.unwrap();
        assert!(answer.status.is_client_error());
    }
    // What is not told yet is told at the end.
    site.stop();
    let output = site.command(&["audit", "tail", "-n", "1000000", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |operation: &'static str| records.iter().filter(move |record| record["operation"] == operation);
    let alone = of("TokenV2").filter(|record| record["callerKind"] == "anonymous").count() as u64;
    let counted: u64 = of("strangers").map(|record| record["requests"].as_u64().unwrap()).sum();
    assert_eq!(alone + counted, REQUESTS, "{alone} alone");
    // Sixty in each minute that this takes, and it takes no four.
    assert!(alone >= 60 && counted > 0, "{alone} alone, {counted} counted");
    assert!(site.command(&["audit", "verify"]).status.success());
}
