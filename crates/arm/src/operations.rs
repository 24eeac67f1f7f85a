//! Work that outlives its request: kept in the store, done by one worker, taken up again at start.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arcadia_kernel::EntropyExt as _;
use arcadia_kernel::{
    Action, ArmId, At, Fault, Gate, HeaderValue, Method, Op, Permit, Plane, Reason, Reply, Request,
    RequestHead, SignedIn, StatusCode, header, signed_in,
};
use arcadia_store::{Batch, CommitError, Record, Table};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::Arm;
use crate::asynchronous::{self, Change};
use crate::engine::{self, plan_removal};
use crate::error;
use crate::groups::{GROUPS, Group, GroupState};
use crate::kind::RESOURCES;
use crate::roles;
use crate::version;

pub(crate) const OPERATIONS: Table<Uuid, Operation> = Table::new("arm/operations");

/// The version that kinds see when the site itself deletes.
pub(crate) const WORK_API_VERSION: &str = "2024-11-01";
/// Pauses before a step that failed is tried again: this long at first, then doubled up to the longest.
const PAUSE_SECONDS_MIN: u64 = 1;
const PAUSE_SECONDS_MAX: u64 = 30;
/// How long an operation that ended can be asked about.
const KEPT_SECONDS: i64 = 24 * 60 * 60;

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "what")]
pub(crate) enum Work {
    DeleteGroup {
        group: ArmId,
    },
    /// A committed change of a resource of an asynchronous kind is carried out.
    Finish {
        resource: ArmId,
        change: Change,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub(crate) enum Progress {
    Running,
    Succeeded { at: Timestamp },
    Failed { at: Timestamp, status: u16, code: String, message: String },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Operation {
    pub id: Uuid,
    pub subscription: String,
    pub started_at: Timestamp,
    pub started_by: Uuid,
    pub work: Work,
    pub progress: Progress,
}

impl Record for Operation {}

impl Operation {
    pub(crate) fn started<A: Action>(permit: &Permit<A>, subscription: &str, work: Work) -> Self {
        Self {
            id: permit.entropy().uuid(),
            subscription: subscription.to_lowercase(),
            started_at: permit.now(),
            started_by: permit.caller().object_id,
            work,
            progress: Progress::Running,
        }
    }
}

/// Where a client asks how far it is. Absolute, with the host that the client used.
pub(crate) fn results_url(head: &RequestHead, id: Uuid) -> String {
    let version = head.query.first("api-version").unwrap_or(WORK_API_VERSION);
    let subscription = head.param("subscriptionId");
    format!("{}/subscriptions/{subscription}/operationresults/{id}?api-version={version}", head.origin)
}

pub(crate) fn rows() -> Vec<Op<Arm>> {
    const BECAUSE: &str =
        "shows an operation to the caller that started it, or that may read what it works on";
    let row = |name: &'static str, path: &'static str| signed_in(name, Method::GET, path, BECAUSE, results);
    let status_row =
        |name: &'static str, path: &'static str| signed_in(name, Method::GET, path, BECAUSE, status);
    vec![
        row("OperationResultGet", "/subscriptions/{subscriptionId}/operationresults/{operationId}"),
        status_row("OperationStatusGet", "/subscriptions/{subscriptionId}/operationstatuses/{operationId}"),
        row(
            "ProviderOperationResultGet",
            "/subscriptions/{subscriptionId}/providers/{providerNamespace}/locations/{location}/operationresults/{operationId}",
        ),
        status_row(
            "ProviderAzureAsyncOperationGet",
            "/subscriptions/{subscriptionId}/providers/{providerNamespace}/locations/{location}/azureAsyncOperation/{operationId}",
        ),
        status_row(
            "ProviderOperationStatusGet",
            "/subscriptions/{subscriptionId}/providers/{providerNamespace}/locations/{location}/operationstatuses/{operationId}",
        ),
    ]
}

async fn visible(at: &Arm, permit: &Permit<SignedIn>, request: &Request) -> Result<Operation, Fault> {
    let missing = || {
        let message = "The operation could not be found. It may have been started by another caller.";
        Fault::not_found("OperationNotFound", message)
    };
    let id = Uuid::try_parse(request.param("operationId")).map_err(|_| missing())?;
    let operation = at.store.get(OPERATIONS, &id).await?.ok_or_else(missing)?.value;
    if !operation.subscription.eq_ignore_ascii_case(request.param("subscriptionId")) {
        return Err(missing());
    }
    let may = operation.started_by == permit.caller().object_id
        || match &operation.work {
            Work::DeleteGroup { group } => ["read", "delete"].iter().any(|verb| {
                let action = format!("Microsoft.Resources/subscriptions/resourceGroups/{verb}");
                permit.may(&action, Plane::Control, group)
            }),
            Work::Finish { resource, .. } => {
                let action = format!("{}/read", resource.resource_type().unwrap_or_default());
                permit.may(&action, Plane::Control, resource)
            }
        };
    if may { Ok(operation) } else { Err(missing()) }
}

/// The `Location` form: 202 while it runs, then what the call itself would have answered.
async fn results(at: At<Arm>, permit: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    let operation = visible(&at, &permit, &request).await?;
    match operation.progress {
        Progress::Running => Reply::empty(StatusCode::ACCEPTED)
            .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
            .with_text(
                header::LOCATION,
                &format!("{}{}?{}", request.origin, request.path, request.raw_query),
            ),
        Progress::Succeeded { .. } => Ok(Reply::empty(StatusCode::OK)),
        Progress::Failed { status, code, message, .. } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::CONFLICT);
            Err(Fault::new(status, code, message))
        }
    }
}

/// The `Azure-AsyncOperation` form: 200 always, and the status in the body.
async fn status(at: At<Arm>, permit: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    version::required(&request.query)?;
    let operation = visible(&at, &permit, &request).await?;
    let mut body = json!({
        "id": request.path,
        "name": operation.id,
        "startTime": operation.started_at,
    });
    match operation.progress {
        Progress::Running => {
            body["status"] = "InProgress".into();
            return Ok(Reply::ok(&body)?.with(header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        Progress::Succeeded { at } => {
            body["status"] = "Succeeded".into();
            body["endTime"] = json!(at);
        }
        Progress::Failed { at, code, message, .. } => {
            body["status"] = "Failed".into();
            body["endTime"] = json!(at);
            body["error"] = json!({ "code": code, "message": message });
        }
    }
    Reply::ok(&body)
}

/// Runs until the resource manager is dropped.
pub(crate) async fn work(arm: Weak<Arm>, wake: Arc<tokio::sync::Notify>, gate: Arc<Gate>) {
    let mut pause_seconds = PAUSE_SECONDS_MIN;
    loop {
        let Some(arm) = arm.upgrade() else { return };
        let failed = match run_all(&arm, &gate).await {
            Ok(failed) => failed,
            Err(fault) => {
                tracing::error!(?fault, "asynchronous operations cannot be read or swept");
                true
            }
        };
        drop(arm);
        if failed {
            let _ = tokio::time::timeout(Duration::from_secs(pause_seconds), wake.notified()).await;
            pause_seconds = (pause_seconds * 2).min(PAUSE_SECONDS_MAX);
        } else {
            pause_seconds = PAUSE_SECONDS_MIN;
            wake.notified().await;
        }
    }
}

/// Does everything that is running and forgets what ended long ago; whether something is left to try again.
async fn run_all(arm: &Arm, gate: &Arc<Gate>) -> Result<bool, Fault> {
    let mut failed = false;
    let mut old = Batch::new();
    for row in arm.store.all(OPERATIONS, &()).await? {
        let operation = row.value;
        match operation.progress {
            Progress::Running => {
                let done = match &operation.work {
                    Work::DeleteGroup { group } => delete_group(arm, gate, &operation, group).await,
                    Work::Finish { resource, change } => {
                        asynchronous::carry_out(arm, gate, &operation, resource, change).await
                    }
                };
                if let Err(fault) = done {
                    failed = true;
                    tracing::warn!(operation = %operation.id, ?fault, "tried again later");
                }
            }
            Progress::Succeeded { at } | Progress::Failed { at, .. } => {
                if gate.clock.epoch_seconds() - at.as_second() > KEPT_SECONDS {
                    old.delete(OPERATIONS, &operation.id);
                }
            }
        }
    }
    if !old.is_empty() {
        arm.store.commit(gate.as_system(Reason::Sweep).stamp(), old).await?;
    }
    Ok(failed)
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
        let permit = gate.as_system(Reason::AsyncOperation);
        let mut batch = Batch::new();
        let torn_down = match arm.kind_of(&row.value.id) {
            Some(kind) => kind.tear_down(&row.value).await,
            None => Ok(()),
        };
        let planned = match torn_down {
            Ok(()) => plan_removal(arm, &engine::Work::of(&permit), &row, WORK_API_VERSION, &mut batch).await,
            Err(fault) => Err(fault),
        };
        match planned {
            Ok(()) => {}
            Err(fault) if fault.status.is_client_error() => {
                return give_up(arm, gate, operation, group, fault).await;
            }
            Err(fault) => return Err(fault),
        }
        match arm.store.commit(permit.stamp(), batch).await {
            Ok(_) | Err(CommitError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let permit = gate.as_system(Reason::AsyncOperation);
    roles::thin_out(arm, permit.stamp(), group).await?;
    let mut batch = Batch::new();
    roles::delete_at_and_below(arm, group, &mut batch).await?;
    batch.delete(GROUPS, group);
    let ended = Operation { progress: Progress::Succeeded { at: permit.now() }, ..operation.clone() };
    batch.put(OPERATIONS, &operation.id, &ended)?;
    Ok(arm.store.commit(permit.stamp(), batch).await.map(|_| ())?)
}

/// A kind refuses to delete: the group lives on, and the operation says why.
async fn give_up(
    arm: &Arm,
    gate: &Arc<Gate>,
    operation: &Operation,
    group: &ArmId,
    fault: Fault,
) -> Result<(), Fault> {
    let permit = gate.as_system(Reason::AsyncOperation);
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
