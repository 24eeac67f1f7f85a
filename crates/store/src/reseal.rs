//! Going over to another data key while the store is in use.
//!
//! New values are sealed under the new key at once. What is there already is sealed again in small batches by the
//! same writer that writes everything else: values, revisions and hashes stay, so that nobody who reads notices. Once
//! a whole walk has found nothing under an older key, that key may leave the ring.

use arcadia_crypto::KeyRing;

use crate::audit::{resealed, resealing};
use crate::backend::{PAGE_ROWS_MAX, RawBatch, Reseal};
use crate::{CommitError, Store, StoreError};

/// The most values that are sealed again in one batch.
const STEP_ROWS_MAX: usize = 256;
/// A batch takes no further value once it carries this many bytes.
const STEP_BYTES_MAX: usize = 1024 * 1024;

/// How far a walk over everything has come.
#[derive(Clone, Debug, Default)]
pub struct ResealPass {
    rows_after: Option<Vec<u8>>,
    rows_done: bool,
    records_after: u64,
}

/// What one step of a walk did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResealStep {
    pub resealed: usize,
    /// Everything was looked at: nothing is under an older key any more.
    pub done: bool,
}

impl Store {
    /// From now on seals under the current key of `ring`, which must open all that the ring before it opened and
    /// the store still holds.
    pub fn renew_ring(&self, ring: KeyRing) {
        self.sealer().renew(ring);
    }

    /// How many values the current data key has sealed, at the most. Kept over restarts.
    pub fn seals(&self) -> u64 {
        self.sealer().keys().seals()
    }

    /// The ids of the data keys that the store can open, ascending; the last one seals.
    pub fn data_keys(&self) -> Vec<u32> {
        self.sealer().keys().key_ids()
    }

    /// Whether everything that was sealed before the last [`Store::renew_ring`] is written or given up. Only a walk that
    /// begins after this is complete.
    pub fn is_settled(&self) -> bool {
        self.sealer().is_settled()
    }

    /// Seals some more of what is under older keys again, durably.
    pub async fn reseal(&self, pass: &mut ResealPass) -> Result<ResealStep, StoreError> {
        let mut next = pass.clone();
        let values = if pass.rows_done {
            self.old_records(&mut next).await?
        } else {
            self.old_rows(&mut next).await?
        };
        let done = pass.rows_done && next.records_after == pass.records_after;
        let resealed = values.len();
        if resealed > 0 {
            let audit = vec![resealing(self.sealer().clone())];
            let batch = RawBatch { reseal: values, audit, ..RawBatch::default() };
            self.backend().commit(batch).await.map_err(|error| match error {
                CommitError::Store(error) => error,
                CommitError::Conflict => StoreError::Closed,
            })?;
        }
        *pass = next;
        Ok(ResealStep { resealed, done })
    }

    async fn old_rows(&self, pass: &mut ResealPass) -> Result<Vec<Reseal>, StoreError> {
        let page = self.backend().walk(pass.rows_after.as_deref(), STEP_ROWS_MAX).await?;
        let (mut sealing, mut values, mut bytes) = (self.sealer().sealing(0), Vec::new(), 0);
        pass.rows_done = !page.more;
        for mut row in page.rows {
            if bytes >= STEP_BYTES_MAX {
                pass.rows_done = false;
                break;
            }
            pass.rows_after = Some(row.key.clone());
            if KeyRing::key_id_of(&row.value) == Some(sealing.keys().current_key_id()) {
                continue;
            }
            let plaintext = self.sealer().open_row(&row.key, &row.value)?;
            row.value = sealing.seal(&row.key, &plaintext)?;
            bytes += row.value.len();
            values.push(Reseal::Row(row));
        }
        Ok(values)
    }

    async fn old_records(&self, pass: &mut ResealPass) -> Result<Vec<Reseal>, StoreError> {
        let limit = STEP_ROWS_MAX.min(PAGE_ROWS_MAX);
        let (mut values, mut bytes) = (Vec::new(), 0);
        for row in self.backend().audit(pass.records_after, limit).await? {
            if bytes >= STEP_BYTES_MAX {
                break;
            }
            pass.records_after = row.sequence;
            if let Some(records) = resealed(self.sealer(), &row)? {
                bytes += records.len();
                values.push(Reseal::Records(row.sequence, records));
            }
        }
        Ok(values)
    }
}
