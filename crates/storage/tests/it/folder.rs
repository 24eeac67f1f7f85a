//! A folder of blobs that is not there, or is not the site's own.

use std::path::PathBuf;
use std::sync::Arc;

use arcadia_crypto::SystemEntropy;
use arcadia_kernel::Method;
use arcadia_storage::{Storage, StorageNames};

use crate::support::*;

/// Why the site does not start.
async fn refusal(world: &World) -> String {
    let (store, directory, clock) = (world.store.clone(), world.directory.clone(), world.clock.clone());
    let names = StorageNames::azure();
    let opened = Storage::open(store, &folder(world), names, directory, clock, Arc::new(SystemEntropy)).await;
    opened.err().map_or_else(|| "it started".to_owned(), |fault| fault.to_string())
}

fn folder(world: &World) -> PathBuf {
    world.blobs().join("blobs")
}

/// A site with a small and a large blob.
async fn site() -> (World, Caller) {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/small", "x").await;
    world.put(&member, "acct1", "/cc1/large", vec![7; 100_000]).await;
    (world, member)
}

fn is_there(world: &World, segment: u64) -> bool {
    folder(world).join(format!("segments/{segment:016x}.seg")).exists()
}

#[tokio::test]
async fn a_site_does_not_start_without_its_folder_or_on_another() {
    let (world, member) = site().await;
    let (here, aside) = (folder(&world), world.blobs().join("aside"));
    std::fs::rename(&here, &aside).unwrap();
    let told = refusal(&world).await;
    assert!(told.contains("mount it or put it back") && !here.exists(), "{told}");
    // Where its volume would be mounted.
    std::fs::create_dir(&here).unwrap();
    assert_eq!(refusal(&world).await, told);
    assert_eq!(std::fs::read_dir(&here).unwrap().count(), 0);
    // That of another site.
    let (other, _) = site().await;
    std::fs::remove_dir(&here).unwrap();
    std::fs::rename(folder(&other), &here).unwrap();
    assert_eq!(refusal(&world).await, told);

    std::fs::remove_dir_all(&here).unwrap();
    std::fs::rename(&aside, &here).unwrap();
    let world = world.restarted().await;
    world.sweep().await;
    assert_eq!(world.get(&member, "acct1", "/cc1/small").await.text(), "x");
    assert_eq!(world.get(&member, "acct1", "/cc1/large").await.bytes.len(), 100_000);
}

#[tokio::test]
async fn a_site_goes_on_without_lost_bytes_when_it_is_told_to_and_uses_no_number_twice() {
    let (world, member) = site().await;
    let world = world.restarted().await;
    world.put(&member, "acct1", "/cc1/later", "y").await;
    assert!(is_there(&world, 1) && is_there(&world, 2));
    std::fs::remove_dir_all(folder(&world)).unwrap();
    let told = refusal(&world).await;
    let id = told.split_once("make it with a file id in it that holds ").unwrap().1;
    std::fs::create_dir(folder(&world)).unwrap();
    std::fs::write(folder(&world).join("id"), id).unwrap();
    let world = world.restarted().await;
    for path in ["/cc1/small", "/cc1/later", "/cc1/large"] {
        assert_eq!(world.get(&member, "acct1", path).await.outcome(), "500 InternalError", "{path}");
    }
    assert_eq!(world.put(&member, "acct1", "/cc1/new", "z").await.outcome(), "201");
    assert!(is_there(&world, 3) && !is_there(&world, 1));
    assert_eq!(world.get(&member, "acct1", "/cc1/new").await.text(), "z");
}

#[tokio::test]
async fn a_folder_from_before_there_were_ids_gets_one_and_is_missed_without() {
    let (world, member) = site().await;
    let (here, aside) = (folder(&world), world.blobs().join("aside"));
    world.remove_row("storage/folder", "blobs").await;
    std::fs::rename(&here, &aside).unwrap();
    let told = refusal(&world).await;
    assert!(told.contains("make it with an empty folder segments in it") && !here.exists(), "{told}");
    // What a restored backup without bytes has.
    std::fs::create_dir_all(here.join("segments")).unwrap();
    assert_eq!(refusal(&world).await, "it started");
    std::fs::remove_dir_all(&here).unwrap();
    std::fs::rename(&aside, &here).unwrap();
    std::fs::remove_file(here.join("id")).unwrap();
    let world = world.restarted().await;
    assert_eq!(world.get(&member, "acct1", "/cc1/small").await.text(), "x");
    assert_eq!(world.rows("storage/folder").await, 0);
    // As torn by a crash, which no row relies on yet.
    std::fs::write(here.join("id"), "0b5c").unwrap();
    let world = world.restarted().await;
    assert_eq!(world.put(&member, "acct1", "/cc1/large", vec![8; 100_000]).await.outcome(), "201");
    assert_eq!(world.rows("storage/folder").await, 1);
    std::fs::write(here.join("id"), "0b5c").unwrap();
    assert!(refusal(&world).await.contains("mount it or put it back"));
}

#[tokio::test]
async fn a_folder_without_bytes_may_be_made_anew() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    std::fs::remove_dir_all(folder(&world)).unwrap();
    let world = world.restarted().await;
    assert_eq!(world.put(&member, "acct1", "/cc1/b", "x").await.outcome(), "201");
    let world = world.restarted().await;
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "x");
}

fn put_in_place(world: &World, other: &World) {
    std::fs::remove_dir_all(folder(world)).unwrap();
    std::fs::rename(folder(other), folder(world)).unwrap();
}

#[tokio::test]
async fn a_site_without_bytes_does_not_take_those_of_another() {
    for bodies in [vec![1], vec![100_000], vec![1, 100_000]] {
        let (other, member) = World::with_account("acct1").await;
        other.make_container(&member, "acct1", "cc1").await;
        for length in bodies {
            other.put(&member, "acct1", &format!("/cc1/{length}"), vec![7; length]).await;
        }
        let begun = World::new().await;
        put_in_place(&begun, &other);
        let before = walk(&folder(&begun));
        let told = refusal(&begun).await;
        assert!(told.contains("that no row of this site leads to"), "{told}");
        // As one from when folders had no id.
        std::fs::remove_file(folder(&begun).join("id")).unwrap();
        assert_eq!(refusal(&begun).await, told);
        assert_eq!(walk(&folder(&begun)).len(), before.len() - 1);
        std::fs::remove_dir_all(folder(&begun)).unwrap();
        begun.restarted().await;
    }
}

#[tokio::test]
async fn an_empty_folder_that_two_sites_took_is_the_later_ones() {
    let (other, member) = World::with_account("acct1").await;
    other.make_container(&member, "acct1", "cc1").await;
    // Its row is there before its first piece, which does not come.
    let ask = Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
    assert_eq!(other.ask(ask.with("content-length", "2")).await.status, 400);
    assert_eq!((other.rows("storage/folder").await, other.files()), (1, (0, 0)));
    let begun = World::new().await;
    put_in_place(&begun, &other);
    let begun = begun.restarted().await;
    std::fs::rename(folder(&begun), folder(&other)).unwrap();
    assert!(refusal(&other).await.contains("mount it or put it back"));
}

#[tokio::test]
async fn a_site_without_a_row_of_its_folder_starts_on_its_own_alone() {
    let (world, member) = site().await;
    let (other, _) = site().await;
    let (here, aside) = (folder(&world), world.blobs().join("aside"));
    world.remove_row("storage/folder", "blobs").await;
    std::fs::rename(&here, &aside).unwrap();
    std::fs::rename(folder(&other), &here).unwrap();
    assert!(refusal(&world).await.contains("that no row of this site leads to"));
    std::fs::remove_file(here.join("id")).unwrap();
    assert!(refusal(&world).await.contains("that no row of this site leads to"));
    std::fs::rename(&here, folder(&other)).unwrap();
    std::fs::rename(&aside, &here).unwrap();
    let id = std::fs::read(here.join("id")).unwrap();
    for lost in ["segments", "files"] {
        // One of its pieces shows that it is the site's own.
        std::fs::rename(here.join(lost), &aside).unwrap();
        std::fs::create_dir(here.join(lost)).unwrap();
        // A folder that was restored has no empty ones.
        for shard in std::fs::read_dir(here.join("files")).unwrap() {
            let _ = std::fs::remove_dir(shard.unwrap().path());
        }
        assert_eq!(refusal(&world).await, "it started");
        assert_eq!(std::fs::read(here.join("id")).unwrap(), id);
        std::fs::remove_dir_all(here.join(lost)).unwrap();
        std::fs::rename(&aside, here.join(lost)).unwrap();
    }
    let world = world.restarted().await;
    world.sweep().await;
    assert_eq!(world.get(&member, "acct1", "/cc1/small").await.text(), "x");
    assert_eq!(world.get(&member, "acct1", "/cc1/large").await.bytes.len(), 100_000);
}

#[tokio::test]
async fn a_site_that_ended_before_its_first_piece_was_committed_starts() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let refused = Ask::new(Method::PUT, "acct1", "/cc1/b")
        .by(&member)
        .with("x-ms-blob-type", "BlockBlob")
        .with("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")
        .body("x");
    assert_eq!(world.ask(refused).await.outcome(), "400 Md5Mismatch");
    // A large one leaves nothing when it is refused, and this when the site is killed.
    std::fs::write(folder(&world).join("files/7f").join(format!("7f{}", "0".repeat(30))), "x").unwrap();
    assert_eq!((world.rows("storage/places").await, world.files()), (0, (1, 1)));
    let world = world.restarted().await;
    assert_eq!(world.sweep().await.orphans, 1);
    assert_eq!(world.put(&member, "acct1", "/cc1/b", "y").await.outcome(), "201");
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "y");
}

#[tokio::test]
async fn no_number_is_used_twice_after_commits_that_crossed() {
    let (world, member) = site().await;
    let world = world.restarted().await;
    world.put(&member, "acct1", "/cc1/later", "y").await;
    assert!(is_there(&world, 2));
    // The later of two said less than the one before it.
    let mut row = world.stored("storage/folder").await.remove(0);
    let id = row["id"].as_str().unwrap().to_owned();
    assert_eq!(row["segment"], 2);
    row["segment"] = 1.into();
    world.put_row("storage/folder", "blobs", row).await;
    std::fs::remove_dir_all(folder(&world)).unwrap();
    std::fs::create_dir(folder(&world)).unwrap();
    std::fs::write(folder(&world).join("id"), id).unwrap();
    let world = world.restarted().await;
    assert_eq!(world.put(&member, "acct1", "/cc1/new", "z").await.outcome(), "201");
    assert!(is_there(&world, 3) && !is_there(&world, 2));
    assert_eq!(world.get(&member, "acct1", "/cc1/later").await.outcome(), "500 InternalError");
}
