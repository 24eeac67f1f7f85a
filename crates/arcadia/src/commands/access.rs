//! `arcadia access`

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use arcadia_client::{Ask, Call, Client, ClientOptions, OAuth, Proxy};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::host::SystemClock;
use crate::site::{Credentials, DataDir, Running, SiteRecord, State};
use crate::terminal::{BOLD, DIM, RESET, say};

const API_VERSION: &str = "2026-01-01";

/// Who may do what, and why
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arcadia access explain --caller nina@arcadia.example \\\n    \
                        --action Microsoft.Resources/subscriptions/resourceGroups/write \\\n    \
                        --scope \"/subscriptions/$AZURE_SUBSCRIPTION_ID\"")]
pub enum Command {
    /// Say whether somebody may do something at a scope, and which role assignments were looked at
    #[command(after_help = "Examples:\n  arcadia access explain --caller nina@arcadia.example \\\n    \
                            --action Microsoft.KeyVault/vaults/secrets/getSecret/action \\\n    --scope \"$vaultId\"\n  \
                            arcadia access explain --caller \"$principalId\" \\\n    \
                            --scope /subscriptions/$AZURE_SUBSCRIPTION_ID \\\n    \
                            --action Microsoft.Resources/subscriptions/resourceGroups/write --json\n\n\
                            Asks the running site, over its public wire, with the first service principal. Exits with 0 \
                            whether it is allowed or not; --json has `allowed` for scripts.")]
    Explain {
        /// Object id, application id or user principal name
        #[arg(long)]
        caller: String,
        /// One action or data action
        #[arg(long)]
        action: String,
        /// A subscription, group or resource, or something in it
        #[arg(long)]
        scope: String,
        /// The action is a data action; needed only for actions that this site does not know
        #[arg(long)]
        data_action: bool,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

pub fn run(data: &DataDir, command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Explain { caller, action, scope, data_action, json } = command;
    let mut body = json!({ "principal": caller, "action": action });
    if *data_action {
        body["dataAction"] = true.into();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(ask(data, scope, &body))?;
    if *json {
        say(serde_json::to_string_pretty(&answer)?);
    } else {
        show(&serde_json::from_value(answer)?);
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(data: &DataDir, scope: &str, body: &Value) -> anyhow::Result<Value> {
    let State::Running(running) = Running::state(data)? else {
        anyhow::bail!(super::not_running(data));
    };
    let first = Credentials::expect(data)?;
    let mut options = ClientOptions::new(Arc::new(SystemClock));
    options.proxy = Some(Proxy::parse(&format!("http://{}", running.proxy))?);
    options.root_files = vec![data.ca_file()];
    let client = Client::new(options)?;
    let endpoints = SiteRecord::expect(data)?.names().endpoints();
    let tenant = first.tenant_id.to_string();
    let oauth = OAuth::new(&client, &endpoints.login, &tenant)?;
    let token = oauth
        .client_secret(
            &first.client_id.to_string(),
            &first.client_secret,
            Ask::Scope(&endpoints.management_scope()),
        )
        .await
        .context("the first service principal cannot sign in")?;
    let scope = scope.trim_matches('/');
    let separator = if scope.is_empty() { "" } else { "/" };
    let url = format!(
        "{}{separator}{scope}/providers/Arcadia.Access/explain?api-version={API_VERSION}",
        endpoints.management
    );
    let call = Call::post(url).bearer(&token.access_token)?.json(body)?;
    Ok(client.json(call).await?)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    principal_name: String,
    allowed: bool,
    because: String,
    action: String,
    plane: String,
    scope: String,
    groups: Vec<String>,
    /// A running site of an earlier version does not say.
    #[serde(default)]
    by_access_policies: bool,
    considered: Vec<Considered>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Considered {
    assignment: String,
    role_name: Option<String>,
    through_group: bool,
    verdict: String,
}

fn show(found: &Explanation) {
    let verdict = if found.allowed { "allowed" } else { "not allowed" };
    say(format!("{BOLD}{verdict}{RESET}: {}", found.because));
    say(format!("  who     {}", found.principal_name));
    say(format!("  what    {} {DIM}({} action){RESET}", found.action, found.plane));
    say(format!("  where   {}", found.scope));
    if !found.groups.is_empty() {
        say(format!("  groups  {}", found.groups.join(", ")));
    }
    if found.by_access_policies {
        say(
            "  the vault has access policies: `az keyvault set-policy` changes them, and no role counts for its data",
        );
    } else if found.considered.is_empty() {
        say("  no role assignment of the caller or its groups applies at this scope");
    }
    for considered in &found.considered {
        let role = considered.role_name.as_deref().unwrap_or("(a role that no longer exists)");
        let group = if considered.through_group { ", through a group" } else { "" };
        say(format!("  {:<22} {role}{group}", words(&considered.verdict)));
        say(format!("  {:<22} {DIM}{}{RESET}", "", considered.assignment));
    }
}

fn words(verdict: &str) -> &str {
    match verdict {
        "allows" => "allows it",
        "actionNotInRole" => "does not include it",
        "actionSubtracted" => "takes it out again",
        "conditionFails" => "its condition fails",
        "conditionUnknown" => "depends on the request",
        "roleMissing" => "its role is gone",
        other => other,
    }
}
