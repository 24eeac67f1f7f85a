//! Storage over its real dispatchers: accounts by the resource manager, containers and blobs by the data plane.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod access;
mod accounts;
mod backup;
mod blobs;
mod blocks;
mod conditions;
mod containers_rm;
mod copy;
mod copy_refused;
mod durable;
mod folder;
mod fuzz;
mod lists;
mod races;
mod shared_key;
mod support;
mod tiers;
