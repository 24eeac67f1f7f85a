use std::sync::Arc;

use arcadia_crypto::{RsaBits, RsaKeyPair, SystemEntropy};
use arcadia_directory::{ManagedIdentity, ManagedIdentitySpec};
use arcadia_kernel::{ArmId, CallerKind, Decision, Plane, Question, Reason};
use arcadia_store::Batch;
use serde_json::{Value, json};

use crate::world::{ARM, Answer, START, World, assertion, key, sign, text};

const MACHINE: &str =
    "/subscriptions/s/resourceGroups/arc-hack/providers/Microsoft.HybridCompute/machines/ubuntu-01";
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub async fn machine(world: &World) -> ManagedIdentity {
    let mut batch = Batch::new();
    let spec = ManagedIdentitySpec {
        display_name: "ubuntu-01".into(),
        resource_id: ArmId::parse(MACHINE).unwrap(),
        public_key: key().public().clone(),
    };
    let identity = world.directory.plan_managed_identity(&mut batch, spec, &SystemEntropy).unwrap();
    commit(world, batch).await;
    identity
}

async fn commit(world: &World, batch: Batch) {
    let permit = world.gate.as_system(Reason::AsyncOperation);
    world.store.commit(permit.stamp(), batch).await.unwrap();
}

pub fn audience(world: &World) -> String {
    format!("https://login.microsoftonline.com/{}/oauth2/v2.0/token", world.tenant())
}

pub async fn show(world: &World, client: &str, assertion: &str) -> Answer {
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", client),
        ("client_assertion", assertion),
        ("client_assertion_type", TYPE),
        ("scope", "https://vault.azure.net/.default"),
    ];
    world.token(&world.tenant(), &fields).await
}

/// As HIMDS asks for it: the resource as it is.
#[tokio::test]
async fn a_machine_gets_a_token_for_one_storage_account() {
    let world = World::new().await;
    let client = machine(&world).await.app_id.to_string();
    for (jti, resource) in
        [("1", "https://acct1.blob.core.windows.net"), ("2", "https://acct1.blob.core.windows.net/")]
    {
        let shown = assertion(&key(), &client, &audience(&world), START, jti);
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", client.as_str()),
            ("client_assertion", shown.as_str()),
            ("client_assertion_type", TYPE),
            ("resource", resource),
        ];
        let answer = world.post(&format!("/{}/oauth2/token", world.tenant()), &fields).await.ok();
        assert_eq!(answer["resource"], resource);
        assert_eq!(world.claims(&text(&answer, "access_token"))["aud"], resource);
    }
}

#[tokio::test]
async fn a_machine_proves_itself_with_its_own_key() {
    let world = World::new().await;
    let identity = machine(&world).await;
    let client = identity.app_id.to_string();
    let answer = show(&world, &client, &assertion(&key(), &client, &audience(&world), START, "1")).await.ok();
    assert_eq!(answer["expires_in"], 86_399);
    let token = text(&answer, "access_token");
    let claims = world.claims(&token);
    assert_eq!(claims["exp"].as_i64(), Some(START + 86_400));
    assert_eq!(claims["xms_mirid"], MACHINE.replace("resourceGroups", "resourcegroups"));
    assert_eq!((&claims["appidacr"], &claims["idtyp"]), (&json!("2"), &json!("app")));
    assert_eq!(claims["oid"], identity.object_id.to_string());
    let caller = arcadia_kernel::Authenticator::verify(&*world.verifier, &token, START).unwrap().caller;
    assert_eq!(caller.kind, CallerKind::ManagedIdentity);
    let facts = world.directory.principal(identity.object_id).unwrap();
    assert_eq!((facts.kind, facts.app_id), (CallerKind::ManagedIdentity, Some(identity.app_id)));
    let scope = ArmId::parse(&format!("/servicePrincipals/{}", identity.object_id)).unwrap();
    let question = Question {
        caller: &caller,
        action: "microsoft.directory/servicePrincipals/standard/read",
        plane: Plane::Directory,
        scope: &scope,
    };
    assert!(matches!(world.directory.decide(&question), Decision::Denied(_)));
}

#[tokio::test]
async fn assertions_that_are_not_the_machines_own_are_refused() {
    let world = World::new().await;
    let client = machine(&world).await.app_id.to_string();
    let other = world.first.app_id.to_string();
    let good = audience(&world);
    let stranger = RsaKeyPair::generate(RsaBits::Bits2048).unwrap();
    let header = json!({ "alg": "RS256" });
    let claims = json!({ "iss": client, "sub": client, "aud": good, "exp": START + 60, "jti": "x" });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        sign(&key(), &header, &claims)
    };
    let cases = [
        (assertion(&stranger, &client, &good, START, "1"), 700_027),
        (sign(&key(), &json!({ "alg": "none" }), &claims), 700_027),
        (sign(&key(), &json!({ "alg": "HS256" }), &claims), 700_027),
        (with("iss", json!(other)), 700_021),
        (with("sub", json!(other)), 700_021),
        (with("aud", json!("https://login.microsoftonline.com/common/oauth2/v2.0/token")), 700_023),
        (with("aud", json!("https://evil.example/token")), 700_023),
        (with("exp", json!(START - 400)), 700_024),
        (with("exp", json!(START + 48 * 3600)), 700_024),
        (with("nbf", json!(START + 400)), 700_024),
        (with("exp", Value::Null), 50_027),
        ("a.b.c".to_owned(), 50_027),
        (String::from("x"), 50_027),
    ];
    for (assertion, number) in cases {
        let address = format!("10.0.0.{}", number % 250);
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", client.as_str()),
            ("client_assertion", assertion.as_str()),
            ("client_assertion_type", TYPE),
            ("scope", ARM),
        ];
        let path = format!("/{}/oauth2/v2.0/token", world.tenant());
        let answer = world.post_from(&address, &path, &fields).await;
        assert_eq!(answer.refusal().2, number, "{}", answer.text);
    }
    let mut wrong_type = vec![("grant_type", "client_credentials"), ("client_id", client.as_str())];
    let fine = assertion(&key(), &client, &good, START, "t");
    wrong_type.extend([("client_assertion", fine.as_str()), ("client_assertion_type", "x"), ("scope", ARM)]);
    assert_eq!(world.token(&world.tenant(), &wrong_type).await.refusal().2, 50_027);
}

#[tokio::test]
async fn an_assertion_is_good_once_for_a_machine() {
    let world = World::new().await;
    let client = machine(&world).await.app_id.to_string();
    let shown = assertion(&key(), &client, &audience(&world), START, "1");
    show(&world, &client, &shown).await.ok();
    assert_eq!(show(&world, &client, &shown).await.refusal(), (401, "invalid_client".into(), 50_027));
    let records = world.store.audit_page(0, 1000).await.unwrap();
    let ends: Vec<_> =
        records.into_iter().map(|record| record.1).filter(|r| r.operation == "TokenV2").collect();
    let kinds: Vec<_> = ends.iter().map(|record| (record.caller_kind, record.caller_name.as_str())).collect();
    let expected = [(CallerKind::ManagedIdentity, &*client), (CallerKind::Anonymous, &*client)];
    assert_eq!(kinds, expected, "recorded under whoever proved it, and under nobody when it was shown again");
    let world = world.restarted().await;
    assert_eq!(show(&world, &client, &shown).await.refusal().2, 50_027, "also after a restart");
    // Without a `jti` the assertion itself is what is remembered.
    let claims = json!({ "iss": client, "sub": client, "aud": audience(&world), "exp": START + 60 });
    let nameless = sign(&key(), &json!({ "alg": "RS256" }), &claims);
    show(&world, &client, &nameless).await.ok();
    assert_eq!(show(&world, &client, &nameless).await.refusal().2, 50_027);
}

/// The site's clock may be a little behind the machine's.
#[tokio::test]
async fn an_assertion_is_remembered_for_as_long_as_it_would_be_taken() {
    let world = World::new().await;
    let client = machine(&world).await.app_id.to_string();
    let shown = assertion(&key(), &client, &audience(&world), START, "1");
    show(&world, &client, &shown).await.ok();
    let sweep = || world.directory.sweep(world.gate.as_system(Reason::Sweep));
    world.clock.advance_seconds(600 + 299);
    assert_eq!(sweep().await.unwrap(), 0);
    assert_eq!(show(&world, &client, &shown).await.refusal().2, 50_027);
    world.clock.advance_seconds(2);
    assert_eq!(show(&world, &client, &shown).await.refusal().2, 700_024);
    world.clock.advance_seconds(3600);
    assert_eq!(sweep().await.unwrap(), 1);
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_an_assertion() {
    let world = World::new().await;
    let client = machine(&world).await.app_id.to_string();
    let shown = assertion(&key(), &client, &audience(&world), START, "1");
    let ask = async |grant: &str, scope: &str| {
        let fields = [
            ("grant_type", grant),
            ("client_id", client.as_str()),
            ("client_assertion", shown.as_str()),
            ("client_assertion_type", TYPE),
            ("scope", scope),
        ];
        world.token(&world.tenant(), &fields).await
    };
    for (grant, scope, number) in [
        ("nosuch", ARM, 70_003),
        ("client_credentials", "", 900_144),
        ("client_credentials", "https://vault.azure.net", 1_002_012),
        ("client_credentials", "https://nobody.example/.default", 500_011),
        ("password", ARM, 900_144),
    ] {
        assert_eq!(ask(grant, scope).await.refusal().2, number, "{grant} {scope}");
    }
    assert_eq!(world.rows("directory/assertion").await, 0);
    ask("client_credentials", ARM).await.ok();
    assert_eq!(ask("nosuch", ARM).await.refusal().2, 50_027, "whatever it is asked for");
}

#[tokio::test]
async fn of_many_requests_with_one_assertion_one_is_answered() {
    let world = Arc::new(World::new().await);
    let client = machine(&world).await.app_id.to_string();
    let shown = assertion(&key(), &client, &audience(&world), START, "race");
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let (world, client, shown) = (world.clone(), client.clone(), shown.clone());
            tokio::spawn(async move { show(&world, &client, &shown).await.status.as_u16() })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in tries {
        statuses.push(one.await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
}

#[tokio::test]
async fn another_key_and_a_deleted_identity_prove_nothing() {
    let world = World::new().await;
    let identity = machine(&world).await;
    let client = identity.app_id.to_string();
    let other = RsaKeyPair::generate(RsaBits::Bits2048).unwrap();
    let by = |key: &RsaKeyPair, jti: &str| assertion(key, &client, &audience(&world), START, jti);
    assert_eq!(show(&world, &client, &by(&other, "1")).await.refusal().2, 700_027);
    show(&world, &client, &by(&key(), "2")).await.ok();
    let mut batch = Batch::new();
    world.directory.plan_delete_identity(&mut batch, identity.object_id).await.unwrap();
    commit(&world, batch).await;
    assert_eq!(show(&world, &client, &by(&key(), "3")).await.refusal().2, 700_016);
    assert!(world.directory.principal(identity.object_id).is_none());
    let mut batch = Batch::new();
    world.directory.plan_delete_identity(&mut batch, identity.object_id).await.unwrap();
    assert!(batch.is_empty(), "deleting twice is nothing");
}

#[tokio::test]
async fn a_certificate_proves_an_application_and_one_address_may_show_it_again() {
    let world = World::new().await;
    let (id, app_id, ..) = world.application("robot").await;
    let der = arcadia_crypto::self_signed("robot", &key(), START, 1).unwrap();
    let admin = world.admin_graph_token().await;
    let wrapped: String = arcadia_crypto::b64(&der)
        .as_bytes()
        .chunks(64)
        .map(|line| format!("{}\n", std::str::from_utf8(line).unwrap()))
        .collect();
    let body = json!({ "keyCredentials": [{
        "@odata.type": "#microsoft.graph.keyCredential", "displayName": null,
        "endDateTime": "2027-11-21T16:49:08Z", "key": wrapped,
    }] });
    let path = format!("/v1.0/applications/{id}");
    world.graph(&admin, "PATCH", &path, body).await.ok();
    let shown = assertion(&key(), &app_id, &audience(&world), START, "c");
    let answer = show(&world, &app_id, &shown).await.ok();
    let claims = world.claims(&text(&answer, "access_token"));
    assert_eq!((&claims["appidacr"], answer["expires_in"].as_i64()), (&json!("2"), Some(3599)));
    show(&world, &app_id, &shown).await.ok();
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", app_id.as_str()),
        ("client_assertion", shown.as_str()),
        ("client_assertion_type", TYPE),
        ("scope", ARM),
    ];
    let path_token = format!("/{}/oauth2/v2.0/token", world.tenant());
    let elsewhere = world.post_from("10.9.9.9", &path_token, &fields).await;
    assert_eq!(elsewhere.refusal(), (401, "invalid_client".into(), 50_027));
    // Keys are kept by their id and go when they are not named.
    let kept = world.graph(&admin, "GET", &path, Value::Null).await.ok()["keyCredentials"].clone();
    assert_eq!(kept[0]["key"], Value::Null);
    world.graph(&admin, "PATCH", &path, json!({ "keyCredentials": kept })).await.ok();
    // Also with the key itself, and without what need not be said.
    let again = json!({ "keyId": kept[0]["keyId"], "key": arcadia_crypto::b64(&der) });
    world.graph(&admin, "PATCH", &path, json!({ "keyCredentials": [again] })).await.ok();
    assert_eq!(world.graph(&admin, "GET", &path, Value::Null).await.ok()["keyCredentials"], kept);
    show(&world, &app_id, &assertion(&key(), &app_id, &audience(&world), START, "d")).await.ok();
    world.graph(&admin, "PATCH", &path, json!({ "keyCredentials": [] })).await.ok();
    let gone = show(&world, &app_id, &assertion(&key(), &app_id, &audience(&world), START, "e")).await;
    assert_eq!(gone.refusal().2, 700_027);
}

/// A credential without dates has its certificate's, and none has others that the certificate does not allow.
#[tokio::test]
async fn a_key_is_good_no_longer_than_its_certificate() {
    let world = World::new().await;
    let (id, app_id, ..) = world.application("robot").await;
    let admin = world.admin_graph_token().await;
    let path = format!("/v1.0/applications/{id}");
    let certificate = |from: i64| arcadia_crypto::self_signed("robot", &key(), from, 1).unwrap();
    let register = async |der: &[u8], dates: Value| {
        let mut sent = json!({ "key": arcadia_crypto::b64(der) });
        sent.as_object_mut().unwrap().extend(dates.as_object().unwrap().clone());
        world.graph(&admin, "PATCH", &path, json!({ "keyCredentials": [sent] })).await
    };
    let year = 365 * 24 * 3600;
    let expired = certificate(START - 2 * year);
    register(&expired, json!({})).await.ok();
    let shown = world.graph(&admin, "GET", &path, Value::Null).await.ok()["keyCredentials"].clone();
    assert!(text(&shown[0], "endDateTime").starts_with("2025-11-"), "{shown}");
    let refused = show(&world, &app_id, &assertion(&key(), &app_id, &audience(&world), START, "a")).await;
    assert_eq!(refused.refusal().2, 700_027);
    let current = certificate(START);
    for (der, dates, what) in [
        (&expired, json!({ "endDateTime": "2027-01-01T00:00:00Z" }), "end"),
        (&current, json!({ "endDateTime": "2027-12-01T00:00:00Z" }), "end"),
        (&current, json!({ "startDateTime": "2026-11-01T00:00:00Z" }), "start"),
    ] {
        let refused = register(der, dates).await;
        assert_eq!(refused.graph_refusal(), (400, "Request_BadRequest".into()));
        assert!(
            refused.text.contains(&format!("Key credential {what} date is invalid.")),
            "{}",
            refused.text
        );
    }
    register(&current, json!({ "endDateTime": "2027-01-01T00:00:00Z" })).await.ok();
    show(&world, &app_id, &assertion(&key(), &app_id, &audience(&world), START, "b")).await.ok();
    register(&current, json!({ "startDateTime": "2026-12-01T00:00:00Z" })).await.ok();
    let early = show(&world, &app_id, &assertion(&key(), &app_id, &audience(&world), START, "c")).await;
    assert_eq!(early.refusal(), (401, "invalid_client".into(), 700_027));
    world.clock.advance_seconds(30 * 24 * 3600);
    let now = START + 30 * 24 * 3600;
    show(&world, &app_id, &assertion(&key(), &app_id, &audience(&world), now, "d")).await.ok();
}

/// Whoever gave it a secret could be the machine.
#[tokio::test]
async fn a_machines_identity_is_changed_through_its_resource_alone() {
    let world = World::new().await;
    let identity = machine(&world).await;
    let admin = world.admin_graph_token().await;
    let path = format!("/v1.0/servicePrincipals/{}", identity.object_id);
    let certificate = arcadia_crypto::self_signed("other", &key(), START, 1).unwrap();
    let before = world.all("directory/service-principal").await;
    for (method, path, body) in [
        ("POST", format!("{path}/addPassword"), json!({})),
        ("PATCH", path.clone(), json!({ "keyCredentials": [{ "key": arcadia_crypto::b64(&certificate) }] })),
        ("PATCH", path.clone(), json!({ "keyCredentials": [] })),
        ("PATCH", path.clone(), json!({ "notes": "x" })),
        ("DELETE", path.clone(), Value::Null),
    ] {
        let refused = world.graph(&admin, method, &path, body).await;
        assert_eq!(refused.graph_refusal(), (400, "Request_BadRequest".into()), "{method} {path}");
        assert!(refused.text.contains("only through the resource it belongs to"), "{}", refused.text);
    }
    assert_eq!(world.all("directory/service-principal").await, before);
    // But any may be switched off.
    let off = json!({ "accountEnabled": false });
    assert_eq!(world.graph(&admin, "PATCH", &path, off).await.status, 204);
}

/// Nothing of a credential that is there can be changed, and what a request says of one is not dropped silently.
#[tokio::test]
async fn credentials_are_kept_as_they_are_or_removed() {
    let world = World::new().await;
    let (id, _, principal, _) = world.application("robot").await;
    let admin = world.admin_graph_token().await;
    let der = |years: u32| {
        arcadia_crypto::b64(&arcadia_crypto::self_signed("robot", &key(), START, years).unwrap())
    };
    for path in [format!("/v1.0/applications/{id}"), format!("/v1.0/servicePrincipals/{principal}")] {
        let key = json!({ "keyCredentials": [{ "key": der(1), "displayName": "one" }] });
        world.graph(&admin, "PATCH", &path, key).await.ok();
        world.graph(&admin, "POST", &format!("{path}/addPassword"), json!({})).await.ok();
        let shown = async || world.graph(&admin, "GET", &path, Value::Null).await.ok();
        let before = shown().await;
        let lists = json!({
            "keyCredentials": before["keyCredentials"], "passwordCredentials": before["passwordCredentials"],
        });
        world.graph(&admin, "PATCH", &path, lists.clone()).await.ok();
        let mut zoned = lists;
        zoned["passwordCredentials"][0]["endDateTime"] = {
            let end = text(&before["passwordCredentials"][0], "endDateTime");
            end.replace('Z', ".0000000+00:00").into()
        };
        world.graph(&admin, "PATCH", &path, zoned).await.ok();
        assert_eq!(shown().await, before);
        for (list, property, value) in [
            ("passwordCredentials", "endDateTime", json!("2099-01-01T00:00:00Z")),
            ("passwordCredentials", "startDateTime", Value::Null),
            ("passwordCredentials", "displayName", json!("other")),
            ("passwordCredentials", "hint", json!("???")),
            ("passwordCredentials", "secretText", json!("chosen")),
            ("keyCredentials", "endDateTime", json!("2027-01-01T00:00:00Z")),
            ("keyCredentials", "displayName", Value::Null),
            ("keyCredentials", "customKeyIdentifier", json!("AAAA")),
            ("keyCredentials", "key", json!(der(2))),
        ] {
            let mut sent = before[list].clone();
            sent[0][property] = value;
            let refused = world.graph(&admin, "PATCH", &path, json!({ list: sent })).await;
            assert_eq!(refused.graph_refusal(), (400, "Request_BadRequest".into()), "{list} {property}");
            let message = format!(
                "Update to existing credential with KeyId '{}' is not allowed.",
                text(&before[list][0], "keyId")
            );
            assert!(refused.text.contains(&message), "{list} {property}: {}", refused.text);
        }
        for (list, extra) in [("passwordCredentials", "nosuch"), ("keyCredentials", "nosuch")] {
            let mut sent = before[list].clone();
            sent[0][extra] = json!(1);
            let refused = world.graph(&admin, "PATCH", &path, json!({ list: sent })).await;
            assert!(refused.text.contains("Invalid property 'nosuch'"), "{list}: {}", refused.text);
        }
        let twice = json!([before["keyCredentials"][0], before["keyCredentials"][0]]);
        assert_eq!(world.graph(&admin, "PATCH", &path, json!({ "keyCredentials": twice })).await.status, 400);
        assert_eq!(shown().await, before);
    }
}
