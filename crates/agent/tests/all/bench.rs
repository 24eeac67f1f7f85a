//! A bench for the agent: the wire of a site, a root folder, a daemon on free ports, and real commands.

#[path = "../../../client/tests/site/mod.rs"]
pub mod site;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arcadia_agent::{Agent, AgentOptions, FactSources, HimdsLimits, Layout, Reach};
use arcadia_client::Proxy;
use arcadia_crypto::{RsaPublicKey, SystemEntropy, b64_decode, verify_assertion};
use arcadia_kernel::{Clock, Method};
use serde_json::{Value, json};
use site::{Answering, Seen, Site};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const TENANT: &str = "22222222-2222-2222-2222-222222222222";
pub const SUBSCRIPTION: &str = "11111111-1111-1111-1111-111111111111";
pub const CLIENT_ID: &str = "55555555-5555-5555-5555-555555555555";
pub const PRINCIPAL_ID: &str = "66666666-6666-6666-6666-666666666666";

/// What the site knows and what befell it.
#[derive(Default)]
pub struct Known {
    pub groups: HashMap<String, Value>,
    /// By lower-case path.
    pub machines: HashMap<String, Value>,
    pub seen: Vec<String>,
    pub heartbeats: Vec<Value>,
    pub tokens_issued: usize,
    pub device_polls: usize,
    /// Answer everything with this status.
    pub failing: Option<u16>,
    /// Answer heartbeats with this status.
    pub heartbeats_failing: Option<u16>,
    /// Leave out the header that tells the identity's application.
    pub without_client_id: bool,
    /// Refuse the machine's own key.
    pub refuse_key: bool,
    /// Refuse reading resource groups, as the onboarding role does.
    pub groups_hidden: bool,
    /// Where the list of subscriptions goes on.
    pub next_link: Option<String>,
    pub tags: Option<Value>,
}

pub struct FakeSite {
    pub site: Site,
    pub known: Arc<Mutex<Known>>,
}

impl FakeSite {
    pub async fn start(clock: Arc<dyn Clock>) -> Self {
        let known = Arc::new(Mutex::new(Known::default()));
        let shared = known.clone();
        let now = clock.epoch_seconds();
        let site =
            Site::start(now, move |seen| answer(&mut shared.lock().unwrap(), &seen, clock.epoch_seconds()))
                .await;
        Self { site, known }
    }

    pub fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }
}

fn error(status: u16, code: &str) -> Answering {
    site::json(status, json!({"error": {"code": code, "message": format!("{code} it is.")}}))
}

fn oauth_error(status: u16, code: &str, text: &str) -> Answering {
    site::json(status, json!({"error": code, "error_description": text}))
}

fn answer(known: &mut Known, seen: &Seen, now: i64) -> Answering {
    known.seen.push(format!("{} {} {}", seen.method, seen.host, seen.path));
    if let Some(status) = known.failing {
        return error(status, "Failing");
    }
    match seen.host.as_str() {
        "login.microsoftonline.com" => login(known, seen, now),
        "management.azure.com" => arm(known, seen),
        "gbl.his.arc.azure.com" => his(known, seen),
        other => panic!("{other}"),
    }
}

fn login(known: &mut Known, seen: &Seen, now: i64) -> Answering {
    if seen.path.ends_with("/devicecode") {
        let answer = json!({"user_code": "ABCD1234", "device_code": "d", "interval": 1, "expires_in": 900,
            "verification_uri": "https://microsoft.com/devicelogin",
            "message": "To sign in, use a web browser to open the page https://microsoft.com/devicelogin and enter the code ABCD1234 to authenticate."});
        return site::json(200, answer);
    }
    if seen.form("grant_type").contains("device_code") {
        known.device_polls += 1;
        if known.device_polls < 2 {
            return oauth_error(400, "authorization_pending", "AADSTS70016");
        }
        let claims = arcadia_crypto::b64url(json!({"tid": TENANT}).to_string().as_bytes());
        let token = format!("{}.{claims}.AA", arcadia_crypto::b64url(b"{}"));
        return site::json(200, json!({"access_token": token, "expires_in": 3599}));
    }
    if seen.path == format!("/{TENANT}/oauth2/v2.0/token") {
        assert_eq!(seen.form("scope"), "https://management.core.windows.net//.default");
        return match (seen.form("client_id").as_str(), seen.form("client_secret").as_str()) {
            ("onboarder", "s3cret") => {
                site::json(200, json!({"access_token": "arm-token", "expires_in": 3599}))
            }
            _ => oauth_error(401, "invalid_client", "AADSTS7000215: Invalid client secret provided."),
        };
    }
    assert_eq!(seen.path, format!("/{TENANT}/oauth2/token"));
    assertion(known, seen, now)
}

fn assertion(known: &mut Known, seen: &Seen, now: i64) -> Answering {
    assert_eq!(seen.form("client_id"), CLIENT_ID);
    let keys: Vec<RsaPublicKey> = known
        .machines
        .values()
        .map(|machine| b64_decode(machine["properties"]["clientPublicKey"].as_str().unwrap()).unwrap())
        .map(|der| RsaPublicKey::from_pkcs1_der(&der).unwrap())
        .collect();
    let audience = format!("https://login.microsoftonline.com/{TENANT}/oauth2/token");
    let verified = verify_assertion(&seen.form("client_assertion"), &keys, &[&audience], now);
    if known.refuse_key || verified.is_err() {
        return oauth_error(401, "invalid_client", "AADSTS700027: the assertion's signature is not valid.");
    }
    let resource = seen.form("resource");
    if resource.contains("nowhere") {
        return oauth_error(400, "invalid_resource", "AADSTS500011: The resource principal was not found.");
    }
    known.tokens_issued += 1;
    let token = format!("token-{}-for-{resource}", known.tokens_issued);
    site::json(
        200,
        json!({"access_token": token, "token_type": "Bearer", "expires_in": "86400",
        "expires_on": (now + 86_400).to_string(), "not_before": (now - 300).to_string(), "resource": resource}),
    )
}

fn arm(known: &mut Known, seen: &Seen) -> Answering {
    let bearer = seen.bearer();
    if bearer != "arm-token" && bearer.split('.').count() != 3 {
        return error(401, "InvalidAuthenticationToken");
    }
    assert!(seen.query.first("api-version").is_some());
    if seen.path == "/subscriptions" {
        if seen.query.first("$skiptoken").is_some() {
            let rest = [json!({"subscriptionId": SUBSCRIPTION, "displayName": "Far"})];
            return site::json(200, json!({ "value": rest }));
        }
        let all = json!({"nextLink": known.next_link, "value": [{"subscriptionId": SUBSCRIPTION, "displayName": "Lab"},
            {"subscriptionId": PRINCIPAL_ID, "displayName": "Twin"}, {"subscriptionId": CLIENT_ID, "displayName": "Twin"}]});
        return site::json(200, all);
    }
    let path = seen.path.to_lowercase();
    if path.contains("/machines/") { machine(known, seen, path) } else { group(known, seen, path) }
}

fn group(known: &mut Known, seen: &Seen, path: String) -> Answering {
    if known.groups_hidden {
        return error(403, "AuthorizationFailed");
    }
    if seen.method == Method::PUT {
        let body = seen.json();
        if body["location"] == "atlantis" {
            return error(400, "LocationNotAvailableForResourceGroup");
        }
        known.groups.insert(path.clone(), body);
        return site::json(201, json!({"id": seen.path}));
    }
    match known.groups.get(&path) {
        Some(_) => site::json(200, json!({"id": seen.path})),
        None => error(404, "ResourceGroupNotFound"),
    }
}

fn machine(known: &mut Known, seen: &Seen, path: String) -> Answering {
    match seen.method {
        Method::GET => match known.machines.get(&path) {
            Some(machine) => site::json(200, machine.clone()),
            None => error(404, "ResourceNotFound"),
        },
        Method::DELETE => match known.machines.remove(&path) {
            Some(_) => site::json(200, json!({})),
            None => site::json(204, json!({})),
        },
        _ => {
            let mut body = seen.json();
            if let Some(old) = known.machines.get(&path) {
                for name in ["vmId", "clientPublicKey"] {
                    if old["properties"][name] != body["properties"][name] {
                        return error(409, "HCRP409");
                    }
                }
            }
            body["id"] = json!(seen.path);
            body["identity"] =
                json!({"type": "SystemAssigned", "principalId": PRINCIPAL_ID, "tenantId": TENANT});
            known.machines.insert(path, body.clone());
            let mut answer = site::json(200, body);
            if !known.without_client_id {
                answer.headers_mut().insert("x-ms-arcadia-identity-client-id", CLIENT_ID.parse().unwrap());
            }
            answer
        }
    }
}

fn his(known: &mut Known, seen: &Seen) -> Answering {
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/machines/heartbeat"));
    if let Some(status) = known.heartbeats_failing {
        return error(status, "HeartbeatsFail");
    }
    if !seen.bearer().ends_with("-for-https://his.arc.azure.com") {
        return error(401, "Unauthorized");
    }
    let said = seen.json();
    let found = known.machines.iter().find(|(_, machine)| machine["properties"]["vmId"] == said["vmId"]);
    let Some((path, machine)) = found else { return error(403, "Forbidden") };
    let tags = known.tags.clone().unwrap_or_else(|| machine["tags"].clone());
    let answer = json!({"status": "Connected", "clientId": CLIENT_ID,
        "resource": {"id": path, "name": "ubuntu-01", "location": machine["location"], "tags": tags}});
    known.heartbeats.push(said);
    site::json(200, answer)
}

/// A folder that other users may pass through, so that what keeps them out is the agent's own doing.
pub struct Root(tempfile::TempDir);

impl Root {
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    /// Where the agent's files are.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("azcmagent")
    }

    pub fn layout(&self) -> Layout {
        Layout::new(self.path())
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Options for a daemon on free ports. There are no himds accounts unless a test writes some.
pub fn options(root: &Root, site: &FakeSite, clock: Arc<dyn Clock>) -> AgentOptions {
    let ca = root.write("ca.pem", &site.site.ca_pem);
    let nobody = root.write("accounts", "root:x:0:0::/:/bin/sh\n");
    AgentOptions {
        root: root.path(),
        addresses: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()],
        reach: Reach {
            proxy: Some(Proxy::parse(&format!("http://{}", site.site.proxy)).unwrap()),
            root_files: vec![ca],
            ..Reach::default()
        },
        limits: HimdsLimits {
            metadata_per_second: 100_000,
            identity_per_second: 100_000,
            ..HimdsLimits::default()
        },
        sources: FactSources { passwd: nobody.clone(), group: nobody, ..FactSources::default() },
        ..AgentOptions::new(clock, Arc::new(SystemEntropy))
    }
}

/// A daemon that is running.
pub struct Daemon {
    pub addresses: Vec<SocketAddr>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), arcadia_agent::AgentFault>>,
}

impl Daemon {
    pub async fn start(options: AgentOptions) -> Self {
        let agent = Agent::bind(options).await.unwrap();
        let addresses = agent.addresses();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(agent.run(async move {
            let _ = stopped.await;
        }));
        Self { addresses, stop, running }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses[0])
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

/// Runs a script with bash and gives its standard output; a failing script is a failed test.
pub async fn bash(script: &str) -> String {
    let output = tokio::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .await
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// `curl -i` of one address with headers; status, header lines, body.
pub async fn curl(url: &str, flags: &[&str]) -> (u16, String, String) {
    let output = tokio::process::Command::new("curl")
        .args(["-s", "-i", "--max-time", "20", "--noproxy", "*"])
        .args(flags)
        .arg(url)
        .env_clear()
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}
