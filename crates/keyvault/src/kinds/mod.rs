//! The resource kinds of Microsoft.KeyVault.

mod deleted;
mod names;
mod policies;
mod vault;

pub use vault::Vaults;
