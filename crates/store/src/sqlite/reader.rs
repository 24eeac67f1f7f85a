//! Reads, on the thread of whoever asks.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{connect, failed, schema};
use crate::StoreError;
use crate::backend::{AuditRow, PAGE_BYTES_MAX, RawChanges, RawPage, RawRow, Revision, prefix_end};

/// A few connections that only read. A caller takes a free one, or waits for one: reads are short.
pub(super) struct Readers {
    connections: Vec<Mutex<Connection>>,
    next: AtomicUsize,
}

impl Readers {
    pub fn open(path: &Path, count: usize) -> Result<Self, StoreError> {
        let open = |_| {
            let connection = connect(path, false)?;
            let settled = connection.pragma_update(None, "query_only", true);
            settled.map_err(|error| failed("open its file", error))?;
            Ok(Mutex::new(connection))
        };
        let connections = (0..count.max(1)).map(open).collect::<Result<_, StoreError>>()?;
        Ok(Self { connections, next: AtomicUsize::new(0) })
    }

    pub fn with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.with_checked(|connection| read(connection).map_err(|error| failed("read", error)))
    }

    pub fn with_checked<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let free = self.connections.iter().find_map(|connection| connection.try_lock().ok());
        if let Some(connection) = free {
            return read(&connection);
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        read(&self.connections[turn].lock().unwrap_or_else(PoisonError::into_inner))
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

pub(super) fn changes(
    connection: &Connection,
    since: Revision,
    limit: usize,
) -> Result<RawChanges, StoreError> {
    let failed = |error| failed("read", error);
    let moment = connection.unchecked_transaction().map_err(failed)?;
    let oldest = schema::number(&moment, schema::LOG_FLOOR).map_err(failed)?;
    if since.0 < oldest {
        return Err(StoreError::ChangesGone { oldest });
    }
    changes_between(&moment, since, limit).map_err(failed)
}

fn changes_between(connection: &Connection, since: Revision, limit: usize) -> rusqlite::Result<RawChanges> {
    let last: u64 = schema::number(connection, schema::REVISION)?;
    let Ok(from) = i64::try_from(since.0) else {
        return Ok(RawChanges { changed: Vec::new(), through: since });
    };
    let skip = i64::try_from(limit - 1).unwrap_or(i64::MAX);
    let cut = "SELECT revision FROM log WHERE revision > ?1 ORDER BY revision LIMIT 1 OFFSET ?2";
    let cut: Option<u64> =
        connection.prepare_cached(cut)?.query_row((from, skip), |row| row.get(0)).optional()?;
    let through = cut.unwrap_or(last).max(since.0);
    let keys = "SELECT DISTINCT key FROM log WHERE revision > ?1 AND revision <= ?2 ORDER BY key";
    let mut query = connection.prepare_cached(keys)?;
    let keys = query.query_map((from, through), |row| row.get::<_, Vec<u8>>(0))?;
    let changed = keys
        .map(|key| {
            let key = key?;
            let now = row(connection, &key)?;
            Ok((key, now))
        })
        .collect::<rusqlite::Result<_>>()?;
    Ok(RawChanges { changed, through: Revision(through) })
}
