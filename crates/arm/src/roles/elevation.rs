//! `elevateAccess`: how a Global Administrator gets into subscriptions in which nobody can assign roles any more.

use arcadia_kernel::{
    Action as _, ArmId, At, Decision, DenyReason, EntropyExt as _, Fault, Method, Op, Permit, Reply, Request,
    StatusCode, action, op,
};
use arcadia_store::Batch;

use crate::Arm;
use crate::error;
use crate::principal::PrincipalType;
use crate::roles::assignments::insert;
use crate::roles::{ASSIGNMENT_GRANTS, ASSIGNMENTS, Assignment, USER_ACCESS_ADMINISTRATOR_ROLE};

action!(
    /// The one action that is decided by a directory role and by no role here, not even by one that allows everything.
    pub(crate) ElevateAccess, Control, "Microsoft.Authorization/elevateAccess/action"
);

pub(crate) fn rows() -> Vec<Op<Arm>> {
    const PATH: &str = "/providers/Microsoft.Authorization/elevateAccess";
    vec![op("GlobalAdministratorElevateAccess", Method::POST, PATH, elevate)]
}

/// Assigns the caller `User Access Administrator` at `/`, unless it has that already. A condition that somebody put on it
/// goes: it would be in the way.
async fn elevate(at: At<Arm>, permit: Permit<ElevateAccess>, _: Request) -> Result<Reply, Fault> {
    let grant = (permit.caller().object_id, USER_ACCESS_ADMINISTRATOR_ROLE, ArmId::root());
    let mut attempts = at.store.attempts();
    loop {
        check_still_administrator(&permit)?;
        let current = match at.store.get(ASSIGNMENT_GRANTS, &grant).await? {
            Some(held) => at.store.get(ASSIGNMENTS, &held.value.id).await?,
            None => None,
        };
        let mut batch = Batch::new();
        match current {
            Some(row) if row.value.condition.is_none() => {
                // Who made it at the same moment may not have it in effect yet.
                at.store.observers_told().await?;
                return Ok(Reply::empty(StatusCode::OK));
            }
            Some(row) => {
                let whole = Assignment {
                    condition: None,
                    condition_version: None,
                    updated_on: permit.now(),
                    updated_by: permit.caller().object_id,
                    ..row.value
                };
                batch.require_revision(ASSIGNMENTS, &whole.id(), row.revision);
                batch.put(ASSIGNMENTS, &whole.id(), &whole)?;
            }
            None => {
                at.access.check_room()?;
                insert(&elevated(&at, &permit), &mut batch)?;
            }
        }
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return Ok(Reply::empty(StatusCode::OK));
        }
    }
}

/// Whoever waited for a turn may have lost the directory role meanwhile, and what is written here stays.
fn check_still_administrator(permit: &Permit<ElevateAccess>) -> Result<(), Fault> {
    let action = ElevateAccess::name();
    if permit.may(&action, ElevateAccess::PLANE, permit.scope()) {
        return Ok(());
    }
    permit.decided_again(&Decision::Denied(DenyReason::NoAssignment));
    Err(error::authorization_failed(permit.caller(), &action, permit.scope()))
}

fn elevated(arm: &Arm, permit: &Permit<ElevateAccess>) -> Assignment {
    let (now, caller) = (permit.now(), permit.caller().object_id);
    Assignment {
        name: arm.entropy.uuid(),
        scope: ArmId::root(),
        role_id: USER_ACCESS_ADMINISTRATOR_ROLE,
        principal_id: caller,
        // Nobody else is given a permit.
        principal_type: PrincipalType::User,
        condition: None,
        condition_version: None,
        description: None,
        created_on: now,
        updated_on: now,
        created_by: caller,
        updated_by: caller,
    }
}
