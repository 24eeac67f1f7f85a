//! `kill -9` at any moment: what was acknowledged is there, with its record, and the chain is whole.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use arcadia_crypto::SystemEntropy;
use arcadia_kernel::Entropy as _;
use arcadia_store::{Batch, Store};

use crate::support::{NOTES, note, open, ring, stamp};

const ROUNDS: u64 = 20;
/// Set in the child to the directory it works in.
const DIRECTORY: &str = "ARCADIA_STORE_CRASH_DIRECTORY";
const WRITERS: usize = 8;

fn key(number: &str) -> String {
    format!("row {number}")
}

/// The child of the test below: writes numbered rows until it is killed, and prints each number once it is
/// acknowledged. It checks nothing by itself and does nothing when it is not told where to work.
#[test]
#[allow(clippy::disallowed_methods, reason = "a re-executed test binary is told its task in the environment")]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (directory, round) = directory.rsplit_once(':').unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(directory));
        let writers =
            (0..WRITERS).map(|writer| tokio::spawn(write_forever(store.clone(), round.to_owned(), writer)));
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

async fn write_forever(store: Store, round: String, writer: usize) {
    for n in 0_u64.. {
        let number = format!("{round}.{writer}.{n}");
        let mut batch = Batch::new();
        // Rows of several sizes, so that the kill also falls between the pages of one.
        let text = format!("{number} {}", "x".repeat((n as usize * 977) % 9000));
        batch.put(NOTES, &key(&number), &note(&text)).unwrap();
        if n > 3 {
            batch.delete(NOTES, &key(&format!("{round}.{writer}.{}", n - 3)));
        }
        let stamp = stamp(&store);
        store.commit(&stamp, batch).await.unwrap();
        // The test runner prints on the same output; a line of its own begins with a line break.
        let line = format!("\nack {number} {}\n", stamp.request_id());
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

/// A number and the id of the request that wrote it.
type Acknowledged = Vec<(String, String)>;

/// Every other round is killed some time after its first write, the rest some time after the start, which may
/// be while the log of the round before is being recovered.
fn run_and_kill(directory: &Path, round: u64) -> Acknowledged {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, format!("{}:{round}", directory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let (first, started) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut acknowledged = Vec::new();
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            // A line that the kill cut off lacks its last part or some of its characters.
            let parts: Vec<&str> = line.split(' ').collect();
            if let ["ack", number, request] = parts[..]
                && request.len() == 36
            {
                let _ = first.send(());
                acknowledged.push((number.to_owned(), request.to_owned()));
            }
        }
        acknowledged
    });
    if round.is_multiple_of(2) {
        started.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    let mut random = [0; 1];
    SystemEntropy.fill(&mut random);
    std::thread::sleep(Duration::from_millis(u64::from(random[0]) / 2));
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap()
}

/// Writer and count of a number.
fn parts(number: &str) -> (usize, usize) {
    let mut parts = number.split('.').skip(1).map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

fn check_rows(present: &BTreeSet<String>, acknowledged: &Acknowledged) {
    let mut last = [0; WRITERS];
    for (writer, n) in acknowledged.iter().map(|(number, _)| parts(number)) {
        last[writer] = last[writer].max(n);
    }
    for (number, _) in acknowledged {
        let (writer, n) = parts(number);
        // The third write after it deletes it, and one more than the last acknowledged may have been written.
        if n == 0 || n + 3 > last[writer] + 1 {
            assert!(present.contains(number), "{number} was acknowledged and is gone");
        } else if n + 3 <= last[writer] {
            assert!(!present.contains(number), "{number} was deleted and is back");
        }
    }
}

async fn check(directory: &Path, acknowledged: &Acknowledged) {
    let store = open(directory);
    let rows = store.all(NOTES, &()).await.unwrap();
    let present: BTreeSet<String> =
        rows.iter().map(|row| row.value.text.split(' ').next().unwrap_or_default().to_owned()).collect();
    check_rows(&present, acknowledged);
    let (mut requests, mut after) = (BTreeSet::new(), 0);
    loop {
        let page = store.audit_page(after, 1000).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = *last;
        requests.extend(page.into_iter().map(|(_, event)| event.request_id.to_string()));
    }
    for (number, request) in acknowledged {
        assert!(requests.contains(request), "the record of {number} is gone");
    }
    let check = store.audit_verify().await.unwrap();
    assert_eq!(check.first_broken, None);
    assert_eq!(check.records, requests.len() as u64);
    assert_eq!(store.health().await.unwrap().revision.0, check.records, "a change without a record");
}

#[test]
fn every_acknowledged_write_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().to_owned();
    ring(&path);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let found = run_and_kill(&path, round);
        acknowledged += found.len();
        runtime.block_on(check(&path, &found));
    }
    assert!(acknowledged > 100, "only {acknowledged} writes in {ROUNDS} rounds show little");
}
