//! Secrets: new versions, deleted and recovered.

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use http::Method;
use serde_json::json;

use super::{Look, Tools, Trouble, Writer, change, look_up};
use crate::soak::http::Ask;
use crate::soak::journal::{Counts, Journal};

const NAMES: u64 = 12;
const PADDING_BYTES_MAX: usize = 4000;
const VERSION: &str = "api-version=7.4";

#[derive(Clone, Debug, PartialEq)]
enum Secret {
    Live(String),
    /// With the value that comes back.
    Deleted(String),
}

/// A version that was acknowledged.
struct Version {
    name: String,
    id: String,
    value: String,
    round: u64,
}

pub struct Secrets {
    title: &'static str,
    journal: Journal<Secret>,
    versions: Vec<Version>,
    written: u64,
}

impl Secrets {
    pub fn new(title: &'static str) -> Self {
        Self { title, journal: Journal::new(), versions: Vec::new(), written: 0 }
    }

    async fn set(&mut self, tools: &mut Tools, name: &str) -> Result<(), Trouble> {
        self.written += 1;
        let padding = "x".repeat(tools.random.usize(0..PADDING_BYTES_MAX));
        let value = format!("{} {} {} {padding}", tools.round, self.title, self.written);
        let ask = Ask::new(Method::PUT, tools.world.secret(name, VERSION))
            .bearer(&tools.world.vault_token)
            .json(&json!({ "value": value }));
        let to = Some(Secret::Live(value.clone()));
        let answer = change(&mut self.journal, (name, to), &mut tools.client, ask).await?;
        let id =
            answer.json()["id"].as_str().and_then(|id| id.rsplit('/').next()).unwrap_or_default().to_owned();
        self.versions.push(Version { name: name.to_owned(), id, value, round: tools.round });
        Ok(())
    }

    async fn found(&self, tools: &mut Tools, name: &str) -> Result<Option<Secret>> {
        let token = tools.world.vault_token.clone();
        let live = Ask::get(tools.world.secret(name, VERSION)).bearer(&token);
        if let Some(secret) = look_up(&mut tools.client, live).await? {
            let value = secret["value"].as_str().context("a secret without a value")?;
            return Ok(Some(Secret::Live(value.to_owned())));
        }
        let deleted = Ask::get(tools.world.vault(&format!("deletedsecrets/{name}?{VERSION}"))).bearer(&token);
        if look_up(&mut tools.client, deleted).await?.is_none() {
            return Ok(None);
        }
        // A deleted secret's value is not shown; it is compared when it has been recovered.
        let Some(Secret::Live(value) | Secret::Deleted(value)) = self.journal.now(name) else {
            anyhow::bail!("{name} is deleted and was never set");
        };
        Ok(Some(Secret::Deleted(value.clone())))
    }

    async fn recover(&mut self, tools: &mut Tools, name: &str, value: String) -> Result<(), Trouble> {
        let url = tools.world.vault(&format!("deletedsecrets/{name}/recover?{VERSION}"));
        let ask = Ask::new(Method::POST, url).bearer(&tools.world.vault_token);
        change(&mut self.journal, (name, Some(Secret::Live(value))), &mut tools.client, ask).await?;
        Ok(())
    }

    /// Every acknowledged version of a live secret has its value.
    async fn verify_versions(&mut self, tools: &mut Tools, look: Look) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for version in &self.versions {
            let is_live = matches!(self.journal.now(&version.name), Some(Secret::Live(_)));
            if !is_live || (look == Look::Changes && version.round != tools.round) {
                continue;
            }
            let url = tools.world.vault(&format!("secrets/{}/{}?{VERSION}", version.name, version.id));
            let ask = Ask::get(url).bearer(&tools.world.vault_token);
            let found = look_up(&mut tools.client, ask).await?;
            if found.as_ref().and_then(|found| found["value"].as_str()) != Some(&version.value) {
                let (name, id) = (&version.name, &version.id);
                wrong.push(format!("version {id} of {name} is {found:?}, was {}", version.value));
            }
        }
        Ok(wrong)
    }
}

#[async_trait]
impl Writer for Secrets {
    fn name(&self) -> &'static str {
        self.title
    }

    async fn write(&mut self, tools: &mut Tools) -> Result<(), Trouble> {
        let name = format!("{}-{}", self.title.replace(' ', "-"), tools.random.u64(0..NAMES));
        match self.journal.now(&name).cloned() {
            Some(Secret::Deleted(value)) => self.recover(tools, &name, value).await,
            Some(Secret::Live(value)) if tools.random.u8(0..5) == 0 => {
                let ask = Ask::new(Method::DELETE, tools.world.secret(&name, VERSION))
                    .bearer(&tools.world.vault_token);
                let to = Some(Secret::Deleted(value));
                change(&mut self.journal, (&name, to), &mut tools.client, ask).await.map(|_| ())
            }
            _ => self.set(tools, &name).await,
        }
    }

    async fn verify(&mut self, tools: &mut Tools, look: Look) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for name in look.keys(&self.journal, &mut tools.random) {
            let found = self.found(tools, &name).await?;
            wrong.extend(self.journal.settle(&name, found).err());
        }
        if look == Look::Everything {
            let deleted: Vec<_> =
                self.journal.present().map(|(name, secret)| (name.to_owned(), secret.clone())).collect();
            for (name, secret) in deleted {
                if let Secret::Deleted(value) = secret
                    && let Err(trouble) = self.recover(tools, &name, value).await
                {
                    wrong.push(format!("{name} is not recovered: {trouble:?}"));
                }
                let found = self.found(tools, &name).await?;
                wrong.extend(self.journal.settle(&name, found).err());
            }
        }
        wrong.extend(self.verify_versions(tools, look).await?);
        Ok(wrong)
    }

    fn counts(&self) -> Counts {
        self.journal.counts
    }
}
