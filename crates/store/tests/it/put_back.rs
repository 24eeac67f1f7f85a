//! What was true once, put back while nobody has the store open.

use std::path::Path;
use std::sync::Arc;

use arcadia_crypto::SystemEntropy;
use arcadia_store::{Batch, Store, StoreError, StoreReader};
use rusqlite::Connection;

use crate::support::{NOTES, clock, copy, note, open, ring, stamp};

async fn put(store: &Store, key: &str, text: &str) {
    let mut batch = Batch::new();
    batch.put(NOTES, key, &note(text)).unwrap();
    store.commit(&stamp(store), batch).await.unwrap();
}

fn tamper(directory: &Path, sql: &str) {
    Connection::open(directory.join("site/store.db")).unwrap().execute_batch(sql).unwrap();
}

fn refused(directory: &Path) -> StoreError {
    let reader =
        StoreReader::open(&directory.join("site"), ring(directory), Arc::new(SystemEntropy)).unwrap();
    let read = reader.check_rows().unwrap_err();
    assert!(matches!(read, StoreError::RowsReplaced { .. }), "{read}");
    let site = directory.join("site");
    Store::open(&site, ring(directory), clock(), Arc::new(SystemEntropy)).err().unwrap()
}

/// Three rows; `b` was changed, `c` deleted; and a copy of the file from before.
async fn changed(directory: &Path) {
    let store = open(directory);
    for key in ["a", "b", "c"] {
        put(&store, key, "old").await;
    }
    copy(directory, &directory.join("old.db")).unwrap();
    put(&store, "b", "new").await;
    let mut batch = Batch::new();
    batch.delete(NOTES, "c");
    store.commit(&stamp(&store), batch).await.unwrap();
}

#[tokio::test]
async fn an_older_version_a_lost_row_and_one_that_was_deleted_are_noticed() {
    let cases = [
        (
            "its older version",
            "UPDATE rows SET value = old.value, revision = old.revision FROM old.rows AS old
             WHERE rows.key = old.key AND rows.value <> old.value",
        ),
        (
            "its older value alone",
            "UPDATE rows SET value = old.value FROM old.rows AS old
             WHERE rows.key = old.key AND rows.value <> old.value",
        ),
        ("another revision", "UPDATE rows SET revision = 1 WHERE revision = 4"),
        (
            "deleted, and back",
            "INSERT INTO rows SELECT * FROM old.rows WHERE key NOT IN (SELECT key FROM rows)",
        ),
        ("removed", "DELETE FROM rows WHERE revision = 1"),
        ("all of them", "DELETE FROM rows; INSERT INTO rows SELECT * FROM old.rows"),
    ];
    for (what, sql) in cases {
        let directory = tempfile::tempdir().unwrap();
        changed(directory.path()).await;
        let site = directory.path().join("site");
        let reader = || StoreReader::open(&site, ring(directory.path()), Arc::new(SystemEntropy)).unwrap();
        reader().check_rows().unwrap();
        drop(open(directory.path()));
        let old = directory.path().join("old.db");
        tamper(directory.path(), &format!("ATTACH '{}' AS old; {sql};", old.display()));
        assert_eq!(reader().audit_verify().unwrap().first_broken, None, "{what}: the chain says nothing");
        let found = refused(directory.path());
        assert!(matches!(found, StoreError::RowsReplaced { written: 2, .. }), "{what}: {found}");
        assert!(found.to_string().contains("put back to an earlier state"), "{found}");
    }
}

/// The mark of a row is of the end of its value, which is as it was.
#[tokio::test]
async fn a_value_that_was_altered_in_its_middle_is_noticed_when_all_rows_are_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    changed(directory.path()).await;
    let reader =
        || StoreReader::open(&directory.path().join("site"), ring(directory.path()), Arc::new(SystemEntropy));
    reader().unwrap().check_rows().unwrap();
    let connection = Connection::open(directory.path().join("site/store.db")).unwrap();
    // The last of them, so that all are looked at.
    let (key, mut value): (Vec<u8>, Vec<u8>) = connection
        .query_row("SELECT max(key), value FROM rows", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let middle = value.len() / 2;
    value[middle] ^= 1;
    connection.execute("UPDATE rows SET value = ?2 WHERE key = ?1", (key, value)).unwrap();
    let found = reader().unwrap().check_rows().unwrap_err();
    assert!(matches!(found, StoreError::NotAuthentic { .. }), "{found}");
    assert!(found.to_string().starts_with("a row of table notes does not open"), "{found}");
}

/// The head is that of the older file, too: nothing in there is newer. Only the anchor beside it knows.
#[tokio::test]
async fn a_whole_older_store_is_noticed_unless_its_anchor_went_with_it() {
    let directory = tempfile::tempdir().unwrap();
    changed(directory.path()).await;
    let site = directory.path().join("site");
    std::fs::remove_file(site.join("store.db-wal")).ok();
    std::fs::copy(directory.path().join("old.db"), site.join("store.db")).unwrap();
    let reader = StoreReader::open(&site, ring(directory.path()), Arc::new(SystemEntropy)).unwrap();
    assert_eq!(reader.audit_verify().unwrap().first_broken, Some(4));
    let refused = Store::open(&site, ring(directory.path()), clock(), Arc::new(SystemEntropy)).err().unwrap();
    assert!(matches!(refused, StoreError::Lost { .. }), "{refused}");
    std::fs::remove_file(site.join("store.anchor")).unwrap();
    let store = open(directory.path());
    assert_eq!(store.get(NOTES, "b").await.unwrap().unwrap().value, note("old"));
    assert_eq!(store.audit_verify().await.unwrap().records, 3, "it lacks what came later");
}

/// A head as versions wrote it that kept no sum: what is there then counts from now on.
#[tokio::test]
async fn a_head_without_a_sum_gets_one() {
    let directory = tempfile::tempdir().unwrap();
    changed(directory.path()).await;
    let ring_of = || ring(directory.path());
    let connection = Connection::open(directory.path().join("site/store.db")).unwrap();
    let sealed: Vec<u8> = connection
        .query_row("SELECT value FROM meta WHERE name = 'audit_head'", [], |row| row.get(0))
        .unwrap();
    let plain = ring_of().open(b"\0audit head", &sealed).unwrap();
    let short = ring_of().seal(b"\0audit head", &plain[..40], &SystemEntropy).unwrap();
    connection.execute("UPDATE meta SET value = ?1 WHERE name = 'audit_head'", [short]).unwrap();
    drop(connection);
    let store = open(directory.path());
    assert!(store.seals() >= 5 * 2, "at least what its records and heads took");
    put(&store, "b", "newer").await;
    drop(store);
    drop(open(directory.path()));
    tamper(directory.path(), "DELETE FROM rows WHERE revision = 1");
    let found = refused(directory.path());
    assert!(matches!(found, StoreError::RowsReplaced { written: 2, found: 1 }), "{found}");
}

/// Without a head there is nothing that the rows could be held against. A site of before its first change has none either,
/// and no rows.
#[tokio::test]
async fn rows_without_a_head_are_noticed_whatever_else_went_with_it() {
    let without_head =
        "DELETE FROM meta WHERE name = 'audit_head'; UPDATE meta SET value = 0 WHERE name = 'revision';";
    for (sql, broken) in [("DELETE FROM audit", None), ("", Some(1))] {
        let directory = tempfile::tempdir().unwrap();
        changed(directory.path()).await;
        let old = directory.path().join("old.db");
        let back = "INSERT INTO rows SELECT * FROM old.rows WHERE key NOT IN (SELECT key FROM rows);";
        tamper(directory.path(), &format!("ATTACH '{}' AS old; {back} {without_head} {sql};", old.display()));
        let site = directory.path().join("site");
        std::fs::remove_file(site.join("store.anchor")).unwrap();
        let reader =
            StoreReader::open_unchecked(&site, ring(directory.path()), Arc::new(SystemEntropy)).unwrap();
        assert_eq!(reader.audit_verify().unwrap().first_broken, broken);
        for refused in [
            reader.check_rows().unwrap_err(),
            Store::open(&site, ring(directory.path()), clock(), Arc::new(SystemEntropy)).err().unwrap(),
        ] {
            assert!(refused.to_string().contains("its head is missing"), "{refused}");
        }
        tamper(directory.path(), "DELETE FROM rows; DELETE FROM audit");
        std::fs::remove_file(site.join("store.anchor")).unwrap();
        let store = open(directory.path());
        put(&store, "a", "the first").await;
    }
}

#[tokio::test]
async fn what_would_run_with_every_change_is_noticed() {
    for sql in [
        "CREATE TRIGGER forgets AFTER INSERT ON audit BEGIN DELETE FROM audit WHERE sequence < new.sequence; END",
        "CREATE TRIGGER forgets AFTER INSERT ON audit BEGIN DELETE FROM audit WHERE sequence < new.sequence; END;
         PRAGMA writable_schema = ON; UPDATE sqlite_schema SET type = 'TRIGGER' WHERE name = 'forgets'",
        "CREATE VIEW seen AS SELECT * FROM rows",
        "CREATE TABLE more (x)",
        "CREATE INDEX by_value ON rows (value)",
    ] {
        let directory = tempfile::tempdir().unwrap();
        changed(directory.path()).await;
        tamper(directory.path(), sql);
        let site = directory.path().join("site");
        let refused =
            Store::open(&site, ring(directory.path()), clock(), Arc::new(SystemEntropy)).err().unwrap();
        assert!(refused.to_string().contains("is not the site's"), "{refused}");
        let unread = StoreReader::open(&site, ring(directory.path()), Arc::new(SystemEntropy)).err().unwrap();
        assert!(unread.to_string().contains("is not the site's"), "{sql}: {unread}");
    }
    let directory = tempfile::tempdir().unwrap();
    changed(directory.path()).await;
    tamper(directory.path(), "ANALYZE");
    put(&open(directory.path()), "b", "newer").await;
}
