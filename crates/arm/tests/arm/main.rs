//! The resource manager over its real dispatcher, with a small kind of resource, a clock that stands still, a
//! store in memory, and tokens that say who they are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test that calls them")]

mod assignments;
mod elevation;
mod fuzz;
mod groups;
mod operations;
mod races;
mod refusals;
mod resources;
mod support;
mod taken_away;
