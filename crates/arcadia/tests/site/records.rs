//! The audit log and the table of operations: whoever asks for whatever, there is one record of it when the client
//! learns the status.

use std::collections::HashMap;

use arcadia_client::{Answer, Call};
use serde_json::{Value, json};

use crate::strangers::{HIS_SCOPE, Row, STORAGE_SCOPE, account, rows, url};
use crate::support::{ARM_SCOPE, GRAPH_SCOPE, LOGIN, Site, VAULT_SCOPE, Wire};

const KEY_VAULT_ADMINISTRATOR: &str = "00482a5a-887f-4fb3-b363-3b7fe8e74483";
const STORAGE_BLOB_DATA_OWNER: &str = "b7e6dc6d-f1e8-4753-8033-0f276bb0955b";
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

async fn ask(wire: &Wire, row: &Row, token: Option<&String>) -> Answer {
    let mut call = Call::new(row.method.parse().unwrap(), url(row, wire));
    if let Some(token) = token {
        call = call.bearer(token).unwrap();
    }
    let body = match (row.service.as_str(), row.path.as_str()) {
        ("arm", "/subscriptions/{subscriptionId}/resourcegroups/{group}") => json!({ "location": "uksouth" }),
        ("keyvault", "/secrets/{name}") => json!({ "value": "x" }),
        _ => json!({}),
    };
    if matches!(row.method.as_str(), "PUT" | "POST" | "PATCH") {
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
    let own = records.filter(|record| record["requestId"] == id.as_str());
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
    for row in &rows {
        let shown = format!("{} {} ({})", row.method, url(row, &wire), row.access);
        if row.access == "public" {
            let answer = ask(&wire, row, None).await;
            let found = results(&site, &answer);
            if found.len() != usize::from(is_sign_in(row)) {
                faults.push(format!("{shown}: {} {found:?}", answer.status));
            }
            continue;
        }
        for (who, tokens) in [("refused", &refused), ("allowed", &allowed)] {
            let answer = ask(&wire, row, Some(&tokens[row.service.as_str()])).await;
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
