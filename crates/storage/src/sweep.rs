//! What is removed for good: what deleted things held, drafts that were not committed in time, orphans.

use arcadia_kernel::{EntropyExt as _, Fault, Permit, SystemWork};
use arcadia_store::{Batch, CommitError};
use uuid::Uuid;

use crate::Storage;
use crate::records::{
    BLOBS, BLOCKS, CONTAINERS, CONTENTS, Content, DRAFT_SECONDS, DRAFTS, GARBAGE, GRACE_SECONDS, Garbage,
    Refuse,
};

const GARBAGE_PER_READ: usize = 50;
/// Rows that one commit removes; a part of a content counts as many.
const ROWS_PER_COMMIT: usize = 500;
const PARTS_PER_COMMIT: usize = 5;

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Deleted things that were cleared away.
    pub cleared: usize,
    /// Drafts whose time was over.
    pub drafts: usize,
    /// Files that no row named.
    pub orphans: usize,
    /// Segments that were removed, after what lived in them had moved.
    pub segments: usize,
}

impl Storage {
    /// Removes what was deleted or replaced, and what has passed its time. Call it once after opening and every few
    /// minutes. Each of its commits is whole or absent; one that is cut off is taken up by the next. While a backup
    /// is made nothing is removed.
    pub async fn sweep(&self, permit: Permit<SystemWork>) -> Result<Swept, Fault> {
        self.remove(&permit, true).await
    }

    /// As [`Self::sweep`], but what nobody deleted stays: drafts, however old. For as long as the clock is not to be
    /// trusted with what cannot be undone.
    pub async fn tidy(&self, permit: Permit<SystemWork>) -> Result<Swept, Fault> {
        self.remove(&permit, false).await
    }

    async fn remove(&self, permit: &Permit<SystemWork>, with_drafts: bool) -> Result<Swept, Fault> {
        let removal = self.bytes.removal()?;
        let mut swept = Swept::default();
        // First: what a full disk refuses is commits. One that stays does not keep the rest.
        let orphans = match &removal {
            Some(_) => self.bytes.remove_orphans().await,
            None => Ok(0),
        };
        // Here for the site, so that no upload is the one to do it.
        self.bytes.own_folder(permit.stamp()).await?;
        if with_drafts {
            swept.drafts = self.end_old_drafts(permit).await?;
        }
        let Some(_removal) = removal else { return Ok(swept) };
        let now = permit.epoch_seconds().max(0).unsigned_abs();
        loop {
            let page = self.store.range(GARBAGE, &(), None, GARBAGE_PER_READ).await?;
            let due: Vec<Garbage> =
                page.items.into_iter().map(|row| row.value).take_while(|garbage| garbage.at <= now).collect();
            if due.is_empty() {
                break;
            }
            for garbage in due {
                self.clear(permit, &garbage).await?;
                swept.cleared += 1;
            }
        }
        swept.segments = self.bytes.collect(permit.stamp(), permit.epoch_seconds()).await?;
        swept.orphans = orphans?;
        Ok(swept)
    }

    /// Ends drafts that no block was put for in a week.
    async fn end_old_drafts(&self, permit: &Permit<SystemWork>) -> Result<usize, Fault> {
        let oldest = permit.epoch_seconds() - DRAFT_SECONDS;
        let mut ended = 0;
        let mut after = None;
        loop {
            let page = self.store.range(DRAFTS, &(), after.as_ref(), ROWS_PER_COMMIT).await?;
            for row in page.items.iter().filter(|row| row.value.touched < oldest) {
                let key = (row.value.container, row.value.name.clone());
                let mut batch = Batch::new();
                batch.require_revision(DRAFTS, &key, row.revision);
                batch.delete(DRAFTS, &key);
                Self::leave(permit, &mut batch, 0, Refuse::Draft { id: row.value.id, free: true })?;
                match self.store.commit(permit.stamp(), batch).await {
                    Ok(_) => ended += 1,
                    // A block came in at this moment.
                    Err(CommitError::Conflict) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(ended),
            }
        }
    }

    async fn clear(&self, permit: &Permit<SystemWork>, garbage: &Garbage) -> Result<(), Fault> {
        match &garbage.what {
            Refuse::Pieces(ids) => {
                let mut batch = Batch::new();
                batch.delete(GARBAGE, &garbage.key());
                return Ok(self.bytes.free(permit.stamp(), batch, ids).await?);
            }
            Refuse::Content { id, free } => self.clear_content(permit, *id, *free).await?,
            Refuse::Draft { id, free } => self.clear_draft(permit, *id, *free).await?,
            Refuse::Container(id) => self.clear_container(permit, *id).await?,
            Refuse::Account(id) => self.clear_account(permit, *id).await?,
        }
        let mut batch = Batch::new();
        batch.delete(GARBAGE, &garbage.key());
        self.store.commit(permit.stamp(), batch).await?;
        Ok(())
    }

    fn leave(
        permit: &Permit<SystemWork>,
        batch: &mut Batch,
        after_seconds: i64,
        what: Refuse,
    ) -> Result<(), Fault> {
        let at = permit.epoch_seconds() + after_seconds;
        let garbage = Garbage::new(permit.entropy().uuid(), at, what);
        batch.put(GARBAGE, &garbage.key(), &garbage)?;
        Ok(())
    }

    async fn clear_content(&self, permit: &Permit<SystemWork>, id: Uuid, free: bool) -> Result<(), Fault> {
        loop {
            // Each turn removes what it read, so the next one starts from the front again.
            let page = self.store.range(CONTENTS, &(id,), None, PARTS_PER_COMMIT).await?;
            if page.items.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for row in &page.items {
                batch.delete(CONTENTS, &(id, row.value.number));
                if free {
                    let pieces = row.value.blocks.iter().map(|block| block.piece.id).collect();
                    Self::leave(permit, &mut batch, GRACE_SECONDS, Refuse::Pieces(pieces))?;
                }
            }
            self.store.commit(permit.stamp(), batch).await?;
        }
    }

    async fn clear_draft(&self, permit: &Permit<SystemWork>, id: Uuid, free: bool) -> Result<(), Fault> {
        loop {
            let page = self.store.range(BLOCKS, &(id,), None, ROWS_PER_COMMIT).await?;
            if page.items.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for row in &page.items {
                batch.delete(BLOCKS, &(id, row.value.id.clone()));
            }
            if free {
                let pieces = page.items.iter().map(|row| row.value.piece.id).collect();
                Self::leave(permit, &mut batch, GRACE_SECONDS, Refuse::Pieces(pieces))?;
            }
            self.store.commit(permit.stamp(), batch).await?;
        }
    }

    async fn clear_container(&self, permit: &Permit<SystemWork>, id: Uuid) -> Result<(), Fault> {
        loop {
            let page = self.store.range(BLOBS, &(id,), None, ROWS_PER_COMMIT).await?;
            if page.items.is_empty() {
                break;
            }
            let mut batch = Batch::new();
            let mut pieces = Vec::new();
            for row in &page.items {
                match &row.value.content {
                    Content::Empty => {}
                    Content::One(piece) => pieces.push(piece.id),
                    Content::Listed { id, .. } => {
                        Self::leave(permit, &mut batch, 0, Refuse::Content { id: *id, free: true })?;
                    }
                }
                batch.delete(BLOBS, &(id, row.value.name.clone()));
            }
            Self::leave(permit, &mut batch, GRACE_SECONDS, Refuse::Pieces(pieces))?;
            self.store.commit(permit.stamp(), batch).await?;
        }
        loop {
            let page = self.store.range(DRAFTS, &(id,), None, ROWS_PER_COMMIT).await?;
            if page.items.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for row in &page.items {
                batch.delete(DRAFTS, &(id, row.value.name.clone()));
                Self::leave(permit, &mut batch, 0, Refuse::Draft { id: row.value.id, free: true })?;
            }
            self.store.commit(permit.stamp(), batch).await?;
        }
    }

    async fn clear_account(&self, permit: &Permit<SystemWork>, id: Uuid) -> Result<(), Fault> {
        loop {
            let page = self.store.range(CONTAINERS, &(id,), None, ROWS_PER_COMMIT).await?;
            if page.items.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for row in &page.items {
                batch.delete(CONTAINERS, &(id, row.value.name.clone()));
                Self::leave(permit, &mut batch, 0, Refuse::Container(row.value.instance))?;
            }
            self.store.commit(permit.stamp(), batch).await?;
        }
    }
}
