//! One batch in an open transaction.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, OptionalExtension as _};

use super::anchor::{self, Record};
use super::{reseal, schema};
use crate::backend::{
    Announce, ChainHead, RawBatch, Requirement, Reseal, Revision, RowChange, RowMark, prepared,
};
use crate::{CommitError, StoreError};

/// What the next batch follows.
pub(super) struct State {
    /// SQLite's own count of what others committed.
    pub version: i64,
    pub revision: u64,
    pub head: Option<Arc<dyn ChainHead>>,
    pub record: Option<Record>,
}

impl State {
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        // First, so that what comes in between is not taken for read.
        let version = version(connection)?;
        let head = schema::head(connection)?.map(|head| Arc::new(head) as Arc<dyn ChainHead>);
        let revision = schema::number(connection, schema::REVISION)?;
        Ok(Self { version, revision, head, record: anchor::last_of(connection)? })
    }
}

/// Changes whenever another connection committed, and with failures of this one; its own commits and moves of the log leave
/// it as it is. Within a transaction it costs no look at a file.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// A batch in an open transaction: written, or refused by itself.
pub(super) type Outcome = Result<(Revision, Option<Announce>), CommitError>;

/// Why a batch is not written.
pub(super) enum Stop {
    /// Its own fault. Nothing of it was written yet, so the others of its group stand.
    Batch(CommitError),
    /// The database failed: the whole group fails.
    Group(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Group(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Batch(error.into())
    }
}

/// What batches do with rows.
#[derive(Clone, Copy)]
enum Sql {
    Revision,
    Value,
    Mark,
    Put,
    Delete,
}

impl Sql {
    const COUNT: usize = Self::Delete as usize + 1;

    fn text(self) -> &'static str {
        match self {
            Self::Revision => "SELECT revision FROM rows WHERE key = ?1",
            Self::Value => "SELECT value FROM rows WHERE key = ?1",
            Self::Mark => "SELECT revision, substr(value, -16) FROM rows WHERE key = ?1",
            Self::Put => {
                "INSERT INTO rows VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, value = excluded.value"
            }
            Self::Delete => "DELETE FROM rows WHERE key = ?1",
        }
    }
}

/// The statements of a group of batches: each prepared when it is first needed, and held for the others.
pub(super) struct Statements<'c> {
    connection: &'c Connection,
    held: [Option<CachedStatement<'c>>; Sql::COUNT],
}

impl<'c> Statements<'c> {
    pub fn new(connection: &'c Connection) -> Self {
        Self { connection, held: Default::default() }
    }

    fn get(&mut self, sql: Sql) -> rusqlite::Result<&mut CachedStatement<'c>> {
        let held = &mut self.held[sql as usize];
        let statement = match held.take() {
            Some(statement) => statement,
            None => self.connection.prepare_cached(sql.text())?,
        };
        Ok(held.insert(statement))
    }
}

/// Everything that can refuse a batch comes before its first write, so that a refused batch needs no savepoint.
pub(super) fn apply(
    statements: &mut Statements<'_>,
    state: &mut State,
    batch: &RawBatch,
) -> Result<(Revision, Option<Announce>), Stop> {
    for requirement in &batch.require {
        if !holds(statements, requirement)? {
            return Err(Stop::Batch(CommitError::Conflict));
        }
    }
    let announce = match &batch.watch {
        Some(watch) => {
            let keys = watch.keys();
            let before =
                keys.into_iter().map(|key| value(statements, key)).collect::<rusqlite::Result<Vec<_>>>()?;
            Some(prepared(&**watch, before)?)
        }
        None => None,
    };
    let changes = !(batch.put.is_empty() && batch.delete.is_empty());
    let revision = state.revision + u64::from(changes);
    let changed = if batch.audit.is_empty() { Vec::new() } else { row_changes(statements, batch, revision)? };
    let mut head = state.head.clone();
    for (at, draft) in batch.audit.iter().enumerate() {
        head = Some(draft(head.as_deref(), if at == 0 { &changed } else { &[] })?);
    }
    write_rows(statements, batch, revision)?;
    reseal::write(statements.connection, &batch.reseal)?;
    (state.revision, state.head) = (revision, head);
    Ok((Revision(revision), announce))
}

/// What tells each row of the batch before and after it.
fn row_changes<'a>(
    statements: &mut Statements<'_>,
    batch: &'a RawBatch,
    revision: u64,
) -> rusqlite::Result<Vec<RowChange<'a>>> {
    let mut changes = Vec::with_capacity(batch.put.len() + batch.delete.len() + batch.reseal.len());
    for (key, value) in &batch.put {
        let after = Some(RowMark::of(Revision(revision), value));
        changes.push(RowChange { key, before: mark(statements, key)?, after });
    }
    for key in &batch.delete {
        changes.push(RowChange { key, before: mark(statements, key)?, after: None });
    }
    for row in batch.reseal.iter().filter_map(Reseal::row) {
        let before = mark(statements, &row.key)?;
        if before.is_some_and(|before| before.revision == row.revision) {
            let after = Some(RowMark::of(row.revision, &row.value));
            changes.push(RowChange { key: &row.key, before, after });
        }
    }
    Ok(changes)
}

fn holds(statements: &mut Statements<'_>, requirement: &Requirement) -> rusqlite::Result<bool> {
    let (key, wanted) = match requirement {
        Requirement::Absent(key) => (key, None),
        Requirement::Revision(key, revision) => (key, Some(revision.0)),
    };
    let found: Option<u64> = statements.get(Sql::Revision)?.query_row([key], |row| row.get(0)).optional()?;
    Ok(found == wanted)
}

fn value(statements: &mut Statements<'_>, key: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
    statements.get(Sql::Value)?.query_row([key], |row| row.get(0)).optional()
}

/// The mark of a row as it is now.
fn mark(statements: &mut Statements<'_>, key: &[u8]) -> rusqlite::Result<Option<RowMark>> {
    statements.get(Sql::Mark)?.query_row([key], |row| reseal::row_mark(row, 0)).optional()
}

fn write_rows(statements: &mut Statements<'_>, batch: &RawBatch, revision: u64) -> rusqlite::Result<()> {
    for key in &batch.delete {
        statements.get(Sql::Delete)?.execute([key])?;
    }
    for (key, value) in &batch.put {
        statements.get(Sql::Put)?.execute((key, revision, value))?;
    }
    Ok(())
}
