//! How the program is linked.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "cargo tells and is told this way")]

use std::process::Command;

/// The first glibc that reads relocations in their short form.
const GLIBC_MIN: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Most of a program's relocations are the same step again and again. In the short form they take a twentieth of
    // the memory, in every process, for as long as it runs.
    let links_glibc = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    if links_glibc && glibc().is_some_and(|version| version >= GLIBC_MIN) {
        println!("cargo:rustc-link-arg-bin=arcadia=-Wl,-z,pack-relative-relocs");
    }
}

/// This machine's, as `getconf` tells: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
