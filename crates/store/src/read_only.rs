//! A store seen from another process than the one that writes it.

use std::path::Path;
use std::sync::Arc;

use arcadia_crypto::KeyRing;
use arcadia_kernel::{AuditEvent, Entropy};

use crate::audit::{AuditCheck, Walk, check_end, event};
use crate::backend::PAGE_ROWS_MAX;
use crate::seal::Sealer;
use crate::sqlite::{DATABASE, SqliteReader};
use crate::{Revision, StoreError};

/// The audit log of a store, and a copy of the whole, while another process may write it. Never writes to the
/// store, never waits for its writer and never makes it wait.
pub struct StoreReader {
    file: SqliteReader,
    sealer: Arc<Sealer>,
}

impl StoreReader {
    /// Opens `store.db` in `directory`. Fails when there is none, a newer version wrote it, `ring` is not the one
    /// that it was written with, or its audit log does not end as its head says.
    pub fn open(directory: &Path, ring: KeyRing, entropy: Arc<dyn Entropy>) -> Result<Self, StoreError> {
        let reader = Self::open_unchecked(directory, ring, entropy)?;
        check_end(&reader.sealer, &reader.file.end()?)?;
        Ok(reader)
    }

    /// As [`Self::open`], but for a log whose end may be broken: to find out where.
    pub fn open_unchecked(
        directory: &Path,
        ring: KeyRing,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        let file = SqliteReader::open(&directory.join(DATABASE))?;
        Ok(Self { file, sealer: Arc::new(Sealer::new(ring, entropy)) })
    }

    /// The number of the last audit record, 0 when there is none.
    pub fn last_record(&self) -> Result<u64, StoreError> {
        self.file.last_record()
    }

    /// The last change of any row.
    pub fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.file.end()?.revision)
    }

    /// As [`crate::Store::audit_page`].
    pub fn audit_page(
        &self,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AuditEvent)>, StoreError> {
        let rows = self.file.audit(after_sequence, limit.clamp(1, PAGE_ROWS_MAX))?;
        rows.iter().map(|row| Ok((row.sequence, event(&self.sealer, row)?))).collect()
    }

    /// As [`crate::Store::audit_verify`].
    pub fn audit_verify(&self) -> Result<AuditCheck, StoreError> {
        let mut walk = Walk::to(&self.sealer, self.file.end()?.head.as_deref());
        loop {
            let rows = self.file.audit(walk.seen, PAGE_ROWS_MAX)?;
            if rows.is_empty() {
                return Ok(walk.finish());
            }
            walk.take(&self.sealer, &rows);
        }
    }

    /// Writes a copy as of one moment to `path`, which must not exist yet, durably. It is sealed as the store is.
    pub fn copy(&self, path: &Path) -> Result<(), StoreError> {
        self.file.copy(path)
    }

    /// Reads every page of the file and looks whether they fit together.
    pub fn check_pages(&self) -> Result<(), StoreError> {
        self.file.check_pages()
    }
}
