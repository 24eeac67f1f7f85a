//! Directories that are copied, given to a user, and made durable.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Uid};

use super::Account;
use crate::fault::ServerFault;

/// What the name of a directory ends in until it is complete.
pub(crate) const UNFINISHED: &str = ".new";

pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

/// A directory that only its owner enters.
pub(crate) fn private_directory(path: &Path, owner: Option<Account>) -> Result<(), ServerFault> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(ServerFault::file(path))?;
    own(path, owner)
}

/// A file that only its owner reads.
pub(crate) fn private_file(path: &Path, text: &str, owner: Option<Account>) -> Result<(), ServerFault> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(ServerFault::file(path))?;
    own(path, owner)
}

/// Of a link the link itself, never what it leads to.
pub(crate) fn own(path: &Path, owner: Option<Account>) -> Result<(), ServerFault> {
    let Some(Account { uid, gid }) = owner else { return Ok(()) };
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| ServerFault::file(path)(error.into()))
}

/// A server's directory has directories and plain files in it.
pub(crate) fn odd(path: &Path) -> ServerFault {
    ServerFault::file(path)(io::Error::new(
        io::ErrorKind::InvalidData,
        "neither a directory nor a plain file",
    ))
}

/// Copies a directory of directories and plain files, sharing blocks where the file system can.
pub(crate) fn copy_tree(from: &Path, to: &Path, owner: Option<Account>) -> Result<(), ServerFault> {
    private_directory(to, owner)?;
    for entry in fs::read_dir(from).map_err(ServerFault::file(from))? {
        let entry = entry.map_err(ServerFault::file(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(ServerFault::file(&source))?;
        if kind.is_dir() {
            copy_tree(&source, &target, owner)?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(ServerFault::file(&target))?;
            own(&target, owner)?;
        } else {
            return Err(odd(&source));
        }
    }
    Ok(())
}

/// Gives complete directories of one folder their names. All that is in them is durable when this returns.
pub(crate) fn complete(paths: &[&Path]) -> Result<(), ServerFault> {
    let Some(folder) = paths.first().and_then(|path| path.parent()) else { return Ok(()) };
    let folder_file = File::open(folder).map_err(ServerFault::file(folder))?;
    rustix::fs::syncfs(&folder_file).map_err(|error| ServerFault::file(folder)(error.into()))?;
    for path in paths {
        fs::rename(unfinished(path), path).map_err(ServerFault::file(path))?;
    }
    folder_file.sync_all().map_err(ServerFault::file(folder))
}
