//! Database servers of a site: made through the resource manager, reached through the gateway.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http::{HeaderName, Method, StatusCode};
use serde_json::{Value, json};

use crate::load::{Ask, connect, exchange, send};
use crate::postgres::{Door, PASSWORD, must};
use crate::site::{ARM, ARM_SCOPE, Site};

const VERSION: &str = "2024-08-01";
const LOGIN: &str = "benchadmin";
const DATABASE: &str = "bench";
const ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");
const POLL: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// Calls of the resource manager that may go on in the background.
pub struct DatabaseSite {
    pub site: Site,
    group: String,
    token: String,
}

impl DatabaseSite {
    pub async fn furnish(site: Site) -> Result<Self> {
        let group = site.make_group().await?;
        let token = site.admin_token(ARM_SCOPE).await?;
        Ok(Self { site, group, token })
    }

    fn path(&self, name: &str, below: &str) -> String {
        let server = format!("{}/providers/Microsoft.DBforPostgreSQL/flexibleServers/{name}", self.group);
        format!("{server}{below}?api-version={VERSION}")
    }

    /// Puts a resource and waits until it is complete.
    async fn put(&self, path: &str, body: &Value) -> Result<()> {
        let peer = self.site.peer(ARM)?;
        let mut connection = connect(&peer).await?;
        let ask = Ask::with_body(Method::PUT, path, body.to_string()).bearer(&self.token)?.json()?;
        let answer = send(&mut connection, &peer, ask).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
        ensure!(status.is_success(), "PUT {path}: {status} {}", String::from_utf8_lossy(&text));
        let Some(operation) = headers.get(ASYNC_OPERATION) else { return Ok(()) };
        let poll = operation.to_str()?.parse::<http::Uri>()?;
        let poll = poll.path_and_query().context("where the operation is asked about")?.to_string();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ask = Ask::get(poll.clone()).bearer(&self.token)?;
            let (status, text) = exchange(&mut connection, &peer, ask).await?;
            let told: Value = serde_json::from_slice(&text).unwrap_or_default();
            match told.get("status").and_then(Value::as_str) {
                Some("Succeeded") => return Ok(()),
                Some("InProgress") if status == StatusCode::OK && Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                _ => bail!("PUT {path} came to {status} {told}"),
            }
        }
    }

    /// A server with one database, open to this machine.
    pub async fn make_server(&self, name: &str) -> Result<Door> {
        let server = json!({
            "location": "uksouth",
            "sku": { "name": "Standard_B1ms", "tier": "Burstable" },
            "properties": {
                "createMode": "Create",
                "administratorLogin": LOGIN,
                "administratorLoginPassword": PASSWORD,
                "network": { "publicNetworkAccess": "Enabled" },
            },
        });
        self.put(&self.path(name, ""), &server).await?;
        let addresses =
            json!({ "properties": { "startIpAddress": "127.0.0.1", "endIpAddress": "127.0.0.1" } });
        self.put(&self.path(name, "/firewallRules/bench"), &addresses).await?;
        self.put(&self.path(name, &format!("/databases/{DATABASE}")), &json!({ "properties": {} })).await?;
        self.door(name)
    }

    fn door(&self, name: &str) -> Result<Door> {
        let told = self.site.command(&["env", "--format", "json"])?;
        let told: Value = serde_json::from_str(&told)?;
        let address = told.get("PGHOSTADDR").and_then(Value::as_str).context("no gateway listens")?;
        let address: Ipv4Addr = address.parse().context("the gateway's address")?;
        let host = format!("{name}.postgres.database.azure.com");
        Door::new(SocketAddrV4::new(address, 5432), &host, LOGIN, DATABASE)
    }
}

/// One question, as a person's first.
pub fn first_query(programs: &Path, door: &Door) -> Result<()> {
    let said = must(
        door.client(programs, "psql")
            .args(["--no-psqlrc", "--tuples-only", "--no-align"])
            .args(["--command", "SELECT 40 + 2"]),
    )?;
    ensure!(said.trim() == "42", "psql says {said:?}");
    Ok(())
}
