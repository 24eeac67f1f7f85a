//! A site in memory: directory, sign-in, resource manager and machines, put together as the binary does.

use std::sync::{Arc, OnceLock, RwLock};

use arcadia_arm::{
    Arm, ArmNames, PrincipalInfo, PrincipalSource, PrincipalType, TenantInfo, arm_ops, registered,
};
use arcadia_crypto::{KeyRing, KeySet, RsaBits, RsaKeyPair, SystemEntropy, TokenVerifier, b64, b64url};
use arcadia_directory::{Directory, DirectoryNames, Founded, Founding, Login, login_ops};
use arcadia_kernel::{
    Authenticator, Caller, CallerKind, Decider, Decision, DenyReason, Dispatcher, Endpoint, Entropy,
    EntropyExt as _, FixedClock, Gate, Incoming, Limits, Method, Plane, Question, Reason, TokenFault,
    VerifiedToken, full_body,
};
use arcadia_machines::{HIS_AUDIENCE, His, Machines, his_ops};
use arcadia_races::TempDir;
use arcadia_store::Store;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use arcadia_interleaved::Interleaved;

pub const NOW: i64 = 1_800_000_000;
pub const SUBSCRIPTION: Uuid = Uuid::from_u128(0x5001);
const ARM_RESOURCE: &str = "https://management.azure.com/";

struct People(Arc<Directory>);

impl PrincipalSource for People {
    fn principal(&self, id: Uuid) -> Option<PrincipalInfo> {
        let facts = self.0.principal(id)?;
        let kind = match facts.kind {
            CallerKind::User => PrincipalType::User,
            _ => PrincipalType::ServicePrincipal,
        };
        Some(PrincipalInfo { kind, display_name: facts.display_name })
    }

    fn groups_of(&self, id: Uuid) -> Option<std::collections::HashSet<Uuid>> {
        self.0.groups_of(id)
    }

    fn tenant(&self) -> TenantInfo {
        let tenant = self.0.tenant().unwrap();
        TenantInfo {
            id: tenant.id,
            display_name: tenant.display_name.clone(),
            default_domain: tenant.domain.clone(),
        }
    }
}

/// Exists, and is allowed by a role.
struct Decides(Arc<Directory>, Arc<dyn Decider>);

impl Decider for Decides {
    fn decide(&self, question: &Question<'_>) -> Decision {
        match (self.0.principal(question.caller.object_id), question.plane) {
            (None, _) => Decision::Denied(DenyReason::NoSuchPrincipal),
            (_, Plane::None) => Decision::Denied(DenyReason::NoAssignment),
            (_, Plane::Directory) => self.0.decide(question),
            _ => self.1.decide(question),
        }
    }
}

type Amend = Box<dyn Fn(&mut Caller) + Send + Sync>;

/// The published keys, once there are any.
#[derive(Default)]
struct Published {
    verifier: OnceLock<TokenVerifier>,
    /// What a token is taken to say, where it is to be more than a directory puts into one.
    amend: RwLock<Option<Amend>>,
}

impl Authenticator for Published {
    fn verify(&self, token: &str, now: i64) -> Result<VerifiedToken, TokenFault> {
        let mut verified = self.verifier.get().ok_or(TokenFault::UnknownKey)?.verify(token, now)?;
        if let Some(amend) = &*self.amend.read().unwrap() {
            amend(Arc::make_mut(&mut verified.caller));
        }
        Ok(verified)
    }
}

pub struct World {
    pub clock: Arc<FixedClock>,
    pub directory: Arc<Directory>,
    pub founded: Founded,
    store: Store,
    services: Services,
    /// What the store is in, where races want it on disk.
    _folder: Option<TempDir>,
}

/// What a start of the site opens.
struct Services {
    directory: Arc<Directory>,
    arm: Arc<Arm>,
    gate: Arc<Gate>,
    published: Arc<Published>,
    login: Arc<dyn Endpoint>,
    management: Arc<dyn Endpoint>,
    his: Arc<dyn Endpoint>,
}

impl Services {
    async fn open(store: &Store, clock: &Arc<FixedClock>) -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let names = DirectoryNames::azure();
        let directory = Directory::open(store.clone(), clock.clone(), entropy.clone(), names).await.unwrap();
        let people = Arc::new(People(directory.clone()));
        let machines = Machines::open(store.clone(), directory.clone(), clock.clone()).await.unwrap();
        let kinds = vec![registered(machines.clone())];
        let names = ArmNames::azure();
        let arm =
            Arm::open(store.clone(), names, people, kinds, clock.clone(), entropy.clone()).await.unwrap();
        let published = Arc::new(Published::default());
        let gate = Arc::new(Gate {
            authenticator: published.clone(),
            decider: Arc::new(Decides(directory.clone(), arm.decider())),
            audit: store.audit_sink(),
            clock: clock.clone(),
            entropy,
            limits: Limits::default(),
        });
        let his = His::new(machines, "https://login.microsoftonline.com/common".into(), HIS_AUDIENCE.into());
        let login = Arc::new(Login::new(directory.clone()));
        Self {
            login: Arc::new(Dispatcher::new(login, login_ops(), gate.clone())),
            management: Arc::new(Dispatcher::new(arm.clone(), arm_ops(&arm), gate.clone())),
            his: Arc::new(Dispatcher::new(his, his_ops(), gate.clone())),
            directory,
            arm,
            gate,
            published,
        }
    }

    /// Once the directory is founded.
    fn trust_published_keys(&self) {
        let keys = KeySet::from_jwks(&self.directory.jwks()).unwrap();
        let verifier = TokenVerifier::new(keys, self.directory.issuers()).unwrap();
        assert!(self.published.verifier.set(verifier).is_ok());
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("")
    }
}

/// A key pair of this test run; making one takes a while.
pub fn key(number: usize) -> RsaKeyPair {
    static KEYS: OnceLock<Vec<RsaKeyPair>> = OnceLock::new();
    KEYS.get_or_init(|| (0..2).map(|_| RsaKeyPair::generate(RsaBits::Bits2048).unwrap()).collect())[number]
        .clone()
}

pub fn machine(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/{name}"
    )
}

/// What `azcmagent connect` sends.
pub fn body(vm_id: Uuid, key: &RsaKeyPair) -> Value {
    json!({
        "location": "uksouth",
        "tags": { "platform": "none" },
        "identity": { "type": "SystemAssigned" },
        "properties": {
            "vmId": vm_id,
            "clientPublicKey": b64(&key.public().to_pkcs1_der()),
            "osName": "linux",
            "osType": "linux",
            "agentVersion": "1.0",
            "detectedProperties": { "coreCount": "2" },
        },
    })
}

impl World {
    pub async fn new() -> Self {
        let clock = Arc::new(FixedClock::at_epoch_seconds(NOW));
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let folder = arcadia_races::folder();
        let store = match &folder {
            None => Store::in_memory(clock.clone(), entropy),
            Some(folder) => {
                let ring = KeyRing::generate(&*entropy).unwrap();
                Store::open(folder.path(), ring, clock.clone(), entropy).unwrap()
            }
        };
        Self::over(store, clock, folder).await
    }

    /// With a hand on when its rows are read.
    pub async fn held_up() -> (Self, Arc<Interleaved>) {
        let (store, backend) = Interleaved::store(NOW).await;
        let clock = Arc::new(FixedClock::at_epoch_seconds(NOW));
        (Self::over(store, clock, None).await, backend)
    }

    async fn over(store: Store, clock: Arc<FixedClock>, folder: Option<TempDir>) -> Self {
        let services = Services::open(&store, &clock).await;
        let Services { directory, arm, gate, .. } = &services;
        let founded =
            directory.found(gate.as_system(Reason::Founding), Founding::default()).await.unwrap().unwrap();
        services.trust_published_keys();
        let first = arcadia_arm::Founding {
            tenant_id: founded.tenant_id,
            subscription_id: SUBSCRIPTION,
            display_name: "First".into(),
            owners: vec![(founded.service_principal_object_id, PrincipalType::ServicePrincipal)],
        };
        arm.found(gate.as_system(Reason::Founding), first).await.unwrap();
        let directory = directory.clone();
        let world = Self { clock, directory, founded, store, services, _folder: folder };
        let group = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg");
        let owner = world.owner().await;
        world.arm(&owner, Method::PUT, &group, json!({ "location": "uksouth" })).await.is(201);
        world
    }

    /// Everything but its rows is new.
    pub async fn restart(&mut self) {
        self.services = Services::open(&self.store, &self.clock).await;
        self.services.trust_published_keys();
        self.directory = self.services.directory.clone();
    }

    /// From now on tokens are taken to say something else than they do.
    pub fn amend_tokens(&self, amend: impl Fn(&mut Caller) + Send + Sync + 'static) {
        *self.services.published.amend.write().unwrap() = Some(Box::new(amend));
    }

    async fn send(&self, endpoint: &Arc<dyn Endpoint>, host: &str, request: http::Request<String>) -> Answer {
        let (head, body) = request.into_parts();
        let origin = format!("https://{host}");
        let body = full_body(body);
        let incoming = Incoming { head, body, host: host.into(), origin, remote: None };
        let (parts, body) = endpoint.clone().serve(incoming).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn token(&self, fields: &[(&str, &str)]) -> Answer {
        let form: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", value.replace('+', "%2B").replace('&', "%26")))
            .collect();
        let request = http::Request::post(format!("/{}/oauth2/token", self.founded.tenant_id))
            .body(form.join("&"))
            .unwrap();
        self.send(&self.services.login, "login.microsoftonline.com", request).await
    }

    pub async fn owner_token(&self, resource: &str) -> String {
        let app_id = self.founded.app_id.to_string();
        let answer = self
            .token(&[
                ("grant_type", "client_credentials"),
                ("client_id", &app_id),
                ("client_secret", &self.founded.client_secret),
                ("resource", resource),
            ])
            .await
            .is(200);
        answer.body["access_token"].as_str().unwrap().to_owned()
    }

    pub async fn owner(&self) -> String {
        self.owner_token(ARM_RESOURCE).await
    }

    /// The token endpoint's answer to an assertion signed with `key` for `client_id`.
    pub async fn assertion(&self, key: &RsaKeyPair, client_id: &str, resource: &str) -> Answer {
        let now = arcadia_kernel::Clock::epoch_seconds(&*self.clock);
        let audience = format!("https://login.microsoftonline.com/{}/oauth2/token", self.founded.tenant_id);
        let header = json!({ "alg": "RS256", "typ": "JWT" });
        let claims = json!({
            "aud": audience, "iss": client_id, "sub": client_id, "jti": SystemEntropy.uuid(),
            "iat": now, "nbf": now, "exp": now + 300,
        });
        let signed =
            format!("{}.{}", b64url(header.to_string().as_bytes()), b64url(claims.to_string().as_bytes()));
        let signature = b64url(&key.sign_rs256(signed.as_bytes()).unwrap());
        self.token(&[
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &format!("{signed}.{signature}")),
            ("resource", resource),
        ])
        .await
    }

    pub async fn arm(&self, token: &str, method: Method, path: &str, body: Value) -> Answer {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{path}?api-version=2024-07-10"))
            .header("authorization", format!("Bearer {token}"))
            .body(if body.is_null() { String::new() } else { body.to_string() })
            .unwrap();
        self.send(&self.services.management, "management.azure.com", request).await
    }

    pub async fn connect(&self, name: &str, vm_id: Uuid, key: &RsaKeyPair) -> Answer {
        self.arm(&self.owner().await, Method::PUT, &machine(name), body(vm_id, key)).await
    }

    pub async fn heartbeat(&self, token: Option<&str>, body: &str) -> Answer {
        self.his(Method::POST, token, body).await
    }

    pub async fn his(&self, method: Method, token: Option<&str>, body: &str) -> Answer {
        let mut request = http::Request::builder().method(method).uri("/machines/heartbeat");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body.to_owned()).unwrap();
        self.send(&self.services.his, "gbl.his.arc.azure.com", request).await
    }

    /// A token of a connected machine, and its client id.
    pub async fn machine_token(&self, connected: &Answer, key: &RsaKeyPair) -> String {
        let client_id = connected.headers["x-ms-arcadia-identity-client-id"].to_str().unwrap();
        let answer = self.assertion(key, client_id, HIS_AUDIENCE).await.is(200);
        answer.body["access_token"].as_str().unwrap().to_owned()
    }
}
