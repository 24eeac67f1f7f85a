//! Who may do what where.

use arcadia_kernel::{Access, Method, Plane};
use serde_json::json;

use crate::support::*;

const REFUSED: &str = "403 AuthorizationPermissionMismatch";

fn ask_of(row: &arcadia_kernel::OpInfo) -> Ask {
    let path = row.pattern.as_str().replace("{container}", "cc1").replace("{blob}", "b");
    let query: Vec<String> =
        row.query.iter().map(|(name, value)| format!("{name}={}", value.unwrap_or("x"))).collect();
    let target = if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) };
    Ask::new(row.method.clone(), "acct1", &target)
}

#[tokio::test]
async fn every_row_refuses_strangers() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let stranger = world.caller("stranger");
    let rows = world.data_rows();
    assert!(rows.len() >= 20, "{}", rows.len());
    for row in rows {
        assert!(
            matches!(row.access, Access::Decided { plane: Plane::Control | Plane::Data, .. }),
            "{}",
            row.name
        );
        let anonymous = world.ask(ask_of(&row)).await;
        assert_eq!(anonymous.outcome(), "401 NoAuthenticationInformation", "{}", row.name);
        let refused = world.ask(ask_of(&row).by(&stranger)).await;
        assert_eq!(refused.outcome(), REFUSED, "{}", row.name);
        let signature = format!("{}sig=x", if row.query.is_empty() { "?" } else { "&" });
        let mut shared = ask_of(&row);
        shared.target.push_str(&signature);
        assert_eq!(world.ask(shared).await.outcome(), "403 AuthenticationFailed", "{}", row.name);
    }
}

#[tokio::test]
async fn what_an_account_is_can_be_asked_where_one_may() {
    let (world, member) = World::with_account("acct1").await;
    for name in ["cc1", "cc2"] {
        world.make_container(&member, "acct1", name).await;
    }
    let query = "?restype=account&comp=properties";
    let key = world.keys("acct1").await[0].clone();
    for path in ["/", "/cc1", "/cc1/b", "/cc1/a/b"] {
        let ask = Ask::new(Method::GET, "acct1", &format!("{path}{query}")).signed("acct1", &key, START);
        let answer = world.ask(ask).await;
        assert_eq!(
            (answer.outcome(), answer.header("x-ms-account-kind")),
            ("200".to_owned(), "StorageV2"),
            "{path}"
        );
        assert_eq!(answer.header("x-ms-sku-name"), "Standard_LRS", "{path}");
    }
    let guest = world.caller("guest");
    world.grant(&guest, CONTRIBUTOR, &world.container("acct1", "cc1")).await;
    for (path, outcome) in
        [("/", REFUSED), ("/cc2", REFUSED), ("/cc2/b", REFUSED), ("/cc1", "200"), ("/cc1/b", "200")]
    {
        assert_eq!(world.get(&guest, "acct1", &format!("{path}{query}")).await.outcome(), outcome, "{path}");
    }
}

#[tokio::test]
async fn the_challenge_says_where_to_get_a_token() {
    let (world, _) = World::with_account("acct1").await;
    let answer = world.ask(Ask::new(Method::GET, "acct1", "/cc1/b")).await;
    assert_eq!(
        answer.header("www-authenticate"),
        format!(
            "Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}/oauth2/authorize \
             resource_id=https://storage.azure.com"
        )
    );
    let text = answer.text();
    assert!(text.starts_with("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>"), "{text}");
    assert!(text.contains("\nRequestId:") && text.contains("\nTime:2026-11-21T12:00:00.0000000Z"), "{text}");
    assert_eq!(answer.header("x-ms-version"), "2020-10-02");
    for token in ["!expired", "!signature", "!key", "!issuer", "!early", "!algorithm", "junk"] {
        let ask = Ask::new(Method::GET, "acct1", "/cc1/b").with("authorization", &format!("Bearer {token}"));
        assert_eq!(world.ask(ask).await.outcome(), "401 InvalidAuthenticationInfo", "{token}");
    }
}

#[tokio::test]
async fn a_token_is_for_storage_and_its_version_takes_tokens() {
    let (world, member) = World::with_account("acct1").await;
    world.make_account("acct2").await;
    let ask = |audience: &str| {
        Ask::new(Method::GET, "acct1", "/?comp=list").with("authorization", &member.bearer(audience))
    };
    for audience in [AUDIENCE, "https://storage.azure.com/", "https://acct1.blob.core.windows.net"] {
        assert_eq!(world.ask(ask(audience)).await.outcome(), "200", "{audience}");
    }
    for audience in [
        "https://vault.azure.net",
        "https://management.azure.com/",
        "https://acct2.blob.core.windows.net",
        "https://storage.azure.com.evil.example",
    ] {
        assert_eq!(world.ask(ask(audience)).await.outcome(), "401 InvalidAuthenticationInfo", "{audience}");
    }
    let without_version = |mut ask: Ask| {
        ask.headers.retain(|(name, _)| name != "x-ms-version");
        ask
    };
    for version in ["2015-04-05", "2017-11-08", ""] {
        let answer = world.ask(without_version(ask(AUDIENCE)).with("x-ms-version", version)).await;
        assert_eq!(answer.outcome(), "403 AuthenticationFailed", "{version}");
    }
    let key = world.keys("acct1").await[0].clone();
    for version in ["x", "9999999999", "2020-13-02", "2020-10-2", "latest-one"] {
        let by_token = without_version(ask(AUDIENCE)).with("x-ms-version", version);
        let by_key =
            without_version(Ask::new(Method::GET, "acct1", "/?comp=list")).with("x-ms-version", version);
        for ask in [by_token, by_key.signed("acct1", &key, START)] {
            assert_eq!(world.ask(ask).await.outcome(), "400 InvalidHeaderValue", "{version}");
        }
    }
    let twice = ask(AUDIENCE).with("x-ms-version", "2015-04-05");
    assert_eq!(world.ask(twice).await.outcome(), "400 InvalidHeaderValue");
}

#[tokio::test]
async fn who_manages_an_account_sees_no_data_by_token_but_the_keys_open_it() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/b", "x").await;
    for (name, role) in [("second", OWNER), ("contributor", CONTRIBUTOR), ("reader", READER)] {
        let caller = world.caller(name);
        world.grant(&caller, role, &world.account("acct1")).await;
        for target in ["/cc1/b", "/cc1?restype=container&comp=list"] {
            assert_eq!(world.get(&caller, "acct1", target).await.outcome(), REFUSED, "{name} {target}");
        }
        assert_eq!(world.put(&caller, "acct1", "/cc1/b", "y").await.outcome(), REFUSED, "{name}");
        let keys = format!("{}/listKeys", world.account("acct1"));
        let listed = world.send_arm(&caller, Method::POST, &keys, "2025-08-01", json!(null)).await;
        assert_eq!(listed.status, if name == "reader" { 403 } else { 200 }, "{name}");
    }
    assert_eq!(world.get(&world.owner, "acct1", "/cc1/b").await.outcome(), REFUSED);
    let key = &world.keys("acct1").await[1];
    let ask = Ask::new(Method::GET, "acct1", "/cc1/b").signed("acct1", key, START);
    assert_eq!(world.ask(ask).await.text(), "x");
}

#[tokio::test]
async fn a_reader_of_blobs_changes_nothing() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/b", "x").await;
    let reader = world.caller("reader-of-blobs");
    let assignment = world.grant(&reader, BLOB_READER, &world.account("acct1")).await;
    assert_eq!(world.get(&reader, "acct1", "/cc1/b").await.text(), "x");
    for row in world.data_rows().iter().filter(|row| row.method != Method::GET && row.method != Method::HEAD)
    {
        assert_eq!(world.ask(ask_of(row).by(&reader)).await.outcome(), REFUSED, "{}", row.name);
    }
    world.revoke(&assignment).await;
    assert_eq!(world.get(&reader, "acct1", "/cc1/b").await.outcome(), REFUSED);
}

#[tokio::test]
async fn a_role_reaches_no_further_than_its_container() {
    let (world, member) = World::with_account("acct1").await;
    for name in ["ccc", "ccc2", "ccc-2"] {
        world.make_container(&member, "acct1", name).await;
        world.put(&member, "acct1", &format!("/{name}/b"), name).await;
    }
    let one = world.caller("of-one");
    world.grant(&one, BLOB_OWNER, &world.container("acct1", "ccc")).await;
    assert_eq!(world.get(&one, "acct1", "/ccc/b").await.text(), "ccc");
    for path in [
        "/ccc2/b",
        "/ccc-2/b",
        "/ccc2?restype=container",
        "/?comp=list",
        // A name that climbs stays a name.
        "/ccc2/../ccc/b",
        "/ccc2/%2e%2e/ccc/b",
    ] {
        assert_eq!(world.get(&one, "acct1", path).await.outcome(), REFUSED, "{path}");
    }
    assert_eq!(world.get(&one, "acct1", "/ccc/../ccc2/b").await.outcome(), "404 BlobNotFound");
    let deeper = world.caller("of-folder");
    let folder = format!("{}/blobs/a", world.container("acct1", "ccc"));
    world.put(&member, "acct1", "/ccc/a/b", "in").await;
    world.put(&member, "acct1", "/ccc/ab", "out").await;
    world.grant(&deeper, BLOB_READER, &folder).await;
    assert_eq!(world.get(&deeper, "acct1", "/ccc/a/b").await.text(), "in");
    for path in ["/ccc/ab", "/ccc/b", "/ccc//a/b", "/ccc?restype=container&comp=list"] {
        assert_eq!(world.get(&deeper, "acct1", path).await.outcome(), REFUSED, "{path}");
    }
}

/// Whichever way it is deleted, and whoever deletes it: another container of that name is not theirs.
#[tokio::test]
async fn roles_on_a_container_end_with_it() {
    let (world, member) = World::with_account("acct1").await;
    let (reader, deep, neighbour) = (world.caller("reader"), world.caller("deep"), world.caller("neighbour"));
    world.make_container(&member, "acct1", "cc1-2").await;
    world.put(&member, "acct1", "/cc1-2/b", "x").await;
    world.grant(&neighbour, BLOB_READER, &world.container("acct1", "cc1-2")).await;
    let key = world.keys("acct1").await[0].clone();
    let container = world.container("acct1", "cc1");
    let data = || Ask::new(Method::DELETE, "acct1", "/cc1?restype=container");
    for way in ["token", "key", "resource manager"] {
        world.make_container(&member, "acct1", "cc1").await;
        world.put(&member, "acct1", "/cc1/b", "x").await;
        world.grant(&reader, BLOB_READER, &container).await;
        world.grant(&deep, BLOB_READER, &format!("{container}/blobs/b")).await;
        for who in [&reader, &deep] {
            assert_eq!(world.get(who, "acct1", "/cc1/b").await.outcome(), "200", "{way}");
        }
        let gone = match way {
            "token" => world.ask(data().by(&member)).await,
            "key" => world.ask(data().signed("acct1", &key, START)).await,
            _ => world.manage(Method::DELETE, &container, json!(null)).await,
        };
        assert!(matches!(gone.status, 200 | 202), "{way}: {}", gone.outcome());
        world.make_container(&member, "acct1", "cc1").await;
        world.put(&member, "acct1", "/cc1/b", "x").await;
        for who in [&reader, &deep] {
            assert_eq!(world.get(who, "acct1", "/cc1/b").await.outcome(), REFUSED, "{way}");
        }
        world.delete(&member, "acct1", "/cc1?restype=container").await;
    }
    assert_eq!(world.get(&neighbour, "acct1", "/cc1-2/b").await.outcome(), "200");
    assert_eq!(world.get(&member, "acct1", "/cc1-2/b").await.outcome(), "200");
}

/// `%` stands for a segment without a name.
#[tokio::test]
async fn a_role_on_blobs_reaches_none_whose_name_fits_into_no_scope() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let guest = world.caller("guest");
    world.grant(&guest, BLOB_READER, &format!("{}/blobs/%25", world.container("acct1", "cc1"))).await;
    let (deep, long) = (format!("/cc1/{}", "a/".repeat(100)), format!("/cc1/{}", "%C3%A4".repeat(1024)));
    for path in [&deep, &long, "/cc1//b"] {
        assert_eq!(world.put(&member, "acct1", path, "x").await.outcome(), "201");
    }
    assert_eq!(world.get(&guest, "acct1", "/cc1//b").await.text(), "x");
    for path in [&deep, &long] {
        assert_eq!(world.get(&guest, "acct1", path).await.outcome(), REFUSED, "{path}");
        assert_eq!(world.get(&member, "acct1", path).await.text(), "x", "{path}");
    }
}

#[tokio::test]
async fn other_operations_are_not_taken_for_these() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    world.put(&member, "acct1", "/cc1/b", "x").await;
    for query in [
        "comp=lease",
        "comp=snapshot",
        "comp=tier",
        "comp=copy",
        "comp=appendblock",
        "snapshot=x",
        "versionid=x",
        "restype=container&comp=acl",
    ] {
        for method in [Method::PUT, Method::GET, Method::DELETE] {
            let ask = Ask::new(method.clone(), "acct1", &format!("/cc1/b?{query}")).by(&member);
            let answer = world.ask(ask.with("x-ms-blob-type", "BlockBlob")).await;
            assert!(answer.status >= 400, "{method} {query}: {}", answer.outcome());
        }
    }
    for (method, target, outcome) in [
        (Method::GET, "/cc1?restype=container&comp=acl", "400 UnsupportedQueryParameter"),
        (Method::PUT, "/cc1?restype=container&comp=acl", "400 UnsupportedQueryParameter"),
        (Method::GET, "/cc1/b?comp=tags", "400 UnsupportedQueryParameter"),
        (Method::PUT, "/cc1/b?comp=tags", "400 UnsupportedQueryParameter"),
        (Method::POST, "/cc1/b?comp=query", "405 UnsupportedHttpVerb"),
        (Method::POST, "/?comp=batch", "400 InvalidUri"),
        (Method::GET, "/?restype=service&comp=properties", "400 InvalidUri"),
        (
            Method::GET,
            "/cc1?restype=container&comp=list&include=uncommittedblobs",
            "400 InvalidQueryParameterValue",
        ),
    ] {
        let ask = Ask::new(method.clone(), "acct1", target).by(&member).body("");
        assert_eq!(world.ask(ask).await.outcome(), outcome, "{method} {target}");
    }
    let twice = Ask::new(Method::GET, "acct1", "/cc1/b?comp=metadata&comp=lease").by(&member);
    assert_eq!(world.ask(twice).await.outcome(), "400 UnsupportedQueryParameter");
    assert_eq!(world.get(&member, "acct1", "/cc1/b").await.text(), "x");
    assert_eq!(world.get(&member, "acct1", "/cc1").await.outcome(), "400 InvalidUri");
    let post = world.ask(Ask::new(Method::POST, "acct1", "/cc1/b").by(&member)).await;
    assert_eq!(post.outcome(), "405 UnsupportedHttpVerb");
    let unknown = world.get(&member, "acct9", "/cc1/b").await;
    assert_eq!(unknown.outcome(), "404 ResourceNotFound");
}
