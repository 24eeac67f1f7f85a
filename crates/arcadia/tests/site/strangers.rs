//! Every operation of every service, walked over the wire: without a token, and as somebody without any role.

use std::collections::HashMap;

use arcadia_client::Call;
use serde_json::Value;

use crate::support::{ARM, ARM_SCOPE, GRAPH_SCOPE, Site, VAULT_SCOPE, Wire};

pub const STORAGE_SCOPE: &str = "https://storage.azure.com/.default";
pub const HIS_SCOPE: &str = "https://his.arc.azure.com/.default";

/// The operations that need no token, with the only reasons there are. This list is read in review: it grows with
/// care.
const OPEN_SERVICES: &[&str] = &["login", "pages"];
const OPEN_OPERATIONS: &[(&str, &str)] = &[
    ("arm", "/metadata/endpoints"),
    ("arm", "/arcadia/extensions/index.json"),
    ("arm", "/arcadia/extensions/{file}"),
];

pub struct Row {
    pub service: String,
    host: String,
    pub method: String,
    pub path: String,
    query: String,
    pub access: String,
}

pub fn rows(site: &Site) -> Vec<Row> {
    let output = site.command(&["reference", "--format", "json"]);
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.iter()
        .map(|row| Row {
            service: text(&row["service"]),
            host: text(&row["hosts"][0]).replace('*', "kvstrangers"),
            method: text(&row["method"]),
            path: text(&row["path"]),
            query: text(&row["query"]),
            access: text(&row["access"]),
        })
        .collect()
}

/// A path that fits the row and names what exists where that is possible.
pub fn url(row: &Row, wire: &Wire) -> String {
    let subscription = wire.subscription();
    let mut path = String::new();
    for segment in row.path.split('/').filter(|segment| !segment.is_empty()) {
        let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            path.push_str(&format!("/{segment}"));
            continue;
        };
        let value = match name.to_lowercase().as_str() {
            "scope*" => format!("subscriptions/{subscription}/resourceGroups/rg1"),
            name if name.ends_with('?') => continue,
            name if name.starts_with("subscription") => subscription.to_owned(),
            "group" | "resourcegroupname" => "rg1".to_owned(),
            "location" => "uksouth".to_owned(),
            "api" if row.service == "graph" => "v1.0".to_owned(),
            "providernamespace" => "Microsoft.KeyVault".to_owned(),
            "kind" => "add".to_owned(),
            "name" | "vaultname" if row.service != "graph" => "kvstrangers".to_owned(),
            _ => "6b0c1a5e-58d2-4a3c-9b53-0f6f1f3f9a11".to_owned(),
        };
        path.push_str(&format!("/{value}"));
    }
    let version = if row.service == "keyvault" { "7.4" } else { "2024-01-01" };
    let query = if row.query.is_empty() { String::new() } else { format!("{}&", row.query) };
    format!("https://{}{path}?{query}api-version={version}", row.host)
}

/// A storage account beside the vault, whose name it shares.
pub async fn account(wire: &Wire) {
    let arm = wire.admin_token(ARM_SCOPE).await;
    let url = format!(
        "{ARM}/subscriptions/{}/resourceGroups/rg1/providers/Microsoft.Storage/storageAccounts/kvstrangers\
         ?api-version=2024-01-01",
        wire.subscription()
    );
    let body =
        serde_json::json!({ "location": "uksouth", "kind": "StorageV2", "sku": { "name": "Standard_LRS" } });
    wire.must("PUT", &url, &arm, Some(body)).await;
}

#[tokio::test]
async fn every_operation_refuses_strangers() {
    let site = Site::start();
    let wire = site.client();
    wire.vault("kvstrangers").await;
    account(&wire).await;
    let stranger = wire.application("stranger").await;
    let mut tokens = HashMap::new();
    for (service, scope) in [
        ("arm", ARM_SCOPE),
        ("graph", GRAPH_SCOPE),
        ("keyvault", VAULT_SCOPE),
        ("storage", STORAGE_SCOPE),
        ("his", HIS_SCOPE),
    ] {
        tokens.insert(service, wire.token_of(&stranger.app_id, &stranger.secret, scope).await);
    }
    let rows = rows(&site);
    assert!(rows.len() > 100, "only {} operations", rows.len());
    let mut faults = Vec::new();
    for row in &rows {
        let url = url(row, &wire);
        let shown = format!("{} {} ({})", row.method, url, row.access);
        let open = OPEN_SERVICES.contains(&row.service.as_str())
            || OPEN_OPERATIONS.contains(&(row.service.as_str(), row.path.as_str()));
        if row.access == "public" {
            if !open {
                faults.push(format!("{shown} is open and not on the list"));
            }
            continue;
        }
        let body = matches!(row.method.as_str(), "PUT" | "POST" | "PATCH").then(|| serde_json::json!({}));
        let nobody = wire.send(&row.method, &url, None, body.clone()).await;
        if nobody.status != 401 || nobody.header_named("www-authenticate").is_none() {
            faults.push(format!("{shown}: {} without a token", nobody.status));
        }
        let token = &tokens[row.service.as_str()];
        let mut call = Call::new(row.method.parse().unwrap(), &url).bearer(token).unwrap();
        if let Some(body) = &body {
            call = call.json(body).unwrap();
        }
        if row.service == "storage" {
            let version = http::HeaderValue::from_static("2021-12-02");
            call = call.header(http::HeaderName::from_static("x-ms-version"), version);
        }
        let answer = wire.client.send(call).await.unwrap();
        let right = match row.access.as_str() {
            "signedIn" => !answer.status.is_server_error() && answer.status != 401,
            // Storage says the same of a token that it cannot read.
            _ if row.service == "storage" => {
                let code = answer.header_named("x-ms-error-code");
                answer.status == 403 && code == Some("AuthorizationPermissionMismatch")
            }
            _ => answer.status == 403,
        };
        if !right {
            let text = String::from_utf8_lossy(&answer.body).chars().take(160).collect::<String>();
            faults.push(format!("{shown}: {} for a stranger: {text}", answer.status));
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), rows.len(), faults.join("\n"));
}

#[tokio::test]
async fn unknown_paths_are_challenged_before_they_are_unknown() {
    let site = Site::start();
    let wire = site.client();
    for url in [
        "https://management.azure.com/nothing/here?api-version=2024-01-01",
        "https://management.azure.com/subscriptions/x/%2e%2e/y?api-version=2024-01-01",
        "https://graph.microsoft.com/v1.0/nothing",
    ] {
        let answer = wire.send("GET", url, None, None).await;
        assert!(matches!(answer.status.as_u16(), 400 | 401), "{url}: {}", answer.status);
    }
}
