//! Secrets as clients see them.

use std::collections::BTreeMap;

use arcadia_kernel::{Fault, Reply};
use serde::Serialize;

use crate::records::{DeletedSecret, Facts, Secret, SecretVersion};
use crate::vault::Vault;
use crate::version::ApiVersion;
use crate::{Asked, KeyVault};

/// One secret in any of its forms, in the order the service writes the fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bundle<'a> {
    #[serde(flatten)]
    deleted: Option<Deleted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    id: String,
    attributes: Attributes,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a BTreeMap<String, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Deleted {
    recovery_id: String,
    deleted_date: i64,
    scheduled_purge_date: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    created: i64,
    updated: i64,
    recovery_level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    recoverable_days: Option<u16>,
}

impl Attributes {
    fn of(facts: &Facts, vault: &Vault, version: ApiVersion) -> Self {
        Self {
            enabled: facts.enabled,
            nbf: facts.not_before,
            exp: facts.expires,
            created: facts.created,
            updated: facts.updated,
            recovery_level: vault.recovery_level(),
            recoverable_days: version
                .shows_recoverable_days()
                .then_some(vault.properties.soft_delete_retention_in_days),
        }
    }
}

/// Makes bundles for one request.
pub(super) struct Writer<'a> {
    origin: String,
    asked: &'a Asked,
}

impl<'a> Writer<'a> {
    pub fn new(keyvault: &KeyVault, asked: &'a Asked) -> Self {
        Self { origin: keyvault.names.vault_origin(asked.vault.name()), asked }
    }

    /// `https://{vault}/secrets/{name}/{version}`.
    pub fn id(&self, name: &str, version: &str) -> String {
        [&self.origin, "/secrets/", name, "/", version].concat()
    }

    pub fn with_value<'b>(&self, secret: &'b Secret, version: &'b SecretVersion) -> Bundle<'b> {
        let id = self.id(&secret.name, &version.version);
        Bundle { value: Some(&version.value), ..self.bundle(id, &version.facts) }
    }

    pub fn without_value<'b>(&self, secret: &'b Secret, version: &'b str, facts: &'b Facts) -> Bundle<'b> {
        self.bundle(self.id(&secret.name, version), facts)
    }

    /// In a list: without a version.
    pub fn item<'b>(&self, secret: &'b Secret) -> Bundle<'b> {
        self.bundle(format!("{}/secrets/{}", self.origin, secret.name), &secret.facts)
    }

    pub fn deleted<'b>(&self, deleted: &'b DeletedSecret) -> Bundle<'b> {
        let secret = &deleted.secret;
        Bundle {
            deleted: Some(self.deletion(deleted)),
            ..self.without_value(secret, &secret.latest, &secret.facts)
        }
    }

    /// In a list of deleted secrets: without a version.
    pub fn deleted_item<'b>(&self, deleted: &'b DeletedSecret) -> Bundle<'b> {
        Bundle { deleted: Some(self.deletion(deleted)), ..self.item(&deleted.secret) }
    }

    fn deletion(&self, deleted: &DeletedSecret) -> Deleted {
        Deleted {
            recovery_id: format!("{}/deletedsecrets/{}", self.origin, deleted.secret.name),
            deleted_date: deleted.deleted_at,
            scheduled_purge_date: deleted.purge_at,
        }
    }

    fn bundle<'b>(&self, id: String, facts: &'b Facts) -> Bundle<'b> {
        Bundle {
            deleted: None,
            value: None,
            content_type: facts.content_type.as_deref(),
            id,
            attributes: Attributes::of(facts, &self.asked.vault, self.asked.version),
            tags: facts.tags.as_ref(),
        }
    }
}

/// Room for an answer without its value.
const BESIDE_VALUE_BYTES: usize = 512;
/// Of a byte that has to be escaped, `\u0001`. The writer wants that much room for every byte before it knows.
const ESCAPED_BYTES: usize = 6;

pub(super) fn reply(bundle: &Bundle<'_>) -> Result<Reply, Fault> {
    Reply::ok_of(BESIDE_VALUE_BYTES + ESCAPED_BYTES * bundle.value.map_or(0, str::len), bundle)
}
