//! Machines over the real dispatchers, with real tokens from the real directory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fuzz;
mod heartbeats;
mod races;
mod resources;
mod world;
