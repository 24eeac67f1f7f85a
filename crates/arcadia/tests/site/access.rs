//! Groups, vaults and roles over the wire of a site.

use serde_json::json;

use crate::support::{ARM, ARM_SCOPE, SECRETS_USER, Site, VAULT_SCOPE};

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
