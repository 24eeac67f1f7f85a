//! One site in memory.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, RwLock};

use arcadia_arm::{
    Arm, ArmNames, Desired, Founding, NameRule, Plan, PrincipalInfo, PrincipalSource, PrincipalType,
    Resource, ResourceKind, TenantInfo, arm_ops, registered,
};
use arcadia_crypto::{KeyRing, SystemEntropy};
use arcadia_kernel::{
    Authenticator, Body, Caller, CallerKind, Decision, DenyReason, Dispatcher, Endpoint as _, Entropy, Fault,
    FixedClock, Gate, HeaderMap, Incoming, Limits, Method, OpInfo, Question, Reason, StatusCode, TokenFault,
    VerifiedToken, full_body,
};
use arcadia_races::TempDir;
use arcadia_store::{Record, Store, Table};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::operations::{Engines, Wheels};

pub const SUBSCRIPTION: Uuid = Uuid::from_u128(0x5001);
pub const TENANT: Uuid = Uuid::from_u128(0x7001);
pub const OWNER: Uuid = Uuid::from_u128(0x0001);
pub const NINA: Uuid = Uuid::from_u128(0x0002);
pub const MACHINE: Uuid = Uuid::from_u128(0x0003);
pub const STRANGER: Uuid = Uuid::from_u128(0x0004);
pub const GROUP: Uuid = Uuid::from_u128(0x0010);
pub const V: &str = "api-version=2024-11-01";

pub const WIDGET_INDEX: Table<str, WidgetIndex> = Table::new("test/widgets");

#[derive(serde::Serialize, serde::Deserialize)]
pub struct WidgetIndex {
    pub size: i64,
}

impl Record for WidgetIndex {}

/// A kind with rows of its own beside the resource, and a deletion that can refuse or fail.
pub struct Widget {
    /// How many deletions still work; then the widget's backend is down.
    pub deletions_left: AtomicI64,
    /// Whoever holds it holds deletions up.
    pub held: tokio::sync::Mutex<()>,
}

#[async_trait::async_trait]
impl ResourceKind for Widget {
    const TYPE: &'static str = "Test.Widgets/widgets";
    const API_VERSIONS: &'static [&'static str] = &["2024-01-01", "2023-01-01-preview"];
    const NAME_RULE: NameRule = NameRule {
        chars_min: 3,
        chars_max: 24,
        pattern: "^[a-zA-Z0-9-]{3,24}$",
        check: |name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
    };

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        let size = desired.properties.get("size").and_then(Value::as_i64).unwrap_or(1);
        if size < 0 {
            return Err(Fault::bad_request("InvalidSize", "The size must not be negative."));
        }
        let name = plan.id.name().to_lowercase();
        plan.batch.put(WIDGET_INDEX, name.as_str(), &WidgetIndex { size })?;
        let locked = desired.properties.get("locked").cloned().unwrap_or(json!(false));
        Ok(Resource::planned(
            plan,
            current,
            desired,
            json!({ "size": size, "locked": locked, "key": "inner" }),
        ))
    }

    async fn delete(&self, plan: &mut Plan<'_>, current: &Resource) -> Result<(), Fault> {
        if current.properties["locked"] == json!(true) {
            return Err(Fault::conflict("WidgetLocked", "The widget is locked."));
        }
        if self.deletions_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(Fault::unavailable("The widgets' backend is down."));
        }
        drop(self.held.lock().await);
        plan.batch.delete(WIDGET_INDEX, current.id.name().to_lowercase().as_str());
        Ok(())
    }

    fn properties(&self, resource: &Resource, api_version: &str) -> Value {
        let mut shown = json!({ "provisioningState": "Succeeded", "size": resource.properties["size"] });
        if api_version >= "2024-01-01" {
            shown["locked"] = resource.properties["locked"].clone();
        }
        shown
    }
}

/// A nested kind without a location.
pub struct Part;

#[async_trait::async_trait]
impl ResourceKind for Part {
    const TYPE: &'static str = "Test.Widgets/widgets/parts";
    const API_VERSIONS: &'static [&'static str] = &["2024-01-01"];
    const NAME_RULE: NameRule =
        NameRule { chars_min: 1, chars_max: 10, pattern: "^.{1,10}$", check: |_| true };
    const LOCATED: bool = false;

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        let properties = desired.properties.clone();
        Ok(Resource::planned(plan, current, desired, properties))
    }

    async fn delete(&self, _: &mut Plan<'_>, _: &Resource) -> Result<(), Fault> {
        Ok(())
    }

    fn properties(&self, resource: &Resource, _: &str) -> Value {
        resource.properties.clone()
    }

    fn put_status(&self, _: bool) -> StatusCode {
        StatusCode::OK
    }
}

#[derive(Default)]
pub struct People {
    pub groups: RwLock<HashMap<Uuid, HashSet<Uuid>>>,
    pub disabled: RwLock<HashSet<Uuid>>,
    /// Who has the directory's role of that name.
    pub global_administrators: RwLock<HashSet<Uuid>>,
    /// Who loses it when it was asked for once.
    pub resigning: RwLock<HashSet<Uuid>>,
}

impl PrincipalSource for People {
    fn principal(&self, id: Uuid) -> Option<PrincipalInfo> {
        let kind = match id {
            OWNER | NINA | STRANGER => PrincipalType::User,
            MACHINE => PrincipalType::ServicePrincipal,
            GROUP => PrincipalType::Group,
            _ => return None,
        };
        Some(PrincipalInfo { kind, display_name: id.to_string() })
    }

    fn groups_of(&self, id: Uuid) -> Option<HashSet<Uuid>> {
        self.principal(id)?;
        if self.disabled.read().unwrap().contains(&id) {
            return None;
        }
        Some(self.groups.read().unwrap().get(&id).cloned().unwrap_or_default())
    }

    fn tenant(&self) -> TenantInfo {
        TenantInfo { id: TENANT, display_name: "Test".into(), default_domain: "example.net".into() }
    }

    fn decide_by_directory_role(&self, question: &Question<'_>) -> Decision {
        let caller = question.caller.object_id;
        let mut administrators = self.global_administrators.write().unwrap();
        let is_one = administrators.contains(&caller);
        if self.resigning.read().unwrap().contains(&caller) {
            administrators.remove(&caller);
        }
        if is_one {
            Decision::Allowed { by: "Global Administrator".into() }
        } else {
            Decision::Denied(DenyReason::NoAssignment)
        }
    }
}

/// A token is an object id, or a fault's name.
struct Tokens;

impl Authenticator for Tokens {
    fn verify(&self, token: &str, now: i64) -> Result<VerifiedToken, TokenFault> {
        let (id, audience) = token.split_once('@').unwrap_or((token, "https://management.azure.com/"));
        let object_id = match id {
            "expired" => return Err(TokenFault::Expired),
            "forged" => return Err(TokenFault::Signature),
            "foreign" => {
                let fault = TokenFault::Issuer { expected: vec!["ours".into()], found: "theirs\r\n".into() };
                return Err(fault);
            }
            _ => Uuid::try_parse(id).map_err(|_| TokenFault::Malformed)?,
        };
        let caller = Caller {
            kind: if object_id == MACHINE { CallerKind::ManagedIdentity } else { CallerKind::User },
            tenant_id: TENANT,
            object_id,
            name: format!("{}@example.net", object_id.simple()),
            ..Caller::anonymous()
        };
        Ok(VerifiedToken { caller: Arc::new(caller), audience: audience.into(), expires_at: now + 60 })
    }
}

pub struct Site {
    pub store: Store,
    pub arm: Arc<Arm>,
    pub gate: Arc<Gate>,
    pub people: Arc<People>,
    pub widget: Arc<Widget>,
    pub engines: Arc<Engines>,
    pub clock: Arc<FixedClock>,
    endpoint: Arc<Dispatcher<Arm>>,
    /// What the store is in, where races want it on disk.
    folder: Option<TempDir>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("")
    }

    pub fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or("")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn names(&self) -> Vec<&str> {
        let items = self.body["value"].as_array().unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap()).collect()
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }
}

impl Site {
    pub async fn new() -> Self {
        let clock = Arc::new(FixedClock::at_epoch_seconds(1_700_000_000));
        let folder = arcadia_races::folder();
        let store = match &folder {
            None => Store::in_memory(clock.clone(), Arc::new(SystemEntropy)),
            Some(folder) => {
                let ring = KeyRing::generate(&SystemEntropy).unwrap();
                Store::open(folder.path(), ring, clock.clone(), Arc::new(SystemEntropy)).unwrap()
            }
        };
        let people = Arc::new(People::default());
        Self { folder, ..Self::over(store, people, clock, i64::MAX).await }
    }

    /// Another run of the same site: what is not in the store is gone.
    pub async fn restarted(self) -> Self {
        let Self { store, people, clock, arm, endpoint, gate, folder, .. } = self;
        drop((arm, endpoint, gate));
        Self { folder, ..Self::over(store, people, clock, i64::MAX).await }
    }

    pub async fn over(store: Store, people: Arc<People>, clock: Arc<FixedClock>, deletions: i64) -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let widget = Arc::new(Widget { deletions_left: AtomicI64::new(deletions), held: Default::default() });
        let engines = Arc::new(Engines::new());
        let mut kinds = vec![registered(widget.clone()), registered(Arc::new(Part))];
        kinds.extend([registered(engines.clone()), registered(Arc::new(Wheels))]);
        let directory: Arc<dyn PrincipalSource> = people.clone();
        let arm =
            Arm::open(store.clone(), ArmNames::azure(), directory, kinds, clock.clone(), entropy.clone())
                .await
                .unwrap();
        let gate = Arc::new(Gate {
            authenticator: Arc::new(Tokens),
            decider: arm.decider(),
            audit: store.audit_sink(),
            clock: clock.clone(),
            entropy,
            limits: Limits::default(),
        });
        let founding = Founding {
            tenant_id: TENANT,
            subscription_id: SUBSCRIPTION,
            display_name: "First".into(),
            owners: vec![(OWNER, PrincipalType::User)],
        };
        arm.found(gate.as_system(Reason::Founding), founding).await.unwrap();
        let endpoint = Arc::new(Dispatcher::new(arm.clone(), arm_ops(&arm), gate.clone()));
        Self { store, arm, gate, people, widget, engines, clock, endpoint, folder: None }
    }

    pub fn catalogue(&self) -> Vec<OpInfo> {
        self.endpoint.catalogue()
    }

    pub async fn send(&self, request: http::Request<String>) -> Answer {
        self.send_streamed(request.map(full_body)).await
    }

    pub async fn send_streamed(&self, request: http::Request<Body>) -> Answer {
        let (head, body) = request.into_parts();
        let incoming = Incoming {
            head,
            body,
            host: "management.azure.com".into(),
            origin: "https://management.azure.com".into(),
            remote: None,
        };
        let response = self.endpoint.clone().serve(incoming).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn call(&self, who: Uuid, method: Method, path: &str, body: Value) -> Answer {
        let path = path.replace(' ', "%20");
        let version = if path.contains("api-version") {
            ""
        } else if path.contains('?') {
            "&"
        } else {
            "?"
        };
        let uri = if version.is_empty() { path } else { format!("{path}{version}{V}") };
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header("authorization", format!("Bearer {who}"))
            .body(if body.is_null() { String::new() } else { body.to_string() })
            .unwrap();
        self.send(request).await
    }

    pub async fn get(&self, who: Uuid, path: &str) -> Answer {
        self.call(who, Method::GET, path, Value::Null).await
    }

    pub async fn put(&self, who: Uuid, path: &str, body: Value) -> Answer {
        self.call(who, Method::PUT, path, body).await
    }

    pub async fn delete(&self, who: Uuid, path: &str) -> Answer {
        self.call(who, Method::DELETE, path, Value::Null).await
    }

    pub async fn group(&self, name: &str) -> String {
        let path = group(name);
        let answer = self.put(OWNER, &path, json!({ "location": "uksouth" })).await;
        assert!(answer.status < 300, "{}", answer.body);
        path
    }

    pub async fn widget(&self, group: &str, name: &str) -> String {
        let path = format!("{group}/providers/Test.Widgets/widgets/{name}");
        self.put(OWNER, &path, json!({ "location": "UK South", "tags": { "team": name } })).await.is(201);
        path
    }

    /// Assigns a built-in role by name; the answer of the PUT.
    pub async fn assign(&self, by: Uuid, number: u128, who: Uuid, role: &str, scope: &str) -> Answer {
        let id = self.role_id(role).await;
        let path = assignment(scope, number);
        self.put(by, &path, json!({ "properties": { "roleDefinitionId": id, "principalId": who } })).await
    }

    pub async fn role_id(&self, name: &str) -> String {
        let path = format!(
            "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName eq '{name}'"
        );
        let found = self.get(OWNER, &path).await.is(200);
        found.body["value"][0]["id"].as_str().unwrap().to_owned()
    }
}

pub fn subscription() -> String {
    format!("/subscriptions/{SUBSCRIPTION}")
}

pub fn group(name: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}")
}

pub fn assignment(scope: &str, number: u128) -> String {
    let name = Uuid::from_u128(0xA000_0000 + number);
    format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}")
}
