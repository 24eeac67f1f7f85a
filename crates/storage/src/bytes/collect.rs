//! What is removed: bytes that were freed, orphans, and segments that are mostly dead.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use arcadia_crypto::CHUNK_TAG_BYTES;
use arcadia_kernel::AuditStamp;
use arcadia_store::{Batch, CommitError};
use uuid::Uuid;

use super::fault::FirstFault;
use super::files::Files;
use super::segments::{self, Found, HEADER_BYTES};
use super::{ByteStore, BytesFault, PACKED_BYTES_MAX, PLACES, Place, blocking};
use crate::records::GRACE_SECONDS;

const LOOK_UPS_PER_READ: usize = 1000;
/// A segment whose living records are fewer bytes than one in so many is rewritten.
const DEAD_FACTOR: u64 = 4;
/// A record of more is not one that was written here, but for the few bytes too many that one may be moved with.
const SEALED_BYTES_MAX: usize = PACKED_BYTES_MAX + CHUNK_TAG_BYTES + HEADER_BYTES;

/// Segments that are to be looked at.
pub(super) struct Dirty {
    /// Every complete one, until each was looked at once.
    all: bool,
    /// Those that records were written to, or lost in, since they were last looked at.
    segments: HashSet<u64>,
}

impl Default for Dirty {
    fn default() -> Self {
        Self { all: true, segments: HashSet::new() }
    }
}

impl Dirty {
    fn of(&self, mut segments: Vec<u64>) -> Vec<u64> {
        segments.retain(|segment| self.all || self.segments.contains(segment));
        segments
    }
}

impl ByteStore {
    /// Removes what a commit has made unreachable: files at once, packed bytes with their segment.
    pub async fn free(&self, stamp: &AuditStamp, mut batch: Batch, ids: &[Uuid]) -> Result<(), BytesFault> {
        let mut paths = Vec::new();
        for ids in ids.chunks(LOOK_UPS_PER_READ) {
            for (id, place) in ids.iter().zip(self.store.get_many(PLACES, ids).await?) {
                let Some(place) = place else { continue };
                batch.delete(PLACES, id);
                match place.value {
                    Place::File => paths.push(self.files.path(*id)),
                    Place::Packed { segment, .. } => self.mark_dirty(segment),
                }
            }
        }
        match self.store.commit(stamp, batch).await {
            Ok(_) | Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
        blocking(move || Files::remove_all(&paths)).await
    }

    /// Removes files that no row names, once after a start. Needs no commit, so it makes room on a full disk.
    pub async fn remove_orphans(&self) -> Result<usize, BytesFault> {
        let mut removed = 0;
        if !self.orphans_removed.load(Ordering::Acquire) {
            let mut first = FirstFault::default();
            for shard in 0..=255 {
                removed += first.of(self.remove_orphans_in(shard).await);
            }
            first.into_result()?;
            self.orphans_removed.store(true, Ordering::Release);
        }
        Ok(removed)
    }

    /// Removes segments that hold little that lives, after what lives in them has moved. Gives how many. One that
    /// cannot be read or removed does not keep the others.
    pub async fn collect(&self, stamp: &AuditStamp, now: i64) -> Result<usize, BytesFault> {
        let tidied = self.tidy_segments(stamp, now).await;
        let removed = self.remove_retired(now).await;
        tidied.and(removed)
    }

    /// Packs a piece. Whether a row will ever name it is not known yet.
    pub(super) async fn append(&self, id: Uuid, sealed: Vec<u8>) -> Result<Place, BytesFault> {
        let before = self.segments.current();
        let place = self.segments.append(id, sealed).await;
        match &place {
            Ok(Place::Packed { segment, .. }) => self.mark_dirty(*segment),
            Ok(Place::File) => {}
            // It was closed, and perhaps nothing else was ever written to it.
            Err(_) => {
                let is_there = |segment: &u64| segments::path(self.segments.root(), *segment).exists();
                (before..self.segments.current())
                    .filter(is_there)
                    .for_each(|segment| self.mark_dirty(segment));
            }
        }
        place
    }

    /// A record of the segment is dead, or may be.
    fn mark_dirty(&self, segment: u64) {
        self.dirty().segments.insert(segment);
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) -> MutexGuard<'_, HashMap<u64, i64>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes segments in which nothing lives, those that records moved out of once answers that read them there have come
    /// to their end. What died in place has waited for them already, and what moved before a restart is read by nobody. A
    /// header that was changed on the disk hides its record, and perhaps all behind it, so rows have the last word: what
    /// they still name can be read without its header.
    async fn remove_retired(&self, now: i64) -> Result<usize, BytesFault> {
        let mut due: Vec<u64> = self.retired().iter().copied().collect();
        due.retain(|segment| self.moved().get(segment).is_none_or(|at| at + GRACE_SECONDS <= now));
        if due.is_empty() {
            return Ok(0);
        }
        let named = self.named(&due).await?;
        let (mut removed, mut first) = (0, FirstFault::default());
        for segment in due {
            if named.contains(&segment) {
                let path = segments::path(self.segments.root(), segment);
                tracing::error!(
                    segment = %path.display(),
                    "a segment of blobs is damaged and is kept: rows name records in it that its headers do not show. \
                     Look at the health of the disk, and write the site's small blobs anew or restore a backup"
                );
            } else {
                let segments = self.segments.clone();
                let gone = blocking(move || segments.remove(segment).map(|()| true)).await;
                if !first.of(gone) {
                    continue;
                }
                removed += 1;
            }
            self.retired().remove(&segment);
            self.moved().remove(&segment);
        }
        first.into_result().map(|()| removed)
    }

    /// Those of the segments that a row names.
    async fn named(&self, segments: &[u64]) -> Result<HashSet<u64>, BytesFault> {
        let mut named = HashSet::new();
        let mut after = None;
        loop {
            let page = self.store.range(PLACES, &(), after.as_ref(), LOOK_UPS_PER_READ).await?;
            named.extend(page.items.into_iter().filter_map(|row| match row.value {
                Place::Packed { segment, .. } => segments.contains(&segment).then_some(segment),
                Place::File => None,
            }));
            // The table may be long, and its pages come without a wait.
            tokio::task::yield_now().await;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(named),
            }
        }
    }

    async fn remove_orphans_in(&self, shard: u8) -> Result<usize, BytesFault> {
        let root = self.files.root().to_owned();
        let ids = blocking(move || Files::in_shard(&root, shard)).await?;
        let mut orphans = Vec::new();
        for ids in ids.chunks(LOOK_UPS_PER_READ) {
            // In this order: what is not in flight any more has its row, or never gets one.
            let settled: Vec<Uuid> = ids.iter().copied().filter(|id| !self.flight.has(*id)).collect();
            for (id, place) in settled.iter().zip(self.store.get_many(PLACES, &settled).await?) {
                if place.is_none() {
                    orphans.push(self.files.path(*id));
                }
            }
        }
        let count = orphans.len();
        blocking(move || Files::remove_all(&orphans)).await?;
        Ok(count)
    }

    /// Looks at each segment that was marked. One that fails is marked again.
    async fn tidy_segments(&self, stamp: &AuditStamp, now: i64) -> Result<(), BytesFault> {
        let complete = self.segments.complete()?;
        let dirty = self.dirty().of(complete);
        let (mut first, mut may_move) = (FirstFault::default(), true);
        for segment in dirty {
            // Before it is looked at, so that marks of meanwhile stay.
            self.dirty().segments.remove(&segment);
            let tidied = self.tidy_segment(stamp, now, segment, may_move).await;
            if let Err(fault) = &tidied {
                self.mark_dirty(segment);
                may_move &= !fault.stops_writes();
            }
            if first.of(tidied) {
                self.retired().insert(segment);
            }
        }
        self.dirty().all = false;
        first.into_result()
    }

    /// Whether nothing lives in the segment any more, its last records having moved to the current one. If none may
    /// move, a segment in which one lives stays as it is.
    async fn tidy_segment(
        &self,
        stamp: &AuditStamp,
        now: i64,
        segment: u64,
        may_move: bool,
    ) -> Result<bool, BytesFault> {
        let root = self.segments.root().to_owned();
        let (found, size) = blocking(move || segments::scan(&root, segment)).await?;
        if found.iter().any(|record| self.flight.has(record.id)) {
            self.mark_dirty(segment);
            return Ok(false);
        }
        let living = self.living(segment, found).await?;
        let bytes: u64 =
            living.iter().map(|record| HEADER_BYTES as u64 + u64::from(record.sealed_bytes)).sum();
        if bytes * DEAD_FACTOR > size {
            return Ok(false);
        }
        if may_move && !living.is_empty() {
            // Before they do: a commit that failed may have been made.
            self.moved().insert(segment, now);
        }
        for record in &living {
            if !may_move || !self.move_record(stamp, segment, record).await? {
                self.mark_dirty(segment);
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn living(&self, segment: u64, found: Vec<Found>) -> Result<Vec<Found>, BytesFault> {
        let ids: Vec<Uuid> = found.iter().map(|record| record.id).collect();
        let mut places = HashMap::new();
        for ids in ids.chunks(LOOK_UPS_PER_READ) {
            for (id, place) in ids.iter().zip(self.store.get_many(PLACES, ids).await?) {
                places.extend(place.map(|place| (*id, place.value)));
            }
        }
        // One whose length was changed on the disk is not read into memory: rows keep its segment where it is.
        let lives = |record: &Found| {
            record.sealed_bytes as usize <= SEALED_BYTES_MAX
                && places.get(&record.id) == Some(&Place::Packed { segment, offset: record.offset })
        };
        Ok(found.into_iter().filter(lives).collect())
    }

    /// `false` when the record's row was changed in between; the next collection looks again.
    async fn move_record(
        &self,
        stamp: &AuditStamp,
        segment: u64,
        record: &Found,
    ) -> Result<bool, BytesFault> {
        let _in_flight = self.flight.begin(record.id);
        let Some(row) = self.store.get(PLACES, &record.id).await? else { return Ok(false) };
        let sealed_bytes = record.sealed_bytes as usize;
        let Some(sealed) = self.segments.read(segment, record.offset, sealed_bytes)? else {
            return Ok(false);
        };
        let place = self.append(record.id, sealed).await?;
        let mut batch = Batch::new();
        batch.require_revision(PLACES, &record.id, row.revision);
        self.lead_to(&mut batch, &record.id, &place)?;
        match self.store.commit(stamp, batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict) => Ok(false),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arcadia_crypto::SystemEntropy;
    use arcadia_kernel::FixedClock;
    use arcadia_store::Store;
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn requests_are_served_between_two_pages_of_a_long_table() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_memory(Arc::new(FixedClock::at_epoch_seconds(0)), Arc::new(SystemEntropy));
        let bytes = ByteStore::open(folder.path(), store, Arc::new(SystemEntropy)).await.unwrap();
        assert!(
            bytes.store.range(PLACES, &(), None, 1).now_or_never().is_some(),
            "a page comes without a wait"
        );
        assert!(bytes.named(&[1]).now_or_never().is_none());
    }
}
