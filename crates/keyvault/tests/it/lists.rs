//! Lists come in pages.

use arcadia_kernel::Method;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::*;

/// Follows `nextLink` to the end; the names of each page.
async fn pages(world: &World, caller: &Caller, first: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut path = first.to_owned();
    loop {
        let list = world.data(caller, Method::GET, "kv1", &path).await.ok();
        let names = list["value"].as_array().unwrap().iter();
        pages.push(
            names.map(|item| item["id"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect(),
        );
        match list["nextLink"].as_str() {
            Some(next) => path = next.strip_prefix("https://kv1.vault.azure.net").unwrap().to_owned(),
            None => return pages,
        }
        assert!(pages.len() < 100);
    }
}

#[tokio::test]
async fn an_empty_list_says_so() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    for path in ["/secrets", "/deletedsecrets", "/secrets/nope/versions"] {
        let answer = world.data(&officer, Method::GET, "kv1", path).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (200, "{\"value\":[],\"nextLink\":null}"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn lists_of_secrets_have_pages_of_25_or_fewer() {
    let world = World::with_vault("kv1").await;
    world.make_vault("kv2").await;
    let officer = world.officer().await;
    for number in 0..60 {
        world.set(&officer, "kv1", &format!("s-{number:02}"), "x").await;
        world.set(&officer, "kv2", &format!("other-{number:02}"), "x").await;
    }
    let expected: Vec<String> = (0..60).map(|number| format!("s-{number:02}")).collect();
    let by_default = pages(&world, &officer, "/secrets").await;
    assert_eq!(by_default.iter().map(Vec::len).collect::<Vec<_>>(), [25, 25, 10]);
    assert_eq!(by_default.concat(), expected);
    let by_seven = pages(&world, &officer, "/secrets?maxresults=7&api-version=7.1").await;
    assert!(by_seven.iter().rev().skip(1).all(|page| page.len() == 7));
    assert_eq!(by_seven.concat(), expected);

    let first = world.data(&officer, Method::GET, "kv1", "/secrets?maxresults=2&api-version=7.1").await.ok();
    let link = first["nextLink"].as_str().unwrap();
    let (start, rest) = link.split_once("&$skiptoken=").unwrap();
    assert_eq!(start, "https://kv1.vault.azure.net/secrets?api-version=7.1");
    let (token, end) = rest.split_once('&').unwrap();
    assert_eq!(end, "maxresults=2");
    let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
    assert!(token["NextMarker"].is_string() && token["TargetLocation"] == 0);
}

#[tokio::test]
async fn versions_are_listed_without_values() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    for round in 0..30 {
        world.set(&officer, "kv1", "s", &format!("hidden-{round}")).await;
    }
    let first = world.data(&officer, Method::GET, "kv1", "/secrets/s/versions").await;
    assert!(!first.text.contains("hidden"));
    let item = &first.json()["value"][0];
    assert!(item["id"].as_str().unwrap().starts_with("https://kv1.vault.azure.net/secrets/s/"));
    assert_eq!(item["attributes"]["created"], START);
    let mut versions = pages(&world, &officer, "/secrets/s/versions").await.concat();
    versions.dedup();
    assert_eq!(versions.len(), 30);
    assert!(versions.iter().all(|version| version.len() == 32));
}

#[tokio::test]
async fn deleted_secrets_are_in_their_own_list() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    for name in ["keep", "drop-1", "drop-2"] {
        world.set(&officer, "kv1", name, "x").await;
    }
    for name in ["drop-1", "drop-2"] {
        world.data(&officer, Method::DELETE, "kv1", &format!("/secrets/{name}")).await.ok();
    }
    assert_eq!(pages(&world, &officer, "/secrets").await.concat(), ["keep"]);
    assert_eq!(pages(&world, &officer, "/deletedsecrets?maxresults=1").await, [["drop-1"], ["drop-2"]]);
    let list = world.data(&officer, Method::GET, "kv1", "/deletedsecrets").await.ok();
    assert_eq!(
        list["value"][0],
        json!({
            "recoveryId": "https://kv1.vault.azure.net/deletedsecrets/drop-1",
            "deletedDate": START,
            "scheduledPurgeDate": START + 7 * DAY,
            "id": "https://kv1.vault.azure.net/secrets/drop-1",
            "attributes": {
                "enabled": true, "created": START, "updated": START,
                "recoveryLevel": "CustomizedRecoverable+Purgeable", "recoverableDays": 7,
            },
        })
    );
}

#[tokio::test]
async fn bad_page_parameters_are_refused_and_a_forged_token_stays_in_its_vault() {
    let world = World::with_vault("kv1").await;
    world.make_vault("kv2").await;
    let officer = world.officer().await;
    let nina = world.caller("nina");
    world.grant(&nina, SECRETS_USER, &world.vault("kv1")).await;
    for number in 0..3 {
        world.set(&officer, "kv1", &format!("mine-{number}"), "x").await;
        world.set(&officer, "kv2", &format!("theirs-{number}"), "x").await;
    }
    for query in
        ["maxresults=0", "maxresults=26", "maxresults=-1", "maxresults=x", "$skiptoken=x", "$skiptoken=e30"]
    {
        let answer = world.data(&nina, Method::GET, "kv1", &format!("/secrets?{query}")).await;
        assert_eq!(answer.refusal(), "400 BadParameter", "{query}");
    }
    let theirs = world.data(&officer, Method::GET, "kv2", "/secrets?maxresults=1").await.ok();
    let link = theirs["nextLink"].as_str().unwrap();
    let query = link.split_once('?').unwrap().1;
    let answer = world.data(&nina, Method::GET, "kv1", &format!("/secrets?{query}")).await;
    assert_eq!(answer.refusal(), "400 BadParameter");
    // One that was given here, with another place in it.
    let mine = world.data(&nina, Method::GET, "kv1", "/secrets?maxresults=1").await.ok();
    let token =
        mine["nextLink"].as_str().unwrap().split_once("skiptoken=").unwrap().1.split('&').next().unwrap();
    let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
    let marker = URL_SAFE_NO_PAD.decode(token["NextMarker"].as_str().unwrap()).unwrap();
    for place in [&b""[..], b"\xff\xff\xff", b"\x80", b"theirs-0"] {
        let forged = URL_SAFE_NO_PAD.encode([&marker[..8], place].concat());
        let token = URL_SAFE_NO_PAD.encode(format!("{{\"NextMarker\":\"{forged}\",\"TargetLocation\":0}}"));
        let answer = world.data(&nina, Method::GET, "kv1", &format!("/secrets?$skiptoken={token}")).await;
        assert!(!answer.text.contains("theirs"), "{}", answer.text);
    }
}
