//! The agent from outside: its service asked with real commands, its command line, its daemon over time. The site is a
//! fake of the wire that a site serves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod azcmagent;
mod bench;
mod daemon;
mod himds;
mod machine;
mod races;
