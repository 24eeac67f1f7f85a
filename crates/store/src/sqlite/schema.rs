//! The tables on disk, and what is noted once per store.

use std::path::Path;

use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior, ffi};

use super::{SqliteOptions, failed};
use crate::StoreError;

/// Raised with every change that an older version could not work with. Since 2 a row of `audit` has all records that were
/// committed together; before, it had one. Since 3 there is no table `log` of what was changed when.
const SCHEMA: i64 = 3;
/// What is read still. It is of the present schema from the first commit on.
const SCHEMA_OLDEST: i64 = 1;
/// `ARCD`: what `file(1)` and a curious administrator see.
const APPLICATION_ID: i64 = 0x4152_4344;
const PAGE_BYTES: u64 = 4096;

/// The last revision.
pub(super) const REVISION: &str = "revision";
/// Seconds since 1970.
pub(super) const CREATED: &str = "created";
/// The sealed head of the audit chain.
pub(super) const HEAD: &str = "audit_head";

/// A row of `audit` has the number and the hash of its last record.
const TABLES: &str = "
    CREATE TABLE rows (
        key BLOB PRIMARY KEY NOT NULL,
        revision INTEGER NOT NULL,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE audit (
        sequence INTEGER PRIMARY KEY,
        hash BLOB NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    CREATE TABLE meta (
        name TEXT PRIMARY KEY NOT NULL,
        value ANY NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('revision', 0);
";

/// Makes the tables in an empty file, refuses one that is not ours or too new, and sets up the writer.
pub(super) fn prepare(
    connection: &mut Connection,
    path: &Path,
    options: &SqliteOptions,
    now_epoch_seconds: i64,
) -> Result<(), StoreError> {
    let known = recognise(connection, path)?;
    let sorted = |error| sorted(error, path);
    set_up_writer(connection, options).map_err(sorted)?;
    if !known {
        create(connection, now_epoch_seconds).map_err(sorted)?;
    }
    Ok(())
}

/// Whether the file is a store that this version knows; `false` when it is empty.
pub(super) fn recognise(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let (version, application, tables) = identity(connection).map_err(|error| sorted(error, path))?;
    match (version, application) {
        (SCHEMA_OLDEST..=SCHEMA, APPLICATION_ID) => foreign_parts(connection, path).map(|()| true),
        (found, APPLICATION_ID) if found > SCHEMA => {
            Err(StoreError::NewerSchema { path: path.to_owned(), found, known: SCHEMA })
        }
        (0, 0) if tables == 0 => Ok(false),
        _ => Err(StoreError::Foreign { path: path.to_owned() }),
    }
}

/// What somebody else put into the file, such as a trigger, would run with every change.
fn foreign_parts(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    // What is known is named, as SQLite takes types in any case. Statistics (of an `ANALYZE`) do not run.
    let sql = "SELECT type || ' ' || name FROM sqlite_schema
               WHERE NOT (type = 'table' AND name IN ('rows', 'audit', 'meta', 'log', 'sqlite_stat1', 'sqlite_stat4'))
               AND NOT (type = 'index' AND sql IS NULL) LIMIT 1";
    let found = connection.query_row(sql, [], |row| row.get::<_, String>(0)).optional();
    match found.map_err(|error| sorted(error, path))? {
        None => Ok(()),
        Some(part) => Err(StoreError::Damaged {
            what: "the store's file".to_owned(),
            detail: format!("the {part} in it is not the site's; it was put there by something else"),
        }),
    }
}

fn sorted(error: rusqlite::Error, path: &Path) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError::Foreign { path: path.to_owned() },
        _ => failed("open its file", error),
    }
}

fn identity(connection: &Connection) -> rusqlite::Result<(i64, i64, i64)> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    Ok((
        number("PRAGMA user_version")?,
        number("PRAGMA application_id")?,
        number("SELECT count(*) FROM sqlite_schema")?,
    ))
}

fn set_up_writer(connection: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    let pages_max = (options.database_bytes_max / PAGE_BYTES).clamp(1, u64::from(u32::MAX) - 1);
    // The checkpoint thread is asked long before 4096 pages; when it falls behind, commits do its work.
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 4096; PRAGMA journal_size_limit = 67108864;
         PRAGMA max_page_count = {pages_max};"
    ))?;
    // SQLite silently keeps another mode where the file system cannot do this one.
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    let message = || Some("the file system does not support a write-ahead log; use a local disk".to_owned());
    let refused = || rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_PROTOCOL), message());
    if mode.eq_ignore_ascii_case("wal") { Ok(()) } else { Err(refused()) }
}

fn create(connection: &mut Connection, now_epoch_seconds: i64) -> rusqlite::Result<()> {
    let creation = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    creation.execute_batch(TABLES)?;
    put(&creation, CREATED, now_epoch_seconds)?;
    creation.pragma_update(None, "application_id", APPLICATION_ID)?;
    creation.pragma_update(None, "user_version", SCHEMA)?;
    creation.commit()
}

/// Makes the file one of the present schema, which older versions refuse; part of the first transaction that writes to it.
pub(super) fn raise(connection: &Connection) -> rusqlite::Result<()> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == SCHEMA {
        return Ok(());
    }
    connection.execute_batch("DROP TABLE IF EXISTS log; DELETE FROM meta WHERE name = 'log_floor';")?;
    connection.pragma_update(None, "user_version", SCHEMA)
}

/// Reads every page, those of the log included, and looks whether they fit together.
pub(super) fn check_pages(connection: &Connection) -> Result<(), StoreError> {
    let found = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(detail) => Err(StoreError::Damaged { what: "the store's file".to_owned(), detail }),
        Err(error) => Err(failed("read", error)),
    }
}

/// A number of `meta`.
pub(super) fn number<T: FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<T> {
    let mut query = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    query.query_row([name], |row| row.get(0))
}

/// The head of the audit chain, before the first record `None`.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut query = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    query.query_row([HEAD], |row| row.get(0)).optional()
}

/// Sets a value of `meta`.
pub(super) fn put(connection: &Connection, name: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<()> {
    let upsert = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    connection.prepare_cached(upsert)?.execute((name, value))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::connect;

    /// No test can pull the plug; that every commit is synced is what these settings say.
    #[test]
    fn the_writer_is_set_to_be_durable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        std::fs::write(&path, "").unwrap();
        let mut connection = connect(&path, true).unwrap();
        prepare(&mut connection, &path, &SqliteOptions::default(), 7).unwrap();
        let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(text("PRAGMA journal_mode"), "wal");
        assert_eq!(number("PRAGMA synchronous"), 2, "FULL");
        assert_eq!(number("PRAGMA busy_timeout"), 5000);
        assert_eq!(number("PRAGMA wal_autocheckpoint"), 4096);
        assert_eq!(number("PRAGMA trusted_schema"), 0);
        assert_eq!(super::number::<i64>(&connection, CREATED).unwrap(), 7);
        prepare(&mut connection, &path, &SqliteOptions::default(), 8).unwrap();
        assert_eq!(super::number::<i64>(&connection, CREATED).unwrap(), 7, "noted once");
    }
}
