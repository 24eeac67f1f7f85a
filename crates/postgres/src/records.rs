//! What is stored. Sealed like every row; no password is in it, only verifiers and secrets of the site's own making.

use std::net::Ipv4Addr;

use arcadia_arm::Resource;
use arcadia_kernel::{ArmId, Fault};
use arcadia_store::{Record, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Who holds a server name, by folded name. Names are unique in the whole site.
pub(crate) const NAMES: Table<str, NameClaim> = Table::new("postgres/names");

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NameClaim {
    pub server: ArmId,
}

impl Record for NameClaim {}

/// A server's stored properties. Not `Debug`: it holds secrets.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredServer {
    /// Made anew for each server; names its directory.
    pub instance: Uuid,
    /// Whether the server behind it was ever complete.
    pub ready: bool,
    /// Empty until one is given.
    pub administrator_login: String,
    /// Whether the login was given after the server was made, until the server has its role.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub login_is_new: bool,
    /// The administrator's verifier, until the server has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scram: Option<String>,
    /// Whether the administrator was ever given a password.
    #[serde(default = "yes")]
    pub has_password: bool,
    /// The password of the site's own role.
    pub keeper_secret: String,
    pub require_tls: bool,
    pub password_auth: bool,
    pub entra_auth: bool,
    /// Whether any address is let in at all.
    pub public: bool,
    pub version: String,
    /// What else clients see, in their own form.
    pub shown: Value,
}

impl StoredServer {
    /// The administrator's login. A server that takes no passwords may have none.
    pub fn login(&self) -> Option<&str> {
        Some(self.administrator_login.as_str()).filter(|login| !login.is_empty())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredDatabase {
    pub charset: String,
    pub collation: String,
    /// Whether the database is the resource's own: so it is once the operation that makes it has succeeded. Until then
    /// what is in the server under its name may be somebody else's.
    #[serde(default = "yes")]
    pub made: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredRule {
    pub start_ip_address: Ipv4Addr,
    pub end_ip_address: Ipv4Addr,
}

/// A directory principal that administers a server. Not `Debug`: it holds a secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredAdministrator {
    pub object_id: Uuid,
    pub principal_name: String,
    /// `User`, `Group` or `ServicePrincipal`.
    pub principal_type: String,
    pub tenant_id: Uuid,
    /// The password of its role, which only the gateway uses.
    pub role_secret: String,
    /// Whether the role is the resource's own, as with [`StoredDatabase::made`].
    #[serde(default = "yes")]
    pub made: bool,
}

/// Rows that do not say whether they were made are of before, and were.
fn yes() -> bool {
    true
}

/// The stored form of any of these.
pub(crate) fn stored<T: serde::de::DeserializeOwned>(resource: &Resource) -> Result<T, Fault> {
    serde_json::from_value(resource.properties.clone()).map_err(Fault::internal)
}

pub(crate) fn to_stored<T: Serialize>(value: &T) -> Result<Value, Fault> {
    serde_json::to_value(value).map_err(Fault::internal)
}
