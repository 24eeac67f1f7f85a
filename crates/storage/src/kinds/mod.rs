//! Kinds of resources and the operations on them.

mod account;
mod keys;
mod names;

pub use account::Accounts;
