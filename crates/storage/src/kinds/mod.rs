//! Kinds of resources and the operations on them.

mod account;
mod containers;
mod keys;
mod names;
mod services;

use std::sync::Arc;

use arcadia_kernel::{ArmId, Fault};

use crate::Storage;
use crate::account::Account;

pub use account::Accounts;

/// The segments of an account's identifier: subscription, group, provider and account, each with its name.
const ACCOUNT_SEGMENTS: usize = 8;
/// Of requests that set a service or a container: metadata of 8 KiB, whatever of it is escaped.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The live account that a scope is, or is inside of.
fn account_at(storage: &Storage, scope: &ArmId) -> Result<Arc<Account>, Fault> {
    let id = ArmId::from_segments(scope.segments().take(ACCOUNT_SEGMENTS)).map_err(Fault::internal)?;
    let account = storage.accounts.by_name(id.name()).filter(|account| account.id == id);
    account.ok_or_else(|| no_account(&id))
}

fn no_account(id: &ArmId) -> Fault {
    let message = format!(
        "The Resource 'Microsoft.Storage/storageAccounts/{}' under resource group '{}' was not found. For more details \
         please go to https://aka.ms/ARMResourceNotFoundFix",
        id.name(),
        id.resource_group().unwrap_or("<null>"),
    );
    Fault::not_found("ResourceNotFound", message)
}
