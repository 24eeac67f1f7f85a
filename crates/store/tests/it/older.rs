//! A store that an older version wrote: it is read as it is, and of the present schema from the first commit on.

use std::path::Path;

use arcadia_crypto::SystemEntropy;
use arcadia_store::{AuditCheck, Batch, ResealPass, Store, StoreError, StoreReader};
use rusqlite::Connection;

use crate::support::{NOTES, clock, copy, note, open, ring, stamp};

const ROWS: usize = 20;

async fn put(store: &Store, key: &str) {
    let mut batch = Batch::new();
    batch.put(NOTES, key, &note(key)).unwrap();
    store.commit(&stamp(store), batch).await.unwrap();
}

/// What versions of schema 2 had besides: which key was changed when.
async fn older(directory: &Path) {
    let store = open(directory);
    for n in 0..ROWS {
        put(&store, &n.to_string()).await;
    }
    drop(store);
    let connection = Connection::open(directory.join("site/store.db")).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE log (
                 revision INTEGER NOT NULL,
                 key BLOB NOT NULL,
                 PRIMARY KEY (revision, key)
             ) STRICT, WITHOUT ROWID;
             INSERT INTO log SELECT revision, key FROM rows;
             INSERT INTO meta VALUES ('log_floor', 0);
             PRAGMA user_version = 2;",
        )
        .unwrap();
}

/// The number of the schema, and how much there is of what it no longer has.
fn schema(file: &Path) -> (i64, i64) {
    let connection = Connection::open(file).unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let tables = number("SELECT count(*) FROM sqlite_schema WHERE name = 'log'");
    (number("PRAGMA user_version"), tables + number("SELECT count(*) FROM meta WHERE name = 'log_floor'"))
}

fn reader(directory: &Path) -> StoreReader {
    let entropy = std::sync::Arc::new(SystemEntropy);
    StoreReader::open(&directory.join("site"), ring(directory), entropy).unwrap()
}

async fn goes_on(directory: &Path) {
    let file = directory.join("site/store.db");
    drop(open(directory));
    assert_eq!(schema(&file), (2, 2), "a look changes nothing");
    let store = open(directory);
    put(&store, "new").await;
    assert_eq!(schema(&file), (3, 0));
    assert_eq!(store.all(NOTES, &()).await.unwrap().len(), ROWS + 1);
    let whole = AuditCheck { records: ROWS as u64 + 1, first_broken: None };
    assert_eq!(store.audit_verify().await.unwrap(), whole);
    store.check().unwrap();
    drop(store);
    let store = open(directory);
    put(&store, "newer").await;
    reader(directory).check_rows().unwrap();
    reader(directory).check_pages().unwrap();
}

#[tokio::test]
async fn an_older_store_is_read_copied_and_written() {
    let directory = tempfile::tempdir().unwrap();
    older(directory.path()).await;
    reader(directory.path()).check_rows().unwrap();
    let restored = directory.path().join("restored");
    std::fs::create_dir_all(restored.join("site")).unwrap();
    std::fs::copy(directory.path().join("keys.json"), restored.join("keys.json")).unwrap();
    copy(directory.path(), &restored.join("site/store.db")).unwrap();
    goes_on(directory.path()).await;
    goes_on(&restored).await;
}

#[tokio::test]
async fn the_first_commit_to_an_older_store_may_be_one_of_new_seals() -> Result<(), StoreError> {
    let directory = tempfile::tempdir().unwrap();
    older(directory.path()).await;
    let (site, mut keys) = (directory.path().join("site"), ring(directory.path()));
    let open = |keys| Store::open(&site, keys, clock(), std::sync::Arc::new(SystemEntropy));
    let store = open(keys.clone())?;
    keys.rotate(&SystemEntropy).unwrap();
    store.renew_ring(keys.clone());
    let mut pass = ResealPass::default();
    while !store.reseal(&mut pass).await?.done {}
    assert_eq!(schema(&site.join("store.db")), (3, 0));
    keys.retire_old_keys();
    store.renew_ring(keys.clone());
    drop(store);
    let store = open(keys)?;
    assert_eq!(store.all(NOTES, &()).await?.len(), ROWS);
    assert_eq!(store.audit_verify().await?.first_broken, None);
    Ok(())
}
