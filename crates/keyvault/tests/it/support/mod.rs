//! A small site: one tenant, two subscriptions with an owner and a resource group in the first, vaults, callers, roles.
//!
//! ```ignore
//! let world = World::with_vault("kv1").await;
//! let nina = world.caller("nina");
//! world.grant(&nina, SECRETS_USER, &world.vault("kv1")).await;
//! let answer = world.data(&nina, GET, "kv1", "/secrets/s").await;
//! ```

mod callers;

use std::net::IpAddr;
use std::sync::Arc;

use arcadia_arm::{Arm, ArmNames, Founding, PrincipalType, arm_ops, registered};
use arcadia_crypto::SystemEntropy;
use arcadia_kernel::{
    Body, Dispatcher, Endpoint, EntropyExt as _, FixedClock, Gate, HeaderMap, Incoming, Limits, Method,
    OpInfo, Reason, full_body,
};
use arcadia_keyvault::{KeyVault, KeyVaultNames, Swept, Vaults, data_ops};
use arcadia_store::Store;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

pub use arcadia_interleaved::Interleaved;
pub use callers::{Caller, Directory, Tokens};

pub const SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";
pub const SECRETS_OFFICER: &str = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7";
pub const KEYVAULT_READER: &str = "21090545-7ca7-4776-b22c-e363652d74d2";
pub const KEYVAULT_ADMINISTRATOR: &str = "00482a5a-887f-4fb3-b363-3b7fe8e74483";
pub const KEYVAULT_CONTRIBUTOR: &str = "f25e0fa2-a7c8-4377-a976-54943a77a395";
pub const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
pub const CONTRIBUTOR: &str = "b24988ac-6180-42a0-ab88-20f7382dd24c";
pub const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";

pub const TENANT: Uuid = Uuid::from_u128(0x7e);
pub const SUBSCRIPTION: &str = "5b5c0000-0000-4000-8000-000000000001";
pub const OTHER_SUBSCRIPTION: &str = "5b5c0000-0000-4000-8000-000000000002";
pub const GROUP: &str = "/subscriptions/5b5c0000-0000-4000-8000-000000000001/resourceGroups/rg";
/// 2026-11-21T12:00:00Z
pub const START: i64 = 1_795_262_400;
pub const DAY: i64 = 86_400;
pub const MANAGEMENT: &str = "2026-02-01";

pub struct World {
    pub clock: Arc<FixedClock>,
    pub store: Store,
    pub directory: Arc<Directory>,
    pub owner: Caller,
    pub keyvault: Arc<KeyVault>,
    gate: Arc<Gate>,
    data: Arc<Dispatcher<KeyVault>>,
    arm: Arc<Dispatcher<Arm>>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// `403 Forbidden/ForbiddenByRbac`.
    pub fn refusal(&self) -> String {
        let error = &self.json()["error"];
        let code = error["code"].as_str().unwrap_or("-");
        match error["innererror"]["code"].as_str() {
            Some(inner) => format!("{} {code}/{inner}", self.status),
            None => format!("{} {code}", self.status),
        }
    }

    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or("").to_owned()
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }
}

/// One request, before it is sent.
#[derive(Clone)]
pub struct Ask {
    pub method: Method,
    pub host: String,
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    pub remote: Option<IpAddr>,
}

impl World {
    pub async fn new() -> Self {
        let clock = Arc::new(FixedClock::at_epoch_seconds(START));
        let entropy = Arc::new(SystemEntropy);
        let store = Store::in_memory(clock.clone(), entropy.clone());
        Self::over(store, clock, Arc::new(Directory::new(TENANT))).await
    }

    /// A site whose requests run into one another wherever they can.
    pub async fn interleaved() -> Self {
        Self::held_up().await.0
    }

    /// The same, with what can hold up one of its requests.
    pub async fn held_up() -> (Self, Arc<Interleaved>) {
        let clock = Arc::new(FixedClock::at_epoch_seconds(START));
        let (store, backend) = Interleaved::store(START).await;
        (Self::over(store, clock, Arc::new(Directory::new(TENANT))).await, backend)
    }

    /// A site over what is stored already, as after a restart.
    pub async fn over(store: Store, clock: Arc<FixedClock>, directory: Arc<Directory>) -> Self {
        let entropy = Arc::new(SystemEntropy);
        let keyvault =
            KeyVault::open(store.clone(), KeyVaultNames::azure(), directory.clone()).await.unwrap();
        let kinds = vec![registered(Arc::new(Vaults(keyvault.clone())))];
        let arm = Arm::open(
            store.clone(),
            ArmNames::azure(),
            directory.clone(),
            kinds,
            clock.clone(),
            entropy.clone(),
        )
        .await
        .unwrap();
        let gate = Arc::new(Gate {
            authenticator: Arc::new(Tokens(directory.clone())),
            decider: keyvault.decider(arm.decider()),
            audit: store.audit_sink(),
            clock: clock.clone(),
            entropy,
            limits: Limits::default(),
        });
        let owner = directory.caller("owner");
        for id in [SUBSCRIPTION, OTHER_SUBSCRIPTION] {
            let founding = Founding {
                tenant_id: TENANT,
                subscription_id: Uuid::parse_str(id).unwrap(),
                display_name: "Site".to_owned(),
                owners: vec![(owner.object_id, PrincipalType::User)],
            };
            arm.found(gate.as_system(Reason::Founding), founding).await.unwrap();
        }
        arm.start(gate.clone()).await;
        let data = Arc::new(Dispatcher::new(keyvault.clone(), data_ops(), gate.clone()));
        let rows = arm_ops(&arm);
        let arm = Arc::new(Dispatcher::new(arm, rows, gate.clone()));
        let world = Self { clock, store, directory, owner, keyvault, gate, data, arm };
        world.make_group(GROUP).await;
        world
    }

    pub async fn make_group(&self, group: &str) {
        let made = self.manage(&self.owner, Method::PUT, group, json!({ "location": "uksouth" })).await;
        assert!(matches!(made.status, 200 | 201), "{}", made.text);
    }

    pub async fn with_vault(name: &str) -> Self {
        let world = Self::new().await;
        world.make_vault(name).await;
        world
    }

    pub fn caller(&self, name: &str) -> Caller {
        self.directory.caller(name)
    }

    pub fn vault(&self, name: &str) -> String {
        format!("{GROUP}/providers/Microsoft.KeyVault/vaults/{name}")
    }

    /// With roles, and 7 days of retention.
    pub async fn make_vault(&self, name: &str) {
        let answer = self.put_vault(name, vault_properties()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    pub async fn put_vault(&self, name: &str, properties: Value) -> Answer {
        let body = json!({ "location": "uksouth", "properties": properties });
        self.manage(&self.owner, Method::PUT, &self.vault(name), body).await
    }

    /// A role by the resource manager's own operation.
    pub async fn grant(&self, caller: &Caller, role: &str, scope: &str) -> String {
        let name = SystemEntropy.uuid();
        let path = format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}");
        let definition = format!("/providers/Microsoft.Authorization/roleDefinitions/{role}");
        let body =
            json!({ "properties": { "roleDefinitionId": definition, "principalId": caller.object_id } });
        let answer = self.send_arm(Some(&self.owner), Method::PUT, &path, "2022-04-01", body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        path
    }

    pub async fn revoke(&self, assignment: &str) {
        let answer =
            self.send_arm(Some(&self.owner), Method::DELETE, assignment, "2022-04-01", Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    pub async fn manage(&self, caller: &Caller, method: Method, path: &str, body: Value) -> Answer {
        self.send_arm(Some(caller), method, path, MANAGEMENT, body).await
    }

    pub async fn send_arm(
        &self,
        caller: Option<&Caller>,
        method: Method,
        path: &str,
        api_version: &str,
        body: Value,
    ) -> Answer {
        let mut ask = Ask {
            method,
            host: "management.azure.com".to_owned(),
            target: format!("{path}?api-version={api_version}"),
            headers: Vec::new(),
            body: if body.is_null() { Bytes::new() } else { body.to_string().into() },
            remote: None,
        };
        if let Some(caller) = caller {
            ask.headers.push(("authorization", caller.bearer("https://management.azure.com/")));
        }
        let body = full_body(ask.body.clone());
        self.send(self.arm.clone(), ask, body).await
    }

    /// A request for the data plane with a token for it and `api-version=7.4`.
    pub async fn data(&self, caller: &Caller, method: Method, vault: &str, path: &str) -> Answer {
        self.data_with(caller, method, vault, path, Value::Null).await
    }

    pub async fn data_with(
        &self,
        caller: &Caller,
        method: Method,
        vault: &str,
        path: &str,
        body: Value,
    ) -> Answer {
        self.ask(self.asking(Some(caller), method, vault, path, body)).await
    }

    pub fn asking(
        &self,
        caller: Option<&Caller>,
        method: Method,
        vault: &str,
        path: &str,
        body: Value,
    ) -> Ask {
        let joint = if path.contains('?') { '&' } else { '?' };
        let version = if path.contains("api-version") { "" } else { "api-version=7.4" };
        Ask {
            method,
            host: format!("{vault}.vault.azure.net"),
            target: format!(
                "{path}{}{version}",
                if version.is_empty() { "".into() } else { joint.to_string() }
            ),
            headers: caller
                .map(|caller| ("authorization", caller.bearer("https://vault.azure.net")))
                .into_iter()
                .collect(),
            body: if body.is_null() { Bytes::new() } else { body.to_string().into() },
            remote: Some(IpAddr::from([198, 51, 100, 7])),
        }
    }

    pub async fn ask(&self, ask: Ask) -> Answer {
        let body = full_body(ask.body.clone());
        self.ask_with_body(ask, body).await
    }

    pub async fn ask_with_body(&self, ask: Ask, body: Body) -> Answer {
        self.send(self.data.clone(), ask, body).await
    }

    async fn send(&self, to: Arc<dyn Endpoint>, ask: Ask, body: Body) -> Answer {
        let mut builder = http::Request::builder().method(ask.method).uri(ask.target);
        for (name, value) in ask.headers {
            builder = builder.header(name, value);
        }
        let (head, ()) = builder.body(()).unwrap().into_parts();
        let origin = format!("https://{}", ask.host);
        let incoming = Incoming { head, body, host: ask.host, origin, remote: ask.remote };
        let response = to.serve(incoming).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    pub async fn set(&self, caller: &Caller, vault: &str, name: &str, value: &str) -> Value {
        let path = format!("/secrets/{name}");
        self.data_with(caller, Method::PUT, vault, &path, json!({ "value": value })).await.ok()
    }

    /// The value, or the refusal.
    pub async fn value(&self, caller: &Caller, vault: &str, name: &str) -> String {
        let answer = self.data(caller, Method::GET, vault, &format!("/secrets/{name}")).await;
        match answer.status {
            200 => answer.json()["value"].as_str().unwrap().to_owned(),
            _ => answer.refusal(),
        }
    }

    /// An officer of secrets in every vault of the group.
    pub async fn officer(&self) -> Caller {
        let officer = self.caller("officer");
        self.grant(&officer, SECRETS_OFFICER, GROUP).await;
        officer
    }

    pub async fn sweep(&self) -> Swept {
        self.keyvault.sweep(self.gate.as_system(Reason::Sweep)).await.unwrap()
    }

    pub async fn tidy(&self) -> Swept {
        self.keyvault.tidy(self.gate.as_system(Reason::Sweep)).await.unwrap()
    }

    /// How many rows a table of the store has.
    pub async fn rows(&self, table: &'static str) -> usize {
        self.store.all(arcadia_store::Table::<(), Raw>::new(table), &()).await.unwrap().len()
    }

    pub fn data_rows(&self) -> Vec<OpInfo> {
        self.data.catalogue()
    }

    pub fn arm_rows(&self) -> Vec<OpInfo> {
        self.arm.catalogue()
    }

    /// The same site opened anew over the same rows.
    pub async fn restarted(self) -> Self {
        let Self { store, clock, directory, .. } = self;
        Self::over(store, clock, directory).await
    }
}

/// A record of any table.
#[derive(serde::Serialize, serde::Deserialize)]
struct Raw(Value);

impl arcadia_store::Record for Raw {}

pub fn vault_properties() -> Value {
    json!({
        "tenantId": TENANT,
        "sku": { "family": "A", "name": "standard" },
        "accessPolicies": [],
        "enableRbacAuthorization": true,
        "enableSoftDelete": true,
        "softDeleteRetentionInDays": 7,
        "networkAcls": { "bypass": "AzureServices", "defaultAction": "Allow" },
    })
}
