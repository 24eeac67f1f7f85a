//! Machines over the real dispatchers, with real tokens from the real directory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fuzz;
mod heartbeats;
#[path = "../../../keyvault/tests/it/support/interleaved.rs"]
mod interleaved;
mod races;
mod resources;
mod world;
