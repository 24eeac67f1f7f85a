//! `store.anchor`: how far the store had come when it last acknowledged something, in a file of its own.
//!
//! SQLite takes a write-ahead log that was cut off for one whose last commits never happened: it opens, and what
//! was acknowledged is gone without a word, with its audit records. So after every group of commits, and before any
//! of them is acknowledged, this notes how long the log is and which audit record is the last. A store that has come
//! less far than its anchor does not open.
//!
//! The anchor is not synced with every commit. After a loss of power it may be older than the store, and then it
//! notices less; it is never ahead of what is on disk, because it is written after the commit is durable.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use super::{LAST_RECORD, failed};
use crate::StoreError;

pub(super) const ANCHOR: &str = "store.anchor";
const SCHEMA: u32 = 1;
/// The file has always this length and is written over in place: that needs no room on a full disk, and what is no
/// longer than a sector is not torn.
const FILE_BYTES: usize = 512;
const LOG_HEADER_BYTES: usize = 32;

/// Which write-ahead log it is: these change together whenever SQLite begins it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Generation {
    number: u32,
    salts: (u32, u32),
}

impl Generation {
    /// From the log's header (sqlite.org/fileformat2.html, section 4.1); `None` when there is none.
    fn of(log: &File) -> io::Result<Option<Self>> {
        let mut header = [0; LOG_HEADER_BYTES];
        match log.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let number =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Ok(Some(Self { number: number(12), salts: (number(16), number(20)) }))
    }

    /// SQLite adds one to both with each new beginning, and begins anew only when the file has all of the old log.
    fn follows(self, other: Self) -> bool {
        let steps = self.number.wrapping_sub(other.number);
        steps > 0 && steps == self.salts.0.wrapping_sub(other.salts.0)
    }
}

/// An audit record's number and hash.
pub(super) type Record = (u64, [u8; 32]);

/// How far a store has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    schema: u32,
    /// `None` when the database file has everything.
    log: Option<(Generation, u64)>,
    /// The last one.
    record: Option<Record>,
}

pub(super) struct Anchor {
    path: PathBuf,
    file: File,
    log: File,
    troubled: bool,
}

impl Anchor {
    /// An empty file beside an anchor is no new store.
    pub fn expect_rows(has_rows: bool, database: &Path) -> Result<(), StoreError> {
        let anchor = database.with_file_name(ANCHOR);
        if has_rows || !anchor.metadata().is_ok_and(|found| found.len() > 0) {
            return Ok(());
        }
        Err(StoreError::Lost { path: database.to_owned(), anchor, detail: "it is empty".to_owned() })
    }

    /// Opens the anchor of a store whose files are open, and refuses a store that has come less far. Writes nothing
    /// but a first anchor.
    pub fn hold(connection: &Connection, database: &Path) -> Result<Self, StoreError> {
        let log_path = database.with_extension("db-wal");
        let path = database.with_file_name(ANCHOR);
        let failed_io = |error: io::Error| StoreError::unavailable("open its anchor", error);
        // An empty one is the first, of a process that was killed while it made it.
        let known = path.metadata().is_ok_and(|found| found.len() > 0);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed_io)?;
        let log = File::open(log_path).map_err(failed_io)?;
        let anchor = Self { path, file, log, troubled: false };
        if known {
            anchor.check(connection, database)?;
        }
        anchor.write(&anchor.mark(connection)?).and_then(|()| anchor.file.sync_all()).map_err(failed_io)?;
        Ok(anchor)
    }

    /// After a commit, before it is acknowledged: how many frames the log has now, and the last record. What cannot
    /// be noted is not lost, and only not guarded.
    pub fn note(&mut self, frames: u64, record: Option<Record>) {
        let noted = Generation::of(&self.log).and_then(|generation| {
            let log = generation.map(|generation| (generation, frames));
            self.write(&Mark { schema: SCHEMA, log, record })
        });
        match noted {
            Ok(()) => self.troubled = false,
            Err(error) if !std::mem::replace(&mut self.troubled, true) => {
                tracing::error!(%error, "a log that is cut off would not be noticed at the next start");
            }
            Err(_) => {}
        }
    }

    /// When the database file has everything, durably, and the log may go.
    pub fn note_complete(&self, connection: &Connection) -> Result<(), StoreError> {
        let mark = Mark { log: None, ..self.mark(connection)? };
        let written = self.write(&mark).and_then(|()| self.file.sync_all());
        written.map_err(|error| StoreError::unavailable("note how far it has come", error))
    }

    fn check(&self, connection: &Connection, database: &Path) -> Result<(), StoreError> {
        let lost = |detail: String| StoreError::Lost {
            path: database.to_owned(),
            anchor: self.path.clone(),
            detail,
        };
        let mark = self.read().map_err(&lost)?;
        let now = self.mark(connection)?;
        if let Some((generation, frames)) = mark.log {
            match now.log {
                Some((found, _)) if found.follows(generation) => {}
                Some((found, left)) if found == generation && left >= frames => {}
                Some((found, left)) if found == generation => {
                    return Err(lost(format!(
                        "its write-ahead log has {left} whole pages where it had {frames}"
                    )));
                }
                _ => return Err(lost("its write-ahead log is gone or is another one".to_owned())),
            }
        }
        let Some((sequence, hash)) = mark.record else { return Ok(()) };
        let last = now.record.map_or(0, |(sequence, _)| sequence);
        if last < sequence {
            return Err(lost(format!("it has {last} audit records where it had {sequence}")));
        }
        match hash_of(connection, sequence).map_err(|error| failed("read", error))? {
            Some(found) if found == hash => Ok(()),
            _ => Err(lost(format!("its audit record {sequence} is not the one that was written"))),
        }
    }

    /// How far the store is now.
    fn mark(&self, connection: &Connection) -> Result<Mark, StoreError> {
        let read = || Ok((frames(connection)?, last_of(connection)?));
        let (frames, record) =
            read().map_err(|error: rusqlite::Error| failed("read how far it has come", error))?;
        let generation = Generation::of(&self.log);
        let generation = generation.map_err(|error| StoreError::unavailable("read its log", error))?;
        Ok(Mark { schema: SCHEMA, log: generation.map(|generation| (generation, frames)), record })
    }

    fn write(&self, mark: &Mark) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(mark)?;
        // JSON does not mind blanks after it.
        bytes.resize(FILE_BYTES.max(bytes.len()), b' ');
        self.file.write_all_at(&bytes, 0)
    }

    fn read(&self) -> Result<Mark, String> {
        let mut bytes = Vec::new();
        let read = (&self.file).take(FILE_BYTES as u64).read_to_end(&mut bytes);
        read.map_err(|error| error.to_string())?;
        let mark: Mark =
            serde_json::from_slice(&bytes).map_err(|error| format!("its anchor is damaged ({error})"))?;
        if mark.schema > SCHEMA {
            return Err("its anchor was written by a newer version".to_owned());
        }
        Ok(mark)
    }
}

/// The number of the last audit record that a store once had, as far as its anchor tells.
pub(super) fn last_record(database: &Path) -> Option<u64> {
    let bytes = std::fs::read(database.with_file_name(ANCHOR)).ok()?;
    let mark: Mark = serde_json::from_slice(&bytes).ok()?;
    mark.record.map(|(sequence, _)| sequence)
}

/// How many frames the log has, as SQLite sees it: whole frames of whole commits. It moves nothing.
pub(super) fn frames(connection: &Connection) -> rusqlite::Result<u64> {
    let frames: i64 =
        connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row([], |row| row.get(1))?;
    Ok(u64::try_from(frames).unwrap_or(0))
}

/// The last audit record.
pub(super) fn last_of(connection: &Connection) -> rusqlite::Result<Option<Record>> {
    let last: u64 = connection.prepare_cached(LAST_RECORD)?.query_row([], |row| row.get(0))?;
    Ok(hash_of(connection, last)?.map(|hash| (last, hash)))
}

fn hash_of(connection: &Connection, sequence: u64) -> rusqlite::Result<Option<[u8; 32]>> {
    connection
        .prepare_cached("SELECT hash FROM audit WHERE sequence = ?1")?
        .query_row([sequence], |row| row.get(0))
        .optional()
}
