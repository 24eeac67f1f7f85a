//! Delete, and what can be done with a deleted secret: show, recover, purge.

use arcadia_arm::RESOURCES;
use arcadia_kernel::{At, Fault, Permit, Reply, Request, StatusCode};
use arcadia_store::{Batch, Row};

use super::live::place;
use super::wire::{Writer, reply};
use super::{DeleteSecret, PurgeSecret, ReadMetadata, RecoverSecret};
use crate::faults;
use crate::records::{DELETED_SECRETS, DUE, DeletedSecret, Due, REMNANTS, Remnant, SECRETS};
use crate::vault::properties::VaultProperties;
use crate::{KeyVault, Vault};

impl KeyVault {
    async fn deleted_secret(&self, vault: &Vault, name: &str) -> Result<Option<Row<DeletedSecret>>, Fault> {
        Ok(self.store.get(DELETED_SECRETS, &place(vault, name)).await?)
    }

    /// Refuses to purge in a vault under purge protection, as its row says: `vault` is how it was when the request
    /// began. The batch is only committed while the row is unchanged.
    async fn check_purge(&self, vault: &Vault, batch: &mut Batch) -> Result<(), Fault> {
        let row = self.store.get(RESOURCES, &vault.id).await?;
        let row = row.ok_or_else(|| faults::no_such_vault(vault.name()))?;
        if VaultProperties::stored(&row.value).map_err(Fault::internal)?.is_purge_protected() {
            return Err(faults::purge_protected(vault));
        }
        batch.require_revision(RESOURCES, &vault.id, row.revision);
        Ok(())
    }
}

/// One commit moves the secret, with all its versions, to the deleted ones.
pub(super) async fn delete(
    at: At<KeyVault>,
    permit: Permit<DeleteSecret>,
    request: Request,
) -> Result<Reply, Fault> {
    let name = request.param("name");
    let vault = &at.target.vault;
    let place = place(vault, name);
    let deleted_at = permit.epoch_seconds();
    let mut attempts = at.store.attempts();
    loop {
        let mut batch = at.change_of(vault).await?;
        let live = at.secret(vault, name).await?.ok_or_else(|| faults::secret_not_found(name))?;
        let purge_at = deleted_at + vault.retention_seconds();
        let deleted = DeletedSecret { secret: live.value, deleted_at, purge_at };
        let due = Due::of_secret(place.0, &place.1, purge_at);
        batch.require_revision(SECRETS, &place, live.revision);
        batch.require_absent(DELETED_SECRETS, &place);
        batch.delete(SECRETS, &place);
        batch.put(DELETED_SECRETS, &place, &deleted)?;
        batch.put(DUE, &due.key(), &due)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return reply(&Writer::new(&at, &at.target).deleted(&deleted));
        }
    }
}

pub(super) async fn get(
    at: At<KeyVault>,
    _permit: Permit<ReadMetadata>,
    request: Request,
) -> Result<Reply, Fault> {
    let name = request.param("name");
    let deleted = at.deleted_secret(&at.target.vault, name).await?;
    let deleted = deleted.ok_or_else(|| faults::deleted_secret_not_found(name))?.value;
    // Strange but so: the service also keeps back what is known of a deleted secret that was disabled.
    if !deleted.secret.facts.enabled {
        return Err(faults::secret_disabled());
    }
    reply(&Writer::new(&at, &at.target).deleted(&deleted))
}

pub(super) async fn recover(
    at: At<KeyVault>,
    permit: Permit<RecoverSecret>,
    request: Request,
) -> Result<Reply, Fault> {
    let name = request.param("name");
    let vault = &at.target.vault;
    let place = place(vault, name);
    let mut attempts = at.store.attempts();
    loop {
        let mut batch = at.change_of(vault).await?;
        let Some(row) = at.deleted_secret(vault, name).await? else {
            return Err(match at.secret(vault, name).await? {
                Some(_) => faults::secret_exists(name),
                None => faults::secret_not_found(name),
            });
        };
        let DeletedSecret { secret, purge_at, .. } = row.value;
        batch.require_revision(DELETED_SECRETS, &place, row.revision);
        batch.require_absent(SECRETS, &place);
        batch.delete(DELETED_SECRETS, &place);
        batch.delete(DUE, &Due::of_secret(place.0, &place.1, purge_at).key());
        batch.put(SECRETS, &place, &secret)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            let writer = Writer::new(&at, &at.target);
            return reply(&writer.without_value(&secret, &secret.latest, &secret.facts));
        }
    }
}

/// One commit makes the secret unreachable and its name free; its versions are removed right after.
pub(super) async fn purge(
    at: At<KeyVault>,
    permit: Permit<PurgeSecret>,
    request: Request,
) -> Result<Reply, Fault> {
    let name = request.param("name");
    let vault = &at.target.vault;
    let place = place(vault, name);
    let mut attempts = at.store.attempts();
    loop {
        let mut batch = at.change_of(vault).await?;
        at.check_purge(vault, &mut batch).await?;
        let row = at.deleted_secret(vault, name).await?;
        let row = row.ok_or_else(|| faults::deleted_secret_not_found(name))?;
        let remnant = Remnant { vault: place.0, key: row.value.secret.key };
        batch.require_revision(DELETED_SECRETS, &place, row.revision);
        batch.delete(DELETED_SECRETS, &place);
        batch.delete(DUE, &Due::of_secret(place.0, &place.1, row.value.purge_at).key());
        batch.put(REMNANTS, &(remnant.vault, remnant.key), &remnant)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            at.clear_remnant(permit.stamp(), &remnant).await?;
            return Ok(Reply::empty(StatusCode::NO_CONTENT));
        }
    }
}
