//! The one thread that writes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use tokio::sync::{mpsc, oneshot};

use super::anchor::{self, Anchor};
use super::apply::{Outcome, State, Statements, Stop, apply, version};
use super::cache::Changing;
use super::guard::Writes;
use super::{Shared, failed, schema};
use crate::backend::{Announce, AuditRow, RawBatch, RawRow, Reseal, Revision, Settled, announced};
use crate::{CommitError, StoreError};

/// The most commits that share one transaction.
const GROUP_COMMITS_MAX: usize = 512;
/// A group takes no further commit once it carries this many bytes.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Where more than one commit came at a time, as many are waited for the next time, until two of these in a row brought
/// none: a group costs about as much as twenty of its commits. One is too few, as work like a signature brings a commit
/// every 150 us on the average, and not evenly. Who commits alone never waits.
const GATHERING: Duration = Duration::from_micros(200);
const GATHERINGS_MAX: usize = 10;
const IDLE_GATHERINGS_MAX: usize = 2;
/// A group of this size is worth its cost.
const GATHERED_ENOUGH: usize = 64;
/// The checkpoint thread is asked whenever the log has grown by this many pages.
const CHECKPOINT_PAGES: u64 = 1024;
/// When the checkpoint thread falls behind, and the log has this many pages, commits do its work.
const LOG_PAGES_MAX: u64 = 4096;

/// A commit that waits.
pub(super) struct Job {
    pub batch: RawBatch,
    pub reply: oneshot::Sender<Result<Revision, CommitError>>,
}

pub(super) struct Writer {
    jobs: mpsc::Receiver<Job>,
    connection: Connection,
    anchor: Anchor,
    /// Whether anything was written since the store was opened.
    wrote: bool,
    shared: Arc<Shared>,
    poke: SyncSender<()>,
    /// `None` after a failure, until it is read anew.
    state: Option<State>,
    /// Pages in the log when the checkpoint thread was last asked.
    asked_at_pages: u64,
    /// Pages in the log, told by SQLite after each commit.
    log_pages: Arc<AtomicU64>,
}

impl Writer {
    pub fn new(
        (mut connection, anchor): (Connection, Anchor),
        jobs: mpsc::Receiver<Job>,
        shared: Arc<Shared>,
        poke: SyncSender<()>,
    ) -> Result<Self, StoreError> {
        let state = Some(State::load(&connection).map_err(|error| failed("read", error))?);
        let log_pages = count_log_pages(&mut connection).map_err(|error| failed("read", error))?;
        let (wrote, asked_at_pages) = (false, 0);
        Ok(Self { connection, anchor, wrote, jobs, shared, poke, state, asked_at_pages, log_pages })
    }

    /// Until nobody can send any more and all that was sent is answered.
    pub fn run(mut self) {
        let mut expected = 1;
        while let Some(first) = self.jobs.blocking_recv() {
            let mut bytes = size_bytes(&first.batch);
            let mut group = vec![first];
            self.take_waiting(&mut group, &mut bytes);
            self.gather(&mut group, &mut bytes, expected);
            expected = expected_next(expected, group.len());
            self.write(group);
            self.ask_for_checkpoint();
        }
        self.close();
    }

    fn gather(&mut self, group: &mut Vec<Job>, bytes: &mut usize, expected: usize) {
        let mut idle = 0;
        for _ in 0..GATHERINGS_MAX {
            let before = group.len();
            if before >= expected || idle >= IDLE_GATHERINGS_MAX {
                return;
            }
            std::thread::sleep(GATHERING);
            self.take_waiting(group, bytes);
            idle = if group.len() == before { idle + 1 } else { 0 };
        }
    }

    fn take_waiting(&mut self, group: &mut Vec<Job>, bytes: &mut usize) {
        while group.len() < GROUP_COMMITS_MAX && *bytes < GROUP_BYTES_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
            *bytes += size_bytes(&job.batch);
            group.push(job);
        }
    }

    /// Moves all of the log into the file. A store that was only looked at, or that others touched, stays as it is.
    fn close(&self) {
        if !self.wrote || self.shared.guard.begin(Writes::Both).is_err() {
            return;
        }
        self.shared.readers.let_stay(false);
        self.shared.readers.end_all();
        let moved = checkpoint(&self.connection, "PASSIVE").map_err(|error| failed("move its log", error));
        let closed = moved.and_then(|(pages, moved)| {
            if pages >= 0 && pages == moved {
                self.anchor.note_complete(&self.connection)?;
                // With all of it moved and noted, what is left to do is to give its space back.
                let _ = checkpoint(&self.connection, "TRUNCATE");
            }
            Ok(())
        });
        if let Err(error) = closed {
            tracing::warn!(%error, "the store's log stays, and is read at the next start");
        }
        let _ = self.shared.guard.end(Writes::Both);
    }

    /// One transaction. Nobody is answered before it is durable, not even those whose requirements failed: what
    /// they failed on may be in this same transaction.
    fn write(&mut self, group: Vec<Job>) {
        let shared = self.shared.clone();
        let _turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (batches, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|job| (job.batch, job.reply)).unzip();
        match self.transact(&batches) {
            Ok(outcomes) => {
                self.note(None);
                for (outcome, reply) in outcomes.into_iter().zip(replies) {
                    // Whoever does not wait any more needs no answer.
                    let _ = reply.send(outcome.and_then(|done| self.tell(done)));
                }
            }
            Err(error) => {
                tracing::error!(%error, commits = replies.len(), "a group of commits was not written");
                self.note(Some(error.clone()));
                for reply in replies {
                    let _ = reply.send(Err(CommitError::Store(error.clone())));
                }
            }
        }
    }

    fn tell(&self, (revision, announce): (Revision, Option<Announce>)) -> Result<Revision, CommitError> {
        if announce.is_none_or(announced) {
            return Ok(revision);
        }
        self.shared.observer_failed.store(true, Ordering::Release);
        self.note(Some(StoreError::ObserverFailed));
        Err(StoreError::ObserverFailed.into())
    }

    fn note(&self, failure: Option<StoreError>) {
        *self.shared.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// All batches that can be written are durable when this returns `Ok`; none is when it returns `Err`.
    fn transact(&mut self, batches: &[RawBatch]) -> Result<Vec<Outcome>, StoreError> {
        if self.shared.observer_failed.load(Ordering::Acquire) {
            return Err(StoreError::ObserverFailed);
        }
        self.roll_back();
        self.begin().inspect_err(|_| self.roll_back())?;
        let shared = self.shared.clone();
        let changing = shared.cache.change(batches.iter().flat_map(keys));
        let written = self.group(batches).inspect_err(|_| self.roll_back());
        if batches.iter().any(|batch| keys(batch).next().is_some()) {
            shared.readers.rows_changed();
        }
        // What went into a file that nobody finds again was not written.
        self.shared.guard.end(Writes::Log)?;
        let outcomes = written?;
        if outcomes.iter().any(Result::is_ok) {
            self.wrote = true;
            let record = self.state.as_ref().and_then(|state| state.record);
            self.anchor.note(self.log_pages.load(Ordering::Acquire), record);
            keep(&changing, batches, &outcomes);
        }
        Ok(outcomes)
    }

    /// Begins a transaction that nobody else wrote before: whoever did, perhaps while this waited for the lock, has to be
    /// found before a commit of ours goes on from it. Under the lock nobody else writes through SQLite any more.
    /// [`Guard::end`](super::guard::Guard::end) must follow.
    fn begin(&mut self) -> Result<(), StoreError> {
        let guard = &self.shared.guard;
        guard.check()?;
        // Taken: a failure to begin may change SQLite's count, too.
        let state = self.state.take();
        let begun = self.connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
        let version =
            begun.and_then(|_| version(&self.connection)).map_err(|error| failed("write", error))?;
        if state.as_ref().is_some_and(|state| state.version != version) {
            return Err(guard.committed_by_another());
        }
        guard.begin(Writes::Log)?;
        self.state = state;
        Ok(())
    }

    fn group(&mut self, batches: &[RawBatch]) -> Result<Vec<Outcome>, StoreError> {
        let state = self.state.take();
        let (outcomes, state) = self.transaction(batches, state)?;
        self.state = Some(state);
        let is_long = self.log_pages.load(Ordering::Acquire) >= LOG_PAGES_MAX;
        // The log begins anew with a commit that finds nobody who reads in it.
        self.shared.readers.let_stay(!is_long);
        if is_long {
            // What it finds wrong with the files stays found.
            let _ = move_log(&self.connection, &self.shared);
        }
        Ok(outcomes)
    }

    /// `state` is taken: a group that fails leaves nothing to go on from but what is on disk.
    fn transaction(
        &self,
        batches: &[RawBatch],
        state: Option<State>,
    ) -> Result<(Vec<Outcome>, State), StoreError> {
        let Self { connection, .. } = self;
        let failed = |error| failed("write", error);
        if !self.wrote {
            schema::raise(connection).map_err(failed)?;
        }
        let mut state = match state {
            Some(state) => state,
            None => State::load(connection).map_err(failed)?,
        };
        let before = state.revision;
        let mut outcomes = Vec::with_capacity(batches.len());
        let mut statements = Statements::new(connection);
        for batch in batches {
            match apply(&mut statements, &mut state, batch) {
                Ok(done) => outcomes.push(Ok(done)),
                Err(Stop::Batch(error)) => outcomes.push(Err(error)),
                Err(Stop::Group(error)) => return Err(failed(error)),
            }
        }
        drop(statements);
        let settled = match &state.head {
            Some(head) if outcomes.iter().any(Result::is_ok) => Some(head.settled()?),
            _ => None,
        };
        note(connection, before, &mut state, settled.as_ref()).map_err(failed)?;
        connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])).map_err(failed)?;
        Ok((outcomes, state))
    }

    /// SQLite ends some failed transactions by itself and leaves others open.
    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the store could not roll back; it tries again with the next commit");
        }
    }

    fn ask_for_checkpoint(&mut self) {
        let pages = self.log_pages.load(Ordering::Acquire);
        // Fewer than before: the log was begun anew.
        self.asked_at_pages = self.asked_at_pages.min(pages);
        if pages - self.asked_at_pages >= CHECKPOINT_PAGES {
            self.asked_at_pages = pages;
            // Full means that it was asked already.
            let _ = self.poke.try_send(());
        }
    }
}

/// How many commits to wait for next: about as many as came together lately.
fn expected_next(expected: usize, came: usize) -> usize {
    // Less by less, so that one small group among large ones does not part them for good.
    if came == 1 { 1 } else { came.max(expected - expected.div_ceil(8)).min(GATHERED_ENOUGH) }
}

/// Counts the pages of the log from now on. SQLite leaves moving them to us then.
fn count_log_pages(connection: &mut Connection) -> rusqlite::Result<Arc<AtomicU64>> {
    let log_pages = Arc::new(AtomicU64::new(anchor::frames(connection)?));
    let counted = log_pages.clone();
    connection.wal_hook(Some(move |_: &mut Wal, pages| {
        counted.store(u64::try_from(pages).unwrap_or(0), Ordering::Release);
        Ok(())
    }))?;
    Ok(log_pages)
}

/// What a group leaves besides its rows.
fn note(
    connection: &Connection,
    revision_before: u64,
    state: &mut State,
    settled: Option<&Settled>,
) -> rusqlite::Result<()> {
    if let Some(settled) = settled {
        write_records(connection, &settled.records)?;
        schema::put(connection, schema::HEAD, &settled.head)?;
        state.head = Some(settled.next.clone());
        state.record = settled.records.last().map(|row| (row.sequence, row.hash)).or(state.record);
    }
    if revision_before != state.revision {
        schema::put(connection, schema::REVISION, state.revision)?;
    }
    Ok(())
}

/// The rows that a batch touches.
fn keys(batch: &RawBatch) -> impl Iterator<Item = &[u8]> {
    let put = batch.put.iter().map(|(key, _)| key.as_slice());
    let resealed = batch.reseal.iter().filter_map(Reseal::row).map(|row| row.key.as_slice());
    put.chain(batch.delete.iter().map(Vec::as_slice)).chain(resealed)
}

/// Brings the rows that were in memory before up to date, in the order of the commits.
fn keep(changing: &Changing<'_>, batches: &[RawBatch], outcomes: &[Outcome]) {
    for (batch, outcome) in batches.iter().zip(outcomes) {
        let Ok((revision, _)) = outcome else { continue };
        for (key, value) in batch.put.iter().filter(|(key, _)| changing.knew(key)) {
            changing.put(RawRow { key: key.clone(), revision: *revision, value: value.clone() });
        }
        let resealed = batch.reseal.iter().filter_map(Reseal::row).map(|row| &row.key);
        batch.delete.iter().chain(resealed).for_each(|key| changing.forget(key));
    }
}

fn write_records(connection: &Connection, records: &[AuditRow]) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached("INSERT INTO audit VALUES (?1, ?2, ?3)")?;
    for row in records {
        insert.execute((row.sequence, row.hash, &row.records))?;
    }
    Ok(())
}

/// About what a batch adds to the log of the database, in bytes.
fn size_bytes(batch: &RawBatch) -> usize {
    const ROW_BYTES: usize = 1024;
    const COMMIT_BYTES: usize = 4096;
    let put: usize = batch.put.iter().map(|(key, value)| key.len() + value.len() + ROW_BYTES).sum();
    let resealed: usize = batch.reseal.iter().map(|value| value.bytes() + ROW_BYTES).sum();
    put + resealed + batch.delete.len() * ROW_BYTES + COMMIT_BYTES
}

/// Moves the log into the database file whenever asked, beside the writer. What it cannot move because a reader
/// still needs it, it moves the next time.
pub(super) fn checkpoints(connection: &Connection, pokes: &Receiver<()>, shared: &Shared) {
    while pokes.recv().is_ok() && move_log(connection, shared).is_ok() {}
}

/// Moves what it can. Fails when others touched the files: into these nothing is moved, they are evidence.
fn move_log(connection: &Connection, shared: &Shared) -> Result<(), StoreError> {
    shared.guard.begin(Writes::Database)?;
    shared.readers.end_all();
    match checkpoint(connection, "PASSIVE") {
        Ok((pages, moved)) => tracing::trace!(pages, moved, "checkpoint"),
        Err(error) => tracing::warn!(%error, "the store's log could not be moved into its file"),
    }
    shared.guard.end(Writes::Database)
}

/// How many pages the log has, and how many of them are in the database file now, durably. Nothing is known, and
/// both are -1, when another connection is moving pages.
fn checkpoint(connection: &Connection, how: &str) -> rusqlite::Result<(i64, i64)> {
    let sql = format!("PRAGMA wal_checkpoint({how})");
    connection.query_row(&sql, [], |row| Ok((row.get(1)?, row.get(2)?)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

    use super::super::{SqliteBackend, SqliteOptions, connect, files};
    use super::*;
    use crate::Backend as _;

    /// A writer of a new store, with one row written.
    async fn wrote(directory: &Path, key: &[u8]) -> Writer {
        let options = SqliteOptions::default();
        let path = files::prepare(directory).unwrap();
        let mut connection = connect(&path, true).unwrap();
        schema::prepare(&mut connection, &path, &options, 0).unwrap();
        let anchor = Anchor::hold(&connection, &path).unwrap();
        let shared = Arc::new(Shared::new(&path, &options).unwrap());
        let ((_, jobs), (poke, _)) = (mpsc::channel(1), std::sync::mpsc::sync_channel(1));
        let mut writer = Writer::new((connection, anchor), jobs, shared, poke).unwrap();
        let (reply, answer) = oneshot::channel();
        let batch = RawBatch { put: vec![(key.to_vec(), vec![1])], ..RawBatch::default() };
        writer.write(vec![Job { batch, reply }]);
        answer.await.unwrap().unwrap();
        writer
    }

    /// Killed just before the log gives its space back, and just after.
    #[tokio::test]
    async fn a_store_opens_wherever_its_closing_ended() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut writer = wrote(&at("site"), b"t\0a").await;
        let (site, ends) = (at("site"), [at("before"), at("after")]);
        let left = ends.clone();
        let copy = move |context: AuthContext<'_>| {
            let gives_back =
                AuthAction::Pragma { pragma_name: "wal_checkpoint", pragma_value: Some("TRUNCATE") };
            if context.action == gives_back {
                for end in &left {
                    std::fs::create_dir(end).unwrap();
                    for file in ["store.db", "store.db-wal", "store.anchor"] {
                        std::fs::copy(site.join(file), end.join(file)).unwrap();
                    }
                }
                std::fs::File::create(left[1].join("store.db-wal")).unwrap();
            }
            Authorization::Allow
        };
        writer.connection.authorizer(Some(copy)).unwrap();
        writer.close();
        for end in ends {
            let store = SqliteBackend::open(&end, &SqliteOptions::default(), 0).unwrap();
            assert!(store.get(b"t\0a").await.unwrap().is_some());
        }
    }

    #[test]
    fn as_many_are_waited_for_as_came_lately_and_none_by_who_is_alone() {
        assert_eq!(expected_next(1, 1), 1);
        assert_eq!(expected_next(50, 1), 1, "nobody else came");
        assert_eq!(expected_next(1, 20), 20);
        assert_eq!(expected_next(20, 12), 17, "they may come together again");
        assert_eq!(expected_next(1, GROUP_COMMITS_MAX), GATHERED_ENOUGH);
        let fewer = (0..30).fold(GATHERED_ENOUGH, |expected, _| expected_next(expected, 2));
        assert_eq!(fewer, 2);
    }
}
