//! Removal of what has passed its time: codes, tokens, sessions, remembered assertions, deleted applications.

use arcadia_kernel::{AuditStamp, Fault, Permit, SystemWork};
use arcadia_store::{Batch, Key, Record, Table};

use crate::directory::{Committed, Directory};
use crate::model::{
    ASSERTIONS, AUTHORIZATION_CODES, AuthorizationCode, DELETED_APPLICATIONS, DEVICE_CODES, DeviceCode,
    REFRESH_TOKENS, RefreshToken, SESSIONS, SeenAssertion, Session, USER_CODES, UserCode,
};

/// Rows read, and at most removed, at a time.
const ROWS_PER_COMMIT_MAX: usize = 200;
/// What is remembered a little beyond its end, so that a late client is told `expired` and not `unknown`.
const GRACE_SECONDS: i64 = 60 * 60;
/// Deleted applications can be restored for 30 days.
const DELETED_LIFETIME_SECONDS: i64 = 30 * 24 * 60 * 60;

/// A record with an end.
trait Expiring: Record {
    type Key: Key + ?Sized;
    fn key(&self) -> &Self::Key;
    fn expires_seconds(&self) -> i64;
}

macro_rules! expiring {
    ($($type:ty, $key:ty, $field:ident);* $(;)?) => {$(
        impl Expiring for $type {
            type Key = $key;
            fn key(&self) -> &$key {
                &self.$field
            }
            fn expires_seconds(&self) -> i64 {
                self.expires_seconds
            }
        }
    )*};
}

expiring! {
    RefreshToken, str, digest;
    AuthorizationCode, str, digest;
    DeviceCode, str, digest;
    UserCode, str, digest;
    SeenAssertion, (uuid::Uuid, String), key;
    Session, uuid::Uuid, id;
}

impl Directory {
    /// Removes expired rows; returns how many.
    pub async fn sweep(&self, permit: Permit<SystemWork>) -> Result<usize, Fault> {
        let stamp = permit.stamp();
        let mut removed = self.sweep_deleted_applications(stamp).await?;
        removed += self.sweep_table(stamp, REFRESH_TOKENS).await?;
        removed += self.sweep_table(stamp, SESSIONS).await?;
        removed += self.sweep_table(stamp, ASSERTIONS).await?;
        removed += self.sweep_codes(stamp).await?;
        Ok(removed)
    }

    /// Removes expired codes alone, which nobody misses should the clock be wrong; returns how many.
    pub async fn tidy(&self, permit: Permit<SystemWork>) -> Result<usize, Fault> {
        self.sweep_codes(permit.stamp()).await
    }

    async fn sweep_codes(&self, stamp: &AuditStamp) -> Result<usize, Fault> {
        let mut removed = self.sweep_table(stamp, AUTHORIZATION_CODES).await?;
        removed += self.sweep_table(stamp, DEVICE_CODES).await?;
        removed += self.sweep_table(stamp, USER_CODES).await?;
        Ok(removed)
    }

    async fn sweep_table<V: Expiring>(
        &self,
        stamp: &AuditStamp,
        table: Table<V::Key, V>,
    ) -> Result<usize, Fault> {
        let end = self.clock.epoch_seconds() - GRACE_SECONDS;
        let mut removed = 0;
        let mut after = None;
        loop {
            let page = self.store.range(table, &(), after.as_ref(), ROWS_PER_COMMIT_MAX).await?;
            let mut batch = Batch::new();
            let mut rows = 0;
            for row in page.items.iter().filter(|row| row.value.expires_seconds() < end) {
                batch.require_revision(table, row.value.key(), row.revision);
                batch.delete(table, row.value.key());
                rows += 1;
            }
            // A row that changed meanwhile lives on; the next sweep looks again.
            if rows > 0 && self.commit(stamp, batch).await? == Committed::Written {
                removed += rows;
            }
            after = page.next;
            if after.is_none() {
                return Ok(removed);
            }
        }
    }

    async fn sweep_deleted_applications(&self, stamp: &AuditStamp) -> Result<usize, Fault> {
        let end = self.clock.epoch_seconds() - DELETED_LIFETIME_SECONDS;
        let expired: Vec<_> = {
            let snapshot = self.snapshot();
            let old = snapshot.deleted.values().filter(|deleted| deleted.deleted_seconds < end);
            old.map(|deleted| deleted.application.id).take(ROWS_PER_COMMIT_MAX).collect()
        };
        if expired.is_empty() {
            return Ok(0);
        }
        let mut batch = Batch::new();
        for id in &expired {
            batch.delete(DELETED_APPLICATIONS, id);
        }
        Ok(if self.commit(stamp, batch).await? == Committed::Written { expired.len() } else { 0 })
    }
}
