//! The store that services use.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arcadia_crypto::{KeyRing, Wiped};
use arcadia_kernel::{
    ArmId, AuditEvent, AuditFault, AuditSink, AuditStamp, Clock, Continuation, Entropy, Page,
};
use tokio::sync::{Mutex, MutexGuard};

use crate::audit::{AuditCheck, EventPage, Walk, check_end, check_rows, draft};
use crate::backend::{BATCH_ROWS_MAX, Backend, Health, PAGE_ROWS_MAX, RawBatch, RawPage, RawRow, Revision};
use crate::key::segment_bytes;
use crate::observe::{BatchWatch, Observers};
use crate::record::decode;
use crate::rows::RowsSum;
use crate::seal::Sealer;
use crate::sqlite::{LogEnd, spawn};
use crate::{
    Attempts, Batch, Change, CommitError, Key, MemoryBackend, Record, SqliteBackend, SqliteOptions,
    StoreError, Table,
};

/// The most rows that [`Store::all`] reads.
pub const ALL_ROWS_MAX: usize = 1_000_000;

/// A store of more rows opens before they were all looked at, and is condemned when they are found replaced: half a
/// million take about a second.
const ROWS_CHECKED_FIRST_MAX: u64 = 20_000;
/// The priority of the check that is made later: below that of who waits, and not so low that what it reads stays in the
/// log for long.
const NICE: i32 = 5;

/// A record and the commit that wrote it.
#[derive(Clone, Debug)]
pub struct Row<V> {
    pub value: V,
    pub revision: Revision,
}

/// Typed tables over a backend. Cheap to clone; dropping the last clone waits for what is queued and closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    backend: Arc<dyn Backend>,
    sealer: Arc<Sealer>,
    observers: Arc<Observers>,
    /// Of changes that are planned anew.
    turn: Mutex<()>,
}

impl Store {
    /// Opens or creates `store.db` in `directory` (made with mode 0700 if need be). Fails when another process
    /// has it open, a newer version wrote it, `ring` is not the one it was written with, or its rows are not the ones that
    /// were written last. Of a large store the latter is found out in the background; it then answers nothing more.
    pub fn open(
        directory: &Path,
        ring: KeyRing,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        let options = SqliteOptions::default();
        let backend = SqliteBackend::open(directory, &options, clock.epoch_seconds())?;
        let end = backend.head()?;
        Self::new(Arc::new(backend), ring, entropy).fitting(&end, ROWS_CHECKED_FIRST_MAX)
    }

    /// A store whose rows are gone with it; for tests.
    #[expect(
        clippy::expect_used,
        reason = "only a broken build of the cipher makes no key, and only tests call this"
    )]
    pub fn in_memory(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let ring = KeyRing::generate(&*entropy).expect("the cipher takes a key");
        Self::new(Arc::new(MemoryBackend::new(clock.epoch_seconds())), ring, entropy)
    }

    /// Over any backend. Fails when what is there was not written with `ring`.
    pub async fn over(
        backend: Arc<dyn Backend>,
        ring: KeyRing,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        let head = backend.audit_head().await?;
        let health = backend.health().await?;
        let last = backend.audit(health.audit_records.saturating_sub(1), 1).await?.pop();
        let end = LogEnd { head, last, revision: health.revision };
        Self::new(backend, ring, entropy).fitting(&end, ROWS_CHECKED_FIRST_MAX)
    }

    fn fitting(self, end: &LogEnd, rows_checked_first_max: u64) -> Result<Self, StoreError> {
        let rows = check_end(&self.0.sealer, end)?;
        if rows.is_some_and(|rows| rows > rows_checked_first_max) {
            self.check_rows_in_background(end.head.clone())?;
        } else {
            check_rows(&self.0.sealer, end.head.as_deref(), || true, |visit| self.0.backend.marks(visit))?;
        }
        Ok(self)
    }

    /// Beside commits, as it looks at one moment. Ends when the store is closed.
    fn check_rows_in_background(&self, head: Option<Vec<u8>>) -> Result<(), StoreError> {
        let (backend, sealer) = (self.0.backend.clone(), self.0.sealer.clone());
        let store = Arc::downgrade(&self.0);
        spawn("store-rows", move || {
            // Whoever waits for answers comes first. Where the system refuses that, they share.
            let _ = rustix::process::nice(NICE);
            let goes_on = || store.strong_count() > 0;
            match check_rows(&sealer, head.as_deref(), goes_on, |visit| backend.marks(visit)) {
                Ok(()) => tracing::debug!("the rows are the ones that were written last"),
                Err(_) if !goes_on() => {}
                Err(replaced @ StoreError::RowsReplaced { .. }) => backend.condemn(replaced),
                Err(source) => backend.condemn(StoreError::RowsUnchecked { source: Arc::new(source) }),
            }
        })?;
        Ok(())
    }

    pub(crate) fn sealer(&self) -> &Arc<Sealer> {
        &self.0.sealer
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.0.backend
    }

    fn new(backend: Arc<dyn Backend>, ring: KeyRing, entropy: Arc<dyn Entropy>) -> Self {
        let sealer = Sealer::new(ring, entropy);
        sealer.set_found_rows(RowsSum::new(sealer.entropy()));
        let sealer = Arc::new(sealer);
        Self(Arc::new(Inner { backend, sealer, observers: Arc::default(), turn: Mutex::default() }))
    }

    pub async fn get<K: Key + ?Sized, V: Record>(
        &self,
        table: Table<K, V>,
        key: &K,
    ) -> Result<Option<Row<V>>, StoreError> {
        let row = self.0.backend.get(&table.key_bytes(key)).await?;
        row.map(|row| opened(&self.0.sealer, table, &row)).transpose()
    }

    /// As of one moment, in the order of `keys`.
    pub async fn get_many<K: Key + ?Sized, V: Record, B: Borrow<K> + Sync>(
        &self,
        table: Table<K, V>,
        keys: &[B],
    ) -> Result<Vec<Option<Row<V>>>, StoreError> {
        if keys.len() > BATCH_ROWS_MAX {
            let found = keys.len();
            return Err(StoreError::TooLarge { what: "a read's keys", found, max: BATCH_ROWS_MAX });
        }
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| table.key_bytes(key.borrow())).collect();
        let rows = self.0.backend.get_many(&keys).await?;
        rows.into_iter().map(|row| row.map(|row| opened(&self.0.sealer, table, &row)).transpose()).collect()
    }

    /// Rows whose key starts with the components of `prefix` (`&()`: all), in key order, after `after`; at most
    /// `limit`, and fewer when the page would be too large, so follow `next` rather than counting.
    pub async fn range<K: Key + ?Sized, V: Record, P: Key + ?Sized>(
        &self,
        table: Table<K, V>,
        prefix: &P,
        after: Option<&Continuation>,
        limit: usize,
    ) -> Result<Page<Row<V>>, StoreError> {
        let prefix = table.key_bytes(prefix);
        let after = after.map(|continuation| continuation.0.as_slice());
        let page = self.0.backend.range(&prefix, after, limit.clamp(1, PAGE_ROWS_MAX)).await?;
        opened_page(&self.0.sealer, table, &prefix, &page)
    }

    /// Every row below `prefix`, page by page: not as of one moment. Fails above [`ALL_ROWS_MAX`] rows.
    pub async fn all<K: Key + ?Sized, V: Record, P: Key + ?Sized>(
        &self,
        table: Table<K, V>,
        prefix: &P,
    ) -> Result<Vec<Row<V>>, StoreError> {
        self.collect(table, &table.key_bytes(prefix), None).await
    }

    /// As [`Store::all`], but only rows with this segment of a path in their key. Others are not read.
    pub async fn all_with_segment<V: Record>(
        &self,
        table: Table<ArmId, V>,
        segment: &str,
    ) -> Result<Vec<Row<V>>, StoreError> {
        self.collect(table, &table.key_bytes(&()), Some(&segment_bytes(segment))).await
    }

    async fn collect<K: Key + ?Sized, V: Record>(
        &self,
        table: Table<K, V>,
        prefix: &[u8],
        part: Option<&[u8]>,
    ) -> Result<Vec<Row<V>>, StoreError> {
        let mut rows = Vec::new();
        let mut page = self.page(prefix, part, None).await?;
        loop {
            let last = page.rows.last().filter(|_| page.more);
            let next = last.map(|last| {
                let (store, prefix, part) = (self.clone(), prefix.to_vec(), part.map(<[u8]>::to_vec));
                let after = last.key[prefix.len()..].to_vec();
                // Read beside the opening of this one's rows.
                tokio::spawn(async move { store.page(&prefix, part.as_deref(), Some(&after)).await })
            });
            for row in &page.rows {
                rows.push(opened(&self.0.sealer, table, row)?);
            }
            if rows.len() > ALL_ROWS_MAX {
                let found = rows.len();
                return Err(StoreError::TooLarge { what: "a table's rows", found, max: ALL_ROWS_MAX });
            }
            let Some(next) = next else { return Ok(rows) };
            page = next.await.map_err(|_| StoreError::Closed)??;
        }
    }

    async fn page(
        &self,
        prefix: &[u8],
        part: Option<&[u8]>,
        after: Option<&[u8]>,
    ) -> Result<RawPage, StoreError> {
        match part {
            Some(part) => self.0.backend.range_with(prefix, part, after, PAGE_ROWS_MAX).await,
            None => self.0.backend.range(prefix, after, PAGE_ROWS_MAX).await,
        }
    }

    /// One transaction: all requirements hold or nothing is written; the record of `stamp` is in it. When it
    /// returns, the change is durable and the observers have seen it. A dropped future may still commit.
    pub async fn commit(&self, stamp: &AuditStamp, batch: Batch) -> Result<Revision, CommitError> {
        let record = stamp.record();
        let batch = self.sealed(batch, &record.event)?;
        let revision = self.0.backend.commit(batch).await?;
        record.written();
        Ok(revision)
    }

    /// For a change that is planned anew when another one came in between.
    pub fn attempts(&self) -> Attempts<'_> {
        Attempts::new(self)
    }

    /// Returns once the observers were told of all that reads have shown by now. A row is read as soon as it is durable,
    /// which may be before the observers hear of it: whoever decides by a row and by what is kept in memory reads the row,
    /// waits for this, and looks there then.
    pub async fn observers_told(&self) -> Result<(), StoreError> {
        let backend = self.0.backend.clone();
        let told = tokio::task::spawn_blocking(move || backend.exclusively(&mut || {}));
        told.await.map_err(|_| StoreError::Closed)
    }

    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// Calls `observer` with what each commit changes in `table`: in commit order, after the change is durable
    /// and before it is acknowledged. It must not block, panic, or hold or call the store. Register it before the table
    /// is first read into memory, and do that while nothing else commits.
    pub fn observe<K: ?Sized, V: Record>(
        &self,
        table: Table<K, V>,
        observer: impl Fn(&[Change<V>]) + Send + Sync + 'static,
    ) {
        let mut observer = Some(observer);
        self.0.backend.exclusively(&mut || {
            if let Some(observer) = observer.take() {
                self.0.observers.add(table.name(), observer);
            }
        });
    }

    /// Where records go that belong to no change.
    pub fn audit_sink(&self) -> Arc<dyn AuditSink> {
        Arc::new(self.clone())
    }

    /// Records above `after_sequence` with their numbers, in order; at most `limit` and [`PAGE_ROWS_MAX`].
    pub async fn audit_page(
        &self,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AuditEvent)>, StoreError> {
        let mut page = EventPage::after(after_sequence, limit.clamp(1, PAGE_ROWS_MAX));
        while let Some(pieces) = page.pieces()
            && page.take(&self.0.sealer, &self.0.backend.audit(page.after, pieces).await?)?
        {}
        Ok(page.events)
    }

    /// Walks the whole chain up to the head as it is when called.
    pub async fn audit_verify(&self) -> Result<AuditCheck, StoreError> {
        let (backend, sealer) = (&self.0.backend, &self.0.sealer);
        let mut walk = Walk::to(sealer, backend.audit_head().await?.as_deref());
        loop {
            let rows = backend.audit(walk.seen, PAGE_ROWS_MAX).await?;
            if rows.is_empty() {
                return Ok(walk.finish());
            }
            walk.take(sealer, &rows);
            tokio::task::yield_now().await;
        }
    }

    /// Whether the store can be written, as far as is known without writing, and nobody else touched its files
    /// since this process last wrote. Cheap: two looks at files, and none when the last is not older than two
    /// milliseconds. [`StoreError::Interfered`] and rows that were found replaced last until the store is opened anew;
    /// others may pass.
    pub fn check(&self) -> Result<(), StoreError> {
        self.0.backend.check()
    }

    pub async fn health(&self) -> Result<Health, StoreError> {
        self.0.backend.health().await
    }

    fn sealed(&self, batch: Batch, event: &AuditEvent) -> Result<RawBatch, StoreError> {
        batch.check_limits()?;
        let Inner { sealer, observers, .. } = &*self.0;
        let mut raw = RawBatch { require: batch.require, ..RawBatch::default() };
        // First, as it holds on to the keys that the rows are sealed under.
        let mut sealing = sealer.sealing(batch.rows.values().flatten().count());
        raw.audit.push(draft(sealer.clone(), sealing.keys().clone(), event)?);
        for (key, value) in &batch.rows {
            match value {
                Some(plaintext) => raw.put.push((key.clone(), sealing.seal(key, plaintext)?)),
                None => raw.delete.push(key.clone()),
            }
        }
        raw.watch = watch(sealer, observers, batch.rows);
        Ok(raw)
    }
}

pub(crate) fn opened<K: ?Sized, V: Record>(
    sealer: &Sealer,
    table: Table<K, V>,
    row: &RawRow,
) -> Result<Row<V>, StoreError> {
    let plaintext = sealer.open_row(&row.key, &row.value)?;
    Ok(Row { value: decode(table.name(), &plaintext)?, revision: row.revision })
}

/// A page of the rows below `prefix`.
pub(crate) fn opened_page<K: ?Sized, V: Record>(
    sealer: &Sealer,
    table: Table<K, V>,
    prefix: &[u8],
    page: &RawPage,
) -> Result<Page<Row<V>>, StoreError> {
    let next = match page.rows.last() {
        Some(last) if page.more => Some(Continuation(last.key[prefix.len()..].to_vec())),
        _ => None,
    };
    let items = page.rows.iter().map(|row| opened(sealer, table, row)).collect::<Result<_, _>>()?;
    Ok(Page { items, next })
}

fn watch(
    sealer: &Arc<Sealer>,
    observers: &Arc<Observers>,
    rows: BTreeMap<Vec<u8>, Option<Wiped>>,
) -> Option<Box<dyn crate::Watch>> {
    if rows.is_empty() {
        return None;
    }
    Some(Box::new(BatchWatch { observers: observers.clone(), sealer: sealer.clone(), rows }))
}

#[async_trait::async_trait]
impl AuditSink for Store {
    async fn append(&self, event: AuditEvent) -> Result<(), AuditFault> {
        let record = draft(self.0.sealer.clone(), self.0.sealer.keys(), &event)
            .map_err(|error| AuditFault(error.into()))?;
        let batch = RawBatch { audit: vec![record], ..RawBatch::default() };
        self.0.backend.commit(batch).await.map_err(|error| AuditFault(error.into()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arcadia_crypto::SystemEntropy;
    use arcadia_kernel::FixedClock;
    use rusqlite::Connection;

    use super::*;

    /// As `Store::open` does with a store that is too large to be checked first.
    fn open_large(directory: &Path, ring: &KeyRing) -> Store {
        let backend = SqliteBackend::open(directory, &SqliteOptions::default(), 1).unwrap();
        let end = backend.head().unwrap();
        Store::new(Arc::new(backend), ring.clone(), Arc::new(SystemEntropy)).fitting(&end, 0).unwrap()
    }

    fn record() -> AuditEvent {
        let nil = "00000000-0000-0000-0000-000000000000";
        serde_json::from_value(serde_json::json!({
            "time": "2026-01-01T00:00:00Z", "requestId": nil, "service": "site", "operation": "sweep", "action": "a",
            "scope": "/", "callerKind": "system", "callerObjectId": nil, "callerAppId": nil, "callerName": "n",
            "result": "committed",
        }))
        .unwrap()
    }

    async fn write(store: &Store, key: &[u8], value: &[u8]) -> Result<Revision, CommitError> {
        let sealer = store.sealer();
        let audit = vec![crate::audit::resealing(sealer.clone())];
        let put = vec![(key.to_vec(), sealer.sealing(1).seal(key, value)?)];
        store.backend().commit(RawBatch { put, audit, ..RawBatch::default() }).await
    }

    #[tokio::test]
    async fn replaced_rows_of_a_large_store_are_noticed_while_it_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let clock = Arc::new(FixedClock::at_epoch_seconds(1));
        let first =
            Store::open(directory.path(), ring.clone(), clock.clone(), Arc::new(SystemEntropy)).unwrap();
        first.append(record()).await.unwrap();
        for key in [&b"t\0a"[..], b"t\0b"] {
            write(&first, key, b"1").await.unwrap();
        }
        drop(first);
        let sound = open_large(directory.path(), &ring);
        for number in 0..20_u8 {
            write(&sound, b"t\0a", &[number]).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        sound.check().unwrap();
        drop(sound);
        Connection::open(directory.path().join(crate::sqlite::DATABASE))
            .unwrap()
            .execute("DELETE FROM rows WHERE key = ?1", [b"t\0b"])
            .unwrap();
        let replaced = open_large(directory.path(), &ring);
        while replaced.check().is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let found = replaced.check().unwrap_err();
        assert!(matches!(found, StoreError::RowsReplaced { written: 2, found: 1 }), "{found}");
        assert!(write(&replaced, b"t\0a", b"2").await.is_err());
        assert!(replaced.backend().get(b"t\0a").await.is_err());
    }
}
