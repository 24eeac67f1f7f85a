//! A started site, from outside: the program, its proxy, real curl, the public wire.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod access;
mod audit;
mod backup;
mod extensions;
mod interference;
mod lifecycle;
mod own_domain;
mod proxy;
mod strangers;
mod support;
mod tokens;
