//! Bytes that are copied while the site goes on, and what a copy refuses.

use std::path::Path;
use std::sync::Arc;

use arcadia_crypto::{KeyRing, RootKey, SystemEntropy, WrappedKey};
use arcadia_kernel::{Clock as _, Method};
use arcadia_storage::{BytePin, CopiedBytes, CopyFault, copy_bytes};
use arcadia_store::StoreReader;
use tempfile::TempDir;

use crate::support::*;

struct Keys {
    root: RootKey,
    wrapped: Vec<WrappedKey>,
}

impl Keys {
    fn new() -> Self {
        let root = RootKey::generate(&SystemEntropy);
        let wrapped = KeyRing::generate(&SystemEntropy).unwrap().wrapped(&root, &SystemEntropy).unwrap();
        Self { root, wrapped }
    }

    fn ring(&self) -> KeyRing {
        KeyRing::from_wrapped(&self.root, &self.wrapped).unwrap()
    }

    fn rows(&self, folder: &Path) -> StoreReader {
        StoreReader::open(folder, self.ring(), Arc::new(SystemEntropy)).unwrap()
    }
}

fn content(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + seed * 7 + at / 251) as u8).collect()
}

/// A site with an account, and the caller who may do everything with its blobs.
async fn site(keys: &Keys) -> (World, Caller) {
    let world = World::on_disk(Arc::new(tempfile::tempdir().unwrap()), || keys.ring()).await;
    let member = world.make_account_and_member("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    (world, member)
}

/// Rows, then bytes.
async fn copied(world: &World, keys: &Keys) -> Result<(TempDir, CopiedBytes), CopyFault> {
    let to = tempfile::tempdir().unwrap();
    keys.rows(world.blobs()).copy(&to.path().join("store.db")).unwrap();
    let blobs = copy_bytes(
        &keys.rows(to.path()),
        &world.blobs().join("blobs"),
        &to.path().join("blobs"),
        &mut |_| (),
    );
    blobs.map(|blobs| (to, blobs))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_every_byte_that_its_rows_name() {
    let keys = Keys::new();
    let (world, member) = site(&keys).await;
    let sizes = [0, 1, 1000, 65_536, 65_537, 262_144, 262_145, 1_000_000];
    for (seed, size) in sizes.into_iter().enumerate() {
        world.put(&member, "acct1", &format!("/cc1/{size}"), content(size, seed)).await;
    }
    let block = |id: &str, size| {
        Ask::new(Method::PUT, "acct1", &format!("/cc1/list?comp=block&blockid={id}"))
            .by(&member)
            .body(content(size, 9))
    };
    for (id, size) in [("YQ%3D%3D", 100), ("Yg%3D%3D", 70_000), ("Yw%3D%3D", 5)] {
        assert_eq!(world.ask(block(id, size)).await.outcome(), "201");
    }
    // The same block twice, which is one piece.
    let list = "<BlockList><Latest>YQ==</Latest><Latest>Yg==</Latest><Latest>Yg==</Latest></BlockList>";
    let list = Ask::new(Method::PUT, "acct1", "/cc1/list?comp=blocklist").by(&member).body(list);
    assert_eq!(world.ask(list).await.outcome(), "201");
    assert_eq!(world.ask(block("ZA%3D%3D", 90_000)).await.outcome(), "201");
    world.put(&member, "acct1", "/cc1/gone", content(500, 1)).await;
    world.delete(&member, "acct1", "/cc1/gone").await;

    world.sweep().await;

    let (to, blobs) = copied(&world, &keys).await.unwrap();
    // What the site does after the rows were copied changes nothing in the copy.
    world.put(&member, "acct1", "/cc1/1000", content(10, 5)).await;
    drop(world);
    assert_eq!(blobs.pieces, 7 + 2 + 1, "blobs, blocks, a block that is not committed");
    let again = World::on_disk(Arc::new(to), || keys.ring()).await;
    let key = again.keys("acct1").await[0].clone();
    let get = |name: String| {
        again.ask(Ask::new(Method::GET, "acct1", &format!("/cc1/{name}")).signed("acct1", &key, START))
    };
    for (seed, size) in sizes.into_iter().enumerate() {
        let got = get(size.to_string()).await;
        assert!(got.bytes == content(size, seed), "{size}: {}", got.outcome());
    }
    let expected = [content(100, 9), content(70_000, 9), content(70_000, 9)].concat();
    assert!(get("list".to_owned()).await.bytes == expected);
    assert_eq!(get("gone".to_owned()).await.status, 404);
    again.sweep().await;
    assert!(get("1000000".to_owned()).await.bytes == content(1_000_000, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_were_changed_cut_or_removed_are_not_copied() {
    let keys = Keys::new();
    let (world, member) = site(&keys).await;
    world.put(&member, "acct1", "/cc1/small", content(1000, 1)).await;
    world.put(&member, "acct1", "/cc1/large", content(600_000, 2)).await;
    copied(&world, &keys).await.unwrap();
    let files = world.files_of_bytes();
    assert_eq!(files.len(), 2, "{files:?}");
    for path in files {
        let good = std::fs::read(&path).unwrap();
        let mut bent = good.clone();
        *bent.last_mut().unwrap() ^= 1;
        for (what, bytes) in [("changed", &bent[..]), ("cut", &good[..good.len() - 1])] {
            std::fs::write(&path, bytes).unwrap();
            let told = copied(&world, &keys).await.err().unwrap();
            assert!(matches!(told, CopyFault::Damaged { .. }), "{what}: {told}");
        }
        std::fs::remove_file(&path).unwrap();
        let told = copied(&world, &keys).await.err().unwrap().to_string();
        assert!(told.contains("their file is missing") && told.contains("blob \""), "{told}");
        std::fs::write(&path, good).unwrap();
    }
    copied(&world, &keys).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_while_somebody_copies() {
    let keys = Keys::new();
    let (world, member) = site(&keys).await;
    for number in 0..20 {
        world.put(&member, "acct1", &format!("/cc1/{number}"), content(1000, number)).await;
    }
    world.put(&member, "acct1", "/cc1/large", content(100_000, 1)).await;
    // What is written from now on goes to a segment of its own, so that this one is complete.
    let folder = world.folder.clone();
    drop(world);
    let world = World::on_disk(folder, || keys.ring()).await;
    let to = tempfile::tempdir().unwrap();
    let blobs = world.blobs().join("blobs");
    let pin = BytePin::take(&blobs).unwrap().unwrap();
    let other = BytePin::take(&blobs).unwrap().unwrap();
    keys.rows(world.blobs()).copy(&to.path().join("store.db")).unwrap();
    let before = world.files();
    let key = world.keys("acct1").await[0].clone();
    let removes = |name: String| {
        let ask = Ask::new(Method::DELETE, "acct1", &format!("/cc1/{name}"));
        let now = world.clock.epoch_seconds();
        world.ask(ask.signed("acct1", &key, now))
    };
    for number in 0..20 {
        assert_eq!(removes(number.to_string()).await.outcome(), "202");
    }
    assert_eq!(removes("large".to_owned()).await.outcome(), "202");
    for _ in 0..3 {
        world.clock.advance_seconds(3601);
        world.sweep().await;
        assert_eq!(world.files(), before);
    }
    let copy = copy_bytes(&keys.rows(to.path()), &blobs, &to.path().join("blobs"), &mut |_| ()).unwrap();
    assert_eq!(copy, CopiedBytes { pieces: 21, bytes: 120_000 });
    drop(pin);
    world.sweep().await;
    assert_eq!(world.files(), before, "the other copy goes on");
    drop(other);
    for _ in 0..3 {
        world.clock.advance_seconds(3601);
        world.sweep().await;
    }
    assert_eq!(world.files(), (0, 0));
    assert!(BytePin::take(&world.blobs().join("none")).unwrap().is_none());
}

/// The one segment in a folder of blobs.
fn segment(blobs: &Path) -> std::path::PathBuf {
    let mut files = std::fs::read_dir(blobs.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let only = files.next().unwrap();
    assert!(files.next().is_none());
    only
}

fn pipe_at(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// No seal is over the headers of a segment, nor over what no row names.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_key_opens_is_not_copied() {
    let keys = Keys::new();
    let (world, member) = site(&keys).await;
    let blobs = [("first", 10_000), ("dead", 10_000), ("last", 1000)];
    for (seed, (name, size)) in blobs.into_iter().enumerate() {
        world.put(&member, "acct1", &format!("/cc1/{name}"), content(size, seed)).await;
    }
    world.delete(&member, "acct1", "/cc1/dead").await;
    let source = segment(&world.blobs().join("blobs"));
    let (first, _) = copied(&world, &keys).await.unwrap();
    let expected = std::fs::read(segment(&first.path().join("blobs"))).unwrap();
    let good = std::fs::read(&source).unwrap();
    assert_eq!(expected.len(), good.len());
    // Header, bytes and tag.
    let dead = 24 + 10_000 + 16;
    assert!(good[dead + 24..2 * dead].iter().any(|byte| *byte != 0));
    assert!(expected[dead + 24..2 * dead].iter().all(|byte| *byte == 0), "nothing of what was deleted");
    let more = [&good[..], b"x"].concat();
    let bent = |at: usize| {
        let mut bent = good.clone();
        bent[at] ^= 1;
        bent
    };
    for (what, bytes) in [
        ("a byte more", more),
        ("magic", bent(0)),
        ("an id", bent(4)),
        ("a length", bent(20)),
        ("what no row names", bent(dead + 30)),
    ] {
        std::fs::write(&source, bytes).unwrap();
        let (to, _) = copied(&world, &keys).await.unwrap();
        assert!(std::fs::read(segment(&to.path().join("blobs"))).unwrap() == expected, "{what}");
    }
    let away = source.with_extension("away");
    std::fs::write(&source, &good).unwrap();
    std::fs::rename(&source, &away).unwrap();
    for (what, told) in [("a pipe", "not a plain file"), ("a link", "symbolic link")] {
        match what {
            "a pipe" => pipe_at(&source),
            _ => std::os::unix::fs::symlink(&away, &source).unwrap(),
        }
        let refused = copied(&world, &keys).await.err().unwrap().to_string();
        assert!(refused.contains(told) && refused.contains("segments/"), "{what}: {refused}");
        std::fs::remove_file(&source).unwrap();
    }
    std::fs::rename(&away, &source).unwrap();

    // The copy is tidied as any other: what lives in it moves once little does.
    drop(world);
    let again = World::on_disk(Arc::new(first), || keys.ring()).await;
    let key = again.keys("acct1").await[0].clone();
    let ask = |method: Method, name: &str| {
        let ask = Ask::new(method, "acct1", &format!("/cc1/{name}"));
        again.ask(ask.signed("acct1", &key, again.clock.epoch_seconds()))
    };
    assert_eq!(ask(Method::DELETE, "first").await.outcome(), "202");
    for _ in 0..3 {
        again.clock.advance_seconds(3601);
        again.sweep().await;
    }
    assert!(!again.blobs().join("blobs/segments").join(source.file_name().unwrap()).exists());
    assert!(ask(Method::GET, "last").await.bytes == content(1000, 2));
}
