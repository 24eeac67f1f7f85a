//! Directories that are copied, given to a user, and made durable.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};

use super::Account;
use crate::fault::ServerFault;

/// What the name of a directory ends in until it is complete.
pub(crate) const UNFINISHED: &str = ".new";

/// The longest text that is read of a server's own files.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

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
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
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

/// A file to read in a directory that is a server's own, where anything may be put: no link is followed, nobody is waited
/// for, and it is a plain file.
fn open_plain(directory: impl AsFd, name: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "not a plain file");
    if file.metadata()?.is_file() { Ok(file) } else { Err(odd()) }
}

fn open_folder(directory: impl AsFd, name: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?))
}

/// A short text of a server's own.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_plain(CWD, path)?.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text)?;
    let long = || io::Error::new(io::ErrorKind::InvalidData, "longer than any file of its name");
    if text.len() as u64 > TEXT_BYTES_MAX { Err(long()) } else { Ok(text) }
}

/// A server's directory, in which every step of a path is taken from an open directory to what is in that: so nothing
/// leads out of it, whatever the server puts in place of something else meanwhile.
pub(crate) struct Root {
    pub path: PathBuf,
    directory: File,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self, ServerFault> {
        let directory = open_folder(CWD, path).map_err(ServerFault::file(path))?;
        Ok(Self { path: path.to_owned(), directory })
    }

    pub(crate) fn directory(&self) -> &File {
        &self.directory
    }

    fn folder(&self, below: &Path) -> io::Result<File> {
        let steps = below.components().filter_map(|step| match step {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let here = open_folder(&self.directory, Path::new("."));
        steps.fold(here, |folder, name| open_folder(folder?, Path::new(name)))
    }

    pub(crate) fn file(&self, below: &Path) -> io::Result<File> {
        let name = below.file_name().unwrap_or_default();
        open_plain(self.folder(below.parent().unwrap_or(Path::new("")))?, Path::new(name))
    }

    /// What is in a folder, and of which kind and mode; none where it is gone.
    pub(crate) fn list(&self, below: &Path) -> Result<Vec<(String, FileType, Mode)>, ServerFault> {
        let path = self.path.join(below);
        let listed = self.folder(below).and_then(|folder| entries(&folder));
        match listed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(ServerFault::file(&path)),
        }
    }
}

/// But for what goes while they are listed.
fn entries(folder: &File) -> io::Result<Vec<(String, FileType, Mode)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let odd = |_| io::Error::new(io::ErrorKind::InvalidData, "a file's name is not text");
        let name = entry.file_name().to_str().map_err(odd)?;
        if [".", ".."].contains(&name) {
            continue;
        }
        match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => {}
            found => {
                let Stat { st_mode, .. } = found?;
                let (kind, mode) = (FileType::from_raw_mode(st_mode), Mode::from_raw_mode(st_mode));
                entries.push((name.to_owned(), kind, mode));
            }
        }
    }
    Ok(entries)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Whoever runs a program as the servers' user puts into a server's directory what it likes.
    #[test]
    fn only_plain_files_are_read_and_short_texts() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name);
        fs::write(at("plain"), "text").unwrap();
        fs::write(outside.path().join("root.key"), "secret").unwrap();
        symlink(outside.path().join("root.key"), at("link")).unwrap();
        symlink(outside.path(), at("above")).unwrap();
        rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        File::create(at("huge")).unwrap().set_len(1 << 40).unwrap();
        fs::create_dir(at("folder")).unwrap();
        assert_eq!(read_text(&at("plain")).unwrap(), "text");
        for odd in ["link", "pipe", "huge", "folder"] {
            assert!(read_text(&at(odd)).is_err(), "{odd}");
        }
        let root = Root::open(folder.path()).unwrap();
        for odd in ["link", "pipe", "above/root.key", "folder"] {
            assert!(root.file(Path::new(odd)).is_err(), "{odd}");
        }
        assert!(root.file(Path::new("plain")).is_ok());
        assert!(root.list(Path::new("above")).is_err());
        assert!(Root::open(&at("above")).is_err());
    }
}
