//! What the writers write into, made before they begin.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use super::http::{Ask, Client};
use super::site::{For, GRAPH, LOCATION, MANAGEMENT, Site, encoded};
use super::writers::make;

pub const SERVER_VERSION: &str = "api-version=2024-08-01";
pub const BLOB_VERSION: &str = "2020-10-02";
pub const CONTAINER: &str = "soak";
pub const DATABASE: &str = "soak";
pub const TABLE: &str = "written";
pub const MACHINE: &str = "soak-01";

const GROUP: &str = "soak";
const SECRETS_OFFICER: &str = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7";
const BLOB_CONTRIBUTOR: &str = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";
const PASSWORD: &str = "Awesome-Antelope!";
const PRINCIPALS: usize = 3;
const QUERY_SECONDS_MAX: u64 = 60;
const TOKEN_SECONDS_MAX: u64 = 60;

/// The three steps by which a local process gets a token, as people are taught them.
const TOKEN: &str = r#"
url="http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net"
path=$(curl -s -D - -o /dev/null -H Metadata:true "$url" | grep -i Www-Authenticate | cut -d = -f 2 | tr -d '\r\n')
curl -sf -H Metadata:true -H "Authorization: Basic $(cat "$path")" "$url" | grep -o '"access_token":"eyJ'
"#;

/// Where things are, and the tokens to reach them; made anew after every start.
#[derive(Clone)]
pub struct World {
    pub subscription: String,
    pub tenant: String,
    /// Identifiers.
    pub group: String,
    pub vault_id: String,
    pub account_id: String,
    pub server_id: String,
    /// Those that roles are given to.
    pub principals: Vec<String>,
    /// Makes names of this run different from those of another.
    pub mark: String,
    pub data: PathBuf,
    pub arm_token: String,
    pub vault_token: String,
    pub storage_token: String,
    environment: BTreeMap<String, String>,
}

impl World {
    /// Makes everything on a site that was just founded.
    pub async fn make(site: &Site, mark: String, with_machine: bool) -> Result<Self> {
        let subscription = site.subscription()?;
        let group = format!("{subscription}/resourceGroups/{GROUP}");
        let id = |kind: &str, name: String| format!("{group}/providers/{kind}/{name}");
        let mut world = Self {
            vault_id: id("Microsoft.KeyVault/vaults", format!("kv{mark}")),
            account_id: id("Microsoft.Storage/storageAccounts", format!("st{mark}")),
            server_id: id("Microsoft.DBforPostgreSQL/flexibleServers", format!("pg{mark}")),
            tenant: site.variable("AZURE_TENANT_ID")?.to_owned(),
            subscription,
            group,
            principals: Vec::new(),
            mark,
            data: site.data().to_owned(),
            arm_token: String::new(),
            vault_token: String::new(),
            storage_token: String::new(),
            environment: BTreeMap::new(),
        };
        world.refresh(site).await?;
        let mut client = site.client()?;
        world.make_resources(&mut client).await?;
        world.make_principals(site, &mut client).await?;
        let ask = Ask::new(Method::PUT, world.blob(&format!("{CONTAINER}?restype=container")));
        client.must(ask.bearer(&world.storage_token).header("x-ms-version", BLOB_VERSION)).await?;
        let table = format!("CREATE TABLE {TABLE} (batch bigint, row bigint, content text)");
        world.query("postgres", &format!("CREATE DATABASE {DATABASE}")).await?;
        world.query(DATABASE, &table).await?;
        if with_machine {
            site.must(&["machine", "create", MACHINE, "--connect", "--resource-group", GROUP]).await?;
        }
        Ok(world)
    }

    /// After a start: tokens and addresses may be others.
    pub async fn refresh(&mut self, site: &Site) -> Result<()> {
        self.environment.clone_from(&site.environment);
        self.arm_token = site.token(For::Management).await?;
        self.vault_token = site.token(For::Vault).await?;
        self.storage_token = site.token(For::Storage).await?;
        Ok(())
    }

    async fn make_resources(&self, client: &mut Client) -> Result<()> {
        let put = |id: &str, version: &str| format!("{MANAGEMENT}{id}?api-version={version}");
        let token = &self.arm_token;
        let group = json!({ "location": LOCATION });
        make(client, token, &put(&self.group, "2024-11-01"), &group).await?;
        let vault = json!({ "location": LOCATION, "properties": {
            "tenantId": self.tenant, "sku": { "family": "A", "name": "standard" },
            "enableRbacAuthorization": true, "accessPolicies": [],
        }});
        make(client, token, &put(&self.vault_id, "2026-02-01"), &vault).await?;
        let account = json!({
            "location": LOCATION, "kind": "StorageV2", "sku": { "name": "Standard_LRS" }, "properties": {},
        });
        make(client, token, &put(&self.account_id, "2023-05-01"), &account).await?;
        let server = format!("{MANAGEMENT}{}?{SERVER_VERSION}", self.server_id);
        make(client, token, &server, &server_body()).await?;
        let rule = json!({ "properties": { "startIpAddress": "127.0.0.1", "endIpAddress": "127.0.0.1" } });
        let url = format!("{MANAGEMENT}{}/firewallRules/here?{SERVER_VERSION}", self.server_id);
        make(client, token, &url, &rule).await
    }

    /// Applications to give roles to, and the data roles of the writers' own.
    async fn make_principals(&mut self, site: &Site, client: &mut Client) -> Result<()> {
        let graph = site.token(For::Graph).await?;
        for number in 0..PRINCIPALS {
            let body = json!({ "displayName": format!("soak {number}") });
            let ask = Ask::new(Method::POST, format!("{GRAPH}/v1.0/applications"));
            let application = client.must(ask.bearer(&graph).json(&body)).await?;
            let ask = Ask::new(Method::POST, format!("{GRAPH}/v1.0/servicePrincipals"));
            let body = json!({ "appId": application["appId"] });
            let principal = client.must(ask.bearer(&graph).json(&body)).await?;
            self.principals.push(principal["id"].as_str().context("a principal without an id")?.to_owned());
        }
        let filter = encoded(&format!("appId eq '{}'", site.variable("AZURE_CLIENT_ID")?));
        let url = format!("{GRAPH}/v1.0/servicePrincipals?$filter={filter}");
        let found = client.must(Ask::get(url).bearer(&graph)).await?;
        let own = found["value"][0]["id"].as_str().context("the first service principal is not found")?;
        for (number, (scope, role)) in
            [(&self.vault_id, SECRETS_OFFICER), (&self.account_id, BLOB_CONTRIBUTOR)].into_iter().enumerate()
        {
            let definition =
                format!("{}/providers/Microsoft.Authorization/roleDefinitions/{role}", self.subscription);
            let body = json!({ "properties": { "roleDefinitionId": definition, "principalId": own } });
            let name = uuid::Uuid::from_u128(number as u128 + 1);
            let url = format!(
                "{MANAGEMENT}{scope}/providers/Microsoft.Authorization/roleAssignments/{name}?api-version=2022-04-01"
            );
            client.must(Ask::new(Method::PUT, url).bearer(&self.arm_token).json(&body)).await?;
        }
        Ok(())
    }

    /// An address of the vault's data plane.
    pub fn vault(&self, path: &str) -> String {
        format!("https://kv{}.vault.azure.net/{path}", self.mark)
    }

    pub fn secret(&self, name: &str, query: &str) -> String {
        self.vault(&format!("secrets/{name}?{query}"))
    }

    pub fn blob(&self, path: &str) -> String {
        format!("https://st{}.blob.core.windows.net/{path}", self.mark)
    }

    /// `psql` through the gateway, verifying whom it talks to.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = Command::new("psql");
        let server = format!("pg{}", self.mark);
        command.args(["-X", "-q", "-A", "-t", "-d"]).arg(format!(
            "host={server}.postgres.database.azure.com port=5432 user=arcadmin dbname={database} \
             connect_timeout=20 sslmode=verify-full"
        ));
        command.envs(&self.environment).env("PGPASSWORD", PASSWORD).kill_on_drop(true);
        command
    }

    pub async fn query(&self, database: &str, statement: &str) -> Result<String> {
        let mut command = self.psql(database);
        command.args(["-c", statement]).stdin(Stdio::null());
        let output = tokio::time::timeout(Duration::from_secs(QUERY_SECONDS_MAX), command.output()).await;
        let output = output.context("psql does not end")?.context("psql cannot be run")?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8(output.stdout)?)
    }
}

pub fn server_body() -> Value {
    json!({
        "location": LOCATION,
        "sku": { "name": "Standard_B1ms", "tier": "Burstable" },
        "properties": {
            "createMode": "Create", "administratorLogin": "arcadmin", "administratorLoginPassword": PASSWORD,
            "network": { "publicNetworkAccess": "Enabled" },
        },
    })
}

/// Waits until the machine's own identity gives a token; how long that took.
pub async fn until_token(site: &Site) -> Result<Duration> {
    let began = Instant::now();
    loop {
        // A machine that was killed is started again by this.
        let output = site.run(&["machine", "exec", MACHINE, "--", "bash", "-c", TOKEN]).await?;
        if output.status.success() && output.stdout.starts_with(b"\"access_token\"") {
            return Ok(began.elapsed());
        }
        if began.elapsed().as_secs() > TOKEN_SECONDS_MAX {
            bail!("the machine gets no token: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
