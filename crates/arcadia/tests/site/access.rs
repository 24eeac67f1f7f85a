//! Groups, vaults and roles over the wire of a site.

use arcadia_client::{Ask, OAuth};
use serde_json::{Value, json};

use crate::support::{ARM, ARM_SCOPE, GRAPH, GRAPH_SCOPE, LOGIN, SECRETS_USER, Site, VAULT_SCOPE};

/// The client id of az.
const CLI: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

#[tokio::test]
async fn curl_with_the_first_secret_makes_a_group() {
    let site = Site::start();
    let admin = site.env(true);
    let tenant = &admin["AZURE_TENANT_ID"];
    let token = site.curl(&[
        &format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"),
        "--data-urlencode",
        "grant_type=client_credentials",
        "--data-urlencode",
        &format!("client_id={}", admin["AZURE_CLIENT_ID"]),
        "--data-urlencode",
        &format!("client_secret={}", admin["AZURE_CLIENT_SECRET"]),
        "--data-urlencode",
        "scope=https://management.azure.com/.default",
    ]);
    assert_eq!(token.status, 200, "{token:?}");
    let bearer = format!("Authorization: Bearer {}", token.json()["access_token"].as_str().unwrap());
    let group = format!(
        "{ARM}/subscriptions/{}/resourceGroups/arc-hack?api-version=2024-11-01",
        admin["AZURE_SUBSCRIPTION_ID"]
    );
    let made =
        site.curl(&["--request", "PUT", "--header", &bearer, "--json", r#"{"location":"uksouth"}"#, &group]);
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(site.curl(&["--header", &bearer, &group]).json()["name"], "arc-hack");
    assert_eq!(site.curl(&[&group]).status, 401);
    assert_eq!(site.curl(&["--header", "Authorization: Bearer nonsense", &group]).status, 401);

    let wrong = site.curl(&[
        &format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"),
        "--data",
        &format!(
            "grant_type=client_credentials&client_id={}&client_secret=wrong&scope=https://vault.azure.net/.default",
            admin["AZURE_CLIENT_ID"]
        ),
    ]);
    assert_eq!(wrong.status, 401, "{wrong:?}");
}

#[tokio::test]
async fn a_role_opens_one_vault_at_once_and_owner_is_no_data_role() {
    let site = Site::start();
    let wire = site.client();
    let vault = wire.vault("kvroles").await;
    let other = wire.vault("kvroles2").await;
    assert_ne!(vault, other);
    let reader = wire.application("reader").await;
    let token = wire.token_of(&reader.app_id, &reader.secret, VAULT_SCOPE).await;
    let list = |name: &str| format!("https://{name}.vault.azure.net/secrets?api-version=7.4");
    let status = |name: &'static str, token: String| {
        let wire = &wire;
        async move { wire.send("GET", &list(name), Some(&token), None).await.status.as_u16() }
    };
    assert_eq!(status("kvroles", token.clone()).await, 403);
    // The first service principal owns the subscription and reads no secrets.
    let owner = wire.admin_token(VAULT_SCOPE).await;
    let refused = wire.send("GET", &list("kvroles"), Some(&owner), None).await;
    assert_eq!(refused.status, 403);
    assert!(String::from_utf8_lossy(&refused.body).contains("ForbiddenByRbac"));

    wire.assign(&vault, SECRETS_USER, &reader.object_id).await;
    assert_eq!(status("kvroles", token.clone()).await, 200, "with the token from before the assignment");
    assert_eq!(status("kvroles2", token.clone()).await, 403, "the name is a prefix, the vault another");
    let set = wire
        .send(
            "PUT",
            "https://kvroles.vault.azure.net/secrets/s?api-version=7.4",
            Some(&token),
            Some(json!({ "value": "x" })),
        )
        .await;
    assert_eq!(set.status, 403, "reading is not writing");
}

#[tokio::test]
async fn explain_says_why() {
    let site = Site::start();
    let wire = site.client();
    let vault = wire.vault("kvexplain").await;
    let reader = wire.application("reader").await;
    let action = "Microsoft.KeyVault/vaults/secrets/getSecret/action";
    let explain = |caller: &str| {
        let output = site.command(&[
            "access", "explain", "--caller", caller, "--action", action, "--scope", &vault, "--json",
        ]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let before = explain(&reader.object_id);
    assert_eq!((&before["allowed"], &before["considered"]), (&json!(false), &json!([])), "{before}");
    wire.assign(&vault, SECRETS_USER, &reader.object_id).await;
    let after = explain(&reader.app_id);
    assert_eq!(after["allowed"], true, "{after}");
    assert_eq!(after["considered"][0]["roleName"], "Key Vault Secrets User");
    let owner = explain(&wire.admin["ARCADIA_USER"]);
    assert_eq!(owner["allowed"], false, "{owner}");
    assert_eq!(owner["considered"][0]["verdict"], "actionNotInRole");

    // Beside access policies a role counts for nothing, and is not told as if it did.
    let url = format!("{ARM}{vault}?api-version=2023-07-01");
    let owner = wire.admin_token(ARM_SCOPE).await;
    let switch = |roles: bool| json!({ "properties": { "enableRbacAuthorization": roles } });
    assert_eq!(wire.send("PATCH", &url, Some(&owner), Some(switch(false))).await.status, 200);
    let policies = explain(&reader.object_id);
    assert_eq!((&policies["allowed"], &policies["byAccessPolicies"]), (&json!(false), &json!(true)));
    assert_eq!(policies["considered"], json!([]), "{policies}");
    assert!(policies["because"].as_str().unwrap().contains("no access policy"), "{policies}");
    assert_eq!(wire.send("PATCH", &url, Some(&owner), Some(switch(true))).await.status, 200);

    // Only who may read role assignments is told.
    let token = wire.token_of(&reader.app_id, &reader.secret, ARM_SCOPE).await;
    let url = format!("{ARM}{vault}/providers/Arcadia.Access/explain?api-version=2026-01-01");
    let body = json!({ "principal": reader.object_id, "action": action });
    assert_eq!(wire.send("POST", &url, Some(&token), Some(body.clone())).await.status, 403);
    assert_eq!(wire.send("POST", &url, None, Some(body.clone())).await.status, 401);

    // And whoever may not read the directory only about itself, whether there is somebody else or not.
    const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
    wire.assign(&vault, READER, &reader.object_id).await;
    let own = wire.send("POST", &url, Some(&token), Some(body)).await;
    let told: serde_json::Value = serde_json::from_slice(&own.body).unwrap();
    assert_eq!((own.status.as_u16(), &told["allowed"]), (200, &json!(true)), "{told}");
    let mut refusals = Vec::new();
    for principal in [&wire.admin["ARCADIA_USER"], &wire.admin["AZURE_CLIENT_ID"], "nobody@x.example"] {
        let body = json!({ "principal": principal, "action": action });
        let refused = wire.send("POST", &url, Some(&token), Some(body)).await;
        assert_eq!(refused.status, 403, "{principal}");
        refusals.push(refused.body);
    }
    assert!(refusals.windows(2).all(|pair| pair[0] == pair[1]), "{refusals:?}");
    let unknown = site.command(&[
        "access",
        "explain",
        "--caller",
        "nobody@x.example",
        "--action",
        action,
        "--scope",
        &vault,
    ]);
    assert_eq!(unknown.status.code(), Some(1));
}

/// It has a person's token, and what the person may do in the site's services: for as long as it is let.
#[tokio::test]
async fn an_application_that_is_switched_off_acts_for_nobody() {
    let site = Site::start();
    let wire = site.client();
    let vault = wire.vault("kvswitched").await;
    let graph = wire.admin_token(GRAPH_SCOPE).await;
    let user = format!("{GRAPH}/v1.0/users/{}", wire.admin["ARCADIA_USER"]);
    let user = wire.must("GET", &user, &graph, None).await;
    wire.assign(&vault, SECRETS_USER, user["id"].as_str().unwrap()).await;
    let desktop = wire.application("desktop").await;
    let needed = |service: &str, permission: &str| json!({ "resourceAppId": service, "resourceAccess": [{ "id": permission, "type": "Scope" }] });
    let change = json!({ "isFallbackPublicClient": true, "requiredResourceAccess": [
        needed("797f4846-ba00-4fd7-ba43-dac1f8f63013", "41094075-9dad-400e-a0bd-54e686782033"),
        needed("cfa8b339-82a2-471a-a3c9-0fc0be7a4093", "f53da476-18e3-4152-8e01-aec403e6edc0"),
    ] });
    let application = format!("{GRAPH}/v1.0/applications(appId='{}')", desktop.app_id);
    wire.must("PATCH", &application, &graph, Some(change)).await;
    let groups = format!("{ARM}/subscriptions/{}/resourceGroups?api-version=2024-11-01", wire.subscription());
    let places = [
        (ARM_SCOPE, groups),
        (ARM_SCOPE, format!("{ARM}/subscriptions?api-version=2022-12-01")),
        (VAULT_SCOPE, "https://kvswitched.vault.azure.net/secrets?api-version=7.4".to_owned()),
    ];
    let oauth = OAuth::new(&wire.client, LOGIN, wire.tenant()).unwrap();
    let mut asked = Vec::new();
    for (scope, url) in &places {
        for client in [desktop.app_id.as_str(), CLI] {
            let (name, password) = (&wire.admin["ARCADIA_USER"], &wire.admin["ARCADIA_PASSWORD"]);
            let token = oauth.password(client, name, password, Ask::Scope(scope)).await.unwrap();
            asked.push((client, url, token.access_token));
        }
    }
    let principal = format!("{GRAPH}/v1.0/servicePrincipals/{}", desktop.object_id);
    for is_enabled in [true, false] {
        let switch = json!({ "accountEnabled": is_enabled });
        wire.must("PATCH", &principal, &graph, Some(switch)).await;
        for (client, url, token) in &asked {
            let answer = wire.send("GET", url, Some(token), None).await;
            let wanted = if is_enabled || *client == CLI { 200 } else { 403 };
            assert_eq!(answer.status, wanted, "{client} {url}");
        }
    }
    let told = site.command(&[
        "access",
        "explain",
        "--caller",
        &wire.admin["ARCADIA_USER"],
        "--action",
        "Microsoft.KeyVault/vaults/secrets/getSecret/action",
        "--scope",
        &vault,
        "--json",
    ]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["allowed"], true, "asked about a person, whatever application: {told}");
}
