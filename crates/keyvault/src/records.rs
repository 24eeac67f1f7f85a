//! What is stored: tables, keys and records. Every key is folded; every record keeps the case it was given.

use std::collections::BTreeMap;

use arcadia_arm::Resource;
use arcadia_kernel::ArmId;
use arcadia_store::{Record, Table};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who holds a vault name, by folded name. Names are unique in the whole site and stay taken while the vault is
/// soft-deleted. Every change of a vault's secrets requires this row unchanged, so that nothing is written to a
/// vault that is being deleted or purged.
pub(crate) const NAMES: Table<str, NameClaim> = Table::new("keyvault/names");
/// Soft-deleted vaults by subscription and name.
pub(crate) const DELETED_VAULTS: Table<(String, String), DeletedVault> = Table::new("keyvault/deletedvaults");
/// Live secrets by vault instance and name.
pub(crate) const SECRETS: Table<(Uuid, String), Secret> = Table::new("keyvault/secrets");
/// Soft-deleted secrets by vault instance and name.
pub(crate) const DELETED_SECRETS: Table<(Uuid, String), DeletedSecret> =
    Table::new("keyvault/deletedsecrets");
/// Versions by vault instance, secret key and version.
pub(crate) const VERSIONS: Table<(Uuid, Uuid, String), SecretVersion> = Table::new("keyvault/versions");
/// What is to be purged, by the second when it is; the name is empty for the vault itself.
pub(crate) const DUE: Table<(u64, Uuid, String), Due> = Table::new("keyvault/due");
/// Purged secrets whose versions are still to be removed, by vault instance and secret key.
pub(crate) const REMNANTS: Table<(Uuid, Uuid), Remnant> = Table::new("keyvault/remnants");
/// Purged vaults by instance: an unfinished one still has secrets to be removed.
pub(crate) const PURGES: Table<Uuid, VaultPurge> = Table::new("keyvault/purges");
/// The one key that seals backups.
pub(crate) const BACKUP_KEY: Table<str, BackupKey> = Table::new("keyvault/backupkey");

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameClaim {
    pub vault_id: ArmId,
    /// Made anew for each vault, so that a vault that takes over a name never sees what the former one held.
    pub instance: Uuid,
    pub deleted: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeletedVault {
    pub resource: Resource,
    pub instance: Uuid,
    /// Seconds since 1970, as all times here.
    pub deleted_at: i64,
    pub purge_at: i64,
    pub purge_protected: bool,
}

/// What is known of one version without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    pub enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    pub created: i64,
    pub updated: i64,
}

/// A secret: its name and a copy of its newest version's facts, so that lists read one row an item.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Secret {
    /// As it was first written.
    pub name: String,
    /// Where its versions are; made anew when a name is used again after a purge.
    pub key: Uuid,
    /// The newest version, by order of creation and not by time.
    pub latest: String,
    pub facts: Facts,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeletedSecret {
    pub secret: Secret,
    pub deleted_at: i64,
    pub purge_at: i64,
}

/// One version with its value. Not `Debug`: a value must not reach a log.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SecretVersion {
    /// [`Secret::key`]: with the version, where this row is.
    pub secret: Uuid,
    /// 32 lower-case hexadecimal digits.
    pub version: String,
    pub value: String,
    pub facts: Facts,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Due {
    pub at: u64,
    pub vault: Uuid,
    /// Folded; empty for the vault itself.
    pub secret: String,
    /// Of a vault: where it is in [`DELETED_VAULTS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_vault: Option<(String, String)>,
}

impl Due {
    pub fn key(&self) -> (u64, Uuid, String) {
        (self.at, self.vault, self.secret.clone())
    }

    pub fn of_secret(vault: Uuid, folded: &str, at: i64) -> Self {
        Self { at: at.max(0).unsigned_abs(), vault, secret: folded.to_owned(), deleted_vault: None }
    }

    pub fn of_vault(vault: Uuid, place: (String, String), at: i64) -> Self {
        let at = at.max(0).unsigned_abs();
        Self { at, vault, secret: String::new(), deleted_vault: Some(place) }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Remnant {
    pub vault: Uuid,
    pub key: Uuid,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VaultPurge {
    pub instance: Uuid,
    pub subscription: String,
    pub created_at: i64,
    pub finished_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct BackupKey {
    /// Base64url, 32 bytes.
    pub root: String,
    pub keys: Vec<arcadia_crypto::WrappedKey>,
}

impl Record for NameClaim {}
impl Record for DeletedVault {}
impl Record for Secret {}
impl Record for DeletedSecret {}
impl Record for SecretVersion {}
impl Record for Due {}
impl Record for Remnant {}
impl Record for VaultPurge {}
impl Record for BackupKey {}

/// Object and vault names compare without regard to case; both are ASCII.
pub(crate) fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}
