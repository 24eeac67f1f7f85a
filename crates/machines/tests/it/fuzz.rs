//! Fuzz target for what machines and their owners say of them.

use std::cell::RefCell;

use arcadia_crypto::b64;
use arcadia_kernel::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::world::*;

/// Inputs that one site gets; then there is a new one, so that what fuzzing piles up stays bounded.
const INPUTS_MAX: usize = 200;

struct Site {
    runtime: Runtime,
    world: World,
    inputs: usize,
}

arcadia_fuzz::target!(machine_bodies, 192 copies, |data: &[u8]| a_machine_stays_itself(data));

/// Two bodies of a machine and one of a heartbeat, a line each; `*` is its key.
fn a_machine_stays_itself(data: &[u8]) {
    thread_local!(static SITE: RefCell<Option<Site>> = const { RefCell::new(None) });
    let text = String::from_utf8_lossy(data).replace('*', &b64(&key(0).public().to_pkcs1_der()));
    let mut lines = text.splitn(3, '\n').map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
    let mut line = || lines.next().unwrap_or_default();
    let (first, second, beat) = (line(), line(), text.splitn(3, '\n').nth(2).unwrap_or_default());
    SITE.with_borrow_mut(|site| {
        let site = match site {
            Some(site) if site.inputs < INPUTS_MAX => site,
            other => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let world = runtime.block_on(World::new());
                other.insert(Site { runtime, world, inputs: 0 })
            }
        };
        site.inputs += 1;
        let path = machine(&format!("m{}", site.inputs));
        site.runtime.block_on(tried(&site.world, &path, first, second, beat));
    });
}

async fn tried(world: &World, path: &str, first: Value, second: Value, beat: &str) {
    let owner = world.owner().await;
    let made = world.arm(&owner, Method::PUT, path, first.clone()).await;
    assert!(made.status < 500, "{first}: {}", made.body);
    if made.status != 200 {
        return assert!(!made.code().is_empty());
    }
    let is_same = |shown: &Value| {
        let (now, then) = (&shown["properties"], &made.body["properties"]);
        now["vmId"] == then["vmId"]
            && now["clientPublicKey"] == then["clientPublicKey"]
            && shown["identity"] == made.body["identity"]
    };
    assert_eq!(made.body["identity"]["type"], "SystemAssigned");
    assert_eq!(made.body["properties"]["clientPublicKey"], first["properties"]["clientPublicKey"]);
    let changed = world.arm(&owner, Method::PUT, path, second.clone()).await;
    assert!(changed.status < 500, "{second}: {}", changed.body);
    let shown = world.arm(&owner, Method::GET, path, Value::Null).await.is(200);
    assert!(is_same(&shown.body), "{first} {second}: {}", shown.body);
    if made.body["properties"]["clientPublicKey"] != json!(b64(&key(0).public().to_pkcs1_der())) {
        return;
    }
    let token = world.machine_token(&made, &key(0)).await;
    assert!(matches!(world.heartbeat(None, beat).await.status, 401));
    let heard = world.heartbeat(Some(&token), beat).await;
    assert!(heard.status < 500, "{beat}: {}", heard.body);
    if heard.status == 200 {
        let said: Value = serde_json::from_str(beat).unwrap();
        let guid = |value: &Value| Uuid::try_parse(value.as_str().unwrap()).unwrap();
        assert_eq!(guid(&said["vmId"]), guid(&made.body["properties"]["vmId"]));
        let shown = world.arm(&owner, Method::GET, path, Value::Null).await.is(200);
        assert!(is_same(&shown.body) && shown.body["properties"]["status"] == "Connected");
        for name in ["agentVersion", "osName", "osVersion", "machineFqdn"] {
            let Some(text) = said[name].as_str() else { continue };
            let kept: String = text.chars().take(256).collect();
            assert_eq!(shown.body["properties"][name], json!(kept));
        }
    }
}

/// Else whoever makes many of them, as a fuzzer does, runs out of memory.
#[tokio::test]
async fn a_site_that_is_dropped_leaves_nothing() {
    let world = World::new().await;
    let directory = std::sync::Arc::downgrade(&world.directory);
    drop(world);
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(directory.strong_count(), 0);
}
