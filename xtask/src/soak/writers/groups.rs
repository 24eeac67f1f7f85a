//! Resource groups with vaults in them. A group's deletion takes time, and takes its vaults with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use http::Method;
use serde_json::{Value, json};

use super::{Look, SETTLE_SECONDS_MAX, Tools, Trouble, Writer, change, list, look_up};
use crate::soak::http::Ask;
use crate::soak::journal::{Counts, Journal};
use crate::soak::site::{LOCATION, MANAGEMENT};

const GROUP_VERSION: &str = "api-version=2024-11-01";
const VAULT_VERSION: &str = "api-version=2026-02-01";
const GROUPS_MAX: usize = 5;
const VAULTS_MAX: usize = 4;
const POLL: Duration = Duration::from_millis(100);

/// A group as a whole: it is this or that, and never between.
#[derive(Clone, Debug, PartialEq)]
struct Group {
    tag: String,
    /// Name and tag.
    vaults: BTreeMap<String, String>,
}

pub struct Groups {
    journal: Journal<Group>,
    made: u64,
}

impl Groups {
    pub fn new() -> Self {
        Self { journal: Journal::new(), made: 0 }
    }

    async fn put_group(&mut self, tools: &mut Tools, name: &str, group: Group) -> Result<(), Trouble> {
        let body = json!({ "location": LOCATION, "tags": { "n": group.tag } });
        let ask = Ask::new(Method::PUT, group_url(tools, name)).bearer(&tools.world.arm_token).json(&body);
        change(&mut self.journal, (name, Some(group)), &mut tools.client, ask).await.map(|_| ())
    }

    async fn put_vault(&mut self, tools: &mut Tools, name: &str, mut group: Group) -> Result<(), Trouble> {
        let full = group.vaults.len() >= VAULTS_MAX;
        let known = tools.random.choice(group.vaults.keys().cloned()).filter(|_| full || tools.random.bool());
        // Names of deleted vaults stay taken, so a new one has a new name.
        let vault = known.unwrap_or_else(|| format!("kvg{}n{}", tools.world.mark, self.made));
        let tag = self.made.to_string();
        let properties = json!({
            "tenantId": tools.world.tenant, "sku": { "family": "A", "name": "standard" },
            "enableRbacAuthorization": true, "accessPolicies": [],
        });
        let body = json!({ "location": LOCATION, "tags": { "n": tag }, "properties": properties });
        let url = vault_url(tools, name, &vault);
        group.vaults.insert(vault, tag);
        let ask = Ask::new(Method::PUT, url).bearer(&tools.world.arm_token).json(&body);
        change(&mut self.journal, (name, Some(group)), &mut tools.client, ask).await.map(|_| ())
    }

    async fn delete_vault(&mut self, tools: &mut Tools, name: &str, mut group: Group) -> Result<(), Trouble> {
        let Some(vault) = tools.random.choice(group.vaults.keys().cloned()) else { return Ok(()) };
        group.vaults.remove(&vault);
        let ask = Ask::new(Method::DELETE, vault_url(tools, name, &vault)).bearer(&tools.world.arm_token);
        change(&mut self.journal, (name, Some(group)), &mut tools.client, ask).await.map(|_| ())
    }

    /// Returns when the group is gone.
    async fn delete_group(&mut self, tools: &mut Tools, name: &str) -> Result<(), Trouble> {
        let token = tools.world.arm_token.clone();
        let ask = Ask::new(Method::DELETE, group_url(tools, name)).bearer(&token);
        change(&mut self.journal, (name, None), &mut tools.client, ask).await?;
        let began = Instant::now();
        while began.elapsed().as_secs() < SETTLE_SECONDS_MAX {
            let answer = tools.client.send(Ask::get(group_url(tools, name)).bearer(&token)).await?;
            if answer.status.as_u16() == 404 {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Trouble::Refused(format!("{name} is not gone after {SETTLE_SECONDS_MAX} s")))
    }

    /// The group as it is once nothing works on it any more.
    async fn found(&self, tools: &mut Tools, name: &str) -> Result<Option<Group>> {
        let token = tools.world.arm_token.clone();
        let began = Instant::now();
        let group = loop {
            let ask = Ask::get(group_url(tools, name)).bearer(&token);
            let Some(group) = look_up(&mut tools.client, ask).await? else { return Ok(None) };
            match group["properties"]["provisioningState"].as_str() {
                Some("Succeeded") => break group,
                _ if began.elapsed().as_secs() > SETTLE_SECONDS_MAX => bail!("{name} stays {group}"),
                _ => tokio::time::sleep(POLL).await,
            }
        };
        let vaults = format!(
            "{MANAGEMENT}{}/resourceGroups/{name}/providers/Microsoft.KeyVault/vaults?{VAULT_VERSION}",
            tools.world.subscription
        );
        let vaults = list(&mut tools.client, vaults, &token).await?;
        let vaults = vaults.iter().map(|vault| {
            let name = vault["name"].as_str().context("a vault without a name")?.to_owned();
            let state = vault["properties"]["provisioningState"].as_str().unwrap_or("Succeeded");
            anyhow::ensure!(["Succeeded", "RegisteringDns"].contains(&state), "the vault {name} is {state}");
            Ok((name, tag(vault)))
        });
        Ok(Some(Group { tag: tag(&group), vaults: vaults.collect::<Result<_>>()? }))
    }
}

fn tag(resource: &Value) -> String {
    resource["tags"]["n"].as_str().unwrap_or_default().to_owned()
}

fn group_url(tools: &Tools, name: &str) -> String {
    format!("{MANAGEMENT}{}/resourceGroups/{name}?{GROUP_VERSION}", tools.world.subscription)
}

fn vault_url(tools: &Tools, group: &str, name: &str) -> String {
    format!(
        "{MANAGEMENT}{}/resourceGroups/{group}/providers/Microsoft.KeyVault/vaults/{name}?{VAULT_VERSION}",
        tools.world.subscription
    )
}

#[async_trait]
impl Writer for Groups {
    fn name(&self) -> &'static str {
        "groups and vaults"
    }

    async fn write(&mut self, tools: &mut Tools) -> Result<(), Trouble> {
        self.made += 1;
        let present: Vec<_> =
            self.journal.present().map(|(name, group)| (name.to_owned(), group.clone())).collect();
        let room = present.len() < GROUPS_MAX && tools.random.u8(0..6) == 0;
        let Some((name, group)) = tools.random.choice(present).filter(|_| !room) else {
            let group = Group { tag: self.made.to_string(), vaults: BTreeMap::new() };
            return self.put_group(tools, &format!("soak-{}", self.made), group).await;
        };
        match tools.random.u8(0..20) {
            0..=1 => self.delete_group(tools, &name).await,
            2..=4 => self.put_group(tools, &name, Group { tag: self.made.to_string(), ..group }).await,
            5..=8 => self.delete_vault(tools, &name, group).await,
            _ => self.put_vault(tools, &name, group).await,
        }
    }

    async fn verify(&mut self, tools: &mut Tools, look: Look) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for name in look.keys(&self.journal, &mut tools.random) {
            let found = self.found(tools, &name).await?;
            wrong.extend(self.journal.settle(&name, found).err());
        }
        // What outlives its group is in no group's list.
        let all = format!(
            "{MANAGEMENT}{}/providers/Microsoft.KeyVault/vaults?{VAULT_VERSION}",
            tools.world.subscription
        );
        let listed = list(&mut tools.client, all, &tools.world.arm_token).await?;
        let own = format!("kvg{}n", tools.world.mark);
        let listed = listed.iter().filter_map(|vault| vault["name"].as_str());
        let listed: BTreeSet<&str> = listed.filter(|name| name.starts_with(&own)).collect();
        let wanted: BTreeSet<&str> =
            self.journal.present().flat_map(|(_, group)| group.vaults.keys()).map(String::as_str).collect();
        for name in listed.symmetric_difference(&wanted) {
            wrong.push(format!("the vault {name} is in the list or in the journal, not in both"));
        }
        Ok(wrong)
    }

    fn counts(&self) -> Counts {
        self.journal.counts
    }
}
