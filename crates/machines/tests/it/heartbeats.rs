//! Heartbeats: from the machine itself, about itself, and from nobody else.

use arcadia_kernel::{CallerKind, Method};
use arcadia_machines::HIS_AUDIENCE;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, key, machine};

const VM: Uuid = Uuid::from_u128(0xA1);

fn beat(vm_id: Uuid) -> String {
    json!({ "vmId": vm_id, "agentVersion": "2.0", "osName": "linux", "machineFqdn": "ubuntu-01.local" })
        .to_string()
}

#[tokio::test]
async fn a_heartbeat_connects_and_silence_disconnects() {
    let world = World::new().await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let token = world.machine_token(&made, &key(0)).await;
    let answer = world.heartbeat(Some(&token), &beat(VM)).await.is(200);
    assert_eq!(answer.body["status"], "Connected");
    assert_eq!(answer.body["resource"]["name"], "ubuntu-01");
    assert_eq!(answer.body["resource"]["tags"], json!({ "platform": "none" }));

    let owner = world.owner().await;
    let shown = world.arm(&owner, Method::GET, &machine("ubuntu-01"), Value::Null).await.is(200);
    assert_eq!(shown.body["properties"]["status"], "Connected");
    assert_eq!(shown.body["properties"]["agentVersion"], "2.0");
    world.clock.advance_seconds(16 * 60);
    let shown = world.arm(&owner, Method::GET, &machine("ubuntu-01"), Value::Null).await.is(200);
    assert_eq!(shown.body["properties"]["status"], "Disconnected");
    world.heartbeat(Some(&token), &beat(VM)).await.is(200);
    let shown = world.arm(&owner, Method::GET, &machine("ubuntu-01"), Value::Null).await.is(200);
    assert_eq!(shown.body["properties"]["status"], "Connected");
}

#[tokio::test]
async fn an_expired_machine_comes_back_by_being_connected_anew() {
    let mut world = World::new().await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let token = world.machine_token(&made, &key(0)).await;
    world.heartbeat(Some(&token), &beat(VM)).await.is(200);
    world.clock.advance_seconds(45 * 86_400 + 1);
    let token = world.machine_token(&made, &key(0)).await;
    let refused = world.heartbeat(Some(&token), &beat(VM)).await.is(409);
    assert_eq!(refused.code(), "Expired");
    let text = refused.body["error"]["message"].as_str().unwrap();
    assert!(text.contains("azcmagent disconnect") && text.contains("azcmagent connect"), "{text}");
    let owner = world.owner().await;
    // Neither writing it again as it is nor time brings it back.
    world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    world.heartbeat(Some(&token), &beat(VM)).await.is(409);
    let shown = world.arm(&owner, Method::GET, &machine("ubuntu-01"), Value::Null).await.is(200);
    assert_eq!(shown.body["properties"]["status"], "Expired");
    // Nor does a restart of the site, once it has listened for a while.
    world.restart().await;
    world.clock.advance_seconds(16 * 60);
    world.heartbeat(Some(&token), &beat(VM)).await.is(409);

    world.arm(&owner, Method::DELETE, &machine("ubuntu-01"), Value::Null).await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let token = world.machine_token(&made, &key(0)).await;
    assert_eq!(world.heartbeat(Some(&token), &beat(VM)).await.is(200).body["status"], "Connected");
}

/// A suspended laptop, or a paused virtual machine: nobody could be heard meanwhile.
#[tokio::test]
async fn a_machine_comes_back_by_itself_to_a_site_that_slept() {
    let world = World::new().await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let token = world.machine_token(&made, &key(0)).await;
    world.heartbeat(Some(&token), &beat(VM)).await.is(200);
    world.clock.advance_seconds(86_400);
    world.clock.sleep_seconds(46 * 86_400);
    let token = world.machine_token(&made, &key(0)).await;
    assert_eq!(world.heartbeat(Some(&token), &beat(VM)).await.is(200).body["status"], "Connected");
}

#[tokio::test]
async fn another_method_is_told_which_one_is_allowed() {
    let world = World::new().await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let token = world.machine_token(&made, &key(0)).await;
    let refused = world.his(Method::GET, Some(&token), "").await.is(405);
    assert_eq!(refused.headers["allow"], "POST");
}

#[tokio::test]
async fn strangers_do_not_beat() {
    let world = World::new().await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let challenge = world.heartbeat(None, &beat(VM)).await.is(401);
    let header = challenge.headers["www-authenticate"].to_str().unwrap();
    assert!(header.contains("resource=\"https://his.arc.azure.com\""), "{header}");
    world.heartbeat(Some("not.a.token"), &beat(VM)).await.is(401);
    // The site's own first service principal is no machine.
    let owner = world.owner_token(HIS_AUDIENCE).await;
    world.heartbeat(Some(&owner), &beat(VM)).await.is(403);
    // A machine's token for another audience.
    let client_id = made.headers["x-ms-arcadia-identity-client-id"].to_str().unwrap();
    let other = world.assertion(&key(0), client_id, "https://vault.azure.net").await.is(200);
    let other = other.body["access_token"].as_str().unwrap();
    world.heartbeat(Some(other), &beat(VM)).await.is(401);
    // An expired one.
    let token = world.machine_token(&made, &key(0)).await;
    world.clock.advance_seconds(86_400 + 301);
    world.heartbeat(Some(&token), &beat(VM)).await.is(401);
}

/// Whatever else a directory came to write into its tokens.
#[tokio::test]
async fn a_machine_is_an_identity_and_no_name_in_a_token() {
    let world = World::new().await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let token = world.machine_token(&made, &key(0)).await;
    let owner = world.owner_token(HIS_AUDIENCE).await;
    world.amend_tokens(|caller| {
        caller.kind = CallerKind::ManagedIdentity;
        caller.resource_id = Some(machine("ubuntu-01"));
    });
    world.heartbeat(Some(&owner), &beat(VM)).await.is(403);
    world.heartbeat(Some(&token), &beat(VM)).await.is(200);
    world.amend_tokens(|caller| caller.kind = CallerKind::Application);
    world.heartbeat(Some(&token), &beat(VM)).await.is(403);
}

#[tokio::test]
async fn a_heartbeat_does_not_outlive_its_machine() {
    let (world, rows) = World::held_up().await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let token = world.machine_token(&made, &key(0)).await;
    let owner = world.owner().await;
    let (found, look_again) = rows.hold("arm/resources");
    let deleting = async {
        found.await.unwrap();
        let (found_again, write) = rows.hold("arm/resources");
        look_again.send(()).unwrap();
        found_again.await.unwrap();
        let gone = world.arm(&owner, Method::DELETE, &machine("ubuntu-01"), Value::Null).await;
        write.send(()).unwrap();
        gone
    };
    let body = beat(VM);
    let (heard, gone) = tokio::join!(world.heartbeat(Some(&token), &body), deleting);
    assert!(gone.status < 300 && heard.status >= 400, "{} {}", gone.body, heard.body);
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    assert_eq!(made.body["properties"]["status"], "AwaitingConnection");
}

#[tokio::test]
async fn a_clone_is_told_so_and_hostile_bodies_are_refused() {
    let world = World::new().await;
    let made = world.connect("ubuntu-01", VM, &key(0)).await.is(200);
    let token = world.machine_token(&made, &key(0)).await;
    let clone = world.heartbeat(Some(&token), &beat(Uuid::from_u128(0xC3))).await.is(409);
    assert_eq!(clone.code(), "Cloned");
    let huge = format!("{{\"vmId\":\"{VM}\",\"osName\":\"{}\"}}", "x".repeat(20_000));
    for (bad, status) in [("", 400), ("{", 400), ("[]", 400), ("{\"vmId\":7}", 400), (huge.as_str(), 413)] {
        let answer = world.heartbeat(Some(&token), bad).await;
        assert_eq!(answer.status, status, "{bad:.40} {}", answer.body);
    }
    let long = json!({ "vmId": VM, "osName": "y".repeat(1000) }).to_string();
    world.heartbeat(Some(&token), &long).await.is(200);
    let owner = world.owner().await;
    let shown = world.arm(&owner, Method::GET, &machine("ubuntu-01"), Value::Null).await.is(200);
    assert_eq!(shown.body["properties"]["osName"].as_str().unwrap().len(), 256);
}
