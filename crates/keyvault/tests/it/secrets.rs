//! Set, get, update.

use arcadia_kernel::Method;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn a_set_secret_is_shown_as_the_service_shows_it() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let body = json!({
        "value": "NinaIsTheMole",
        "contentType": "text/plain",
        "tags": { "file-encoding": "utf-8" },
        "attributes": { "exp": 1_893_456_000, "nbf": 1_500_000_000 },
    });
    let set = world.data_with(&officer, Method::PUT, "kv1", "/secrets/example-secret", body).await;
    let version = set.json()["id"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert_eq!(version.len(), 32);
    assert!(version.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
    let expected = format!(
        "{{\"value\":\"NinaIsTheMole\",\"contentType\":\"text/plain\",\"id\":\"https://kv1.vault.azure.net/secrets/\
         example-secret/{version}\",\"attributes\":{{\"enabled\":true,\"nbf\":1500000000,\"exp\":1893456000,\
         \"created\":{START},\"updated\":{START},\"recoveryLevel\":\"CustomizedRecoverable+Purgeable\",\
         \"recoverableDays\":7}},\"tags\":{{\"file-encoding\":\"utf-8\"}}}}"
    );
    assert_eq!(set.text, expected);
    for path in ["/secrets/example-secret", "/secrets/example-secret/", "//secrets/EXAMPLE-secret/"] {
        let got = world.data(&officer, Method::GET, "kv1", path).await;
        assert_eq!((got.status, got.text.as_str()), (200, expected.as_str()), "{path}");
    }
    let by_version = format!("/secrets/example-secret/{}", version.to_uppercase());
    assert_eq!(world.data(&officer, Method::GET, "kv1", &by_version).await.text, expected);
    let plain = world.set(&officer, "kv1", "plain", "").await;
    assert!(plain.get("contentType").is_none() && plain.get("tags").is_none());
    assert_eq!(plain["value"], "");
}

#[tokio::test]
async fn the_newest_version_is_the_last_one_set_even_within_a_second() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let mut ids = Vec::new();
    for round in 0..20 {
        let value = format!("value {round}");
        ids.push(world.set(&officer, "kv1", "s", &value).await["id"].as_str().unwrap().to_owned());
        assert_eq!(world.value(&officer, "kv1", "S").await, value);
    }
    for (round, id) in ids.iter().enumerate() {
        let path = id.strip_prefix("https://kv1.vault.azure.net").unwrap();
        let got = world.data(&officer, Method::GET, "kv1", path).await.ok();
        assert_eq!(got["value"], format!("value {round}"));
    }
    // A clock that was set back changes nothing about the order.
    world.clock.advance_seconds(-3600);
    world.set(&officer, "kv1", "s", "last").await;
    assert_eq!(world.value(&officer, "kv1", "s").await, "last");
}

#[tokio::test]
async fn parallel_sets_lose_nothing() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let sets = (0..12).map(|round| {
        let (world, officer) = (&world, &officer);
        async move { world.set(officer, "kv1", "s", &format!("{round}")).await["id"].to_string() }
    });
    let mut ids = futures_util::future::join_all(sets).await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 12);
    let listed = world.data(&officer, Method::GET, "kv1", "/secrets/s/versions").await.ok();
    assert_eq!(listed["value"].as_array().unwrap().len(), 12);
}

#[tokio::test]
async fn an_update_keeps_the_value_and_what_it_does_not_name() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let body = json!({ "value": "x", "contentType": "a", "tags": { "k": "v" }, "attributes": { "exp": 2_000_000_000 } });
    let first = world.data_with(&officer, Method::PUT, "kv1", "/secrets/s", body).await.ok();
    let old = first["id"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    world.clock.advance_seconds(5);
    let change = json!({ "attributes": { "enabled": false } });
    let updated = world.data_with(&officer, Method::PATCH, "kv1", "/secrets/s/", change).await.ok();
    assert_eq!(
        updated,
        json!({
            "contentType": "a",
            "id": first["id"],
            "attributes": {
                "enabled": false, "exp": 2_000_000_000, "created": START, "updated": START + 5,
                "recoveryLevel": "CustomizedRecoverable+Purgeable", "recoverableDays": 7,
            },
            "tags": { "k": "v" },
        })
    );
    assert_eq!(world.value(&officer, "kv1", "s").await, "403 Forbidden/SecretDisabled");
    let listed = world.data(&officer, Method::GET, "kv1", "/secrets").await.ok();
    assert_eq!(listed["value"][0]["attributes"]["enabled"], false);

    world.set(&officer, "kv1", "s", "y").await;
    assert_eq!(world.value(&officer, "kv1", "s").await, "y");
    let change = json!({ "attributes": { "enabled": true }, "tags": {}, "contentType": "b" });
    let path = format!("/secrets/s/{old}");
    let updated = world.data_with(&officer, Method::PATCH, "kv1", &path, change).await.ok();
    assert_eq!((&updated["tags"], &updated["contentType"]), (&json!({}), &json!("b")));
    assert_eq!(world.data(&officer, Method::GET, "kv1", &path).await.ok()["value"], "x");
    // The older version's change is not the newest one's.
    let listed = world.data(&officer, Method::GET, "kv1", "/secrets").await.ok();
    assert!(listed["value"][0].get("contentType").is_none());
}

#[tokio::test]
async fn times_inform_and_do_not_forbid() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    for attributes in [json!({ "exp": START - 1 }), json!({ "nbf": START + DAY })] {
        let body = json!({ "value": "x", "attributes": attributes });
        world.data_with(&officer, Method::PUT, "kv1", "/secrets/s", body).await.ok();
        assert_eq!(world.value(&officer, "kv1", "s").await, "x");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    world.set(&officer, "kv1", "s", "x").await;
    let version = "0".repeat(32);
    for (method, path, named) in [
        (Method::GET, "/secrets/nope/".to_owned(), "nope".to_owned()),
        (Method::GET, format!("/secrets/s/{version}"), format!("s/{version}")),
        (Method::PATCH, "/secrets/nope".to_owned(), "nope".to_owned()),
        (Method::DELETE, "/secrets/nope".to_owned(), "nope".to_owned()),
        (Method::POST, "/secrets/nope/backup".to_owned(), "nope".to_owned()),
    ] {
        let answer = world.data_with(&officer, method, "kv1", &path, json!({})).await;
        assert_eq!(answer.refusal(), "404 SecretNotFound", "{path}");
        let start =
            format!("A secret with (name/id) {named} was not found in this key vault. If you recently");
        assert!(answer.message().starts_with(&start), "{}", answer.message());
    }
    let answer = world.data(&officer, Method::GET, "kv1", "/secrets/s/not-a-version").await;
    assert_eq!(answer.refusal(), "400 BadParameter");
}

#[tokio::test]
async fn bodies_are_bounded_and_checked() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let put = async |body: Value| world.data_with(&officer, Method::PUT, "kv1", "/secrets/s", body).await;
    let tags = |count: usize| -> Value { (0..count).map(|n| (format!("t{n}"), json!("v"))).collect() };
    let fits = [
        json!({ "value": "x".repeat(25 * 1024) }),
        json!({ "value": "\u{1}".repeat(25 * 1024) }),
        json!({ "value": "x", "contentType": "é".repeat(255), "tags": tags(15) }),
        json!({ "value": "x", "tags": { "n".repeat(256): "v".repeat(512) } }),
        json!({ "value": "x", "attributes": null, "tags": null, "contentType": null, "unknown": [1] }),
    ];
    for body in fits {
        assert_eq!(put(body.clone()).await.status, 200, "{:.80}", body.to_string());
    }
    let refused = [
        json!({}),
        json!({ "value": null }),
        json!({ "value": 1 }),
        json!(["value"]),
        json!({ "value": "x".repeat(25 * 1024 + 1) }),
        json!({ "value": "é".repeat(13 * 1024) }),
        json!({ "value": "x", "contentType": "c".repeat(256) }),
        json!({ "value": "x", "tags": tags(16) }),
        json!({ "value": "x", "tags": { "n".repeat(257): "v" } }),
        json!({ "value": "x", "tags": { "n": "v".repeat(513) } }),
        json!({ "value": "x", "tags": { "n": 1 } }),
        json!({ "value": "x", "attributes": { "exp": -1 } }),
        json!({ "value": "x", "attributes": { "nbf": 999_999_999_999_999_i64 } }),
        json!({ "value": "x", "attributes": { "enabled": "yes" } }),
    ];
    for body in refused {
        let answer = put(body.clone()).await;
        assert_eq!(answer.refusal(), "400 BadParameter", "{:.80}", body.to_string());
    }
    let mut ask = world.asking(Some(&officer), Method::PUT, "kv1", "/secrets/s", Value::Null);
    for broken in ["", "{", "{\"value\":\"NinaIsTheMole", "null", "\u{feff}{}", "{\"value\":\"x\"}}", "[[[["]
    {
        ask.body = broken.into();
        let answer = world.ask(ask.clone()).await;
        assert_eq!(answer.refusal(), "400 BadParameter", "{broken}");
        assert!(!answer.text.contains("NinaIsTheMole"));
    }
    ask.body = vec![b' '; 256 * 1024 + 1].into();
    assert_eq!(world.ask(ask).await.status, 413);
    assert_eq!(world.value(&officer, "kv1", "s").await, "x");
}

#[tokio::test]
async fn hostile_names_are_refused_and_none_is_confused_with_another() {
    let world = World::with_vault("kv1").await;
    let officer = world.officer().await;
    let long = "a".repeat(128);
    for name in ["a_b", "a.b", "a%20b", "%00", "k%C3%A4se", "a;b", "a'b", "..%2f", "%2e%2e", long.as_str()] {
        let path = format!("/secrets/{name}");
        for method in [Method::PUT, Method::GET, Method::DELETE] {
            let answer = world.data_with(&officer, method, "kv1", &path, json!({ "value": "x" })).await;
            assert_eq!(answer.status, 400, "{name}: {}", answer.text);
        }
    }
    for name in ["a".repeat(127).as_str(), "-", "0", "restore", "versions", "backup"] {
        world.set(&officer, "kv1", name, name).await;
        assert_eq!(world.value(&officer, "kv1", name).await, name);
    }
}
