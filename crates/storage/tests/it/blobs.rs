//! Blobs that are put whole.

use arcadia_kernel::{Body, BodyError, Method};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use crate::support::*;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[tokio::test]
async fn every_size_comes_back_as_it_was() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let chunk = 256 * 1024;
    for length in
        [0, 1, 1000, 65_535, 65_536, 65_537, chunk - 1, chunk, chunk + 1, 3 * chunk, 3 * chunk + 7, 5_000_000]
    {
        let (path, bytes) = (format!("/cc1/b{length}"), pattern(length));
        let put = world.put(&member, "acct1", &path, bytes.clone()).await;
        assert_eq!(put.outcome(), "201", "{length}");
        assert_eq!(put.header("content-md5"), md5(&bytes));
        assert_eq!(put.header("x-ms-request-server-encrypted"), "true");
        let got = world.get(&member, "acct1", &path).await;
        assert_eq!(got.outcome(), "200", "{length}");
        assert!(got.bytes == bytes, "{length}");
        assert_eq!(got.header("content-length"), length.to_string());
        assert_eq!(got.header("content-md5"), md5(&bytes));
        assert_eq!(got.header("etag"), put.header("etag"));
        assert!(got.header("etag").starts_with("\"0x8D"));
        assert_eq!(got.header("last-modified"), "Sat, 21 Nov 2026 12:00:00 GMT");
        assert_eq!(got.header("x-ms-blob-type"), "BlockBlob");
        assert_eq!(got.header("x-ms-creation-time"), "Sat, 21 Nov 2026 12:00:00 GMT");
        let head = world.ask(Ask::new(Method::HEAD, "acct1", &path).by(&member)).await;
        assert_eq!((head.status, head.header("content-length")), (200, length.to_string().as_str()));
        assert!(head.bytes.is_empty());
    }
}

#[tokio::test]
async fn ranges() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    for length in [100_usize, 600_000] {
        let bytes = pattern(length);
        world.put(&member, "acct1", "/cc1/b", bytes.clone()).await;
        let last = length - 1;
        for (range, from, until) in [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=0-".to_owned(), 0, length),
            (format!("bytes=0-{}", u64::MAX), 0, length),
            (format!("bytes={last}-"), last, length),
            (format!("bytes=7-{}", length / 2), 7, length / 2 + 1),
            ("bytes=3-33554431".to_owned(), 3, length),
        ] {
            for header in ["range", "x-ms-range"] {
                let answer = world
                    .ask(Ask::new(Method::GET, "acct1", "/cc1/b").by(&member).with(header, &range))
                    .await;
                assert_eq!(answer.outcome(), "206", "{range}");
                assert!(answer.bytes == bytes[from..until], "{range}");
                assert_eq!(answer.header("content-range"), format!("bytes {from}-{}/{length}", until - 1));
                assert_eq!(answer.header("content-length"), (until - from).to_string());
                assert_eq!(answer.header("x-ms-blob-content-md5"), md5(&bytes));
                assert_eq!(answer.header("content-md5"), "");
            }
        }
        let hashed = Ask::new(Method::GET, "acct1", "/cc1/b").by(&member);
        let hashed = hashed.with("x-ms-range", "bytes=5-9").with("x-ms-range-get-content-md5", "true");
        assert_eq!(world.ask(hashed).await.header("content-md5"), md5(&bytes[5..10]));
        let whole = Ask::new(Method::GET, "acct1", "/cc1/b").by(&member);
        let whole = world.ask(whole.with("x-ms-range-get-content-md5", "true")).await;
        assert_eq!(whole.outcome(), "400 InvalidHeaderValue", "there is no range");
        let beyond =
            Ask::new(Method::GET, "acct1", "/cc1/b").by(&member).with("range", &format!("bytes={length}-"));
        let beyond = world.ask(beyond).await;
        assert_eq!(beyond.outcome(), "416 InvalidRange");
        assert_eq!(beyond.header("content-range"), format!("bytes */{length}"));
    }
    world.put(&member, "acct1", "/cc1/empty", "").await;
    let empty =
        Ask::new(Method::GET, "acct1", "/cc1/empty").by(&member).with("x-ms-range", "bytes=0-33554431");
    assert_eq!(world.ask(empty).await.outcome(), "416 InvalidRange");
    let wrong = Ask::new(Method::GET, "acct1", "/cc1/b").by(&member).with("x-ms-range", "bytes=9-5");
    assert_eq!(world.ask(wrong).await.outcome(), "400 InvalidHeaderValue");
}

#[tokio::test]
async fn properties_and_metadata_are_kept_and_changed() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let ask = Ask::new(Method::PUT, "acct1", "/cc1/b")
        .by(&member)
        .with("x-ms-blob-type", "BlockBlob")
        .with("content-type", "application/x-www-form-urlencoded")
        .with("cache-control", "no-store")
        .with("x-ms-blob-content-disposition", "attachment")
        .with("x-ms-access-tier", "Cool")
        .with("x-ms-meta-first", "one")
        .body("127.0.0.1 localhost\n");
    assert_eq!(world.ask(ask).await.outcome(), "201");
    let got = world.get(&member, "acct1", "/cc1/b").await;
    for (name, value) in [
        ("content-type", "application/x-www-form-urlencoded"),
        ("cache-control", "no-store"),
        ("content-disposition", "attachment"),
        ("x-ms-access-tier", "Cool"),
        ("x-ms-meta-first", "one"),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    world.clock.advance_seconds(60);
    let set =
        Ask::new(Method::PUT, "acct1", "/cc1/b?comp=metadata").by(&member).with("x-ms-meta-second", "two");
    let set = world.ask(set).await;
    assert_eq!(set.outcome(), "200");
    assert_ne!(set.header("etag"), got.header("etag"));
    let metadata = world.get(&member, "acct1", "/cc1/b?comp=metadata").await;
    assert_eq!((metadata.header("x-ms-meta-first"), metadata.header("x-ms-meta-second")), ("", "two"));
    let head = world.ask(Ask::new(Method::HEAD, "acct1", "/cc1/b?comp=metadata").by(&member)).await;
    assert_eq!((head.outcome(), head.header("x-ms-meta-second")), ("200".to_owned(), "two"));
    assert_eq!(head.header("etag"), metadata.header("etag"));
    assert_eq!((head.header("x-ms-blob-type"), head.bytes.len()), ("", 0));
    let set = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=properties")
        .by(&member)
        .with("x-ms-blob-content-type", "text/plain");
    assert_eq!(world.ask(set).await.outcome(), "200");
    let got = world.get(&member, "acct1", "/cc1/b").await;
    assert_eq!((got.header("content-type"), got.header("cache-control")), ("text/plain", ""));
    assert_eq!(got.text(), "127.0.0.1 localhost\n");
    assert_eq!(got.header("last-modified"), "Sat, 21 Nov 2026 12:01:00 GMT");
    assert_eq!(got.header("x-ms-creation-time"), "Sat, 21 Nov 2026 12:00:00 GMT");
    assert_eq!(world.delete(&member, "acct1", "/cc1/b").await.outcome(), "202");
    for path in ["/cc1/b", "/cc1/b?comp=metadata"] {
        assert_eq!(world.get(&member, "acct1", path).await.outcome(), "404 BlobNotFound");
    }
    assert_eq!(world.delete(&member, "acct1", "/cc1/b").await.outcome(), "404 BlobNotFound");
    let gone = Ask::new(Method::HEAD, "acct1", "/cc1/b").by(&member);
    let gone = world.ask(gone).await;
    assert_eq!((gone.outcome().as_str(), gone.bytes.len()), ("404 BlobNotFound", 0));
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let put = || Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).body("x");
    assert_eq!(world.ask(put()).await.outcome(), "400 MissingRequiredHeader");
    for (header, value, outcome) in [
        ("x-ms-blob-type", "AppendBlob", "400 UnsupportedHeader"),
        ("x-ms-blob-type", "Other", "400 InvalidHeaderValue"),
    ] {
        assert_eq!(world.ask(put().with(header, value)).await.outcome(), outcome, "{value}");
    }
    let put = || put().with("x-ms-blob-type", "BlockBlob");
    for (header, value, outcome) in [
        ("x-ms-copy-source", "https://example.net/", "400 UnsupportedHeader"),
        ("x-ms-content-crc64", "AAAAAAAAAAA=", "400 UnsupportedHeader"),
        ("x-ms-encryption-key", "x", "400 UnsupportedHeader"),
        ("x-ms-tags", "a=b", "400 UnsupportedHeader"),
        ("x-ms-access-tier", "Archive", "400 InvalidBlobTier"),
        ("x-ms-lease-id", "x", "412 LeaseNotPresentWithBlobOperation"),
        ("x-ms-meta-a-b", "x", "400 InvalidMetadata"),
        ("x-ms-meta-a", &"x".repeat(9000), "400 MetadataTooLarge"),
        ("content-md5", "x", "400 InvalidMd5"),
        ("content-md5", &md5(b"y"), "400 Md5Mismatch"),
        ("x-ms-blob-content-md5", &md5(b"y"), "400 Md5Mismatch"),
        ("if-modified-since", "yesterday", "400 InvalidHeaderValue"),
        ("if-match", "\"a\", \"b\"", "400 InvalidHeaderValue"),
    ] {
        assert_eq!(world.ask(put().with(header, value)).await.outcome(), outcome, "{header}: {value}");
    }
    // Of several the first is not taken for all.
    for (header, [one, other]) in [
        ("x-ms-blob-type", ["BlockBlob", "AppendBlob"]),
        ("x-ms-access-tier", ["Hot", "Cool"]),
        ("x-ms-blob-content-type", ["text/plain", "text/html"]),
        ("content-md5", [&md5(b"x"), &md5(b"y")]),
    ] {
        let twice = world.ask(put().with(header, one).with(header, other)).await;
        assert_eq!(twice.outcome(), "400 InvalidHeaderValue", "{header}");
    }
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.outcome(), "404 BlobNotFound");
    assert_eq!(world.ask(put().with("content-md5", &md5(b"x"))).await.outcome(), "201");
    let delete = Ask::new(Method::DELETE, "acct1", "/cc1/b").by(&member);
    let delete = delete.with("x-ms-delete-snapshots", "include").with("x-ms-delete-snapshots", "only");
    assert_eq!(world.ask(delete).await.outcome(), "400 InvalidHeaderValue");
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "x");
    let missing = world.put(&member, "acct1", "/other/b", "x").await;
    assert_eq!(missing.outcome(), "404 ContainerNotFound");
    let public = Ask::new(Method::PUT, "acct1", "/open?restype=container").by(&member);
    let public = world.ask(public.with("x-ms-blob-public-access", "blob")).await;
    assert_eq!(public.outcome(), "409 PublicAccessNotPermitted");
    let long = Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
    let long = world.ask(long.with("content-length", &(256 * 1024 * 1024 + 1).to_string())).await;
    assert_eq!(long.outcome(), "413 RequestBodyTooLarge");
}

#[tokio::test]
async fn a_body_that_is_not_there_and_not_announced_makes_no_blob_empty() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/b", "before").await;
    let put = || Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
    let block = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=block&blockid=YQ%3D%3D").by(&member);
    for ask in [put(), block] {
        let refused = world.ask(ask).await;
        assert_eq!(refused.outcome(), "411 MissingContentLengthHeader");
        assert!(refused.text().contains("The Content-Length header was not specified."));
    }
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "before");
    // As HTTP/2 has it.
    let unannounced = world.ask_with_body(put(), arcadia_kernel::full_body("after")).await;
    assert_eq!(unannounced.outcome(), "201");
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "after");
    assert_eq!(world.ask(put().with("transfer-encoding", "chunked")).await.outcome(), "201");
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "");
}

fn breaking(parts: Vec<Vec<u8>>) -> Body {
    let mut frames: Vec<Result<Frame<Bytes>, BodyError>> =
        parts.into_iter().map(|part| Ok(Frame::data(Bytes::from(part)))).collect();
    frames.push(Err(BodyError("the connection was lost".into())));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/b", "before").await;
    for parts in [vec![], vec![vec![1; 10]], vec![vec![1; 300_000], vec![2; 400_000]]] {
        let ask = Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
        let answer = world.ask_with_body(ask, breaking(parts.clone())).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        let block = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=block&blockid=YQ%3D%3D").by(&member);
        assert_eq!(world.ask_with_body(block, breaking(parts)).await.status, 400);
    }
    let short = Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
    let short =
        world.ask_with_body(short.with("content-length", "9"), arcadia_kernel::full_body("short")).await;
    assert_eq!(short.status, 400);
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "before");
    assert_eq!(world.files().0, 0, "no file is left");
    assert_eq!(world.rows("storage/places").await, 1);
    assert_eq!(world.rows("storage/drafts").await, 0);
}

#[tokio::test]
async fn hostile_names() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let names = [
        ("a%20b", "a b"),
        ("a%2Fb", "a/b"),
        ("a//b", "a//b"),
        ("a/b/", "a/b/"),
        ("./a", "./a"),
        ("../a", "../a"),
        ("%2e%2e", ".."),
        ("%2525", "%25"),
        ("k%C3%A4se", "käse"),
        ("%F0%9F%92%BE", "💾"),
        ("a%3Fb%23", "a?b#"),
        ("A", "A"),
        ("a", "a"),
        ("%3Cb%3E%26%22", "<b>&\""),
        ("+", "+"),
        ("%5C", "\\"),
    ];
    for (path, name) in names {
        let put = world.put(&member, "acct1", &format!("/cc1/{path}"), name.to_owned()).await;
        assert_eq!(put.outcome(), "201", "{name}");
    }
    for (path, name) in names {
        assert_eq!(world.get(&member, "acct1", &format!("/cc1/{path}")).await.text(), name);
    }
    let mut expected: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
    expected.sort_unstable();
    let listed = world.get(&member, "acct1", "/cc1?restype=container&comp=list").await.all("Name");
    let unescape = |name: &String| {
        name.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
    };
    assert_eq!(listed.iter().map(unescape).collect::<Vec<_>>(), expected);
    for path in ["%00", "a%0Ab", "a%01", &"a".repeat(1025), "%ff"] {
        let put = world.put(&member, "acct1", &format!("/cc1/{path}"), "x").await;
        assert_eq!(put.status, 400, "{path}: {}", put.outcome());
    }
    let longest = format!("/cc1/{}", "%C3%A4".repeat(1024));
    assert_eq!(world.put(&member, "acct1", &longest, "x").await.outcome(), "201");
    let create = async |container: &str| {
        let ask = Ask::new(Method::PUT, "acct1", &format!("/{container}?restype=container")).by(&member);
        world.ask(ask).await
    };
    for container in ["Cc1", "a--b", "-ab", "...", "$root", "$web", "$logs", "a.b", "a%2Fb", "%C3%A4bc"] {
        assert_eq!(create(container).await.outcome(), "400 InvalidResourceName", "{container}");
    }
    for container in ["ab", "a", "..", "C1", &"a".repeat(64)] {
        let refused = create(container).await;
        assert_eq!(refused.outcome(), "400 OutOfRangeInput", "{container}");
        assert!(
            refused
                .text()
                .contains("The specified resource name length is not within the permissible limits.")
        );
    }
}
