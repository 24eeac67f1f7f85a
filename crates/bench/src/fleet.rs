//! A site with many connected machines. They share one RSA key, so that thousands are connected in seconds; nothing
//! in a site compares the keys of two machines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use arcadia_client::AssertionKey;
use arcadia_crypto::{RsaBits, RsaKeyPair, SystemEntropy, b64};
use http::{HeaderMap, HeaderName, Method};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::load::{Ask, Peer, connect, send};
use crate::site::{ARM, ARM_SCOPE, LOGIN, Site};

pub const HEARTBEATS: &str = "gbl.his.arc.azure.com";
pub const HEARTBEAT_RESOURCE: &str = "https://his.arc.azure.com";
pub const VAULT: &str = "bench-fleet";
pub const VAULT_HOST: &str = "bench-fleet.vault.azure.net";
pub const VAULT_RESOURCE: &str = "https://vault.azure.net";
const SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";
const MACHINES_VERSION: &str = "2024-07-10";
const CONNECTIONS: usize = 32;
/// What is made at once, between two looks at the processor time.
const BATCH: usize = 500;
/// For all machines and their roles. What is not there by then is not measured, and that is told.
const FILL_TIME_MAX: Duration = Duration::from_secs(150);
const CLIENT_ID_HEADER: HeaderName = HeaderName::from_static("x-ms-arcadia-identity-client-id");
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A connected machine.
#[derive(Clone, Debug)]
pub struct Machine {
    pub vm_id: Uuid,
    client_id: String,
    principal_id: String,
}

pub struct Fleet {
    pub site: Site,
    pub machines: Vec<Machine>,
    pub asker: Asker,
    /// The site's processor time of connecting one machine, among the first and among the last of them.
    pub connecting_micros: [f64; 2],
}

impl Fleet {
    /// Connects so many machines, each with a role of its own on the resource group, or as many as the time allows.
    pub async fn make(site: Site, count: usize) -> Result<Self> {
        let group = site.make_group().await?;
        let key = AssertionKey::from_key(RsaKeyPair::generate(RsaBits::Bits2048)?);
        let asker = Asker { key, tenant: site.tenant()?.to_owned() };
        let mut fleet = Self { site, machines: Vec::new(), asker, connecting_micros: [0.0; 2] };
        let start = Instant::now();
        while fleet.machines.len() < count && start.elapsed() < FILL_TIME_MAX {
            let token = fleet.site.admin_token(ARM_SCOPE).await?;
            let first = fleet.machines.len();
            let made = fleet.connect(first..count.min(first + BATCH), &token).await?;
            let roles = fleet.roles(&group, &made, &token)?;
            answers(&fleet.site.peer(ARM)?, roles, |_, _| Ok(())).await?;
            fleet.machines.extend(made);
        }
        Ok(fleet)
    }

    async fn connect(&mut self, numbers: std::ops::Range<usize>, token: &str) -> Result<Vec<Machine>> {
        let (group, public) = (self.site.group()?, b64(&self.asker.key.key().public().to_pkcs1_der()));
        let (first, count) = (numbers.start, numbers.len());
        let asks = numbers.map(|number| {
            let path = format!(
                "{group}/providers/Microsoft.HybridCompute/machines/m{number:06}?api-version={MACHINES_VERSION}"
            );
            let properties = json!({ "vmId": vm_id(number), "clientPublicKey": public });
            let body = json!({
                "location": "uksouth", "identity": { "type": "SystemAssigned" }, "properties": properties,
            });
            Ask::with_body(Method::PUT, path, body.to_string()).bearer(token)?.json()
        });
        let asks = asks.collect::<Result<_>>()?;
        let before = self.site.meter().cpu()?;
        let made = answers(&self.site.peer(ARM)?, asks, identity).await?;
        let micros = (self.site.meter().cpu()?.saturating_sub(before)).as_secs_f64() * 1e6 / count as f64;
        if first == 0 {
            self.connecting_micros[0] = micros;
        }
        self.connecting_micros[1] = micros;
        let machine =
            |(number, (client_id, principal_id))| Machine { vm_id: vm_id(number), client_id, principal_id };
        Ok((first..).zip(made).map(machine).collect())
    }

    fn roles(&self, scope: &str, machines: &[Machine], token: &str) -> Result<Vec<Ask>> {
        let ask = |machine: &Machine| {
            let (path, body) = self.site.assignment(scope, SECRETS_USER, &machine.principal_id)?;
            Ask::with_body(Method::PUT, path, body.to_string()).bearer(token)?.json()
        };
        machines.iter().map(ask).collect()
    }

    /// Some machines from all over the fleet.
    pub fn some(&self, count: usize) -> Vec<Machine> {
        let step = (self.machines.len() / count).max(1);
        self.machines.iter().step_by(step).take(count).cloned().collect()
    }

    /// Tokens of these machines.
    pub async fn tokens(&self, machines: &[Machine], resource: &str) -> Result<Vec<String>> {
        let asks = machines.iter().map(|machine| self.asker.token(machine, resource));
        let asks = asks.collect::<Result<_>>()?;
        answers(&self.site.peer(LOGIN)?, asks, access_token).await
    }
}

/// Makes what the machines' agents ask for tokens with.
#[derive(Clone)]
pub struct Asker {
    key: AssertionKey,
    tenant: String,
}

impl Asker {
    /// The request for a token that a machine's agent makes, with an assertion that is good once.
    #[allow(clippy::disallowed_methods, reason = "the bench is a program of its own")]
    pub fn token(&self, machine: &Machine, resource: &str) -> Result<Ask> {
        let path = format!("/{}/oauth2/token", self.tenant);
        let now = jiff::Timestamp::now().as_second();
        let audience = format!("https://{LOGIN}{path}");
        let assertion = self.key.sign(&machine.client_id, &audience, &SystemEntropy, now)?;
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", &machine.client_id),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", &assertion),
            ("resource", resource),
        ];
        Ask::with_body(Method::POST, path, arcadia_client::form_encode(&fields)).form()
    }
}

fn vm_id(number: usize) -> Uuid {
    Uuid::from_u128(0x7000_0000 + number as u128)
}

/// Sends these requests over some keep-alive connections, and gives what `read` makes of each answer, in their order.
async fn answers<T: Send + 'static>(
    peer: &Peer,
    asks: Vec<Ask>,
    read: fn(&HeaderMap, &Value) -> Result<T>,
) -> Result<Vec<T>> {
    let (asks, next, mut running) = (Arc::new(asks), Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for _ in 0..CONNECTIONS.min(asks.len()) {
        let (peer, asks, next) = (peer.clone(), asks.clone(), next.clone());
        running.spawn(async move {
            let mut connection = connect(&peer).await?;
            let mut found = Vec::new();
            while let number = next.fetch_add(1, Ordering::Relaxed)
                && let Some(ask) = asks.get(number)
            {
                let (head, body) = send(&mut connection, &peer, ask.clone()).await?.into_parts();
                let body = body.collect().await?.to_bytes();
                let told = || format!("{}: {} {}", ask.path, head.status, String::from_utf8_lossy(&body));
                ensure!(head.status.is_success(), told());
                let value = serde_json::from_slice(&body).with_context(told)?;
                found.push((number, read(&head.headers, &value).with_context(told)?));
            }
            anyhow::Ok(found)
        });
    }
    let mut all = Vec::with_capacity(asks.len());
    while let Some(found) = running.join_next().await {
        all.extend(found??);
    }
    all.sort_unstable_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, found)| found).collect())
}

/// The client identifier and the object identifier of a machine that was connected.
fn identity(headers: &HeaderMap, body: &Value) -> Result<(String, String)> {
    let client_id = headers.get(CLIENT_ID_HEADER).context("the client identifier")?.to_str()?;
    let principal_id = body.pointer("/identity/principalId").and_then(Value::as_str);
    Ok((client_id.to_owned(), principal_id.context("the object identifier")?.to_owned()))
}

fn access_token(_: &HeaderMap, body: &Value) -> Result<String> {
    let token = body.get("access_token").and_then(Value::as_str);
    Ok(token.context("a token")?.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "only tests call this")]
impl Asker {
    pub fn for_tests() -> Self {
        let key = AssertionKey::from_key(RsaKeyPair::generate(RsaBits::Bits2048).unwrap());
        Self { key, tenant: "tenant".to_owned() }
    }
}

#[cfg(test)]
impl Machine {
    pub fn for_tests() -> Self {
        Self { vm_id: vm_id(0), client_id: "client".to_owned(), principal_id: "principal".to_owned() }
    }
}
