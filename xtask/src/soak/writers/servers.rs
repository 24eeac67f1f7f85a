//! What is made asynchronously: databases and firewall rules of a server, and whole servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use http::Method;
use serde_json::{Value, json};

use super::{Look, SETTLE_SECONDS_MAX, Tools, Trouble, Writer, change, list, operation_end};
use crate::soak::http::Ask;
use crate::soak::journal::{Counts, Journal};
use crate::soak::setup::{DATABASE, SERVER_VERSION, server_body};
use crate::soak::site::MANAGEMENT;

const POLL: Duration = Duration::from_millis(200);
/// How soon a site takes up what it accepted before it was killed, once its servers answer.
const UNSEEN: Duration = Duration::from_secs(5);
const NAMES: u64 = 4;

pub struct Servers {
    /// `databases/d1`, `firewallRules/r1` and `server/pg1`, each with what it says.
    journal: Journal<String>,
    /// The operation that was accepted last and whose end was not seen, and what it is for.
    open: Option<(String, String)>,
    made: u64,
}

impl Servers {
    pub fn new() -> Self {
        Self { journal: Journal::new(), open: None, made: 0 }
    }

    /// Waits for the end of the operation that is under way; it must be a good one.
    async fn finish(&mut self, tools: &mut Tools) -> Result<(), Trouble> {
        let Some((key, url)) = self.open.clone() else { return Ok(()) };
        let end = operation_end(&mut tools.client, &tools.world.arm_token, &url).await?;
        self.open = None;
        if end == "Succeeded" {
            Ok(())
        } else {
            Err(Trouble::Refused(format!("the operation on {key}: {end}")))
        }
    }

    /// What the site's lists and the servers themselves say, once they say the same.
    async fn found(&self, tools: &mut Tools) -> Result<BTreeMap<String, String>> {
        let began = Instant::now();
        loop {
            let (listed, real) = (self.listed(tools).await?, self.real(tools).await?);
            let names = |part: &str| -> BTreeSet<String> {
                listed.keys().filter(|key| key.starts_with(part)).cloned().collect()
            };
            let ready = !listed.iter().any(|(key, state)| key.starts_with("server/") && state != "Ready");
            let servers = names("server/").len() + 1;
            if ready && real == Some((names("databases/"), servers)) {
                return Ok(listed);
            }
            anyhow::ensure!(
                began.elapsed().as_secs() < SETTLE_SECONDS_MAX,
                "the site lists {listed:?}, and there are {real:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn listed(&self, tools: &mut Tools) -> Result<BTreeMap<String, String>> {
        let token = tools.world.arm_token.clone();
        let mut found = BTreeMap::new();
        for part in ["databases", "firewallRules"] {
            let url = format!("{MANAGEMENT}{}/{part}?{SERVER_VERSION}", tools.world.server_id);
            for item in list(&mut tools.client, url, &token).await? {
                let name = item["name"].as_str().context("no name")?;
                let says = item["properties"]["startIpAddress"].as_str().unwrap_or_default();
                // Others are the server's own, or were made before the writers began.
                if name.starts_with("soak-") {
                    found.insert(format!("{part}/{name}"), says.to_owned());
                }
            }
        }
        let (servers, _) = tools.world.server_id.rsplit_once('/').context("an identifier")?;
        for item in list(&mut tools.client, format!("{MANAGEMENT}{servers}?{SERVER_VERSION}"), &token).await?
        {
            let name = item["name"].as_str().context("no name")?;
            let state = item["properties"]["state"].as_str().unwrap_or_default();
            if !tools.world.server_id.ends_with(name) {
                found.insert(format!("server/{name}"), state.to_owned());
            }
        }
        Ok(found)
    }

    /// The databases that the server has, and how many servers have files.
    async fn real(&self, tools: &mut Tools) -> Result<Option<(BTreeSet<String>, usize)>> {
        let query = "SELECT datname FROM pg_database WHERE datname LIKE 'soak-%'";
        // Not while it recovers.
        let Ok(text) = tools.world.query(DATABASE, query).await else { return Ok(None) };
        let databases = text.lines().map(|name| format!("databases/{name}")).collect();
        let folders = fs::read_dir(tools.world.data.join("postgres"))?.flatten();
        let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(Some((databases, names.filter(|name| uuid::Uuid::try_parse(name).is_ok()).count())))
    }

    fn address(tools: &Tools, key: &str) -> String {
        let server = &tools.world.server_id;
        match key.strip_prefix("server/") {
            Some(name) => {
                let servers = server.rsplit_once('/').map_or("", |(servers, _)| servers);
                format!("{MANAGEMENT}{servers}/{name}?{SERVER_VERSION}")
            }
            None => format!("{MANAGEMENT}{server}/{key}?{SERVER_VERSION}"),
        }
    }

    /// A key, what it is to say, and the body for that.
    fn draw(&mut self, tools: &mut Tools) -> (String, String, Value) {
        self.made += 1;
        let number = tools.random.u64(0..NAMES);
        match tools.random.u8(0..8) {
            0 => {
                let extra = self.journal.present().find(|(key, _)| key.starts_with("server/"));
                let name = format!("server/pgx{}n{}", tools.world.mark, self.made);
                let key = extra.map_or(name, |(key, _)| key.to_owned());
                (key, "Ready".to_owned(), server_body())
            }
            1..=3 => (format!("databases/soak-{number}"), String::new(), json!({ "properties": {} })),
            _ => {
                let address = format!("10.1.{number}.{}", self.made % 250);
                let body = json!({ "properties": { "startIpAddress": address, "endIpAddress": address } });
                (format!("firewallRules/soak-{number}"), address, body)
            }
        }
    }
}

#[async_trait]
impl Writer for Servers {
    fn name(&self) -> &'static str {
        "servers, databases and rules"
    }

    fn needs_database(&self) -> bool {
        true
    }

    async fn write(&mut self, tools: &mut Tools) -> Result<(), Trouble> {
        let (key, says, body) = self.draw(tools);
        let url = Self::address(tools, &key);
        // A rule can be changed; a server and a database are there or not.
        let delete =
            self.journal.now(&key).is_some() && (!key.starts_with("firewall") || tools.random.bool());
        let (ask, to) = if delete {
            (Ask::new(Method::DELETE, url), None)
        } else {
            (Ask::new(Method::PUT, url).json(&body), Some(says))
        };
        let ask = ask.bearer(&tools.world.arm_token);
        let answer = change(&mut self.journal, (&key, to), &mut tools.client, ask).await?;
        if let Some(url) = answer.header("azure-asyncoperation") {
            self.open = Some((key, url.to_owned()));
        }
        self.finish(tools).await
    }

    async fn verify(&mut self, tools: &mut Tools, _look: Look) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        if let Err(trouble) = self.finish(tools).await {
            wrong.push(format!("{trouble:?}"));
        }
        let mut found = self.found(tools).await?;
        let keys = self.journal.to_verify(true, 0, &mut tools.random);
        if keys.iter().any(|key| self.journal.is_in_doubt(key)) {
            // A change that was accepted and not answered may not have begun when lists and servers agreed.
            tokio::time::sleep(UNSEEN).await;
            found = self.found(tools).await?;
        }
        for key in keys {
            let says = found.remove(&key);
            wrong.extend(self.journal.settle(&key, says).err());
        }
        for (key, says) in found {
            wrong.extend(self.journal.settle(&key, Some(says)).err());
        }
        Ok(wrong)
    }

    fn counts(&self) -> Counts {
        self.journal.counts
    }
}
