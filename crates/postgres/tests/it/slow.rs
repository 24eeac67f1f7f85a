//! Kinds that take time, by one whose work fails when it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};

use arcadia_arm::{Desired, NameRule, Plan, Resource, ResourceKind};
use arcadia_kernel::{Fault, Method};
use serde_json::{Value, json};

use crate::world::{World, group};

/// Things with a `mode` that says how their work goes.
#[derive(Default)]
pub struct Things(AtomicUsize);

fn mode(resource: &Resource) -> &str {
    resource.properties["mode"].as_str().unwrap_or("")
}

#[async_trait::async_trait]
impl ResourceKind for Things {
    const TYPE: &'static str = "Microsoft.DBforPostgreSQL/things";
    const API_VERSIONS: &'static [&'static str] = &["2025-08-01"];
    const NAME_RULE: NameRule = NameRule { chars_min: 1, chars_max: 20, pattern: "any", check: |_| true };
    const ASYNCHRONOUS: bool = true;

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        let properties = desired.properties.clone();
        Ok(Resource::planned(plan, current, desired, properties))
    }

    async fn delete(&self, _: &mut Plan<'_>, _: &Resource) -> Result<(), Fault> {
        Ok(())
    }

    async fn finish(&self, resource: &Resource) -> Result<Value, Fault> {
        match mode(resource) {
            "refuse" => Err(Fault::bad_request("NotLikeThis", "It cannot be done.")),
            "flaky" if self.0.fetch_add(1, Ordering::SeqCst) == 0 => {
                Err(Fault::internal("the first try fails"))
            }
            _ => Ok(json!({ "mode": mode(resource), "done": true })),
        }
    }

    async fn tear_down(&self, resource: &Resource) -> Result<(), Fault> {
        match mode(resource) {
            "stays" => Err(Fault::conflict("StillNeeded", "It is still needed.")),
            _ => Ok(()),
        }
    }

    fn properties(&self, resource: &Resource, _: &str) -> Value {
        resource.properties.clone()
    }
}

fn thing(name: &str) -> String {
    format!("{}/providers/Microsoft.DBforPostgreSQL/things/{name}", group())
}

fn body(mode: &str, tag: &str) -> Value {
    json!({ "location": "uksouth", "tags": { "t": tag }, "properties": { "mode": mode } })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_good_is_undone_and_what_fails_for_now_is_tried_again() {
    let world = World::new().await;
    let failed = world.change(Method::PUT, &thing("a"), body("refuse", "x")).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("Failed"), &json!("NotLikeThis")));
    world.arm(Method::GET, &thing("a"), Value::Null).await.is(404);

    World::succeeded(&world.change(Method::PUT, &thing("a"), body("flaky", "x")).await);
    let before = world.arm(Method::GET, &thing("a"), Value::Null).await.is(200).body;
    assert_eq!(before["properties"], json!({ "mode": "flaky", "done": true }));
    let failed = world.change(Method::PUT, &thing("a"), body("refuse", "y")).await;
    assert_eq!(failed["status"], "Failed");
    let after = world.arm(Method::GET, &thing("a"), Value::Null).await.is(200).body;
    assert_eq!((&after["properties"], &after["tags"]), (&before["properties"], &before["tags"]));

    World::succeeded(&world.change(Method::PUT, &thing("a"), body("stays", "x")).await);
    let failed = world.change(Method::DELETE, &thing("a"), Value::Null).await;
    assert_eq!(failed["error"]["code"], "StillNeeded");
    World::succeeded(&world.change(Method::PUT, &thing("a"), body("goes", "x")).await);
    World::succeeded(&world.change(Method::DELETE, &thing("a"), Value::Null).await);
    world.arm(Method::GET, &thing("a"), Value::Null).await.is(404);
}
