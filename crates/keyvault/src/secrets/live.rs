//! Set, get and update a secret.

use arcadia_kernel::{At, EntropyExt as _, Fault, Permit, Reply, Request};
use arcadia_store::Row;
use uuid::Uuid;

use super::input::{self, Body, ChangeBody, SetBody};
use super::wire::{Writer, reply};
use super::{GetSecret, SetSecret, UpdateSecret};
use crate::faults;
use crate::records::{DELETED_SECRETS, SECRETS, Secret, SecretVersion, VERSIONS, folded};
use crate::{KeyVault, Vault};

/// Where a secret is: `(vault instance, folded name)`.
pub(super) fn place(vault: &Vault, name: &str) -> (Uuid, String) {
    (vault.properties.instance, folded(name))
}

impl KeyVault {
    pub(super) async fn secret(&self, vault: &Vault, name: &str) -> Result<Option<Row<Secret>>, Fault> {
        Ok(self.store.get(SECRETS, &place(vault, name)).await?)
    }

    /// The version that was asked for, or the newest.
    pub(super) async fn secret_version(
        &self,
        vault: &Vault,
        secret: &Secret,
        asked_name: &str,
        asked_version: Option<&str>,
    ) -> Result<Row<SecretVersion>, Fault> {
        let version = asked_version.unwrap_or(&secret.latest).to_owned();
        let key = (vault.properties.instance, secret.key, version);
        self.store.get(VERSIONS, &key).await?.ok_or_else(|| {
            faults::secret_not_found(&match asked_version {
                Some(version) => format!("{asked_name}/{version}"),
                None => asked_name.to_owned(),
            })
        })
    }
}

/// A new version. One commit: the version, and the secret that points to it.
pub(super) async fn set(
    at: At<KeyVault>,
    permit: Permit<SetSecret>,
    input: Body<SetBody>,
) -> Result<Reply, Fault> {
    let name = input.head.param("name");
    let vault = &at.target.vault;
    let (value, facts) = input.value.checked(permit.epoch_seconds())?;
    let version = permit.entropy().uuid().simple().to_string();
    let mut version = SecretVersion { secret: permit.entropy().uuid(), version, value, facts };
    let place = place(vault, name);
    let mut attempts = at.store.attempts();
    loop {
        let mut batch = at.change_of(vault).await?;
        if at.store.get(DELETED_SECRETS, &place).await?.is_some() {
            return Err(faults::secret_is_deleted(name));
        }
        batch.require_absent(DELETED_SECRETS, &place);
        let secret = match at.store.get(SECRETS, &place).await? {
            Some(row) => {
                batch.require_revision(SECRETS, &place, row.revision);
                Secret { latest: version.version.clone(), facts: version.facts.clone(), ..row.value }
            }
            None => {
                batch.require_absent(SECRETS, &place);
                Secret {
                    name: name.to_owned(),
                    key: version.secret,
                    latest: version.version.clone(),
                    facts: version.facts.clone(),
                }
            }
        };
        version.secret = secret.key;
        batch.put(SECRETS, &place, &secret)?;
        batch.put(VERSIONS, &(place.0, secret.key, version.version.clone()), &version)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return reply(&Writer::new(&at, &at.target).with_value(&secret, &version));
        }
    }
}

pub(super) async fn get(
    at: At<KeyVault>,
    _permit: Permit<GetSecret>,
    request: Request,
) -> Result<Reply, Fault> {
    let name = request.param("name");
    let asked = input::version(&request)?;
    let vault = &at.target.vault;
    let secret = at.recent_secrets.get(&at.store, &place(vault, name)).await?;
    let secret = secret.ok_or_else(|| faults::secret_not_found(name))?;
    let version = at.secret_version(vault, &secret, name, asked.as_deref()).await?.value;
    if !version.facts.enabled {
        return Err(faults::secret_disabled());
    }
    reply(&Writer::new(&at, &at.target).with_value(&secret, &version))
}

/// Attributes, tags and content type of a version; its value stays.
pub(super) async fn update(
    at: At<KeyVault>,
    permit: Permit<UpdateSecret>,
    input: Body<ChangeBody>,
) -> Result<Reply, Fault> {
    let name = input.head.param("name");
    let asked = input::version(&input.head)?;
    let vault = &at.target.vault;
    let place = place(vault, name);
    let mut attempts = at.store.attempts();
    loop {
        let mut batch = at.change_of(vault).await?;
        let head = at.secret(vault, name).await?.ok_or_else(|| faults::secret_not_found(name))?;
        let mut secret = head.value;
        let row = at.secret_version(vault, &secret, name, asked.as_deref()).await?;
        let mut version = row.value;
        input.value.apply(&mut version.facts, permit.epoch_seconds())?;
        let key = (place.0, secret.key, version.version.clone());
        batch.require_revision(SECRETS, &place, head.revision);
        batch.require_revision(VERSIONS, &key, row.revision);
        batch.put(VERSIONS, &key, &version)?;
        if version.version == secret.latest {
            secret.facts = version.facts.clone();
            batch.put(SECRETS, &place, &secret)?;
        }
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            let bundle =
                Writer::new(&at, &at.target).without_value(&secret, &version.version, &version.facts);
            return reply(&bundle);
        }
    }
}
