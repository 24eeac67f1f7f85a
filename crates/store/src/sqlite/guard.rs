//! Whether the files of an open store are still the ones that were opened, and as this process left them.
//!
//! SQLite goes on working in a file that was removed or put aside: what it acknowledges then is gone with the
//! last process that has it open, and with it the audit log. And it does not see what others write into the file.
//! So before and after each of its own writes, and whenever it is asked, this compares identity, size and time of
//! change of the database file and its log with what they were after the last own write. A look that is not older
//! than two milliseconds serves whoever reads or answers meanwhile.
//!
//! An own write excuses the one file that it changes: a commit writes to the log alone, and moving the log into the
//! database file (a passive checkpoint) to that alone. The log begins anew with a commit, never with a move.
//! Bytes that somebody else writes into the same file meanwhile are not seen; a commit by somebody else is, as SQLite
//! counts them (`PRAGMA data_version`) and the writer asks for the count under SQLite's lock.
//!
//! What it finds stays found: nothing is read or written any more until the store is opened anew.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::StoreError;

/// How long a look serves. Writes look for themselves.
const LOOK_SERVES: Duration = Duration::from_millis(2);
const CHANGED: &str = "changed by something else";

/// A file as it was left.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Print {
    /// Device and inode.
    identity: (u64, u64),
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Print {
    fn of(found: &Metadata) -> Self {
        Self {
            identity: (found.dev(), found.ino()),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }

    fn take(path: &Path) -> Result<Self, &'static str> {
        match path.metadata() {
            Ok(found) => Ok(Self::of(&found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err("removed"),
            Err(_) => Err("made unreadable"),
        }
    }
}

/// How an own write left a file.
struct Left {
    print: Print,
    /// Own writes to it that are under way: while there are any, its size and time may change.
    writing: u32,
}

/// The two files.
struct Files<T> {
    database: T,
    log: T,
}

/// Which files an own write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    Database,
    Log,
    Both,
}

impl Files<Left> {
    fn written(&mut self, writes: Writes) -> impl Iterator<Item = &mut Left> {
        let database = (writes != Writes::Log).then_some(&mut self.database);
        let log = (writes != Writes::Database).then_some(&mut self.log);
        database.into_iter().chain(log)
    }
}

pub(super) struct Guard {
    database: PathBuf,
    log: PathBuf,
    identity: (u64, u64),
    /// The database file never shrinks.
    bytes_min: AtomicU64,
    left: Mutex<Files<Left>>,
    found: OnceLock<StoreError>,
    opened: Instant,
    /// When the files were last found unharmed, in microseconds since `opened`; 0 before the first time.
    looked: AtomicU64,
}

impl Guard {
    /// For files that are open already.
    pub fn new(database: &Path) -> Result<Self, StoreError> {
        let log = database.with_extension("db-wal");
        let print = |path: &Path| {
            let found = path.metadata().map_err(|error| StoreError::unavailable("look at its files", error));
            found.map(|found| Left { print: Print::of(&found), writing: 0 })
        };
        let left = Files { database: print(database)?, log: print(&log)? };
        Ok(Self {
            database: database.to_owned(),
            log,
            identity: left.database.print.identity,
            bytes_min: AtomicU64::new(left.database.print.bytes),
            left: Mutex::new(left),
            found: OnceLock::new(),
            opened: Instant::now(),
            looked: AtomicU64::new(0),
        })
    }

    /// Before a read: the file is there and has not lost its end. One system call, when nobody looked lately.
    pub fn glance(&self) -> Result<(), StoreError> {
        self.unharmed()?;
        if self.looked_lately() {
            return Ok(());
        }
        // Before the look: an own write that ends in between has made the file longer than it was seen to be.
        let bytes_min = self.bytes_min.load(Ordering::Acquire);
        let print = Print::take(&self.database).map_err(|what| self.lost(&self.database, what))?;
        if print.identity != self.identity {
            return Err(self.lost(&self.database, "replaced"));
        }
        if print.bytes < bytes_min {
            return Err(self.lost(&self.database, "cut short"));
        }
        Ok(())
    }

    /// Whether nobody else touched the files since the last own write.
    pub fn check(&self) -> Result<(), StoreError> {
        self.unharmed()?;
        if self.looked_lately() {
            return Ok(());
        }
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        self.compare(&left).map(|_| ())
    }

    /// Before an own write. [`Guard::end`] must follow.
    pub fn begin(&self, writes: Writes) -> Result<(), StoreError> {
        self.unharmed()?;
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        self.compare(&left)?;
        left.written(writes).for_each(|left| left.writing += 1);
        Ok(())
    }

    /// After an own write, whether it succeeded or not. An error says that what was written may be nowhere.
    pub fn end(&self, writes: Writes) -> Result<(), StoreError> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.compare(&left);
        left.written(writes).for_each(|left| left.writing = left.writing.saturating_sub(1));
        let now = now?;
        self.bytes_min.store(now.database.bytes, Ordering::Release);
        // The file that was not written is as it was, or another's to leave.
        if writes != Writes::Log {
            left.database.print = now.database;
        }
        if writes != Writes::Database {
            left.log.print = now.log;
        }
        Ok(())
    }

    fn compare(&self, left: &Files<Left>) -> Result<Files<Print>, StoreError> {
        self.unharmed()?;
        let look = |path: &Path, left: &Left, shrinks: bool| {
            let (was, quiet) = (&left.print, left.writing == 0);
            let now = Print::take(path).map_err(|what| self.lost(path, what))?;
            let what = if now.identity != was.identity {
                "replaced"
            } else if now.bytes < was.bytes && (quiet || !shrinks) {
                "cut short"
            } else if quiet && now != *was {
                CHANGED
            } else {
                return Ok(now);
            };
            Err(self.lost(path, what))
        };
        let prints = Files {
            database: look(&self.database, &left.database, false)?,
            log: look(&self.log, &left.log, true)?,
        };
        self.looked.store(self.now_micros(), Ordering::Release);
        Ok(prints)
    }

    fn looked_lately(&self) -> bool {
        let looked = self.looked.load(Ordering::Acquire);
        looked > 0 && self.now_micros().saturating_sub(looked) < LOOK_SERVES.as_micros() as u64
    }

    fn now_micros(&self) -> u64 {
        self.opened.elapsed().as_micros() as u64
    }

    /// What was found elsewhere counts as well.
    pub fn condemn(&self, reason: StoreError) {
        tracing::error!("{reason}");
        let _ = self.found.set(reason);
    }

    /// SQLite says that somebody else committed.
    pub fn committed_by_another(&self) -> StoreError {
        self.lost(&self.log, CHANGED)
    }

    fn unharmed(&self) -> Result<(), StoreError> {
        self.found.get().map_or(Ok(()), |found| Err(found.clone()))
    }

    fn lost(&self, path: &Path, what: &'static str) -> StoreError {
        let mut first = false;
        let found = self.found.get_or_init(|| {
            first = true;
            StoreError::Interfered { path: path.to_owned(), what }
        });
        if first {
            tracing::error!("{found}");
        }
        found.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Reads go on while the file grows, and none of them may take growth for loss.
    #[test]
    fn a_file_that_grows_is_not_cut_short() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("store.db");
        std::fs::write(database.with_extension("db-wal"), "").unwrap();
        let mut file = std::fs::File::create(&database).unwrap();
        let guard = Guard::new(&database).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        guard.glance().unwrap();
                    }
                });
            }
            for _ in 0..20_000 {
                guard.begin(Writes::Database).unwrap();
                file.write_all(b"x").unwrap();
                guard.end(Writes::Database).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        file.set_len(10).unwrap();
        std::thread::sleep(2 * LOOK_SERVES);
        assert!(guard.glance().is_err());
    }
}
