//! Azure Key Vault: vaults as resources, and the data plane at `https://{vault}.vault.azure.net`.
//!
//! [`KeyVault`] is both: the service behind the vaults' own host names (rows: [`data_ops`]) and what the kind
//! [`Vaults`] changes through the resource manager. The data plane knows a vault from a snapshot in memory that
//! follows the store, checks its network rules, and has the kernel decide: by roles, or, for a vault with access
//! policies, by [`KeyVault::decide_by_policy`].
//!
//! A deleted vault or secret is kept for its retention period, can be recovered, and is removed for good by a
//! purge or by [`KeyVault::sweep`]. A purge is one commit that makes the object unreachable and its name free;
//! the sealed values are removed right after it, in bounded batches that a restart continues.

mod faults;
mod kinds;
mod names;
mod records;
mod secrets;
mod service;
mod sweep;
mod vault;
mod version;

pub use kinds::Vaults;
pub use names::KeyVaultNames;
pub use secrets::data_ops;
pub use service::{Asked, KeyVault};
pub use sweep::Swept;
pub use vault::{ALLOWED_BY_POLICY, Vault};
pub use version::ApiVersion;
