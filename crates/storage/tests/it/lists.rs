//! Lists, against a model.

use std::collections::BTreeSet;

use arcadia_kernel::Method;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::support::*;

/// Follows markers to the end; the names and prefixes in the order they came.
async fn listed(world: &World, member: &Caller, query: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut marker = String::new();
    for _ in 0..1000 {
        let target = format!("/cc1?restype=container&comp=list{query}{marker}");
        let answer = world.get(member, "acct1", &target).await;
        assert_eq!(answer.outcome(), "200", "{target}");
        found.extend(answer.all("Name"));
        match answer.all("NextMarker").first() {
            Some(next) => marker = format!("&marker={next}"),
            None => return found,
        }
    }
    panic!("the list has no end: {query}");
}

/// What a list of `names` is, by definition.
pub fn model(names: &BTreeSet<String>, prefix: &str, delimiter: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names.iter().filter(|name| name.starts_with(prefix)) {
        let rest = &name[prefix.len()..];
        let item = match rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(at) => name[..prefix.len() + at + delimiter.len()].to_owned(),
            None => name.clone(),
        };
        if found.last() != Some(&item) {
            found.push(item);
        }
    }
    found
}

#[test]
fn pages_prefixes_and_delimiters_are_those_of_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (world, member) = runtime.block_on(World::with_account("acct1"));
    let strategy = (
        proptest::collection::btree_set("[ab/]{1,5}|[ab]/[ab/]{0,3}x{60}", 0..25),
        "[ab/]{0,2}",
        prop_oneof![Just(""), Just("/"), Just("a"), Just("b/")],
        1..8_usize,
        "[ab/]{0,3}",
    );
    let mut runner = TestRunner::new(ProptestConfig { cases: 60, ..ProptestConfig::default() });
    let outcome = runner.run(&strategy, |(names, prefix, delimiter, results, first)| {
        let names: BTreeSet<String> = names.into_iter().collect();
        runtime.block_on(async {
            world.make_container(&member, "acct1", "cc1").await;
            for name in &names {
                let path = format!("/cc1/{}", name.replace('/', "%2F"));
                assert_eq!(world.put(&member, "acct1", &path, "x").await.outcome(), "201", "{name}");
            }
            let mut query = format!("&maxresults={results}");
            if !prefix.is_empty() {
                query.push_str(&format!("&prefix={}", prefix.replace('/', "%2F")));
            }
            if !delimiter.is_empty() {
                query.push_str(&format!("&delimiter={}", delimiter.replace('/', "%2F")));
            }
            if !first.is_empty() {
                query.push_str(&format!("&startFrom={}", first.replace('/', "%2F")));
            }
            let wanted: BTreeSet<String> = names.iter().filter(|name| **name >= first).cloned().collect();
            let mut found = listed(&world, &member, &query).await;
            // Within one prefix's place a name may equal a prefix of others only as an item of its own.
            found.dedup();
            assert_eq!(found, model(&wanted, &prefix, delimiter), "{names:?} {query}");
            world.delete(&member, "acct1", "/cc1?restype=container").await;
        });
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test]
async fn a_long_list_with_few_prefixes_is_read_to_its_end() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    for number in 0..150 {
        world.put(&member, "acct1", &format!("/cc1/a/{number:03}"), "x").await;
        world.put(&member, "acct1", &format!("/cc1/b/{number:03}"), "x").await;
    }
    world.put(&member, "acct1", "/cc1/c", "x").await;
    assert_eq!(listed(&world, &member, "&delimiter=/").await, ["a/", "b/", "c"]);
    assert_eq!(listed(&world, &member, "&delimiter=/&maxresults=1").await, ["a/", "b/", "c"]);
    assert_eq!(listed(&world, &member, "&delimiter=/&prefix=b/").await.len(), 150);
    assert_eq!(listed(&world, &member, "").await.len(), 301);
    assert_eq!(listed(&world, &member, "&maxresults=7").await.len(), 301);
}

#[tokio::test]
async fn a_list_says_what_is_known_of_each() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let ask = Ask::new(Method::PUT, "acct1", "/cc1/f.txt").by(&member);
    let ask =
        ask.with("x-ms-blob-type", "BlockBlob").with("content-type", "text/plain").with("x-ms-meta-a", "<b>");
    world.ask(ask.body("hello")).await;
    let plain = world.get(&member, "acct1", "/cc1?restype=container&comp=list&maxresults=5000").await;
    let text = plain.text();
    assert!(text.starts_with('\u{feff}'));
    assert!(
        text.contains("ServiceEndpoint=\"https://acct1.blob.core.windows.net/\" ContainerName=\"cc1\""),
        "{text}"
    );
    assert_eq!(plain.all("Content-Length"), ["5"]);
    assert_eq!(plain.all("Content-Type"), ["text/plain"]);
    assert_eq!(plain.all("BlobType"), ["BlockBlob"]);
    assert_eq!(plain.all("Content-MD5"), ["XUFAKrxLKna5cZ2REBfFkg=="]);
    assert!(plain.all("Etag")[0].starts_with("0x8D"), "a blob's tag has no quotes here");
    assert!(!text.contains("<Metadata>"));
    let with = world.get(&member, "acct1", "/cc1?restype=container&comp=list&include=metadata").await;
    assert_eq!(with.all("Metadata"), ["<a>&lt;b&gt;</a>"]);

    world.make_container(&member, "acct1", "cc2").await;
    world.make_container(&member, "acct1", "other").await;
    let first = world.get(&member, "acct1", "/?comp=list&maxresults=1&include=").await;
    assert_eq!(first.all("Name"), ["cc1"]);
    let next = format!("/?comp=list&maxresults=5&marker={}", first.all("NextMarker")[0]);
    assert_eq!(world.get(&member, "acct1", &next).await.all("Name"), ["cc2", "other"]);
    assert_eq!(world.get(&member, "acct1", "/?comp=list&prefix=cc").await.all("Name"), ["cc1", "cc2"]);
    for query in ["maxresults=x", "marker=!", "include=uncommittedblobs", "include=other"] {
        let answer = world.get(&member, "acct1", &format!("/cc1?restype=container&comp=list&{query}")).await;
        assert_eq!(answer.outcome(), "400 InvalidQueryParameterValue", "{query}");
    }
    assert_eq!(
        world.get(&member, "acct1", "/none?restype=container&comp=list").await.outcome(),
        "404 ContainerNotFound"
    );
}

#[tokio::test]
async fn a_page_has_a_bound_in_bytes_and_its_marker_goes_on() {
    let (world, member) = World::with_account("acct1").await;
    // Six bytes each in XML, so 100 items are 4.8 MB.
    let metadata = "\"".repeat(8000);
    let put = async |path: &str| {
        let ask = Ask::new(Method::PUT, "acct1", path).by(&member).with("x-ms-meta-a", &metadata);
        assert_eq!(
            world.ask(ask.with("x-ms-blob-type", "BlockBlob").body("")).await.outcome(),
            "201",
            "{path}"
        );
    };
    let names: Vec<String> = (0..100).map(|number| format!("cc{number:03}")).collect();
    for name in &names {
        put(&format!("/{name}?restype=container")).await;
        put(&format!("/cc000/{name}")).await;
    }
    for list in [
        "/?comp=list",
        "/cc000?restype=container&comp=list",
        "/cc000?restype=container&comp=list&delimiter=x",
    ] {
        let (mut found, mut marker) = (Vec::new(), String::new());
        for page in 1.. {
            let answer = world.get(&member, "acct1", &format!("{list}&include=metadata{marker}")).await;
            assert!(answer.bytes.len() < 5 << 20, "{list}: {} bytes", answer.bytes.len());
            found.extend(answer.all("Name"));
            match answer.all("NextMarker").first() {
                Some(next) => marker = format!("&marker={next}"),
                None => {
                    assert_eq!(page, 2, "{list}");
                    break;
                }
            }
        }
        assert_eq!(found, names, "{list}");
    }
}

#[tokio::test]
async fn the_longest_names_are_listed_page_by_page() {
    let (world, member) = World::with_account("acct1").await;
    world.make_container(&member, "acct1", "cc1").await;
    let names = ["\u{20ac}", "\u{3042}", "\u{4e00}"].map(|last| format!("{}{last}", "\u{20ac}".repeat(1023)));
    for name in &names {
        let path: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(world.put(&member, "acct1", &format!("/cc1/{path}"), "x").await.outcome(), "201");
    }
    assert_eq!(listed(&world, &member, "&maxresults=1").await, names);
    assert_eq!(listed(&world, &member, "&maxresults=1&delimiter=%E2%82%AC").await, ["\u{20ac}"]);
}
