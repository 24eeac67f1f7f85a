//! Signatures with an account's key.

use arcadia_kernel::{Method, full_body};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::support::*;

const FAILED: &str = "403 AuthenticationFailed";

#[tokio::test]
async fn a_key_opens_everything_in_its_account_and_nothing_elsewhere() {
    let (world, _) = World::with_account("acct1").await;
    world.make_account("acct2").await;
    let key = world.keys("acct1").await[0].clone();
    let signed = |ask: Ask| ask.signed("acct1", &key, START);
    let make = signed(Ask::new(Method::PUT, "acct1", "/cc1?restype=container"));
    assert_eq!(world.ask(make).await.outcome(), "201");
    let put = Ask::new(Method::PUT, "acct1", "/cc1/a%20b/%C3%A4?timeout=20")
        .with("x-ms-blob-type", "BlockBlob")
        .with("content-type", "text/plain")
        .with("x-ms-meta-a", "b")
        .with("if-none-match", "*")
        .body("x");
    assert_eq!(world.ask(signed(put)).await.outcome(), "201");
    let get = Ask::new(Method::GET, "acct1", "/cc1/a%20b/%C3%A4").with("range", "bytes=0-0");
    assert_eq!(world.ask(signed(get)).await.text(), "x");
    let list =
        Ask::new(Method::GET, "acct1", "/cc1?restype=container&comp=list&prefix=a%20b%2F&delimiter=%2F");
    assert_eq!(world.ask(signed(list)).await.all("Name"), ["a b/ä"]);
    let delete = Ask::new(Method::DELETE, "acct1", "/cc1?restype=container");
    assert_eq!(world.ask(signed(delete)).await.outcome(), "202");

    let other = Ask::new(Method::GET, "acct2", "/?comp=list").signed("acct2", &key, START);
    assert_eq!(world.ask(other).await.outcome(), FAILED);
    let named = Ask::new(Method::GET, "acct2", "/?comp=list").signed("acct1", &key, START);
    assert_eq!(world.ask(named).await.outcome(), FAILED);
    let nowhere = Ask::new(Method::GET, "acct9", "/?comp=list").signed("acct9", &key, START);
    assert_eq!(world.ask(nowhere).await.outcome(), FAILED);
}

#[tokio::test]
async fn a_signature_one_byte_off_is_none() {
    let (world, _) = World::with_account("acct1").await;
    let key = world.keys("acct1").await[0].clone();
    let good = || Ask::new(Method::GET, "acct1", "/?comp=list").signed("acct1", &key, START);
    assert_eq!(world.ask(good()).await.outcome(), "200");
    let value = good().headers.last().unwrap().1.clone();
    let (start, signature) = value.split_at("SharedKey acct1:".len());
    let bytes = arcadia_crypto::b64_decode(signature).unwrap();
    for at in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[at] ^= 1;
        let mut ask = good();
        ask.headers.last_mut().unwrap().1 = format!("{start}{}", arcadia_crypto::b64(&bent));
        assert_eq!(world.ask(ask).await.outcome(), FAILED, "{at}");
    }
    for value in [
        "SharedKey acct1:",
        "SharedKey acct1",
        "SharedKey :",
        "SharedKey acct1:====",
        "SharedKeyLite acct1:x",
        "Basic eDp5",
        &format!("{start}{}", &signature[..20]),
    ] {
        let mut ask = good();
        ask.headers.last_mut().unwrap().1 = value.to_owned();
        assert_eq!(world.ask(ask).await.outcome(), FAILED, "{value}");
    }
}

#[tokio::test]
async fn what_is_signed_cannot_be_changed() {
    let (world, _) = World::with_account("acct1").await;
    let key = world.keys("acct1").await[0].clone();
    let make = Ask::new(Method::PUT, "acct1", "/cc1?restype=container").signed("acct1", &key, START);
    assert_eq!(world.ask(make).await.outcome(), "201");
    let good = || {
        Ask::new(Method::PUT, "acct1", "/cc1/b?timeout=20")
            .with("x-ms-blob-type", "BlockBlob")
            .with("content-type", "text/plain")
            .body("x")
            .signed("acct1", &key, START)
    };
    let changes: [fn(&mut Ask); 7] = [
        |ask| ask.target = "/cc1/c?timeout=20".to_owned(),
        |ask| ask.target = "/cc1/b?timeout=21".to_owned(),
        |ask| ask.target = "/cc1/b?timeout=20&comp=block&blockid=YQ%3D%3D".to_owned(),
        |ask| ask.method = Method::DELETE,
        |ask| ask.headers.push(("x-ms-meta-a".to_owned(), "b".to_owned())),
        |ask| ask.headers.push(("if-match".to_owned(), "*".to_owned())),
        |ask| ask.headers.push(("content-type".to_owned(), "text/html".to_owned())),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut ask = good();
        change(&mut ask);
        let answer = world.ask(ask).await;
        assert!(answer.status == 403 || answer.status == 400, "{at}: {}", answer.outcome());
    }
    let get = Ask::new(Method::GET, "acct1", "/cc1/b").signed("acct1", &key, START);
    assert_eq!(world.ask(get).await.outcome(), "404 BlobNotFound");
    assert_eq!(world.ask(good()).await.outcome(), "201");
}

#[tokio::test]
async fn a_stale_date_is_refused() {
    let (world, _) = World::with_account("acct1").await;
    let key = world.keys("acct1").await[0].clone();
    let at =
        |seconds: i64| Ask::new(Method::GET, "acct1", "/?comp=list").signed("acct1", &key, START + seconds);
    for (seconds, outcome) in
        [(0, "200"), (899, "200"), (-899, "200"), (901, FAILED), (-901, FAILED), (DAY, FAILED)]
    {
        assert_eq!(world.ask(at(seconds)).await.outcome(), outcome, "{seconds}");
    }
    let mut undated = at(0);
    undated.headers.retain(|(name, _)| name != "x-ms-date");
    assert_eq!(world.ask(undated).await.outcome(), FAILED);
}

#[tokio::test]
async fn a_key_that_is_taken_away_while_a_body_arrives_writes_nothing() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let key = world.keys("acct1").await[0].clone();
    let regenerate = format!("{}/regenerateKey", world.account("acct1"));
    let account = world.account("acct1");
    for (method, path, change, outcome) in [
        (Method::POST, &regenerate, json!({ "keyName": "key2" }), "201"),
        (Method::POST, &regenerate, json!({ "keyName": "key1" }), FAILED),
        (
            Method::PATCH,
            &account,
            json!({ "properties": { "allowSharedKeyAccess": false } }),
            "403 KeyBasedAuthenticationNotPermitted",
        ),
        (Method::DELETE, &account, Value::Null, "404 ResourceNotFound"),
    ] {
        let (arrive, arrived) = tokio::sync::oneshot::channel();
        let slow = full_body("x").with_trailers(async {
            arrived.await.unwrap();
            None
        });
        let key = if path == &regenerate { key.clone() } else { world.keys("acct1").await[0].clone() };
        let put = Ask::new(Method::PUT, "acct1", "/cc1/b").with("x-ms-blob-type", "BlockBlob");
        let put = put.with("content-length", "1").signed("acct1", &key, START);
        let put = world.ask_with_body(put, slow.boxed_unsync());
        let change_it = async {
            let answer = world.manage(method.clone(), path, change).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            arrive.send(()).unwrap();
        };
        let (put, ()) = futures_util::future::join(put, change_it).await;
        assert_eq!(put.outcome(), outcome, "{method} {path}");
        if outcome == "201" {
            world.delete(&member, "acct1", "/cc1/b").await;
        }
        assert_eq!(world.rows("storage/blobs").await, 0, "{method} {path}");
        world
            .manage(Method::PATCH, &account, json!({ "properties": { "allowSharedKeyAccess": true } }))
            .await;
    }
}
