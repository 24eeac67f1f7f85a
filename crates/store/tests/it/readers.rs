//! Readers beside the writer, over a file, with next to nothing kept in memory: what they see, and that they do not
//! stand in the writer's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arcadia_store::{Backend as _, RawBatch, SqliteBackend, SqliteOptions};

use crate::support::{NOW, draft};

const KEY: &[u8] = b"t\0counted";
const MEBIBYTE: u64 = 1024 * 1024;

fn open(directory: &std::path::Path) -> Arc<SqliteBackend> {
    let options = SqliteOptions { cached_bytes_max: 0, readers: 2, ..SqliteOptions::default() };
    Arc::new(SqliteBackend::open(directory, &options, NOW).unwrap())
}

async fn put(backend: &SqliteBackend, number: u64) {
    let put = vec![(KEY.to_vec(), number.to_be_bytes().to_vec())];
    backend.commit(RawBatch { put, ..RawBatch::default() }).await.unwrap();
}

async fn record(backend: &SqliteBackend, bytes: usize) {
    let audit = vec![draft(&"a".repeat(bytes))];
    backend.commit(RawBatch { audit, ..RawBatch::default() }).await.unwrap();
}

async fn read(backend: &SqliteBackend) -> u64 {
    let row = backend.get(KEY).await.unwrap().unwrap();
    u64::from_be_bytes(row.value.clone().try_into().unwrap())
}

/// Readers on threads of their own until `writing` is done, of whom each sees what was acknowledged before it asked.
async fn beside(
    backend: &Arc<SqliteBackend>,
    acknowledged: &Arc<AtomicU64>,
    writing: impl Future<Output = ()>,
) {
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (backend, done, acknowledged) = (backend.clone(), done.clone(), acknowledged.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Acquire) {
                    let known = acknowledged.load(Ordering::Acquire);
                    let seen = read(&backend).await;
                    assert!(seen >= known, "{seen} after {known}");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    writing.await;
    done.store(true, Ordering::Release);
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_acknowledged_change_is_seen_by_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    put(&backend, 0).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    beside(&backend, &acknowledged, async {
        for number in 1..=300 {
            put(&backend, number).await;
            acknowledged.store(number, Ordering::Release);
            assert_eq!(read(&backend).await, number);
            record(&backend, 10).await;
            assert_eq!(read(&backend).await, number);
        }
    })
    .await;
}

/// Who reads in the log keeps it from beginning anew, so nobody may for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_begins_anew_beside_readers() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    put(&backend, 1).await;
    let log = directory.path().join("store.db-wal");
    let mut most = 0;
    beside(&backend, &Arc::new(AtomicU64::new(1)), async {
        for _ in 0..600 {
            record(&backend, 200_000).await;
            most = most.max(log.metadata().unwrap().len());
        }
    })
    .await;
    assert!(most < 48 * MEBIBYTE, "of 120 MB the log kept {most}");
}
