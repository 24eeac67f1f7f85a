//! Files that somebody removes, replaces or writes to under an open store.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use arcadia_kernel::Fault;
use arcadia_store::{AuditDraft, Backend as _, Batch, CommitError, RawBatch, Store, StoreError};
use rusqlite::Connection;

use crate::support::{FRAME_BYTES, NOTES, copy, draft, note, open, refusal, sqlite, stamp, used};

async fn put(store: &Store, key: &str) -> Result<(), CommitError> {
    let mut batch = Batch::new();
    batch.put(NOTES, key, &note(key)).unwrap();
    store.commit(&stamp(store), batch).await.map(|_| ())
}

/// Does `harm` to the files of a store in use, and says what the next commit and the next look say.
async fn after(harm: impl FnOnce(&Path)) -> String {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..50 {
        put(&store, &format!("{n}")).await.unwrap();
    }
    store.check().unwrap();
    // Times of change are only as fine as the system's tick.
    tokio::time::sleep(Duration::from_millis(20)).await;
    harm(&directory.path().join("site"));
    let found = store.check().unwrap_err();
    assert!(matches!(found, StoreError::Interfered { .. }), "{found}");
    assert_eq!(Fault::from(found.clone()).status.as_u16(), 503);
    let refused = put(&store, "later").await.unwrap_err();
    assert!(matches!(refused, CommitError::Store(StoreError::Interfered { .. })), "{refused}");
    assert!(store.audit_sink().append(refusal(&store, "Read")).await.is_err(), "no record, no answer");
    assert!(matches!(store.get(NOTES, "1").await, Err(StoreError::Interfered { .. })));
    found.to_string()
}

#[tokio::test]
async fn a_removed_or_replaced_file_is_noticed() {
    let text = after(|site| fs::remove_file(site.join("store.db")).unwrap()).await;
    assert!(text.contains("store.db was removed"), "{text}");
    let text = after(|site| {
        fs::copy(site.join("store.db"), site.join("other")).unwrap();
        fs::rename(site.join("other"), site.join("store.db")).unwrap();
    })
    .await;
    assert!(text.contains("store.db was replaced"), "{text}");
    let text = after(|site| fs::remove_file(site.join("store.db-wal")).unwrap()).await;
    assert!(text.contains("store.db-wal was removed"), "{text}");
    let text = after(|site| fs::rename(site, site.with_file_name("away")).unwrap()).await;
    assert!(text.contains("removed"), "{text}");
}

#[tokio::test]
async fn a_cut_or_written_file_is_noticed() {
    let text = after(|site| {
        let file = OpenOptions::new().write(true).open(site.join("store.db")).unwrap();
        file.set_len(0).unwrap();
    })
    .await;
    assert!(text.contains("store.db was cut short"), "{text}");
    for name in ["store.db", "store.db-wal"] {
        let text = after(|site| {
            let file = OpenOptions::new().write(true).open(site.join(name)).unwrap();
            file.write_all_at(b"\x01", 64).unwrap();
        })
        .await;
        assert!(text.contains(&format!("{name} was changed")), "{text}");
    }
    let text = after(|site| {
        let mut file = OpenOptions::new().append(true).open(site.join("store.db-wal")).unwrap();
        file.write_all(b"more").unwrap();
    })
    .await;
    assert!(text.contains("store.db-wal was changed"), "{text}");
}

/// What another connection to the file does, as `sqlite3 store.db` is one.
fn other(directory: &Path, sql: &str) -> Connection {
    let other = Connection::open(directory.join("site/store.db")).unwrap();
    // A move of the log would be noticed by itself.
    other.execute_batch(&format!("PRAGMA wal_autocheckpoint = 0; {sql}")).unwrap();
    other
}

/// A commit that waits for another's transaction, which ends with `end`.
async fn put_beside(directory: &Path, store: &Store, end: &str) -> Result<(), CommitError> {
    // Times of change are only as fine as the system's tick.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let other = other(directory, "BEGIN IMMEDIATE; DELETE FROM audit WHERE sequence = 5;");
    let waiting = store.clone();
    let waiting = tokio::spawn(async move { put(&waiting, "later").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    store.check().unwrap();
    other.execute_batch(end).unwrap();
    waiting.await.unwrap()
}

/// The site waits for the lock, and looks once it has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_committed_while_a_commit_waits_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..9 {
        put(&store, &format!("{n}")).await.unwrap();
    }
    let begun = std::time::Instant::now();
    let put = put_beside(directory.path(), &store, "ROLLBACK").await;
    // SQLite waits for five seconds, which a machine that stands still may take by itself.
    assert!(put.is_ok() || begun.elapsed() > Duration::from_secs(4), "{put:?}");
    store.check().unwrap();
    let refused = put_beside(directory.path(), &store, "COMMIT").await.unwrap_err();
    assert!(matches!(refused, CommitError::Store(StoreError::Interfered { .. })), "{refused}");
    let found = store.check().unwrap_err();
    assert!(found.to_string().contains("store.db-wal was changed by something else"), "{found}");
    assert!(matches!(store.get(NOTES, "1").await, Err(StoreError::Interfered { .. })));
}

/// SQLite tells of the change where the files do not.
#[tokio::test]
async fn a_change_is_noticed_when_size_and_time_of_the_log_are_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let log = directory.path().join("site/store.db-wal");
    // A log that has begun anew has room: what is written to it next does not make it longer.
    let length = || log.metadata().unwrap().len();
    while used(&log) + 99 * FRAME_BYTES > length() {
        for n in 0..20 {
            put(&store, &format!("{n}")).await.unwrap();
        }
    }
    // A move of the log that was asked for looks at the files as well, and is over by then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let left = log.metadata().unwrap();
    drop(other(directory.path(), "DELETE FROM audit WHERE sequence = 5"));
    let file = OpenOptions::new().write(true).open(&log).unwrap();
    file.set_modified(left.modified().unwrap()).unwrap();
    assert_eq!(length(), left.len());
    tokio::time::sleep(Duration::from_millis(20)).await;
    store.check().unwrap();
    let refused = put(&store, "later").await.unwrap_err();
    assert!(matches!(refused, CommitError::Store(StoreError::Interfered { .. })), "{refused}");
    store.check().unwrap_err();
}

/// A commit of the site's own excuses its log and not the database file.
#[tokio::test]
async fn a_byte_that_is_written_to_the_file_during_a_commit_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let backend = sqlite(directory.path());
    backend.commit(RawBatch { audit: vec![draft("first")], ..RawBatch::default() }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let file = OpenOptions::new().write(true).open(directory.path().join("site/store.db")).unwrap();
    let (end, inner) = (file.metadata().unwrap().len(), draft("second"));
    let audit: AuditDraft = Box::new(move |head, changes| {
        file.write_all_at(b"\x01", end - 1).unwrap();
        inner(head, changes)
    });
    let refused = backend.commit(RawBatch { audit: vec![audit], ..RawBatch::default() }).await.unwrap_err();
    assert!(matches!(refused, CommitError::Store(StoreError::Interfered { .. })), "{refused}");
    let found = backend.check().unwrap_err();
    assert!(found.to_string().contains("store.db was changed by something else"), "{found}");
}

/// It is not undone by putting the file back: what was acknowledged meanwhile may be in neither.
#[tokio::test]
async fn what_was_noticed_stays_until_the_store_is_opened_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    put(&store, "a").await.unwrap();
    let site = directory.path().join("site");
    // The look of the last commit serves for a moment.
    tokio::time::sleep(Duration::from_millis(20)).await;
    fs::rename(site.join("store.db"), site.join("away")).unwrap();
    store.check().unwrap_err();
    fs::rename(site.join("away"), site.join("store.db")).unwrap();
    assert!(matches!(store.check(), Err(StoreError::Interfered { .. })));
    assert!(put(&store, "b").await.is_err());
    drop(store);
    let store = open(directory.path());
    assert!(store.get(NOTES, "a").await.unwrap().is_some(), "what was acknowledged is there");
    assert!(store.get(NOTES, "b").await.unwrap().is_none());
    put(&store, "b").await.unwrap();
}

/// Its own commits, moves of the log and copies alarm nobody.
#[tokio::test(flavor = "multi_thread")]
async fn the_stores_own_work_is_not_taken_for_anothers() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let text = "x".repeat(256 * 1024);
    let mut tasks = Vec::new();
    for task in 0..4 {
        let (store, text) = (store.clone(), text.clone());
        tasks.push(tokio::spawn(async move {
            for n in 0..40 {
                let mut batch = Batch::new();
                batch.put(NOTES, &format!("{task}-{n}"), &note(&text)).unwrap();
                store.commit(&stamp(&store), batch).await.unwrap();
                store.check().unwrap();
            }
        }));
    }
    copy(directory.path(), &directory.path().join("copy.db")).unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let moved = fs::metadata(directory.path().join("site/store.db")).unwrap().len();
    assert!(moved > 4 << 20, "the log was moved while commits went on: {moved}");
    store.check().unwrap();
}
