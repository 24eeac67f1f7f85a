//! Files that a crash, a bad disk or a careless hand left incomplete: the store opens with everything that it
//! acknowledged, or it does not open. Never silently with less.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use arcadia_store::{Batch, Store, StoreError};

use crate::support::{FRAME_BYTES, LOG_HEADER_BYTES, NOTES, PAGE_BYTES, note, open, stamp, try_open, used};

const ROWS: usize = 40;
const FILES: [&str; 3] = ["store.db", "store.db-wal", "store.anchor"];

fn text(n: usize) -> String {
    format!("{n} {}", "x".repeat(n * 331 % 9000))
}

async fn put(store: &Store, n: usize) {
    let mut batch = Batch::new();
    batch.put(NOTES, &format!("{n:06}"), &note(&text(n))).unwrap();
    store.commit(&stamp(store), batch).await.unwrap();
}

/// Everything that was acknowledged, with its records.
async fn is_whole(store: &Store, rows: usize) -> bool {
    let found = store.all(NOTES, &()).await.unwrap();
    let check = store.audit_verify().await.unwrap();
    found.len() == rows
        && found.iter().enumerate().all(|(n, row)| row.value.text == text(n))
        && (check.records, check.first_broken) == (rows as u64, None)
}

/// A copy of a store's files as they are at this moment: what `kill -9` leaves.
fn left(of: &Path, name: &str) -> PathBuf {
    let copy = of.join(name);
    fs::create_dir_all(copy.join("site")).unwrap();
    for file in FILES.iter().map(|file| format!("site/{file}")).chain(["keys.json".to_owned()]) {
        if of.join(&file).exists() {
            fs::copy(of.join(&file), copy.join(&file)).unwrap();
        }
    }
    copy
}

fn cut(file: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

fn refusal(directory: &Path) -> String {
    match try_open(directory) {
        Err(error @ StoreError::Lost { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it opened"),
    }
}

#[tokio::test]
async fn a_log_that_was_cut_off_is_noticed_wherever_it_was_cut() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..ROWS {
        put(&store, n).await;
    }
    let end = used(&directory.path().join("site/store.db-wal"));
    let mut cuts = vec![0, 1, LOG_HEADER_BYTES - 1, LOG_HEADER_BYTES, end - 1, end - FRAME_BYTES];
    cuts.extend((0..30).map(|n| LOG_HEADER_BYTES + n * (end - LOG_HEADER_BYTES) / 30 + n % 7));
    for (at, bytes) in cuts.into_iter().enumerate() {
        let copy = left(directory.path(), &format!("cut-{at}"));
        let log = copy.join("site/store.db-wal");
        cut(&log, bytes);
        let told = refusal(&copy);
        // A new store has everything in its log, its very first tables too.
        let said = told.contains("write-ahead log") || told.contains("it is empty");
        assert!(said && told.contains("arcadia restore"), "{bytes}: {told}");
        // It is looked at, not mended: the next start says the same, and the log could still be put back.
        assert_eq!(log.metadata().unwrap().len(), bytes);
        refusal(&copy);
        fs::copy(directory.path().join("site/store.db-wal"), &log).unwrap();
        assert!(is_whole(&open(&copy), ROWS).await, "{bytes}");
        fs::remove_dir_all(copy).unwrap();
    }
    let copy = left(directory.path(), "whole");
    assert!(is_whole(&open(&copy), ROWS).await);
}

#[tokio::test]
async fn a_log_with_a_changed_byte_is_noticed_wherever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..ROWS {
        put(&store, n).await;
    }
    let end = used(&directory.path().join("site/store.db-wal"));
    for at in (0..30).map(|n| n * (end - 1) / 29) {
        let copy = left(directory.path(), &format!("byte-{at}"));
        let log = copy.join("site/store.db-wal");
        let file = OpenOptions::new().read(true).write(true).open(&log).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        refusal(&copy);
        fs::remove_dir_all(copy).unwrap();
    }
}

#[tokio::test]
async fn what_is_missing_can_be_given_up_knowingly() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..ROWS {
        put(&store, n).await;
    }
    let copy = left(directory.path(), "copy");
    let log = copy.join("site/store.db-wal");
    cut(&log, used(&log) - 1);
    let told = refusal(&copy);
    assert!(told.contains("store.anchor"), "{told}");
    fs::rename(copy.join("site/store.anchor"), copy.join("anchor")).unwrap();
    let store = open(&copy);
    assert!(is_whole(&store, ROWS - 1).await, "all but the last commit");
    put(&store, ROWS - 1).await;
    drop(store);
    assert!(is_whole(&open(&copy), ROWS).await, "and it is guarded again");
}

/// Started and killed again and again, with the log begun anew in between, a store is never taken for a cut one.
#[tokio::test]
async fn a_store_that_was_only_killed_opens() {
    let directory = tempfile::tempdir().unwrap();
    let mut home = directory.path().to_owned();
    drop(open(&home));
    let mut rows = 0;
    for round in 0..24 {
        let store = open(&home);
        // Some rounds fill the log so far that it is moved and begun anew.
        for _ in 0..if round % 8 == 7 { 600 } else { round % 4 } {
            put(&store, rows).await;
            rows += 1;
        }
        home = left(&home, "next");
        drop(store);
    }
    assert!(is_whole(&open(&home), rows).await);
}

#[tokio::test]
async fn a_store_that_was_closed_needs_no_log_and_is_not_put_back_unseen() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    let store = open(home);
    put(&store, 0).await;
    drop(store);
    let older = left(home, "older");
    assert_eq!(fs::metadata(home.join("site/store.db-wal")).map_or(0, |found| found.len()), 0);
    let _ = fs::remove_file(home.join("site/store.db-wal"));
    let store = open(home);
    assert!(is_whole(&store, 1).await);
    put(&store, 1).await;
    drop(store);
    fs::copy(older.join("site/store.db"), home.join("site/store.db")).unwrap();
    let told = refusal(home);
    assert!(told.contains("1 audit records where it had 2"), "{told}");
    fs::write(home.join("site/store.db"), "").unwrap();
    assert!(refusal(home).contains("it is empty"));
}

/// A store that was put back and went on from there has all that belongs together, and not what was acknowledged.
#[tokio::test]
async fn another_past_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    let store = open(home);
    put(&store, 0).await;
    drop(store);
    let other = left(home, "other");
    for (place, rows) in [(home, 2), (other.as_path(), 3)] {
        let store = open(place);
        for n in 1..rows {
            put(&store, n).await;
        }
        drop(store);
        assert!(is_whole(&open(place), rows).await);
    }
    let _ = fs::remove_file(home.join("site/store.db-wal"));
    fs::copy(other.join("site/store.db"), home.join("site/store.db")).unwrap();
    let told = refusal(home);
    assert!(told.contains("its audit record 2 is not the one that was written"), "{told}");
}

#[tokio::test]
async fn a_damaged_anchor_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    put(&store, 0).await;
    for content in ["{}", "nonsense", "                "] {
        let copy = left(directory.path(), "copy");
        fs::write(copy.join("site/store.anchor"), content).unwrap();
        assert!(refusal(&copy).contains("its anchor is damaged"));
    }
}

/// What the file lacks and the log has is recovered; what neither has is noticed.
#[tokio::test]
async fn a_torn_page_is_recovered_or_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..ROWS {
        put(&store, n).await;
    }
    let covered = left(directory.path(), "covered");
    drop(store);
    let closed = left(directory.path(), "closed");
    let pages = fs::metadata(closed.join("site/store.db")).unwrap().len() / PAGE_BYTES;
    // In the first copy all pages but the very first ones are in the log; the file is torn at its own end.
    let own = fs::metadata(covered.join("site/store.db")).unwrap().len();
    for torn in [512, 1024, 2048, 4095] {
        let copy = left(&covered, &format!("torn-{torn}"));
        let file = OpenOptions::new().write(true).open(copy.join("site/store.db")).unwrap();
        file.write_all_at(&vec![0; torn as usize], own - torn).unwrap();
        assert!(is_whole(&open(&copy), ROWS).await, "the log has the page");
    }
    let (mut refused, mut torn_ones) = (0, 0);
    for page in (1..pages).filter(|page| page % 3 == 0 || page + 1 == pages) {
        for (at, torn) in [512, 2048, 3584].into_iter().enumerate() {
            let copy = left(&closed, &format!("torn-{page}-{torn}"));
            let file = OpenOptions::new().write(true).open(copy.join("site/store.db")).unwrap();
            let zeros = vec![0; (PAGE_BYTES - torn) as usize];
            match at {
                // The last page cut off where it is torn, others with their second part never written.
                0 if page + 1 == pages => file.set_len(page * PAGE_BYTES + torn).unwrap(),
                _ => file.write_all_at(&zeros, page * PAGE_BYTES + torn).unwrap(),
            }
            drop(file);
            torn_ones += 1;
            match try_open(&copy) {
                Err(_) => refused += 1,
                Ok(store) => assert!(noticed_or_whole(&store).await, "page {page} torn at {torn}"),
            }
            fs::remove_dir_all(copy).unwrap();
        }
    }
    // The inside of a long value shows only when it is read.
    assert!(refused > torn_ones / 3, "{refused} of {torn_ones} were refused at the start");
}

/// A value does not open, a page does not read, the chain has a break; or the torn part held nothing.
async fn noticed_or_whole(store: &Store) -> bool {
    let Ok(rows) = store.all(NOTES, &()).await else { return true };
    assert_eq!(rows.len(), ROWS, "a row is gone and the store opened");
    assert!(rows.iter().enumerate().all(|(n, row)| row.value.text == text(n)), "a value is another");
    match store.audit_verify().await {
        Err(_) => true,
        Ok(check) => check.first_broken.is_some() || check.records == ROWS as u64,
    }
}
