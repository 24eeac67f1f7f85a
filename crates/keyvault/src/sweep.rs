//! What is removed for good: remnants of purges, and what has passed its retention period.

use arcadia_kernel::{AuditStamp, Fault, Permit, SystemWork};
use arcadia_store::{Batch, CommitError, Row};

use crate::KeyVault;
use crate::records::{
    DELETED_SECRETS, DELETED_VAULTS, DUE, DeletedVault, Due, NAMES, PURGES, REMNANTS, Remnant, SECRETS,
    VERSIONS, VaultPurge, folded,
};

/// Versions removed by one commit; each may have a value of 25 KiB, which is read to find its key.
const VERSIONS_PER_COMMIT: usize = 100;
const ROWS_PER_PAGE: usize = 200;
/// Commits that a request does itself after a purge; the sweep does the rest.
const COMMITS_PER_REQUEST_MAX: usize = 50;
/// How long the result of a vault's purge can be asked for.
const PURGE_RESULT_SECONDS: i64 = 24 * 60 * 60;

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Secrets whose retention period was over.
    pub secrets: usize,
    /// Vaults whose retention period was over.
    pub vaults: usize,
    /// Interrupted purges that were finished.
    pub finished: usize,
}

/// Counts commits down, so that one request does bounded work.
struct Budget(usize);

impl Budget {
    fn spend(&mut self) -> bool {
        let left = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        left
    }
}

impl KeyVault {
    /// Purges what has passed its retention period, and finishes purges that were interrupted. Call it once
    /// after opening and every minute or so.
    pub async fn sweep(&self, permit: Permit<SystemWork>) -> Result<Swept, Fault> {
        let mut swept = Swept::default();
        self.purge_due(&permit, permit.epoch_seconds(), &mut swept).await?;
        self.finish_purges(&permit, &mut swept).await?;
        Ok(swept)
    }

    /// As [`Self::sweep`], but purges nothing: what somebody purged is finished, and what only has passed its time
    /// stays. For as long as the clock is not to be trusted with what cannot be undone.
    pub async fn tidy(&self, permit: Permit<SystemWork>) -> Result<Swept, Fault> {
        let mut swept = Swept::default();
        self.finish_purges(&permit, &mut swept).await?;
        Ok(swept)
    }

    async fn finish_purges(&self, permit: &Permit<SystemWork>, swept: &mut Swept) -> Result<(), Fault> {
        let (stamp, now) = (permit.stamp(), permit.epoch_seconds());
        for row in self.store.all(REMNANTS, &()).await? {
            swept.finished +=
                usize::from(self.clear_versions(stamp, &row.value, &mut Budget(usize::MAX)).await?);
        }
        for row in self.store.all(PURGES, &()).await? {
            match row.value.finished_at {
                None => {
                    let done = self.clear_vault(stamp, &row.value, now, &mut Budget(usize::MAX)).await?;
                    swept.finished += usize::from(done);
                }
                Some(finished) if finished + PURGE_RESULT_SECONDS < now => {
                    let mut batch = Batch::new();
                    batch.delete(PURGES, &row.value.instance);
                    self.store.commit(stamp, batch).await?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Goes through [`DUE`] in order of time and stops at the first that is not due yet. Each turn removes the
    /// rows it read, so the next one starts from the front again.
    async fn purge_due(&self, permit: &Permit<SystemWork>, now: i64, swept: &mut Swept) -> Result<(), Fault> {
        let now_unsigned = now.max(0).unsigned_abs();
        let mut after = None;
        loop {
            let page = self.store.range(DUE, &(), after.as_ref(), ROWS_PER_PAGE).await?;
            for row in &page.items {
                if row.value.at > now_unsigned {
                    return Ok(());
                }
                if row.value.deleted_vault.is_some() {
                    swept.vaults += usize::from(self.purge_due_vault(permit, &row.value, now).await?);
                } else {
                    swept.secrets += usize::from(self.purge_due_secret(permit, &row.value).await?);
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn purge_due_secret(&self, permit: &Permit<SystemWork>, due: &Due) -> Result<bool, Fault> {
        let place = (due.vault, due.secret.clone());
        let deleted = self.store.get(DELETED_SECRETS, &place).await?;
        let deleted =
            deleted.filter(|row| Due::of_secret(due.vault, &due.secret, row.value.purge_at).at == due.at);
        let mut batch = Batch::new();
        batch.delete(DUE, &due.key());
        let remnant = deleted.as_ref().map(|row| Remnant { vault: due.vault, key: row.value.secret.key });
        if let (Some(row), Some(remnant)) = (&deleted, &remnant) {
            batch.require_revision(DELETED_SECRETS, &place, row.revision);
            batch.delete(DELETED_SECRETS, &place);
            batch.put(REMNANTS, &(remnant.vault, remnant.key), remnant)?;
        }
        // A conflict: it is being recovered or purged at this moment. The next sweep sees what came of it.
        if !self.committed(permit.stamp(), batch).await? {
            return Ok(false);
        }
        if let Some(remnant) = &remnant {
            self.clear_remnant(permit.stamp(), remnant).await?;
        }
        Ok(remnant.is_some())
    }

    async fn purge_due_vault(&self, permit: &Permit<SystemWork>, due: &Due, now: i64) -> Result<bool, Fault> {
        let Some(place) = &due.deleted_vault else { return Ok(false) };
        let deleted = self.store.get(DELETED_VAULTS, place).await?;
        // It may have been recovered and deleted again since the page was read; that deletion has its own time.
        let is_due = |row: &Row<DeletedVault>| {
            Due::of_vault(row.value.instance, place.clone(), row.value.purge_at).key() == due.key()
        };
        if let Some(deleted) = deleted.filter(is_due) {
            let purge = self.purge_vault(permit.stamp(), place, &deleted, now).await?;
            return Ok(purge.is_some());
        }
        let mut batch = Batch::new();
        batch.delete(DUE, &due.key());
        self.committed(permit.stamp(), batch).await?;
        Ok(false)
    }

    async fn committed(&self, stamp: &AuditStamp, batch: Batch) -> Result<bool, Fault> {
        match self.store.commit(stamp, batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Purges a deleted vault as it was read: one commit makes it unrecoverable and its name free, then its
    /// secrets are removed, as far as one request may. `None`: it was changed since it was read.
    pub(crate) async fn purge_vault(
        &self,
        stamp: &AuditStamp,
        place: &(String, String),
        deleted: &Row<DeletedVault>,
        now: i64,
    ) -> Result<Option<VaultPurge>, Fault> {
        let DeletedVault { resource, instance, purge_at, .. } = &deleted.value;
        let instance = *instance;
        let name = folded(resource.id.name());
        let Some(claim) = self.store.get(NAMES, name.as_str()).await? else { return Ok(None) };
        let mut purge =
            VaultPurge { instance, subscription: place.0.clone(), created_at: now, finished_at: None };
        let mut batch = Batch::new();
        batch.require_revision(DELETED_VAULTS, place, deleted.revision);
        batch.require_revision(NAMES, name.as_str(), claim.revision);
        batch.delete(DELETED_VAULTS, place);
        batch.delete(NAMES, name.as_str());
        batch.delete(DUE, &Due::of_vault(instance, place.clone(), *purge_at).key());
        batch.put(PURGES, &instance, &purge)?;
        if !self.committed(stamp, batch).await? {
            return Ok(None);
        }
        if self.clear_vault(stamp, &purge, now, &mut Budget(COMMITS_PER_REQUEST_MAX)).await? {
            purge.finished_at = Some(now);
        }
        Ok(Some(purge))
    }

    /// Removes the versions of a purged secret, as far as one request may.
    pub(crate) async fn clear_remnant(&self, stamp: &AuditStamp, remnant: &Remnant) -> Result<(), Fault> {
        self.clear_versions(stamp, remnant, &mut Budget(COMMITS_PER_REQUEST_MAX)).await?;
        Ok(())
    }

    /// `true` when nothing is left.
    async fn clear_versions(
        &self,
        stamp: &AuditStamp,
        remnant: &Remnant,
        budget: &mut Budget,
    ) -> Result<bool, Fault> {
        while budget.spend() {
            let prefix = (remnant.vault, remnant.key);
            let page = self.store.range(VERSIONS, &prefix, None, VERSIONS_PER_COMMIT).await?;
            let mut batch = Batch::new();
            for row in &page.items {
                batch.delete(VERSIONS, &(remnant.vault, remnant.key, row.value.version.clone()));
            }
            let is_last = page.next.is_none();
            if is_last {
                batch.delete(REMNANTS, &prefix);
            }
            self.store.commit(stamp, batch).await?;
            if is_last {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes every secret of a purged vault, live and deleted ones. `true` when nothing is left.
    async fn clear_vault(
        &self,
        stamp: &AuditStamp,
        purge: &VaultPurge,
        now: i64,
        budget: &mut Budget,
    ) -> Result<bool, Fault> {
        let instance = purge.instance;
        let prefix = (instance,);
        while budget.spend() {
            let mut batch = Batch::new();
            for row in self.store.range(SECRETS, &prefix, None, ROWS_PER_PAGE).await?.items {
                batch.delete(SECRETS, &(instance, folded(&row.value.name)));
            }
            for row in self.store.range(DELETED_SECRETS, &prefix, None, ROWS_PER_PAGE).await?.items {
                let name = folded(&row.value.secret.name);
                batch.delete(DUE, &Due::of_secret(instance, &name, row.value.purge_at).key());
                batch.delete(DELETED_SECRETS, &(instance, name));
            }
            for row in self.store.range(VERSIONS, &prefix, None, VERSIONS_PER_COMMIT).await?.items {
                batch.delete(VERSIONS, &(instance, row.value.secret, row.value.version));
            }
            for row in self.store.range(REMNANTS, &prefix, None, ROWS_PER_PAGE).await?.items {
                batch.delete(REMNANTS, &(instance, row.value.key));
            }
            let is_clear = batch.is_empty();
            if is_clear {
                batch.put(PURGES, &instance, &VaultPurge { finished_at: Some(now), ..purge.clone() })?;
            }
            self.store.commit(stamp, batch).await?;
            if is_clear {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
