//! Many who want to change the same row at the same time.

use std::time::Duration;

use arcadia_store::{Batch, CommitError, Store};
use futures_util::future::join_all;

use crate::support::{NOTES, in_memory, note, open, stamp};

/// More than anybody may try again.
const MANY: usize = 100;

async fn count(store: &Store) -> Result<(), CommitError> {
    let stamp = stamp(store);
    let mut attempts = store.attempts();
    loop {
        let row = store.get(NOTES, "count").await?.unwrap();
        let next = row.value.text.parse::<usize>().unwrap() + 1;
        let mut batch = Batch::new();
        batch.require_revision(NOTES, "count", row.revision);
        batch.put(NOTES, "count", &note(&next.to_string()))?;
        if attempts.commit(&stamp, batch).await?.is_some() {
            return Ok(());
        }
    }
}

async fn start(store: &Store) {
    let mut batch = Batch::new();
    batch.put(NOTES, "count", &note("0")).unwrap();
    store.commit(&stamp(store), batch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_change_one_row_all_do_so_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    for store in [in_memory(), open(directory.path())] {
        start(&store).await;
        let tasks: Vec<_> = (0..MANY)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { count(&store).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(store.get(NOTES, "count").await.unwrap().unwrap().value, note(&MANY.to_string()));
    }
}

/// What never holds ends, and leaves the turn to others.
#[tokio::test]
async fn a_change_that_never_fits_is_given_up() {
    let store = in_memory();
    start(&store).await;
    let hopeless = async || {
        let stamp = stamp(&store);
        let mut attempts = store.attempts();
        loop {
            let mut batch = Batch::new();
            batch.require_absent(NOTES, "count");
            if attempts.commit(&stamp, batch).await?.is_some() {
                return Ok::<_, CommitError>(());
            }
        }
    };
    let ended = join_all([hopeless(), hopeless(), hopeless()]).await;
    assert!(ended.iter().all(|end| matches!(end, Err(CommitError::Conflict))), "{ended:?}");
    // One of these two loses, and is given the turn.
    let counted = join_all([count(&store), count(&store)]).await;
    assert!(counted.iter().all(Result::is_ok), "{counted:?}");
}

/// Who holds the turn for too long holds up nobody for ever.
#[tokio::test(start_paused = true)]
async fn the_turn_is_not_waited_for_for_ever() {
    let store = in_memory();
    start(&store).await;
    let lose = async |attempts: &mut arcadia_store::Attempts<'_>| {
        let mut batch = Batch::new();
        batch.require_absent(NOTES, "count");
        assert!(attempts.commit(&stamp(&store), batch).await.unwrap().is_none());
    };
    let mut holder = store.attempts();
    lose(&mut holder).await;
    let began = tokio::time::Instant::now();
    let mut other = store.attempts();
    lose(&mut other).await;
    assert!(began.elapsed() >= Duration::from_secs(5));
    drop(holder);
    let began = tokio::time::Instant::now();
    lose(&mut store.attempts()).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}
