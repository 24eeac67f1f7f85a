//! Observers: snapshots in memory that follow a table.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock};

use arcadia_crypto::Wiped;

use crate::backend::{Announce, Watch};
use crate::key::table_of;
use crate::record::decode;
use crate::seal::Sealer;
use crate::{Record, StoreError};

/// What one commit did to one row of an observed table.
pub struct Change<V> {
    /// The row's full key, as [`crate::Table::key_bytes`] gives it.
    pub key: Vec<u8>,
    /// `None` when the row did not exist.
    pub before: Option<V>,
    /// `None` when the row was deleted.
    pub after: Option<V>,
}

/// An observer whose type of record is not in sight.
trait Observer: Send + Sync {
    fn prepare(self: Arc<Self>, table: &str, changes: &[Opened<'_>]) -> Result<Announce, StoreError>;
}

/// A change with its values as JSON.
struct Opened<'a> {
    key: &'a [u8],
    before: Option<Wiped>,
    after: Option<&'a [u8]>,
}

struct Typed<V, F> {
    tell: F,
    record: PhantomData<fn(V)>,
}

impl<V, F> Observer for Typed<V, F>
where
    V: Record,
    F: Fn(&[Change<V>]) + Send + Sync + 'static,
{
    fn prepare(self: Arc<Self>, table: &str, changes: &[Opened<'_>]) -> Result<Announce, StoreError> {
        let typed = |change: &Opened<'_>| {
            Ok(Change {
                key: change.key.to_vec(),
                before: change.before.as_ref().map(|bytes| decode(table, bytes)).transpose()?,
                after: change.after.map(|bytes| decode(table, bytes)).transpose()?,
            })
        };
        let changes = changes.iter().map(typed).collect::<Result<Vec<Change<V>>, StoreError>>()?;
        Ok(Box::new(move || (self.tell)(&changes)))
    }
}

/// By table name.
#[derive(Default)]
pub(crate) struct Observers(RwLock<HashMap<&'static str, Vec<Arc<dyn Observer>>>>);

impl Observers {
    pub fn add<V: Record>(&self, table: &'static str, tell: impl Fn(&[Change<V>]) + Send + Sync + 'static) {
        let observer = Arc::new(Typed { tell, record: PhantomData });
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(table).or_default().push(observer);
    }

    fn of(&self, table: &str) -> Vec<Arc<dyn Observer>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(table).cloned().unwrap_or_default()
    }
}

/// What a batch changes, kept until its observers are told.
pub(crate) struct BatchWatch {
    pub observers: Arc<Observers>,
    pub sealer: Arc<Sealer>,
    /// By full key; `None` deletes.
    pub rows: BTreeMap<Vec<u8>, Option<Wiped>>,
}

impl BatchWatch {
    /// The observed rows, in key order, so that the rows of one table are together.
    fn observed(&self) -> Vec<(&Vec<u8>, Option<&[u8]>)> {
        let all = self.observers.0.read().unwrap_or_else(PoisonError::into_inner);
        let rows = self.rows.iter().filter(|(key, _)| all.contains_key(table_of(key)));
        rows.map(|(key, after)| (key, after.as_ref().map(|bytes| bytes.as_slice()))).collect()
    }
}

impl Watch for BatchWatch {
    fn keys(&self) -> Vec<&[u8]> {
        self.observed().into_iter().map(|(key, _)| key.as_slice()).collect()
    }

    fn prepare(&self, before: Vec<Option<Vec<u8>>>) -> Result<Announce, StoreError> {
        let mut changes: Vec<Opened<'_>> = Vec::with_capacity(before.len());
        for ((key, after), before) in self.observed().into_iter().zip(before) {
            if before.is_none() && after.is_none() {
                continue;
            }
            let before = before.map(|sealed| self.sealer.open_row(key, &sealed)).transpose()?;
            changes.push(Opened { key, before, after });
        }
        let mut tell: Vec<Announce> = Vec::new();
        for of_table in changes.chunk_by(|left, right| table_of(left.key) == table_of(right.key)) {
            let table = of_table.first().map_or("?", |change| table_of(change.key));
            for observer in self.observers.of(table) {
                tell.push(observer.prepare(table, of_table)?);
            }
        }
        Ok(Box::new(move || tell.into_iter().for_each(|announce| announce())))
    }
}
