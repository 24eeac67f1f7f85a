//! The files of a store: who may read them, who has them open, whether they outlive a power loss.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{connect, failed};
use crate::StoreError;

pub(crate) const DATABASE: &str = "store.db";
const LOCK: &str = "store.lock";

/// Makes the directory (0700) and an empty database file (0600) where they are missing; returns the file's path.
///
/// A directory that is empty or holds a store already is closed to others; one that holds other things is left
/// as it is.
pub(super) fn prepare(directory: &Path) -> Result<PathBuf, StoreError> {
    let path = directory.join(DATABASE);
    let prepare = || {
        if !directory.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        } else if path.exists() || directory.read_dir()?.next().is_none() {
            close_to_others(directory, 0o700)?;
        }
        // The log and its index inherit the mode of the file.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        close_to_others(&path, 0o600)?;
        file.sync_all()
    };
    prepare().map_err(|error: io::Error| StoreError::unavailable("prepare its directory", error))?;
    Ok(path)
}

fn close_to_others(path: &Path, mode: u32) -> io::Result<()> {
    let mut permissions = path.metadata()?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(mode);
        std::fs::set_permissions(path, permissions)?;
    }
    Ok(())
}

/// The kernel releases it when the process ends, however it ends.
pub(super) fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| StoreError::unavailable("open its lock", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: directory.join(DATABASE) }),
        Err(TryLockError::Error(error)) => Err(StoreError::unavailable("lock its directory", error)),
    }
}

/// A new name in a directory is durable only once the directory is.
pub(super) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| StoreError::unavailable("make its directory durable", error))
}

pub(super) fn size_bytes(database: &Path) -> u64 {
    let log = database.with_extension("db-wal");
    [database, &log].iter().filter_map(|path| path.metadata().ok()).map(|found| found.len()).sum()
}

/// One read transaction, written out as a new database; commits go on meanwhile.
pub(super) fn copy(source: &Path, target: &Path) -> Result<(), StoreError> {
    let io_failed = |error: io::Error| StoreError::unavailable("write the backup", error);
    let name = target.to_str().ok_or_else(|| {
        io_failed(io::Error::new(io::ErrorKind::InvalidInput, "the path of the backup is not valid UTF-8"))
    })?;
    let file =
        OpenOptions::new().create_new(true).append(true).mode(0o600).open(target).map_err(io_failed)?;
    let copied = connect(source, false).and_then(|connection| {
        connection.execute("VACUUM INTO ?1", [name]).map_err(|error| failed("write the backup", error))
    });
    if let Err(error) = copied {
        // Half a backup is worse than none; the first error is the one that matters.
        let _ = std::fs::remove_file(target);
        return Err(error);
    }
    file.sync_all().map_err(io_failed)?;
    match target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_directory(parent),
        None => sync_directory(Path::new(".")),
    }
}
