//! What changes share: the container they are in, the blob as it was, and what they leave behind.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use arcadia_kernel::{Entropy, EntropyExt as _, Fault};
use arcadia_store::{Batch, Row};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::account::Account;
use crate::bytes::Piece;
use crate::conditions::State;
use crate::records::{
    BLOBS, Blob, CONTAINERS, CONTENTS, Container, Content, ContentPart, DRAFTS, Draft, GARBAGE,
    GRACE_SECONDS, Garbage, ITEMS_PER_PART, NAMES, Refuse,
};
use crate::{Storage, faults};

const LOCKS: usize = 64;

/// Blocks of one blob are put one after the other, so that clients that send many at once do not all lose races for
/// the draft's row.
pub(crate) struct DraftLocks(Vec<Mutex<()>>);

impl Default for DraftLocks {
    fn default() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }
}

impl DraftLocks {
    pub async fn lock(&self, key: &(Uuid, String)) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or(0);
        match self.0.get(at) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }
}

/// Runs to its end even when the client hangs up: a commit that is under way must know what it may keep.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Fault>> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(Fault::internal(error)),
    }
}

/// A blob's place and what is there.
pub(super) struct Found {
    /// Container instance and name.
    pub key: (Uuid, String),
    pub blob: Option<Row<Blob>>,
}

impl Found {
    pub fn state(&self) -> Option<State<'_>> {
        self.blob.as_ref().map(|row| State { etag: &row.value.etag, modified: row.value.modified })
    }
}

impl Storage {
    pub(crate) async fn container(&self, account: &Account, name: &str) -> Result<Row<Container>, Fault> {
        let key = (account.instance(), name.to_owned());
        self.store.get(CONTAINERS, &key).await?.ok_or_else(faults::container_not_found)
    }

    /// A blob as it is, for reading.
    pub(super) async fn recent(
        &self,
        account: &Account,
        container: &str,
        blob: &str,
    ) -> Result<Arc<Blob>, Fault> {
        let key = (account.instance(), container.to_owned());
        let container = self.recent_containers.get(&self.store, &key).await?;
        let container = container.ok_or_else(faults::container_not_found)?;
        let key = (container.instance, blob.to_owned());
        self.recent_blobs.get(&self.store, &key).await?.ok_or_else(faults::blob_not_found)
    }

    pub(super) async fn find(&self, account: &Account, container: &str, blob: &str) -> Result<Found, Fault> {
        let container = self.container(account, container).await?.value;
        let key = (container.instance, blob.to_owned());
        let blob = self.store.get(BLOBS, &key).await?;
        Ok(Found { key, blob })
    }

    /// A batch that is only committed while the account is live and still the same one: its containers and blobs are there
    /// for a while after it is gone.
    pub(super) async fn change_of(&self, account: &Account) -> Result<Batch, Fault> {
        let claim = self.store.get(NAMES, account.name()).await?;
        let claim = claim.filter(|row| row.value.instance == account.instance());
        let claim = claim.ok_or_else(faults::account_not_found)?;
        let mut batch = Batch::new();
        batch.require_revision(NAMES, account.name(), claim.revision);
        Ok(batch)
    }

    /// The blob as it is, and a batch that is only committed while account, container and blob are unchanged.
    pub(super) async fn plan(
        &self,
        account: &Account,
        container: &str,
        blob: &str,
    ) -> Result<(Found, Batch), Fault> {
        let mut batch = self.change_of(account).await?;
        let row = self.container(account, container).await?;
        batch.require_revision(CONTAINERS, &(account.instance(), container.to_owned()), row.revision);
        let key = (row.value.instance, blob.to_owned());
        let blob = self.store.get(BLOBS, &key).await?;
        match &blob {
            Some(row) => batch.require_revision(BLOBS, &key, row.revision),
            None => batch.require_absent(BLOBS, &key),
        }
        Ok((Found { key, blob }, batch))
    }

    /// Ends the draft of a blob, with all blocks that were put for it.
    pub(super) async fn end_draft(
        &self,
        batch: &mut Batch,
        key: &(Uuid, String),
        after: &Leaving<'_>,
    ) -> Result<(), Fault> {
        if let Some(row) = self.store.get(DRAFTS, key).await? {
            after.draft(batch, key, &row, true)?;
        }
        Ok(())
    }

    /// The blocks of a content, in order; none for a blob that was put whole.
    pub(super) async fn parts(&self, content: &Content) -> Result<Vec<ContentPart>, Fault> {
        let Content::Listed { id, .. } = content else { return Ok(Vec::new()) };
        let rows = self.store.all(CONTENTS, &(*id,)).await?;
        Ok(rows.into_iter().map(|row| row.value).collect())
    }
}

/// Leaves what a change makes unreachable to the sweep.
pub(super) struct Leaving<'a> {
    pub now: i64,
    pub entropy: &'a dyn Entropy,
}

impl Leaving<'_> {
    pub fn leave(&self, batch: &mut Batch, after_seconds: i64, what: Refuse) -> Result<(), Fault> {
        let garbage = Garbage::new(self.entropy.uuid(), self.now + after_seconds, what);
        batch.put(GARBAGE, &garbage.key(), &garbage)?;
        Ok(())
    }

    pub fn pieces(&self, batch: &mut Batch, ids: &[Uuid]) -> Result<(), Fault> {
        for ids in ids.chunks(ITEMS_PER_PART) {
            self.leave(batch, GRACE_SECONDS, Refuse::Pieces(ids.to_vec()))?;
        }
        Ok(())
    }

    /// The content of a blob that is replaced or deleted.
    pub fn content(&self, batch: &mut Batch, content: &Content) -> Result<(), Fault> {
        match content {
            Content::Empty => Ok(()),
            Content::One(Piece { id, .. }) => self.pieces(batch, &[*id]),
            Content::Listed { id, .. } => self.leave(batch, 0, Refuse::Content { id: *id, free: true }),
        }
    }

    /// Removes the draft's row; with `free`, nobody uses its blocks any more.
    pub fn draft(
        &self,
        batch: &mut Batch,
        key: &(Uuid, String),
        row: &Row<Draft>,
        free: bool,
    ) -> Result<(), Fault> {
        batch.require_revision(DRAFTS, key, row.revision);
        batch.delete(DRAFTS, key);
        self.leave(batch, 0, Refuse::Draft { id: row.value.id, free })
    }
}
