//! DELETE of a resource with everything below it.

use arcadia_kernel::{Fault, Reply, Request, StatusCode};
use arcadia_store::{Batch, Row};

use crate::Arm;
use crate::asynchronous::{self, Change, PENDING, accepted};
use crate::engine::read::unrecorded;
use crate::engine::write::{Preconditions, hold_parent, plan};
use crate::engine::{Work, requested_id};
use crate::kind::{RESOURCES, Resource};
use crate::roles;
use crate::version;

/// Runs a deletion to its end even when the client hangs up: where there are more role assignments than one commit
/// takes, some go before the resource.
pub(super) async fn to_its_end(
    deletion: impl Future<Output = Result<Reply, Fault>> + Send + 'static,
) -> Result<Reply, Fault> {
    tokio::spawn(deletion).await.unwrap_or_else(|error| Err(Fault::internal(error)))
}

pub(super) async fn delete(
    arm: &Arm,
    type_name: &str,
    work: &Work<'_>,
    request: Request,
) -> Result<Reply, Fault> {
    let kind = arm.kind(type_name)?;
    let id = requested_id(type_name, &request)?;
    let preconditions = Preconditions::of(&request);
    let api_version = version::required(&request.query)?;
    let mut attempts = arm.store.attempts();
    loop {
        let mut batch = Batch::new();
        let Some(row) = arm.store.get(RESOURCES, &id).await? else {
            let found = unrecorded(arm, &*kind, &id).await;
            // Also where it could not be looked for: what is being deleted itself may not answer any more.
            if !matches!(found, Ok(None)) {
                hold_parent(arm, &*kind, &id, &mut batch).await?;
            }
            let Some(found) = found? else { return Ok(Reply::empty(StatusCode::NO_CONTENT)) };
            preconditions.check(arm, Some(&found))?;
            // It gets a row for as long as its deletion takes.
            batch.require_absent(RESOURCES, &id);
            batch.put(RESOURCES, &id, &found)?;
            let deletion = asynchronous::begin(arm, work, &found, Change::Delete, &mut batch).await?;
            if attempts.commit(work.stamp, batch).await?.is_some() {
                arm.wake.notify_one();
                return accepted(arm, &request, &*kind, &found, &deletion).await;
            }
            continue;
        };
        preconditions.check(arm, Some(&row.value))?;
        if kind.asynchronous() {
            if let Some(deletion) = asynchronous::deletion_of(arm, &id).await? {
                return accepted(arm, &request, &*kind, &row.value, &deletion).await;
            }
            let deletion = asynchronous::begin(arm, work, &row.value, Change::Delete, &mut batch).await?;
            // Written as it is, so that nothing can be put in it by a request that began before this one.
            batch.require_revision(RESOURCES, &id, row.revision);
            batch.put(RESOURCES, &id, &row.value)?;
            if attempts.commit(work.stamp, batch).await?.is_some() {
                arm.wake.notify_one();
                return accepted(arm, &request, &*kind, &row.value, &deletion).await;
            }
            continue;
        }
        plan_removal(arm, work, &row, api_version, &mut batch).await?;
        if attempts.commit(work.stamp, batch).await?.is_some() {
            return Ok(Reply::empty(StatusCode::OK));
        }
    }
}

/// Plans the end of a resource: nested ones first, each by its own kind, then the role assignments at and below
/// it. `row` must have been read before, so that what is added below it meanwhile makes the commit fail.
pub(crate) async fn plan_removal(
    arm: &Arm,
    work: &Work<'_>,
    row: &Row<Resource>,
    api_version: &str,
    batch: &mut Batch,
) -> Result<(), Fault> {
    let root = &row.value.id;
    batch.require_revision(RESOURCES, root, row.revision);
    let mut nested = arm.store.all(RESOURCES, root).await?;
    nested.retain(|child| child.value.id != *root);
    nested.sort_by_key(|child| std::cmp::Reverse(child.value.id.segments().count()));
    for child in &nested {
        batch.require_revision(RESOURCES, &child.value.id, child.revision);
        remove_one(arm, work, &child.value, api_version, batch).await?;
    }
    remove_one(arm, work, &row.value, api_version, batch).await?;
    roles::thin_out(&arm.store, work.stamp, root).await?;
    roles::delete_at_and_below(&arm.store, root, batch).await
}

async fn remove_one(
    arm: &Arm,
    work: &Work<'_>,
    resource: &Resource,
    api_version: &str,
    batch: &mut Batch,
) -> Result<(), Fault> {
    if let Some(kind) = arm.kind_of(&resource.id) {
        let mut plan = plan(arm, work, &resource.id, api_version, batch);
        kind.delete(&mut plan, resource).await?;
    }
    batch.delete(RESOURCES, &resource.id);
    batch.delete(PENDING, &resource.id);
    Ok(())
}
