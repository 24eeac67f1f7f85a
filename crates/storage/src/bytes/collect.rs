//! What is removed: bytes that were freed, orphans, and segments that are mostly dead.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

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

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    pub orphans: usize,
    pub segments: usize,
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
                    Place::Packed { segment, .. } => self.mark_dirty([segment]),
                }
            }
        }
        match self.store.commit(stamp, batch).await {
            Ok(_) | Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
        blocking(move || paths.iter().try_for_each(|path| Files::remove(path))).await
    }

    /// Removes orphans, once after a start, and segments that hold little that lives.
    pub async fn collect(&self, stamp: &AuditStamp, now: i64) -> Result<Collected, BytesFault> {
        let mut collected = Collected::default();
        if !self.orphans_removed.load(Ordering::Acquire) {
            for shard in 0..=255 {
                collected.orphans += self.remove_orphans(shard).await?;
            }
            self.orphans_removed.store(true, Ordering::Release);
        }
        let complete = self.segments.complete()?;
        let dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner).replace(HashSet::new());
        let looked_at = |segment: &u64| dirty.as_ref().is_none_or(|dirty| dirty.contains(segment));
        for segment in complete.iter().copied().filter(looked_at) {
            if self.tidy_segment(stamp, segment).await? {
                self.retired.lock().unwrap_or_else(PoisonError::into_inner).entry(segment).or_insert(now);
            }
        }
        collected.segments = self.remove_retired(now).await?;
        // Those that are still appended to are looked at when they are complete.
        self.mark_dirty(dirty.unwrap_or_default().into_iter().filter(|segment| !complete.contains(segment)));
        Ok(collected)
    }

    fn mark_dirty(&self, segments: impl IntoIterator<Item = u64>) {
        if let Some(dirty) = self.dirty.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            dirty.extend(segments);
        }
    }

    /// Removes segments that have been without life for long enough.
    async fn remove_retired(&self, now: i64) -> Result<usize, BytesFault> {
        let due: Vec<u64> = {
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            let due = retired.iter().filter(|(_, since)| **since + GRACE_SECONDS <= now);
            let due: Vec<u64> = due.map(|(segment, _)| *segment).collect();
            retired.retain(|segment, _| !due.contains(segment));
            due
        };
        let count = due.len();
        let segments = self.segments.clone();
        blocking(move || due.into_iter().try_for_each(|segment| segments.remove(segment))).await?;
        Ok(count)
    }

    async fn remove_orphans(&self, shard: u8) -> Result<usize, BytesFault> {
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
            self.mark_dirty([segment]);
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
        let place = self.segments.append(record.id, sealed).await?;
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
