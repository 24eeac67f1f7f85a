//! Resources of a kind, generic lists, paging and filters.

use std::sync::atomic::Ordering;
use std::time::Duration;

use arcadia_arm::{RESOURCES, Resource};
use arcadia_crypto::{b64url, b64url_decode};
use arcadia_kernel::{ArmId, Method, Reason};
use arcadia_store::Batch;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn a_resource_lives() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let path = format!("{rg}/providers/Test.Widgets/widgets/Wid-1");
    let body = json!({
        "location": "UK South",
        "tags": { "a": "b" },
        "sku": { "name": "small" },
        "properties": { "size": 3 },
        "id": "ignored", "systemData": { "createdBy": "me" },
    });
    let created = site.put(OWNER, &path, body).await.is(201);
    assert_eq!(created.body["id"], json!(path));
    assert_eq!(created.body["location"], "uksouth");
    assert_eq!(
        created.body["properties"],
        json!({ "provisioningState": "Succeeded", "size": 3, "locked": false })
    );
    assert_eq!(created.body["systemData"]["createdBy"], json!(format!("{}@example.net", OWNER.simple())));
    assert_eq!(created.body["systemData"]["createdAt"], "2023-11-14T22:13:20Z");
    assert_eq!(site.store.get(WIDGET_INDEX, "wid-1").await.unwrap().unwrap().value.size, 3);

    let odd =
        format!("{}//widgets/WID-1/", path.rsplit_once("/widgets/").unwrap().0).replace("Groups", "groups");
    let old = site.get(OWNER, &format!("{odd}?api-version=2023-01-01-preview")).await.is(200);
    assert_eq!(old.body["id"], json!(path));
    assert_eq!(old.body["properties"], json!({ "provisioningState": "Succeeded", "size": 3 }));

    site.clock.advance_seconds(60);
    let patch = json!({ "tags": { "c": "d" }, "properties": { "size": 4 } });
    let patched = site.call(OWNER, Method::PATCH, &path, patch).await.is(200);
    assert_eq!(patched.body["tags"], json!({ "c": "d" }));
    assert_eq!(patched.body["sku"], json!({ "name": "small" }));
    assert_eq!(patched.body["properties"]["size"], 4);
    assert_eq!(patched.body["systemData"]["createdAt"], "2023-11-14T22:13:20Z");
    assert_eq!(patched.body["systemData"]["lastModifiedAt"], "2023-11-14T22:14:20Z");

    site.put(OWNER, &path, json!({ "location": "uksouth" })).await.is(200);
    site.call(OWNER, Method::HEAD, &path, Value::Null).await.is(204);
    site.delete(OWNER, &path).await.is(200);
    site.delete(OWNER, &path).await.is(204);
    assert!(site.store.get(WIDGET_INDEX, "wid-1").await.unwrap().is_none());
    let missing = site.get(OWNER, &path).await.is(404);
    assert_eq!(missing.code(), "ResourceNotFound");
    assert_eq!(
        missing.message(),
        "The Resource 'Test.Widgets/widgets/Wid-1' under resource group 'rg' was not found. For more details \
         please go to https://aka.ms/ARMResourceNotFoundFix"
    );
}

#[tokio::test]
async fn bad_resources_are_refused() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let widget = |name: &str| format!("{rg}/providers/Test.Widgets/widgets/{name}");
    let here = json!({ "location": "uksouth" });
    for (path, body, status, code) in [
        (widget("ab"), here.clone(), 400, "InvalidResourceName"),
        (widget("a_b"), here.clone(), 400, "InvalidResourceName"),
        (widget("Providers"), here.clone(), 400, "InvalidResourceName"),
        (widget("abc"), json!({}), 400, "LocationRequired"),
        (widget("abc"), json!({ "location": "moon" }), 400, "LocationNotAvailableForResourceType"),
        (widget("abc"), json!({ "location": "uksouth", "properties": [] }), 400, "InvalidRequestContent"),
        (widget("abc"), json!({ "location": "uksouth", "properties": { "size": -1 } }), 400, "InvalidSize"),
        (widget("abc/parts/p"), json!({}), 404, "ParentResourceNotFound"),
        (widget("abc").replace("/rg/", "/nope/"), here.clone(), 404, "ResourceGroupNotFound"),
        (widget("abc").replace("widgets/abc", "gadgets/abc"), here.clone(), 404, "InvalidResourceType"),
        (
            widget("abc").replace("Test.Widgets", "Test.Gadgets"),
            here.clone(),
            404,
            "InvalidResourceNamespace",
        ),
    ] {
        let answer = site.put(OWNER, &path, body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{path}");
    }
    site.widget(&rg, "abc").await;
    let moved = site.put(OWNER, &widget("abc"), json!({ "location": "westus" })).await.is(409);
    assert_eq!(moved.code(), "InvalidResourceLocation");
    site.call(OWNER, Method::POST, &widget("abc"), Value::Null).await.is(405);
    assert_eq!(
        site.call(OWNER, Method::PATCH, &widget("abd"), json!({})).await.is(404).code(),
        "ResourceNotFound"
    );
}

#[tokio::test]
async fn conditional_requests() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let path = site.widget(&rg, "abc").await;
    let send = async |method: Method, name: &str, value: &str| {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{path}?{V}"))
            .header("authorization", format!("Bearer {OWNER}"))
            .header(name, value)
            .body("{}".to_owned())
            .unwrap();
        site.send(request).await
    };
    let tag = site.get(OWNER, &path).await.header("etag").to_owned();
    assert_eq!(send(Method::PUT, "if-none-match", "*").await.is(412).code(), "PreconditionFailed");
    send(Method::PUT, "if-match", "\"0\"").await.is(412);
    let after = send(Method::PUT, "if-match", &tag).await.is(200).header("etag").to_owned();
    assert_ne!(after, tag);
    assert_eq!(site.get(OWNER, &path).await.header("etag"), after);
    send(Method::DELETE, "if-match", &tag).await.is(412);
    send(Method::DELETE, "if-match", &after).await.is(200);
}

#[tokio::test]
async fn nested_resources_need_their_parent_and_go_with_it() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let widget = site.widget(&rg, "one").await;
    let made =
        site.put(OWNER, &format!("{widget}/parts/p1"), json!({ "properties": { "x": 1 } })).await.is(200);
    assert_eq!(made.body["type"], "Test.Widgets/widgets/parts");
    assert!(made.body.get("location").is_none());
    site.put(OWNER, &format!("{widget}/parts/p2"), json!({})).await.is(200);
    let listed = site.get(OWNER, &format!("{widget}/parts")).await.is(200);
    assert_eq!(listed.names(), ["p1", "p2"]);
    // Lists of any type show what has a location of its own.
    for all in [format!("{rg}/resources"), format!("{}/resources", subscription())] {
        assert_eq!(site.get(OWNER, &all).await.is(200).names(), ["one"]);
    }
    site.get(OWNER, &format!("{rg}/providers/Test.Widgets/widgets/two/parts")).await.is(404);
    let widgets = site.get(OWNER, &format!("{rg}/providers/Test.Widgets/widgets")).await.is(200);
    assert_eq!(widgets.names(), ["one"]);
    site.delete(OWNER, &widget).await.is(200);
    site.widget(&rg, "one").await;
    assert!(site.get(OWNER, &format!("{widget}/parts")).await.is(200).names().is_empty());
}

#[tokio::test]
async fn lists_come_in_pages() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    for number in 0..7 {
        site.widget(&rg, &format!("w-{number}")).await;
    }
    let mut path = format!("{}/resources?{V}&$top=3&$filter=name ne 'w-1'", subscription());
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let answer = site.get(OWNER, &path).await.is(200);
        pages += 1;
        seen.extend(answer.names().into_iter().map(str::to_owned));
        match answer.body.get("nextLink") {
            None => break,
            Some(link) => path = link.as_str().unwrap().replace("https://management.azure.com", ""),
        }
        assert_eq!(path.matches("skiptoken").count(), 1, "{path}");
    }
    assert_eq!(seen, ["w-0", "w-2", "w-3", "w-4", "w-5", "w-6"]);
    assert!((2..=3).contains(&pages));
    for bad in ["$top=0", "$top=x", "$skiptoken=%25%25", "$filter=name gt 'x'", "$filter=secret eq 'x'"] {
        site.get(OWNER, &format!("{}/resources?{bad}", subscription())).await.is(400);
    }
}

/// Rows that are not shown, more than one request looks at: a page ends at one of them.
#[tokio::test]
async fn a_token_tells_no_name_and_is_made_by_nobody() {
    const ROWS: usize = 20_001;
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let kept = site.store.get(RESOURCES, &ArmId::parse(&site.widget(&rg, "aaa").await).unwrap()).await;
    let kept = kept.unwrap().unwrap().value;
    let permit = site.gate.as_system(Reason::Sweep);
    for part in (0..ROWS).collect::<Vec<_>>().chunks(4000) {
        let mut batch = Batch::new();
        for number in part {
            let id = kept.id.parent().unwrap().join(&format!("secret-{number:05}")).unwrap();
            batch.put(RESOURCES, &id, &Resource { id: id.clone(), ..kept.clone() }).unwrap();
        }
        site.store.commit(permit.stamp(), batch).await.unwrap();
    }
    let last = site.widget(&rg, "zzz").await;
    site.assign(OWNER, 1, NINA, "Reader", &last).await.is(201);
    let list = format!("{}/resources", subscription());
    let first = site.get(NINA, &list).await.is(200);
    assert!(first.names().is_empty());
    let link = first.body["nextLink"].as_str().unwrap().replace("https://management.azure.com", "");
    let token = link.split("skiptoken=").nth(1).unwrap();
    let bytes = b64url_decode(token).unwrap();
    let tells = |name: &[u8]| bytes.windows(name.len()).any(|part| part.eq_ignore_ascii_case(name));
    assert!(!tells(b"secret") && !tells(b"providers"));
    assert_eq!(site.get(NINA, &link).await.is(200).names(), ["zzz"]);
    assert_eq!(site.get(OWNER, &link).await.is(400).code(), "InvalidSkipToken");
    // Any other place in the same list, for the same caller.
    for at in 8..bytes.len() {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        let forged = format!("{list}?$skiptoken={}", b64url(&forged));
        assert_eq!(site.get(NINA, &forged).await.is(400).code(), "InvalidSkipToken");
    }
    assert_eq!(site.restarted().await.get(NINA, &link).await.is(400).code(), "InvalidSkipToken");
}

#[tokio::test]
async fn a_resource_does_not_grow_without_end() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let widget = site.widget(&rg, "one").await;
    let patch = async |path: &str, body: Value| site.call(OWNER, Method::PATCH, path, body).await;
    // What is kept as it was sent, and merged.
    for name in ["sku", "identity"] {
        for number in 0..2 {
            patch(&widget, json!({ name: { format!("field{number}"): "x".repeat(4000) } })).await.is(200);
        }
        let refused = patch(&widget, json!({ name: { "field2": "x".repeat(4000) } })).await.is(413);
        assert_eq!(refused.code(), "RequestContentTooLarge");
        assert!(refused.message().contains(name) && refused.message().contains("8192 bytes"));
        let sent = json!({ "location": "uksouth", name: { "all": "\u{1}".repeat(2000) } });
        site.put(OWNER, &widget, sent).await.is(413);
    }
    // And what a kind keeps itself.
    let part = format!("{widget}/parts/p");
    site.put(OWNER, &part, json!({ "properties": { "a": "x".repeat(1_500_000) } })).await.is(200);
    let refused = patch(&part, json!({ "properties": { "b": "x".repeat(1_000_000) } })).await.is(413);
    assert_eq!(refused.code(), "RequestContentTooLarge");
    assert!(site.get(OWNER, &part).await.is(200).body["properties"].get("b").is_none());
    site.delete(OWNER, &widget).await.is(200);
}

/// Rows of which few fit on one page, whatever the client asks for.
#[tokio::test]
async fn a_page_ends_at_a_number_of_bytes() {
    const ROWS: usize = 30;
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let kept = site.store.get(RESOURCES, &ArmId::parse(&site.widget(&rg, "aaa").await).unwrap()).await;
    let kept =
        Resource { tags: [("a".into(), "x".repeat(1024 * 1024))].into(), ..kept.unwrap().unwrap().value };
    let permit = site.gate.as_system(Reason::Sweep);
    for number in 0..ROWS {
        let mut batch = Batch::new();
        let id = kept.id.parent().unwrap().join(&format!("large-{number:05}")).unwrap();
        batch.put(RESOURCES, &id, &Resource { id: id.clone(), ..kept.clone() }).unwrap();
        site.store.commit(permit.stamp(), batch).await.unwrap();
    }
    for list in ["resources", "providers/Test.Widgets/widgets"] {
        let (mut path, mut seen, mut pages) = (format!("{rg}/{list}"), 0, 0);
        loop {
            let answer = site.get(OWNER, &path).await.is(200);
            (seen, pages) = (seen + answer.names().len(), pages + 1);
            assert!(answer.names().len() < 20);
            let Some(link) = answer.body["nextLink"].as_str() else { break };
            path = link.replace("https://management.azure.com", "");
        }
        assert_eq!(seen, ROWS + 1);
        assert!(pages > 1);
    }
}

/// What a deletion begins with is not left half done by who hangs up.
#[tokio::test]
async fn a_deletion_outlives_its_client() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let widget = site.widget(&rg, "one").await;
    let held = site.widget.held.lock().await;
    let begun = async {
        while site.widget.deletions_left.load(Ordering::SeqCst) == i64::MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        answer = site.delete(OWNER, &widget) => panic!("{}", answer.body),
        () = begun => {}
    }
    drop(held);
    for _ in 0..600 {
        if site.get(OWNER, &widget).await.status == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the resource is still there");
}

#[tokio::test]
async fn the_filters_that_az_uses() {
    let site = Site::new().await;
    let (rg, rg2) = (site.group("rg").await, site.group("rg2").await);
    for (group, name) in [(&rg, "kv1"), (&rg, "kv2"), (&rg2, "kv3")] {
        site.widget(group, name).await;
    }
    // A name of one tag with the value of another is neither.
    let kv3 = format!("{rg2}/providers/Test.Widgets/widgets/kv3");
    let tags = json!({ "team": "kv3", "second": "other" });
    site.call(OWNER, Method::PATCH, &kv3, json!({ "tags": tags })).await.is(200);
    for (filter, expected) in [
        ("", vec!["kv1", "kv2", "kv3"]),
        ("resourceType eq 'test.widgets/WIDGETS' and name eq 'KV2'", vec!["kv2"]),
        ("resourceType eq 'Microsoft.KeyVault/vaults'", vec![]),
        ("resourceGroup eq 'rg'", vec!["kv1", "kv2"]),
        ("location eq 'UK South'", vec!["kv1", "kv2", "kv3"]),
        ("location eq 'westus'", vec![]),
        ("tagname eq 'team' and tagvalue eq 'kv3'", vec!["kv3"]),
        ("tagname eq 'team'", vec!["kv1", "kv2", "kv3"]),
        ("tagname eq 'other' and tagvalue eq 'kv3'", vec![]),
        ("tagvalue eq 'kv3' and tagname eq 'team'", vec!["kv3"]),
        ("tagvalue eq 'kv3' and tagname eq 'second'", vec![]),
        ("name ne 'kv1' and tagvalue eq 'kv3' and location eq 'uksouth' and tagname eq 'second'", vec![]),
        ("substringof('v2', name) or startswith(name, 'kv3')", vec!["kv2", "kv3"]),
        ("not (name eq 'kv1')", vec!["kv2", "kv3"]),
    ] {
        let path = format!("{}/resources?$filter={filter}", subscription());
        assert_eq!(site.get(OWNER, &path).await.is(200).names(), expected, "{filter}");
    }
    let path = format!("{rg}/resources?$expand=createdTime,changedTime,provisioningState");
    let listed = site.get(OWNER, &path).await.is(200);
    assert_eq!(
        listed.body["value"][0],
        json!({
            "id": format!("{rg}/providers/Test.Widgets/widgets/kv1"),
            "name": "kv1",
            "type": "Test.Widgets/widgets",
            "location": "uksouth",
            "tags": { "team": "kv1" },
            "createdTime": "2023-11-14T22:13:20Z",
            "changedTime": "2023-11-14T22:13:20Z",
            "provisioningState": "Succeeded",
        })
    );
    // A reader of one group sees that group's resources in every list.
    site.assign(OWNER, 1, NINA, "Reader", &rg2).await.is(201);
    assert_eq!(site.get(NINA, &format!("{}/resources", subscription())).await.is(200).names(), ["kv3"]);
    let all = format!("{}/providers/Test.Widgets/widgets", subscription());
    assert_eq!(site.get(NINA, &all).await.is(200).names(), ["kv3"]);
    assert_eq!(site.get(OWNER, &all).await.is(200).names(), ["kv1", "kv2", "kv3"]);
    assert_eq!(site.get(NINA, &format!("{}/resourceGroups", subscription())).await.is(200).names(), ["rg2"]);
    site.get(NINA, &format!("{rg}/resources")).await.is(403);
}

#[tokio::test]
async fn tenants_subscriptions_locations_providers() {
    let site = Site::new().await;
    let tenants = site.get(STRANGER, "/tenants").await.is(200);
    assert_eq!(tenants.body["value"][0]["tenantId"], json!(TENANT));
    let seen = site.get(OWNER, "/subscriptions").await.is(200);
    assert_eq!(seen.body["value"][0]["subscriptionId"], json!(SUBSCRIPTION));
    assert_eq!(site.get(STRANGER, "/subscriptions").await.is(200).body["value"], json!([]));
    // A role anywhere in it is enough to see it, as `az login` needs.
    let rg = site.group("rg").await;
    let widget = site.widget(&rg, "one").await;
    site.assign(OWNER, 1, MACHINE, "Reader", &widget).await.is(201);
    assert_eq!(site.get(MACHINE, "/subscriptions").await.is(200).body["value"][0]["displayName"], "First");
    site.get(MACHINE, &subscription()).await.is(403);
    assert_eq!(site.get(OWNER, &subscription()).await.is(200).body["state"], "Enabled");

    let locations = site.get(OWNER, &format!("{}/locations", subscription())).await.is(200);
    assert!(locations.names().contains(&"uksouth"));
    let provider = format!("{}/providers/test.widgets", subscription());
    let shown = site.get(OWNER, &provider).await.is(200);
    assert_eq!(shown.body["namespace"], "Test.Widgets");
    assert_eq!(shown.body["registrationState"], "Registered");
    assert_eq!(shown.body["resourceTypes"][0]["resourceType"], "widgets");
    assert_eq!(shown.body["resourceTypes"][0]["apiVersions"], json!(["2024-01-01", "2023-01-01-preview"]));
    site.get(STRANGER, "/providers/Microsoft.Authorization").await.is(200);
    assert_eq!(
        site.get(OWNER, &format!("{}/providers/No.Such", subscription())).await.is(404).code(),
        "InvalidResourceNamespace"
    );

    let operations = "/providers/Microsoft.Authorization/providerOperations";
    let all = site.get(STRANGER, operations).await.is(200);
    assert_eq!(
        all.names(),
        ["Microsoft.Authorization", "Microsoft.Resources", "Test.Engines", "Test.Widgets"]
    );
    let mine = site.get(STRANGER, &format!("{operations}/test.widgets?$expand=resourceTypes")).await.is(200);
    assert_eq!(mine.body["resourceTypes"][0]["operations"][0]["name"], "Test.Widgets/widgets/delete");
    assert_eq!(mine.body["operations"][0]["name"], "Test.Widgets/register/action");

    site.call(OWNER, Method::DELETE, &widget, Value::Null).await.is(200);
    site.call(OWNER, Method::POST, &format!("{provider}/unregister"), Value::Null).await.is(200);
    let refused = format!("{rg}/providers/Test.Widgets/widgets/two");
    let answer = site.put(OWNER, &refused, json!({ "location": "uksouth" })).await.is(409);
    assert_eq!(answer.code(), "MissingSubscriptionRegistration");
    let back = site.call(OWNER, Method::POST, &format!("{provider}/register"), Value::Null).await.is(200);
    assert_eq!(back.body["registrationState"], "Registered");
    site.put(OWNER, &refused, json!({ "location": "uksouth" })).await.is(201);
}

/// What is there can be worked with, so its namespace stays registered, and those that everything needs always do.
#[tokio::test]
async fn a_namespace_that_is_used_stays_registered() {
    let site = Site::new().await;
    // Neither a group nor a resource that is called like a namespace is of it.
    let rg = site.group("Test.Engines").await;
    let widget = site.widget(&rg, "one").await;
    site.put(OWNER, &format!("{widget}/parts/p1"), json!({})).await.is(200);
    let verb = async |namespace: &str, verb: &str| {
        let path = format!("{}/providers/{namespace}/{verb}", subscription());
        site.call(OWNER, Method::POST, &path, Value::Null).await
    };
    let refused = verb("test.widgets", "unregister").await.is(409);
    assert_eq!(refused.code(), "CannotUnregisterProviderWithExistingResources");
    for namespace in ["Microsoft.Authorization", "microsoft.resources"] {
        let refused = verb(namespace, "unregister").await.is(409);
        assert_eq!(refused.code(), "CannotUnregisterRegistrationFreeResourceProvider");
        let shown = verb(namespace, "register").await.is(200);
        let policy = (&shown.body["registrationState"], &shown.body["registrationPolicy"]);
        assert_eq!(policy, (&json!("Registered"), &json!("RegistrationFree")));
    }
    verb("Test.Engines", "unregister").await.is(200);
    site.put(OWNER, &format!("{rg}/providers/Test.Widgets/widgets/two"), json!({ "location": "uksouth" }))
        .await
        .is(201);
    for name in ["one", "two"] {
        let path = format!("{rg}/providers/Test.Widgets/widgets/{name}");
        site.call(OWNER, Method::DELETE, &path, Value::Null).await.is(200);
    }
    verb("Test.Widgets", "unregister").await.is(200);
}

/// Registering a namespace is a right of that namespace.
#[tokio::test]
async fn who_may_register_a_namespace() {
    let site = Site::new().await;
    let namespaces = [("Test.Widgets", NINA), ("Microsoft.Resources/subscriptions/providers", MACHINE)];
    for (number, (of, who)) in namespaces.into_iter().enumerate() {
        let id = uuid::Uuid::from_u128(0xC0 + number as u128);
        let role = format!("{}/providers/Microsoft.Authorization/roleDefinitions/{id}", subscription());
        let actions = [format!("{of}/register/action"), format!("{of}/unregister/action")];
        let body = json!({ "properties": {
            "roleName": of, "assignableScopes": [subscription()], "permissions": [{ "actions": actions }],
        } });
        site.put(OWNER, &role, body).await.is(201);
        let grant = json!({ "properties": { "roleDefinitionId": role, "principalId": who } });
        site.put(OWNER, &assignment(&subscription(), number as u128), grant).await.is(201);
    }
    for (namespace, who, other) in [
        ("test.widgets", NINA, MACHINE),
        ("Test.Engines", OWNER, NINA),
        ("Microsoft.Resources", MACHINE, NINA),
    ] {
        for verb in ["unregister", "register"] {
            let path = format!("{}/providers/{namespace}/{verb}", subscription());
            site.call(other, Method::POST, &path, Value::Null).await.is(403);
            let answer = site.call(who, Method::POST, &path, Value::Null).await;
            if verb == "unregister" && namespace == "Microsoft.Resources" {
                answer.is(409);
                continue;
            }
            let state = if verb == "register" { "Registered" } else { "NotRegistered" };
            assert_eq!(answer.is(200).body["registrationState"], state, "{path}");
        }
    }
}
