//! Another data key, while the store is read and written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arcadia_crypto::{KeyRing, SystemEntropy};
use arcadia_store::{AuditCheck, Batch, ResealPass, Store, StoreError, StoreReader, Table};

use crate::support::{NOTES, Note, clock, note, refusal, stamp};

async fn put(store: &Store, key: &str, text: &str) {
    let mut batch = Batch::new();
    batch.put(NOTES, key, &note(text)).unwrap();
    store.commit(&stamp(store), batch).await.unwrap();
}

fn open(directory: &Path, ring: &KeyRing) -> Result<Store, StoreError> {
    Store::open(directory, ring.clone(), clock(), Arc::new(SystemEntropy))
}

/// To the end; how many values were sealed again.
async fn reseal(store: &Store) -> usize {
    let (mut pass, mut resealed) = (ResealPass::default(), 0);
    loop {
        let step = store.reseal(&mut pass).await.unwrap();
        resealed += step.resealed;
        if step.done {
            return resealed;
        }
    }
}

async fn settled(store: &Store) {
    while !store.is_settled() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_sealed_again_says_the_same_and_needs_the_old_key_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let old = KeyRing::generate(&SystemEntropy).unwrap();
    let store = open(directory.path(), &old).unwrap();
    for n in 0..600 {
        put(&store, &format!("{n:04}"), &format!("value {n}")).await;
    }
    store.audit_sink().append(refusal(&store, "Read")).await.unwrap();
    let rows = store.all(NOTES, &()).await.unwrap();
    let records = store.audit_page(0, 1000).await.unwrap();
    let mut ring = old.clone();
    ring.rotate(&SystemEntropy).unwrap();
    store.renew_ring(ring.clone());
    settled(&store).await;
    assert_eq!((store.seals(), store.data_keys()), (0, vec![1, 2]));
    assert_eq!(reseal(&store).await, 600 + 601);
    assert_eq!(reseal(&store).await, 0, "nothing is left");
    assert!(store.seals() >= 1201);
    let counts = StoreReader::key_counts(directory.path()).unwrap();
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!((counts[&2].rows, counts[&2].records), (600, 601));
    ring.retire_old_keys();
    store.renew_ring(ring.clone());

    let again = store.all(NOTES, &()).await.unwrap();
    let told = |rows: &[arcadia_store::Row<Note>]| {
        rows.iter().map(|row| (row.value.text.clone(), row.revision)).collect::<Vec<_>>()
    };
    assert_eq!(told(&rows), told(&again), "values and revisions");
    let text = |records: &[(u64, arcadia_kernel::AuditEvent)]| serde_json::to_string(records).unwrap();
    assert_eq!(text(&store.audit_page(0, 1000).await.unwrap()), text(&records));
    assert_eq!(store.audit_verify().await.unwrap(), AuditCheck { records: 601, first_broken: None });
    let counted = store.seals();
    drop(store);
    assert!(matches!(open(directory.path(), &old), Err(StoreError::WrongKey)));
    let store = open(directory.path(), &ring).unwrap();
    assert_eq!(store.get(NOTES, "0042").await.unwrap().unwrap().value, note("value 42"));
    assert!(store.seals() >= counted, "the count survives");
    put(&store, "0042", "and on").await;
}

/// Whoever stops half-way goes on later: both keys are needed until then.
#[tokio::test]
async fn half_a_pass_is_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let mut ring = KeyRing::generate(&SystemEntropy).unwrap();
    let store = open(directory.path(), &ring).unwrap();
    for n in 0..600 {
        put(&store, &format!("{n:04}"), "x").await;
    }
    ring.rotate(&SystemEntropy).unwrap();
    store.renew_ring(ring.clone());
    let step = store.reseal(&mut ResealPass::default()).await.unwrap();
    assert!(step.resealed > 0 && !step.done);
    drop(store);
    let store = open(directory.path(), &ring).unwrap();
    assert_eq!(store.all(NOTES, &()).await.unwrap().len(), 600);
    assert_eq!(reseal(&store).await, 1200 - step.resealed);
    assert_eq!(store.audit_verify().await.unwrap(), AuditCheck { records: 600, first_broken: None });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_readers_notice_nothing() {
    const NUMBERS: Table<str, Note> = NOTES;
    let directory = tempfile::tempdir().unwrap();
    let mut ring = KeyRing::generate(&SystemEntropy).unwrap();
    let store = open(directory.path(), &ring).unwrap();
    let source = Arc::new(std::sync::Mutex::new(ring.clone()));
    let (go_on, written) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let mut writers = Vec::new();
    for writer in 0..4 {
        let (store, go_on, written) = (store.clone(), go_on.clone(), written.clone());
        writers.push(tokio::spawn(async move {
            let mut last = 0;
            while go_on.load(Ordering::Acquire) {
                last += 1;
                let key = format!("{writer}-{:03}", last % 100);
                put(&store, &key, &last.to_string()).await;
                let read = store.get(NUMBERS, &key[..]).await.unwrap().unwrap();
                assert_eq!(read.value.text, last.to_string());
                written.fetch_add(1, Ordering::AcqRel);
            }
            last
        }));
    }
    let following = source.clone();
    let reader = StoreReader::open_unchecked(directory.path(), ring.clone(), Arc::new(SystemEntropy));
    let reader = reader.unwrap().following(move || Some(following.lock().unwrap().clone()));
    for _ in 0..5 {
        let before = written.load(Ordering::Acquire);
        while written.load(Ordering::Acquire) < before + 40 {
            tokio::task::yield_now().await;
        }
        ring.rotate(&SystemEntropy).unwrap();
        *source.lock().unwrap() = ring.clone();
        store.renew_ring(ring.clone());
        settled(&store).await;
        reseal(&store).await;
        assert_eq!(StoreReader::key_counts(directory.path()).unwrap().len(), 1, "all under the new key");
        ring.retire_old_keys();
        *source.lock().unwrap() = ring.clone();
        store.renew_ring(ring.clone());
        reader.check_rows().unwrap();
        assert_eq!(reader.audit_verify().unwrap().first_broken, None);
    }
    go_on.store(false, Ordering::Release);
    let mut total = 0;
    for writer in writers {
        total += writer.await.unwrap();
    }
    store.check().unwrap();
    let check = store.audit_verify().await.unwrap();
    assert_eq!(check, AuditCheck { records: total, first_broken: None });
    drop(store);
    let store = open(directory.path(), &ring).unwrap();
    assert!(store.all(NOTES, &()).await.unwrap().len() >= 100);
}
