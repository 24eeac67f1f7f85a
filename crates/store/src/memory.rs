//! Rows in memory: for tests, and the plainest statement of what a backend does.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::{
    Announce, AuditRow, Backend, ChainHead, Health, PAGE_BYTES_MAX, RawBatch, RawPage, RawRow, Requirement,
    Reseal, Revision, RowChange, RowMark, announced, prepared,
};
use crate::{CommitError, StoreError};

#[derive(Default)]
struct State {
    rows: BTreeMap<Vec<u8>, (Revision, Vec<u8>)>,
    audit: Vec<AuditRow>,
    head: Option<Arc<dyn ChainHead>>,
    sealed_head: Option<Vec<u8>>,
    revision: Revision,
    observer_failed: bool,
    condemned: Option<StoreError>,
}

/// Nothing here outlives the process.
pub struct MemoryBackend {
    state: Mutex<State>,
    /// Held from the reads of a commit to its announcement.
    turn: Mutex<()>,
    created_epoch_seconds: i64,
}

impl MemoryBackend {
    pub fn new(created_epoch_seconds: i64) -> Self {
        Self { state: Mutex::default(), turn: Mutex::default(), created_epoch_seconds }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn row(&self, key: &[u8]) -> Option<RawRow> {
        let (revision, value) = self.rows.get(key)?;
        Some(RawRow { key: key.to_vec(), revision: *revision, value: value.clone() })
    }

    fn holds(&self, requirement: &Requirement) -> bool {
        match requirement {
            Requirement::Absent(key) => !self.rows.contains_key(key),
            Requirement::Revision(key, revision) => {
                self.rows.get(key).is_some_and(|(found, _)| found == revision)
            }
        }
    }

    fn mark(&self, key: &[u8]) -> Option<RowMark> {
        self.rows.get(key).map(|(revision, value)| RowMark::of(*revision, value))
    }

    fn changes<'a>(&self, batch: &'a RawBatch) -> Vec<RowChange<'a>> {
        let next = Revision(self.revision.0 + 1);
        let put = batch.put.iter().map(|(key, value)| (key, Some(RowMark::of(next, value))));
        let delete = batch.delete.iter().map(|key| (key, None));
        let changed = put.chain(delete).map(|(key, after)| RowChange { key, before: self.mark(key), after });
        let resealed = batch.reseal.iter().filter_map(Reseal::row).filter_map(|row| {
            let before = self.mark(&row.key).filter(|mark| mark.revision == row.revision)?;
            let after = Some(RowMark::of(row.revision, &row.value));
            Some(RowChange { key: &row.key, before: Some(before), after })
        });
        changed.chain(resealed).collect()
    }

    fn reseal(&mut self, values: &[Reseal]) {
        for value in values {
            match value {
                Reseal::Row(row) => {
                    if let Some(found) = self.rows.get_mut(&row.key).filter(|found| found.0 == row.revision) {
                        found.1.clone_from(&row.value);
                    }
                }
                Reseal::Records(sequence, records) => {
                    if let Some(found) = self.audit.iter_mut().find(|row| row.sequence == *sequence) {
                        found.records.clone_from(records);
                    }
                }
            }
        }
    }

    /// Rows from `start` on whose key starts with `prefix`.
    fn page(&self, prefix: &[u8], start: Bound<Vec<u8>>, limit: usize) -> RawPage {
        let mut page = RawPage::default();
        let mut bytes = 0;
        for (key, (revision, value)) in self.rows.range((start, Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            if page.rows.len() == limit || bytes >= PAGE_BYTES_MAX {
                page.more = true;
                break;
            }
            bytes += key.len() + value.len();
            page.rows.push(RawRow { key: key.clone(), revision: *revision, value: value.clone() });
        }
        page
    }

    fn apply(&mut self, batch: RawBatch) -> Result<(Revision, Option<Announce>), CommitError> {
        if self.observer_failed {
            return Err(StoreError::ObserverFailed.into());
        }
        if let Some(reason) = &self.condemned {
            return Err(reason.clone().into());
        }
        if !batch.require.iter().all(|requirement| self.holds(requirement)) {
            return Err(CommitError::Conflict);
        }
        let before = |key: &[u8]| self.rows.get(key).map(|(_, value)| value.clone());
        let announce = match &batch.watch {
            Some(watch) => Some(prepared(&**watch, watch.keys().into_iter().map(before).collect())?),
            None => None,
        };
        let (mut head, changes) = (self.head.clone(), self.changes(&batch));
        for (at, draft) in batch.audit.iter().enumerate() {
            head = Some(draft(head.as_deref(), if at == 0 { &changes } else { &[] })?);
        }
        if let Some(head) = head {
            let settled = head.settled()?;
            self.audit.extend(settled.records);
            (self.head, self.sealed_head) = (Some(settled.next), Some(settled.head));
        }
        self.reseal(&batch.reseal);
        if batch.put.is_empty() && batch.delete.is_empty() {
            return Ok((self.revision, announce));
        }
        self.revision.0 += 1;
        for key in batch.delete {
            self.rows.remove(&key);
        }
        for (key, value) in batch.put {
            self.rows.insert(key, (self.revision, value));
        }
        Ok((self.revision, announce))
    }
}

#[async_trait::async_trait]
impl Backend for MemoryBackend {
    async fn get(&self, key: &[u8]) -> Result<Option<Arc<RawRow>>, StoreError> {
        Ok(self.state().row(key).map(Arc::new))
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<RawRow>>, StoreError> {
        let state = self.state();
        Ok(keys.iter().map(|key| state.row(key)).collect())
    }

    async fn range(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<RawPage, StoreError> {
        let start = match after {
            Some(after) => Bound::Excluded([prefix, after].concat()),
            None => Bound::Included(prefix.to_vec()),
        };
        Ok(self.state().page(prefix, start, limit))
    }

    async fn walk(&self, after: Option<&[u8]>, limit: usize) -> Result<RawPage, StoreError> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.to_vec()));
        Ok(self.state().page(&[], start, limit))
    }

    fn marks(
        &self,
        visit: &mut dyn FnMut(&[u8], RowMark) -> ControlFlow<()>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.state();
        for (key, (revision, value)) in &state.rows {
            if visit(key, RowMark::of(*revision, value)).is_break() {
                return Err(StoreError::Closed);
            }
        }
        Ok(state.sealed_head.clone())
    }

    async fn commit(&self, batch: RawBatch) -> Result<Revision, CommitError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, announce) = self.state().apply(batch)?;
        if let Some(announce) = announce
            && !announced(announce)
        {
            self.state().observer_failed = true;
            return Err(StoreError::ObserverFailed.into());
        }
        Ok(revision)
    }

    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
        let state = self.state();
        let start = state.audit.partition_point(|row| row.sequence <= after);
        let mut bytes = 0;
        let rows = state.audit[start..].iter().take(limit).take_while(|row| {
            let fits = bytes < PAGE_BYTES_MAX;
            bytes += row.records.len();
            fits
        });
        Ok(rows.cloned().collect())
    }

    async fn audit_head(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().sealed_head.clone())
    }

    async fn health(&self) -> Result<Health, StoreError> {
        let state = self.state();
        let size = |(key, (_, value)): (&Vec<u8>, &(Revision, Vec<u8>))| (key.len() + value.len()) as u64;
        Ok(Health {
            revision: state.revision,
            audit_records: state.audit.last().map_or(0, |row| row.sequence),
            size_bytes: state.rows.iter().map(size).sum(),
            created_epoch_seconds: self.created_epoch_seconds,
            last_failure: state.observer_failed.then(|| StoreError::ObserverFailed.to_string()),
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        self.state().condemned.clone().map_or(Ok(()), Err)
    }

    fn condemn(&self, reason: StoreError) {
        self.state().condemned = Some(reason);
    }

    fn exclusively(&self, job: &mut dyn FnMut()) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        job();
    }
}
