//! A subscription always has somebody who can assign roles in it.
//!
//! Only what is assigned at the subscription itself counts, as in Azure. A Global Administrator's elevated access at `/` is
//! for a time, so no subscription is left to it, and it is given up at any time: whoever had it can have it again.

use arcadia_kernel::{ArmId, Fault, StatusCode};
use arcadia_store::Batch;
use uuid::Uuid;

use crate::Arm;
use crate::principal::PrincipalType;
use crate::roles::assignments::own_prefix;
use crate::roles::{ASSIGNMENTS, Assignment, OWNER_ROLE, USER_ACCESS_ADMINISTRATOR_ROLE};
use crate::subscriptions::SUBSCRIPTIONS;

/// How many of the assignments beside one are read at a time.
const BESIDE_ROWS: usize = 500;

/// 412 when `assignment`, which is about to go or to grant less, is the last of its subscription that lets somebody assign
/// roles. Writes the subscription's row as it is, so that of two who take away the last two one comes too late.
pub(super) async fn keep_one(arm: &Arm, assignment: &Assignment, batch: &mut Batch) -> Result<(), Fault> {
    let Some(subscription) = administered(arm, assignment) else { return Ok(()) };
    let Some(row) = arm.store.get(SUBSCRIPTIONS, &subscription).await? else { return Ok(()) };
    batch.require_revision(SUBSCRIPTIONS, &subscription, row.revision);
    batch.put(SUBSCRIPTIONS, &subscription, &row.value)?;
    let (prefix, mut after) = (own_prefix(&assignment.scope)?, None);
    loop {
        let page = arm.store.range(ASSIGNMENTS, &prefix, after.as_ref(), BESIDE_ROWS).await?;
        let mut others = page.items.iter().filter(|row| row.value.name != assignment.name);
        if others.any(|other| administered(arm, &other.value).is_some()) {
            return Ok(());
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let message = "Cannot delete the last RBAC admin assignment";
    Err(Fault::new(StatusCode::PRECONDITION_FAILED, "CannotDeleteLastRbacAdminAssignment", message))
}

/// The subscription that the assignment lets somebody administer who is there to do it.
fn administered(arm: &Arm, assignment: &Assignment) -> Option<Uuid> {
    let is_whole = [OWNER_ROLE, USER_ACCESS_ADMINISTRATOR_ROLE].contains(&assignment.role_id)
        && assignment.condition.is_none();
    (is_whole && is_there(arm, assignment.principal_id)).then(|| of_subscription(&assignment.scope)).flatten()
}

/// Of a group, that it exists; of others, that they are not disabled either.
fn is_there(arm: &Arm, principal: Uuid) -> bool {
    let found = arm.directory.principal(principal);
    found.is_some_and(|found| {
        found.kind == PrincipalType::Group || arm.directory.groups_of(principal).is_some()
    })
}

fn of_subscription(scope: &ArmId) -> Option<Uuid> {
    let id = scope.subscription().filter(|_| scope.segments().count() == 2)?;
    Uuid::try_parse(id).ok()
}
