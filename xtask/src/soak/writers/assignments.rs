//! Role assignments: made and taken away.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use http::Method;
use serde_json::json;

use super::{Look, Tools, Trouble, Writer, change, list, look_up};
use crate::soak::http::Ask;
use crate::soak::journal::{Counts, Journal};
use crate::soak::site::MANAGEMENT;

const VERSION: &str = "api-version=2022-04-01";
/// Reader, Key Vault Secrets User, Storage Blob Data Reader.
const ROLES: [&str; 3] = [
    "acdd72a7-3385-48ef-bd42-f606fba81ae7",
    "4633458b-17de-408a-b874-0445c86b69e6",
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
];
const PRESENT_MAX: usize = 24;

/// A role of a principal at a scope; there can be only one assignment of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    scope: String,
    principal: String,
    role: &'static str,
}

pub struct Assignments {
    journal: Journal<Grant>,
    /// Where each name was ever used.
    scopes: BTreeMap<String, String>,
}

impl Assignments {
    pub fn new() -> Self {
        Self { journal: Journal::new(), scopes: BTreeMap::new() }
    }

    fn unused(&self, tools: &mut Tools) -> Option<Grant> {
        let used: BTreeSet<&Grant> = self.journal.present().map(|(_, grant)| grant).collect();
        let world = &tools.world;
        let mut free = Vec::new();
        for scope in [&world.group, &world.vault_id, &world.account_id, &world.server_id] {
            for principal in &world.principals {
                for role in ROLES {
                    free.push(Grant { scope: scope.clone(), principal: principal.clone(), role });
                }
            }
        }
        free.retain(|grant| !used.contains(grant));
        tools.random.choice(free)
    }
}

fn url(scope: &str, name: &str) -> String {
    format!("{MANAGEMENT}{scope}/providers/Microsoft.Authorization/roleAssignments/{name}?{VERSION}")
}

#[async_trait]
impl Writer for Assignments {
    fn name(&self) -> &'static str {
        "role assignments"
    }

    async fn write(&mut self, tools: &mut Tools) -> Result<(), Trouble> {
        let present: Vec<String> = self.journal.present().map(|(name, _)| name.to_owned()).collect();
        let room = tools.random.usize(0..PRESENT_MAX);
        let unused = if present.len() <= room { self.unused(tools) } else { None };
        let (name, ask, to) = if let Some(grant) = unused {
            let name = uuid::Builder::from_random_bytes(tools.random.u128(..).to_le_bytes()).into_uuid();
            let definition = format!(
                "{}/providers/Microsoft.Authorization/roleDefinitions/{}",
                tools.world.subscription, grant.role
            );
            let body = json!({
                "properties": { "roleDefinitionId": definition, "principalId": grant.principal }
            });
            let name = name.to_string();
            self.scopes.insert(name.clone(), grant.scope.clone());
            (name.clone(), Ask::new(Method::PUT, url(&grant.scope, &name)).json(&body), Some(grant))
        } else {
            let Some(name) = tools.random.choice(present) else { return Ok(()) };
            (name.clone(), Ask::new(Method::DELETE, url(&self.scopes[&name], &name)), None)
        };
        let ask = ask.bearer(&tools.world.arm_token);
        change(&mut self.journal, (&name, to), &mut tools.client, ask).await.map(|_| ())
    }

    async fn verify(&mut self, tools: &mut Tools, look: Look) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let token = tools.world.arm_token.clone();
        for name in look.keys(&self.journal, &mut tools.random) {
            let scope = self.scopes[&name].clone();
            let ask = Ask::get(url(&scope, &name)).bearer(&token);
            let found = match look_up(&mut tools.client, ask).await? {
                None => None,
                Some(found) => {
                    let properties = &found["properties"];
                    let text = |name: &str| {
                        properties[name].as_str().map(str::to_owned).context("a part is missing")
                    };
                    let definition = text("roleDefinitionId")?;
                    let role =
                        ROLES.into_iter().find(|role| definition.ends_with(role)).context("another role")?;
                    Some(Grant { scope: text("scope")?, principal: text("principalId")?, role })
                }
            };
            wrong.extend(self.journal.settle(&name, found).err());
        }
        // The list is the other place where one could be half-made.
        let all = format!(
            "{MANAGEMENT}{}/providers/Microsoft.Authorization/roleAssignments?{VERSION}",
            tools.world.group
        );
        let ours = |found: &serde_json::Value| {
            let principal = found["properties"]["principalId"].as_str().unwrap_or_default();
            tools.world.principals.iter().any(|own| own == principal)
        };
        let listed = list(&mut tools.client, all, &token).await?;
        let listed: BTreeSet<&str> =
            listed.iter().filter(|found| ours(found)).filter_map(|found| found["name"].as_str()).collect();
        let wanted: BTreeSet<&str> = self.journal.present().map(|(name, _)| name).collect();
        for name in listed.symmetric_difference(&wanted) {
            wrong.push(format!("the role assignment {name} is in the list or in the journal, not in both"));
        }
        Ok(wrong)
    }

    fn counts(&self) -> Counts {
        self.journal.counts
    }
}
