//! A conditional batch of changes, before it is sealed.

use std::collections::BTreeMap;

use arcadia_crypto::Wiped;

use crate::backend::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, KEY_BYTES_MAX, Requirement};
use crate::record::encode;
use crate::{Key, Record, Revision, StoreError, Table};

/// Changes that happen together or not at all. The last word on a row wins.
#[derive(Default)]
pub struct Batch {
    pub(crate) require: Vec<Requirement>,
    /// By full key; `None` deletes.
    pub(crate) rows: BTreeMap<Vec<u8>, Option<Wiped>>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is written unless the row does not exist.
    pub fn require_absent<K: Key + ?Sized, V: Record>(&mut self, table: Table<K, V>, key: &K) {
        self.require.push(Requirement::Absent(table.key_bytes(key)));
    }

    /// Nothing is written unless the row exists and was last changed at this revision.
    pub fn require_revision<K: Key + ?Sized, V: Record>(
        &mut self,
        table: Table<K, V>,
        key: &K,
        revision: Revision,
    ) {
        self.require.push(Requirement::Revision(table.key_bytes(key), revision));
    }

    /// Writes the row, whether it exists or not.
    pub fn put<K: Key + ?Sized, V: Record>(
        &mut self,
        table: Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), StoreError> {
        let value = encode(table.name(), value)?;
        self.rows.insert(table.key_bytes(key), Some(value));
        Ok(())
    }

    /// Removes the row if it exists.
    pub fn delete<K: Key + ?Sized, V: Record>(&mut self, table: Table<K, V>, key: &K) {
        self.rows.insert(table.key_bytes(key), None);
    }

    /// Whether it changes nothing. Its requirements count for nothing here.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn check_limits(&self) -> Result<(), StoreError> {
        let rows = self.require.len() + self.rows.len();
        if rows > BATCH_ROWS_MAX {
            return Err(StoreError::TooLarge { what: "a batch's rows", found: rows, max: BATCH_ROWS_MAX });
        }
        let required = self.require.iter().map(|requirement| match requirement {
            Requirement::Absent(key) | Requirement::Revision(key, _) => key,
        });
        for key in required.chain(self.rows.keys()) {
            if key.len() > KEY_BYTES_MAX {
                let found = key.len();
                return Err(StoreError::TooLarge { what: "a key's bytes", found, max: KEY_BYTES_MAX });
            }
        }
        let size = |(key, value): (&Vec<u8>, &Option<Wiped>)| {
            key.len() + value.as_ref().map_or(0, |value| value.len())
        };
        let bytes: usize = self.rows.iter().map(size).sum();
        if bytes > BATCH_BYTES_MAX {
            return Err(StoreError::TooLarge { what: "a batch's bytes", found: bytes, max: BATCH_BYTES_MAX });
        }
        Ok(())
    }
}
