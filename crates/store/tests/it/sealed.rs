//! What is on disk: sealed, in its place, unbroken, ours.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arcadia_crypto::{KeyRing, SystemEntropy};
use arcadia_store::{
    AuditCheck, Backend as _, Batch, CommitError, MemoryBackend, RawBatch, Store, StoreError, StoreReader,
};
use rusqlite::Connection;

use crate::support::{NOTES, clock, copy, note, open, refusal, ring, stamp};

const SECRET: &str = "correct-horse-battery-staple";

async fn put(store: &Store, key: &str, text: &str) {
    let mut batch = Batch::new();
    batch.put(NOTES, key, &note(text)).unwrap();
    store.commit(&stamp(store), batch).await.unwrap();
}

fn database(directory: &Path) -> PathBuf {
    directory.join("site/store.db")
}

/// Changes the file as somebody with a disk editor would.
fn tamper(directory: &Path, sql: &str) {
    let connection = Connection::open(database(directory)).unwrap();
    connection.execute_batch(sql).unwrap();
}

fn try_open(directory: &Path, ring: KeyRing) -> Result<Store, StoreError> {
    Store::open(&directory.join("site"), ring, clock(), Arc::new(SystemEntropy))
}

/// As another process sees it, while the store is open or not.
fn reader(directory: &Path) -> StoreReader {
    StoreReader::open_unchecked(&directory.join("site"), ring(directory), Arc::new(SystemEntropy)).unwrap()
}

#[tokio::test]
async fn a_secret_is_in_none_of_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    put(&store, "a", SECRET).await;
    let mut event = refusal(&store, "SecretGet");
    event.caller_name = "nina@contoso.example".to_owned();
    store.audit_sink().append(event).await.unwrap();
    copy(directory.path(), &directory.path().join("site/copy.db")).unwrap();
    let search = || {
        let (mut files, mut known_key) = (0, false);
        for entry in std::fs::read_dir(directory.path().join("site")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            files += 1;
            for text in [SECRET, "nina@contoso", "SecretGet", "\"text\""] {
                let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!found, "{text} is in {}", path.display());
            }
            // Shows that the search finds what is there: keys are not sealed.
            known_key |= bytes.windows(8).any(|window| window == b"notes\0a\0");
        }
        assert!(known_key);
        files
    };
    assert!(search() >= 4, "file, log, lock, copy");
    assert_eq!(store.get(NOTES, "a").await.unwrap().unwrap().value.text, SECRET);
    drop(store);
    search();
}

#[tokio::test]
async fn a_moved_or_altered_value_does_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for key in ["a", "b", "c"] {
        put(&store, key, key).await;
    }
    drop(store);
    tamper(
        directory.path(),
        "UPDATE rows SET value = (SELECT value FROM rows WHERE key = x'6e6f74657300610001')
         WHERE key = x'6e6f74657300620001';
         UPDATE rows SET value = CAST(substr(value, 1, length(value) - 4) || x'00000000' AS BLOB)
         WHERE key = x'6e6f74657300630001';",
    );
    let refused = try_open(directory.path(), ring(directory.path())).err().unwrap();
    assert!(matches!(refused, StoreError::RowsReplaced { written: 3, found: 3 }), "{refused}");
    // One by one, for whoever reads on all the same.
    let reader = reader(directory.path());
    assert_eq!(reader.get(NOTES, "a").unwrap().unwrap().value, note("a"));
    for key in ["b", "c"] {
        let refused = reader.get(NOTES, key).unwrap_err();
        assert!(matches!(refused, StoreError::NotAuthentic { .. }), "{refused}");
        assert!(refused.to_string().contains("table notes"));
    }
    assert!(reader.range(NOTES, &(), None, 9).is_err());
}

/// Under an open store, in a backend that nothing guards.
#[tokio::test]
async fn an_observer_is_not_told_half_of_a_change() {
    let backend = Arc::new(MemoryBackend::new(0));
    let ring = KeyRing::generate(&SystemEntropy).unwrap();
    let store = Store::over(backend.clone(), ring, Arc::new(SystemEntropy)).await.unwrap();
    for key in ["a", "b"] {
        put(&store, key, key).await;
    }
    let moved = backend.get(&NOTES.key_bytes("a")).await.unwrap().unwrap();
    let put_there = vec![(NOTES.key_bytes("b"), moved.value.clone())];
    backend.commit(RawBatch { put: put_there, ..RawBatch::default() }).await.unwrap();
    assert!(matches!(store.get(NOTES, "b").await, Err(StoreError::NotAuthentic { .. })));
    assert!(store.all(NOTES, &()).await.is_err());
    store.observe(NOTES, |_| ());
    let mut batch = Batch::new();
    batch.delete(NOTES, "b");
    let refused = store.commit(&stamp(&store), batch).await;
    assert!(matches!(refused, Err(CommitError::Store(StoreError::NotAuthentic { .. }))), "{refused:?}");
    put(&store, "d", "others still work").await;
}

async fn audited(directory: &Path) {
    let store = open(directory);
    for n in 0..5 {
        store.audit_sink().append(refusal(&store, &format!("op{n}"))).await.unwrap();
    }
    put(&store, "a", "1").await;
    assert_eq!(store.audit_verify().await.unwrap(), AuditCheck { records: 6, first_broken: None });
}

#[tokio::test]
async fn a_changed_audit_log_is_found_out() {
    let cases = [
        ("UPDATE audit SET record = CAST(substr(record, 1, length(record) - 4) || x'00000000' AS BLOB) WHERE sequence = 3", 6, 3),
        ("UPDATE audit SET hash = zeroblob(32) WHERE sequence = 2", 6, 2),
        ("UPDATE audit SET hash = x'00' WHERE sequence = 2", 6, 2),
        ("DELETE FROM audit WHERE sequence = 4", 5, 4),
        ("DELETE FROM audit WHERE sequence = 1", 5, 1),
        ("DELETE FROM audit WHERE sequence > 4", 4, 5),
        ("DELETE FROM audit", 0, 1),
        (
            "UPDATE audit SET sequence = -1 WHERE sequence = 2; UPDATE audit SET sequence = 2 WHERE sequence = 3;
             UPDATE audit SET sequence = 3 WHERE sequence = -1",
            6,
            2,
        ),
        ("INSERT INTO audit SELECT 7, hash, record FROM audit WHERE sequence = 6", 7, 7),
    ];
    for (sql, records, first_broken) in cases {
        let directory = tempfile::tempdir().unwrap();
        audited(directory.path()).await;
        tamper(directory.path(), sql);
        let expected = AuditCheck { records, first_broken: Some(first_broken) };
        assert_eq!(reader(directory.path()).audit_verify().unwrap(), expected, "{sql}");
        let ends_well = ends_well(&reader(directory.path()), sql);
        match try_open(directory.path(), ring(directory.path())) {
            Ok(store) => {
                assert!(ends_well, "{sql}");
                assert_eq!(store.audit_verify().await.unwrap(), expected, "{sql}");
            }
            Err(refused) => {
                let told = matches!(refused, StoreError::Damaged { .. } | StoreError::Lost { .. });
                assert!(!ends_well && told, "{sql}: {refused}");
            }
        }
    }
}

/// A log whose end is gone is seen at once; what lies further back is for the walk.
fn ends_well(reader: &StoreReader, sql: &str) -> bool {
    let last = reader.last_record().unwrap();
    last == 6 && !sql.contains("sequence = 6")
}

#[tokio::test]
async fn a_cut_audit_log_is_refused_and_does_not_heal() {
    let directory = tempfile::tempdir().unwrap();
    audited(directory.path()).await;
    tamper(directory.path(), "DELETE FROM audit WHERE sequence > 4");
    let told = || try_open(directory.path(), ring(directory.path())).err().unwrap().to_string();
    for _ in 0..2 {
        assert!(told().contains("4 audit records where it had 6"), "{}", told());
    }
    // Without its anchor the log itself says so still.
    std::fs::remove_file(directory.path().join("site/store.anchor")).unwrap();
    for _ in 0..2 {
        assert!(told().contains("its head names"), "{}", told());
        std::fs::remove_file(directory.path().join("site/store.anchor")).unwrap();
    }
    let found = reader(directory.path()).audit_verify().unwrap();
    assert_eq!(found, AuditCheck { records: 4, first_broken: Some(5) });
}

#[tokio::test]
async fn another_process_reads_while_the_store_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let site = directory.path().join("site");
    let missing = StoreReader::open(&site, ring(directory.path()), Arc::new(SystemEntropy)).err().unwrap();
    assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
    assert!(!site.exists(), "looking makes nothing");
    let store = open(directory.path());
    put(&store, "a", "1").await;
    let reader = reader(directory.path());
    assert_eq!(reader.audit_page(0, 9).unwrap().len(), 1);
    put(&store, "a", "2").await;
    assert_eq!(reader.audit_page(1, 9).unwrap()[0].0, 2, "what was acknowledged is seen");
    assert_eq!(reader.audit_verify().unwrap(), AuditCheck { records: 2, first_broken: None });
    reader.check_pages().unwrap();
    let log = std::fs::read(site.join("store.db-wal")).unwrap();
    drop(reader);
    assert_eq!(std::fs::read(site.join("store.db-wal")).unwrap(), log, "nothing was moved");
    store.check().unwrap();
    put(&store, "a", "3").await;
    drop(store);
    let reader = self::reader(directory.path());
    assert_eq!(reader.audit_verify().unwrap(), AuditCheck { records: 3, first_broken: None });
    let other = KeyRing::generate(&SystemEntropy).unwrap();
    let wrong = StoreReader::open(&site, other, Arc::new(SystemEntropy)).err().unwrap();
    assert!(matches!(wrong, StoreError::WrongKey), "{wrong}");
    put(&open(directory.path()), "a", "beside a reader").await;
    assert_eq!(reader.last_record().unwrap(), 4);
}

#[tokio::test]
async fn another_process_reads_rows() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut batch = Batch::new();
    for number in 0..1200 {
        batch.put(NOTES, &format!("{number:04}"), &note(&number.to_string())).unwrap();
    }
    store.commit(&stamp(&store), batch).await.unwrap();
    let reader = reader(directory.path());
    assert_eq!(reader.get(NOTES, "0007").unwrap().unwrap().value.text, "7");
    assert!(reader.get(NOTES, "none").unwrap().is_none());
    let mut seen = Vec::new();
    let each = reader.each(NOTES, |note| {
        seen.push(note.text);
        Ok::<_, StoreError>(())
    });
    each.unwrap();
    assert_eq!(seen, (0..1200).map(|number| number.to_string()).collect::<Vec<_>>(), "of two pages");
    let page = reader.range(NOTES, &(), None, 5).unwrap();
    assert_eq!((page.items.len(), page.next.is_some()), (5, true));
    tamper(directory.path(), "UPDATE rows SET value = (SELECT value FROM rows LIMIT 1)");
    assert!(matches!(reader.get(NOTES, "0007"), Err(StoreError::NotAuthentic { .. })));
}

#[tokio::test]
async fn a_lost_or_forged_head_is_refused() {
    for (sql, words) in [
        ("DELETE FROM meta WHERE name = 'audit_head'", "its head is missing"),
        ("UPDATE meta SET value = x'01' WHERE name = 'audit_head'", "does not open with this key ring"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        audited(directory.path()).await;
        tamper(directory.path(), sql);
        let refused = try_open(directory.path(), ring(directory.path())).err().unwrap();
        assert!(refused.to_string().contains(words), "{sql}: {refused}");
    }
}

#[tokio::test]
async fn another_key_ring_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    audited(directory.path()).await;
    let refused = try_open(directory.path(), KeyRing::generate(&SystemEntropy).unwrap()).err().unwrap();
    assert!(matches!(refused, StoreError::WrongKey), "{refused}");
    assert!(try_open(directory.path(), ring(directory.path())).is_ok());
}

#[tokio::test]
async fn newer_and_foreign_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    audited(directory.path()).await;
    tamper(directory.path(), "PRAGMA user_version = 4");
    let refused = try_open(directory.path(), ring(directory.path())).err().unwrap();
    assert!(matches!(refused, StoreError::NewerSchema { found: 4, known: 3, .. }), "{refused}");
    assert!(refused.to_string().contains("newer version"));

    tamper(directory.path(), "PRAGMA application_id = 1");
    let refused = try_open(directory.path(), ring(directory.path())).err().unwrap();
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");

    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("site")).unwrap();
    tamper(directory.path(), "CREATE TABLE theirs (x)");
    let refused = try_open(directory.path(), ring(directory.path())).err().unwrap();
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");

    std::fs::write(
        database(directory.path()),
        "no database at all, but long enough to be looked at ".repeat(99),
    )
    .unwrap();
    let refused = try_open(directory.path(), ring(directory.path())).err().unwrap();
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
}

#[tokio::test]
async fn only_one_may_have_it_open() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let refused = try_open(directory.path(), ring(directory.path())).err().unwrap();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    put(&store, "a", "1").await;
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.get(NOTES, "a").await.unwrap().unwrap().value, note("1"));
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    // Empty and open to all at first, as `mkdir` leaves it.
    let site = directory.path().join("site");
    std::fs::create_dir(&site).unwrap();
    std::fs::set_permissions(&site, std::fs::Permissions::from_mode(0o755)).unwrap();
    let store = open(directory.path());
    put(&store, "a", "1").await;
    copy(directory.path(), &site.join("copy.db")).unwrap();
    assert_eq!(mode(&site), 0o700);
    for name in ["store.db", "store.db-wal", "store.db-shm", "store.lock", "copy.db"] {
        assert_eq!(mode(&site.join(name)), 0o600, "{name}");
    }
    drop(store);
    // As a copy by hand leaves it.
    std::fs::set_permissions(site.join("store.db"), std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(directory.path()));
    assert_eq!(mode(&site.join("store.db")), 0o600);
    // One that holds other things is not ours to close.
    let shared = directory.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("theirs"), "").unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o755)).unwrap();
    let keys = ring(directory.path());
    Store::open(&shared, keys, clock(), Arc::new(SystemEntropy)).unwrap();
    assert_eq!((mode(&shared), mode(&shared.join("store.db"))), (0o755, 0o600));
}

#[tokio::test]
async fn a_copy_is_a_store_as_of_one_moment() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    put(&store, "a", "1").await;
    let site = directory.path().join("copy/site");
    std::fs::create_dir_all(&site).unwrap();
    std::fs::copy(directory.path().join("keys.json"), directory.path().join("copy/keys.json")).unwrap();
    copy(directory.path(), &site.join("store.db")).unwrap();
    assert!(copy(directory.path(), &site.join("store.db")).is_err(), "a copy replaces nothing");
    put(&store, "a", "2").await;
    drop(store);
    let copied = open(&directory.path().join("copy"));
    assert_eq!(copied.get(NOTES, "a").await.unwrap().unwrap().value, note("1"));
    assert_eq!(copied.audit_verify().await.unwrap(), AuditCheck { records: 1, first_broken: None });
    put(&copied, "a", "3").await;
    assert_eq!(copied.audit_verify().await.unwrap(), AuditCheck { records: 2, first_broken: None });
}
