//! Operations beside one another, after one another, and after their resources.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arcadia_arm::{Desired, NameRule, Plan, RESOURCES, Resource, ResourceKind};
use arcadia_kernel::{ArmId, Fault, Method, Reason};
use arcadia_store::{Batch, Record, Table};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::support::*;

/// Takes its time, and fails, as it is told.
pub struct Engines {
    failures_left: AtomicI64,
    torn_down: AtomicI64,
    tried: AtomicI64,
    /// What engines whose `mode` is `waits` wait for.
    go: Semaphore,
}

impl Engines {
    pub fn new() -> Self {
        let none = || AtomicI64::new(0);
        Self { failures_left: none(), torn_down: none(), tried: none(), go: Semaphore::new(0) }
    }

    fn let_go(&self) {
        self.go.add_permits(100);
    }
}

#[async_trait::async_trait]
impl ResourceKind for Engines {
    const TYPE: &'static str = "Test.Engines/engines";
    const API_VERSIONS: &'static [&'static str] = &["2024-01-01"];
    const NAME_RULE: NameRule =
        NameRule { chars_min: 1, chars_max: 20, pattern: "^.{1,20}$", check: |_| true };
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
        self.tried.fetch_add(1, Ordering::SeqCst);
        let first = self.tried.load(Ordering::SeqCst) == 1;
        if resource.properties["mode"] == "breaks" || resource.properties["mode"] == "panics" && first {
            panic!("a kind has a defect");
        }
        if resource.properties["mode"] == "waits" {
            self.go.acquire().await.unwrap().forget();
        }
        if resource.properties["mode"] == "fails" {
            return Err(Fault::internal("not now"));
        }
        Ok(resource.properties.clone())
    }

    async fn tear_down(&self, resource: &Resource) -> Result<(), Fault> {
        if resource.properties["mode"] == "cracks" {
            panic!("a kind has a defect");
        }
        if resource.properties["mode"] == "stays" || self.failures_left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(Fault::internal("not now"));
        }
        self.torn_down.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn properties(&self, resource: &Resource, _: &str) -> Value {
        resource.properties.clone()
    }
}

/// What every engine has, and nobody recorded.
pub struct Wheels;

#[async_trait::async_trait]
impl ResourceKind for Wheels {
    const TYPE: &'static str = "Test.Engines/engines/wheels";
    const API_VERSIONS: &'static [&'static str] = &["2024-01-01"];
    const NAME_RULE: NameRule = Engines::NAME_RULE;
    const LOCATED: bool = false;
    const ASYNCHRONOUS: bool = true;

    async fn put(&self, plan: &mut Plan<'_>, _: Option<&Resource>, _: Desired) -> Result<Resource, Fault> {
        Ok(Resource::planned(plan, None, Desired::default(), Value::Null))
    }

    async fn delete(&self, _: &mut Plan<'_>, _: &Resource) -> Result<(), Fault> {
        Ok(())
    }

    async fn unrecorded(&self, beside: &ArmId) -> Result<Vec<Resource>, Fault> {
        Ok(vec![Resource::found(beside.join("front").unwrap(), json!({}), Timestamp::UNIX_EPOCH)])
    }

    fn properties(&self, resource: &Resource, _: &str) -> Value {
        resource.properties.clone()
    }
}

fn engine(group: &str, name: &str) -> String {
    format!("{group}/providers/Test.Engines/engines/{name}")
}

async fn put(site: &Site, path: &str, mode: &str) -> String {
    let body = json!({ "location": "uksouth", "properties": { "mode": mode } });
    begun(&site.put(OWNER, path, body).await.is(202))
}

fn begun(answer: &Answer) -> String {
    answer.header("azure-asyncoperation").trim_start_matches("https://management.azure.com").to_owned()
}

async fn status(site: &Site, operation: &str) -> String {
    site.get(OWNER, operation).await.is(200).body["status"].as_str().unwrap().to_owned()
}

async fn ended(site: &Site, operation: &str) -> String {
    for _ in 0..600 {
        let status = status(site, operation).await;
        if status != "InProgress" {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{operation} does not end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_its_time_holds_up_nothing_else() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let (rg, other) = (site.group("rg").await, site.group("other").await);
    let slow = put(&site, &engine(&rg, "slow"), "waits").await;
    for path in [engine(&rg, "quick"), engine(&other, "quick")] {
        assert_eq!(ended(&site, &put(&site, &path, "").await).await, "Succeeded");
        let deleted = begun(&site.delete(OWNER, &path).await.is(202));
        assert_eq!(ended(&site, &deleted).await, "Succeeded");
    }
    site.delete(OWNER, &other).await.is(202);
    for _ in 0..600 {
        if site.get(OWNER, &other).await.status == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.get(OWNER, &other).await.is(404);

    // A group that ends waits for what is under way in it.
    site.delete(OWNER, &rg).await.is(202);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(status(&site, &slow).await, "InProgress");
    site.get(OWNER, &rg).await.is(200);
    site.engines.let_go();
    assert_eq!(ended(&site, &slow).await, "Succeeded");
    for _ in 0..600 {
        if site.get(OWNER, &rg).await.status == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the group stays");
}

/// A deletion that failed for now is overtaken by that of the group, and finds another engine of that name then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_deletion_takes_nothing_new_away() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let rg = site.group("rg").await;
    let path = engine(&rg, "e");
    assert_eq!(ended(&site, &put(&site, &path, "").await).await, "Succeeded");
    site.engines.failures_left.store(2, Ordering::SeqCst);
    let deletion = begun(&site.delete(OWNER, &path).await.is(202));
    while site.engines.failures_left.load(Ordering::SeqCst) > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Behind the first, which fails once more.
    site.clock.advance_seconds(1);
    site.delete(OWNER, &rg).await.is(202);
    for _ in 0..600 {
        if site.get(OWNER, &rg).await.status == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(site.engines.torn_down.load(Ordering::SeqCst), 1);
    site.group("rg").await;
    assert_eq!(ended(&site, &put(&site, &path, "new").await).await, "Succeeded");
    assert_eq!(ended(&site, &deletion).await, "Succeeded", "it is gone");
    assert_eq!(site.get(OWNER, &path).await.is(200).body["properties"]["mode"], "new");
    assert_eq!(site.engines.torn_down.load(Ordering::SeqCst), 1);
}

/// Nor by whoever may only see it. A row that came into it meanwhile would be of no engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_row_is_not_deleted_out_of_what_is_being_deleted() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let rg = site.group("rg").await;
    let path = engine(&rg, "e");
    assert_eq!(ended(&site, &put(&site, &path, "stays").await).await, "Succeeded");
    let wheel = format!("{path}/wheels/front");
    site.assign(OWNER, 1, NINA, "Reader", &rg).await.is(201);
    site.get(NINA, &wheel).await.is(200);
    site.delete(NINA, &wheel).await.is(403);
    site.delete(OWNER, &path).await.is(202);
    assert_eq!(site.delete(OWNER, &wheel).await.is(409).code(), "AnotherOperationInProgress");
    assert!(site.store.get(RESOURCES, &ArmId::parse(&wheel).unwrap()).await.unwrap().is_none());
}

/// The last GET of a client's poller: what it gives its caller is the answer to this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_succeeded_is_shown_to_whoever_may_read_it() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let rg = site.group("rg").await;
    let path = engine(&rg, "e");
    let role = "/subscriptions/{s}/providers/Microsoft.Authorization/roleDefinitions/{r}"
        .replace("{s}", &SUBSCRIPTION.to_string())
        .replace("{r}", &Uuid::from_u128(0xB001).to_string());
    let writes = json!({ "properties": {
        "roleName": "Writer", "assignableScopes": [subscription()],
        "permissions": [{ "actions": ["Test.Engines/engines/write", "Test.Engines/engines/delete"] }],
    } });
    site.put(OWNER, &role, writes).await.is(201);
    let held = json!({ "properties": { "roleDefinitionId": role, "principalId": NINA } });
    site.put(OWNER, &assignment(&rg, 1), held).await.is(201);
    let body = |mode: &str| json!({ "location": "uksouth", "properties": { "mode": mode } });
    for (who, method, mode) in [
        (OWNER, Method::PUT, "new"),
        (OWNER, Method::PATCH, "changed"),
        (NINA, Method::PUT, "secret"),
        (NINA, Method::PATCH, "secret too"),
        (OWNER, Method::DELETE, ""),
    ] {
        let deletes = method == Method::DELETE;
        let sent = if deletes { Value::Null } else { body(mode) };
        let answer = site.call(who, method, &path, sent).await.is(202);
        assert_eq!(ended(&site, &begun(&answer)).await, "Succeeded");
        let location = answer.header("location").trim_start_matches("https://management.azure.com");
        let last = site.get(who, location).await.is(200);
        if who == OWNER && !deletes {
            let found = site.get(OWNER, &path).await.is(200);
            assert_eq!((&last.body, last.header("etag")), (&found.body, found.header("etag")), "{mode}");
            assert_eq!(last.body["properties"]["mode"], mode);
        } else {
            assert_eq!(last.body, Value::Null, "{mode}");
        }
    }
}

/// A site that was stopped for an hour has not tried for an hour, nor has one whose clock was set forward.
#[tokio::test(start_paused = true)]
async fn an_hour_in_which_nothing_ran_is_no_failure() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let path = engine(&rg, "e");
    let operation = put(&site, &path, "fails").await;
    site.clock.advance_seconds(60 * 60);
    site.arm.start(site.gate.clone()).await;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(status(&site, &operation).await, "InProgress");
        site.get(OWNER, &path).await.is(200);
        site.clock.advance_seconds(60 * 60);
    }
    assert!(site.engines.tried.load(Ordering::SeqCst) > 2);
    tokio::time::sleep(Duration::from_secs(11 * 60)).await;
    assert_eq!(ended(&site, &operation).await, "Failed");
    site.get(OWNER, &path).await.is(404);
}

/// As many as there is room for fail for ever, and were begun before.
#[tokio::test(start_paused = true)]
async fn what_fails_for_ever_leaves_room_for_others() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let rg = site.group("rg").await;
    for number in 0..8 {
        let path = engine(&rg, &format!("e{number}"));
        assert_eq!(ended(&site, &put(&site, &path, "stays").await).await, "Succeeded");
        site.delete(OWNER, &path).await.is(202);
    }
    site.clock.advance_seconds(1);
    let operation = put(&site, &engine(&rg, "e8"), "fails").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(status(&site, &operation).await, "InProgress");
    tokio::time::sleep(Duration::from_secs(12 * 60)).await;
    assert_eq!(ended(&site, &operation).await, "Failed");
}

/// When its time comes again there is no room, and nobody else begins anything later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_is_tried_again_also_when_there_was_no_room_for_it() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let rg = site.group("rg").await;
    let path = engine(&rg, "e");
    assert_eq!(ended(&site, &put(&site, &path, "").await).await, "Succeeded");
    site.engines.failures_left.store(1000, Ordering::SeqCst);
    let deletion = begun(&site.delete(OWNER, &path).await.is(202));
    for number in 0..8 {
        put(&site, &engine(&rg, &format!("slow{number}")), "waits").await;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    site.engines.failures_left.store(0, Ordering::SeqCst);
    site.engines.let_go();
    assert_eq!(ended(&site, &deletion).await, "Succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_broke_off_is_tried_again() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let rg = site.group("rg").await;
    let operation = put(&site, &engine(&rg, "e"), "panics").await;
    assert_eq!(ended(&site, &operation).await, "Succeeded");
    assert_eq!(site.engines.tried.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn what_breaks_off_each_time_ends_and_holds_nothing_up() {
    let site = Site::new().await;
    let (rg, other) = (site.group("rg").await, site.group("other").await);
    put(&site, &engine(&rg, "e"), "breaks").await;
    let operation = put(&site, &engine(&other, "e"), "breaks").await;
    site.clock.advance_seconds(1);
    site.delete(OWNER, &rg).await.is(202);
    site.arm.start(site.gate.clone()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    site.get(OWNER, &rg).await.is(404);
    assert_eq!(status(&site, &operation).await, "InProgress");
    tokio::time::sleep(Duration::from_secs(11 * 60)).await;
    assert_eq!(ended(&site, &operation).await, "Failed");
    site.get(OWNER, &engine(&other, "e")).await.is(404);
}

/// The deletion of a group comes after all that was begun in it.
#[tokio::test(start_paused = true)]
async fn what_comes_after_what_broke_off_has_its_turn() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let rg = site.group("rg").await;
    let path = engine(&rg, "first");
    assert_eq!(ended(&site, &put(&site, &path, "cracks").await).await, "Succeeded");
    let site = site.restarted().await;
    let deletion = begun(&site.delete(OWNER, &path).await.is(202));
    site.clock.advance_seconds(1);
    let operation = put(&site, &engine(&rg, "second"), "").await;
    site.clock.advance_seconds(1);
    site.delete(OWNER, &rg).await.is(202);
    site.arm.start(site.gate.clone()).await;
    assert_eq!(ended(&site, &operation).await, "Succeeded");
    assert_eq!(status(&site, &deletion).await, "InProgress");
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Row(Value);

impl Record for Row {}

const OPERATIONS: Table<Uuid, Row> = Table::new("arm/operations");

/// Nested resources that do not fit in the one commit that a deletion is: it does not pass by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_cannot_be_deleted_says_so() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let widget = site.widget(&rg, "one").await;
    let first = format!("{widget}/parts/p");
    site.put(OWNER, &first, json!({})).await.is(200);
    let kept = site.store.get(RESOURCES, &ArmId::parse(&first).unwrap()).await.unwrap().unwrap().value;
    let permit = site.gate.as_system(Reason::Sweep);
    for part in 0..2 {
        let mut batch = Batch::new();
        for number in 0..3000 {
            let id = kept.id.parent().unwrap().join(&format!("p{}", part * 3000 + number)).unwrap();
            batch.put(RESOURCES, &id, &Resource { id: id.clone(), ..kept.clone() }).unwrap();
        }
        site.store.commit(permit.stamp(), batch).await.unwrap();
    }
    let deletion = site.delete(OWNER, &rg).await.is(202);
    site.arm.start(site.gate.clone()).await;
    let results = deletion.header("location").replace("https://management.azure.com", "");
    for _ in 0..600 {
        let answer = site.get(OWNER, &results).await;
        if answer.status != 202 {
            assert_eq!((answer.status, answer.code()), (409, "ResourceGroupDeletionBlocked"));
            assert_eq!(site.get(OWNER, &rg).await.body["properties"]["provisioningState"], "Succeeded");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the deletion is tried for ever");
}

/// What the site does for a request is on record with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_the_work_name_its_request_and_its_scope() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let rg = site.group("rg").await;
    let body = json!({ "location": "uksouth", "properties": {} });
    let creation = site.put(OWNER, &engine(&rg, "e"), body).await.is(202);
    assert_eq!(ended(&site, &begun(&creation)).await, "Succeeded");
    let deletion = site.delete(OWNER, &rg).await.is(202);
    for _ in 0..600 {
        if site.get(OWNER, &rg).await.status == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let records = site.store.audit_page(0, 1000).await.unwrap();
    let records = records.into_iter().map(|(_, event)| event);
    let work: Vec<_> = records
        .filter(|event| event.operation == "asyncOperation")
        .map(|event| (event.request_id.to_string(), event.scope.to_string()))
        .collect();
    let id = |answer: &Answer| answer.header("x-ms-request-id").to_owned();
    let expected =
        [(id(&creation), engine(&rg, "e")), (id(&deletion), engine(&rg, "e")), (id(&deletion), rg.clone())];
    assert_eq!(work, expected);
}

/// Whoever may delete a resource and not read it learns that it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_delete_sees_the_end_of_a_deletion() {
    let site = Site::new().await;
    site.arm.start(site.gate.clone()).await;
    let rg = site.group("rg").await;
    let role =
        format!("{}/providers/Microsoft.Authorization/roleDefinitions/{}", subscription(), Uuid::max());
    let body = json!({ "properties": {
        "roleName": "Remover", "assignableScopes": [subscription()],
        "permissions": [{ "actions": ["Test.Engines/engines/delete"] }],
    } });
    site.put(OWNER, &role, body).await.is(201);
    let grant = json!({ "properties": { "roleDefinitionId": role, "principalId": NINA } });
    site.put(OWNER, &assignment(&rg, 1), grant).await.is(201);
    let operation = put(&site, &engine(&rg, "e"), "").await;
    assert_eq!(ended(&site, &operation).await, "Succeeded");
    site.get(NINA, &operation).await.is(404);
    let deletion = begun(&site.delete(OWNER, &engine(&rg, "e")).await.is(202));
    site.get(NINA, &deletion).await.is(200);
    site.get(STRANGER, &deletion).await.is(404);
}

/// More than one commit takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_ended_they_are_forgotten() {
    let site = Site::new().await;
    let rg = site.group("rg").await;
    let permit = site.gate.as_system(Reason::Sweep);
    for part in 0..5_u128 {
        let mut batch = Batch::new();
        for number in 0..4000 {
            let id = Uuid::from_u128(part * 4000 + number + 1);
            let row = json!({
                "id": id, "subscription": SUBSCRIPTION.to_string(), "startedAt": permit.now(), "startedBy": OWNER,
                "work": { "what": "deleteGroup", "group": group("gone") },
                "progress": { "state": "succeeded", "at": permit.now() },
            });
            batch.put(OPERATIONS, &id, &Row(row)).unwrap();
        }
        site.store.commit(permit.stamp(), batch).await.unwrap();
    }
    site.clock.advance_seconds(25 * 60 * 60);
    site.arm.start(site.gate.clone()).await;
    assert_eq!(ended(&site, &put(&site, &engine(&rg, "e"), "").await).await, "Succeeded");
    let left = site.store.all(OPERATIONS, &()).await.unwrap().len();
    assert_eq!(left, 1);
}
