//! Conditional headers.

use arcadia_kernel::Method;

use crate::support::*;

#[tokio::test]
async fn reads_and_changes_hold_to_their_conditions() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/b", "x").await;
    let tag = world.get(&member, "acct1", "/cc1/b").await.header("etag").to_owned();
    let (then, before, later) =
        ("Sat, 21 Nov 2026 12:00:00 GMT", "Sat, 21 Nov 2026 11:59:59 GMT", "Sat, 21 Nov 2026 12:00:01 GMT");
    let unmet = "412 ConditionNotMet";
    let known = "304 ConditionNotMet";
    let cases = [
        ("if-match", tag.as_str(), "200", "200"),
        ("if-match", "*", "200", "200"),
        ("if-match", "\"0x8D0\"", unmet, unmet),
        ("if-none-match", tag.as_str(), known, unmet),
        ("if-none-match", "*", "400 UnsatisfiableCondition", unmet),
        ("if-none-match", "\"0x8D0\"", "200", "200"),
        ("if-modified-since", then, known, unmet),
        ("if-modified-since", before, "200", "200"),
        ("if-unmodified-since", then, "200", "200"),
        ("if-unmodified-since", later, "200", "200"),
        ("if-unmodified-since", before, unmet, unmet),
    ];
    for (name, value, read, change) in cases {
        let reading = Ask::new(Method::GET, "acct1", "/cc1/b").by(&member).with(name, value);
        let answer = world.ask(reading).await;
        assert_eq!(answer.outcome(), read, "GET {name}: {value}");
        assert!(answer.status != 304 || answer.bytes.is_empty());
        let head = Ask::new(Method::HEAD, "acct1", "/cc1/b").by(&member).with(name, value);
        assert_eq!(world.ask(head).await.outcome(), read, "HEAD {name}: {value}");
        if change == unmet {
            let changing =
                Ask::new(Method::PUT, "acct1", "/cc1/b?comp=metadata").by(&member).with(name, value);
            assert_eq!(world.ask(changing).await.outcome(), change, "PUT {name}: {value}");
            let deleting = Ask::new(Method::DELETE, "acct1", "/cc1/b").by(&member).with(name, value);
            assert_eq!(world.ask(deleting).await.outcome(), change, "DELETE {name}: {value}");
        }
    }
    // Reads take several tags, changes one.
    let (with, without) = (format!("\"0x8D0\", {tag}"), "\"0x8D0\",W/\"0x8D1\"".to_owned());
    for (name, value, read) in [
        ("if-match", &with, "200"),
        ("if-match", &without, unmet),
        ("if-none-match", &with, known),
        ("if-none-match", &without, "200"),
        ("if-none-match", &format!("{tag}, *"), "400 InvalidHeaderValue"),
        ("if-match", &format!("{tag},"), "400 InvalidHeaderValue"),
    ] {
        for target in ["/cc1/b", "/cc1/b?comp=metadata"] {
            for method in [Method::GET, Method::HEAD] {
                let reading = Ask::new(method, "acct1", target).by(&member).with(name, value);
                assert_eq!(world.ask(reading).await.outcome(), read, "{target} {name}: {value}");
            }
        }
        let changing = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=metadata").by(&member).with(name, value);
        assert_eq!(world.ask(changing).await.outcome(), "400 InvalidHeaderValue", "{name}: {value}");
    }
    let matching = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=metadata").by(&member).with("if-match", &tag);
    assert_eq!(world.ask(matching).await.outcome(), "200");
    let stale = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=metadata").by(&member).with("if-match", &tag);
    assert_eq!(world.ask(stale).await.outcome(), "412 ConditionNotMet", "the tag has changed");
}

/// A condition that nobody looks at would be met in silence.
#[tokio::test]
async fn what_knows_no_conditions_refuses_them() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    for (method, target) in [
        (Method::PUT, "/cc1/b?comp=block&blockid=YQ%3D%3D"),
        (Method::PUT, "/cc2?restype=container"),
        (Method::GET, "/cc1?restype=container&comp=list"),
        (Method::GET, "/?comp=list"),
    ] {
        let ask = || Ask::new(method.clone(), "acct1", target).by(&member);
        for (name, value) in [
            ("if-match", "*"),
            ("if-match", "\"0x8D0\""),
            ("if-none-match", "*"),
            ("if-modified-since", "Sat, 21 Nov 2026 12:00:00 GMT"),
            ("if-unmodified-since", "Sat, 21 Nov 2026 12:00:00 GMT"),
        ] {
            let refused = world.ask(ask().with(name, value).body("x")).await;
            assert_eq!(refused.outcome(), "400 ConditionHeadersNotSupported", "{target} {name}: {value}");
        }
        let leased = ask().with("x-ms-lease-id", "4d6f6e61-0000-4000-8000-000000000001").body("x");
        assert_eq!(world.ask(leased).await.status, 412, "{target}");
    }
    assert_eq!(
        world.get(&member, "acct1", "/cc2?restype=container").await.outcome(),
        "404 ContainerNotFound"
    );
    assert_eq!(world.rows("storage/drafts").await, 0);
}

#[tokio::test]
async fn a_blob_that_must_be_new_is_not_replaced() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let put = |name: &str, value: &str, body: &str| {
        let ask = Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
        ask.with(name, value).body(body.to_owned())
    };
    assert_eq!(world.ask(put("if-match", "*", "no")).await.outcome(), "412 ConditionNotMet");
    assert_eq!(world.ask(put("if-none-match", "*", "first")).await.outcome(), "201");
    assert_eq!(world.ask(put("if-none-match", "*", "second")).await.outcome(), "409 BlobAlreadyExists");
    assert_eq!(world.ask(put("if-match", "\"0x8D0\"", "third")).await.outcome(), "412 ConditionNotMet");
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "first");
    assert_eq!(world.ask(put("if-match", "*", "fourth")).await.outcome(), "201");
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "fourth");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_must_be_first_one_is() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let world = std::sync::Arc::new(world);
    let mut waiting = Vec::new();
    for number in 0..16 {
        let (world, member) = (world.clone(), member.clone());
        waiting.push(tokio::spawn(async move {
            let ask =
                Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
            let answer = world.ask(ask.with("if-none-match", "*").body(format!("{number}"))).await;
            (number, answer.outcome())
        }));
    }
    let mut first = Vec::new();
    for answer in waiting {
        match answer.await.unwrap() {
            (number, outcome) if outcome == "201" => first.push(number.to_string()),
            (_, outcome) => assert_eq!(outcome, "409 BlobAlreadyExists"),
        }
    }
    assert_eq!(first, [world.get(&member, "acct1", "/cc1/b").await.text()]);
}

#[tokio::test]
async fn containers_have_conditions_and_metadata_too() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let again = Ask::new(Method::PUT, "acct1", "/cc1?restype=container").by(&member);
    assert_eq!(world.ask(again).await.outcome(), "409 ContainerAlreadyExists");
    let set = Ask::new(Method::PUT, "acct1", "/cc1?restype=container&comp=metadata").by(&member);
    assert_eq!(world.ask(set.with("x-ms-meta-a", "b")).await.outcome(), "200");
    let shown = world.get(&member, "acct1", "/cc1?restype=container").await;
    assert_eq!((shown.outcome().as_str(), shown.header("x-ms-meta-a")), ("200", "b"));
    let head = Ask::new(Method::HEAD, "acct1", "/cc1?restype=container").by(&member);
    assert_eq!(world.ask(head).await.header("etag"), shown.header("etag"));
    for (method, path, code) in [
        (Method::GET, "/cc1?restype=container", "LeaseNotPresentWithContainerOperation"),
        (Method::PUT, "/cc1?restype=container&comp=metadata", "LeaseNotPresentWithContainerOperation"),
        (Method::DELETE, "/cc1?restype=container", "LeaseNotPresentWithContainerOperation"),
        (Method::GET, "/cc1/b", "LeaseNotPresentWithBlobOperation"),
        (Method::DELETE, "/cc1/b", "LeaseNotPresentWithBlobOperation"),
    ] {
        let leased = Ask::new(method, "acct1", path).by(&member);
        let leased = leased.with("x-ms-lease-id", "4d6f6e61-0000-4000-8000-000000000001");
        assert_eq!(world.ask(leased).await.outcome(), format!("412 {code}"), "{path}");
    }
    let stale = Ask::new(Method::DELETE, "acct1", "/cc1?restype=container").by(&member);
    assert_eq!(world.ask(stale.with("if-match", "\"0x8D0\"")).await.outcome(), "412 ConditionNotMet");
    assert_eq!(world.delete(&member, "acct1", "/cc1?restype=container").await.outcome(), "202");
    assert_eq!(
        world.get(&member, "acct1", "/cc1?restype=container").await.outcome(),
        "404 ContainerNotFound"
    );
    assert_eq!(
        world.delete(&member, "acct1", "/cc1?restype=container").await.outcome(),
        "404 ContainerNotFound"
    );
}
