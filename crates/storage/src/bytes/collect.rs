//! What is removed: bytes that were freed, orphans, and segments that are mostly dead.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use arcadia_kernel::AuditStamp;
use arcadia_store::{Batch, CommitError};
use uuid::Uuid;

use super::files::Files;
use super::segments::{self, Found, HEADER_BYTES};
use super::{ByteStore, BytesFault, PLACES, Place, blocking};
use crate::records::GRACE_SECONDS;

const LOOK_UPS_PER_READ: usize = 1000;
/// A segment whose living records are fewer bytes than one in so many is rewritten.
const DEAD_FACTOR: u64 = 4;

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
        blocking(move || paths.iter().try_for_each(|path| Files::remove(path))).await
    }

    /// Removes files that no row names, once after a start. Needs no commit, so it makes room on a full disk.
    pub async fn remove_orphans(&self) -> Result<usize, BytesFault> {
        let mut removed = 0;
        if !self.orphans_removed.load(Ordering::Acquire) {
            for shard in 0..=255 {
                removed += self.remove_orphans_in(shard).await?;
            }
            self.orphans_removed.store(true, Ordering::Release);
        }
        Ok(removed)
    }

    /// Removes segments that hold little that lives, after what lives in them has moved. Gives how many.
    pub async fn collect(&self, stamp: &AuditStamp, now: i64) -> Result<usize, BytesFault> {
        let complete = self.segments.complete()?;
        let dirty = self.dirty().of(complete);
        for segment in dirty {
            // Before it is looked at, so that marks of meanwhile stay.
            self.dirty().segments.remove(&segment);
            let tidied = self.tidy_segment(stamp, segment).await.inspect_err(|_| self.mark_dirty(segment))?;
            if tidied {
                self.retired().entry(segment).or_insert(now);
            }
        }
        self.dirty().all = false;
        self.remove_retired(now).await
    }

    /// Packs a piece. Whether a row will ever name it is not known yet.
    pub(super) async fn append(&self, id: Uuid, sealed: Vec<u8>) -> Result<Place, BytesFault> {
        let place = self.segments.append(id, sealed).await?;
        if let Place::Packed { segment, .. } = place {
            self.mark_dirty(segment);
        }
        Ok(place)
    }

    /// A record of the segment is dead, or may be.
    fn mark_dirty(&self, segment: u64) {
        self.dirty().segments.insert(segment);
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, HashMap<u64, i64>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes segments that have been without life for long enough. A header that was changed on the disk hides its
    /// record, and perhaps all behind it, so rows have the last word: what they still name can be read without its
    /// header.
    async fn remove_retired(&self, now: i64) -> Result<usize, BytesFault> {
        let is_due = |(segment, since): (&u64, &i64)| (since + GRACE_SECONDS <= now).then_some(*segment);
        let due: Vec<u64> = self.retired().iter().filter_map(is_due).collect();
        if due.is_empty() {
            return Ok(0);
        }
        let named = self.named(&due).await?;
        let mut removed = 0;
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
                blocking(move || segments.remove(segment)).await?;
                removed += 1;
            }
            self.retired().remove(&segment);
        }
        Ok(removed)
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
        blocking(move || orphans.iter().try_for_each(|path| Files::remove(path))).await?;
        Ok(count)
    }

    /// Whether nothing lives in the segment any more, its last records having moved to the current one.
    async fn tidy_segment(&self, stamp: &AuditStamp, segment: u64) -> Result<bool, BytesFault> {
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
        for record in &living {
            if !self.move_record(stamp, segment, record).await? {
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
        let lives = |record: &Found| {
            places.get(&record.id) == Some(&Place::Packed { segment, offset: record.offset })
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
        batch.put(PLACES, &record.id, &place)?;
        match self.store.commit(stamp, batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict) => Ok(false),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}
