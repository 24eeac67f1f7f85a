//! Carries out operations: beside one another where they have nothing to do with each other, in the order of their
//! beginnings where they have. What is running is in the store, so that it is taken up again at start.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arcadia_kernel::{ArmId, Fault, Gate, Reason, StatusCode};
use arcadia_store::{Batch, CommitError, StoreError};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use uuid::Uuid;

use crate::Arm;
use crate::asynchronous;
use crate::engine::{self, plan_removal};
use crate::error;
use crate::groups::{GROUPS, Group, GroupState};
use crate::kind::RESOURCES;
use crate::operations::{OPERATIONS, Operation, Progress, WORK_API_VERSION, Work};
use crate::roles;

/// Pauses before what failed is tried again: this long at first, then doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long an operation that ended can be asked about.
const KEPT_SECONDS: i64 = 24 * 60 * 60;
/// Ended operations that are forgotten in one commit.
const FORGOTTEN_AT_ONCE: usize = 4000;
/// What is carried out at the same time.
const LANES_MAX: usize = 8;
/// What takes longer than this is broken off, and tried again.
const TRY_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// Runs until the resource manager is dropped.
pub(crate) async fn work(arm: Weak<Arm>, wake: Arc<Notify>, gate: Arc<Gate>) {
    let mut worker = Worker::new(gate);
    let mut again = true;
    loop {
        let Some(arm) = arm.upgrade() else { return };
        let begun = worker.begin(&arm, again).await;
        drop(arm);
        if let Err(fault) = &begun {
            tracing::error!(?fault, "asynchronous operations cannot be read or forgotten");
        }
        again = worker.wait(&wake, begun.is_err()).await;
    }
}

/// An operation that was tried, and when it was tried first if it failed.
type Tried = (Uuid, Option<Instant>);

/// When an operation that failed was tried.
struct Failed {
    first: Instant,
    last: Instant,
}

struct Worker {
    gate: Arc<Gate>,
    /// Each carries out the operations of one place, one after the other.
    lanes: JoinSet<Vec<Tried>>,
    /// The places of the lanes (top-level resources, and groups that are deleted), and their operations.
    places: HashMap<Id, (ArmId, Vec<Uuid>)>,
    failed: HashMap<Uuid, Failed>,
    /// Whether something waits for a lane to end.
    waits: bool,
    /// When what failed is tried again.
    again_at: Option<Instant>,
    /// From a failure to that; longer each time.
    pause: Duration,
}

impl Worker {
    fn new(gate: Arc<Gate>) -> Self {
        let (lanes, places, failed) = (JoinSet::new(), HashMap::new(), HashMap::new());
        Self { gate, lanes, places, failed, waits: false, again_at: None, pause: PAUSE_MIN }
    }

    /// Begins what is running and has a place of its own now; where something failed before, only `again`.
    async fn begin(&mut self, arm: &Arc<Arm>, again: bool) -> Result<(), Fault> {
        self.waits = false;
        let running = running(arm, &self.gate).await?;
        let ids: HashSet<Uuid> = running.iter().map(|operation| operation.id).collect();
        self.failed.retain(|id, _| ids.contains(id));
        let mut places = by_place(arm, running);
        // What was never tried, then what waits longest: when all the room is for what fails, everything has its turn.
        let last = |operation: &Operation| self.failed.get(&operation.id).map(|failed| failed.last);
        places.sort_by_key(|(_, operations)| operations.iter().map(last).min());
        for (place, operations) in places {
            let is_taken = |(other, _): &(ArmId, _)| place.contains(other) || other.contains(&place);
            if self.lanes.len() >= LANES_MAX || self.places.values().any(is_taken) {
                self.waits = true;
                continue;
            }
            if !again && operations.iter().all(|operation| self.failed.contains_key(&operation.id)) {
                continue;
            }
            let ids = operations.iter().map(|operation| operation.id).collect();
            let first = |operation: &Operation| self.failed.get(&operation.id).map(|failed| failed.first);
            let operations = operations.into_iter().map(|operation| (first(&operation), operation)).collect();
            let lane = self.lanes.spawn(run(arm.clone(), self.gate.clone(), operations));
            self.places.insert(lane.id(), (place, ids));
        }
        Ok(())
    }

    /// Until there is something to begin; whether that may be what failed before.
    async fn wait(&mut self, wake: &Notify, is_failing: bool) -> bool {
        if is_failing || !self.failed.is_empty() {
            // Also where the time came and there was no room.
            self.again_at = self.again_at.or_else(|| Some(Instant::now() + self.pause));
        } else {
            (self.again_at, self.pause) = (None, PAUSE_MIN);
        }
        loop {
            let again_at = self.again_at;
            tokio::select! {
                () = wake.notified() => return true,
                Some(ended) = self.lanes.join_next_with_id() => {
                    if self.end(ended) {
                        self.again_at = Some(Instant::now() + self.pause);
                    }
                    if self.waits {
                        return false;
                    }
                }
                () = tokio::time::sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {
                    self.again_at = None;
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                    return true;
                }
            }
        }
    }

    /// Whether something in the lane failed.
    fn end(&mut self, ended: Result<(Id, Vec<Tried>), JoinError>) -> bool {
        let tried = match ended {
            Ok((lane, tried)) => {
                self.places.remove(&lane);
                tried
            }
            Err(error) => {
                tracing::error!(%error, "an operation broke off; it is tried again later");
                let (_, ids) = self.places.remove(&error.id()).unzip();
                ids.unwrap_or_default().into_iter().map(|id| (id, Some(Instant::now()))).collect()
            }
        };
        let mut has_failed = false;
        for (operation, failed) in tried {
            match failed {
                Some(first) => {
                    has_failed = true;
                    let last = Instant::now();
                    self.failed.entry(operation).or_insert(Failed { first, last }).last = last;
                }
                None => drop(self.failed.remove(&operation)),
            }
        }
        has_failed
    }
}

/// The operations that are to be carried out, oldest first. Forgets those that ended long ago.
async fn running(arm: &Arm, gate: &Arc<Gate>) -> Result<Vec<Operation>, Fault> {
    let mut found = Vec::new();
    let mut old = Vec::new();
    for row in arm.store.all(OPERATIONS, &()).await? {
        match row.value.progress {
            Progress::Running => found.push(row.value),
            Progress::Succeeded { at } | Progress::Failed { at, .. } => {
                if gate.clock.epoch_seconds() - at.as_second() > KEPT_SECONDS {
                    old.push(row.value.id);
                }
            }
        }
    }
    for some in old.chunks(FORGOTTEN_AT_ONCE) {
        let mut batch = Batch::new();
        for id in some {
            batch.delete(OPERATIONS, id);
        }
        arm.store.commit(gate.as_system(Reason::Sweep).stamp(), batch).await?;
    }
    found.sort_by_key(|operation| (operation.started_at, operation.id));
    Ok(found)
}

/// Operations that have to do with each other, together and in their order.
fn by_place(arm: &Arm, operations: Vec<Operation>) -> Vec<(ArmId, Vec<Operation>)> {
    let ending = |operation: &Operation| match &operation.work {
        Work::DeleteGroup { group } => Some(group.clone()),
        Work::Finish { .. } => None,
    };
    let groups: Vec<ArmId> = operations.iter().filter_map(ending).collect();
    let mut places: Vec<(ArmId, Vec<Operation>)> = Vec::new();
    for operation in operations {
        let place = match &operation.work {
            Work::DeleteGroup { group } => group.clone(),
            Work::Finish { resource, .. } => {
                let group = groups.iter().find(|group| group.contains(resource));
                group.cloned().unwrap_or_else(|| top_of(arm, resource))
            }
        };
        match places.iter_mut().find(|(other, _)| *other == place) {
            Some((_, together)) => together.push(operation),
            None => places.push((place, vec![operation])),
        }
    }
    places
}

/// The resource that this one is nested in, or itself.
fn top_of(arm: &Arm, resource: &ArmId) -> ArmId {
    let mut top = resource.clone();
    while let Some(parent) = top.parent().and_then(|types| types.parent()).filter(|id| arm.is_kind(id)) {
        top = parent;
    }
    top
}

/// One lane, from its first operation to its last. Each comes with the time when it was tried first.
async fn run(arm: Arc<Arm>, gate: Arc<Gate>, operations: Vec<(Option<Instant>, Operation)>) -> Vec<Tried> {
    let mut tried = Vec::with_capacity(operations.len());
    for (since, operation) in operations {
        let since = since.unwrap_or_else(Instant::now);
        let carried_out = async {
            match &operation.work {
                Work::DeleteGroup { group } => delete_group(&arm, &gate, &operation, group).await,
                Work::Finish { resource, change } => {
                    asynchronous::carry_out(&arm, &gate, &operation, resource, change, since).await
                }
            }
        };
        let done = tokio::time::timeout(TRY_TIME_MAX, asynchronous::caught(carried_out)).await;
        let done = done.unwrap_or_else(|_| Err(Fault::unavailable("The operation takes too long.")));
        if let Err(fault) = &done {
            tracing::warn!(operation = %operation.id, ?fault, "tried again later");
        }
        tried.push((operation.id, done.is_err().then_some(since)));
    }
    tried
}

/// Deletes a group's contents one resource per commit, then the group and the operation's end in one more.
/// Every step starts from what is stored, so it can be taken up after any of them.
async fn delete_group(
    arm: &Arm,
    gate: &Arc<Gate>,
    operation: &Operation,
    group: &ArmId,
) -> Result<(), Fault> {
    loop {
        let page = arm.store.range(RESOURCES, group, None, 1).await?;
        let Some(row) = page.items.into_iter().next() else { break };
        let permit = operation.permit(gate, &row.value.id);
        let mut batch = Batch::new();
        let torn_down = match arm.kind_of(&row.value.id) {
            Some(kind) => kind.tear_down(&row.value).await,
            None => Ok(()),
        };
        let planned = match torn_down {
            Ok(()) => plan_removal(arm, &engine::Work::of(&permit), &row, WORK_API_VERSION, &mut batch).await,
            Err(fault) => Err(fault),
        };
        let done = match planned {
            Ok(()) => match arm.store.commit(permit.stamp(), batch).await {
                Ok(_) | Err(CommitError::Conflict) => Ok(()),
                Err(error) => Err(error.into()),
            },
            Err(fault) => Err(fault),
        };
        match done {
            Ok(()) => {}
            Err(fault) if is_for_good(&fault) => return give_up(arm, gate, operation, group, fault).await,
            Err(fault) => return Err(fault),
        }
    }
    let permit = operation.permit(gate, group);
    roles::thin_out(&arm.store, permit.stamp(), group).await?;
    let mut batch = Batch::new();
    roles::delete_at_and_below(&arm.store, group, &mut batch).await?;
    batch.delete(GROUPS, group);
    let ended = Operation { progress: Progress::Succeeded { at: permit.now() }, ..operation.clone() };
    batch.put(OPERATIONS, &operation.id, &ended)?;
    Ok(arm.store.commit(permit.stamp(), batch).await.map(|_| ())?)
}

/// A kind refuses, or what is to be written has no room: neither passes by itself.
fn is_for_good(fault: &Fault) -> bool {
    let cause = fault.source().and_then(|cause| cause.downcast_ref::<StoreError>());
    fault.status.is_client_error() || matches!(cause, Some(StoreError::TooLarge { .. }))
}

/// A kind refuses to delete: the group lives on, and the operation says why.
async fn give_up(
    arm: &Arm,
    gate: &Arc<Gate>,
    operation: &Operation,
    group: &ArmId,
    fault: Fault,
) -> Result<(), Fault> {
    let permit = operation.permit(gate, group);
    let row = arm.store.get(GROUPS, group).await?.ok_or_else(|| error::group_not_found(group.name()))?;
    let mut batch = Batch::new();
    batch.require_revision(GROUPS, group, row.revision);
    batch.put(GROUPS, group, &Group { state: GroupState::Succeeded, deletion: None, ..row.value })?;
    let message = format!(
        "Deletion of resource group '{}' failed as a resource in it could not be deleted: {}",
        group.name(),
        fault.message
    );
    let progress = Progress::Failed {
        at: permit.now(),
        status: StatusCode::CONFLICT.as_u16(),
        code: "ResourceGroupDeletionBlocked".to_owned(),
        message,
    };
    batch.put(OPERATIONS, &operation.id, &Operation { progress, ..operation.clone() })?;
    Ok(arm.store.commit(permit.stamp(), batch).await.map(|_| ())?)
}
