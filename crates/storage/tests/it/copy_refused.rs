//! Who may copy what, and which copies are refused.

use arcadia_kernel::{Body, Method};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::oneshot;

use crate::copy::{ACCOUNT, NOT_YOURS, copying, put_blocks, site};
use crate::support::*;

#[tokio::test]
async fn an_account_key_copies_within_its_account() {
    let (world, member) = site().await;
    world.make_account("acct2").await;
    let [one, other] = [world.keys("acct1").await[0].clone(), world.keys("acct2").await[0].clone()];
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let within = copying("/cc1/c", &format!("{ACCOUNT}/cc1/b")).signed("acct1", &one, START);
    assert_eq!(world.ask(within).await.outcome(), "202");
    assert_eq!(world.get(&member, "acct1", "/cc1/c").await.text(), "hello");
    // Into the account of the key, from one that has other keys.
    let container = Ask::new(Method::PUT, "acct2", "/cc2?restype=container").with("content-length", "0");
    assert_eq!(world.ask(container.signed("acct2", &other, START)).await.outcome(), "201");
    for source in ["/cc1/b", "/cc1/none", "/none/b"] {
        let ask = Ask::new(Method::PUT, "acct2", "/cc2/c").with("content-length", "0");
        let ask = ask.with("x-ms-copy-source", &format!("{ACCOUNT}{source}")).signed("acct2", &other, START);
        let refused = world.ask(ask).await;
        assert_eq!(refused.outcome(), NOT_YOURS, "{source}");
        assert_eq!(refused.all("CopySourceErrorCode"), ["AuthorizationPermissionMismatch"]);
        assert_eq!(refused.header("x-ms-copy-source-status-code"), "403");
    }
    let foreign = copying("/cc1/d", &format!("{ACCOUNT}/cc1/b")).signed("acct1", &other, START);
    assert_eq!(world.ask(foreign).await.outcome(), "403 AuthenticationFailed");
}

#[tokio::test]
async fn a_token_copies_what_its_roles_let_it_read() {
    let (world, member) = site().await;
    world.make_account("acct2").await;
    let caller = world.caller("writer-of-two");
    world.grant(&caller, BLOB_CONTRIBUTOR, &world.account("acct2")).await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    world.make_container(&caller, "acct2", "cc2").await;
    let across = async |caller: &Caller, source: &str| {
        let ask = Ask::new(Method::PUT, "acct2", "/cc2/c").with("content-length", "0").by(caller);
        world.ask(ask.with("x-ms-copy-source", &format!("{ACCOUNT}{source}"))).await.outcome()
    };
    // What is there and what is not look the same to who may not read it.
    for source in ["/cc1/b", "/cc1/none", "/none/b"] {
        assert_eq!(across(&caller, source).await, NOT_YOURS, "{source}");
    }
    assert_eq!(world.get(&caller, "acct2", "/cc2/c").await.outcome(), "404 BlobNotFound");
    // A container whose name the source's begins with.
    world.make_container(&member, "acct1", "cc1x").await;
    world.put(&member, "acct1", "/cc1x/b", "other").await;
    world.grant(&caller, BLOB_READER, &world.container("acct1", "cc1")).await;
    assert_eq!(across(&caller, "/cc1x/b").await, NOT_YOURS);
    assert_eq!(across(&caller, "/cc1/../cc1x/b").await, "404 CannotVerifyCopySource");
    assert_eq!(across(&caller, "/cc1/b").await, "202");
    assert_eq!(world.get(&caller, "acct2", "/cc2/c").await.text(), "hello");
    // Who may read there and not write here.
    let reader = world.caller("reader-of-both");
    world.grant(&reader, BLOB_READER, &world.account("acct1")).await;
    world.grant(&reader, BLOB_READER, &world.account("acct2")).await;
    assert_eq!(across(&reader, "/cc1/b").await, "403 AuthorizationPermissionMismatch");
}

/// Who has a right to both accounts, and a token for one.
#[tokio::test]
async fn a_token_for_one_account_copies_nothing_of_another() {
    let (world, member) = site().await;
    world.make_account("acct2").await;
    world.grant(&member, BLOB_CONTRIBUTOR, &world.account("acct2")).await;
    world.make_container(&member, "acct2", "cc2").await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let own = member.bearer("https://acct2.blob.core.windows.net");
    let ask = |source: &str| {
        Ask::new(Method::PUT, "acct2", "/cc2/c")
            .with("x-ms-copy-source", source)
            .with("content-length", "0")
            .with("authorization", &own)
    };
    for source in
        ["https://acct1.blob.core.windows.net/cc1/b", "https://ACCT1.blob.core.windows.net:443/cc1/b"]
    {
        assert_eq!(world.ask(ask(source)).await.outcome(), "401 InvalidAuthenticationInfo", "{source}");
    }
    world.put(&member, "acct2", "/cc2/b", "own").await;
    assert_eq!(world.ask(ask("https://acct2.blob.core.windows.net/cc2/b")).await.outcome(), "202");
    assert_eq!(world.get(&member, "acct2", "/cc2/c").await.text(), "own");
}

#[tokio::test]
async fn sources_elsewhere_and_sources_that_are_not_there_are_refused() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    for source in [
        "https://acct1.blob.core.windows.net/cc1/b",
        "HTTPS://ACCT1.Blob.Core.Windows.Net:443/cc1/b",
        "https://acct1.blob.core.windows.net/cc1/%62?comp=x&timeout=3",
    ] {
        let copied = world.ask(copying("/cc1/c", source).by(&member)).await;
        assert_eq!(copied.outcome(), "202", "{source}");
        assert_eq!(world.get(&member, "acct1", "/cc1/c").await.text(), "hello");
        world.delete(&member, "acct1", "/cc1/c").await;
    }
    for (source, outcome) in [
        ("https://example.net/cc1/b", "409 CannotVerifyCopySource"),
        ("https://127.0.0.1/cc1/b", "409 CannotVerifyCopySource"),
        ("https://localhost/cc1/b", "409 CannotVerifyCopySource"),
        ("https://[::1]:443/cc1/b", "409 CannotVerifyCopySource"),
        ("https://169.254.169.254/metadata/instance", "409 CannotVerifyCopySource"),
        ("https://v1.vault.azure.net/secrets/s", "409 CannotVerifyCopySource"),
        ("https://acct1.blob.core.windows.net:8443/cc1/b", "409 CannotVerifyCopySource"),
        ("http://acct1.blob.core.windows.net/cc1/b", "400 CannotVerifyCopySource"),
        ("https://acct9.blob.core.windows.net/cc1/b", "404 CannotVerifyCopySource"),
        ("https://acct1.blob.core.windows.net/cc1/none", "404 CannotVerifyCopySource"),
        ("https://acct1.blob.core.windows.net/cc9/b", "404 CannotVerifyCopySource"),
        ("https://acct1.blob.core.windows.net/cc1", "404 CannotVerifyCopySource"),
        (
            "https://acct1.blob.core.windows.net/cc1/b?snapshot=2026-01-01T00:00:00Z",
            "404 CannotVerifyCopySource",
        ),
        ("https://acct1.blob.core.windows.net/cc1/b?sp=r&sig=x", "403 CannotVerifyCopySource"),
        ("https://user@acct1.blob.core.windows.net/cc1/b", "400 InvalidHeaderValue"),
        ("/acct1/cc1/b", "400 InvalidHeaderValue"),
        ("", "400 InvalidHeaderValue"),
    ] {
        let refused = world.ask(copying("/cc1/c", source).by(&member)).await;
        assert_eq!(refused.outcome(), outcome, "{source}");
    }
    let twice = copying("/cc1/c", &format!("{ACCOUNT}/cc1/b")).by(&member);
    let twice = twice.with("x-ms-copy-source", &format!("{ACCOUNT}/cc1/b"));
    assert_eq!(world.ask(twice).await.outcome(), "400 InvalidHeaderValue");
    let absent = world.copy(&member, "/cc1/c", "/cc1/none").await;
    assert_eq!(absent.all("CopySourceErrorCode"), ["BlobNotFound"]);
    assert!(absent.text().contains("<Message>The specified blob does not exist.\n"));
    assert_eq!(world.copy(&member, "/cc9/c", "/cc1/b").await.outcome(), "404 ContainerNotFound");
    assert_eq!(world.get(&member, "acct1", "/cc1/c").await.outcome(), "404 BlobNotFound");
    assert_eq!(world.files().0, 0);
}

/// A body of nothing that says when it is read, and ends when it is told to.
fn waiting(begun: oneshot::Sender<()>, until: oneshot::Receiver<()>) -> Body {
    let frames = stream::once(async move {
        begun.send(()).unwrap();
        let _ = until.await;
        Ok(Frame::data(Bytes::new()))
    });
    StreamBody::new(frames).boxed_unsync()
}

#[tokio::test]
async fn a_right_that_ends_meanwhile_is_not_used() {
    let (world, member) = site().await;
    world.make_container(&member, "acct1", "cc2").await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let writer = world.caller("writer");
    for (ends_at_source, outcome) in [(true, NOT_YOURS), (false, "403 AuthorizationPermissionMismatch")] {
        let read = world.grant(&writer, BLOB_READER, &world.container("acct1", "cc1")).await;
        let write = world.grant(&writer, BLOB_CONTRIBUTOR, &world.container("acct1", "cc2")).await;
        let mut ask = copying("/cc2/c", &format!("{ACCOUNT}/cc1/b")).by(&writer);
        ask.headers.retain(|(name, _)| name != "content-length");
        let (begin, begun) = oneshot::channel();
        let (end, until) = oneshot::channel();
        let taking = async {
            // The request is past its first checks then.
            begun.await.unwrap();
            world.revoke(if ends_at_source { &read } else { &write }).await;
            end.send(()).unwrap();
        };
        let (answer, ()) = tokio::join!(world.ask_with_body(ask, waiting(begin, until)), taking);
        assert_eq!(answer.outcome(), outcome);
        world.revoke(if ends_at_source { &write } else { &read }).await;
    }
    assert_eq!(world.get(&member, "acct1", "/cc2/c").await.outcome(), "404 BlobNotFound");
    world.clock.advance_seconds(2 * DAY);
    world.sweep().await;
    assert_eq!((world.files().0, world.rows("storage/places").await), (0, 1));
}

#[tokio::test]
async fn conditions_of_both_sides() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    world.clock.advance_seconds(3600);
    world.put(&member, "acct1", "/cc1/there", "before").await;
    let source = world.head(&member, "/cc1/b").await.header("etag").to_owned();
    let there = world.head(&member, "/cc1/there").await.header("etag").to_owned();
    let (past, between, future) =
        ("Sat, 21 Nov 2026 11:00:00 GMT", "Sat, 21 Nov 2026 12:30:00 GMT", "Sat, 21 Nov 2026 14:00:00 GMT");
    const NOT_MET: &str = "412 SourceConditionNotMet";
    for (name, value, outcome) in [
        ("x-ms-source-if-match", &*source, "202"),
        ("x-ms-source-if-match", "*", "202"),
        ("x-ms-source-if-match", &there, NOT_MET),
        ("x-ms-source-if-none-match", &there, "202"),
        ("x-ms-source-if-none-match", &source, NOT_MET),
        ("x-ms-source-if-none-match", "*", NOT_MET),
        ("x-ms-source-if-modified-since", past, "202"),
        ("x-ms-source-if-modified-since", between, NOT_MET),
        ("x-ms-source-if-unmodified-since", between, "202"),
        ("x-ms-source-if-unmodified-since", past, NOT_MET),
        ("x-ms-source-if-modified-since", "yesterday", "400 InvalidHeaderValue"),
        ("x-ms-source-if-tags", "a='b'", "400 UnsupportedHeader"),
        ("x-ms-source-lease-id", "x", "412 LeaseNotPresentWithBlobOperation"),
        ("if-none-match", "*", "409 BlobAlreadyExists"),
        ("if-none-match", &there, "412 ConditionNotMet"),
        ("if-none-match", &source, "202"),
        ("if-match", &source, "412 ConditionNotMet"),
        ("if-match", &there, "202"),
        ("if-modified-since", future, "412 ConditionNotMet"),
        ("if-unmodified-since", between, "412 ConditionNotMet"),
        ("if-unmodified-since", future, "202"),
        ("x-ms-if-tags", "a='b'", "400 UnsupportedHeader"),
        ("x-ms-lease-id", "x", "412 LeaseNotPresentWithBlobOperation"),
    ] {
        // The tag of what is there, as the last copy left it.
        let now = world.head(&member, "/cc1/there").await.header("etag").to_owned();
        let value = if value == there { &now } else { value };
        let ask = copying("/cc1/there", &format!("{ACCOUNT}/cc1/b")).by(&member).with(name, value);
        assert_eq!(world.ask(ask).await.outcome(), outcome, "{name}: {value}");
    }
    let fresh = copying("/cc1/fresh", &format!("{ACCOUNT}/cc1/b")).by(&member);
    assert_eq!(world.ask(fresh.with("if-match", "*")).await.outcome(), "412 ConditionNotMet");
    let fresh = copying("/cc1/fresh", &format!("{ACCOUNT}/cc1/b")).by(&member);
    assert_eq!(world.ask(fresh.with("if-none-match", "*")).await.outcome(), "202");
}

#[tokio::test]
async fn a_copy_that_waits_by_its_own_words_is_checked() {
    let (world, member) = site().await;
    let ask = || copying("/cc1/c", &format!("{ACCOUNT}/cc1/b")).by(&member);
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let sync = || ask().with("x-ms-requires-sync", "true");
    let copied = world.ask(sync()).await;
    assert_eq!((copied.outcome(), copied.header("content-md5")), ("202".to_owned(), &*md5(b"hello")));
    assert_eq!(copied.header("x-ms-copy-status"), "success");
    let token = member.bearer(AUDIENCE);
    for (name, value, outcome) in [
        ("x-ms-source-content-md5", &*md5(b"hello"), "202"),
        ("x-ms-source-content-md5", &md5(b"other"), "400 Md5Mismatch"),
        ("x-ms-source-content-md5", "x", "400 InvalidMd5"),
        ("x-ms-copy-source-authorization", &token, "202"),
        ("x-ms-copy-source-authorization", "Bearer x|y", "400 UnsupportedHeader"),
    ] {
        assert_eq!(world.ask(sync().with(name, value)).await.outcome(), outcome, "{name}: {value}");
    }
    for (name, value, outcome) in [
        ("x-ms-requires-sync", "perhaps", "400 InvalidHeaderValue"),
        ("x-ms-source-content-md5", &*md5(b"hello"), "400 UnsupportedHeader"),
        ("x-ms-copy-source-authorization", &token, "400 UnsupportedHeader"),
    ] {
        assert_eq!(world.ask(ask().with(name, value)).await.outcome(), outcome, "{name}: {value}");
    }
    put_blocks(&world, &member, "/cc1/b", &[b"no hash"], &[0]).await;
    let copied = world.ask(sync()).await;
    assert_eq!((copied.outcome(), copied.header("content-md5")), ("202".to_owned(), ""));
}

#[tokio::test]
async fn what_a_copy_cannot_have_is_refused() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let ask = || copying("/cc1/c", &format!("{ACCOUNT}/cc1/b")).by(&member);
    for (name, value, outcome) in [
        ("x-ms-tags", "a=b", "400 UnsupportedHeader"),
        ("x-ms-copy-source-tag-option", "COPY", "400 UnsupportedHeader"),
        ("x-ms-seal-blob", "true", "400 UnsupportedHeader"),
        ("x-ms-rehydrate-priority", "High", "400 UnsupportedHeader"),
        ("x-ms-legal-hold", "true", "400 UnsupportedHeader"),
        ("x-ms-immutability-policy-mode", "Unlocked", "400 UnsupportedHeader"),
        ("x-ms-encryption-scope", "s", "400 UnsupportedHeader"),
        ("x-ms-source-range", "bytes=0-1", "400 UnsupportedHeader"),
        ("x-ms-blob-content-type", "text/plain", "400 UnsupportedHeader"),
        ("x-ms-access-tier", "Archive", "400 InvalidBlobTier"),
        ("x-ms-access-tier", "Warm", "400 InvalidHeaderValue"),
        ("x-ms-meta-a-b", "x", "400 InvalidMetadata"),
        // Put Blob From URL.
        ("x-ms-blob-type", "BlockBlob", "400 UnsupportedHeader"),
    ] {
        let refused = world.ask(ask().with(name, value)).await;
        assert_eq!(refused.outcome(), outcome, "{name}");
    }
    let from_url = world.ask(ask().with("x-ms-blob-type", "BlockBlob")).await;
    assert_eq!(from_url.all("HeaderName"), ["x-ms-copy-source"]);
    let block = copying("/cc1/c?comp=block&blockid=YQ%3D%3D", &format!("{ACCOUNT}/cc1/b")).by(&member);
    let block = world.ask(block).await;
    assert_eq!(
        (block.outcome().as_str(), block.all("HeaderName")),
        ("400 UnsupportedHeader", vec!["x-ms-copy-source".to_owned()])
    );
    let mut with_body = ask();
    with_body.headers.retain(|(name, _)| name != "content-length");
    assert_eq!(world.ask(with_body.body("x")).await.outcome(), "400 InvalidInput");
    assert_eq!(world.get(&member, "acct1", "/cc1/c").await.outcome(), "404 BlobNotFound");
}

/// az asks for such a key first where a source is named by its container and blob.
#[tokio::test]
async fn who_asks_for_a_delegation_key_is_told_what_to_do_instead() {
    let (world, member) = site().await;
    let path = "/?restype=service&comp=userdelegationkey";
    let ask = Ask::new(Method::POST, "acct1", path).body("<KeyInfo/>").by(&member);
    let refused = world.ask(ask).await;
    assert_eq!(refused.outcome(), "400 InvalidUri");
    let message = &refused.all("Message")[0];
    for word in ["delegation keys", "shared access signatures", "--source-uri"] {
        assert!(message.contains(word), "{message}");
    }
    let stranger = world.ask(Ask::new(Method::POST, "acct1", path).body("<KeyInfo/>")).await;
    assert_eq!(stranger.outcome(), "401 NoAuthenticationInformation");
}
