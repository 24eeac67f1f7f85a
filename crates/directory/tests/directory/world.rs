use std::net::IpAddr;
use std::sync::Arc;

use arcadia_crypto::{KeyRing, KeySet, RsaBits, RsaKeyPair, SystemEntropy, TokenVerifier, b64url};
use arcadia_directory::{
    AZURE_CLI_APP_ID, Directory, DirectoryNames, Founded, Founding, Graph, Login, graph_ops, login_ops,
};
use arcadia_kernel::{
    Authenticator, Clock as _, Dispatcher, Endpoint, FixedClock, Gate, HeaderMap, Incoming, Limits, Reason,
    StatusCode, TokenFault, VerifiedToken, full_body,
};
use arcadia_races::TempDir;
use arcadia_store::{Record, Store, Table};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};

pub const START: i64 = 1_795_279_544;
pub const ARM: &str = "https://management.core.windows.net//.default";

pub struct World {
    pub clock: Arc<FixedClock>,
    pub store: Store,
    pub directory: Arc<Directory>,
    pub gate: Arc<Gate>,
    pub login: Arc<Dispatcher<Login>>,
    pub graph: Arc<Dispatcher<Graph>>,
    pub first: Founded,
    pub verifier: Arc<TokenVerifier>,
    /// What the store is in, where races want it on disk.
    folder: Option<TempDir>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.text))
    }

    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Status, OAuth error and AADSTS number.
    pub fn refusal(&self) -> (u16, String, u64) {
        let body = self.json();
        let number = body["error_codes"][0].as_u64().unwrap();
        let description = body["error_description"].as_str().unwrap();
        assert!(description.starts_with(&format!("AADSTS{number}: ")), "{description}");
        assert!(description.contains("\r\nTrace ID: "), "{description}");
        (self.status.as_u16(), body["error"].as_str().unwrap().to_owned(), number)
    }

    /// Status and Graph error code.
    pub fn graph_refusal(&self) -> (u16, String) {
        let body = self.json();
        assert!(body["error"]["innerError"]["request-id"].is_string());
        (self.status.as_u16(), body["error"]["code"].as_str().unwrap().to_owned())
    }

    /// The hidden value of a page's form.
    pub fn hidden(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let at = self.text.find(&start).unwrap_or_else(|| panic!("no {name} in {}", self.text)) + start.len();
        let end = self.text[at..].find('"').unwrap();
        self.text[at..at + end].to_owned()
    }
}

/// A row of any table.
#[derive(serde::Serialize, serde::Deserialize)]
struct AnyRow(Value);

impl Record for AnyRow {}

struct Nobody;

impl Authenticator for Nobody {
    fn verify(&self, _: &str, _: i64) -> Result<VerifiedToken, TokenFault> {
        Err(TokenFault::UnknownKey)
    }
}

fn gate(
    directory: &Arc<Directory>,
    store: &Store,
    clock: &Arc<FixedClock>,
    auth: Arc<dyn Authenticator>,
) -> Arc<Gate> {
    Arc::new(Gate {
        authenticator: auth,
        decider: directory.clone(),
        audit: store.audit_sink(),
        clock: clock.clone(),
        entropy: Arc::new(SystemEntropy),
        limits: Limits::default(),
    })
}

impl World {
    pub async fn new() -> Self {
        let clock = Arc::new(FixedClock::at_epoch_seconds(START));
        let folder = arcadia_races::folder();
        let store = match &folder {
            None => Store::in_memory(clock.clone(), Arc::new(SystemEntropy)),
            Some(folder) => {
                let ring = KeyRing::generate(&SystemEntropy).unwrap();
                Store::open(folder.path(), ring, clock.clone(), Arc::new(SystemEntropy)).unwrap()
            }
        };
        let directory = open(&store, &clock).await;
        let founding = gate(&directory, &store, &clock, Arc::new(Nobody));
        let made = directory.found(founding.as_system(Reason::Founding), Founding::default()).await.unwrap();
        let again = directory.found(founding.as_system(Reason::Founding), Founding::default()).await.unwrap();
        assert!(again.is_none());
        Self { folder, ..Self::around(clock, store, directory, made.unwrap()) }
    }

    fn around(clock: Arc<FixedClock>, store: Store, directory: Arc<Directory>, first: Founded) -> Self {
        let keys = KeySet::from_jwks(&directory.jwks()).unwrap();
        let verifier = Arc::new(TokenVerifier::new(keys, directory.issuers()).unwrap());
        let gate = gate(&directory, &store, &clock, verifier.clone());
        let login = Dispatcher::new(Arc::new(Login::new(directory.clone())), login_ops(), gate.clone());
        let graph = Dispatcher::new(Arc::new(Graph::new(directory.clone())), graph_ops(), gate.clone());
        Self {
            clock,
            store,
            directory,
            gate,
            login: Arc::new(login),
            graph: Arc::new(graph),
            first,
            verifier,
            folder: None,
        }
    }

    /// The same site after a restart: everything in memory is new.
    pub async fn restarted(self) -> Self {
        let directory = open(&self.store, &self.clock).await;
        Self { folder: self.folder, ..Self::around(self.clock, self.store, directory, self.first) }
    }

    /// What is in the rows of a table.
    pub async fn all(&self, table: &'static str) -> Vec<Value> {
        let rows = self.store.all(Table::<str, AnyRow>::new(table), &()).await.unwrap();
        rows.into_iter().map(|row| row.value.0).collect()
    }

    /// How many rows a table has.
    pub async fn rows(&self, table: &'static str) -> usize {
        self.all(table).await.len()
    }

    pub fn tenant(&self) -> String {
        self.first.tenant_id.to_string()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.login.clone(), "login.microsoftonline.com", "GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.post_with(path, &[], fields).await
    }

    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
        self.send(self.login.clone(), "login.microsoftonline.com", "POST", path, headers, &form(fields)).await
    }

    pub async fn post_from(&self, address: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let address = address.parse().unwrap();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let host = "login.microsoftonline.com";
        send(self.login.clone(), host, "POST", path, &headers, &form(fields), address).await
    }

    pub async fn send<E: Endpoint + 'static>(
        &self,
        endpoint: Arc<E>,
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        send(endpoint, host, method, path, headers, body, "127.0.0.1".parse().unwrap()).await
    }

    /// A request at the version 2.0 token endpoint of `tenant`.
    pub async fn token(&self, tenant: &str, fields: &[(&str, &str)]) -> Answer {
        self.post(&format!("/{tenant}/oauth2/v2.0/token"), fields).await
    }

    pub async fn first_principal_token(&self, scope: &str) -> Answer {
        let (app, secret) = (self.first.app_id.to_string(), self.first.client_secret.clone());
        self.secret_token(&app, &secret, scope).await
    }

    pub async fn secret_token(&self, app: &str, secret: &str, scope: &str) -> Answer {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", app),
            ("client_secret", secret),
            ("scope", scope),
        ];
        self.token(&self.tenant(), &fields).await
    }

    pub async fn password_token(&self, user: &str, password: &str, scope: &str) -> Answer {
        let az = AZURE_CLI_APP_ID.to_string();
        let scope = format!("{scope} offline_access openid profile");
        let fields = [
            ("grant_type", "password"),
            ("client_id", az.as_str()),
            ("username", user),
            ("password", password),
            ("scope", scope.as_str()),
            ("client_info", "1"),
            ("claims", r#"{"access_token":{"xms_cc":{"values":["CP1"]}}}"#),
        ];
        self.token("organizations", &fields).await
    }

    pub async fn admin_graph_token(&self) -> String {
        let answer = self.first_principal_token("https://graph.microsoft.com//.default").await;
        answer.ok()["access_token"].as_str().unwrap().to_owned()
    }

    pub async fn graph(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("content-type", "application/json")];
        if !token.is_empty() {
            headers.push(("authorization", bearer.as_str()));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(self.graph.clone(), "graph.microsoft.com", method, path, &headers, &body).await
    }

    /// A user with the password `Passw0rd!`; their id.
    pub async fn user(&self, name: &str) -> String {
        let token = self.admin_graph_token().await;
        let body = json!({
            "userPrincipalName": format!("{name}@arcadia.example"),
            "displayName": name,
            "mailNickname": name,
            "accountEnabled": true,
            "passwordProfile": { "password": "Passw0rd!", "forceChangePasswordNextSignIn": false },
        });
        let made = self.graph(&token, "POST", "/v1.0/users", body).await.ok();
        made["id"].as_str().unwrap().to_owned()
    }

    /// An application with a service principal and a secret: (object id, app id, principal id, secret).
    pub async fn application(&self, name: &str) -> (String, String, String, String) {
        let token = self.admin_graph_token().await;
        let app = self
            .graph(&token, "POST", "/v1.0/applications", json!({ "displayName": name, "keyCredentials": [] }))
            .await
            .ok();
        let (id, app_id) = (text(&app, "id"), text(&app, "appId"));
        let path = format!("/v1.0/applications/{id}/addPassword");
        let secret = self.graph(&token, "POST", &path, json!({ "passwordCredential": {} })).await.ok();
        let principal = self
            .graph(
                &token,
                "POST",
                "/v1.0/servicePrincipals",
                json!({ "appId": app_id, "accountEnabled": true }),
            )
            .await
            .ok();
        (id, app_id, text(&principal, "id"), text(&secret, "secretText"))
    }

    /// Lets an application act on resource management for whoever signs in to it.
    pub async fn consent(&self, id: &str) {
        let needed = json!({ "requiredResourceAccess": [{
            "resourceAppId": "797f4846-ba00-4fd7-ba43-dac1f8f63013",
            "resourceAccess": [{ "id": "41094075-9dad-400e-a0bd-54e686782033", "type": "Scope" }],
        }] });
        let token = self.admin_graph_token().await;
        self.graph(&token, "PATCH", &format!("/v1.0/applications/{id}"), needed).await.ok();
    }

    pub fn claims(&self, token: &str) -> Map<String, Value> {
        self.verifier.verify(token, self.clock.epoch_seconds()).unwrap();
        arcadia_crypto::peek(token).unwrap().1
    }
}

pub fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

async fn open(store: &Store, clock: &Arc<FixedClock>) -> Arc<Directory> {
    let names = DirectoryNames::azure();
    Directory::open(store.clone(), clock.clone(), Arc::new(SystemEntropy), names).await.unwrap()
}

async fn send<E: Endpoint + 'static>(
    endpoint: Arc<E>,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    remote: IpAddr,
) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let incoming = Incoming {
        head,
        body: full_body(body.to_owned()),
        host: host.to_owned(),
        origin: format!("https://{host}"),
        remote: Some(remote),
    };
    let (head, body) = endpoint.serve(incoming).await.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status, headers: head.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

pub fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    fields.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect::<Vec<_>>().join("&")
}

pub fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A key pair that is generated once: it takes a while.
pub fn key() -> RsaKeyPair {
    static KEY: std::sync::OnceLock<RsaKeyPair> = std::sync::OnceLock::new();
    KEY.get_or_init(|| RsaKeyPair::generate(RsaBits::Bits2048).unwrap()).clone()
}

/// A client assertion signed by `key`.
pub fn assertion(key: &RsaKeyPair, client: &str, audience: &str, now: i64, jti: &str) -> String {
    let claims = json!({
        "iss": client, "sub": client, "aud": audience, "jti": jti,
        "iat": now as f64 + 0.25, "nbf": now, "exp": now as f64 + 600.5,
    });
    sign(key, &json!({ "alg": "RS256", "typ": "JWT", "x5t": "AAAA=" }), &claims)
}

pub fn sign(key: &RsaKeyPair, header: &Value, claims: &Value) -> String {
    let signed =
        format!("{}.{}", b64url(header.to_string().as_bytes()), b64url(claims.to_string().as_bytes()));
    let signature = b64url(&key.sign_rs256(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}
