//! Files that are whole or not there, read within bounds, never through a planted link.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::path::Path;

use arcadia_kernel::{Entropy, EntropyExt as _};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

use crate::accounts::{Accounts, Owner};

/// Reads a file of at most `bytes_max`; a longer one is an error.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it is longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Opens a folder itself, not what a link of its name points at.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// A new file of that name in an open folder; fails if there is anything of that name.
pub(crate) fn create_in(folder: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Removes a name from an open folder; a link is removed, not followed. That it is gone already is no error.
pub(crate) fn remove_in(folder: impl AsFd, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(fault) => Err(fault.into()),
    }
}

/// Whose a file is that is written.
#[derive(Clone, Copy)]
pub(crate) struct Ownership<'a> {
    pub(crate) accounts: &'a Accounts,
    pub(crate) owner: Owner,
    pub(crate) mode: u32,
}

/// Replaces a file's content as one step that survives a crash: temporary file, fsync, rename, fsync of the folder.
pub(crate) fn write_atomic(
    folder: &File,
    name: &str,
    content: &[u8],
    ownership: Ownership<'_>,
    entropy: &dyn Entropy,
) -> io::Result<()> {
    let temporary = format!(".{name}.{}", entropy.uuid());
    let write = || {
        let mut file = create_in(folder, &temporary)?;
        ownership.accounts.give(&file, ownership.owner, ownership.mode, ownership.mode)?;
        file.write_all(content)?;
        file.sync_all()?;
        rustix::fs::renameat(folder, &temporary, folder, name)?;
        folder.sync_all()
    };
    write().inspect_err(|_| {
        let _ = remove_in(folder, &temporary);
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use arcadia_crypto::SystemEntropy;
    use std::os::unix::fs::PermissionsExt as _;

    fn write(path: &Path, content: &[u8]) -> io::Result<()> {
        let ownership = Ownership { accounts: &Accounts::default(), owner: Owner::Himds, mode: 0o600 };
        let folder = open_folder(path.parent().unwrap())?;
        write_atomic(&folder, path.file_name().unwrap().to_str().unwrap(), content, ownership, &SystemEntropy)
    }

    #[test]
    fn a_write_replaces_whole_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        write(&path, b"a long first content").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_its_target_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (target, path) = (folder.path().join("target"), folder.path().join("state.json"));
        fs::write(&target, b"untouched").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"untouched");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), b"").unwrap();
        assert!(write(&path, b"new").is_err(), "a folder of that name cannot be replaced");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn reading_is_bounded_and_folders_are_not_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        assert!(read_bounded(&path, 4).is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(open_folder(&link).is_err());
        assert!(open_folder(folder.path()).is_ok());
    }
}
