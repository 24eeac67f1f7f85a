//! A disk that is full: an error for everybody who waits, nothing half-written, and work goes on afterwards.

use std::sync::Arc;

use arcadia_crypto::SystemEntropy;
use arcadia_kernel::Fault;
use arcadia_store::{
    AuditCheck, Backend, Batch, CommitError, RawBatch, Revision, SqliteBackend, SqliteOptions, Store,
    StoreError,
};

use crate::support::{NOTES, NOW, note, ring, stamp};

const FULL_BYTES: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_survived() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { database_bytes_max: FULL_BYTES, ..SqliteOptions::default() };
    let backend = Arc::new(SqliteBackend::open(&directory.path().join("site"), &options, NOW).unwrap());
    let store = Store::over(backend.clone(), ring(directory.path()), Arc::new(SystemEntropy)).await.unwrap();
    let large = note(&"x".repeat(FULL_BYTES as usize / 4));
    let mut batch = Batch::new();
    batch.put(NOTES, "kept", &large).unwrap();
    store.commit(&stamp(&store), batch).await.unwrap();

    // Twelve at once: they share transactions, and together they do not fit.
    let mut tasks = Vec::new();
    for n in 0..12 {
        let (store, large) = (store.clone(), large.clone());
        tasks.push(tokio::spawn(async move {
            let mut batch = Batch::new();
            batch.put(NOTES, &format!("{n}"), &large).unwrap();
            (n, store.commit(&stamp(&store), batch).await)
        }));
    }
    let (mut written, mut failed) = (1, 0);
    for task in tasks {
        let (n, result) = task.await.unwrap();
        let found = store.get(NOTES, &format!("{n}")).await.unwrap();
        assert_eq!(found.is_some(), result.is_ok(), "an answer of {result:?} and the row do not agree");
        match result {
            Ok(_) => written += 1,
            Err(CommitError::Store(error @ StoreError::Unavailable { .. })) => {
                failed += 1;
                assert_eq!(Fault::from(error).status.as_u16(), 503);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(failed > 0);
    // A later commit may have been alone and have fitted; go on until the last word is that it is full.
    for n in 12..99 {
        let mut batch = Batch::new();
        batch.put(NOTES, &format!("{n}"), &large).unwrap();
        match store.commit(&stamp(&store), batch).await {
            Ok(_) => written += 1,
            Err(_) => break,
        }
    }
    assert!(matches!(store.check(), Err(StoreError::Unavailable { .. })));
    assert!(store.health().await.unwrap().last_failure.unwrap().contains("full"));
    let check = store.audit_verify().await.unwrap();
    assert_eq!(check, AuditCheck { records: written, first_broken: None }, "records of writes that happened");

    // Space comes back.
    let mut batch = Batch::new();
    batch.delete(NOTES, "kept");
    store.commit(&stamp(&store), batch).await.unwrap();
    assert_eq!(store.health().await.unwrap().last_failure, None);
    store.check().unwrap();
    let mut batch = Batch::new();
    batch.put(NOTES, "later", &note("fits")).unwrap();
    let revision = store.commit(&stamp(&store), batch).await.unwrap();
    assert_eq!(revision, Revision(written + 2), "failed commits took no revision");
    let check = store.audit_verify().await.unwrap();
    assert_eq!(check, AuditCheck { records: written + 2, first_broken: None });
}

/// Callers who go away do not take the writer with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_commit_is_whole_or_absent() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Arc::new(SqliteBackend::open(directory.path(), &SqliteOptions::default(), NOW).unwrap());
    let mut tasks = Vec::new();
    for n in 0..64_u8 {
        let backend = backend.clone();
        tasks.push(tokio::spawn(async move {
            let put = vec![(vec![b'a', 0, n], vec![n]), (vec![b'b', 0, n], vec![n])];
            backend.commit(RawBatch { put, ..RawBatch::default() }).await
        }));
    }
    for task in &tasks[..32] {
        task.abort();
    }
    let mut acknowledged = Vec::new();
    for (n, task) in tasks.into_iter().enumerate() {
        if let Ok(result) = task.await {
            result.unwrap();
            acknowledged.push(n as u8);
        }
    }
    assert!(acknowledged.len() >= 32);
    drop(backend);
    let backend = SqliteBackend::open(directory.path(), &SqliteOptions::default(), NOW).unwrap();
    for n in 0..64_u8 {
        let pair = backend.get_many(&[vec![b'a', 0, n], vec![b'b', 0, n]]).await.unwrap();
        assert_eq!(pair[0].is_some(), pair[1].is_some());
        assert!(pair[0].is_some() || !acknowledged.contains(&n));
    }
}

/// What writes has ended: nothing is acknowledged any more, and whoever asks is told.
#[tokio::test]
async fn a_writer_that_is_gone_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let backend = SqliteBackend::open(directory.path(), &SqliteOptions::default(), NOW).unwrap();
    let put = || RawBatch { put: vec![(b"t\0a".to_vec(), vec![1])], ..RawBatch::default() };
    backend.commit(put()).await.unwrap();
    backend.check().unwrap();
    let deadly = RawBatch { audit: vec![Box::new(|_, _| panic!("of this test"))], ..RawBatch::default() };
    assert!(matches!(backend.commit(deadly).await, Err(CommitError::Store(StoreError::Closed))));
    assert!(matches!(backend.check(), Err(StoreError::Closed)));
    assert!(matches!(backend.commit(put()).await, Err(CommitError::Store(StoreError::Closed))));
    drop(backend);
    let backend = SqliteBackend::open(directory.path(), &SqliteOptions::default(), NOW).unwrap();
    assert!(backend.get(b"t\0a").await.unwrap().is_some(), "what was acknowledged is there");
    backend.commit(put()).await.unwrap();
}
