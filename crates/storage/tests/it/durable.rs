//! What is on the disk: durable, sealed, and removed when nothing needs it.

use std::path::Path;
use std::sync::Arc;

use arcadia_crypto::{KeyRing, RootKey, SystemEntropy};
use arcadia_kernel::Method;

use crate::support::*;

const MARK: &[u8] = b"NinaIsTheMole-NinaIsTheMole-NinaIsTheMole";

fn marked(length: usize) -> Vec<u8> {
    MARK.iter().copied().cycle().take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_there_after_a_restart_and_nothing_is_at_rest_in_the_clear() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let root = RootKey::generate(&SystemEntropy);
    let wrapped = KeyRing::generate(&SystemEntropy).unwrap().wrapped(&root, &SystemEntropy).unwrap();
    let ring = || KeyRing::from_wrapped(&root, &wrapped).unwrap();
    let world = World::on_disk(folder.clone(), ring).await;
    let member = world.make_account_and_member("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let sizes = [10, 1000, 60_000, 70_000, 1_000_000];
    for size in sizes {
        assert_eq!(world.put(&member, "acct1", &format!("/cc1/{size}"), marked(size)).await.outcome(), "201");
    }
    let block = Ask::new(Method::PUT, "acct1", "/cc1/draft?comp=block&blockid=YQ%3D%3D").by(&member);
    assert_eq!(world.ask(block.body(marked(500))).await.outcome(), "201");
    let key = world.keys("acct1").await[0].clone();
    drop(world);

    let key_bytes = arcadia_crypto::b64_decode(&key).unwrap();
    let files = walk(folder.path());
    assert!(files.len() > 4, "{files:?}");
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        for needle in [MARK, key.as_bytes(), key_bytes.as_slice()] {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{} holds a value in the clear", path.display());
        }
    }

    let world = World::on_disk(folder, ring).await;
    let member = world.caller("owner");
    assert_eq!(world.get(&member, "acct1", "/cc1/10").await.status, 403);
    for size in sizes {
        let ask = Ask::new(Method::GET, "acct1", &format!("/cc1/{size}")).signed("acct1", &key, START);
        assert!(world.ask(ask).await.bytes == marked(size), "{size}");
    }
    let list = Ask::new(Method::PUT, "acct1", "/cc1/draft?comp=blocklist")
        .body("<BlockList><Latest>YQ==</Latest></BlockList>");
    assert_eq!(world.ask(list.signed("acct1", &key, START)).await.outcome(), "201");
}

#[tokio::test]
async fn orphans_are_removed_and_what_is_named_is_not() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/large", marked(100_000)).await;
    let files = world.blobs().join("blobs/files");
    let orphan = files.join("ab/ab000000000040008000000000000001");
    std::fs::write(&orphan, b"of an upload that a crash cut off").unwrap();
    let foreign = files.join("ab/readme");
    std::fs::write(&foreign, b"not ours").unwrap();
    let world = world.restarted().await;
    assert_eq!(world.sweep().await.orphans, 1);
    assert!(!orphan.exists() && foreign.exists());
    assert_eq!(world.get(&member, "acct1", "/cc1/large").await.bytes.len(), 100_000);
}

/// A site's first sweep may come while its first uploads arrive.
#[tokio::test]
async fn the_file_of_an_upload_under_way_is_no_orphan() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let world = Arc::new(world);
    let sweep = {
        let world = world.clone();
        async move {
            assert_eq!(world.files().0, 1, "what came is on the disk");
            assert_eq!(world.sweep().await.orphans, 0);
        }
    };
    let ask = Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
    let answer = world.ask_with_body(ask, body_around(marked(300_000), sweep, marked(82))).await;
    assert_eq!(answer.outcome(), "201");
    let got = world.get(&member, "acct1", "/cc1/b").await;
    assert!(got.bytes == [marked(300_000), marked(82)].concat(), "{}", got.outcome());
}

#[tokio::test]
async fn segments_of_the_dead_are_removed_and_the_living_move() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    for number in 0..50 {
        world.put(&member, "acct1", &format!("/cc1/{number}"), marked(1000 + number)).await;
    }
    // What the next process writes goes to a segment of its own.
    let world = world.restarted().await;
    for number in 0..45 {
        assert_eq!(world.delete(&member, "acct1", &format!("/cc1/{number}")).await.outcome(), "202");
    }
    assert_eq!(world.sweep().await.segments, 0, "answers may still be under way");
    world.clock.advance_seconds(3601);
    assert_eq!(world.sweep().await.segments, 0, "the living move first");
    assert_eq!(world.files().1, 2);
    world.clock.advance_seconds(3601);
    assert_eq!(world.sweep().await.segments, 1);
    assert_eq!(world.files().1, 1, "the living are in the new segment");
    for number in 45..50 {
        let got = world.get(&member, "acct1", &format!("/cc1/{number}")).await;
        assert!(got.bytes == marked(1000 + number), "{number}: {}", got.outcome());
    }
    let world = world.restarted().await;
    assert_eq!(world.get(&member, "acct1", "/cc1/49").await.bytes, marked(1049));
    for number in 45..50 {
        world.delete(&member, "acct1", &format!("/cc1/{number}")).await;
    }
    for _ in 0..2 {
        world.clock.advance_seconds(3601);
        world.sweep().await;
    }
    assert_eq!(world.files(), (0, 0));
    assert_eq!(world.rows("storage/places").await, 0);
}

/// Sites of developers run for minutes.
#[tokio::test]
async fn a_site_that_never_runs_for_an_hour_removes_segments_of_the_dead() {
    let (mut world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    for round in 0..6 {
        for number in 0..10 {
            world.put(&member, "acct1", &format!("/cc1/{number}"), marked(1000 + round)).await;
        }
        world.put(&member, "acct1", &format!("/cc1/lives-{round}"), marked(10)).await;
        world.clock.advance_seconds(600);
        world.sweep().await;
        world = world.restarted().await;
        world.clock.advance_seconds(3600);
    }
    for number in 0..10 {
        world.delete(&member, "acct1", &format!("/cc1/{number}")).await;
    }
    for _ in 0..3 {
        world.clock.advance_seconds(3600);
        world.sweep().await;
        world = world.restarted().await;
    }
    assert_eq!(world.files(), (0, 1));
    for round in 0..6 {
        let got = world.get(&member, "acct1", &format!("/cc1/lives-{round}")).await;
        assert!(got.bytes == marked(10), "{round}: {}", got.outcome());
    }
}

#[tokio::test]
async fn a_container_that_takes_over_a_name_is_empty_and_the_former_is_removed() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    for number in 0..600 {
        world.put(&member, "acct1", &format!("/cc1/{number}"), "x").await;
    }
    world.put(&member, "acct1", "/cc1/large", marked(100_000)).await;
    world.delete(&member, "acct1", "/cc1?restype=container").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/new", "y").await;
    let list = world.get(&member, "acct1", "/cc1?restype=container&comp=list").await;
    assert_eq!(list.all("Name"), ["new"]);
    world.sweep().await;
    world.clock.advance_seconds(3601);
    world.sweep().await;
    assert_eq!(world.rows("storage/blobs").await, 1);
    assert_eq!(world.rows("storage/places").await, 1);
    assert_eq!(world.files().0, 0);
    assert_eq!(world.get(&member, "acct1", "/cc1/new").await.text(), "y");
}

#[tokio::test]
async fn bytes_that_were_changed_are_an_error_and_never_an_answer() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/small", marked(1000)).await;
    world.put(&member, "acct1", "/cc1/large", marked(100_000)).await;
    for path in world.files_of_bytes() {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    for path in ["/cc1/small", "/cc1/large"] {
        assert_eq!(world.get(&member, "acct1", path).await.outcome(), "500 InternalError", "{path}");
    }
    for path in world.files_of_bytes() {
        std::fs::remove_file(path).unwrap();
    }
    for path in ["/cc1/small", "/cc1/large"] {
        assert_eq!(world.get(&member, "acct1", path).await.outcome(), "500 InternalError", "{path}");
    }
}

/// Where each record of a segment begins.
fn records(segment: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < segment.len() {
        found.push(at);
        at += 24 + u32::from_be_bytes(segment[at + 20..at + 24].try_into().unwrap()) as usize;
    }
    found
}

#[tokio::test]
async fn a_damaged_header_loses_neither_its_record_nor_those_behind_it() {
    // The magic, the id, a length that is too long, and one that is too short; of the last record one that leaves too
    // little behind it to be seen.
    for (record, byte, change) in
        [(18, 0, 0x40), (18, 10, 0x40), (18, 20, 0x40), (18, 22, 0x04), (19, 23, 0x01)]
    {
        let (world, member) = World::with_account("acct1").await;
        world.make_container(&member, "acct1", "cc1").await;
        for number in 0..20 {
            world.put(&member, "acct1", &format!("/cc1/{number}"), marked(1000 + number)).await;
        }
        let world = world.restarted().await;
        for number in 0..18 {
            assert_eq!(world.delete(&member, "acct1", &format!("/cc1/{number}")).await.outcome(), "202");
        }
        let path = world.blobs().join("blobs/segments/0000000000000001.seg");
        let mut segment = std::fs::read(&path).unwrap();
        let starts = records(&segment);
        segment[starts[record] + byte] ^= change;
        std::fs::write(&path, &segment).unwrap();
        let mut removed = 0;
        for _ in 0..3 {
            world.clock.advance_seconds(3601);
            removed += world.sweep().await.segments;
        }
        assert_eq!(removed, usize::from(record == 19), "byte {byte}");
        let world = world.restarted().await;
        for number in [18, 19] {
            let got = world.get(&member, "acct1", &format!("/cc1/{number}")).await;
            assert!(got.bytes == marked(1000 + number), "byte {byte}, {number}: {}", got.outcome());
            world.delete(&member, "acct1", &format!("/cc1/{number}")).await;
        }
        // Once nothing names it any more, it goes as others do.
        for _ in 0..3 {
            world.clock.advance_seconds(3601);
            world.sweep().await;
        }
        assert!(!path.exists(), "byte {byte}");
    }
}

/// A length on the disk may say anything; no piece that is packed is as long as this one.
#[tokio::test]
async fn a_record_that_claims_to_be_longer_than_any_is_not_moved() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    for number in 0..40 {
        world.put(&member, "acct1", &format!("/cc1/{number}"), marked(10_000)).await;
    }
    let world = world.restarted().await;
    for number in 1..40 {
        world.delete(&member, "acct1", &format!("/cc1/{number}")).await;
    }
    let path = world.blobs().join("blobs/segments/0000000000000001.seg");
    let mut segment = std::fs::read(&path).unwrap();
    // As far as another record, so that it looks right.
    let length = records(&segment)[8] as u32 - 24;
    segment[20..24].copy_from_slice(&length.to_be_bytes());
    std::fs::write(&path, &segment).unwrap();
    for _ in 0..3 {
        world.clock.advance_seconds(3601);
        assert_eq!(world.sweep().await.segments, 0);
    }
    let world = world.restarted().await;
    assert!(world.get(&member, "acct1", "/cc1/0").await.bytes == marked(10_000));
}

/// What nobody can open.
fn link_to_itself(path: &Path) {
    std::os::unix::fs::symlink(path, path).unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_or_removed_does_not_keep_the_rest() {
    let (mut world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    // A segment each; in some of them a small one lives on and moves.
    for number in 1..=8 {
        world.put(&member, "acct1", &format!("/cc1/{number}"), marked(1000)).await;
        if (2..=4).contains(&number) {
            world.put(&member, "acct1", &format!("/cc1/{number}-lives"), marked(10)).await;
        }
        world = world.restarted().await;
    }
    for number in 1..=8 {
        world.delete(&member, "acct1", &format!("/cc1/{number}")).await;
    }
    let blobs = world.blobs().join("blobs");
    let segment = |number| blobs.join(format!("segments/{number:016x}.seg"));
    let aside = |number| blobs.join(format!("aside-{number}"));
    std::fs::rename(segment(1), aside(1)).unwrap();
    link_to_itself(&segment(1));
    let orphan = |id: u128| {
        let name = format!("{id:032x}");
        blobs.join("files").join(&name[..2]).join(&name)
    };
    std::fs::create_dir(orphan(1)).unwrap();
    let orphans = [orphan(2), orphan(0xab << 120)];
    for path in &orphans {
        std::fs::write(path, b"of an upload that a crash cut off").unwrap();
    }

    world.clock.advance_seconds(3601);
    assert!(world.try_sweep().await.is_err());
    assert!(orphans.iter().all(|path| !path.exists()));
    assert!((5..=8).all(|number| !segment(number).exists()));
    // They were looked at, and cannot be removed.
    for number in 2..=4 {
        std::fs::rename(segment(number), aside(number)).unwrap();
        std::fs::create_dir(segment(number)).unwrap();
    }
    world.clock.advance_seconds(3601);
    assert!(world.try_sweep().await.is_err());

    // What failed is tried again.
    for number in 1..=4 {
        std::fs::remove_file(segment(number)).or_else(|_| std::fs::remove_dir(segment(number))).unwrap();
        std::fs::rename(aside(number), segment(number)).unwrap();
    }
    assert!(world.try_sweep().await.is_err(), "the orphan that is a directory is still there");
    std::fs::remove_dir(orphan(1)).unwrap();
    assert!((1..=4).all(|number| !segment(number).exists()));
    world.sweep().await;
    assert_eq!(world.files(), (0, 1));
    for number in 2..=4 {
        let got = world.get(&member, "acct1", &format!("/cc1/{number}-lives")).await;
        assert!(got.bytes == marked(10), "{number}: {}", got.outcome());
    }
}

#[tokio::test]
async fn a_segment_that_was_begun_in_vain_is_removed() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.sweep().await;
    let path = world.blobs().join("blobs/segments/0000000000000001.seg");
    std::fs::write(&path, b"").unwrap();
    let refused = world.put(&member, "acct1", "/cc1/b", "x").await;
    assert_eq!(refused.outcome(), "500 InternalError");
    assert_eq!(world.put(&member, "acct1", "/cc1/b", "x").await.outcome(), "201");
    assert_eq!(world.sweep().await.segments, 1);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_sweep_that_fails_forgets_nothing_and_removes_orphans_first() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/b", marked(1000)).await;
    world.put(&member, "acct1", "/cc1/lives", marked(10)).await;
    let world = world.restarted().await;
    world.sweep().await;
    world.delete(&member, "acct1", "/cc1/b").await;
    world.clock.advance_seconds(3601);
    let path = world.blobs().join("blobs/segments/0000000000000001.seg");
    let aside = world.blobs().join("aside");
    let failing_sweep = async |stand_in: fn(&Path)| {
        std::fs::rename(&path, &aside).unwrap();
        stand_in(&path);
        assert!(world.try_sweep().await.is_err());
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).unwrap();
        std::fs::rename(&aside, &path).unwrap();
    };
    // It cannot be looked at, and later it cannot be removed.
    failing_sweep(link_to_itself).await;
    world.sweep().await;
    world.clock.advance_seconds(3601);
    failing_sweep(|path| std::fs::create_dir(path).unwrap()).await;
    assert_eq!(world.sweep().await.segments, 1);

    let orphan = world.blobs().join("blobs/files/ab/ab000000000040008000000000000001");
    std::fs::write(&orphan, b"of an upload that a crash cut off").unwrap();
    let world = world.restarted().await;
    // A row that nobody understands: the sweep goes no further.
    world.put_row("storage/garbage", &(0_u64, uuid::Uuid::nil()), serde_json::json!("spoilt")).await;
    assert!(world.try_sweep().await.is_err());
    assert!(!orphan.exists());
}

#[tokio::test]
async fn a_complete_segment_of_refused_uploads_is_removed_but_for_one_under_way() {
    let (world, backend) = World::held_up().await;
    let member = world.make_account_and_member("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.sweep().await;
    let body = bytes::Bytes::from(marked(64 * 1024));
    let refused = async |_| {
        let put = Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
        let put = put.with("content-md5", "XUFAKrxLKna5cZ2REBfFkg==").body(body.clone());
        assert_eq!(world.ask(put).await.outcome(), "400 Md5Mismatch");
    };
    let fill = async {
        // A segment has 64 MiB.
        for _ in 0..33 {
            futures_util::future::join_all((0..32).map(refused)).await;
        }
        assert_eq!(world.files().1, 2);
        assert_eq!(world.sweep().await.segments, 0);
    };
    // Its bytes are in the segment, and no row names them yet.
    let kept = world.put(&member, "acct1", "/cc1/kept", marked(10));
    let (kept, ()) = backend.between("storage/names", kept, fill).await;
    assert_eq!(kept.outcome(), "201");
    assert_eq!(world.sweep().await.segments, 0, "it moves first");
    world.clock.advance_seconds(3601);
    assert_eq!(world.sweep().await.segments, 1);
    assert!(world.get(&member, "acct1", "/cc1/kept").await.bytes == marked(10));
}
