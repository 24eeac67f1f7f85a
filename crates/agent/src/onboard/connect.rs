//! `azcmagent connect`.

use std::collections::BTreeMap;
use std::time::Duration;

use arcadia_client::{Answer, Ask, AssertionKey, Client, Endpoints, OAuth, header};
use arcadia_kernel::EntropyExt as _;
use jiff::fmt::rfc2822;
use serde_json::{Value, json};
use uuid::Uuid;

use super::arm::{Arm, Place};
use super::show::ask_daemon;
use super::sign_in::sign_in;
use super::{Event, Failure, Listener, OnboardFault, SignIn};
use crate::accounts::Accounts;
use crate::link::client_options;
use crate::{AGENT_VERSION, AgentConfig, AgentOptions, Facts, MachineIdentity};

/// Tells which application the machine's identity is. Azure tells its agents over a protocol of their own.
const CLIENT_ID_HEADER: &str = "x-ms-arcadia-identity-client-id";
const CLOCK_SKEW_SECONDS_MAX: i64 = 120;
const SERVICE_LOOK: Duration = Duration::from_millis(100);
const SERVICE_LOOKS_MAX: usize = 100;

pub struct ConnectRequest {
    /// Id or name.
    pub subscription: String,
    pub resource_group: String,
    pub location: String,
    /// The host's name when missing.
    pub resource_name: Option<String>,
    /// Id or domain name.
    pub tenant: Option<String>,
    pub cloud: String,
    pub tags: BTreeMap<String, String>,
    pub correlation_id: Option<Uuid>,
    pub sign_in: SignIn,
    pub endpoints: Endpoints,
    /// How the daemon is to reach the site when it is not told otherwise.
    pub https_proxy: Option<String>,
    pub no_proxy: Option<String>,
    pub certificate_files: Vec<std::path::PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub struct Connected {
    pub config: AgentConfig,
    /// Where a person can look at the machine.
    pub portal_page: String,
    pub service: Service,
}

/// What the daemon has made of the new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It has told the site that the machine is there.
    Connected,
    /// It runs, and has not reached the site in ten seconds.
    NotYet,
    NotRunning,
}

/// A daemon that runs notices the new connection by itself within a second. Waiting for its first heartbeat makes the
/// end of `connect` the moment from which the site shows the machine as connected.
async fn await_service(options: &AgentOptions) -> Service {
    for _ in 0..SERVICE_LOOKS_MAX {
        match ask_daemon(options).await {
            None => return Service::NotRunning,
            Some(status) if status["status"] == "Connected" => return Service::Connected,
            Some(_) => tokio::time::sleep(SERVICE_LOOK).await,
        }
    }
    Service::NotYet
}

/// Makes this machine a machine of the site: its key, its resource, its identity's first token, its configuration.
/// When it fails the key stays, so that trying again is the same machine; the configuration is written last.
pub async fn connect(
    options: &AgentOptions,
    request: ConnectRequest,
    listener: &mut Listener<'_>,
) -> Result<Connected, OnboardFault> {
    let layout = options.layout();
    let accounts = Accounts::read(&options.sources.passwd, &options.sources.group);
    if let Some(config) = AgentConfig::read(&layout.config())? {
        return Err(OnboardFault::new(
            Failure::AlreadyConnected,
            format!(
                "this machine is already connected as {}; run 'azcmagent disconnect' first",
                config.resource_id
            ),
        ));
    }
    let facts = Facts::read(&options.sources);
    let name = request.resource_name.clone().unwrap_or_else(|| facts.host_name().to_owned());
    check_names(&request.resource_group, &name)?;
    layout.prepare(&accounts)?;
    let client = Client::new(client_options(options, None)?)
        .map_err(|fault| OnboardFault::new(Failure::BadArguments, fault.to_string()))?;

    listener(Event::Info("Connecting machine to Azure... This might take a few minutes.".to_owned()));
    let tenant = request.tenant.as_deref();
    let bearer = sign_in(options, &client, &request.endpoints, tenant, &request.sign_in, listener).await?;
    listener(Event::Progress(20));
    let arm = Arm { client: &client, endpoints: &request.endpoints, token: &bearer.token };
    let subscription_id = arm.subscription(&request.subscription).await?;
    let place = Place { subscription_id, resource_group: &request.resource_group, name: &name };
    if arm.ensure_group(&place, &request.location).await? {
        listener(Event::Info(format!("Created the resource group {}", request.resource_group)));
    }
    listener(Event::Progress(30));
    let identity = MachineIdentity::load_or_make(&layout, &accounts, &*options.entropy)?;
    refuse_other_machine(&arm, &place, &identity).await?;
    let correlation_id = request.correlation_id.unwrap_or_else(|| options.entropy.uuid());
    listener(Event::Info(format!(
        "Creating resource in Azure...  Correlation ID={correlation_id} Resource ID={}",
        place.resource_id()
    )));
    let answer = arm.put_machine(&place, &body(&request, &identity, &facts)).await?;
    listener(Event::Progress(60));
    warn_of_skew(options, &answer, listener);
    let known = Known { tenant_id: bearer.tenant_id, vm_id: identity.vm_id, correlation_id };
    let config = configuration(&request, &answer, &place, known)?;
    prove(options, &client, &identity, &config).await?;
    listener(Event::Progress(80));
    config.write(&layout, &accounts, &*options.entropy)?;
    listener(Event::Progress(100));
    let service = await_service(options).await;
    Ok(Connected { portal_page: portal_page(&config), config, service })
}

pub(super) fn portal_page(config: &AgentConfig) -> String {
    let portal = config.endpoints.portal.trim_end_matches('/');
    format!("{portal}/#@{}/resource{}/overview", config.tenant_id, config.resource_id)
}

fn check_names(resource_group: &str, name: &str) -> Result<(), OnboardFault> {
    let wrong = |text: &str| Err(OnboardFault::new(Failure::BadArguments, text));
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 54 || !name.chars().all(fits) {
        return wrong(
            "the resource name must be 1 to 54 letters, digits, '-', '_' or '.'; give --resource-name",
        );
    }
    let fits = |c: char| c.is_alphanumeric() || "-_.()".contains(c);
    let length = resource_group.chars().count();
    if !(1..=90).contains(&length) || !resource_group.chars().all(fits) || resource_group.ends_with('.') {
        return wrong("the resource group's name must be 1 to 90 letters, digits, '-', '_', '.' or brackets");
    }
    Ok(())
}

async fn refuse_other_machine(
    arm: &Arm<'_>,
    place: &Place<'_>,
    identity: &MachineIdentity,
) -> Result<(), OnboardFault> {
    let found = arm.machine(place).await.map_err(|fault| {
        OnboardFault::site(Failure::CreateFailed, "cannot look for the machine's resource", &fault)
    })?;
    let vm_id = found.as_ref().map(|machine| machine["properties"]["vmId"].as_str().unwrap_or("").to_owned());
    match vm_id {
        Some(other) if other.parse() != Ok(identity.vm_id) => Err(OnboardFault::new(
            Failure::AlreadyExists,
            format!(
                "{} exists and belongs to another machine (vmId {other}); give another --resource-name, or delete \
                 that resource first",
                place.resource_id()
            ),
        )),
        _ => Ok(()),
    }
}

fn body(request: &ConnectRequest, identity: &MachineIdentity, facts: &Facts) -> Value {
    json!({
        "location": request.location,
        "tags": request.tags,
        "identity": { "type": "SystemAssigned" },
        "properties": {
            "vmId": identity.vm_id,
            "clientPublicKey": identity.public_key(),
            "agentVersion": AGENT_VERSION,
            "osType": facts.os_name,
            "osName": facts.os_name,
            "osVersion": facts.os_version,
            "osSku": facts.os_sku,
            "machineFqdn": facts.machine_fqdn,
            "displayName": facts.host_name(),
            "detectedProperties": facts.detected,
        },
    })
}

/// What is known before the site answers.
struct Known {
    tenant_id: Uuid,
    vm_id: Uuid,
    correlation_id: Uuid,
}

fn configuration(
    request: &ConnectRequest,
    answer: &Answer,
    place: &Place<'_>,
    known: Known,
) -> Result<AgentConfig, OnboardFault> {
    let wrong = |text: &str| OnboardFault::new(Failure::IdentityRefused, text);
    let machine: Value = answer.json().map_err(|fault| wrong(&fault.to_string()))?;
    let principal_id = machine["identity"]["principalId"].as_str().and_then(|id| id.parse().ok());
    let client_id = answer.header_named(CLIENT_ID_HEADER).and_then(|id| id.parse().ok());
    let kept = |name: &str| machine[name].as_str().map(str::to_owned);
    Ok(AgentConfig {
        subscription_id: place.subscription_id,
        resource_group: place.resource_group.to_owned(),
        resource_name: place.name.to_owned(),
        resource_id: kept("id").unwrap_or_else(|| place.resource_id()),
        tenant_id: known.tenant_id,
        location: kept("location").unwrap_or_else(|| request.location.clone()),
        vm_id: known.vm_id,
        correlation_id: known.correlation_id,
        cloud: request.cloud.clone(),
        client_id: client_id.ok_or_else(|| {
            wrong(
                "the site did not say which application the machine's identity is (header \
                 x-ms-arcadia-identity-client-id); this agent connects machines to Arcadia sites",
            )
        })?,
        principal_id: principal_id.ok_or_else(|| wrong("the site gave the machine no identity"))?,
        tags: request.tags.clone(),
        https_proxy: request.https_proxy.clone(),
        no_proxy: request.no_proxy.clone(),
        certificate_files: request.certificate_files.clone(),
        endpoints: request.endpoints.clone(),
    })
}

/// The machine's identity is of use only if its key opens it: seen before anything is said to be connected.
async fn prove(
    options: &AgentOptions,
    client: &Client,
    identity: &MachineIdentity,
    config: &AgentConfig,
) -> Result<(), OnboardFault> {
    let (tenant, client_id) = (config.tenant_id.to_string(), config.client_id.to_string());
    let key = AssertionKey::from_key(identity.key.clone());
    let ask = Ask::Resource(&config.endpoints.his_audience);
    let now = options.clock.epoch_seconds();
    let asked = async {
        let oauth = OAuth::new(client, &config.endpoints.login, &tenant)?;
        oauth.client_assertion(&client_id, &key, ask, &*options.entropy, now).await
    };
    asked.await.map(drop).map_err(|fault| {
        OnboardFault::site(
            Failure::IdentityRefused,
            "the machine's own key does not open its identity",
            &fault,
        )
    })
}

fn warn_of_skew(options: &AgentOptions, answer: &Answer, listener: &mut Listener<'_>) {
    let date = answer.header(&header::DATE).and_then(|date| rfc2822::parse(date).ok());
    let Some(date) = date else { return };
    let skew = (date.timestamp().as_second() - options.clock.epoch_seconds()).abs();
    if skew > CLOCK_SKEW_SECONDS_MAX {
        listener(Event::Warning(format!(
            "The machine's clock and the site's differ by {skew} s; set the clock, or tokens will be refused."
        )));
    }
}
