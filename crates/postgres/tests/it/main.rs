//! Servers, databases and logins over the resource manager and the gateway, with a real PostgreSQL and real `psql`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may fail loudly")]

mod administrators;
mod closed;
mod crowd;
mod gateway;
mod races;
mod raw;
mod resources;
mod slow;
mod tokens;
mod world;
