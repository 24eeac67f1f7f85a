//! Rows that were read lately, sealed as they are on disk, so that a point read seldom asks SQLite.
//!
//! The writer takes the keys of a group of commits out before it commits them, and puts new values in only once they
//! are in the file. Between the two, and for whoever read before, nothing is kept: so whoever has seen a commit in the
//! file never finds an older row here.

use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use foldhash::quality::RandomState;

use crate::backend::RawRow;

const SHARDS: usize = 16;
/// Larger rows are read from the file each time.
const ROW_BYTES_MAX: usize = 64 * 1024;
/// About what keeping a row takes besides its bytes.
const OVERHEAD_BYTES: usize = 128;

/// Bounded by bytes; what was not asked for in a while goes first.
pub(super) struct RowCache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    shard_bytes_max: usize,
}

#[derive(Default)]
struct Shard {
    /// By full key; `None` where there is no such row. When it is half of what may be kept, it grows old.
    young: HashMap<Vec<u8>, Option<Arc<RawRow>>>,
    old: HashMap<Vec<u8>, Option<Arc<RawRow>>>,
    young_bytes: usize,
    /// Counts the changes that began.
    changes: u64,
    /// Those that are not over.
    under_way: u32,
}

/// What a look found.
pub(super) enum Look {
    Found(Option<Arc<RawRow>>),
    /// Read it, and keep it with what this says.
    Missing(Seen),
}

/// The changes that had begun when a row was missing; `None` while one was under way.
pub(super) struct Seen(Option<u64>);

impl RowCache {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::default(),
            shard_bytes_max: bytes_max / SHARDS,
        }
    }

    pub fn look(&self, key: &[u8]) -> Look {
        let mut shard = self.shard(key);
        match shard.find(key, self.shard_bytes_max) {
            Some(row) => Look::Found(row),
            None => Look::Missing(Seen((shard.under_way == 0).then_some(shard.changes))),
        }
    }

    /// Keeps what was read after a look that missed, unless something changed meanwhile.
    pub fn keep(&self, key: &[u8], row: Option<&Arc<RawRow>>, seen: &Seen) {
        let mut shard = self.shard(key);
        if shard.under_way == 0 && seen.0 == Some(shard.changes) {
            shard.add(key.to_vec(), row.cloned(), self.shard_bytes_max);
        }
    }

    /// Forgets `keys` and keeps nothing beside them until the change is over.
    pub fn change<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Changing<'_> {
        let mut changing = Changing { cache: self, shards: [false; SHARDS], known: Vec::new() };
        for key in keys {
            let at = self.place(key);
            let mut shard = self.lock(at);
            if !std::mem::replace(&mut changing.shards[at], true) {
                shard.changes += 1;
                shard.under_way += 1;
            }
            if shard.remove(key) {
                changing.known.push(key.to_vec());
            }
        }
        changing.known.sort_unstable();
        changing
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        self.lock(self.place(key))
    }

    fn place(&self, key: &[u8]) -> usize {
        // Fewer than 2^16 shards, so the remainder fits.
        (self.hasher.hash_one(key) % SHARDS as u64) as usize
    }

    fn lock(&self, at: usize) -> MutexGuard<'_, Shard> {
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change on its way to the file. Over when dropped.
pub(super) struct Changing<'a> {
    cache: &'a RowCache,
    shards: [bool; SHARDS],
    /// Which of its keys were kept, in order: these are worth keeping.
    known: Vec<Vec<u8>>,
}

impl Changing<'_> {
    /// Whether the row was kept before.
    pub fn knew(&self, key: &[u8]) -> bool {
        self.known.binary_search_by(|known| known.as_slice().cmp(key)).is_ok()
    }

    /// A row as it is in the file now. The last word wins.
    pub fn put(&self, row: RawRow) {
        let mut shard = self.cache.shard(&row.key);
        shard.remove(&row.key);
        shard.add(row.key.clone(), Some(Arc::new(row)), self.cache.shard_bytes_max);
    }

    /// A row that is gone, or not known to be as it was put.
    pub fn forget(&self, key: &[u8]) {
        self.cache.shard(key).remove(key);
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        for (at, _) in self.shards.iter().enumerate().filter(|(_, touched)| **touched) {
            self.cache.lock(at).under_way -= 1;
        }
    }
}

impl Shard {
    fn find(&mut self, key: &[u8], bytes_max: usize) -> Option<Option<Arc<RawRow>>> {
        if let Some(row) = self.young.get(key) {
            return Some(row.clone());
        }
        let (key, row) = self.old.remove_entry(key)?;
        self.add(key, row.clone(), bytes_max);
        Some(row)
    }

    fn add(&mut self, key: Vec<u8>, row: Option<Arc<RawRow>>, bytes_max: usize) {
        let bytes =
            key.len() + OVERHEAD_BYTES + row.as_ref().map_or(0, |row| row.key.len() + row.value.len());
        if bytes > ROW_BYTES_MAX.min(bytes_max / 2) {
            return;
        }
        if self.young_bytes + bytes > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(key, row);
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        // The bytes stay counted until the young are old: an upper bound is enough.
        self.young.remove(key).is_some() | self.old.remove(key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Revision;

    fn row(key: &[u8], revision: u64, bytes: usize) -> Arc<RawRow> {
        Arc::new(RawRow { key: key.to_vec(), revision: Revision(revision), value: vec![7; bytes] })
    }

    fn missing(cache: &RowCache, key: &[u8]) -> Seen {
        match cache.look(key) {
            Look::Missing(seen) => seen,
            Look::Found(row) => panic!("found {row:?}"),
        }
    }

    fn found(cache: &RowCache, key: &[u8]) -> Option<Arc<RawRow>> {
        match cache.look(key) {
            Look::Found(row) => row,
            Look::Missing(_) => panic!("missing"),
        }
    }

    #[test]
    fn what_was_read_before_or_during_a_change_is_not_kept() {
        let cache = RowCache::new(1 << 20);
        let before = missing(&cache, b"a");
        let changing = cache.change([b"a".as_slice()].into_iter());
        let during = missing(&cache, b"a");
        cache.keep(b"a", Some(&row(b"a", 1, 4)), &before);
        cache.keep(b"a", Some(&row(b"a", 1, 4)), &during);
        missing(&cache, b"a");
        drop(changing);
        cache.keep(b"a", Some(&row(b"a", 1, 4)), &before);
        cache.keep(b"a", Some(&row(b"a", 1, 4)), &during);
        let after = missing(&cache, b"a");
        cache.keep(b"a", Some(&row(b"a", 2, 4)), &after);
        assert_eq!(found(&cache, b"a"), Some(row(b"a", 2, 4)));
    }

    #[test]
    fn what_was_kept_is_replaced_by_a_change_and_what_was_not_stays_out() {
        let cache = RowCache::new(1 << 20);
        cache.keep(b"a", None, &missing(&cache, b"a"));
        assert_eq!(found(&cache, b"a"), None, "that there is none is known as well");
        let changing = cache.change([b"a".as_slice(), b"b"].into_iter());
        missing(&cache, b"a");
        assert!(changing.knew(b"a") && !changing.knew(b"b"));
        changing.put((*row(b"a", 3, 4)).clone());
        drop(changing);
        assert_eq!(found(&cache, b"a"), Some(row(b"a", 3, 4)));
        let changing = cache.change([b"a".as_slice()].into_iter());
        changing.put((*row(b"a", 4, 4)).clone());
        changing.forget(b"a");
        drop(changing);
        missing(&cache, b"a");
    }

    #[test]
    fn no_more_than_the_bound_is_kept_and_what_is_asked_for_stays() {
        let cache = RowCache::new(SHARDS * 64 * 1024);
        cache.keep(b"often", Some(&row(b"often", 1, 1000)), &missing(&cache, b"often"));
        for number in 0..5000_u32 {
            let key = number.to_be_bytes();
            cache.keep(&key, Some(&row(&key, 1, 1000)), &missing(&cache, &key));
            assert!(matches!(cache.look(b"often"), Look::Found(Some(_))), "{number}");
        }
        let kept: usize = (0..SHARDS)
            .map(|at| cache.lock(at))
            .map(|shard| (shard.young.len() + shard.old.len()) * 1000)
            .sum();
        assert!(kept <= SHARDS * 64 * 1024, "{kept}");
        let large = row(b"large", 1, 40_000);
        cache.keep(b"large", Some(&large), &missing(&cache, b"large"));
        missing(&cache, b"large");
    }
}
