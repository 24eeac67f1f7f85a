//! A started site, from outside: the program, its proxy, real curl, the public wire.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod access;
mod audit;
mod backup;
mod broken_disk;
mod crowd;
mod databases;
mod durable;
mod entering;
mod extensions;
mod full_databases;
mod hostile;
mod interference;
mod keys;
mod lifecycle;
mod limits;
mod lists;
mod machines;
mod outside;
mod own_domain;
mod owners;
mod proxy;
mod raw;
mod records;
mod strangers;
mod support;
mod tampered;
mod tokens;
