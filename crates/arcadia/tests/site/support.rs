//! A site in a directory of its own, and clients that trust its authority alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arcadia_client::{Answer, Ask, Call, Client, ClientOptions, Endpoints, OAuth, Proxy};
use arcadia_kernel::{Clock, EntropyExt as _};
use serde_json::Value;
use tempfile::TempDir;

use crate::raw::PATIENCE;

pub const ARM: &str = "https://management.azure.com";
pub const ARM_SCOPE: &str = "https://management.core.windows.net//.default";
pub const GRAPH: &str = "https://graph.microsoft.com";
pub const GRAPH_SCOPE: &str = "https://graph.microsoft.com/.default";
pub const VAULT_SCOPE: &str = "https://vault.azure.net/.default";
pub const LOGIN: &str = "https://login.microsoftonline.com";

pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "a test is a program of its own")]
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// The program with an environment of nothing but what it needs.
pub fn arcadia(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcadia"));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("ARCADIA_DATA", data);
    command
}

pub struct Site {
    pub data: PathBuf,
    _folder: Option<TempDir>,
    child: Option<Child>,
    /// What was printed until the site could serve.
    pub printed: Vec<String>,
}

impl Site {
    /// A new site that passes nothing on.
    pub fn start() -> Self {
        Self::start_with(&["--offline"])
    }

    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let mut site = Self { data, _folder: Some(folder), child: None, printed: Vec::new() };
        site.up(arguments);
        site
    }

    /// The site of a data directory, which is not started yet.
    pub fn over(data: PathBuf) -> Self {
        Self { data, _folder: None, child: None, printed: Vec::new() }
    }

    /// Starts the site again on its data.
    pub fn up(&mut self, arguments: &[&str]) {
        self.up_by(arcadia(&self.data), arguments);
    }

    /// The same, by a command that runs the program with the arguments that it is given.
    pub fn up_by(&mut self, mut command: Command, arguments: &[&str]) {
        assert!(self.child.is_none(), "it runs already");
        let errors = File::options().append(true).create(true).open(self.errors()).unwrap();
        command.arg("up").args(arguments).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        self.child = Some(child);
        self.printed.clear();
        for line in stdout.lines().map_while(Result::ok) {
            self.printed.push(line);
            if self.printed.last().is_some_and(|line| line == "ready") {
                return;
            }
        }
        let end = self.ended();
        let errors = std::fs::read_to_string(self.errors()).unwrap();
        panic!("the site did not start (exit code {end:?}): {:?}\n{errors}", self.printed);
    }

    /// Where the site's errors go.
    fn errors(&self) -> PathBuf {
        self.data.with_extension("errors")
    }

    /// What it complained of so far.
    pub fn told(&self) -> String {
        std::fs::read_to_string(self.errors()).unwrap_or_default()
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().unwrap().id() as i32
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end of the process; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }

    pub fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        assert_eq!(self.ended(), Some(0));
    }

    pub fn command(&self, arguments: &[&str]) -> Output {
        arcadia(&self.data).args(arguments).output().unwrap()
    }

    pub fn status(&self) -> Value {
        let output = self.command(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn proxy(&self) -> String {
        self.status()["addresses"]["proxy"].as_str().unwrap().to_owned()
    }

    pub fn env(&self, admin: bool) -> BTreeMap<String, String> {
        let mut arguments = vec!["env", "--format", "json"];
        if admin {
            arguments.push("--admin");
        }
        let output = self.command(&arguments);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// curl through the proxy, trusting the site's authority and nothing else.
    pub fn curl(&self, arguments: &[&str]) -> Curl {
        let output = Command::new("curl")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--write-out",
                "\n%{http_code} %{http_connect}",
            ])
            .args(["--proxy", &self.proxy(), "--cacert"])
            .arg(self.data.join("ca.pem"))
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, codes) = text.rsplit_once('\n').unwrap_or(("", ""));
        let mut codes = codes.split(' ').map(|code| code.parse().unwrap_or(0));
        Curl {
            exit: output.status.code().unwrap_or(-1),
            status: codes.next().unwrap_or(0),
            proxy_status: codes.next().unwrap_or(0),
            body: body.to_owned(),
        }
    }

    pub fn client(&self) -> Wire {
        let mut options = ClientOptions::new(Arc::new(SystemClock));
        options.proxy = Some(Proxy::parse(&self.proxy()).unwrap());
        options.root_files = vec![self.data.join("ca.pem")];
        let admin = self.env(true);
        let at =
            admin.get("ARCADIA_DOMAIN").map_or_else(Endpoints::default, |name| Endpoints::of_domain(name));
        Wire { client: Client::new(options).unwrap(), admin, at }
    }
}

impl Drop for Site {
    #[allow(clippy::print_stderr, reason = "shown where a test fails")]
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let errors = self.told();
        eprint!("{errors}");
        // Whatever else was found: a task that panics is cut off, and no client need notice.
        assert!(std::thread::panicking() || !errors.contains("panicked at"), "the site panicked: {errors}");
    }
}

#[derive(Debug)]
pub struct Curl {
    pub exit: i32,
    pub status: u16,
    /// What the proxy answered to CONNECT.
    pub proxy_status: u16,
    pub body: String,
}

impl Curl {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The public wire, and the first credentials.
pub struct Wire {
    pub client: Client,
    pub admin: BTreeMap<String, String>,
    /// Where the site's services are.
    pub at: Endpoints,
}

/// An application with a secret.
pub struct Application {
    pub app_id: String,
    pub secret: String,
    /// Of its service principal.
    pub object_id: String,
}

impl Wire {
    pub fn subscription(&self) -> &str {
        &self.admin["AZURE_SUBSCRIPTION_ID"]
    }

    pub fn tenant(&self) -> &str {
        &self.admin["AZURE_TENANT_ID"]
    }

    pub async fn token_of(&self, app_id: &str, secret: &str, scope: &str) -> String {
        let oauth = OAuth::new(&self.client, &self.at.login, self.tenant()).unwrap();
        let token = oauth.client_secret(app_id, secret, Ask::Scope(scope)).await.unwrap();
        token.access_token.to_string()
    }

    pub async fn admin_token(&self, scope: &str) -> String {
        self.token_of(&self.admin["AZURE_CLIENT_ID"], &self.admin["AZURE_CLIENT_SECRET"], scope).await
    }

    pub async fn send(&self, method: &str, url: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        let mut call = Call::new(method.parse().unwrap(), url);
        if let Some(token) = token {
            call = call.bearer(token).unwrap();
        }
        if let Some(body) = body {
            call = call.json(&body).unwrap();
        }
        self.client.send(call).await.unwrap_or_else(|fault| panic!("{method} {url}: {fault}"))
    }

    /// Sends, and panics unless it succeeds; its JSON.
    pub async fn must(&self, method: &str, url: &str, token: &str, body: Option<Value>) -> Value {
        let answer = self.send(method, url, Some(token), body).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status.is_success(), "{method} {url}: {} {text}", answer.status);
        serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
    }

    /// A group and a vault in it, and the first service principal's right to its secrets.
    pub async fn vault(&self, name: &str) -> String {
        let arm = self.admin_token(&self.at.management_scope()).await;
        let origin = &self.at.management;
        let group = format!("{origin}/subscriptions/{}/resourceGroups/rg1", self.subscription());
        let body = serde_json::json!({ "location": "uksouth" });
        self.must("PUT", &format!("{group}?api-version=2024-11-01"), &arm, Some(body)).await;
        let id = format!(
            "/subscriptions/{}/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/{name}",
            self.subscription()
        );
        let properties = serde_json::json!({
            "tenantId": self.tenant(), "sku": { "family": "A", "name": "standard" },
            "enableRbacAuthorization": true, "accessPolicies": [],
        });
        let body = serde_json::json!({ "location": "uksouth", "properties": properties });
        self.must("PUT", &format!("{origin}{id}?api-version=2026-02-01"), &arm, Some(body)).await;
        id
    }

    /// Assigns a built-in role.
    pub async fn assign(&self, scope: &str, role_id: &str, principal_id: &str) {
        let arm = self.admin_token(&self.at.management_scope()).await;
        let origin = &self.at.management;
        let name = arcadia_crypto::SystemEntropy.uuid();
        let definition = format!(
            "/subscriptions/{}/providers/Microsoft.Authorization/roleDefinitions/{role_id}",
            self.subscription()
        );
        let url = format!(
            "{origin}{scope}/providers/Microsoft.Authorization/roleAssignments/{name}?api-version=2022-04-01"
        );
        let body = serde_json::json!({
            "properties": { "roleDefinitionId": definition, "principalId": principal_id }
        });
        self.must("PUT", &url, &arm, Some(body)).await;
    }

    /// A new application without any role.
    pub async fn application(&self, name: &str) -> Application {
        let origin = &self.at.graph;
        let graph = self.admin_token(&format!("{origin}/.default")).await;
        let body = serde_json::json!({ "displayName": name });
        let made = self.must("POST", &format!("{origin}/v1.0/applications"), &graph, Some(body)).await;
        let (id, app_id) = (made["id"].as_str().unwrap(), made["appId"].as_str().unwrap().to_owned());
        let body = serde_json::json!({ "appId": app_id });
        let principal =
            self.must("POST", &format!("{origin}/v1.0/servicePrincipals"), &graph, Some(body)).await;
        let url = format!("{origin}/v1.0/applications/{id}/addPassword");
        let body = serde_json::json!({ "passwordCredential": { "displayName": "test" } });
        let password = self.must("POST", &url, &graph, Some(body)).await;
        Application {
            app_id,
            secret: password["secretText"].as_str().unwrap().to_owned(),
            object_id: principal["id"].as_str().unwrap().to_owned(),
        }
    }
}

/// A pipe in place of a file: whoever reads it waits.
pub fn pipe_at(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// The other end of a pipe, once somebody reads it.
pub fn read_by_somebody(path: &Path) -> File {
    use std::os::unix::fs::OpenOptionsExt as _;
    let begun = Instant::now();
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    loop {
        match File::options().write(true).custom_flags(flags).open(path) {
            Ok(end) => return end,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "nobody reads {}: {error}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub const SECRETS_OFFICER: &str = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7";
pub const SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";

/// What a command said that went well.
#[track_caller]
pub fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Why a command did not do what it was asked for.
#[track_caller]
pub fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
