//! Scopes that roles can be assigned at.

use arcadia_kernel::{ArmId, Fault};
use arcadia_store::Batch;

use crate::Arm;
use crate::error;
use crate::groups::GROUPS;
use crate::kind::RESOURCES;

/// The most segments of a scope: leaves room for the assignment's own segments below it.
const SCOPE_SEGMENTS_MAX: usize = 56;
/// The longest scope, in bytes.
const SCOPE_BYTES_MAX: usize = 1900;

/// The scope that a path names; `/` or something at or below a subscription that exists.
pub(super) fn check(arm: &Arm, text: &str) -> Result<ArmId, Fault> {
    let refused = || {
        let message = format!(
            "The scope '{}' is not valid. Use '/', or a subscription, resource group or resource.",
            error::shown(text)
        );
        Fault::bad_request("InvalidScope", message)
    };
    let scope = ArmId::parse(text).map_err(|_| refused())?;
    if scope.is_root() {
        return Ok(scope);
    }
    if scope.segments().count() > SCOPE_SEGMENTS_MAX || scope.as_str().len() > SCOPE_BYTES_MAX {
        return Err(refused());
    }
    let subscription = scope.subscription().ok_or_else(refused)?;
    arm.known_subscription(subscription)?;
    Ok(scope)
}

/// Requires that what the scope is in exists when the batch is committed, and marks it as changed, so that a
/// deletion that runs at the same time sees the new assignment or fails.
pub(super) async fn hold(arm: &Arm, scope: &ArmId, batch: &mut Batch) -> Result<(), Fault> {
    let Some(group_id) = scope.resource_group_id() else { return Ok(()) };
    let name = group_id.name().to_owned();
    let group = arm.store.get(GROUPS, &group_id).await?.ok_or_else(|| error::group_not_found(&name))?;
    group.value.check_active()?;
    let Some(resource_id) = arm.resource_holding(scope) else {
        batch.require_revision(GROUPS, &group_id, group.revision);
        return Ok(());
    };
    let resource = arm
        .store
        .get(RESOURCES, &resource_id)
        .await?
        .ok_or_else(|| error::resource_not_found(&resource_id))?;
    batch.require_revision(RESOURCES, &resource_id, resource.revision);
    batch.put(RESOURCES, &resource_id, &resource.value)?;
    Ok(())
}
