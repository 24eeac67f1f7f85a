//! Typed tables, commits with their records, observers.

use std::sync::{Arc, Mutex};

use arcadia_kernel::{ArmId, Continuation, Outcome};
use arcadia_store::{AuditCheck, Batch, CommitError, Record, Revision, Store, StoreError, Table};
use serde_json::Value;

use crate::support::{NOTES, Note, in_memory, note, open, refusal, stamp};

async fn put(store: &Store, key: &str, text: &str) -> Revision {
    let mut batch = Batch::new();
    batch.put(NOTES, key, &note(text)).unwrap();
    store.commit(&stamp(store), batch).await.unwrap()
}

async fn rows_records_and_conditions(store: Store) {
    assert!(store.get(NOTES, "a").await.unwrap().is_none());
    let first = put(&store, "a", "one").await;
    let row = store.get(NOTES, "a").await.unwrap().unwrap();
    assert_eq!((row.value, row.revision), (note("one"), first));

    let mut batch = Batch::new();
    batch.require_revision(NOTES, "a", first);
    batch.put(NOTES, "a", &note("two")).unwrap();
    let second = store.commit(&stamp(&store), batch).await.unwrap();
    assert!(second > first);

    for stale in [
        |batch: &mut Batch, first| batch.require_revision(NOTES, "a", first),
        |batch: &mut Batch, _| batch.require_absent(NOTES, "a"),
    ] {
        let mut batch = Batch::new();
        stale(&mut batch, first);
        batch.delete(NOTES, "a");
        let refused = store.commit(&stamp(&store), batch).await;
        assert!(matches!(refused, Err(CommitError::Conflict)), "{refused:?}");
    }
    let mut batch = Batch::new();
    batch.put(NOTES, "b", &note("three")).unwrap();
    batch.delete(NOTES, "a");
    assert!(!batch.is_empty());
    store.commit(&stamp(&store), batch).await.unwrap();
    let found = store.get_many(NOTES, &["b", "a"]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().value, note("three"));
    assert!(found[1].is_none());

    let records = store.audit_page(0, 100).await.unwrap();
    assert_eq!(records.len(), 3, "one for each commit, none for a conflict");
    assert!(records.iter().all(|(_, event)| event.outcome == Outcome::Committed));
    assert_eq!(store.audit_verify().await.unwrap(), AuditCheck { records: 3, first_broken: None });
}

#[tokio::test]
async fn in_memory_rows_records_and_conditions() {
    rows_records_and_conditions(in_memory()).await;
}

#[tokio::test]
async fn on_disk_rows_records_and_conditions() {
    let directory = tempfile::tempdir().unwrap();
    rows_records_and_conditions(open(directory.path())).await;
}

#[tokio::test]
async fn pages_of_a_prefix_and_of_identifiers() {
    const RESOURCES: Table<ArmId, Note> = Table::new("resources");
    const ASSIGNMENTS: Table<(ArmId, String), Note> = Table::new("assignments");
    let id = |text: &str| ArmId::parse(text).unwrap();
    let store = in_memory();
    let mut batch = Batch::new();
    for text in ["/s/1/g/rg", "/s/1/g/rg/p/v", "/s/1/g/RG2", "/s/1/g/rg/p/w", "/s/2"] {
        batch.put(RESOURCES, &id(text), &note(text)).unwrap();
        batch.put(ASSIGNMENTS, &(id(text), "x".to_owned()), &note(text)).unwrap();
    }
    store.commit(&stamp(&store), batch).await.unwrap();
    let texts = |rows: Vec<arcadia_store::Row<Note>>| -> Vec<String> {
        rows.into_iter().map(|row| row.value.text).collect()
    };
    let below = ["/s/1/g/rg", "/s/1/g/rg/p/v", "/s/1/g/rg/p/w"];
    assert_eq!(texts(store.all(RESOURCES, &id("/S/1/G/Rg")).await.unwrap()), below);
    assert_eq!(texts(store.all(ASSIGNMENTS, &(id("/S/1/G/Rg"),)).await.unwrap()), below);
    assert_eq!(texts(store.all(ASSIGNMENTS, &(id("/S/1/G/Rg"), ())).await.unwrap()), below[..1]);
    assert_eq!(store.all(RESOURCES, &()).await.unwrap().len(), 5);
    let with = async |segment| texts(store.all_with_segment(RESOURCES, segment).await.unwrap());
    assert_eq!(with("RG").await, below);
    assert!(with("r").await.is_empty(), "no part of a segment");
    assert!(store.get(RESOURCES, &id("/S/1/g/rg2")).await.unwrap().is_some());

    let mut seen = Vec::new();
    let mut after: Option<Continuation> = None;
    loop {
        let page = store.range(RESOURCES, &id("/s/1"), after.as_ref(), 2).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(texts(page.items));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(seen, ["/s/1/g/rg", "/s/1/g/rg/p/v", "/s/1/g/rg/p/w", "/s/1/g/RG2"]);
    // A forged continuation positions within the range and nowhere else.
    let forged = Continuation(vec![0xFF; 9]);
    assert!(store.range(RESOURCES, &id("/s/1"), Some(&forged), 9).await.unwrap().items.is_empty());
}

type Told = Arc<Mutex<Vec<(Option<String>, Option<String>)>>>;

fn observed(store: &Store) -> Told {
    let told = Told::default();
    let telling = told.clone();
    store.observe(NOTES, move |changes| {
        let mut told = telling.lock().unwrap();
        for change in changes {
            assert!(change.key.starts_with(b"notes\0"));
            let text = |note: &Option<Note>| note.as_ref().map(|note| note.text.clone());
            told.push((text(&change.before), text(&change.after)));
        }
    });
    told
}

async fn observers_are_told(store: Store) {
    const OTHERS: Table<str, Note> = Table::new("others");
    put(&store, "a", "unseen").await;
    let told = observed(&store);
    let some = |text: &str| Some(text.to_owned());
    put(&store, "a", "two").await;
    assert_eq!(*told.lock().unwrap(), [(some("unseen"), some("two"))]);
    told.lock().unwrap().clear();

    let mut batch = Batch::new();
    batch.delete(NOTES, "a");
    batch.delete(NOTES, "never");
    batch.put(NOTES, "b", &note("new")).unwrap();
    batch.put(OTHERS, "b", &note("other table")).unwrap();
    store.commit(&stamp(&store), batch).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [(some("two"), None), (None, some("new"))]);
    told.lock().unwrap().clear();

    let mut batch = Batch::new();
    batch.require_absent(NOTES, "b");
    batch.put(NOTES, "b", &note("refused")).unwrap();
    assert!(store.commit(&stamp(&store), batch).await.is_err());
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn in_memory_observers_are_told() {
    observers_are_told(in_memory()).await;
}

#[tokio::test]
async fn on_disk_observers_are_told() {
    let directory = tempfile::tempdir().unwrap();
    observers_are_told(open(directory.path())).await;
}

/// A snapshot kept by an observer is the table, whatever the order of many commits at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_follows_its_table() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let snapshot: Arc<Mutex<std::collections::BTreeMap<Vec<u8>, String>>> = Arc::default();
    let kept = snapshot.clone();
    store.observe(NOTES, move |changes| {
        let mut kept = kept.lock().unwrap();
        for change in changes {
            let before = change.before.as_ref().map(|note| note.text.clone());
            assert_eq!(kept.get(&change.key).cloned(), before);
            match &change.after {
                Some(note) => drop(kept.insert(change.key.clone(), note.text.clone())),
                None => drop(kept.remove(&change.key)),
            }
        }
    });
    let mut tasks = Vec::new();
    for task in 0..8 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            for n in 0..25 {
                let mut batch = Batch::new();
                let key = format!("{}", (task + n) % 5);
                match n % 4 {
                    0 => batch.delete(NOTES, &key),
                    _ => batch.put(NOTES, &key, &note(&format!("{task} {n}"))).unwrap(),
                }
                store.commit(&stamp(&store), batch).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let rows = store.all(NOTES, &()).await.unwrap();
    let texts: Vec<String> = rows.into_iter().map(|row| row.value.text).collect();
    assert_eq!(snapshot.lock().unwrap().values().cloned().collect::<Vec<_>>(), texts);
    assert_eq!(store.audit_verify().await.unwrap(), AuditCheck { records: 200, first_broken: None });
}

#[tokio::test]
async fn refusals_are_recorded_without_a_change() {
    let store = in_memory();
    let sink = store.audit_sink();
    sink.append(refusal(&store, "SecretGet")).await.unwrap();
    put(&store, "a", "one").await;
    sink.append(refusal(&store, "SecretList")).await.unwrap();
    let names: Vec<_> = store.audit_page(0, 9).await.unwrap();
    let names: Vec<_> = names.iter().map(|(n, event)| (*n, event.operation.as_ref())).collect();
    assert_eq!(names, [(1, "SecretGet"), (2, "sweep"), (3, "SecretList")]);
    assert_eq!(store.audit_page(1, 1).await.unwrap()[0].0, 2);
    assert!(matches!(store.audit_page(0, 1).await.unwrap()[0].1.outcome, Outcome::Denied { .. }));

    let mut endless = refusal(&store, "x");
    endless.caller_name = "x".repeat(1 << 20);
    assert!(sink.append(endless).await.is_err());
}

#[tokio::test]
async fn an_old_record_is_read_by_a_newer_program() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Newer {
        words: Vec<String>,
    }
    impl Record for Newer {
        const SCHEMA: u32 = 2;
        fn upgrade(from: u32, value: Value) -> Result<Value, StoreError> {
            assert_eq!(from, 1);
            let text = value["text"].as_str().unwrap_or_default();
            Ok(serde_json::json!({ "words": text.split(' ').collect::<Vec<_>>() }))
        }
    }
    const NEWER: Table<str, Newer> = Table::new("notes");
    let store = in_memory();
    put(&store, "a", "two words").await;
    assert_eq!(store.get(NEWER, "a").await.unwrap().unwrap().value.words, ["two", "words"]);
    let mut batch = Batch::new();
    batch.put(NEWER, "a", &Newer { words: vec!["new".to_owned()] }).unwrap();
    store.commit(&stamp(&store), batch).await.unwrap();
    let refused = store.get(NOTES, "a").await.unwrap_err();
    assert!(refused.to_string().contains("schema 2"), "{refused}");
}

#[tokio::test]
async fn batches_and_reads_are_bounded() {
    let store = in_memory();
    let mut batch = Batch::new();
    (0..=arcadia_store::BATCH_ROWS_MAX).for_each(|n| batch.delete(NOTES, &n.to_string()));
    assert!(store.commit(&stamp(&store), batch).await.is_err());
    let mut batch = Batch::new();
    batch.require_absent(NOTES, &"k".repeat(arcadia_store::KEY_BYTES_MAX));
    assert!(store.commit(&stamp(&store), batch).await.is_err());
    let mut batch = Batch::new();
    let large = note(&"x".repeat(arcadia_store::VALUE_BYTES_MAX - 64));
    (0..5).for_each(|n| batch.put(NOTES, &n.to_string(), &large).unwrap());
    assert!(store.commit(&stamp(&store), batch).await.is_err());
    assert!(store.get_many(NOTES, &vec![String::new(); 20_000]).await.is_err());
    assert_eq!(store.audit_verify().await.unwrap().records, 0);
}
