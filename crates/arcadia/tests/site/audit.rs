//! The log of a running site: it is read beside it, and holds no secret.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use arcadia_client::{Ask, AssertionKey, Call, DevicePoll, OAuth};
use arcadia_crypto::{
    RsaBits, RsaKeyPair, SystemEntropy, b64, b64_decode, b64url, hmac_sha256, self_signed, sha256,
};
use arcadia_kernel::{Clock as _, EntropyExt as _};
use serde_json::{Value, json};

use crate::raw::PATIENCE;
use crate::strangers::account;
use crate::support::{
    ARM, ARM_SCOPE, GRAPH, GRAPH_SCOPE, LOGIN, SECRETS_OFFICER, Site, SystemClock, VAULT_SCOPE, Wire, arcadia,
};

const CLI: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";
/// What answers call their secrets: `value` is a secret's, a storage key's and a backup's.
const SECRET_FIELDS: [&str; 8] =
    ["value", "secretText", "password", "key", "access_token", "refresh_token", "id_token", "device_code"];
const OSSRDBMS_SCOPE: &str = "https://ossrdbms-aad.database.windows.net/.default";
const STORAGE_VERSION: &str = "2021-12-02";
pub const KEY_VAULT_ADMINISTRATOR: &str = "00482a5a-887f-4fb3-b363-3b7fe8e74483";
const BYTES: &str = "application/octet-stream";
/// As [`account`] names it.
const ACCOUNT: &str = "kvstrangers";

/// Every record, a line each.
pub fn log(site: &Site) -> String {
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
pub struct Hidden(Vec<(String, String)>);

impl Hidden {
    pub fn add(&mut self, what: impl Into<String>, text: &str) {
        let what = what.into();
        assert!(text.len() > 8, "{what}: too short to be looked for");
        self.0.push((what, text.to_owned()));
    }

    /// A text that is nowhere else.
    pub fn needle(&mut self, what: impl Into<String>) -> String {
        let needle = format!("needle-{}", SystemEntropy.uuid().simple());
        self.add(what, &needle);
        needle
    }

    /// Whatever in an answer has the name of a secret.
    pub fn add_secrets_of(&mut self, what: &str, answer: &Value) {
        match answer {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value.as_str() {
                Some(text) if SECRET_FIELDS.contains(&name.as_str()) && text.len() > 16 => {
                    self.add(format!("{name} of {what}"), text);
                }
                _ => self.add_secrets_of(what, value),
            }),
            Value::Array(items) => items.iter().for_each(|item| self.add_secrets_of(what, item)),
            _ => {}
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn are_not_in(&self, log: &str) {
        for (what, text) in &self.0 {
            assert!(!log.contains(text.as_str()), "{what} is in the log");
            // Nor a telling part of one: the end of a token's signature, the second half of a secret.
            let tail = &text[text.len() - (text.len() / 2).min(24)..];
            assert!(tail.len() < 8 || !log.contains(tail), "a part of {what} is in the log");
        }
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

async fn backup(wire: &Wire, hidden: &mut Hidden) {
    let vault = wire.vault("kvbackup").await;
    let officer = wire.application("keeper").await;
    wire.assign(&vault, KEY_VAULT_ADMINISTRATOR, &officer.object_id).await;
    hidden.add("the keeper's secret", &officer.secret);
    let token = wire.token_of(&officer.app_id, &officer.secret, VAULT_SCOPE).await;
    let at = |path: &str| format!("https://kvbackup.vault.azure.net/{path}?api-version=7.4");
    let value = hidden.needle("a secret that is backed up");
    wire.must("PUT", &at("secrets/s1"), &token, Some(json!({ "value": value }))).await;
    let kept = wire.must("POST", &at("secrets/s1/backup"), &token, None).await;
    hidden.add("a backup", kept["value"].as_str().unwrap());
    wire.must("DELETE", &at("secrets/s1"), &token, None).await;
    wire.must("DELETE", &at("deletedsecrets/s1"), &token, None).await;
    wire.must("POST", &at("secrets/restore"), &token, Some(kept)).await;
    let wrong = hidden.needle("a backup that is none");
    let answer =
        wire.send("POST", &at("secrets/restore"), Some(&token), Some(json!({ "value": wrong }))).await;
    assert_eq!(answer.status, 400);
}

/// A user, and the passwords of theirs: the first, another, and one that is not taken.
async fn people(wire: &Wire, hidden: &mut Hidden) {
    let graph = wire.admin_token(GRAPH_SCOPE).await;
    let oauth = OAuth::new(&wire.client, LOGIN, wire.tenant()).unwrap();
    let (_, domain) = wire.admin["ARCADIA_USER"].split_once('@').unwrap();
    let name = format!("hidden@{domain}");
    let profile = |password: &str| json!({ "password": password, "forceChangePasswordNextSignIn": false });
    let first = hidden.needle("a user's first password") + "-Aa1!";
    let body = json!({
        "accountEnabled": true, "displayName": "Hidden", "mailNickname": "hidden", "userPrincipalName": name,
        "passwordProfile": profile(&first),
    });
    let made = wire.must("POST", &format!("{GRAPH}/v1.0/users"), &graph, Some(body)).await;
    let user = format!("{GRAPH}/v1.0/users/{}", made["id"].as_str().unwrap());
    let next = hidden.needle("a user's next password") + "-Aa1!";
    wire.must("PATCH", &user, &graph, Some(json!({ "passwordProfile": profile(&next) }))).await;
    let weak = hidden.needle("a password that is not taken").replace('-', "");
    let refused = json!({ "passwordProfile": profile(&weak) });
    assert_eq!(wire.send("PATCH", &user, Some(&graph), Some(refused)).await.status, 400);
    assert!(oauth.password(CLI, &name, &first, Ask::Scope(ARM_SCOPE)).await.is_err());
    let token = oauth.password(CLI, &name, &next, Ask::Scope(ARM_SCOPE)).await.unwrap();
    hidden.add("another user's token", &token.access_token);
}

/// A request for blobs that an account's key signs.
fn signed(key: &[u8], (method, path, query): (&str, &str, &str), meta: &str, body: &str) -> (Call, String) {
    let date = SystemClock.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let headers = [
        ("x-ms-blob-type", "BlockBlob"),
        ("x-ms-date", &date),
        ("x-ms-meta-m", meta),
        ("x-ms-version", STORAGE_VERSION),
    ];
    let length = if body.is_empty() { String::new() } else { body.len().to_string() };
    let named: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    // The query as a line of its own.
    let asked = if query.is_empty() { String::new() } else { format!("\n{}", query.replacen('=', ":", 1)) };
    let text = format!("{method}\n\n\n{length}\n\n{BYTES}\n\n\n\n\n\n\n{named}/{ACCOUNT}{path}{asked}");
    let signature = b64(&hmac_sha256(key, text.as_bytes()));
    let url = format!("https://{ACCOUNT}.blob.core.windows.net{path}?{query}");
    let mut call = Call::new(method.parse().unwrap(), url.trim_end_matches('?')).body(BYTES, body.to_owned());
    let authorization = format!("SharedKey {ACCOUNT}:{signature}");
    for (name, value) in headers.into_iter().chain([("authorization", &*authorization)]) {
        call = call.header(name.parse().unwrap(), value.parse().unwrap());
    }
    (call, signature)
}

/// The keys of a storage account, what is signed with them, and a blob.
async fn account_keys(wire: &Wire, hidden: &mut Hidden) {
    let arm = wire.admin_token(ARM_SCOPE).await;
    wire.vault("kvaccount").await;
    account(wire).await;
    let of = |what: &str| {
        let subscription = wire.subscription();
        format!(
            "{ARM}/subscriptions/{subscription}/resourceGroups/rg1/providers/Microsoft.Storage/storageAccounts/\
             {ACCOUNT}/{what}?api-version=2024-01-01"
        )
    };
    let keys = wire.must("POST", &of("listKeys"), &arm, Some(json!({}))).await;
    hidden.add_secrets_of("listKeys", &keys);
    let other = wire.must("POST", &of("regenerateKey"), &arm, Some(json!({ "keyName": "key2" }))).await;
    hidden.add_secrets_of("regenerateKey", &other);
    let key = b64_decode(keys["keys"][0]["value"].as_str().unwrap()).unwrap();
    let (meta, bytes) = (hidden.needle("a blob's metadata"), hidden.needle("a blob's bytes"));
    let asked = [
        ("PUT", "/hidden", "restype=container", "", 201),
        ("PUT", "/hidden/b", "", &*bytes, 201),
        ("GET", "/hidden/b", "", "", 200),
    ];
    for (method, path, query, body, status) in asked {
        for (key, status) in [(&b"another"[..], 403), (&key, status)] {
            let (call, signature) = signed(key, (method, path, query), &meta, body);
            hidden.add("a signature", &signature);
            let answer = wire.client.send(call).await.unwrap();
            let told = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, status, "{method} {path}: {told}");
        }
    }
}

/// A database server's passwords, at the resource manager and at its door.
async fn server(site: &Site, wire: &Wire, hidden: &mut Hidden) {
    let arm = wire.admin_token(ARM_SCOPE).await;
    let id = format!(
        "{ARM}/subscriptions/{}/resourceGroups/rg1/providers/Microsoft.DBforPostgreSQL/flexibleServers/pg-hidden",
        wire.subscription()
    );
    let [first, next, wrong] = ["the first", "the next", "a wrong"]
        .map(|which| hidden.needle(format!("{which} password of a server")) + "A");
    let properties = json!({
        "createMode": "Create", "administratorLogin": "arcadmin", "administratorLoginPassword": first,
        "authConfig": { "activeDirectoryAuth": "Enabled", "passwordAuth": "Enabled", "tenantId": wire.tenant() },
        "network": { "publicNetworkAccess": "Enabled" },
    });
    let sku = json!({ "name": "Standard_B1ms", "tier": "Burstable" });
    let body = json!({ "location": "uksouth", "sku": sku, "properties": properties });
    change(wire, &arm, ("PUT", &id), body).await;
    let rule = json!({ "properties": { "startIpAddress": "127.0.0.1", "endIpAddress": "127.255.255.254" } });
    change(wire, &arm, ("PUT", &format!("{id}/firewallRules/here")), rule).await;
    let body = json!({ "properties": { "administratorLoginPassword": next } });
    change(wire, &arm, ("PATCH", &id), body).await;
    let keeper = wire.application("pg-keeper").await;
    hidden.add("the keeper's secret", &keeper.secret);
    let administrator = json!({ "properties": {
        "principalName": "pg-keeper", "principalType": "ServicePrincipal", "tenantId": wire.tenant(),
    }});
    change(wire, &arm, ("PUT", &format!("{id}/administrators/{}", keeper.object_id)), administrator).await;
    let door = wire.token_of(&keeper.app_id, &keeper.secret, OSSRDBMS_SCOPE).await;
    let other = wire.token_of(&keeper.app_id, &keeper.secret, VAULT_SCOPE).await;
    hidden.add("a token for databases", &door);
    hidden.add("another token at the databases' door", &other);
    let address = site.env(false)["PGHOSTADDR"].clone();
    for (user, password, opens) in [
        ("arcadmin", &next, true),
        ("arcadmin", &wrong, false),
        ("arcadmin", &first, false),
        ("pg-keeper", &door, true),
        ("pg-keeper", &other, false),
        ("pg-keeper", &wrong, false),
        (&*wrong, &wrong, false),
    ] {
        let mut psql = std::process::Command::new("psql");
        psql.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("PGPASSWORD", password);
        psql.env("PGHOSTADDR", &address).env("PGSSLROOTCERT", site.data.join("ca.pem"));
        psql.arg(format!(
            "host=pg-hidden.postgres.database.azure.com dbname=postgres user={user} sslmode=verify-full"
        ));
        let told = psql.args(["-X", "-A", "-t", "-c", "SELECT 7"]).output().unwrap();
        assert_eq!(told.status.success(), opens, "{user}: {told:?}");
    }
}

/// A change that takes time, to its end.
async fn change(wire: &Wire, token: &str, (method, id): (&str, &str), body: Value) {
    let url = format!("{id}?api-version=2025-08-01");
    let answer = wire.send(method, &url, Some(token), Some(body)).await;
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(answer.status.is_success(), "{method} {id}: {told}");
    let Some(operation) = answer.header_named("azure-asyncoperation") else { return };
    let begun = std::time::Instant::now();
    loop {
        let found = wire.must("GET", operation, token, None).await;
        match found["status"].as_str().unwrap() {
            "Succeeded" => return,
            "Failed" => panic!("{method} {id}: {found}"),
            _ => assert!(begun.elapsed() < PATIENCE * 2, "{method} {id}: {found}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
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
    let ticket = |page: &str| field(page, "ticket");
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
    cookies(&jar, hidden);
}

fn cookies(jar: &str, hidden: &mut Hidden) {
    let cookies = std::fs::read_to_string(jar).unwrap();
    let values =
        cookies.lines().filter(|line| line.contains('\t')).filter_map(|line| line.rsplit('\t').next());
    for value in values.filter(|value| value.len() > 16) {
        hidden.add("a cookie", value);
    }
}

/// The value of a page's field that is not shown.
fn field(page: &str, name: &str) -> String {
    let field = format!("name=\"{name}\" value=\"");
    let (_, rest) = page.split_once(&field).unwrap_or_else(|| panic!("{page}"));
    rest.split_once('"').unwrap().0.to_owned()
}

/// A sign-in as az has it in a browser: a page, a code, and tokens for the code.
async fn browser(site: &Site, wire: &Wire, hidden: &mut Hidden) {
    const REDIRECT: &str = "http://localhost:46441";
    let jar = site.data.join("env/browser").display().to_string();
    let page = |address: &str, fields: &[String]| {
        let address = format!("{LOGIN}/organizations/{address}");
        let mut arguments = vec!["--cookie", &jar, "--cookie-jar", &jar, &address];
        // Without a ticket it is the first page.
        if !fields[0].starts_with("ticket=") {
            arguments.push("--get");
        }
        arguments.extend(fields.iter().flat_map(|field| ["--data-urlencode", field]));
        let page = site.curl(&arguments);
        assert_eq!(page.status, 200, "{page:?}");
        page.body
    };
    let verifier = hidden.needle("a code's verifier") + "-long-enough";
    let challenge = b64url(&sha256(verifier.as_bytes()));
    let first = [
        format!("client_id={CLI}"),
        "response_type=code".to_owned(),
        "response_mode=form_post".to_owned(),
        format!("redirect_uri={REDIRECT}"),
        format!("scope={ARM_SCOPE} offline_access openid profile"),
        format!("state={}", hidden.needle("a state")),
        format!("nonce={}", hidden.needle("a nonce")),
        format!("code_challenge={challenge}"),
        "code_challenge_method=S256".to_owned(),
    ];
    hidden.add("a challenge", &challenge);
    let ticket = field(&page("oauth2/v2.0/authorize", &first), "ticket");
    hidden.add("a browser's ticket", &ticket);
    let filled = [
        format!("ticket={ticket}"),
        format!("username={}", wire.admin["ARCADIA_USER"]),
        format!("password={}", wire.admin["ARCADIA_PASSWORD"]),
    ];
    let code = field(&page("login", &filled), "code");
    hidden.add("a code", &code);
    cookies(&jar, hidden);
    let wrong = hidden.needle("a wrong verifier") + "-long-enough";
    for (verifier, status) in [(&wrong, 400), (&verifier, 200)] {
        let fields = [
            ("client_id", CLI),
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("code_verifier", verifier),
            ("redirect_uri", REDIRECT),
        ];
        let call = Call::post(format!("{LOGIN}/organizations/oauth2/v2.0/token")).form(&fields);
        let answer = wire.client.send(call).await.unwrap();
        assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&answer.body));
        hidden.add_secrets_of("a code", &serde_json::from_slice(&answer.body).unwrap());
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
    backup(&wire, &mut hidden).await;
    people(&wire, &mut hidden).await;
    account_keys(&wire, &mut hidden).await;
    server(&site, &wire, &mut hidden).await;
    sign_ins(&wire, &mut hidden).await;
    assertion(&wire, &mut hidden).await;
    device(&site, &wire, &mut hidden).await;
    browser(&site, &wire, &mut hidden).await;
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
        "SecretBackup",
        "SecretRestore",
        "UserUpdate",
        "StorageAccountListKeys",
        "StorageAccountRegenerateKey",
        "PutBlob",
        "flexibleServers/pg-hidden",
        "\"Login\"",
        &wire.admin["ARCADIA_USER"],
    ] {
        assert!(log.contains(there), "{there} is recorded");
    }
    hidden.are_not_in(&log);
    assert!(hidden.len() > 60, "{}", hidden.len());
    assert!(site.command(&["audit", "verify"]).status.success());
}
