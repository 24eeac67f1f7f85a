//! What lies below the seal: ordered bytes, written in conditional batches.
//!
//! A backend sees keys (in clear, they are what it orders by) and sealed values. It never sees what a value
//! says, nor an audit record; those are opened and chained by the functions that a batch brings with it.

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::{CommitError, StoreError};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 8 * 1024;
/// The largest value before it is sealed, in bytes.
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most rows that one batch may put, delete and require.
pub const BATCH_ROWS_MAX: usize = 16 * 1024;
/// The most bytes of keys and values that one batch may carry.
pub const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The most rows of one page of a range; more are a further page.
pub const PAGE_ROWS_MAX: usize = 1000;
/// A page ends early, after at least one row, when its values reach this many bytes.
pub const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The number of a commit. Later commits have larger ones; each row bears that of its last change.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// A row as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRow {
    pub key: Vec<u8>,
    pub revision: Revision,
    pub value: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct RawPage {
    /// In key order.
    pub rows: Vec<RawRow>,
    /// Whether rows follow after the last of these.
    pub more: bool,
}

/// What must hold when a batch is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    Absent(Vec<u8>),
    Revision(Vec<u8>, Revision),
}

/// All of it, or nothing.
#[derive(Default)]
pub struct RawBatch {
    pub require: Vec<Requirement>,
    /// Keys are distinct, and none is also in `delete`.
    pub put: Vec<(Vec<u8>, Vec<u8>)>,
    pub delete: Vec<Vec<u8>>,
    /// What is there already, sealed anew: no change, and so without a revision of its own.
    pub reseal: Vec<Reseal>,
    pub audit: Vec<AuditDraft>,
    pub watch: Option<Box<dyn Watch>>,
}

/// A value that is to say the same under another seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reseal {
    /// Left as it is when the row is not of this revision any more.
    Row(RawRow),
    /// Records of the audit log, by the number of the last.
    Records(u64, Vec<u8>),
}

impl Reseal {
    pub(crate) fn row(&self) -> Option<&RawRow> {
        match self {
            Self::Row(row) => Some(row),
            Self::Records(..) => None,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Row(row) => row.key.len() + row.value.len(),
            Self::Records(_, records) => records.len(),
        }
    }
}

/// Turns the head of the audit chain (`None` before the first record) and what the batch does to rows into the head
/// after the next record. The first draft of a batch is told of its rows, others of none.
/// May be called again when a backend has to run a transaction again.
pub type AuditDraft = Box<
    dyn Fn(Option<&dyn ChainHead>, &[RowChange<'_>]) -> Result<Arc<dyn ChainHead>, StoreError> + Send + Sync,
>;

/// The head of the audit chain: which record is the last, and what the rows are. Drafts hand it on to each other with
/// the records that are not kept yet, so that one seal serves all records of a transaction, and one the head.
pub trait ChainHead: Any + Send + Sync {
    /// What a transaction keeps of all that was drafted in it.
    fn settled(&self) -> Result<Settled, StoreError>;
}

/// What is kept at the end of a transaction.
pub struct Settled {
    /// The head, sealed. Kept once, replaced each time.
    pub head: Vec<u8>,
    /// The records since the head was settled last.
    pub records: Vec<AuditRow>,
    /// What the next draft follows: the same head, with nothing that is still to be kept.
    pub next: Arc<dyn ChainHead>,
    /// To be dropped once all of it is written or given up.
    pub held: Option<Arc<dyn Any + Send + Sync>>,
}

/// As it was kept.
impl ChainHead for Vec<u8> {
    fn settled(&self) -> Result<Settled, StoreError> {
        Ok(Settled { head: self.clone(), records: Vec::new(), next: Arc::new(self.clone()), held: None })
    }
}

/// How much of a sealed value tells it from every other: the tag at its end.
pub const MARK_TAG_BYTES: usize = 16;

/// What tells a row as it is from what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowMark {
    pub revision: Revision,
    /// The last bytes of the value, after zeros when it is shorter.
    pub tag: [u8; MARK_TAG_BYTES],
}

impl RowMark {
    pub fn of(revision: Revision, value: &[u8]) -> Self {
        let mut tag = [0; MARK_TAG_BYTES];
        let end = &value[value.len().saturating_sub(MARK_TAG_BYTES)..];
        tag[MARK_TAG_BYTES - end.len()..].copy_from_slice(end);
        Self { revision, tag }
    }
}

/// What a batch does to a row; `None` where there is none before or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowChange<'a> {
    pub key: &'a [u8],
    pub before: Option<RowMark>,
    pub after: Option<RowMark>,
}

/// Records that were committed together, in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// The number of the last of them; records are numbered from 1, without gaps.
    pub sequence: u64,
    /// The last one's.
    pub hash: [u8; 32],
    /// All of them, sealed.
    pub records: Vec<u8>,
}

/// Who wants to be told of a batch. The backend calls `keys`, reads the rows, calls `prepare` before anything
/// is written, and what that returns once the batch is durable and before it is acknowledged.
pub trait Watch: Send {
    /// The keys of this batch whose old values are needed.
    fn keys(&self) -> Vec<&[u8]>;

    /// `before` are the old values, in the order of `keys`. An error refuses the batch.
    fn prepare(&self, before: Vec<Option<Vec<u8>>>) -> Result<Announce, StoreError>;
}

/// Tells observers of a durable batch.
pub type Announce = Box<dyn FnOnce() + Send>;

/// How a store is.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub revision: Revision,
    pub audit_records: u64,
    /// Bytes on disk, with the write-ahead log.
    pub size_bytes: u64,
    /// When the store was made, in seconds since 1970.
    pub created_epoch_seconds: i64,
    /// The last failure to write, cleared by the next success.
    pub last_failure: Option<String>,
}

/// A place for rows. The conformance suite in `tests/it/suite.rs` says in code what each method must do.
#[async_trait::async_trait]
pub trait Backend: Send + Sync + 'static {
    async fn get(&self, key: &[u8]) -> Result<Option<Arc<RawRow>>, StoreError>;

    /// As of one moment, in the order of `keys`.
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<RawRow>>, StoreError>;

    /// Rows whose key starts with `prefix` and is above `prefix` + `after`; at most `limit` (1 to
    /// [`PAGE_ROWS_MAX`]), as of one moment. `prefix` is not empty.
    async fn range(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<RawPage, StoreError>;

    /// As [`Backend::range`], of the rows with `part` in their key; a page may end before one of the others.
    async fn range_with(
        &self,
        prefix: &[u8],
        part: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<RawPage, StoreError> {
        let mut after = after.map(<[u8]>::to_vec);
        loop {
            let mut page = self.range(prefix, after.as_deref(), limit).await?;
            after = page.rows.last().map(|row| row.key[prefix.len()..].to_vec());
            page.rows.retain(|row| row.key.windows(part.len()).any(|found| found == part));
            if !page.rows.is_empty() || !page.more {
                return Ok(page);
            }
        }
    }

    /// Rows of all tables above `after`, in key order, as [`Backend::range`] otherwise.
    async fn walk(&self, after: Option<&[u8]>, limit: usize) -> Result<RawPage, StoreError>;

    /// Hands every row's key and mark to `visit`; returns the head of the same moment. Gives up with
    /// [`StoreError::Closed`] when `visit` wants no more.
    fn marks(
        &self,
        visit: &mut dyn FnMut(&[u8], RowMark) -> ControlFlow<()>,
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns once the batch is durable and announced. A batch that changes no row gets the revision of the
    /// commit before it.
    async fn commit(&self, batch: RawBatch) -> Result<Revision, CommitError>;

    /// Where audit records above `after` are, in order. Ends early, after at least one, at [`PAGE_BYTES_MAX`].
    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRow>, StoreError>;

    /// The head that the last record left.
    async fn audit_head(&self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Whether the store can be written, as far as is known without writing, and is what this process left. An
    /// [`StoreError::Interfered`] stays until the store is opened anew.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// From now on nothing is read or written any more, for this reason, until the store is opened anew.
    fn condemn(&self, reason: StoreError);

    async fn health(&self) -> Result<Health, StoreError>;

    /// Runs `job` while no commit is between [`Watch::keys`] and its announcement. Blocks for the
    /// commits that are under way, and under load for some of those that follow. Must not be called by an observer.
    fn exclusively(&self, job: &mut dyn FnMut());
}

/// The first key above every key that starts with `prefix`; `None` when there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Asks `watch` to prepare; code of others must not take a writer down with it.
pub(crate) fn prepared(watch: &dyn Watch, before: Vec<Option<Vec<u8>>>) -> Result<Announce, StoreError> {
    let call = std::panic::AssertUnwindSafe(|| watch.prepare(before));
    std::panic::catch_unwind(call).unwrap_or(Err(StoreError::ObserverFailed))
}

/// Whether the announcement went through.
pub(crate) fn announced(announce: Announce) -> bool {
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(announce)).is_ok();
    if !told {
        tracing::error!("an observer of the store panicked; the store accepts no more changes");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_key_starts_with_it_any_more() {
        assert_eq!(prefix_end(b"a\0"), Some(b"a\x01".to_vec()));
        assert_eq!(prefix_end(b"a\xFF\xFF"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xFF"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
