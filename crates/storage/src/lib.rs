//! Azure Storage: accounts as resources, and the Blob data plane at `https://{account}.blob.core.windows.net`.
//!
//! [`Storage`] is both: the service behind the accounts' host names (rows: [`blob_ops`]) and what the kind
//! [`Accounts`] changes through the resource manager. A request proves itself with a bearer token, and roles
//! decide, or with a signature by one of the account's keys, which may do everything within that account.
//! Containers are reached by control actions and blobs by data actions, as the built-in roles have them; so the resource
//! manager serves containers too, which are the same rows.
//!
//! Rows name blobs and hold their properties; their bytes are in files of their own (`bytes`), sealed, and
//! durable before the row that names them. What is deleted is unreachable at once and removed by
//! [`Storage::sweep`] in bounded steps.

mod account;
mod bytes;
mod conditions;
mod data;
mod faults;
#[cfg(test)]
mod fuzz;
mod headers;
mod kinds;
mod names;
mod paths;
mod records;
mod service;
mod shared_key;
mod sweep;
mod xml;

pub use bytes::{BytePin, CopiedBytes, CopyFault, copy_bytes};
pub use data::blob_ops;
pub use kinds::Accounts;
pub use names::StorageNames;
pub use service::{Asked, OpenFault, Storage};
pub use sweep::Swept;
