//! Azure Resource Manager: tenants, subscriptions, resource groups, resources of every kind, role definitions and
//! assignments, and the access decision that every service of a site asks.
//!
//! A service declares its resources with [`ResourceKind`]; rows, lists, deletion and the actions
//! `read|write|delete` follow from that. [`Arm::decider`] answers [`arcadia_kernel::Question`]s from memory.

mod access;
mod arm;
mod asynchronous;
mod catalogue;
mod engine;
mod error;
mod filter;
#[cfg(test)]
mod fuzz;
mod groups;
mod kind;
mod locations;
mod names;
mod operations;
mod page;
mod principal;
mod providers;
mod resources;
mod roles;
mod size;
mod subscriptions;
mod version;
mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;

use arcadia_kernel::Op;

pub use access::{ConditionFault, Considered, Explanation, Verdict};
pub use arm::{Arm, Founding};
pub use kind::{
    AnyKind, Delete, Desired, NameRule, Plan, RESOURCES, Read, Resource, ResourceKind, Write, caller_name,
    caller_type, merge_json, merged, registered,
};
pub use locations::{Location, azure_locations};
pub use names::ArmNames;
pub use principal::{PrincipalInfo, PrincipalSource, PrincipalType, TenantInfo};
pub use roles::end_assignments;

/// Every row: tenants, subscriptions, groups, resources, providers, roles, operations, and those of every
/// registered kind.
pub fn arm_ops(arm: &Arc<Arm>) -> Vec<Op<Arm>> {
    let mut rows = subscriptions::rows();
    rows.extend(groups::rows());
    rows.extend(resources::rows());
    rows.extend(providers::rows());
    rows.extend(operations::rows());
    rows.extend(roles::definition_rows());
    rows.extend(roles::assignment_rows());
    rows.extend(roles::elevation_rows());
    let mut namespaces = BTreeSet::new();
    for kind in arm.kinds() {
        rows.extend(kind.ops());
        if namespaces.insert(providers::namespace_of(kind.type_name())) {
            rows.extend(kind.namespace_ops());
        }
    }
    rows.extend(catalogue::rows());
    arm.publish_operations(rows.iter().map(|row| &row.info));
    rows
}
