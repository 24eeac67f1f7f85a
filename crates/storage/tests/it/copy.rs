//! Blobs that are copied within a site.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arcadia_crypto::{KeyRing, SystemEntropy, b64};
use arcadia_kernel::{Method, Outcome};
use serde_json::json;

use crate::support::*;

pub const ACCOUNT: &str = "https://acct1.blob.core.windows.net";
pub const NOT_YOURS: &str = "403 CannotVerifyCopySource";

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// A copy by nobody yet.
pub fn copying(target: &str, source: &str) -> Ask {
    Ask::new(Method::PUT, "acct1", target).with("x-ms-copy-source", source).with("content-length", "0")
}

impl World {
    pub async fn copy(&self, caller: &Caller, target: &str, source: &str) -> Answer {
        self.ask(copying(target, &format!("{ACCOUNT}{source}")).by(caller)).await
    }

    pub async fn head(&self, caller: &Caller, path: &str) -> Answer {
        self.ask(Ask::new(Method::HEAD, "acct1", path).by(caller)).await
    }
}

/// A site with one account, one container, and who may do everything in it.
pub async fn site() -> (World, Caller) {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    (world, member)
}

/// Puts a blob of blocks, each of them as often as the list has it.
pub async fn put_blocks(world: &World, caller: &Caller, path: &str, blocks: &[&[u8]], list: &[usize]) {
    let id = |number: usize| b64(format!("{number:03}").as_bytes());
    for (number, block) in blocks.iter().enumerate() {
        let target = format!("{path}?comp=block&blockid={}", id(number).replace('=', "%3D"));
        let ask = Ask::new(Method::PUT, "acct1", &target).by(caller).body(block.to_vec());
        assert_eq!(world.ask(ask).await.outcome(), "201");
    }
    let list: String = list.iter().map(|number| format!("<Latest>{}</Latest>", id(*number))).collect();
    let ask = Ask::new(Method::PUT, "acct1", &format!("{path}?comp=blocklist")).by(caller);
    let ask = ask.body(format!("<BlockList>{list}</BlockList>"));
    assert_eq!(world.ask(ask).await.outcome(), "201");
}

#[tokio::test]
async fn a_copy_has_the_bytes_and_headers_of_its_source() {
    let (world, member) = site().await;
    let bytes = pattern(700_000);
    let put = Ask::new(Method::PUT, "acct1", "/cc1/a%20b/%C3%A4").by(&member);
    let put = put.with("x-ms-blob-type", "BlockBlob").with("content-type", "text/plain");
    let put = put.with("cache-control", "no-store").with("x-ms-access-tier", "Cool");
    let put = put.with("x-ms-meta-kept", "yes").body(bytes.clone());
    assert_eq!(world.ask(put).await.outcome(), "201");
    world.clock.advance_seconds(60);
    let copied = world.copy(&member, "/cc1/copy", "/cc1/a%20b/%C3%A4").await;
    assert_eq!(copied.outcome(), "202");
    assert_eq!((copied.header("x-ms-copy-status"), copied.header("content-md5")), ("success", ""));
    assert!(uuid::Uuid::parse_str(copied.header("x-ms-copy-id")).is_ok());
    assert_eq!(copied.header("last-modified"), "Sat, 21 Nov 2026 12:01:00 GMT");
    let got = world.get(&member, "acct1", "/cc1/copy").await;
    assert!(got.bytes == bytes);
    let head = world.head(&member, "/cc1/copy").await;
    for answer in [&got, &head] {
        for (name, value) in [
            ("etag", copied.header("etag")),
            ("content-type", "text/plain"),
            ("cache-control", "no-store"),
            ("content-md5", &md5(&bytes)),
            ("x-ms-meta-kept", "yes"),
            ("x-ms-access-tier", "Hot"),
            ("x-ms-access-tier-inferred", "true"),
            ("x-ms-access-tier-change-time", ""),
            ("x-ms-copy-id", copied.header("x-ms-copy-id")),
            ("x-ms-copy-source", "https://acct1.blob.core.windows.net/cc1/a%20b/%C3%A4"),
            ("x-ms-copy-status", "success"),
            ("x-ms-copy-progress", "700000/700000"),
            ("x-ms-copy-completion-time", "Sat, 21 Nov 2026 12:01:00 GMT"),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
    }
    let source = world.head(&member, "/cc1/a%20b/%C3%A4").await;
    assert_eq!((source.header("x-ms-copy-id"), source.header("x-ms-access-tier")), ("", "Cool"));
}

#[tokio::test]
async fn metadata_and_tier_are_replaced_when_given() {
    let (world, member) = site().await;
    let put = Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
    world.ask(put.with("x-ms-meta-former", "1").body("x")).await;
    let ask = copying("/cc1/c", &format!("{ACCOUNT}/cc1/b")).by(&member);
    let ask = ask.with("x-ms-meta-new", "2").with("x-ms-access-tier", "Cold");
    assert_eq!(world.ask(ask).await.outcome(), "202");
    let head = world.head(&member, "/cc1/c").await;
    assert_eq!((head.header("x-ms-meta-former"), head.header("x-ms-meta-new")), ("", "2"));
    assert_eq!((head.header("x-ms-access-tier"), head.header("x-ms-access-tier-inferred")), ("Cold", ""));
    assert_eq!(head.header("x-ms-access-tier-change-time"), "Sat, 21 Nov 2026 12:00:00 GMT");
}

#[tokio::test]
async fn every_size_and_every_list_of_blocks_is_copied() {
    let (world, member) = site().await;
    let chunk = 256 * 1024;
    for length in [0, 1, 65_536, 65_537, chunk, 3 * chunk + 7] {
        let bytes = pattern(length);
        world.put(&member, "acct1", "/cc1/b", bytes.clone()).await;
        assert_eq!(world.copy(&member, "/cc1/c", "/cc1/b").await.outcome(), "202", "{length}");
        let got = world.get(&member, "acct1", "/cc1/c").await;
        assert!(got.outcome() == "200" && got.bytes == bytes, "{length}");
        assert_eq!(got.header("x-ms-copy-progress"), format!("{length}/{length}"));
    }
    let blocks = [pattern(10), pattern(70_000), pattern(300_000), vec![7; 65_536]];
    let list = [2, 0, 1, 3, 3, 0];
    let parts: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    put_blocks(&world, &member, "/cc1/blocks", &parts, &list).await;
    assert_eq!(world.copy(&member, "/cc1/c", "/cc1/blocks").await.outcome(), "202");
    let whole: Vec<u8> = list.iter().flat_map(|number| blocks[*number].clone()).collect();
    let got = world.get(&member, "acct1", "/cc1/c").await;
    assert!(got.bytes == whole);
    // The list of blocks has no hash of its own, and the copy is one piece.
    assert_eq!(got.header("content-md5"), "");
    let listed = world.get(&member, "acct1", "/cc1/c?comp=blocklist").await.text();
    assert!(listed.contains("<CommittedBlocks />"), "{listed}");
}

/// A copy holds a chunk or two in memory, whatever its length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_copy_takes_little_memory() {
    const BLOCK: usize = 4 * 1024 * 1024;
    const BLOCKS: usize = 64;
    const GROWTH_KIB_MAX: u64 = 96 * 1024;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let (world, member) = site().await;
    let block = pattern(BLOCK);
    put_blocks(&world, &member, "/cc1/large", &[&block], &[0; BLOCKS]).await;
    let done = Arc::new(AtomicBool::new(false));
    let before = resident();
    let watching = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut most = 0;
            while !done.load(Ordering::Acquire) {
                most = most.max(resident());
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        }
    });
    let copied = world.copy(&member, "/cc1/copy", "/cc1/large").await;
    done.store(true, Ordering::Release);
    let most = watching.join().unwrap();
    assert_eq!(copied.outcome(), "202");
    let grown = most.saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more for a copy of {} KiB", BLOCK * BLOCKS / 1024);
    let head = world.head(&member, "/cc1/copy").await;
    assert_eq!(head.header("content-length"), (BLOCK * BLOCKS).to_string());
    for from in [0, 5 * BLOCK - 7, BLOCK * BLOCKS - 1000] {
        let range = format!("bytes={from}-{}", from + 999);
        let ask = Ask::new(Method::GET, "acct1", "/cc1/copy").by(&member).with("x-ms-range", &range);
        let wanted: Vec<u8> = (from..from + 1000).map(|at| block[at % BLOCK]).collect();
        assert!(world.ask(ask).await.bytes == wanted, "{range}");
    }
}

#[tokio::test]
async fn copy_and_source_live_apart() {
    let (world, member) = site().await;
    for (name, bytes) in [("small", pattern(1000)), ("large", pattern(400_000))] {
        for path in ["source", "copy"] {
            let (source, copy) = (format!("/cc1/{name}-source"), format!("/cc1/{name}-copy"));
            world.put(&member, "acct1", &source, bytes.clone()).await;
            assert_eq!(world.copy(&member, &copy, &source).await.outcome(), "202");
            let (gone, left) = if path == "source" { (&source, &copy) } else { (&copy, &source) };
            assert_eq!(world.delete(&member, "acct1", gone).await.outcome(), "202");
            world.clock.advance_seconds(2 * DAY);
            world.sweep().await;
            assert!(world.get(&member, "acct1", left).await.bytes == bytes, "{name}: without its {path}");
            world.delete(&member, "acct1", left).await;
        }
    }
    world.clock.advance_seconds(2 * DAY);
    world.sweep().await;
    assert_eq!((world.files().0, world.rows("storage/places").await), (0, 0));
}

#[tokio::test]
async fn what_a_copy_replaces_goes() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", pattern(300_000)).await;
    world.put(&member, "acct1", "/cc1/c", pattern(200_000)).await;
    let draft = Ask::new(Method::PUT, "acct1", "/cc1/c?comp=block&blockid=YQ%3D%3D").by(&member);
    assert_eq!(world.ask(draft.body("uncommitted")).await.outcome(), "201");
    assert_eq!(world.copy(&member, "/cc1/c", "/cc1/b").await.outcome(), "202");
    assert_eq!(world.rows("storage/drafts").await, 0);
    // First the draft, then what was in it.
    for _ in 0..2 {
        world.clock.advance_seconds(2 * DAY);
        world.sweep().await;
    }
    assert_eq!((world.files().0, world.rows("storage/places").await), (2, 2));
    assert!(world.get(&member, "acct1", "/cc1/c").await.bytes == pattern(300_000));
}

#[tokio::test]
async fn a_blob_may_be_copied_to_itself() {
    let (world, member) = site().await;
    for bytes in [pattern(0), pattern(100), pattern(300_000)] {
        world.put(&member, "acct1", "/cc1/b", bytes.clone()).await;
        let before = world.head(&member, "/cc1/b").await;
        let ask = copying("/cc1/b", &format!("{ACCOUNT}/cc1/b")).by(&member);
        let ask = ask.with("x-ms-meta-k", "v").with("x-ms-access-tier", "Cool");
        let copied = world.ask(ask).await;
        assert_eq!(copied.outcome(), "202");
        assert_ne!(copied.header("etag"), before.header("etag"));
        world.clock.advance_seconds(2 * DAY);
        world.sweep().await;
        let got = world.get(&member, "acct1", "/cc1/b").await;
        assert!(got.bytes == bytes);
        assert_eq!((got.header("x-ms-meta-k"), got.header("x-ms-access-tier")), ("v", "Cool"));
    }
    assert_eq!(world.files().0, 1);
}

#[tokio::test]
async fn a_copy_is_forgotten_when_something_else_takes_its_place() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", "x").await;
    let forgotten = async |path: &str| world.head(&member, path).await.header("x-ms-copy-id").is_empty();
    for path in ["/cc1/whole", "/cc1/blocks", "/cc1/properties", "/cc1/metadata", "/cc1/tier"] {
        assert_eq!(world.copy(&member, path, "/cc1/b").await.outcome(), "202");
        assert!(!forgotten(path).await);
    }
    world.put(&member, "acct1", "/cc1/whole", "y").await;
    put_blocks(&world, &member, "/cc1/blocks", &[b"z"], &[0]).await;
    for (target, name, value) in [
        ("/cc1/properties?comp=properties", "x-ms-blob-content-type", "a/b"),
        ("/cc1/metadata?comp=metadata", "x-ms-meta-k", "v"),
        ("/cc1/tier?comp=tier", "x-ms-access-tier", "Cool"),
    ] {
        let ask = Ask::new(Method::PUT, "acct1", target).by(&member).with(name, value);
        assert_eq!(world.ask(ask).await.outcome(), "200");
    }
    for (path, gone) in [
        ("/cc1/whole", true),
        ("/cc1/blocks", true),
        ("/cc1/properties", true),
        ("/cc1/metadata", false),
        ("/cc1/tier", false),
    ] {
        assert_eq!(forgotten(path).await, gone, "{path}");
    }
}

#[tokio::test]
async fn lists_show_copies_when_asked() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let copied = world.copy(&member, "/cc1/c", "/cc1/b?timeout=30").await;
    let plain = world.get(&member, "acct1", "/cc1?restype=container&comp=list").await;
    assert!(!plain.text().contains("<Copy"));
    let listed = world.get(&member, "acct1", "/cc1?restype=container&comp=list&include=metadata,copy").await;
    for (tag, text) in [
        ("CopyId", copied.header("x-ms-copy-id")),
        ("CopySource", "https://acct1.blob.core.windows.net/cc1/b"),
        ("CopyStatus", "success"),
        ("CopyProgress", "5/5"),
        ("CopyCompletionTime", "Sat, 21 Nov 2026 12:00:00 GMT"),
    ] {
        assert_eq!(listed.all(tag), [text], "{tag}");
    }
}

#[tokio::test]
async fn a_copy_is_never_pending() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let copied = world.copy(&member, "/cc1/c", "/cc1/b").await;
    let id = copied.header("x-ms-copy-id").to_owned();
    let abort = |target: &str| Ask::new(Method::PUT, "acct1", target).by(&member);
    let target = format!("/cc1/c?comp=copy&copyid={id}");
    let aborted = world.ask(abort(&target).with("x-ms-copy-action", "abort")).await;
    assert_eq!(aborted.outcome(), "409 NoPendingCopyOperation");
    assert_eq!(world.ask(abort(&target)).await.outcome(), "400 MissingRequiredHeader");
    let other = world.ask(abort(&target).with("x-ms-copy-action", "go")).await;
    assert_eq!(other.outcome(), "400 InvalidHeaderValue");
    let none = world.ask(abort("/cc1/c?comp=copy").with("x-ms-copy-action", "abort")).await;
    assert_eq!(none.outcome(), "400 MissingRequiredQueryParameter");
    let absent = world.ask(abort("/cc1/none?comp=copy&copyid=x").with("x-ms-copy-action", "abort")).await;
    assert_eq!(absent.outcome(), "404 BlobNotFound");
}

#[tokio::test]
async fn copies_and_tiers_are_in_the_audit_log() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let last = async || world.store.audit_page(0, 1000).await.unwrap().pop().unwrap().1;
    let action = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write";
    let copied = world.copy(&member, "/cc1/c", "/cc1/b").await;
    let event = last().await;
    assert_eq!((&*event.operation, &*event.action, &event.outcome), ("PutBlob", action, &Outcome::Committed));
    assert!(event.scope.to_string().ends_with("/cc1/blobs/c"), "{}", event.scope);
    assert_eq!(event.request_id.to_string(), copied.header("x-ms-request-id"));
    // Whose bytes were read is on record as well, and by which right.
    let [source] = &event.also[..] else { panic!("{:?}", event.also) };
    assert_eq!(source.action, "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read");
    assert!(source.scope.to_string().ends_with("/cc1/blobs/b"), "{}", source.scope);
    assert!(source.assignment.is_some() && source.assignment == event.assignment, "{event:?}");
    let ask = Ask::new(Method::PUT, "acct1", "/cc1/c?comp=tier").by(&member);
    world.ask(ask.with("x-ms-access-tier", "Cool")).await;
    let event = last().await;
    assert_eq!(
        (&*event.operation, &*event.action, &event.outcome),
        ("SetBlobTier", action, &Outcome::Committed)
    );
    // A source that may not be read is a refusal like any other.
    let writer = world.caller("writer");
    world.make_container(&member, "acct1", "cc2").await;
    world.grant(&writer, BLOB_CONTRIBUTOR, &world.container("acct1", "cc2")).await;
    assert_eq!(world.copy(&writer, "/cc2/c", "/cc1/b").await.outcome(), NOT_YOURS);
    let event = last().await;
    assert!(matches!(event.outcome, Outcome::Denied { .. }));
    assert!(matches!(&event.also[..], [source] if source.assignment.is_none()), "{event:?}");
}

/// What was written before there were copies is read, and what is no copy is written as before.
#[tokio::test]
async fn rows_of_before_are_read() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let row = world.stored("storage/blobs").await.pop().unwrap();
    let mut fields: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["content", "created", "etag", "headers", "length", "modified", "name"]);
    let container = world.stored("storage/containers").await.pop().unwrap();
    let instance = uuid::Uuid::parse_str(container["instance"].as_str().unwrap()).unwrap();
    let old = json!({
        "name": "old", "etag": "0x8D1", "created": START, "modified": START, "length": 0, "headers": {},
        "tier": "Cool", "content": "empty"
    });
    world.put_row("storage/blobs", &(instance, "old".to_owned()), old).await;
    let head = world.head(&member, "/cc1/old").await;
    assert_eq!((head.outcome().as_str(), head.header("x-ms-access-tier")), ("200", "Cool"));
    assert_eq!((head.header("x-ms-copy-id"), head.header("x-ms-access-tier-change-time")), ("", ""));
    assert_eq!(world.copy(&member, "/cc1/new", "/cc1/old").await.outcome(), "202");
    let listed = world.get(&member, "acct1", "/cc1?restype=container&comp=list&include=copy").await;
    assert_eq!(
        (listed.all("Name"), listed.all("CopyId").len()),
        (vec!["b".into(), "new".into(), "old".into()], 1)
    );
}

#[tokio::test]
async fn copies_outlive_a_restart() {
    let (world, member) = site().await;
    for length in [100, 300_000] {
        world.put(&member, "acct1", "/cc1/b", pattern(length)).await;
        world.copy(&member, &format!("/cc1/c{length}"), "/cc1/b").await;
    }
    let world = world.restarted().await;
    world.tidy().await;
    for length in [100, 300_000] {
        let got = world.get(&member, "acct1", &format!("/cc1/c{length}")).await;
        assert!(got.bytes == pattern(length));
        assert_eq!(got.header("x-ms-copy-progress"), format!("{length}/{length}"));
    }
}

/// A client that leaves, at whatever moment, leaves no bytes: there is the whole copy, or nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_in_the_middle_leaves_nothing() {
    let (world, member) = site().await;
    let world = Arc::new(world);
    let length = 8 * 1024 * 1024;
    world.put(&member, "acct1", "/cc1/b", pattern(length)).await;
    for round in 0..20_u64 {
        let (there, caller) = (world.clone(), member.clone());
        let asking = tokio::spawn(async move { there.copy(&caller, "/cc1/c", "/cc1/b").await.outcome() });
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        asking.abort();
        let _ = asking.await;
    }
    // What was being written at that moment is removed once it is.
    let mut left = 0;
    for _ in 0..200 {
        world.clock.advance_seconds(2 * DAY);
        world.sweep().await;
        left = world.files().0;
        if left == world.rows("storage/blobs").await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((left, world.rows("storage/places").await), {
        let blobs = world.rows("storage/blobs").await;
        (blobs, blobs)
    });
    let got = world.get(&member, "acct1", "/cc1/c").await;
    assert!(got.status == 404 || got.bytes == pattern(length));
}

/// Sources are replaced while they are copied; each copy is one of them, whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_changes_is_copied_as_it_was_or_as_it_is() {
    let ring = KeyRing::generate(&SystemEntropy).unwrap();
    let world = World::on_disk(Arc::new(tempfile::tempdir().unwrap()), || ring.clone()).await;
    let member = world.make_account_and_member("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let world = Arc::new(world);
    world.put(&member, "acct1", "/cc1/b", vec![0; 400_000]).await;
    let (there, caller) = (world.clone(), member.clone());
    let changing = tokio::spawn(async move {
        for round in 1..=20_u8 {
            if round % 2 == 0 {
                there.put(&caller, "acct1", "/cc1/b", vec![round; 400_000]).await;
            } else {
                put_blocks(&there, &caller, "/cc1/b", &[&[round; 100_000]], &[0; 4]).await;
            }
            there.sweep().await;
        }
    });
    while !changing.is_finished() {
        assert_eq!(world.copy(&member, "/cc1/c", "/cc1/b").await.outcome(), "202");
        let got = world.get(&member, "acct1", "/cc1/c").await;
        let first = got.bytes[0];
        assert!(got.bytes.len() == 400_000 && got.bytes.iter().all(|byte| *byte == first));
    }
    changing.await.unwrap();
}
