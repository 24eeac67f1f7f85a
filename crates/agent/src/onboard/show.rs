//! `azcmagent show`.

use std::time::Duration;

use arcadia_client::{Call, Client, ClientOptions};
use serde_json::{Value, json};

use super::OnboardFault;
use super::connect::portal_page;
use crate::accounts::Accounts;
use crate::health::Health;
use crate::{AGENT_VERSION, AgentConfig, AgentOptions, Facts};

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub title: &'static str,
    /// The name in JSON.
    pub key: &'static str,
    pub value: String,
}

/// How this machine is connected: from the daemon when it runs, else from what it left. Needs no rights.
pub async fn show(options: &AgentOptions) -> Result<Vec<Field>, OnboardFault> {
    let layout = options.layout();
    let config = AgentConfig::read(&layout.config());
    let asked = ask_daemon(options).await;
    // Where the proxy takes a password, not everybody may read it; the daemon still tells most of it.
    let config = match config {
        Err(fault) if asked.is_some() && fault.is_denied() => None,
        Err(fault) => return Err(fault.into()),
        Ok(config) => config,
    };
    let himds = if asked.is_some() { "running" } else { "stopped" };
    let status = asked.unwrap_or_else(|| {
        let (clock, entropy) = (options.clock.clone(), options.entropy.clone());
        let mut status = Health::open(&layout, Accounts::default(), clock, entropy).status(config.as_ref());
        // Whatever the last heartbeat said: nobody speaks for the machine now.
        status["status"] = json!("Disconnected");
        status
    });
    let facts = Facts::read(&options.sources);
    let text = |name: &str| match &status[name] {
        Value::String(text) => text.clone(),
        _ => String::new(),
    };
    let field = |title, key, value| Field { title, key, value };
    let kept = |title, key, read: fn(&AgentConfig) -> String| {
        field(title, key, config.as_ref().map_or_else(|| text(key), read))
    };
    let namespace = |_: &AgentConfig| "Microsoft.HybridCompute".to_owned();
    let detected = |name: &str| facts.detected.get(name).cloned().unwrap_or_default();
    Ok(vec![
        kept("Resource Name", "resourceName", |config| config.resource_name.clone()),
        kept("Resource Group Name", "resourceGroup", |config| config.resource_group.clone()),
        kept("Resource Namespace", "resourceNamespace", namespace),
        kept("Resource Id", "resourceId", |config| config.resource_id.clone()),
        kept("Subscription ID", "subscriptionId", |config| config.subscription_id.to_string()),
        kept("Tenant ID", "tenantId", |config| config.tenant_id.to_string()),
        kept("VM ID", "vmId", |config| config.vm_id.to_string()),
        kept("Correlation ID", "correlationId", |config| config.correlation_id.to_string()),
        field("Location", "location", text("location")),
        kept("Cloud", "cloud", |config| config.cloud.clone()),
        kept("Identity Key Store", "identityKeyStore", |_| "Default".to_owned()),
        field("Agent Version", "agentVersion", AGENT_VERSION.to_owned()),
        field("Agent Logfile", "agentLogfile", layout.log_file().display().to_string()),
        field("Agent Status", "status", text("status")),
        field("Agent Last Heartbeat", "lastHeartbeat", text("lastHeartbeat")),
        field("Agent Error Code", "errorCode", text("errorCode")),
        field("Agent Error Details", "errorDetails", text("errorDetails")),
        field("Agent Error Timestamp", "errorTimestamp", text("errorTimestamp")),
        kept("Using HTTPS Proxy", "httpsProxy", AgentConfig::proxy_shown),
        kept("Proxy Bypass List", "proxyBypassList", |config| config.no_proxy.clone().unwrap_or_default()),
        field("Cloud Provider", "cloudProvider", detected("cloudprovider")),
        field("Manufacturer", "manufacturer", detected("manufacturer")),
        field("Model", "model", detected("model")),
        field("Agent Service (himds)", "himdsStatus", himds.to_owned()),
        kept("Portal Page", "portalPage", portal_page),
    ])
}

/// What the daemon says of itself; `None` when none answers.
pub(super) async fn ask_daemon(options: &AgentOptions) -> Option<Value> {
    let address = options.addresses.first()?;
    let whole_timeout = Duration::from_secs(3);
    let client = ClientOptions { whole_timeout, ..ClientOptions::new(options.clock.clone()) };
    let client = Client::new(client).ok()?;
    client.json(Call::get(format!("http://{address}/agentstatus"))).await.ok()
}
