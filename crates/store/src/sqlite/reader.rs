//! Reads, on the thread of whoever asks.
//!
//! With each transaction that SQLite begins on a file that changed, be it by an audit record alone, it forgets all pages
//! that it had read. So rows are read in one transaction after the other's change: it stays open until a commit changes
//! rows, and until what is in the log is to be moved into the file, which an open transaction would hinder.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{connect, failed};
use crate::StoreError;
use crate::backend::{AuditRow, PAGE_BYTES_MAX, RawPage, RawRow, Revision, prefix_end};

/// A few connections that only read. A caller takes a free one, or waits for one: reads are short.
pub(super) struct Readers {
    connections: Vec<Mutex<Reader>>,
    next: AtomicUsize,
    /// Counts the commits that may have changed rows.
    changes: AtomicU64,
    /// Whether transactions may stay open.
    may_stay: AtomicBool,
}

struct Reader {
    connection: Connection,
    /// With a transaction open: how many changes of rows there had been, at the least, when it began.
    open: Option<u64>,
}

impl Readers {
    pub fn open(path: &Path, count: usize) -> Result<Self, StoreError> {
        let open = |_| {
            let connection = connect(path, false)?;
            let settled = connection.pragma_update(None, "query_only", true);
            settled.map_err(|error| failed("open its file", error))?;
            Ok(Mutex::new(Reader { connection, open: None }))
        };
        let connections = (0..count.max(1)).map(open).collect::<Result<_, StoreError>>()?;
        Ok(Self {
            connections,
            next: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            may_stay: AtomicBool::new(true),
        })
    }

    /// Reads the file as it is now.
    pub fn with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut reader = self.free();
        reader.end().and_then(|()| read(&reader.connection)).map_err(|error| failed("read", error))
    }

    /// Reads rows, as they are now and all of one moment. Other tables may be as they were before.
    pub fn with_rows<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut reader = self.free();
        let found =
            reader.begin(self.changes.load(Ordering::Acquire)).and_then(|()| read(&reader.connection));
        if found.is_err() || !self.may_stay.load(Ordering::Acquire) {
            // What was found is none the worse for a transaction that does not end; the next one to come tries again.
            let _ = reader.end();
        }
        found.map_err(|error| failed("read", error))
    }

    /// After a commit that may have changed rows, before anybody is told of it.
    pub fn rows_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Ends what is open, so that the log can be moved into the file.
    pub fn end_all(&self) {
        for reader in &self.connections {
            let _ = lock(reader).end();
        }
    }

    /// Whether transactions may stay open after their reads.
    pub fn let_stay(&self, may: bool) {
        self.may_stay.store(may, Ordering::Release);
    }

    fn free(&self) -> MutexGuard<'_, Reader> {
        let free = self.connections.iter().find_map(|reader| reader.try_lock().ok());
        free.unwrap_or_else(|| {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
            lock(&self.connections[turn])
        })
    }
}

fn lock(reader: &Mutex<Reader>) -> MutexGuard<'_, Reader> {
    reader.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    /// Sees all changes that were counted until now.
    fn begin(&mut self, changes: u64) -> rusqlite::Result<()> {
        if self.open == Some(changes) {
            return Ok(());
        }
        self.end()?;
        self.connection.prepare_cached("BEGIN")?.execute([])?;
        self.open = Some(changes);
        Ok(())
    }

    fn end(&mut self) -> rusqlite::Result<()> {
        self.open = None;
        // SQLite ends some failed transactions by itself.
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.connection.prepare_cached("COMMIT")?.execute([]).map(|_| ())
    }
}

pub(super) fn row(connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<RawRow>> {
    let mut query = connection.prepare_cached("SELECT key, revision, value FROM rows WHERE key = ?1")?;
    query.query_row([key], raw_row).optional()
}

fn raw_row(row: &Row<'_>) -> rusqlite::Result<RawRow> {
    Ok(RawRow { key: row.get(0)?, revision: Revision(row.get(1)?), value: row.get(2)? })
}

/// `part`: of the rows only that have it in their key. A value is read once its row is known to be one of them.
pub(super) fn range(
    connection: &Connection,
    prefix: &[u8],
    part: Option<&[u8]>,
    after: Option<&[u8]>,
    limit: usize,
) -> rusqlite::Result<RawPage> {
    let sql = match (after, part) {
        (Some(_), None) => "SELECT key, revision, value FROM rows WHERE key > ?1 AND key < ?2 ORDER BY key",
        (None, None) => "SELECT key, revision, value FROM rows WHERE key >= ?1 AND key < ?2 ORDER BY key",
        (Some(_), Some(_)) => {
            "SELECT key, revision, value FROM rows WHERE key > ?1 AND key < ?2 AND instr(key, ?3) ORDER BY key"
        }
        (None, Some(_)) => {
            "SELECT key, revision, value FROM rows WHERE key >= ?1 AND key < ?2 AND instr(key, ?3) ORDER BY key"
        }
    };
    let start = [prefix, after.unwrap_or_default()].concat();
    // A prefix of nothing but FF has no end; no table has such a name.
    let Some(end) = prefix_end(prefix) else { return Ok(RawPage::default()) };
    let mut query = connection.prepare_cached(sql)?;
    let mut found = match part {
        Some(part) => query.query((start, end, part))?,
        None => query.query((start, end))?,
    };
    let mut page = RawPage::default();
    let mut bytes = 0;
    while let Some(row) = found.next()? {
        if page.rows.len() == limit || bytes >= PAGE_BYTES_MAX {
            page.more = true;
            break;
        }
        let row = raw_row(row)?;
        bytes += row.key.len() + row.value.len();
        page.rows.push(row);
    }
    Ok(page)
}

pub(super) fn audit(connection: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<AuditRow>> {
    // Numbers above what SQLite counts to are above every record.
    let Ok(after) = i64::try_from(after) else { return Ok(Vec::new()) };
    let sql = "SELECT sequence, hash, record FROM audit WHERE sequence > ?1 ORDER BY sequence LIMIT ?2";
    let mut query = connection.prepare_cached(sql)?;
    let mut found = query.query((after, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES_MAX
        && let Some(row) = found.next()?
    {
        // A hash of another length was not written by us; as zeros it fits no chain.
        let hash = row.get::<_, Vec<u8>>(1)?.try_into().unwrap_or([0; 32]);
        let row = AuditRow { sequence: row.get(0)?, hash, records: row.get(2)? };
        bytes += row.records.len();
        rows.push(row);
    }
    Ok(rows)
}
