//! A site of the soak's own: started, killed, started again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::http::{Ask, Client, Way};
use crate::{install, panics};

/// A command of the program that takes longer has failed.
const COMMAND_SECONDS_MAX: u64 = 120;

pub const MANAGEMENT: &str = "https://management.azure.com";
pub const GRAPH: &str = "https://graph.microsoft.com";
pub const LOCATION: &str = "uksouth";

/// The resources that tokens are for.
#[derive(Clone, Copy)]
pub enum For {
    Management,
    Graph,
    Vault,
    Storage,
}

impl For {
    const fn scope(self) -> &'static str {
        match self {
            Self::Management => "https://management.core.windows.net//.default",
            Self::Graph => "https://graph.microsoft.com/.default",
            Self::Vault => "https://vault.azure.net/.default",
            Self::Storage => "https://storage.azure.com/.default",
        }
    }
}

pub struct Site {
    root: PathBuf,
    /// A copy, which stays the same when the project is built again meanwhile.
    program: PathBuf,
    data: PathBuf,
    folder: Option<TempDir>,
    port: u16,
    /// What `arcadia env --admin` says, as of the last start.
    pub environment: BTreeMap<String, String>,
    pub pid: i32,
    way: Option<Way>,
}

impl Site {
    /// A directory of its own, with nothing in it yet.
    pub fn new(root: &Path, built: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("arcadia-soak-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let program = folder.path().join("arcadia");
        std::fs::copy(built, &program)
            .with_context(|| format!("{}; build it with `cargo build`", built.display()))?;
        Ok(Self {
            root: root.to_owned(),
            program,
            data: folder.path().join("data"),
            folder: Some(folder),
            port,
            environment: BTreeMap::new(),
            pid: 0,
            way: None,
        })
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The program in the environment of this site's shells.
    fn program(&self) -> Result<Command> {
        let mut command = std::process::Command::new(&self.program);
        install::with_tools(&self.root, &mut command)?;
        command.env("ARCADIA_DATA", &self.data);
        // The soak's own surroundings are no matter of the site.
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"] {
            command.env_remove(name);
        }
        let mut command = Command::from(command);
        command.kill_on_drop(true).stdin(std::process::Stdio::null());
        Ok(command)
    }

    /// Runs `arcadia` with these words.
    pub async fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.program()?;
        command.args(words);
        let limit = Duration::from_secs(COMMAND_SECONDS_MAX);
        let output = tokio::time::timeout(limit, command.output()).await;
        output
            .with_context(|| format!("arcadia {}: no end within {COMMAND_SECONDS_MAX} s", words.join(" ")))?
            .with_context(|| format!("{} cannot be run", self.program.display()))
    }

    /// As [`Self::run`], and fails unless the program succeeds; its output.
    pub async fn must(&self, words: &[&str]) -> Result<String> {
        let output = self.run(words).await?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "arcadia {}: {}: {}", words.join(" "), output.status, told.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts the site; how long it took until it could serve.
    pub async fn up(&mut self) -> Result<Duration> {
        let port = self.port.to_string();
        let began = Instant::now();
        self.must(&["up", "--detach", "--offline", "--port", &port]).await?;
        let took = began.elapsed();
        let status: Value = serde_json::from_str(&self.must(&["status", "--json"]).await?)?;
        let pid = status["pid"].as_i64().context("the site tells no process")?;
        self.pid = i32::try_from(pid)?;
        let proxy = status["addresses"]["proxy"].as_str().context("the site tells no proxy")?;
        self.way = Some(Way::to(proxy, &self.data.join("ca.pem"))?);
        self.environment = serde_json::from_str(&self.must(&["env", "--admin", "--format", "json"]).await?)?;
        Ok(took)
    }

    pub fn client(&self) -> Result<Client> {
        Ok(self.way.as_ref().context("the site was not started")?.client())
    }

    pub fn variable(&self, name: &str) -> Result<&str> {
        let value = self.environment.get(name);
        value.map(String::as_str).with_context(|| format!("`arcadia env --admin` has no {name}"))
    }

    pub fn subscription(&self) -> Result<String> {
        Ok(format!("/subscriptions/{}", self.variable("AZURE_SUBSCRIPTION_ID")?))
    }

    /// A token of the first service principal.
    pub async fn token(&self, audience: For) -> Result<String> {
        let tenant = self.variable("AZURE_TENANT_ID")?;
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={}",
            self.variable("AZURE_CLIENT_ID")?,
            encoded(self.variable("AZURE_CLIENT_SECRET")?),
            encoded(audience.scope()),
        );
        let url = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token");
        let ask = Ask::new(http::Method::POST, url)
            .header("content-type", "application/x-www-form-urlencoded")
            .bytes(form);
        let answer = self.client()?.must(ask).await?;
        Ok(answer["access_token"].as_str().context("no token in the answer")?.to_owned())
    }

    /// Ends the site as it should end, whatever state it is in, and leaves nothing of it. Fails where something of it
    /// panicked at any time.
    pub async fn end(mut self, mut keep: bool) -> Result<()> {
        // A machine's log goes with the machine.
        let mut panics = BTreeSet::from_iter(panics::told(&self.data));
        let machines: Value = match self.must(&["machine", "list", "--json"]).await {
            Ok(text) => serde_json::from_str(&text).unwrap_or_default(),
            Err(_) => Value::Null,
        };
        for machine in machines.as_array().into_iter().flatten() {
            if let Some(name) = machine["name"].as_str() {
                self.must(&["machine", "delete", name]).await?;
            }
        }
        self.must(&["down"]).await?;
        panics.extend(panics::told(&self.data));
        keep |= !panics.is_empty();
        if keep && let Some(folder) = self.folder.take() {
            crate::output::say(format_args!("kept: {}", folder.keep().display()));
        }
        ensure!(panics.is_empty(), "it panicked: {}", Vec::from_iter(panics).join("; "));
        Ok(())
    }
}

/// For forms and queries: everything but letters and digits as `%XX`.
pub fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A site of which nothing is ever wrong, whatever it is asked.
    fn content() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join("log")).unwrap();
        Site {
            root: folder.path().to_owned(),
            program: PathBuf::from("true"),
            data,
            folder: Some(folder),
            port: 0,
            environment: BTreeMap::new(),
            pid: 0,
            way: None,
        }
    }

    #[tokio::test]
    async fn a_site_that_panicked_does_not_end_well() {
        content().end(false).await.unwrap();
        let panicked = content();
        let data = panicked.data.clone();
        std::fs::write(data.join("log/site.log"), "thread 'main' panicked at src/a.rs:1:2:\nno reason\n")
            .unwrap();
        let error = panicked.end(false).await.unwrap_err().to_string();
        assert!(error.contains("it panicked: site.log: thread 'main'"), "{error}");
        assert!(data.exists(), "what is left of it is kept");
        std::fs::remove_dir_all(data.parent().unwrap()).unwrap();
    }
}
