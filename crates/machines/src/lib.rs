//! Azure Arc-enabled servers: the `Microsoft.HybridCompute/machines` resource, and what the agents on those
//! machines call.
//!
//! A machine's identity is its RSA key. The private half never leaves the machine; the public half arrives in
//! the PUT that creates the resource, and becomes the only credential of the managed identity that is made in
//! the same commit. Whoever may write machines can therefore create and delete identities, but never take over
//! one that exists: a PUT with another key or another `vmId` is refused, and a machine that was deleted and
//! made again gets a new principal, which holds none of the old one's roles.

mod heartbeat;
mod his;
pub mod kinds;

pub use heartbeat::{HEARTBEATS, Heartbeat};
pub use his::{His, his_ops};
pub use kinds::machine::Machines;

/// The audience of the tokens that agents present to this service.
pub const HIS_AUDIENCE: &str = "https://his.arc.azure.com";
