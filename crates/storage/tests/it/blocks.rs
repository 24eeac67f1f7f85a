//! Blobs that are put in blocks.

use arcadia_crypto::b64;
use arcadia_kernel::Method;

use crate::support::*;

async fn world() -> (World, Caller) {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    (world, member)
}

fn id(number: usize) -> String {
    b64(format!("block-{number:05}").as_bytes())
}

async fn put_block(world: &World, member: &Caller, number: usize, body: &[u8]) -> Answer {
    let id = id(number).replace('=', "%3D").replace('+', "%2B");
    let target = format!("/cc1/b?comp=block&blockid={id}");
    world.ask(Ask::new(Method::PUT, "acct1", &target).by(member).body(body.to_vec())).await
}

async fn commit(world: &World, member: &Caller, list: &[(&str, usize)]) -> Answer {
    let blocks: String =
        list.iter().map(|(from, number)| format!("<{from}>{}</{from}>", id(*number))).collect();
    let body = format!("<?xml version='1.0' encoding='utf-8'?>\n<BlockList>{blocks}</BlockList>");
    let ask = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=blocklist").by(member);
    world.ask(ask.with("x-ms-blob-content-type", "text/plain").with("x-ms-meta-a", "b").body(body)).await
}

async fn content(world: &World, member: &Caller) -> String {
    let answer = world.get(member, "acct1", "/cc1/b").await;
    if answer.status == 200 { answer.text() } else { answer.outcome() }
}

#[tokio::test]
async fn the_list_decides_what_is_in_and_in_which_order() {
    let (world, member) = world().await;
    for (number, text) in [(1, "one "), (2, "two "), (3, "three ")] {
        assert_eq!(put_block(&world, &member, number, text.as_bytes()).await.outcome(), "201");
    }
    assert_eq!(content(&world, &member).await, "404 BlobNotFound");
    let listed = world.get(&member, "acct1", "/cc1/b?comp=blocklist&blocklisttype=all").await;
    assert_eq!(listed.all("Size"), ["4", "4", "6"]);
    assert!(listed.text().contains("<CommittedBlocks /><UncommittedBlocks>"));
    assert_eq!(world.get(&member, "acct1", "/cc1?restype=container&comp=list").await.all("Name").len(), 0);

    let answer = commit(&world, &member, &[("Latest", 3), ("Uncommitted", 1), ("Latest", 3)]).await;
    assert_eq!(answer.outcome(), "201");
    assert_eq!(content(&world, &member).await, "three one three ");
    let got = world.get(&member, "acct1", "/cc1/b").await;
    assert_eq!((got.header("content-type"), got.header("x-ms-meta-a")), ("text/plain", "b"));
    assert_eq!(got.header("content-md5"), "");
    let listed = world.get(&member, "acct1", "/cc1/b?comp=blocklist&blocklisttype=all").await;
    assert_eq!(listed.all("Name"), [id(3), id(1), id(3)]);
    assert!(listed.text().contains("<UncommittedBlocks />"), "block 2 went with the commit");
    assert_eq!(listed.header("x-ms-blob-content-length"), "16");

    // Committed blocks are used again beside new ones.
    put_block(&world, &member, 3, b"drei ").await;
    for (list, expected) in [
        (vec![("Uncommitted", 3), ("Committed", 1), ("Latest", 3)], "drei one drei "),
        (vec![("Latest", 1)], "one "),
        (vec![], ""),
    ] {
        assert_eq!(commit(&world, &member, &list).await.outcome(), "201", "{expected}");
        assert_eq!(content(&world, &member).await, expected);
    }
}

#[tokio::test]
async fn lists_that_name_what_is_not_there_change_nothing() {
    let (world, member) = world().await;
    put_block(&world, &member, 1, b"one").await;
    commit(&world, &member, &[("Latest", 1)]).await;
    put_block(&world, &member, 2, b"two").await;
    for list in [
        vec![("Latest", 9)],
        vec![("Latest", 1), ("Latest", 9)],
        vec![("Committed", 2)],
        vec![("Uncommitted", 1)],
    ] {
        assert_eq!(commit(&world, &member, &list).await.outcome(), "400 InvalidBlockList", "{list:?}");
    }
    let ask = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=blocklist").by(&member);
    assert_eq!(world.ask(ask.body("<BlockList><Latest>")).await.outcome(), "400 InvalidXmlDocument");
    assert_eq!(content(&world, &member).await, "one");
    assert_eq!(commit(&world, &member, &[("Latest", 1), ("Latest", 2)]).await.outcome(), "201");
    assert_eq!(content(&world, &member).await, "onetwo");
}

/// Only a list with nothing in it makes a blob empty.
#[tokio::test]
async fn a_body_that_is_no_list_changes_nothing() {
    let (world, member) = world().await;
    put_block(&world, &member, 1, b"one").await;
    commit(&world, &member, &[("Latest", 1)]).await;
    put_block(&world, &member, 2, b"two").await;
    let list = || Ask::new(Method::PUT, "acct1", "/cc1/b?comp=blocklist").by(&member);
    for body in ["", " ", "\u{feff}", "<?xml version='1.0'?>", "<!-- -->", "<BlockList/><BlockList/>"] {
        assert_eq!(world.ask(list().body(body)).await.outcome(), "400 InvalidXmlDocument", "{body:?}");
    }
    assert_eq!(world.ask(list()).await.outcome(), "411 MissingContentLengthHeader");
    assert_eq!(content(&world, &member).await, "one");
    assert_eq!(commit(&world, &member, &[("Latest", 1), ("Uncommitted", 2)]).await.outcome(), "201");
    assert_eq!(content(&world, &member).await, "onetwo");
    assert_eq!(world.ask(list().body("<BlockList/>")).await.outcome(), "201");
    assert_eq!(content(&world, &member).await, "");
}

#[tokio::test]
async fn a_list_means_one_block_by_one_id() {
    let (world, member) = world().await;
    put_block(&world, &member, 1, &[b'a'; 100_000]).await;
    commit(&world, &member, &[("Latest", 1)]).await;
    put_block(&world, &member, 1, &[b'b'; 100_000]).await;
    for list in [[("Committed", 1), ("Uncommitted", 1)], [("Latest", 1), ("Committed", 1)]] {
        let answer = commit(&world, &member, &list).await;
        assert_eq!(answer.outcome(), "400 InvalidBlockList", "{list:?}");
        assert!(answer.text().contains(&id(1)), "{}", answer.text());
    }
    assert_eq!(content(&world, &member).await, "a".repeat(100_000));
    // Either of them may be meant, any number of times.
    assert_eq!(commit(&world, &member, &[("Latest", 1), ("Uncommitted", 1)]).await.outcome(), "201");
    assert_eq!(content(&world, &member).await, "b".repeat(200_000));
    world.sweep().await;
    world.clock.advance_seconds(3601);
    world.sweep().await;
    assert_eq!(world.files().0, 1);
}

/// Such contents were once made.
#[tokio::test]
async fn a_content_with_two_blocks_of_one_id_leaves_neither_behind() {
    let (world, member) = world().await;
    for number in 1..=3 {
        put_block(&world, &member, number, &vec![number as u8; 100_000]).await;
    }
    commit(&world, &member, &[("Latest", 1), ("Latest", 2), ("Latest", 3)]).await;
    let blob = world.stored("storage/blobs").await.remove(0);
    let content: uuid::Uuid = blob["content"]["listed"]["id"].as_str().unwrap().parse().unwrap();
    let mut part = world.stored("storage/contents").await.remove(0);
    part["blocks"][1]["id"] = part["blocks"][0]["id"].clone();
    world.put_row("storage/contents", &(content, 0_u64), part).await;
    assert_eq!(commit(&world, &member, &[("Latest", 3)]).await.outcome(), "201");
    world.sweep().await;
    world.clock.advance_seconds(3601);
    world.sweep().await;
    assert_eq!(world.files().0, 1);
}

#[tokio::test]
async fn block_ids_are_base64_of_one_length() {
    let (world, member) = world().await;
    assert_eq!(put_block(&world, &member, 1, b"one").await.outcome(), "201");
    assert_eq!(put_block(&world, &member, 1, b"").await.outcome(), "400 InvalidHeaderValue");
    for (target, outcome) in [
        ("/cc1/b?comp=block", "400 InvalidBlockId"),
        ("/cc1/b?comp=block&blockid=", "400 InvalidBlockId"),
        ("/cc1/b?comp=block&blockid=%21", "400 InvalidBlockId"),
        ("/cc1/b?comp=block&blockid=YQ%3D%3D", "400 InvalidBlobOrBlock"),
        ("/other/b?comp=block&blockid=YQ%3D%3D", "404 ContainerNotFound"),
    ] {
        let answer = world.ask(Ask::new(Method::PUT, "acct1", target).by(&member).body("x")).await;
        assert_eq!(answer.outcome(), outcome, "{target}");
    }
    let long = b64(&[1; 65]);
    let target = format!("/cc1/b?comp=block&blockid={}", long.replace('=', "%3D"));
    let answer = world.ask(Ask::new(Method::PUT, "acct1", &target).by(&member).body("x")).await;
    assert_eq!(answer.outcome(), "400 InvalidBlockId");
}

#[tokio::test]
async fn blocks_and_lists_are_those_of_their_md5() {
    let (world, member) = world().await;
    for (query, body) in [
        ("comp=block&blockid=YQ%3D%3D", "one"),
        ("comp=blocklist", "<BlockList><Latest>YQ==</Latest></BlockList>"),
    ] {
        for (sum, outcome) in [(md5(b"other"), "400 Md5Mismatch"), (md5(body.as_bytes()), "201")] {
            let ask = Ask::new(Method::PUT, "acct1", &format!("/cc1/b?{query}")).by(&member);
            let answer = world.ask(ask.with("content-md5", &sum).body(body)).await;
            assert_eq!(answer.outcome(), outcome, "{query}");
        }
    }
    assert_eq!(content(&world, &member).await, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_blocks_at_once_make_one_blob() {
    let (world, member) = world().await;
    let world = std::sync::Arc::new(world);
    let mut waiting = Vec::new();
    for number in 0..40 {
        let (world, member) = (world.clone(), member.clone());
        waiting.push(tokio::spawn(async move {
            let length = if number % 4 == 0 { 300_000 } else { 1000 };
            put_block(&world, &member, number, &vec![number as u8; length]).await.outcome()
        }));
    }
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), "201");
    }
    let list: Vec<(&str, usize)> = (0..40).map(|number| ("Latest", number)).collect();
    assert_eq!(commit(&world, &member, &list).await.outcome(), "201");
    let got = world.get(&member, "acct1", "/cc1/b").await.bytes;
    assert_eq!(got.len(), 10 * 300_000 + 30 * 1000);
    let ask = Ask::new(Method::GET, "acct1", "/cc1/b").by(&member).with("x-ms-range", "bytes=299999-303000");
    let range = world.ask(ask).await.bytes;
    assert_eq!(range[..], got[299_999..=303_000]);
    assert_eq!((range[0], range[1], range[1001], range[3001]), (0, 1, 2, 4));
}

#[tokio::test]
async fn blocks_that_nobody_commits_are_removed() {
    let (world, member) = world().await;
    put_block(&world, &member, 1, &vec![1; 100_000]).await;
    world.clock.advance_seconds(6 * DAY);
    put_block(&world, &member, 2, &vec![2; 100_000]).await;
    world.clock.advance_seconds(6 * DAY);
    assert_eq!(world.sweep().await.drafts, 0, "a block was put six days ago");
    world.clock.advance_seconds(DAY + 1);
    assert_eq!(world.tidy().await, Default::default(), "nobody deleted it");
    assert_eq!(world.sweep().await.drafts, 1);
    assert_eq!(commit(&world, &member, &[("Latest", 1)]).await.outcome(), "400 InvalidBlockList");
    world.clock.advance_seconds(3601);
    world.sweep().await;
    assert_eq!(world.files().0, 0);
    for table in ["storage/blocks", "storage/drafts", "storage/places", "storage/garbage"] {
        assert_eq!(world.rows(table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn what_a_new_content_does_not_use_is_removed_and_what_it_uses_stays() {
    let (world, member) = world().await;
    for number in 1..=4 {
        put_block(&world, &member, number, &vec![number as u8; 100_000]).await;
    }
    commit(&world, &member, &[("Latest", 1), ("Latest", 2), ("Latest", 3)]).await;
    put_block(&world, &member, 5, &vec![5; 100_000]).await;
    commit(&world, &member, &[("Latest", 5), ("Latest", 2)]).await;
    world.sweep().await;
    assert_eq!(world.files().0, 5, "answers may still be under way");
    world.clock.advance_seconds(3601);
    world.sweep().await;
    assert_eq!(world.files().0, 2);
    let got = world.get(&member, "acct1", "/cc1/b").await.bytes;
    assert_eq!((got.len(), got[0], got[100_000]), (200_000, 5, 2));
    world.put(&member, "acct1", "/cc1/b", "whole").await;
    world.clock.advance_seconds(3601);
    world.sweep().await;
    world.clock.advance_seconds(3601);
    world.sweep().await;
    assert_eq!(world.files().0, 0);
    assert_eq!(content(&world, &member).await, "whole");
    assert_eq!(world.rows("storage/contents").await, 0);
    assert_eq!(world.rows("storage/places").await, 1);
}
