//! What eight clients want of one blob at the same moment, and one can have.

use std::sync::Arc;

use arcadia_crypto::{KeyRing, SystemEntropy, b64};
use arcadia_kernel::Method;
use arcadia_races::{block_on, race, rounds};
use arcadia_storage::BytePin;
use serde_json::{Value, json};

use crate::support::*;

fn winners(outcomes: &[String]) -> usize {
    outcomes.iter().filter(|outcome| *outcome == "201").count()
}

/// An uncommitted block goes into a blob once.
#[test]
fn an_uncommitted_block_is_committed_by_one() {
    let (world, member) = block_on(World::with_account("acct1"));
    block_on(world.make_container(&member, "acct1", "cc1"));
    let id = b64(b"block-1").replace('=', "%3D");
    let list = format!("<BlockList><Uncommitted>{}</Uncommitted></BlockList>", b64(b"block-1"));
    for round in 0..rounds() {
        let block = Ask::new(Method::PUT, "acct1", &format!("/cc1/b{round}?comp=block&blockid={id}"));
        assert_eq!(block_on(world.ask(block.by(&member).body(&b"one"[..]))).outcome(), "201");
        let outcomes = race(async |_| {
            let ask = Ask::new(Method::PUT, "acct1", &format!("/cc1/b{round}?comp=blocklist")).by(&member);
            world.ask(ask.body(list.clone())).await.outcome()
        });
        assert_eq!(winners(&outcomes), 1, "round {round}: {outcomes:?}");
        assert_eq!(block_on(world.get(&member, "acct1", &format!("/cc1/b{round}"))).text(), "one");
    }
}

#[test]
fn a_blob_that_must_be_new_is_made_by_one() {
    let (world, member) = block_on(World::with_account("acct1"));
    block_on(world.make_container(&member, "acct1", "cc1"));
    for round in 0..rounds() {
        let path = format!("/cc1/b{round}");
        let outcomes = race(async |number| {
            let ask = Ask::new(Method::PUT, "acct1", &path).by(&member).with("x-ms-blob-type", "BlockBlob");
            let ask = ask.with("if-none-match", "*").body(format!("{number}"));
            world.ask(ask).await.outcome()
        });
        assert_eq!(winners(&outcomes), 1, "round {round}: {outcomes:?}");
        let winner = outcomes.iter().position(|outcome| outcome == "201").unwrap();
        assert_eq!(block_on(world.get(&member, "acct1", &path)).text(), winner.to_string());
    }
}

/// What the others sent leaves nothing on the disk, large as it is. Commits to a disk wait for one another, so that
/// others have planned before the first is written.
#[test]
fn an_upload_that_loses_leaves_no_file() {
    let ring = KeyRing::generate(&SystemEntropy).unwrap();
    let world = block_on(World::on_disk(Arc::new(tempfile::tempdir().unwrap()), || ring.clone()));
    let member = block_on(world.make_account_and_member("acct1"));
    block_on(world.make_container(&member, "acct1", "cc1"));
    for round in 1..=rounds() {
        let path = format!("/cc1/b{round}");
        let outcomes = race(async |_| {
            let ask = Ask::new(Method::PUT, "acct1", &path).by(&member).with("x-ms-blob-type", "BlockBlob");
            world.ask(ask.with("if-none-match", "*").body(vec![7; 100_000])).await.outcome()
        });
        assert_eq!(winners(&outcomes), 1, "round {round}: {outcomes:?}");
        assert_eq!(world.files().0, round, "round {round}");
    }
}

/// By the resource manager and by the data plane at once: one container, made once, and whoever puts metadata last is
/// the one who is seen.
#[test]
fn a_container_is_made_by_one_of_both_sides() {
    let (world, member) = block_on(World::with_account("acct1"));
    for round in 0..rounds() {
        let name = format!("cc{round}");
        let outcomes = race(async |number| {
            if number % 2 == 0 {
                let path = format!("/{name}?restype=container");
                return world.ask(Ask::new(Method::PUT, "acct1", &path).by(&member)).await.outcome();
            }
            let body = json!({ "properties": { "metadata": { "number": number.to_string() } } });
            world.manage(Method::PUT, &world.container("acct1", &name), body).await.status.to_string()
        });
        assert_eq!(winners(&outcomes), 1, "round {round}: {outcomes:?}");
        for (number, outcome) in outcomes.iter().enumerate() {
            let allowed =
                if number % 2 == 0 { ["201", "409 ContainerAlreadyExists"] } else { ["201", "200"] };
            assert!(allowed.contains(&&**outcome), "round {round}: {outcomes:?}");
        }
        let shown = block_on(world.manage(Method::GET, &world.container("acct1", &name), Value::Null)).json();
        let number = shown["properties"]["metadata"]["number"].as_str().map(|text| text.parse::<usize>());
        assert!(matches!(number, Some(Ok(number)) if number % 2 == 1), "round {round}: {shown}");
        let gone = race(async |number| {
            if number % 2 == 0 {
                return world.delete(&member, "acct1", &format!("/{name}?restype=container")).await.outcome();
            }
            world
                .manage(Method::DELETE, &world.container("acct1", &name), Value::Null)
                .await
                .status
                .to_string()
        });
        let deleted = gone.iter().filter(|outcome| ["200", "202"].contains(&&***outcome)).count();
        assert_eq!(deleted, 1, "round {round}: {gone:?}");
    }
}

/// An account's name that was free when two looked is one's.
#[tokio::test]
async fn one_of_two_gets_an_accounts_name() {
    let (world, backend) = World::held_up().await;
    let other = format!("{GROUP}2");
    world.make_group(&other).await;
    let body = json!({ "location": "uksouth", "sku": { "name": "Standard_LRS" } });
    let make = async |path: &str| {
        let answer = world.manage(Method::PUT, path, body.clone()).await;
        format!("{} {}", answer.status, answer.json()["error"]["code"])
    };
    let (own, elsewhere) = (world.account("acct1"), world.account("acct1").replace(GROUP, &other));
    let (first, second) = backend.between("storage/names", make(&own), make(&elsewhere)).await;
    assert_eq!((&*first, &*second), ("409 \"StorageAccountAlreadyTaken\"", "200 null"));
    assert_eq!(world.rows("arm/resources").await, 1);
}

/// Two keys that are made anew at once are both new: what they replaced works no more.
#[tokio::test]
async fn no_replaced_key_comes_back() {
    let (world, backend) = World::held_up().await;
    world.make_account("acct1").await;
    let before = world.keys("acct1").await;
    let path = format!("{}/regenerateKey", world.account("acct1"));
    let renew = async |key: &str| world.manage(Method::POST, &path, json!({ "keyName": key })).await.status;
    let renewed = backend.between("storage/keys", renew("key1"), renew("key2")).await;
    assert_eq!(renewed, (200, 200));
    for key in before {
        let list = Ask::new(Method::GET, "acct1", "/?comp=list").signed("acct1", &key, START);
        assert_eq!(world.ask(list).await.outcome(), "403 AuthenticationFailed");
    }
}

#[tokio::test]
async fn an_account_that_goes_has_no_key_to_renew() {
    let (world, backend) = World::held_up().await;
    world.make_account("acct1").await;
    let path = world.account("acct1");
    let renew = format!("{path}/regenerateKey");
    let renew = world.manage(Method::POST, &renew, json!({ "keyName": "key1" }));
    let delete = world.manage(Method::DELETE, &path, Value::Null);
    let (renewed, deleted) = backend.between("storage/keys", renew, delete).await;
    assert_eq!((renewed.status, deleted.status), (404, 200), "{}", renewed.text());
}

/// With a container `cc1` in an account `acct1`, and a contributor of its blobs.
async fn held_up_with_container() -> (World, Arc<Interleaved>, Caller) {
    let (world, backend) = World::held_up().await;
    let member = world.make_account_and_member("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    (world, backend, member)
}

async fn put_to_b(world: &World, member: &Caller, query: &str, body: &'static str) -> String {
    let ask = Ask::new(Method::PUT, "acct1", &format!("/cc1/b?{query}")).by(member);
    world.ask(ask.body(body)).await.outcome()
}

/// A block may come for a draft at the moment when its time is over.
#[tokio::test]
async fn a_sweep_ends_no_draft_that_a_block_comes_for() {
    let (world, backend, member) = held_up_with_container().await;
    let put = async |query: &str, body: &'static str| put_to_b(&world, &member, query, body).await;
    assert_eq!(put("comp=block&blockid=MQ%3D%3D", "one").await, "201");
    world.clock.advance_seconds(8 * DAY);
    let block = put("comp=block&blockid=Mg%3D%3D", "two");
    let (swept, block) = backend.between("storage/drafts", world.sweep(), block).await;
    assert_eq!((swept.drafts, &*block), (0, "201"));
    let list = "<BlockList><Latest>MQ==</Latest><Latest>Mg==</Latest></BlockList>";
    assert_eq!(put("comp=blocklist", list).await, "201");
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "onetwo");
}

/// A block that comes when the sweep has ended the draft begins another: what was in the ended one goes.
#[tokio::test]
async fn a_block_is_of_a_draft_that_is_there() {
    let (world, backend, member) = held_up_with_container().await;
    let put = async |query: &str, body: &'static str| put_to_b(&world, &member, query, body).await;
    assert_eq!(put("comp=block&blockid=MQ%3D%3D", "one").await, "201");
    world.clock.advance_seconds(8 * DAY);
    // While it is copied nothing goes yet.
    let pin = BytePin::take(&world.blobs().join("blobs")).unwrap();
    let block = put("comp=block&blockid=Mg%3D%3D", "two");
    let (block, swept) = backend.between("storage/drafts", block, world.sweep()).await;
    assert_eq!((&*block, swept.drafts), ("201", 1));
    drop(pin);
    world.sweep().await;
    let list = "<BlockList><Latest>Mg==</Latest></BlockList>";
    assert_eq!(put("comp=blocklist", list).await, "201");
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "two");

    // The blocks of a list are not those of an ended one either.
    assert_eq!(put("comp=block&blockid=Mw%3D%3D", "three").await, "201");
    world.clock.advance_seconds(8 * DAY);
    let list = put("comp=blocklist", "<BlockList><Latest>Mw==</Latest></BlockList>");
    let (list, swept) = backend.between("storage/blocks", list, world.sweep()).await;
    assert_eq!((&*list, swept.drafts), ("400 InvalidBlockList", 1));
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "two");
}

/// Nothing is written into what is deleted at that moment.
#[tokio::test]
async fn a_change_is_in_a_container_and_an_account_that_are_there() {
    let (world, backend, member) = held_up_with_container().await;
    world.make_container(&member, "acct1", "cc2").await;
    for path in ["/cc1/b", "/cc2/b"] {
        assert_eq!(world.put(&member, "acct1", path, "x").await.outcome(), "201");
    }
    let change = async |container: &str| {
        let ask = Ask::new(Method::PUT, "acct1", &format!("/{container}/b?comp=metadata")).by(&member);
        world.ask(ask).await.outcome()
    };
    let delete = world.delete(&member, "acct1", "/cc1?restype=container");
    let (changed, deleted) = backend.between("storage/blobs", change("cc1"), delete).await;
    assert_eq!((&*changed, deleted.status), ("404 ContainerNotFound", 202));
    let path = world.account("acct1");
    let delete = world.manage(Method::DELETE, &path, Value::Null);
    let (changed, deleted) = backend.between("storage/blobs", change("cc2"), delete).await;
    assert_eq!((&*changed, deleted.status), ("404 ResourceNotFound", 200));
}

/// A change of a blob that is put anew at that moment is one of the new blob, and does not bring the old one back.
#[tokio::test]
async fn a_change_is_of_the_blob_that_is_there() {
    let (world, backend, member) = held_up_with_container().await;
    world.put(&member, "acct1", "/cc1/b", "old").await;
    let change = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=metadata").by(&member);
    let change = world.ask(change.with("x-ms-meta-a", "b"));
    let put = world.put(&member, "acct1", "/cc1/b", "new");
    let (changed, put) = backend.between("storage/blobs", change, put).await;
    assert_eq!((changed.status, put.status), (200, 201));
    let got = world.get(&member, "acct1", "/cc1/b").await;
    assert_eq!((&*got.text(), got.header("x-ms-meta-a")), ("new", "b"));
}
