//! Kinds whose changes take time: committed with the operation that carries them out, answered with 202.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arcadia_kernel::{
    ArmId, Fault, Gate, HeaderName, HeaderValue, Permit, Reply, Request, StatusCode, SystemWork, header,
};
use arcadia_store::{Batch, CommitError, Record, Row, Table};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use arcadia_kernel::EntropyExt as _;

use crate::Arm;
use crate::engine::{self, plan_removal};
use crate::kind::{AnyKind, RESOURCES, Resource};
use crate::operations::{OPERATIONS, Operation, Progress, WORK_API_VERSION, Work};

/// The operation that works on a resource at this moment, by the resource's identifier.
pub(crate) const PENDING: Table<ArmId, Pending> = Table::new("arm/pending");

/// A PUT or PATCH that still fails for the site's own reasons after this time has failed for good.
const TRIED_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// Longer than that, so that what takes all of it has failed for good.
const FINISH_TIME_MAX: Duration = Duration::from_secs(11 * 60);
/// How often a change is planned anew when another one came in between. Without the turn of `Store::attempts`: what a
/// kind does in each may take long.
const TRIES_MAX: usize = 16;

const ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub operation: Uuid,
    pub deletes: bool,
}

impl Record for Pending {}

/// Not `Debug`: a resource's stored form may hold what no log may show.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub(crate) enum Change {
    Create,
    /// `before` is what comes back when the change fails for good; forgotten when the operation has ended.
    Update {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Box<Resource>>,
    },
    Delete,
}

/// 409: a resource takes one change at a time.
pub(crate) fn busy(id: &ArmId) -> Fault {
    let message = format!(
        "Another operation on the resource '{id}' or on its parent is in progress. Retry when it has ended."
    );
    Fault::conflict("AnotherOperationInProgress", message)
}

/// The operation that deletes the resource at this moment.
pub(crate) async fn deletion_of(arm: &Arm, id: &ArmId) -> Result<Option<Operation>, Fault> {
    let Some(pending) = arm.store.get(PENDING, id).await?.filter(|row| row.value.deletes) else {
        return Ok(None);
    };
    Ok(arm.store.get(OPERATIONS, &pending.value.operation).await?.map(|row| row.value))
}

/// Adds the operation to the change's own commit.
pub(crate) async fn begin(
    arm: &Arm,
    work: &engine::Work<'_>,
    resource: &Resource,
    change: Change,
    batch: &mut Batch,
) -> Result<Operation, Fault> {
    let id = &resource.id;
    if arm.store.get(PENDING, id).await?.is_some() {
        return Err(busy(id));
    }
    let deletes = matches!(change, Change::Delete);
    let operation = Operation {
        id: work.entropy.uuid(),
        subscription: id.subscription().unwrap_or_default().to_lowercase(),
        started_at: work.now,
        started_by: work.caller.object_id,
        request_id: Some(work.stamp.request_id()),
        work: Work::Finish { resource: id.clone(), change },
        progress: Progress::Running,
    };
    batch.require_absent(PENDING, id);
    batch.put(PENDING, id, &Pending { operation: operation.id, deletes })?;
    batch.put(OPERATIONS, &operation.id, &operation)?;
    Ok(operation)
}

/// 202 with both places where a client can ask how far it is.
pub(crate) async fn accepted(
    arm: &Arm,
    request: &Request,
    kind: &dyn AnyKind,
    resource: &Resource,
    operation: &Operation,
) -> Result<Reply, Fault> {
    let namespace = kind.type_name().split('/').next().unwrap_or_default();
    let location = location_of(arm, resource).await?;
    let version = request.query.first("api-version").unwrap_or(WORK_API_VERSION);
    let url = |what: &str| {
        format!(
            "{}/subscriptions/{}/providers/{namespace}/locations/{location}/{what}/{}?api-version={version}",
            request.origin,
            request.param("subscriptionId"),
            operation.id
        )
    };
    let deletes = matches!(&operation.work, Work::Finish { change: Change::Delete, .. });
    let body = json!({ "operation": kind.operation_name(deletes), "startTime": operation.started_at });
    Reply::json(StatusCode::ACCEPTED, &body)?
        .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
        .with_text(ASYNC_OPERATION, &url("azureAsyncOperation"))?
        .with_text(header::LOCATION, &url("operationResults"))
}

/// Where the resource is, or the one that it is nested in.
async fn location_of(arm: &Arm, resource: &Resource) -> Result<String, Fault> {
    let (mut id, mut location) = (resource.id.clone(), resource.location.clone());
    while location.is_empty() {
        let Some(parent) = id.parent().and_then(|types| types.parent()).filter(|parent| arm.is_kind(parent))
        else {
            return Ok("global".to_owned());
        };
        let row = arm.store.get(RESOURCES, &parent).await?;
        location = row.map(|row| row.value.location).unwrap_or_default();
        id = parent;
    }
    Ok(location)
}

/// Carries out one committed change. Starts from what is stored, so it can be taken up after any step. `tried_since`:
/// when this was first done.
pub(crate) async fn carry_out(
    arm: &Arm,
    gate: &Arc<Gate>,
    operation: &Operation,
    id: &ArmId,
    change: &Change,
    tried_since: Instant,
) -> Result<(), Fault> {
    let permit = operation.permit(gate, id);
    for _ in 0..TRIES_MAX {
        let pending = arm.store.get(PENDING, id).await?;
        let pending = pending.filter(|row| row.value.operation == operation.id).map(|row| row.revision);
        let (Some(row), Some(pending)) = (arm.store.get(RESOURCES, id).await?, pending) else {
            let end = gone(&permit, operation, id, change)?;
            return Ok(arm.store.commit(permit.stamp(), end).await.map(|_| ())?);
        };
        let kind = arm.kind(&id.resource_type().unwrap_or_default())?;
        let mut batch = match change {
            Change::Delete => match kind.tear_down(&row.value).await {
                Ok(()) => removal(arm, &permit, &row, operation, Ok(())).await?,
                Err(fault) if fault.status.is_client_error() => {
                    kept(&permit, &row, None, operation, Err(&fault))?
                }
                Err(fault) => return Err(fault),
            },
            Change::Create | Change::Update { .. } => match (finished(&*kind, &row.value).await, change) {
                (Ok(properties), _) => {
                    let after = Resource { properties, ..row.value.clone() };
                    kept(&permit, &row, Some(after), operation, Ok(()))?
                }
                (Err(fault), _) if !is_final(tried_since, &fault) => return Err(fault),
                (Err(fault), Change::Update { before: Some(before) }) => {
                    kept(&permit, &row, Some((**before).clone()), operation, Err(&fault))?
                }
                (Err(fault), _) => {
                    kind.tear_down(&row.value).await?;
                    removal(arm, &permit, &row, operation, Err(&fault)).await?
                }
            },
        };
        batch.require_revision(PENDING, id, pending);
        match arm.store.commit(permit.stamp(), batch).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict) => continue,
            Err(error) => return Err(error.into()),
        }
    }
    Err(CommitError::Conflict.into())
}

/// What takes longer than it may has failed, and what panics.
async fn finished(kind: &dyn AnyKind, resource: &Resource) -> Result<serde_json::Value, Fault> {
    let finished = tokio::time::timeout(FINISH_TIME_MAX, caught(kind.finish(resource))).await;
    finished.unwrap_or_else(|_| Err(Fault::unavailable("The operation took too long, and was broken off.")))
}

/// A panic is a failure like any other: what comes after is reached, and what tries again ends some time.
pub(crate) async fn caught<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(Fault::internal("an operation broke off with a panic"))))
    })
    .await
}

/// Deleted meanwhile, with what it was in; what has its name now is another's.
fn gone(
    permit: &Permit<SystemWork>,
    operation: &Operation,
    id: &ArmId,
    change: &Change,
) -> Result<Batch, Fault> {
    let gone = Fault::not_found("ResourceNotFound", format!("The resource '{id}' was deleted."));
    ended(permit, operation, if matches!(change, Change::Delete) { Ok(()) } else { Err(&gone) })
}

/// `tried_since` counts from the first try of this run of the site: a site that was stopped has not tried. It is no time
/// of the site's clock, which may be set.
fn is_final(tried_since: Instant, fault: &Fault) -> bool {
    fault.status.is_client_error() || tried_since.elapsed() > TRIED_TIME_MAX
}

/// The end of the operation and of its resource.
async fn removal(
    arm: &Arm,
    permit: &Permit<SystemWork>,
    row: &Row<Resource>,
    operation: &Operation,
    result: Result<(), &Fault>,
) -> Result<Batch, Fault> {
    let mut batch = ended(permit, operation, result)?;
    plan_removal(arm, &engine::Work::of(permit), row, WORK_API_VERSION, &mut batch).await?;
    Ok(batch)
}

/// The end of the operation; the resource stays, in another form where there is one.
fn kept(
    permit: &Permit<SystemWork>,
    row: &Row<Resource>,
    after: Option<Resource>,
    operation: &Operation,
    result: Result<(), &Fault>,
) -> Result<Batch, Fault> {
    let mut batch = ended(permit, operation, result)?;
    let id = &row.value.id;
    batch.require_revision(RESOURCES, id, row.revision);
    if let Some(after) = after {
        batch.put(RESOURCES, id, &after)?;
    }
    batch.delete(PENDING, id);
    Ok(batch)
}

fn ended(
    permit: &Permit<SystemWork>,
    operation: &Operation,
    result: Result<(), &Fault>,
) -> Result<Batch, Fault> {
    let at = permit.now();
    let progress = match result {
        Ok(()) => Progress::Succeeded { at },
        Err(fault) => Progress::Failed {
            at,
            status: fault.status.as_u16(),
            code: fault.code.clone().into_owned(),
            message: fault.message.clone(),
        },
    };
    let work = match &operation.work {
        Work::Finish { resource, change: Change::Update { .. } } => {
            Work::Finish { resource: resource.clone(), change: Change::Update { before: None } }
        }
        other => other.clone(),
    };
    let mut batch = Batch::new();
    batch.put(OPERATIONS, &operation.id, &Operation { progress, work, ..operation.clone() })?;
    Ok(batch)
}
