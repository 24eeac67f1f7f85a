//! Rows in one SQLite file.
//!
//! One thread writes. It takes every commit that is waiting, writes them in one transaction in the order they
//! came, and acknowledges all of them after the one fsync (write-ahead log, `synchronous=FULL`). Reads run on
//! the caller's thread, on a few connections of their own; rows that were read lately are kept, sealed, in memory.
//! Another thread moves the log into the database file, so that a commit seldom waits for it.

mod anchor;
mod apply;
mod cache;
mod files;
mod guard;
mod read_only;
mod reader;
mod reseal;
mod schema;
mod writer;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use crate::backend::{AuditRow, Backend, Health, RawBatch, RawPage, RawRow, Revision, RowMark};
use crate::{CommitError, StoreError};
use anchor::Anchor;
use cache::{Look, RowCache};
pub(crate) use files::DATABASE;
use guard::Guard;
pub(crate) use read_only::SqliteReader;
use reader::Readers;
use writer::{Job, Writer};

/// The longest wait for a lock of the database file, in milliseconds. Only recovery and backups hold one.
const BUSY_MILLISECONDS_MAX: u64 = 5000;

/// A store of up to this size is looked through page by page whenever it is opened, which takes a moment; a larger one
/// by backups.
const CHECKED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Bounds of one store.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The database file grows no further than this; commits that need more fail, as on a full disk.
    pub database_bytes_max: u64,
    /// Commits that may wait for the writer; more wait to get in.
    pub waiting_commits_max: usize,
    /// Connections that read.
    pub readers: usize,
    /// How many bytes of rows are kept in memory.
    pub cached_bytes_max: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            database_bytes_max: 1 << 40,
            waiting_commits_max: 4096,
            readers: 4,
            cached_bytes_max: 8 * 1024 * 1024,
        }
    }
}

/// What the writer and everybody else share.
struct Shared {
    /// Held by the writer from the reads of a group of commits to its announcements.
    turn: Mutex<()>,
    last_failure: Mutex<Option<StoreError>>,
    observer_failed: AtomicBool,
    guard: Guard,
    cache: RowCache,
    readers: Readers,
}

impl Shared {
    fn new(path: &Path, options: &SqliteOptions) -> Result<Self, StoreError> {
        Ok(Self {
            turn: Mutex::default(),
            last_failure: Mutex::default(),
            observer_failed: AtomicBool::new(false),
            guard: Guard::new(path)?,
            cache: RowCache::new(options.cached_bytes_max),
            readers: Readers::open(path, options.readers)?,
        })
    }
}

/// A store in `store.db` of a directory.
pub struct SqliteBackend {
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    path: PathBuf,
    /// Released last.
    _lock: File,
}

impl SqliteBackend {
    /// Opens the store in `directory`, or makes it; `now_epoch_seconds` is noted in a new one.
    pub fn open(
        directory: &Path,
        options: &SqliteOptions,
        now_epoch_seconds: i64,
    ) -> Result<Self, StoreError> {
        let path = files::prepare(directory)?;
        let lock = files::lock(directory)?;
        let mut connection = connect(&path, true)?;
        Anchor::expect_rows(schema::recognise(&connection, &path)?, &path)?;
        schema::prepare(&mut connection, &path, options, now_epoch_seconds)?;
        let anchor = Anchor::hold(&connection, &path)?;
        if files::size_bytes(&path) <= CHECKED_BYTES_MAX {
            schema::check_pages(&connection)?;
        }
        files::sync_directory(directory)?;

        let shared = Arc::new(Shared::new(&path, options)?);
        let checkpoints = connect(&path, true)?;
        let (jobs, incoming) = mpsc::channel(options.waiting_commits_max.max(1));
        let (poke, pokes) = std::sync::mpsc::sync_channel(1);
        let writer = Writer::new((connection, anchor), incoming, shared.clone(), poke)?;
        let watched = shared.clone();
        let threads = vec![
            spawn("store-writer", move || writer.run())?,
            spawn("store-checkpoint", move || writer::checkpoints(&checkpoints, &pokes, &watched))?,
        ];
        Ok(Self { jobs: Some(jobs), threads, shared, path, _lock: lock })
    }

    /// The head of the audit log, its last record, and the last revision.
    pub(crate) fn head(&self) -> Result<LogEnd, StoreError> {
        self.shared.readers.with(LogEnd::read)
    }

    /// Reads, unless the file is not what it was.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.shared.guard.glance()?;
        self.shared.readers.with(read)
    }

    /// The same for rows, and of rows only.
    fn read_rows<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.shared.guard.glance()?;
        self.shared.readers.with_rows(read)
    }
}

/// What a store's file says about the end of its audit log.
pub(crate) struct LogEnd {
    pub head: Option<Vec<u8>>,
    pub last: Option<AuditRow>,
    pub revision: Revision,
}

impl LogEnd {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let moment = connection.unchecked_transaction()?;
        let last: u64 = moment.query_row(LAST_RECORD, [], |row| row.get(0))?;
        Ok(Self {
            head: schema::head(&moment)?,
            last: reader::audit(&moment, last.saturating_sub(1), 1)?.pop(),
            revision: Revision(schema::number(&moment, schema::REVISION)?),
        })
    }
}

const LAST_RECORD: &str = "SELECT coalesce(max(sequence), 0) FROM audit";

impl Drop for SqliteBackend {
    /// Waits for the commits that are queued, so that the files are closed when this returns.
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // An observer that held the last handle would make the writer wait for itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the store ended in a panic");
            }
        }
    }
}

#[async_trait::async_trait]
impl Backend for SqliteBackend {
    async fn get(&self, key: &[u8]) -> Result<Option<Arc<RawRow>>, StoreError> {
        let seen = match self.shared.cache.look(key) {
            Look::Found(row) => return self.shared.guard.glance().map(|()| row),
            Look::Missing(seen) => seen,
        };
        let row = self.read_rows(|connection| reader::row(connection, key))?.map(Arc::new);
        self.shared.cache.keep(key, row.as_ref(), &seen);
        Ok(row)
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<RawRow>>, StoreError> {
        self.read_rows(|connection| keys.iter().map(|key| reader::row(connection, key)).collect())
    }

    async fn range(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<RawPage, StoreError> {
        self.read_rows(|connection| reader::range(connection, prefix, None, after, limit))
    }

    /// The others' values are not read.
    async fn range_with(
        &self,
        prefix: &[u8],
        part: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<RawPage, StoreError> {
        self.read_rows(|connection| reader::range(connection, prefix, Some(part), after, limit))
    }

    async fn walk(&self, after: Option<&[u8]>, limit: usize) -> Result<RawPage, StoreError> {
        self.read_rows(|connection| reseal::walk(connection, after, limit))
    }

    fn marks(
        &self,
        visit: &mut dyn FnMut(&[u8], RowMark) -> ControlFlow<()>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.guard.glance()?;
        // A connection of its own: this may take long, and others wait for the few that are shared.
        let connection = connect(&self.path, false)?;
        let marked = reseal::marks(&connection, visit).map_err(|error| failed("read", error))?;
        marked.continue_value().ok_or(StoreError::Closed)
    }

    async fn commit(&self, batch: RawBatch) -> Result<Revision, CommitError> {
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        jobs.send(Job { batch, reply }).await.map_err(|_| StoreError::Closed)?;
        let Ok(answer) = answer.await else {
            // It panicked. Whoever is told so finds the store closed.
            jobs.closed().await;
            return Err(StoreError::Closed.into());
        };
        answer
    }

    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
        self.read(|connection| reader::audit(connection, after, limit))
    }

    async fn audit_head(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(schema::head)
    }

    async fn health(&self) -> Result<Health, StoreError> {
        let last_failure = self.shared.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.read(|connection| {
            Ok(Health {
                revision: Revision(schema::number(connection, schema::REVISION)?),
                audit_records: connection.query_row(LAST_RECORD, [], |row| row.get(0))?,
                size_bytes: files::size_bytes(&self.path),
                created_epoch_seconds: schema::number(connection, schema::CREATED)?,
                last_failure: last_failure.map(|failure| failure.to_string()),
            })
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        self.shared.guard.check()?;
        // A thread that panicked took its end of the channel along.
        let works = self.jobs.as_ref().is_some_and(|jobs| !jobs.is_closed());
        if !works || self.threads.iter().any(JoinHandle::is_finished) {
            return Err(StoreError::Closed);
        }
        let failure = self.shared.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.map_or(Ok(()), Err)
    }

    fn condemn(&self, reason: StoreError) {
        self.shared.guard.condemn(reason);
    }

    fn exclusively(&self, job: &mut dyn FnMut()) {
        let _turn = self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        job();
    }
}

pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| StoreError::unavailable("start a thread", error))
}

/// A connection with the settings that every connection has.
fn connect(path: &Path, write: bool) -> Result<Connection, StoreError> {
    let mode = if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let connect = || {
        let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_MILLISECONDS_MAX))?;
        connection.set_prepared_statement_cache_capacity(64);
        // The writer moves the log into the file when it ends; whoever else closes last leaves both as they are.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.execute_batch(
            "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON;
             PRAGMA temp_store = MEMORY; PRAGMA cache_size = -4096;",
        )?;
        Ok(connection)
    };
    connect().map_err(|error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError::Foreign { path: path.to_owned() },
        _ => failed("open its file", error),
    })
}

/// Sorts a failure of SQLite: may it pass, is the file broken, or is it something else?
fn failed(task: &'static str, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied,
        ) => StoreError::unavailable(task, error),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { what: "the store's file".to_owned(), detail: error.to_string() }
        }
        _ => StoreError::backend(task, error),
    }
}
