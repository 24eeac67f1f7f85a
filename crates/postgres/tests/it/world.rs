//! A resource manager with database servers, in memory but for the servers themselves.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arcadia_arm::{
    Arm, ArmNames, Founding, PrincipalInfo, PrincipalSource, PrincipalType, RESOURCES, Resource, TenantInfo,
    arm_ops, registered,
};
use arcadia_crypto::{SiteCa, SystemEntropy};
use arcadia_kernel::{
    AuditEvent, AuditFault, AuditSink, Authenticator, Caller, CallerKind, Decider, Decision, DenyReason,
    Dispatcher, Endpoint, Entropy, FixedClock, Gate, Incoming, Limits, Method, Progress, Question, Reason,
    TokenFault, VerifiedToken, full_body,
};
use arcadia_postgres::{Account, Gateway, Installation, Place, Postgres, PostgresNames, Trust, kinds};
use arcadia_store::{Change, Store};
use http_body_util::BodyExt as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

pub const NOW: i64 = 1_800_000_000;
pub const TENANT: Uuid = Uuid::from_u128(0x7001);
pub const SUBSCRIPTION: Uuid = Uuid::from_u128(0x5001);
pub const OWNER: Uuid = Uuid::from_u128(1);
pub const NINA: Uuid = Uuid::from_u128(2);
pub const TEAM: Uuid = Uuid::from_u128(3);
pub const GONE: Uuid = Uuid::from_u128(4);
pub const PASSWORD: &str = "Awesome-Antelope!";
pub const AUDIENCE: &str = "https://ossrdbms-aad.database.windows.net";

struct People;

impl PrincipalSource for People {
    fn principal(&self, id: Uuid) -> Option<PrincipalInfo> {
        let kind = if id == TEAM { PrincipalType::Group } else { PrincipalType::User };
        [OWNER, NINA, TEAM, GONE]
            .contains(&id)
            .then(|| PrincipalInfo { kind, display_name: "somebody".into() })
    }

    fn groups_of(&self, id: Uuid) -> Option<HashSet<Uuid>> {
        Some(if id == NINA { HashSet::from([TEAM]) } else { HashSet::new() })
    }

    fn tenant(&self) -> TenantInfo {
        TenantInfo { id: TENANT, display_name: "Test".into(), default_domain: "arcadia.example".into() }
    }
}

/// The owner may do everything; `GONE` no longer exists.
struct Decides;

impl Decider for Decides {
    fn decide(&self, question: &Question<'_>) -> Decision {
        match question.caller.object_id {
            OWNER => Decision::Allowed { by: "test".into() },
            GONE => Decision::Denied(DenyReason::NoSuchPrincipal),
            _ => Decision::Denied(DenyReason::NoAssignment),
        }
    }
}

/// Tokens are `object id|audience|expiry`.
struct Tokens;

impl Authenticator for Tokens {
    fn verify(&self, token: &str, now: i64) -> Result<VerifiedToken, TokenFault> {
        let parts: Vec<&str> = token.split('|').collect();
        let [id, audience, expires] = parts[..] else { return Err(TokenFault::Malformed) };
        let expires_at: i64 = expires.parse().map_err(|_| TokenFault::Malformed)?;
        if expires_at <= now {
            return Err(TokenFault::Expired);
        }
        let mut caller = Caller::anonymous();
        caller.kind = CallerKind::User;
        caller.tenant_id = TENANT;
        caller.object_id = id.parse().map_err(|_| TokenFault::Malformed)?;
        caller.name = "nina@arcadia.example".into();
        Ok(VerifiedToken { caller: Arc::new(caller), audience: audience.into(), expires_at })
    }
}

pub fn token(id: Uuid, audience: &str, expires: i64) -> String {
    format!("{id}|{audience}|{expires}")
}

/// The site's records of logins, until they cannot be written.
pub struct Records {
    written: Arc<dyn AuditSink>,
    pub broken: AtomicBool,
}

#[async_trait::async_trait]
impl AuditSink for Records {
    async fn append(&self, event: AuditEvent) -> Result<(), AuditFault> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(AuditFault("the disk is full".into()));
        }
        self.written.append(event).await
    }
}

pub struct World {
    pub gateway: SocketAddr,
    pub postgres: Arc<Postgres>,
    pub store: Store,
    /// How long whoever keeps rows in memory is behind the store.
    pub behind_milliseconds: Arc<AtomicU64>,
    /// What clients' addresses are taken for.
    pub remote: Arc<Mutex<Option<std::net::IpAddr>>>,
    pub gate: Arc<Gate>,
    pub records: Arc<Records>,
    management: Arc<dyn Endpoint>,
    pub served: Arc<Gateway>,
    pub folder: tempfile::TempDir,
    _arm: Arc<Arm>,
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

#[allow(clippy::disallowed_methods, reason = "the newest PostgreSQL on the caller's search path is tested")]
fn place(folder: PathBuf) -> Place {
    let is_root = rustix::process::geteuid().is_root();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let account = passwd.lines().find(|line| line.starts_with("postgres:")).filter(|_| is_root).map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        Account { uid: fields[2].parse().unwrap(), gid: fields[3].parse().unwrap() }
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installation = Installation::find(&std::env::split_paths(&path).collect::<Vec<_>>());
    assert!(installation.is_some(), "these tests need PostgreSQL: apt-get install postgresql");
    Place { folder, account, installation }
}

pub fn group() -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg")
}

pub fn flexible(name: &str) -> String {
    format!("{}/providers/Microsoft.DBforPostgreSQL/flexibleServers/{name}", group())
}

pub fn single(name: &str) -> String {
    format!("{}/providers/Microsoft.DBforPostgreSQL/servers/{name}", group())
}

pub fn flexible_body() -> Value {
    json!({
        "location": "uksouth",
        "sku": { "name": "Standard_B1ms", "tier": "Burstable" },
        "properties": {
            "createMode": "Create",
            "administratorLogin": "arcadmin",
            "administratorLoginPassword": PASSWORD,
            "authConfig": { "activeDirectoryAuth": "Enabled", "passwordAuth": "Enabled" },
            "network": { "publicNetworkAccess": "Enabled" },
        },
    })
}

/// What `az postgres up` sends.
pub fn single_body(tls: &str) -> Value {
    json!({
        "location": "uksouth",
        "sku": { "name": "GP_Gen5_2" },
        "properties": {
            "version": "10", "sslEnforcement": tls, "storageProfile": { "geoRedundantBackup": "Disabled" },
            "createMode": "Default", "administratorLogin": "arcadmin", "administratorLoginPassword": PASSWORD,
        },
    })
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(FixedClock::at_epoch_seconds(NOW));
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let store = Store::in_memory(clock.clone(), entropy.clone());
        let behind_milliseconds = Arc::new(AtomicU64::new(0));
        let behind = behind_milliseconds.clone();
        store.observe(RESOURCES, move |_: &[Change<Resource>]| {
            std::thread::sleep(Duration::from_millis(behind.load(Ordering::SeqCst)));
        });
        let place = place(folder.path().join("postgres"));
        let (names, people) = (PostgresNames::azure(), Arc::new(People));
        let postgres =
            Postgres::open(store.clone(), names, people.clone(), place, entropy.clone()).await.unwrap();
        let mut kinds = kinds(&postgres);
        kinds.push(registered(Arc::new(crate::slow::Things::default())));
        let names = ArmNames::azure();
        let arm =
            Arm::open(store.clone(), names, people, kinds, clock.clone(), entropy.clone()).await.unwrap();
        let gate = Arc::new(Gate {
            authenticator: Arc::new(Tokens),
            decider: Arc::new(Decides),
            audit: store.audit_sink(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            limits: Limits::default(),
        });
        let founding = Founding {
            tenant_id: TENANT,
            subscription_id: SUBSCRIPTION,
            display_name: "First".into(),
            owners: vec![(OWNER, PrincipalType::User)],
        };
        arm.found(gate.as_system(Reason::Founding), founding).await.unwrap();
        arm.start(gate.clone()).await;
        let records = Arc::new(Records { written: gate.audit.clone(), broken: AtomicBool::new(false) });
        let trust = Trust {
            authenticator: gate.authenticator.clone(),
            decider: gate.decider.clone(),
            audit: records.clone(),
            clock,
            entropy,
        };
        let ca = SiteCa::create("test", &["postgres.database.azure.com"], &[], system_seconds(), 1).unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.certificate_pem()).unwrap();
        let served = Gateway::new(postgres.clone(), certificate(&ca), trust);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = listener.local_addr().unwrap();
        let remote = Arc::new(Mutex::new(None));
        let (seen, serving) = (remote.clone(), served.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (served, remote) = (serving.clone(), *seen.lock().unwrap());
                tokio::spawn(async move { served.serve(stream, remote, &Progress::begin()).await });
            }
        });
        let management = Arc::new(Dispatcher::new(arm.clone(), arm_ops(&arm), gate.clone()));
        let world = Self {
            gateway,
            postgres,
            store,
            behind_milliseconds,
            remote,
            gate,
            records,
            management,
            served,
            folder,
            _arm: arm,
        };
        world.arm(Method::PUT, &group(), json!({ "location": "uksouth" })).await.is(201);
        world
    }

    pub async fn arm(&self, method: Method, path: &str, body: Value) -> Answer {
        self.arm_as(OWNER, method, path, None, body).await
    }

    /// What somebody is answered, who may say more in a header.
    pub async fn arm_as(
        &self,
        caller: Uuid,
        method: Method,
        path: &str,
        header: Option<(&str, &str)>,
        body: Value,
    ) -> Answer {
        let token = token(caller, "https://management.azure.com/", NOW + 3600);
        let separator = if path.contains('?') { '&' } else { '?' };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{path}{separator}api-version=2025-08-01"))
            .header("authorization", format!("Bearer {token}"));
        let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let (head, ()) = request.body(()).unwrap().into_parts();
        let host = "management.azure.com".to_owned();
        let body = full_body(if body.is_null() { String::new() } else { body.to_string() });
        let incoming = Incoming { head, body, origin: format!("https://{host}"), host, remote: None };
        let (parts, body) = self.management.clone().serve(incoming).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Sends a change that takes time, and waits for its end. The last status body.
    pub async fn change(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.arm(method, path, body).await.is(202);
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(
            answer.headers["location"].to_str().unwrap().contains("/locations/uksouth/operationResults/")
        );
        assert!(answer.body["operation"].is_string() && answer.body["startTime"].is_string());
        let url = answer.headers["azure-asyncoperation"].to_str().unwrap();
        let path =
            url.strip_prefix("https://management.azure.com").unwrap().split('?').next().unwrap().to_owned();
        assert!(path.contains("/locations/uksouth/azureAsyncOperation/"), "{path}");
        for _ in 0..600 {
            let status = self.arm(Method::GET, &path, Value::Null).await.is(200).body;
            if status["status"] != "InProgress" {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the operation does not end");
    }

    #[track_caller]
    pub fn succeeded(status: &Value) {
        assert_eq!(status["status"], "Succeeded", "{status}");
    }

    pub async fn server(&self, path: &str, body: Value) {
        Self::succeeded(&self.change(Method::PUT, path, body).await);
    }

    pub async fn admit(&self, server: &str, start: &str, end: &str) {
        let rule = json!({ "properties": { "startIpAddress": start, "endIpAddress": end } });
        Self::succeeded(&self.change(Method::PUT, &format!("{server}/firewallRules/r"), rule).await);
    }

    pub async fn psql(&self, password: &str, connection: &str, sql: &str) -> Output {
        let mut command = tokio::process::Command::new("psql");
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/local/bin").env("PGPASSWORD", password);
        command
            .env("PGHOSTADDR", self.gateway.ip().to_string())
            .env("PGPORT", self.gateway.port().to_string());
        command.env("PGSSLROOTCERT", self.folder.path().join("ca.pem")).env("PGCONNECT_TIMEOUT", "20");
        command.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, connection]);
        command.output().await.unwrap()
    }

    /// What the statement answers.
    #[track_caller]
    pub fn says(output: &Output) -> String {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// That it fails, with these words; versions of PostgreSQL write some of them in capitals.
    #[track_caller]
    pub fn fails(output: &Output, words: &str) {
        let said = String::from_utf8_lossy(&output.stderr);
        let has_words = said.to_lowercase().contains(&words.to_lowercase());
        assert!(!output.status.success() && has_words, "{said}");
    }
}

/// Certificates are checked by clients, whose clock is the system's.
fn system_seconds() -> i64 {
    let output = std::process::Command::new("date").arg("+%s").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn certificate(ca: &SiteCa) -> Arc<rustls::ServerConfig> {
    let names = PostgresNames::azure().wildcard();
    let issued = ca.issue_server(&[&names], &[], system_seconds(), 30).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.key_pkcs8_der.to_vec()));
    let chain = issued.chain_der.into_iter().map(CertificateDer::from).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// Where a row is found in lists.
pub fn names(list: &Value) -> Vec<String> {
    let rows = list["value"].as_array().unwrap();
    let mut all: HashMap<String, ()> = HashMap::new();
    for row in rows {
        all.insert(row["name"].as_str().unwrap().to_owned(), ());
    }
    let mut all: Vec<String> = all.into_keys().collect();
    all.sort();
    all
}
