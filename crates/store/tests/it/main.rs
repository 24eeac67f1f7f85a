//! The store over its real backends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::type_complexity,
    reason = "a test that cannot go on fails, and says plainly what it compares"
)]

mod attempts;
mod crash;
mod dispatched;
mod failure;
mod interference;
mod model;
mod older;
mod put_back;
mod readers;
mod reseal;
mod sealed;
mod suite;
mod support;
mod torn;
mod typed;
