//! A site in a data directory of its own, run by the program that is measured, and the calls that furnish it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::load::{Ask, Peer, connect, exchange};
use crate::loopback::LoopbackTarget;
use crate::process::{Meter, Process, clean, free_port};
use crate::trust::trusting;

pub const ARM: &str = "management.azure.com";
pub const LOGIN: &str = "login.microsoftonline.com";
pub const GRAPH: &str = "graph.microsoft.com";
pub const ARM_SCOPE: &str = "https://management.core.windows.net//.default";
pub const GRAPH_SCOPE: &str = "https://graph.microsoft.com/.default";
pub const VAULT_SCOPE: &str = "https://vault.azure.net/.default";
pub const GROUP: &str = "bench";
const GROUP_VERSION: &str = "2024-11-01";
const SECRETS_OFFICER: &str = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7";

/// A running site.
pub struct Site {
    program: PathBuf,
    data: PathBuf,
    process: Option<Process>,
    proxy_port: u16,
    /// TLS by server name, without the proxy.
    direct: LoopbackTarget,
    trust: Option<Arc<rustls::ClientConfig>>,
    /// What `arcadia env --admin` says.
    pub admin: BTreeMap<String, String>,
    /// From the start of the process until it could serve, at the first start.
    pub first_start: Duration,
    /// Goes after the process, which watches its files.
    _folder: TempDir,
}

/// An application with a secret.
#[derive(Clone, Debug)]
pub struct Application {
    pub app_id: String,
    pub secret: String,
    /// Of its service principal.
    pub object_id: String,
}

impl Site {
    /// Founds a site below `folder` and starts it.
    pub fn start(program: &Path, folder: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("site").tempdir_in(folder)?;
        let data = folder.path().join("data");
        let mut site = Self {
            program: program.to_owned(),
            data,
            process: None,
            proxy_port: free_port()?,
            direct: LoopbackTarget::new(true, free_port()?)?,
            trust: None,
            admin: BTreeMap::new(),
            first_start: Duration::ZERO,
            _folder: folder,
        };
        site.first_start = site.up()?;
        site.trust = Some(trusting([site.authority().as_path()])?);
        let told = site.command(&["env", "--format", "json", "--admin"])?;
        site.admin = serde_json::from_str(&told).context("arcadia env --format json")?;
        Ok(site)
    }

    /// Starts the program. Gives the time until it could serve.
    pub fn up(&mut self) -> Result<Duration> {
        ensure!(self.process.is_none(), "the site runs already");
        let mut command = self.arcadia();
        command.args(["up", "--offline", "--port", &self.proxy_port.to_string(), "--listen"]);
        command.arg(self.direct.address().to_string()).stderr(Stdio::inherit());
        let start = Instant::now();
        let (process, (), _) = Process::start(&mut command, |line| (line == "ready").then_some(()))?;
        self.process = Some(process);
        Ok(start.elapsed())
    }

    /// Ends the program as an operator would.
    pub fn down(&mut self) -> Result<()> {
        let status = self.process.take().context("the site does not run")?.stop()?;
        ensure!(status.success(), "the site ended with {status}");
        Ok(())
    }

    pub fn id(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::id)
    }

    /// The processor time of the site's own process.
    pub fn meter(&self) -> Meter {
        Meter::of([self.id()])
    }

    pub fn authority(&self) -> PathBuf {
        self.data.join("ca.pem")
    }

    /// `http://127.0.0.1:PORT`
    pub fn proxy(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy_port)
    }

    /// The program on this site's data, with a clean environment.
    pub fn arcadia(&self) -> Command {
        let mut command = clean(&self.program);
        command.env("ARCADIA_DATA", &self.data);
        command
    }

    /// Runs a command of the program and gives what it prints.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let done = self.arcadia().args(arguments).stdin(Stdio::null()).output()?;
        if !done.status.success() {
            bail!("arcadia {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(String::from_utf8(done.stdout)?)
    }

    /// One of the site's names, as load reaches it.
    pub fn peer(&self, name: impl Into<String>) -> Result<Peer> {
        let trust = self.trust.clone().context("the site was started")?;
        Ok(Peer { target: self.direct, name: name.into(), trust })
    }

    fn known(&self, name: &str) -> Result<&str> {
        self.admin.get(name).map(String::as_str).with_context(|| format!("arcadia env tells no {name}"))
    }

    pub fn tenant(&self) -> Result<&str> {
        self.known("AZURE_TENANT_ID")
    }

    pub fn subscription(&self) -> Result<&str> {
        self.known("AZURE_SUBSCRIPTION_ID")
    }

    /// `/subscriptions/ID/resourceGroups/bench`
    pub fn group(&self) -> Result<String> {
        Ok(format!("/subscriptions/{}/resourceGroups/{GROUP}", self.subscription()?))
    }

    /// One request over a connection of its own.
    pub async fn send(&self, name: &str, ask: Ask) -> Result<(StatusCode, Vec<u8>)> {
        let peer = self.peer(name)?;
        let (status, body) = exchange(&mut connect(&peer).await?, &peer, ask).await?;
        Ok((status, body.to_vec()))
    }

    /// Sends JSON and takes success only; the JSON that came back.
    pub async fn must(
        &self,
        method: Method,
        name: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let bytes = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let ask = Ask::with_body(method.clone(), path, bytes).bearer(token)?;
        let ask = if body.is_some() { ask.json()? } else { ask };
        let (status, answer) = self.send(name, ask).await?;
        if !status.is_success() {
            bail!("{method} {name}{path}: {status} {}", String::from_utf8_lossy(&answer));
        }
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    /// The request for a token by client credentials.
    pub fn token_ask(&self, app_id: &str, secret: &str, scope: &str) -> Result<Ask> {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", app_id),
            ("client_secret", secret),
            ("scope", scope),
        ];
        let body: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let path = format!("/{}/oauth2/v2.0/token", self.tenant()?);
        Ask::with_body(Method::POST, path, body.join("&")).form()
    }

    pub async fn token_of(&self, application: &Application, scope: &str) -> Result<String> {
        let ask = self.token_ask(&application.app_id, &application.secret, scope)?;
        let (status, answer) = self.send(LOGIN, ask).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let token = answer.get("access_token").and_then(Value::as_str);
        Ok(token.with_context(|| format!("no token: {status} {answer}"))?.to_owned())
    }

    pub fn first_application(&self) -> Result<Application> {
        Ok(Application {
            app_id: self.known("AZURE_CLIENT_ID")?.to_owned(),
            secret: self.known("AZURE_CLIENT_SECRET")?.to_owned(),
            object_id: String::new(),
        })
    }

    pub async fn admin_token(&self, scope: &str) -> Result<String> {
        self.token_of(&self.first_application()?, scope).await
    }

    /// A call of the resource manager as the first service principal.
    pub async fn arm(
        &self,
        method: Method,
        path: &str,
        version: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let token = self.admin_token(ARM_SCOPE).await?;
        self.must(method, ARM, &format!("{path}?api-version={version}"), &token, body).await
    }

    /// The resource group that everything of the bench is in. May be made again.
    pub async fn make_group(&self) -> Result<String> {
        let group = self.group()?;
        self.arm(Method::PUT, &group, GROUP_VERSION, Some(&json!({ "location": "uksouth" }))).await?;
        Ok(group)
    }

    /// A vault under role-based access.
    pub async fn make_vault(&self, name: &str) -> Result<String> {
        let id = format!("{}/providers/Microsoft.KeyVault/vaults/{name}", self.make_group().await?);
        let properties = json!({
            "tenantId": self.tenant()?, "sku": { "family": "A", "name": "standard" },
            "enableRbacAuthorization": true, "accessPolicies": [],
        });
        let body = json!({ "location": "uksouth", "properties": properties });
        self.arm(Method::PUT, &id, "2026-02-01", Some(&body)).await?;
        Ok(id)
    }

    /// Assigns a built-in role.
    pub async fn assign(&self, scope: &str, role_id: &str, principal_id: &str) -> Result<()> {
        let (path, body) = self.assignment(scope, role_id, principal_id)?;
        let token = self.admin_token(ARM_SCOPE).await?;
        self.must(Method::PUT, ARM, &path, &token, Some(&body)).await?;
        Ok(())
    }

    /// Where an assignment is put, and what it says.
    pub fn assignment(&self, scope: &str, role_id: &str, principal_id: &str) -> Result<(String, Value)> {
        let name = uuid_of(&format!("{scope} {role_id} {principal_id}"));
        let definition = format!(
            "/subscriptions/{}/providers/Microsoft.Authorization/roleDefinitions/{role_id}",
            self.subscription()?
        );
        let path = format!(
            "{scope}/providers/Microsoft.Authorization/roleAssignments/{name}?api-version=2022-04-01"
        );
        Ok((path, json!({ "properties": { "roleDefinitionId": definition, "principalId": principal_id } })))
    }

    /// A new application without any role.
    pub async fn make_application(&self, name: &str) -> Result<Application> {
        let token = self.admin_token(GRAPH_SCOPE).await?;
        let post = |path: String, body: Value| {
            let token = token.clone();
            async move { self.must(Method::POST, GRAPH, &path, &token, Some(&body)).await }
        };
        let text = |value: &Value, name: &str| -> Result<String> {
            let found = value.get(name).and_then(Value::as_str);
            Ok(found.with_context(|| format!("no {name} in {value}"))?.to_owned())
        };
        let made = post("/v1.0/applications".into(), json!({ "displayName": name })).await?;
        let app_id = text(&made, "appId")?;
        let principal = post("/v1.0/servicePrincipals".into(), json!({ "appId": app_id })).await?;
        let path = format!("/v1.0/applications/{}/addPassword", text(&made, "id")?);
        let body = json!({ "passwordCredential": { "displayName": "bench" } });
        let password = post(path, body).await?;
        Ok(Application { app_id, secret: text(&password, "secretText")?, object_id: text(&principal, "id")? })
    }

    /// A vault, and an application that may read and write its secrets.
    pub async fn make_vault_and_officer(&self, vault: &str) -> Result<Application> {
        let id = self.make_vault(vault).await?;
        let application = self.make_application("officer").await?;
        self.assign(&id, SECRETS_OFFICER, &application.object_id).await?;
        Ok(application)
    }
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The same identifier for the same text.
fn uuid_of(text: &str) -> uuid::Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&arcadia_crypto::sha256(text.as_bytes())[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
