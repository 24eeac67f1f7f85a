//! A store seen from another process than the one that writes it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arcadia_crypto::KeyRing;
use arcadia_kernel::{AuditEvent, Continuation, Entropy, Page};

use crate::audit::{AuditCheck, EventPage, Walk, check_end, check_rows};
use crate::backend::{PAGE_ROWS_MAX, RawRow};
use crate::seal::Sealer;
use crate::sqlite::{DATABASE, SqliteReader};
use crate::store::{opened, opened_page};
use crate::{Key, Record, Revision, Row, StoreError, Table};

/// The rows and the audit log of a store, and a copy of the whole, while another process may write it. Never writes to the
/// store, never waits for its writer and never makes it wait.
pub struct StoreReader {
    file: SqliteReader,
    sealer: Arc<Sealer>,
}

/// How much is under one data key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct KeyCount {
    pub rows: u64,
    pub records: u64,
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

    /// Reads the ring again from `source` when a value is under a data key that the ring does not have yet: whoever
    /// has the store open may have gone over to it meanwhile.
    pub fn following(self, source: impl Fn() -> Option<KeyRing> + Send + Sync + 'static) -> Self {
        self.sealer.follow(Box::new(source));
        self
    }

    /// Whether the rows are the ones that were written last, and whole: each of them is opened. Fails with
    /// [`StoreError::RowsReplaced`] when some were put back to an earlier state, removed or added by something else, and
    /// with [`StoreError::NotAuthentic`] when one was altered.
    pub fn check_rows(&self) -> Result<(), StoreError> {
        check_rows(&self.sealer, self.file.end()?.head.as_deref(), || true, |visit| self.file.marks(visit))?;
        // Marks tell of the end of each value only.
        let mut after = None;
        loop {
            let page = self.file.walk(after.as_deref(), PAGE_ROWS_MAX)?;
            page.rows.iter().try_for_each(|row| self.check_row(row))?;
            match page.rows.into_iter().next_back() {
                Some(last) if page.more => after = Some(last.key),
                _ => return Ok(()),
            }
        }
    }

    fn check_row(&self, row: &RawRow) -> Result<(), StoreError> {
        let Err(fault) = self.sealer.open_row(&row.key, &row.value) else { return Ok(()) };
        // Sealed again meanwhile, it may be under a key that has left the ring.
        match self.file.row(&row.key)? {
            Some(now) if now.value == row.value => Err(fault),
            Some(now) => self.check_row(&now),
            None => Ok(()),
        }
    }

    /// The id of the data key that the last commit was sealed under. Needs no key.
    pub fn head_key(directory: &Path) -> Result<Option<u32>, StoreError> {
        let end = SqliteReader::open(&directory.join(DATABASE))?.end()?;
        Ok(end.head.and_then(|head| KeyRing::key_id_of(&head)))
    }

    /// How many rows and audit records are under each data key, by its id. Needs no key.
    pub fn key_counts(directory: &Path) -> Result<BTreeMap<u32, KeyCount>, StoreError> {
        let counts = SqliteReader::open(&directory.join(DATABASE))?.key_counts()?;
        Ok(counts.into_iter().map(|(id, (rows, records))| (id, KeyCount { rows, records })).collect())
    }

    /// The number of the last audit record, 0 when there is none.
    pub fn last_record(&self) -> Result<u64, StoreError> {
        self.file.last_record()
    }

    /// The last change of any row.
    pub fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.file.end()?.revision)
    }

    /// As [`crate::Store::get`].
    pub fn get<K: Key + ?Sized, V: Record>(
        &self,
        table: Table<K, V>,
        key: &K,
    ) -> Result<Option<Row<V>>, StoreError> {
        let row = self.file.row(&table.key_bytes(key))?;
        row.map(|row| opened(&self.sealer, table, &row)).transpose()
    }

    /// As [`crate::Store::range`].
    pub fn range<K: Key + ?Sized, V: Record, P: Key + ?Sized>(
        &self,
        table: Table<K, V>,
        prefix: &P,
        after: Option<&Continuation>,
        limit: usize,
    ) -> Result<Page<Row<V>>, StoreError> {
        let prefix = table.key_bytes(prefix);
        let after = after.map(|continuation| continuation.0.as_slice());
        let page = self.file.range(&prefix, after, limit.clamp(1, PAGE_ROWS_MAX))?;
        opened_page(&self.sealer, table, &prefix, &page)
    }

    /// Calls `each` with every row of a table, in the order of keys.
    pub fn each<K: Key + ?Sized, V: Record, E: From<StoreError>>(
        &self,
        table: Table<K, V>,
        mut each: impl FnMut(V) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = None;
        loop {
            let page = self.range(table, &(), after.as_ref(), PAGE_ROWS_MAX)?;
            page.items.into_iter().try_for_each(|row| each(row.value))?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// As [`crate::Store::audit_page`].
    pub fn audit_page(
        &self,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AuditEvent)>, StoreError> {
        let mut page = EventPage::after(after_sequence, limit.clamp(1, PAGE_ROWS_MAX));
        while let Some(pieces) = page.pieces()
            && page.take(&self.sealer, &self.file.audit(page.after, pieces)?)?
        {}
        Ok(page.events)
    }

    /// As [`crate::Store::audit_verify`], up to the last record that the store's anchor knows of at least.
    pub fn audit_verify(&self) -> Result<AuditCheck, StoreError> {
        // Read first: a store that is written meanwhile is never behind it.
        let anchored = self.file.anchored_record().unwrap_or(0);
        let mut check = self.walk()?;
        if check.first_broken.is_none() && check.records < anchored {
            check.first_broken = Some(check.records + 1);
        }
        Ok(check)
    }

    fn walk(&self) -> Result<AuditCheck, StoreError> {
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
