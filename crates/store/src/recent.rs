//! Rows that were read lately, kept in memory, as they were read, until a commit changes them: for what is asked for with
//! almost every request. They are in the clear there, so nothing that holds a client's secret is kept here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Change, Key, Record, Store, StoreError, Table};

/// Rows of one table. Bounded; what was not asked for in a while goes first.
pub struct Recent<K: ?Sized, V> {
    table: Table<K, V>,
    kept: Arc<Mutex<Kept<V>>>,
}

struct Kept<V> {
    rows_max: usize,
    /// By full key. When it is half of what may be kept, it grows old.
    young: HashMap<Vec<u8>, Arc<V>>,
    old: HashMap<Vec<u8>, Arc<V>>,
    /// Counts the commits that changed the table: a row that was read before one may be as it was before it.
    changes: u64,
}

impl<K: Key + ?Sized, V: Record> Recent<K, V> {
    /// Follows the table from now on; call it before anything else commits.
    pub fn of(store: &Store, table: Table<K, V>, rows_max: usize) -> Self {
        let kept = Arc::new(Mutex::new(Kept::new(rows_max)));
        let following = kept.clone();
        store.observe(table, move |changes: &[Change<V>]| {
            lock(&following).follow(changes.iter().map(|change| change.key.as_slice()));
        });
        Self { table, kept }
    }

    pub async fn get(&self, store: &Store, key: &K) -> Result<Option<Arc<V>>, StoreError> {
        let bytes = self.table.key_bytes(key);
        let seen = {
            let mut kept = lock(&self.kept);
            if let Some(row) = kept.find(&bytes) {
                return Ok(Some(row));
            }
            kept.changes
        };
        let Some(row) = store.get(self.table, key).await? else { return Ok(None) };
        let row = Arc::new(row.value);
        lock(&self.kept).keep(bytes, row.clone(), seen);
        Ok(Some(row))
    }
}

fn lock<V>(kept: &Mutex<Kept<V>>) -> MutexGuard<'_, Kept<V>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<V> Kept<V> {
    fn new(rows_max: usize) -> Self {
        Self { rows_max, young: HashMap::new(), old: HashMap::new(), changes: 0 }
    }

    fn find(&mut self, key: &[u8]) -> Option<Arc<V>> {
        if let Some(row) = self.young.get(key) {
            return Some(row.clone());
        }
        let (key, row) = self.old.remove_entry(key)?;
        self.add(key, row.clone());
        Some(row)
    }

    /// `seen`: the count of changes before the row was read.
    fn keep(&mut self, key: Vec<u8>, row: Arc<V>, seen: u64) {
        if self.changes == seen {
            self.add(key, row);
        }
    }

    fn add(&mut self, key: Vec<u8>, row: Arc<V>) {
        if self.young.len() >= self.rows_max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, row);
    }

    fn follow<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) {
        self.changes += 1;
        for key in keys {
            self.young.remove(key);
            self.old.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    #[test]
    fn what_changed_is_not_found_nor_kept_from_before() {
        let mut kept = Kept::new(10);
        kept.keep(key(1), Arc::new("old"), 0);
        assert_eq!(kept.find(&key(1)).as_deref(), Some(&"old"));
        let seen = kept.changes;
        kept.follow([key(1).as_slice()].into_iter());
        assert_eq!(kept.find(&key(1)), None);
        // Read before the change, and brought after it.
        kept.keep(key(1), Arc::new("old"), seen);
        assert_eq!(kept.find(&key(1)), None);
        let seen = kept.changes;
        kept.keep(key(1), Arc::new("new"), seen);
        assert_eq!(kept.find(&key(1)).as_deref(), Some(&"new"));
    }

    #[test]
    fn a_bounded_number_is_kept_and_what_is_asked_for_stays() {
        let mut kept = Kept::new(10);
        kept.keep(key(0), Arc::new(0), 0);
        for number in 1..1000 {
            kept.keep(key(number), Arc::new(number), 0);
            assert!(kept.young.len() + kept.old.len() <= 10);
            assert!(kept.find(&key(0)).is_some(), "{number}");
        }
        assert_eq!(kept.find(&key(500)), None);
    }
}
