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

/// The scope that a path names; `/` or something at or below a subscription that exists. What is no scope is taken as
/// well, for whatever was made there before it was refused: to be listed and deleted.
pub(super) fn check(arm: &Arm, text: &str) -> Result<ArmId, Fault> {
    let refused = || refused(text);
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

/// As [`check`], where a role is about to be assigned: what lies between two scopes (`…/resourceGroups`) would give it in
/// all that is below, and no list of a scope would show it.
pub(super) fn check_new(arm: &Arm, text: &str) -> Result<ArmId, Fault> {
    let scope = check(arm, text)?;
    if is_scope(&scope) { Ok(scope) } else { Err(refused(text)) }
}

fn refused(text: &str) -> Fault {
    let message = format!(
        "The scope '{}' is not valid. Use '/', or a subscription, resource group or resource.",
        error::shown(text)
    );
    Fault::bad_request("InvalidScope", message)
}

/// Whether it is the root, a subscription, a group, or a resource: a namespace with pairs of type and name.
fn is_scope(scope: &ArmId) -> bool {
    let segments: Vec<&str> = scope.segments().collect();
    let is =
        |at: usize, wanted: &str| segments.get(at).is_some_and(|found| found.eq_ignore_ascii_case(wanted));
    let container = if is(2, "resourceGroups") { 4 } else { 2 };
    if segments.len() <= container {
        return segments.is_empty() || segments.len() == container;
    }
    let pairs = segments.get(container + 2..).unwrap_or_default();
    // A blob's name has slashes of its own.
    let is_blob = pairs.chunks_exact(2).any(|pair| pair[0].eq_ignore_ascii_case("blobs"));
    // Blobs whose names fit into no scope share this one, which nobody must be given.
    let is_nameable = !pairs.contains(&"%-");
    let ends_in_name =
        pairs.chunks_exact(2).last().is_none_or(|pair| !pair[0].eq_ignore_ascii_case("providers"));
    is(container, "providers")
        && pairs.len() >= 2
        && (pairs.len() % 2 == 0 || is_blob)
        && is_nameable
        && ends_in_name
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_containers_and_pairs_below_a_namespace() {
        let is = |text: &str| is_scope(&ArmId::parse(text).unwrap());
        let blobs = "/providers/N.S/accounts/a/blobServices/default/containers/c/blobs";
        for below in
            ["", "/providers/N.T/t/n", "/providers/N.T/t/n/u/m", "/providers/N.T/t/n/providers/N.U/u/m"]
        {
            assert!(is(&format!("/subscriptions/s{below}")), "{below}");
            assert!(is(&format!("/subscriptions/s/resourceGroups/g{below}")), "{below}");
        }
        assert!(is("/") && is(&format!("/subscriptions/s/resourceGroups/g{blobs}/a/b")));
        assert!(is(&format!("/subscriptions/s/resourceGroups/g{blobs}/a")));
        for none in [
            "/x",
            "/providers",
            "/providers/N.T",
            "/providers/N.T/t",
            "/providers/N.T/t/n/u",
            "/x/y",
            blobs,
            "/providers/N.T/t/n/providers/N.U",
        ] {
            assert!(!is(&format!("/subscriptions/s{none}")), "{none}");
            assert!(!is(&format!("/subscriptions/s/resourceGroups/g{none}")), "{none}");
        }
        assert!(!is(&format!("/subscriptions/s/resourceGroups/g{blobs}/%-")));
        assert!(!is("/subscriptions") && !is("/subscriptions/s/resourceGroups"));
    }
}
