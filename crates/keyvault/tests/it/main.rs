//! The vault as clients meet it: every request goes through the real dispatchers of the resource manager and of
//! the data plane, over a store in memory, with a clock that only moves when told to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod access;
mod backup;
mod challenge;
mod fuzz;
mod life;
mod lists;
mod network;
mod policies;
mod races;
mod secrets;
mod support;
mod vaults;
