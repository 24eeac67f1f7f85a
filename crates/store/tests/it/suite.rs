//! What every backend must do. A new backend passes all of it.

use std::future::Future;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arcadia_store::{
    Announce, AuditDraft, Backend, CommitError, MemoryBackend, PAGE_BYTES_MAX, RawBatch, RawRow, Requirement,
    Reseal, Revision, RowMark, SqliteBackend, SqliteOptions, StoreError, VALUE_BYTES_MAX, Watch,
};

use crate::support::{self, draft, plain};

type Shared = Arc<dyn Backend>;

fn put(key: &[u8], value: &[u8]) -> RawBatch {
    RawBatch { put: vec![(key.to_vec(), value.to_vec())], ..RawBatch::default() }
}

fn delete(key: &[u8]) -> RawBatch {
    RawBatch { delete: vec![key.to_vec()], ..RawBatch::default() }
}

fn row(key: &[u8], revision: u64, value: &[u8]) -> RawRow {
    RawRow { key: key.to_vec(), revision: Revision(revision), value: value.to_vec() }
}

fn is_conflict(result: &Result<Revision, CommitError>) -> bool {
    matches!(result, Err(CommitError::Conflict))
}

async fn keys(backend: &Shared, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> (Vec<Vec<u8>>, bool) {
    let page = backend.range(prefix, after, limit).await.unwrap();
    (page.rows.into_iter().map(|row| row.key).collect(), page.more)
}

async fn what_is_put_is_read(backend: Shared) {
    assert_eq!(backend.get(b"t\0a").await.unwrap(), None);
    assert_eq!(backend.commit(put(b"t\0a", b"1")).await.unwrap(), Revision(1));
    assert_eq!(backend.get(b"t\0a").await.unwrap(), Some(row(b"t\0a", 1, b"1").into()));
    assert_eq!(backend.commit(put(b"t\0a", b"2")).await.unwrap(), Revision(2));
    assert_eq!(backend.get(b"t\0a").await.unwrap(), Some(row(b"t\0a", 2, b"2").into()));
    assert_eq!(backend.commit(delete(b"t\0a")).await.unwrap(), Revision(3));
    assert_eq!(backend.get(b"t\0a").await.unwrap(), None);
    backend.commit(delete(b"t\0a")).await.unwrap();
    assert_eq!(backend.get(b"t\0").await.unwrap(), None);
}

async fn keys_and_values_are_any_bytes(backend: Shared) {
    let large = vec![0xA5; VALUE_BYTES_MAX + 64];
    let long_key = vec![0xFF; arcadia_store::KEY_BYTES_MAX];
    for (key, value) in [
        (&b"t\0"[..], &b""[..]),
        (b"t\0\0", b"\0"),
        (b"t\0\xFF\xFF", b"\xFF"),
        (b"t\0'; DROP TABLE rows; --", b"x"),
        (&long_key, b"long"),
        (b"t\0large", &large),
    ] {
        let revision = backend.commit(put(key, value)).await.unwrap();
        assert_eq!(backend.get(key).await.unwrap(), Some(row(key, revision.0, value).into()));
    }
}

async fn rows_are_found_by_a_part_of_their_key(backend: Shared) {
    let rows: [(&[u8], bool); 6] = [
        (b"t\0a\0\x01p\0z", true),
        (b"t\0b\0\x01p", true),
        (b"t\0c\0\x01q", false),
        (b"t\0d\0p", false),
        (b"t\0e\0\x01p\0\x01p", true),
        (b"u\0e\0\x01p", false),
    ];
    for (key, _) in rows {
        backend.commit(put(key, b"v")).await.unwrap();
    }
    let expected: Vec<_> = rows.iter().filter(|(_, has)| *has).map(|(key, _)| key.to_vec()).collect();
    for limit in [1, 2, 9] {
        let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let page = backend.range_with(b"t\0", b"\0\x01p", after.as_deref(), limit).await.unwrap();
            assert!(page.rows.len() <= limit && page.rows.iter().all(|row| row.value == b"v"));
            found.extend(page.rows.into_iter().map(|row| row.key));
            after = found.last().map(|key| key[2..].to_vec());
            if !page.more {
                break;
            }
        }
        assert_eq!(found, expected, "{limit} at a time");
    }
    assert!(backend.range_with(b"t\0", b"none", None, 1).await.unwrap().rows.is_empty());
}

async fn a_batch_is_all_or_nothing(backend: Shared) {
    backend.commit(put(b"t\0a", b"1")).await.unwrap();
    let wrong = [
        Requirement::Absent(b"t\0a".to_vec()),
        Requirement::Revision(b"t\0a".to_vec(), Revision(7)),
        Requirement::Revision(b"t\0none".to_vec(), Revision(1)),
        Requirement::Revision(b"t\0none".to_vec(), Revision(0)),
    ];
    for requirement in wrong {
        let batch = RawBatch {
            require: vec![Requirement::Absent(b"t\0b".to_vec()), requirement.clone()],
            put: vec![(b"t\0b".to_vec(), b"x".to_vec())],
            delete: vec![b"t\0a".to_vec()],
            audit: vec![draft("x")],
            ..RawBatch::default()
        };
        assert!(is_conflict(&backend.commit(batch).await), "{requirement:?}");
    }
    assert_eq!(keys(&backend, b"t\0", None, 9).await, (vec![b"t\0a".to_vec()], false));
    assert_eq!(backend.audit(0, 9).await.unwrap(), []);
    let batch = RawBatch {
        require: vec![
            Requirement::Absent(b"t\0b".to_vec()),
            Requirement::Revision(b"t\0a".to_vec(), Revision(1)),
        ],
        put: vec![(b"t\0b".to_vec(), b"x".to_vec())],
        delete: vec![b"t\0a".to_vec()],
        audit: vec![draft("x")],
        ..RawBatch::default()
    };
    assert_eq!(backend.commit(batch).await.unwrap(), Revision(2));
    assert_eq!(keys(&backend, b"t\0", None, 9).await, (vec![b"t\0b".to_vec()], false));
    assert_eq!(backend.audit(0, 9).await.unwrap().len(), 1);
}

async fn a_range_is_ordered_bounded_and_exact(backend: Shared) {
    let inside: Vec<Vec<u8>> =
        [&b"t\0"[..], b"t\0\0", b"t\0a", b"t\0a\0", b"t\0a\xFF", b"t\0b", b"t\0\xFF\xFF"]
            .map(Vec::from)
            .into();
    let outside = [&b"s\0z"[..], b"t", b"t\x01", b"ta\0", b"u\0"];
    for key in inside.iter().map(Vec::as_slice).chain(outside).rev().collect::<Vec<_>>() {
        backend.commit(put(key, key)).await.unwrap();
    }
    assert_eq!(keys(&backend, b"t\0", None, 99).await, (inside.clone(), false));
    assert_eq!(keys(&backend, b"t\0", None, 7).await, (inside.clone(), false));
    assert_eq!(keys(&backend, b"t\0", None, 6).await, (inside[..6].to_vec(), true));
    assert_eq!(keys(&backend, b"t\0a", None, 99).await, (inside[2..5].to_vec(), false));
    assert_eq!(keys(&backend, b"t\0", Some(b"a"), 2).await, (inside[3..5].to_vec(), true));
    assert_eq!(keys(&backend, b"t\0", Some(b""), 99).await, (inside[1..].to_vec(), false));
    assert_eq!(keys(&backend, b"t\0", Some(b"aa"), 99).await, (inside[4..].to_vec(), false));
    assert_eq!(keys(&backend, b"t\0", Some(b"\xFF\xFF\xFF"), 99).await, (vec![], false));
    assert_eq!(keys(&backend, b"nothing\0", None, 99).await, (vec![], false));
    let mut walked = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let (page, more) = keys(&backend, b"t\0", after.as_deref(), 1).await;
        walked.extend(page);
        if !more {
            break;
        }
        after = walked.last().map(|key| key[2..].to_vec());
    }
    assert_eq!(walked, inside);
}

async fn a_page_has_a_largest_size(backend: Shared) {
    let value = vec![1; VALUE_BYTES_MAX];
    for key in [b"t\0a", b"t\0b", b"t\0c"] {
        backend.commit(put(key, &value)).await.unwrap();
    }
    assert_eq!(PAGE_BYTES_MAX, 2 * VALUE_BYTES_MAX, "the numbers below rely on it");
    let (page, more) = keys(&backend, b"t\0", None, 9).await;
    assert_eq!((page.len(), more), (2, true));
    let (page, more) = keys(&backend, b"t\0", Some(b"b"), 9).await;
    assert_eq!((page.len(), more), (1, false));
}

async fn many_are_read_in_the_order_asked(backend: Shared) {
    backend.commit(put(b"t\0a", b"1")).await.unwrap();
    backend.commit(put(b"t\0b", b"2")).await.unwrap();
    let asked = [&b"t\0b"[..], b"t\0none", b"t\0a", b"t\0b"].map(Vec::from);
    let found = backend.get_many(&asked).await.unwrap();
    let b = Some(row(b"t\0b", 2, b"2"));
    assert_eq!(found, [b.clone(), None, Some(row(b"t\0a", 1, b"1")), b]);
    assert_eq!(backend.get_many(&[]).await.unwrap(), []);
}

/// Many at once increment one counter, retrying on conflict: none is lost, and conflicts fail only themselves.
async fn concurrent_commits_are_serial(backend: Shared) {
    const TASKS: u64 = 16;
    const ROUNDS: u64 = 20;
    backend.commit(put(b"t\0counter", &0_u64.to_be_bytes())).await.unwrap();
    let conflicts = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let (backend, conflicts) = (backend.clone(), conflicts.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                loop {
                    let found = backend.get(b"t\0counter").await.unwrap().unwrap();
                    let count = u64::from_be_bytes(found.value.clone().try_into().unwrap());
                    // Lets others in between, or a fast backend never shows a conflict.
                    tokio::task::yield_now().await;
                    let batch = RawBatch {
                        require: vec![Requirement::Revision(found.key.clone(), found.revision)],
                        put: vec![
                            (found.key.clone(), (count + 1).to_be_bytes().to_vec()),
                            (format!("t\0task {task} {round}").into_bytes(), vec![]),
                        ],
                        audit: vec![draft("counted")],
                        ..RawBatch::default()
                    };
                    match backend.commit(batch).await {
                        Ok(_) => break,
                        Err(CommitError::Conflict) => conflicts.fetch_add(1, Ordering::Relaxed),
                        Err(error) => panic!("{error}"),
                    };
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let counter = backend.get(b"t\0counter").await.unwrap().unwrap();
    assert_eq!(counter.value, (TASKS * ROUNDS).to_be_bytes());
    assert_eq!(counter.revision, Revision(TASKS * ROUNDS + 1), "conflicts take no revision");
    assert_eq!(keys(&backend, b"t\0task", None, 999).await.0.len() as u64, TASKS * ROUNDS);
    let audit = backend.audit(0, 9999).await.unwrap();
    assert!(audit.iter().map(|row| row.sequence).eq(1..=TASKS * ROUNDS), "one record each, without gaps");
    assert!(conflicts.load(Ordering::Relaxed) > 0, "they never met, so nothing was shown");
}

async fn only_one_of_many_creates_a_row(backend: Shared) {
    let create = |n: u8| {
        let require = vec![Requirement::Absent(b"t\0only".to_vec())];
        let batch = RawBatch { require, ..put(b"t\0only", &[n]) };
        let backend = backend.clone();
        tokio::spawn(async move { backend.commit(batch).await })
    };
    let tasks: Vec<_> = (0..32).map(create).collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => created += 1,
            Err(error) => assert!(matches!(error, CommitError::Conflict), "{error}"),
        }
    }
    assert_eq!(created, 1);
}

async fn audit_records_are_chained_in_commit_order(backend: Shared) {
    assert_eq!(backend.audit_head().await.unwrap(), None);
    let batch = RawBatch { audit: vec![draft("a"), draft("b")], ..put(b"t\0a", b"1") };
    assert_eq!(backend.commit(batch).await.unwrap(), Revision(1));
    let alone = RawBatch { audit: vec![draft("c")], ..RawBatch::default() };
    assert_eq!(backend.commit(alone).await.unwrap(), Revision(1), "a record alone changes no row");
    let all = backend.audit(0, 9).await.unwrap();
    let seen: Vec<_> = all.iter().map(|row| (row.sequence, row.records.as_slice())).collect();
    assert_eq!(seen, [(1, &b"a"[..]), (2, b"b"), (3, b"c")]);
    assert_eq!(backend.audit(1, 1).await.unwrap(), all[1..2]);
    assert_eq!(backend.audit(3, 9).await.unwrap(), []);
    assert_eq!(backend.audit(u64::MAX, 9).await.unwrap(), []);
    assert_eq!(backend.audit_head().await.unwrap().unwrap(), 3_u64.to_be_bytes());
    assert_eq!(backend.health().await.unwrap().audit_records, 3);
}

async fn a_page_of_the_audit_log_has_a_largest_size(backend: Shared) {
    let long = "x".repeat(PAGE_BYTES_MAX / 2);
    for _ in 0..3 {
        backend.commit(RawBatch { audit: vec![draft(&long)], ..RawBatch::default() }).await.unwrap();
    }
    assert_eq!(backend.audit(0, 9).await.unwrap().len(), 2);
    assert_eq!(backend.audit(2, 9).await.unwrap().len(), 1);
}

async fn a_draft_that_fails_refuses_its_batch(backend: Shared) {
    let failing: AuditDraft = Box::new(|_, _| Err(StoreError::WrongKey));
    let batch = RawBatch { audit: vec![draft("a"), failing], ..put(b"t\0a", b"1") };
    let refused = backend.commit(batch).await;
    assert!(matches!(refused, Err(CommitError::Store(StoreError::WrongKey))), "{refused:?}");
    assert_eq!(backend.get(b"t\0a").await.unwrap(), None);
    assert_eq!(backend.audit(0, 9).await.unwrap(), []);
    backend.commit(RawBatch { audit: vec![draft("b")], ..put(b"t\0a", b"1") }).await.unwrap();
    assert_eq!(backend.audit(0, 9).await.unwrap()[0].sequence, 1);
}

/// Watches one key and notes what it is told.
struct Teller {
    key: Vec<u8>,
    fails: bool,
    announce: Arc<dyn Fn(Option<Vec<u8>>) + Send + Sync>,
}

impl Watch for Teller {
    fn keys(&self) -> Vec<&[u8]> {
        vec![&self.key]
    }

    fn prepare(&self, mut before: Vec<Option<Vec<u8>>>) -> Result<Announce, StoreError> {
        if self.fails {
            return Err(StoreError::WrongKey);
        }
        let (before, announce) = (before.remove(0), self.announce.clone());
        Ok(Box::new(move || announce(before)))
    }
}

fn watched(batch: RawBatch, announce: impl Fn(Option<Vec<u8>>) + Send + Sync + 'static) -> RawBatch {
    let key = batch.put.first().map_or_else(|| batch.delete[0].clone(), |(key, _)| key.clone());
    let watch = Teller { key, fails: false, announce: Arc::new(announce) };
    RawBatch { watch: Some(Box::new(watch)), ..batch }
}

async fn announcements_come_before_the_answer_and_in_order(backend: Shared) {
    let told: Arc<Mutex<Vec<Option<Vec<u8>>>>> = Arc::default();
    let mut expected = vec![None];
    for n in 0..10_u8 {
        let told_here = told.clone();
        let batch = watched(put(b"t\0a", &[n]), move |before| told_here.lock().unwrap().push(before));
        backend.commit(batch).await.unwrap();
        assert_eq!(*told.lock().unwrap(), expected);
        expected.push(Some(vec![n]));
    }
    // At once: each is told the value that the one before it wrote.
    let values: Arc<Mutex<Vec<(Option<Vec<u8>>, u8)>>> = Arc::default();
    let mut tasks = Vec::new();
    for n in 100..164_u8 {
        let values = values.clone();
        let batch = watched(put(b"t\0a", &[n]), move |before| values.lock().unwrap().push((before, n)));
        let backend = backend.clone();
        tasks.push(tokio::spawn(async move { backend.commit(batch).await.unwrap() }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let values = values.lock().unwrap();
    assert_eq!(values.len(), 64);
    for pair in values.windows(2) {
        assert_eq!(pair[1].0.as_deref(), Some(&[pair[0].1][..]));
    }
}

async fn a_refused_batch_is_not_announced(backend: Shared) {
    let told = Arc::new(AtomicU64::new(0));
    let tell = |batch: RawBatch| {
        let told = told.clone();
        watched(batch, move |_| {
            told.fetch_add(1, Ordering::SeqCst);
        })
    };
    backend.commit(tell(put(b"t\0a", b"1"))).await.unwrap();
    let conflict = RawBatch { require: vec![Requirement::Absent(b"t\0a".to_vec())], ..put(b"t\0a", b"2") };
    assert!(is_conflict(&backend.commit(tell(conflict)).await));
    let failing = Teller { key: b"t\0a".to_vec(), fails: true, announce: Arc::new(|_| ()) };
    let batch = RawBatch { watch: Some(Box::new(failing)), ..put(b"t\0a", b"3") };
    assert!(matches!(backend.commit(batch).await, Err(CommitError::Store(StoreError::WrongKey))));
    assert_eq!(told.load(Ordering::SeqCst), 1);
    assert_eq!(backend.get(b"t\0a").await.unwrap().unwrap().value, b"1");
}

/// What is in memory is no longer what is on disk, so nothing more may be decided on it.
async fn an_observer_that_panics_stops_the_store(backend: Shared) {
    let batch = watched(put(b"t\0a", b"1"), |_| panic!("this test panics here on purpose"));
    let stopped = |result| matches!(result, Err(CommitError::Store(StoreError::ObserverFailed)));
    assert!(stopped(backend.commit(batch).await));
    assert!(stopped(backend.commit(put(b"t\0b", b"1")).await));
    assert_eq!(backend.get(b"t\0b").await.unwrap(), None);
    assert!(backend.health().await.unwrap().last_failure.unwrap().contains("observer"));
}

async fn an_exclusive_job_never_meets_a_commit(backend: Shared) {
    /// Marks the time from `keys` to the announcement.
    struct Marker(Arc<AtomicBool>);
    impl Watch for Marker {
        fn keys(&self) -> Vec<&[u8]> {
            self.0.store(true, Ordering::SeqCst);
            std::thread::yield_now();
            Vec::new()
        }
        fn prepare(&self, _: Vec<Option<Vec<u8>>>) -> Result<Announce, StoreError> {
            let busy = self.0.clone();
            Ok(Box::new(move || busy.store(false, Ordering::SeqCst)))
        }
    }
    let busy = Arc::new(AtomicBool::new(false));
    let (writing, marked) = (backend.clone(), busy.clone());
    let commits = tokio::spawn(async move {
        for n in 0..200_u64 {
            let watch = Some(Box::new(Marker(marked.clone())) as Box<dyn Watch>);
            writing.commit(RawBatch { watch, ..put(b"t\0a", &n.to_be_bytes()) }).await.unwrap();
        }
    });
    let mut ran = 0;
    while !commits.is_finished() {
        backend.exclusively(&mut || {
            assert!(!busy.load(Ordering::SeqCst), "a commit was under way");
            ran += 1;
        });
        tokio::task::yield_now().await;
    }
    commits.await.unwrap();
    assert!(ran > 0);
}

/// A draft that notes what it is told of rows.
fn noting(noted: &Arc<Mutex<Vec<(String, Option<RowMark>, Option<RowMark>)>>>) -> AuditDraft {
    let (noted, draft) = (noted.clone(), draft("x"));
    Box::new(move |head, changes| {
        let mut noted = noted.lock().unwrap();
        noted.clear();
        for change in changes {
            noted.push((String::from_utf8_lossy(change.key).into_owned(), change.before, change.after));
        }
        draft(head, changes)
    })
}

async fn a_draft_is_told_what_becomes_of_rows(backend: Shared) {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let mark = |revision, value: &[u8]| Some(RowMark::of(Revision(revision), value));
    let long = [7; 40];
    let batch = RawBatch { audit: vec![noting(&noted), draft("y")], ..put(b"t\0a", &long) };
    backend.commit(batch).await.unwrap();
    assert_eq!(*noted.lock().unwrap(), [("t\0a".to_owned(), None, mark(1, &[7; 16]))]);
    let batch = RawBatch {
        put: vec![(b"t\0a".to_vec(), b"2".to_vec())],
        delete: vec![b"t\0none".to_vec()],
        audit: vec![noting(&noted)],
        ..RawBatch::default()
    };
    backend.commit(batch).await.unwrap();
    let expected = [("t\0a".to_owned(), mark(1, &long), mark(2, b"2")), ("t\0none".to_owned(), None, None)];
    assert_eq!(*noted.lock().unwrap(), expected);
    let batch = RawBatch { audit: vec![noting(&noted)], ..delete(b"t\0a") };
    backend.commit(batch).await.unwrap();
    assert_eq!(*noted.lock().unwrap(), [("t\0a".to_owned(), mark(2, b"2"), None)]);
}

async fn a_new_seal_is_no_change(backend: Shared) {
    for key in [b"t\0a", b"t\0b"] {
        backend.commit(RawBatch { audit: vec![draft("old")], ..put(key, b"old") }).await.unwrap();
    }
    backend.commit(put(b"t\0b", b"changed")).await.unwrap();
    let noted = Arc::new(Mutex::new(Vec::new()));
    let same = |key: &[u8], revision| Reseal::Row(row(key, revision, b"new"));
    let reseal = vec![
        same(b"t\0a", 1),
        same(b"t\0b", 2),
        same(b"t\0gone", 1),
        Reseal::Records(2, b"new".to_vec()),
        Reseal::Records(9, b"new".to_vec()),
    ];
    let draft: AuditDraft = {
        let note = noting(&noted);
        Box::new(move |head, changes| {
            note(head, changes)?;
            Ok(Arc::new(plain(head)))
        })
    };
    let revision = backend.commit(RawBatch { reseal, audit: vec![draft], ..RawBatch::default() }).await;
    assert_eq!(revision.unwrap(), Revision(3), "no revision of its own");
    let expected =
        ("t\0a".to_owned(), Some(RowMark::of(Revision(1), b"old")), Some(RowMark::of(Revision(1), b"new")));
    assert_eq!(*noted.lock().unwrap(), [expected], "only what was sealed anew");
    let page = backend.walk(None, 9).await.unwrap();
    assert_eq!(page.rows, [row(b"t\0a", 1, b"new"), row(b"t\0b", 3, b"changed")]);
    let records: Vec<_> = backend.audit(0, 9).await.unwrap().into_iter().map(|row| row.records).collect();
    assert_eq!(records, [b"old", b"new"]);
}

async fn a_walk_meets_every_row_of_every_table(backend: Shared) {
    for key in [&b"a\0x"[..], b"b\0", b"b\0y", b"\xff\xff"] {
        backend.commit(put(key, key)).await.unwrap();
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = backend.walk(after.as_deref(), 1).await.unwrap();
        seen.extend(page.rows.iter().map(|row| row.key.clone()));
        after = page.rows.last().map(|row| row.key.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, [&b"a\0x"[..], b"b\0", b"b\0y", b"\xff\xff"]);
    let mut marks = Vec::new();
    let mut take = |key: &[u8], mark| {
        marks.push((key.to_vec(), mark));
        ControlFlow::Continue(())
    };
    assert_eq!(backend.marks(&mut take).unwrap(), None);
    let stopped = backend.marks(&mut |_, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(StoreError::Closed)), "{stopped:?}");
    let expected: Vec<_> =
        seen.iter().zip(1..).map(|(key, n)| (key.clone(), RowMark::of(Revision(n), key))).collect();
    assert_eq!(marks, expected);
}

async fn health_says_how_it_is(backend: Shared) {
    backend.commit(put(b"t\0a", b"1")).await.unwrap();
    let health = backend.health().await.unwrap();
    assert_eq!(health.revision, Revision(1));
    assert_eq!(health.created_epoch_seconds, support::NOW);
    assert_eq!(health.last_failure, None);
    assert!(health.size_bytes > 0);
}

async fn on_memory<F: Future<Output = ()>>(check: impl FnOnce(Shared) -> F) {
    check(Arc::new(MemoryBackend::new(support::NOW))).await;
}

async fn on_sqlite<F: Future<Output = ()>>(check: impl FnOnce(Shared) -> F) {
    let directory = tempfile::tempdir().unwrap();
    check(Arc::new(support::sqlite(directory.path()))).await;
}

/// Reads from the file each time.
async fn on_file<F: Future<Output = ()>>(check: impl FnOnce(Shared) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { cached_bytes_max: 0, ..SqliteOptions::default() };
    check(Arc::new(SqliteBackend::open(directory.path(), &options, support::NOW).unwrap())).await;
}

macro_rules! on_every_backend {
    ($($check:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() { super::on_memory(super::$check).await; })+
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() { super::on_sqlite(super::$check).await; })+
        }
        mod file {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() { super::on_file(super::$check).await; })+
        }
    };
}

on_every_backend!(
    what_is_put_is_read,
    keys_and_values_are_any_bytes,
    rows_are_found_by_a_part_of_their_key,
    a_batch_is_all_or_nothing,
    a_range_is_ordered_bounded_and_exact,
    a_page_has_a_largest_size,
    many_are_read_in_the_order_asked,
    concurrent_commits_are_serial,
    only_one_of_many_creates_a_row,
    audit_records_are_chained_in_commit_order,
    a_page_of_the_audit_log_has_a_largest_size,
    a_draft_that_fails_refuses_its_batch,
    announcements_come_before_the_answer_and_in_order,
    a_refused_batch_is_not_announced,
    an_observer_that_panics_stops_the_store,
    an_exclusive_job_never_meets_a_commit,
    a_draft_is_told_what_becomes_of_rows,
    a_new_seal_is_no_change,
    a_walk_meets_every_row_of_every_table,
    health_says_how_it_is,
);
