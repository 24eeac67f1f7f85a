//! `Microsoft.DBforPostgreSQL`: both services, and what is nested in their servers.

mod administrators;
mod availability;
mod capabilities;
mod databases;
mod firewall;
mod flexible;
#[cfg(test)]
mod fuzz;
mod password;
mod server;
mod settings;
mod single;

use std::sync::Arc;

use arcadia_arm::{AnyKind, registered};

use crate::Postgres;
use administrators::Administrators;
use databases::Databases;
use firewall::FirewallRules;
pub(crate) use flexible::FlexibleServers;
pub(crate) use single::SingleServers;

/// The types of servers: the older service first.
pub(crate) const SERVERS: [&str; 2] = [Single::SERVERS, Flexible::SERVERS];
pub(crate) const RULES: [&str; 2] = [Single::RULES, Flexible::RULES];
pub(crate) const PROVIDER: &str = "Microsoft.DBforPostgreSQL";
pub(crate) const ADMINISTRATORS: &str = "Microsoft.DBforPostgreSQL/flexibleServers/administrators";

/// One of the two services: what its types are called.
pub(crate) trait Generation: Send + Sync + 'static {
    const SERVERS: &'static str;
    const DATABASES: &'static str;
    const RULES: &'static str;
    const API_VERSIONS: &'static [&'static str];
    /// What a database is ordered by when nothing is said.
    const COLLATION: &'static str;
    const CHARSET: &'static str;
    /// What operations on databases and rules are called: upsert and drop of each.
    const DATABASE_OPERATIONS: [&'static str; 2];
    const RULE_OPERATIONS: [&'static str; 2];
}

pub(crate) struct Single;

impl Generation for Single {
    const SERVERS: &'static str = "Microsoft.DBforPostgreSQL/servers";
    const DATABASES: &'static str = "Microsoft.DBforPostgreSQL/servers/databases";
    const RULES: &'static str = "Microsoft.DBforPostgreSQL/servers/firewallRules";
    const API_VERSIONS: &'static [&'static str] = &["2017-12-01"];
    const COLLATION: &'static str = "English_United States.1252";
    const CHARSET: &'static str = "UTF8";
    const DATABASE_OPERATIONS: [&'static str; 2] =
        ["UpsertElasticServerDatabase", "DropElasticServerDatabase"];
    const RULE_OPERATIONS: [&'static str; 2] =
        ["UpsertElasticServerFirewallRules", "DropElasticServerFirewallRule"];
}

pub(crate) struct Flexible;

impl Generation for Flexible {
    const SERVERS: &'static str = "Microsoft.DBforPostgreSQL/flexibleServers";
    const DATABASES: &'static str = "Microsoft.DBforPostgreSQL/flexibleServers/databases";
    const RULES: &'static str = "Microsoft.DBforPostgreSQL/flexibleServers/firewallRules";
    const API_VERSIONS: &'static [&'static str] =
        &["2026-04-01-preview", "2025-08-01", "2024-08-01", "2023-12-01-preview", "2022-12-01"];
    const COLLATION: &'static str = "en_US.utf8";
    const CHARSET: &'static str = "UTF8";
    const DATABASE_OPERATIONS: [&'static str; 2] =
        ["UpsertServerDatabaseManagementOperation", "DropServerDatabaseManagementOperation"];
    const RULE_OPERATIONS: [&'static str; 2] =
        ["UpsertServerFirewallRulesManagementOperation", "DropServerFirewallRulesManagementOperation"];
}

/// Every kind, for the resource manager.
pub fn kinds(postgres: &Arc<Postgres>) -> Vec<Arc<dyn AnyKind>> {
    vec![
        registered(Arc::new(SingleServers(postgres.clone()))),
        registered(Arc::new(Databases::<Single>::new(postgres.clone()))),
        registered(Arc::new(FirewallRules::<Single>::new())),
        registered(Arc::new(FlexibleServers(postgres.clone()))),
        registered(Arc::new(Databases::<Flexible>::new(postgres.clone()))),
        registered(Arc::new(FirewallRules::<Flexible>::new())),
        registered(Arc::new(Administrators(postgres.clone()))),
    ]
}
