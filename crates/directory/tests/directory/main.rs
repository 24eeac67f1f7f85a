//! The directory over the real dispatcher, with a clock that stands still.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests count as library code to the linter

mod administrators;
mod consent;
mod fuzz;
mod grants;
mod graph;
mod identity;
mod pages;
mod properties;
mod races;
mod refusals;
mod sign_ins;
mod waits;
mod world;
