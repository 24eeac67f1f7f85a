//! The file of a store that another process may have open: read, and neither written nor locked against writers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{LAST_RECORD, LogEnd, anchor, connect, failed, files, reader, reseal, schema};
use crate::StoreError;
use crate::backend::{AuditRow, RawPage, RawRow, RowMark};

pub(crate) struct SqliteReader {
    connection: Connection,
    path: PathBuf,
}

impl SqliteReader {
    /// Opens `file`, which must be a store.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let missing = || StoreError::Missing { path: file.to_owned() };
        if !file.metadata().is_ok_and(|found| found.is_file() && found.len() > 0) {
            return Err(missing());
        }
        let connection = connect(file, false)?;
        connection.pragma_update(None, "query_only", true).map_err(|error| failed("open its file", error))?;
        if !schema::recognise(&connection, file)? {
            return Err(missing());
        }
        Ok(Self { connection, path: file.to_owned() })
    }

    pub fn end(&self) -> Result<LogEnd, StoreError> {
        LogEnd::read(&self.connection).map_err(|error| failed("read", error))
    }

    pub fn last_record(&self) -> Result<u64, StoreError> {
        let last = self.connection.query_row(LAST_RECORD, [], |row| row.get(0));
        last.map_err(|error| failed("read", error))
    }

    /// The last record that the store once had, which may be more than is left of it.
    pub fn anchored_record(&self) -> Option<u64> {
        anchor::last_record(&self.path)
    }

    pub fn row(&self, key: &[u8]) -> Result<Option<RawRow>, StoreError> {
        reader::row(&self.connection, key).map_err(|error| failed("read", error))
    }

    pub fn range(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<RawPage, StoreError> {
        reader::range(&self.connection, prefix, None, after, limit).map_err(|error| failed("read", error))
    }

    pub fn walk(&self, after: Option<&[u8]>, limit: usize) -> Result<RawPage, StoreError> {
        reseal::walk(&self.connection, after, limit).map_err(|error| failed("read", error))
    }

    pub fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
        reader::audit(&self.connection, after, limit).map_err(|error| failed("read", error))
    }

    pub fn marks(
        &self,
        visit: &mut dyn FnMut(&[u8], RowMark) -> ControlFlow<()>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let marked = reseal::marks(&self.connection, visit).map_err(|error| failed("read", error))?;
        marked.continue_value().ok_or(StoreError::Closed)
    }

    pub fn key_counts(&self) -> Result<BTreeMap<u32, (u64, u64)>, StoreError> {
        reseal::counts(&self.connection).map_err(|error| failed("read", error))
    }

    pub fn copy(&self, target: &Path) -> Result<(), StoreError> {
        files::copy(&self.path, target)
    }

    /// SQLite's own look at every page.
    pub fn check_pages(&self) -> Result<(), StoreError> {
        schema::check_pages(&self.connection)
    }
}
