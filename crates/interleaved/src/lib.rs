//! For tests: a backend that lets other requests run between any two of its answers, so that races happen every time and
//! not once in a while.

#![allow(clippy::unwrap_used, reason = "only tests use it, and they end with what goes wrong")]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arcadia_crypto::{KeyRing, SystemEntropy};
use arcadia_store::{
    AuditRow, Backend, CommitError, Health, MemoryBackend, RawBatch, RawPage, RawRow, Revision, RowMark,
    Store, StoreError,
};
use futures_util::future::join;
use tokio::sync::oneshot;

pub struct Interleaved {
    rows: MemoryBackend,
    turn: AtomicU64,
    held: Mutex<Option<Held>>,
}

/// The next of these that is about a row of this table waits: a read with what it found.
struct Held {
    table: &'static str,
    is_write: bool,
    reached: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
}

impl Interleaved {
    pub fn new(created_epoch_seconds: i64) -> Self {
        Self {
            rows: MemoryBackend::new(created_epoch_seconds),
            turn: AtomicU64::new(1),
            held: Mutex::default(),
        }
    }

    /// A new store over such a backend, under keys of its own.
    pub async fn store(created_epoch_seconds: i64) -> (Store, Arc<Self>) {
        let entropy = Arc::new(SystemEntropy);
        let ring = KeyRing::generate(&*entropy).unwrap();
        let backend = Arc::new(Self::new(created_epoch_seconds));
        (Store::over(backend.clone(), ring, entropy).await.unwrap(), backend)
    }

    /// What comes of both when `other` is done from its beginning to its end right after `first` has first read `table`.
    pub async fn between<T, U>(
        &self,
        table: &'static str,
        first: impl Future<Output = T>,
        other: impl Future<Output = U>,
    ) -> (T, U) {
        let (is_there, release) = self.hold(table);
        let other = async {
            is_there.await.unwrap();
            let done = other.await;
            release.send(()).unwrap();
            done
        };
        join(first, other).await
    }

    /// Holds up the next request that reads a row of `table`: tells when it is there, and lets it go when told so.
    pub fn hold(&self, table: &'static str) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        self.hold_next(table, false)
    }

    /// The same for the next that writes one, with everything sealed already.
    pub fn hold_write(&self, table: &'static str) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        self.hold_next(table, true)
    }

    fn hold_next(&self, table: &'static str, is_write: bool) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((reached, is_there), (release, go_on)) = (oneshot::channel(), oneshot::channel());
        *self.held.lock().unwrap() = Some(Held { table, is_write, reached, go_on });
        (is_there, release)
    }

    /// `keys`: of rows, or what those of a range begin with.
    async fn held_up(&self, is_write: bool, mut keys: impl Iterator<Item = &[u8]>) {
        let held = self.held.lock().unwrap().take_if(|held| {
            held.is_write == is_write && keys.any(|key| key.starts_with(held.table.as_bytes()))
        });
        if let Some(held) = held {
            held.reached.send(()).unwrap();
            held.go_on.await.unwrap();
        }
    }

    /// Between none and six others, in an order that is always the same.
    async fn let_others_run(&self) {
        let turn = self.turn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        for _ in 0..(turn >> 40) % 7 {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait::async_trait]
impl Backend for Interleaved {
    async fn get(&self, key: &[u8]) -> Result<Option<Arc<RawRow>>, StoreError> {
        let row = self.rows.get(key).await;
        self.held_up(false, std::iter::once(key)).await;
        self.let_others_run().await;
        row
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<RawRow>>, StoreError> {
        let rows = self.rows.get_many(keys).await;
        self.let_others_run().await;
        rows
    }

    async fn range(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<RawPage, StoreError> {
        let page = self.rows.range(prefix, after, limit).await;
        self.held_up(false, std::iter::once(prefix)).await;
        self.let_others_run().await;
        page
    }

    async fn walk(&self, after: Option<&[u8]>, limit: usize) -> Result<RawPage, StoreError> {
        self.rows.walk(after, limit).await
    }

    fn marks(
        &self,
        visit: &mut dyn FnMut(&[u8], RowMark) -> ControlFlow<()>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.marks(visit)
    }

    async fn commit(&self, batch: RawBatch) -> Result<Revision, CommitError> {
        self.held_up(true, batch.put.iter().map(|(key, _)| key.as_slice())).await;
        self.let_others_run().await;
        self.rows.commit(batch).await
    }

    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
        self.rows.audit(after, limit).await
    }

    async fn audit_head(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.audit_head().await
    }

    fn condemn(&self, reason: StoreError) {
        self.rows.condemn(reason);
    }

    async fn health(&self) -> Result<Health, StoreError> {
        self.rows.health().await
    }

    fn exclusively(&self, job: &mut dyn FnMut()) {
        self.rows.exclusively(job);
    }
}
