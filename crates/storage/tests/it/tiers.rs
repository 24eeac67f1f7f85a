//! Tiers of blobs.

use arcadia_kernel::Method;

use crate::copy::site;
use crate::support::*;

#[tokio::test]
async fn tiers_are_kept_and_change_nothing_else() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let before = world.head(&member, "/cc1/b").await;
    assert_eq!(
        (before.header("x-ms-access-tier"), before.header("x-ms-access-tier-inferred")),
        ("Hot", "true")
    );
    let set = |tier: &str| {
        Ask::new(Method::PUT, "acct1", "/cc1/b?comp=tier").by(&member).with("x-ms-access-tier", tier)
    };
    for (tier, shown) in [("Cool", "Cool"), ("cold", "Cold"), ("HOT", "Hot"), ("Hot", "Hot")] {
        world.clock.advance_seconds(60);
        let answer = world.ask(set(tier).with("x-ms-rehydrate-priority", "Standard")).await;
        assert_eq!((answer.outcome().as_str(), answer.header("etag")), ("200", ""), "{tier}");
        let head = world.head(&member, "/cc1/b").await;
        assert_eq!((head.header("x-ms-access-tier"), head.header("x-ms-access-tier-inferred")), (shown, ""));
        for name in ["etag", "last-modified", "x-ms-creation-time", "content-md5", "content-length"] {
            assert_eq!(head.header(name), before.header(name), "{tier}: {name}");
        }
    }
    let changed = "Sat, 21 Nov 2026 12:04:00 GMT";
    assert_eq!(world.head(&member, "/cc1/b").await.header("x-ms-access-tier-change-time"), changed);
    let listed = world.get(&member, "acct1", "/cc1?restype=container&comp=list").await;
    assert_eq!(
        (listed.all("AccessTier"), listed.all("AccessTierInferred").len()),
        (vec!["Hot".to_owned()], 0)
    );
    assert_eq!(listed.all("AccessTierChangeTime"), [changed]);
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "hello");
}

#[tokio::test]
async fn a_blob_in_the_place_of_another_is_in_its_tier() {
    let (world, member) = site().await;
    let tier_of = async |path: &str| {
        let head = world.head(&member, path).await;
        let [tier, inferred, changed] = ["tier", "tier-inferred", "tier-change-time"]
            .map(|name| head.header(&format!("x-ms-access-{name}")));
        format!("{tier} {inferred} {changed}")
    };
    let put = |tier: &str| {
        let ask = Ask::new(Method::PUT, "acct1", "/cc1/b").by(&member).with("x-ms-blob-type", "BlockBlob");
        if tier.is_empty() { ask.body("new") } else { ask.with("x-ms-access-tier", tier).body("new") }
    };
    assert_eq!(world.ask(put("Cool")).await.outcome(), "201");
    let chosen = "Cool  Sat, 21 Nov 2026 12:00:00 GMT";
    world.clock.advance_seconds(60);
    assert_eq!(world.ask(put("")).await.outcome(), "201");
    assert_eq!(tier_of("/cc1/b").await, chosen);
    let list = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=blocklist").by(&member);
    assert_eq!(world.ask(list.body("<BlockList/>")).await.outcome(), "201");
    assert_eq!(tier_of("/cc1/b").await, chosen);
    let list = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=blocklist").by(&member);
    let list = list.with("x-ms-access-tier", "Cold").body("<BlockList/>");
    assert_eq!(world.ask(list).await.outcome(), "201");
    let chosen = "Cold  Sat, 21 Nov 2026 12:01:00 GMT";
    assert_eq!(tier_of("/cc1/b").await, chosen);
    assert_eq!(world.ask(put("")).await.outcome(), "201");
    assert_eq!(tier_of("/cc1/b").await, chosen);

    // A copy has none of its own, nor has what comes after a blob that was deleted.
    let account = "Hot true ";
    world.put(&member, "acct1", "/cc1/source", "hello").await;
    assert_eq!(world.copy(&member, "/cc1/b", "/cc1/source").await.outcome(), "202");
    assert_eq!(tier_of("/cc1/b").await, account);
    assert_eq!(world.ask(put("Cool")).await.outcome(), "201");
    world.delete(&member, "acct1", "/cc1/b").await;
    assert_eq!(world.ask(put("")).await.outcome(), "201");
    assert_eq!(tier_of("/cc1/b").await, account);
}

#[tokio::test]
async fn tiers_that_are_refused() {
    let (world, member) = site().await;
    world.put(&member, "acct1", "/cc1/b", "hello").await;
    let ask = |path: &str| Ask::new(Method::PUT, "acct1", path).by(&member);
    let tier = |path: &str| ask(path).with("x-ms-access-tier", "Cool");
    for (asked, outcome) in [
        (ask("/cc1/b?comp=tier").with("x-ms-access-tier", "Archive"), "400 InvalidBlobTier"),
        (ask("/cc1/b?comp=tier").with("x-ms-access-tier", "P4"), "400 InvalidHeaderValue"),
        (ask("/cc1/b?comp=tier"), "400 MissingRequiredHeader"),
        (tier("/cc1/b?comp=tier").with("x-ms-rehydrate-priority", "Soon"), "400 InvalidHeaderValue"),
        (tier("/cc1/b?comp=tier").with("x-ms-if-tags", "a='b'"), "400 UnsupportedHeader"),
        (tier("/cc1/b?comp=tier").with("x-ms-lease-id", "x"), "412 LeaseNotPresentWithBlobOperation"),
        (tier("/cc1/b?comp=tier").with("if-match", "*"), "400 ConditionHeadersNotSupported"),
        (tier("/cc1/b?comp=tier&snapshot=x"), "400 UnsupportedQueryParameter"),
        (tier("/cc1/b?comp=tier&versionid=x"), "400 UnsupportedQueryParameter"),
        (tier("/cc1/none?comp=tier"), "404 BlobNotFound"),
        (tier("/none/b?comp=tier"), "404 ContainerNotFound"),
    ] {
        let (target, headers) = (asked.target.clone(), asked.headers.clone());
        assert_eq!(world.ask(asked).await.outcome(), outcome, "{target} {headers:?}");
    }
    let reader = world.caller("reader");
    world.grant(&reader, BLOB_READER, &world.account("acct1")).await;
    let ask = Ask::new(Method::PUT, "acct1", "/cc1/b?comp=tier").by(&reader);
    let refused = world.ask(ask.with("x-ms-access-tier", "Cool")).await;
    assert_eq!(refused.outcome(), "403 AuthorizationPermissionMismatch");
    assert_eq!(
        world.copy(&reader, "/cc1/c", "/cc1/b").await.outcome(),
        "403 AuthorizationPermissionMismatch"
    );
    assert_eq!(world.head(&member, "/cc1/b").await.header("x-ms-access-tier-inferred"), "true");
}
