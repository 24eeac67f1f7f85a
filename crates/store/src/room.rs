//! Space on the disk of the store, which services share with it.

use std::io;
use std::path::Path;

/// Space that services leave free on the disk, for the database and its log, in bytes: a store that cannot write
/// answers nothing.
pub const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// What the file system of a file or folder has free for this process, in bytes.
///
/// # Errors
/// That it cannot be asked, as when nothing is there.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let status = rustix::fs::statvfs(path)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}
