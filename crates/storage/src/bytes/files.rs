//! Large pieces: a file each, in 256 directories by the first byte of the id.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::BytesFault;
use super::fault::FirstFault;

pub(super) struct Files {
    root: PathBuf,
}

/// Makes a directory that only its owner may enter, if it is not there.
pub(super) fn make_directory(path: &Path) -> Result<(), BytesFault> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| BytesFault::io("make a directory for blobs", error))
}

/// Makes names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), BytesFault> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| BytesFault::io("sync a directory of blobs", error))
}

impl Files {
    pub fn open(root: &Path) -> Result<Self, BytesFault> {
        make_directory(root)?;
        for shard in 0..=255_u8 {
            make_directory(&Self::shard_in(root, shard))?;
        }
        sync_directory(root)?;
        Ok(Self { root: root.to_owned() })
    }

    pub fn path(&self, id: Uuid) -> PathBuf {
        Self::path_in(&self.root, id)
    }

    pub fn path_in(root: &Path, id: Uuid) -> PathBuf {
        Self::shard_in(root, id.as_bytes()[0]).join(id.simple().to_string())
    }

    pub fn shard_in(root: &Path, shard: u8) -> PathBuf {
        root.join(format!("{shard:02x}"))
    }

    pub fn create(path: &Path) -> Result<File, BytesFault> {
        Self::create_new(path).map_err(|error| BytesFault::io("create a file for a blob", error))
    }

    pub fn create_new(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    /// Makes a written file durable: its bytes, then its name.
    pub fn sync(file: &File, path: &Path) -> Result<(), BytesFault> {
        file.sync_all().map_err(|error| BytesFault::io("sync a file of a blob", error))?;
        path.parent().map_or(Ok(()), sync_directory)
    }

    pub fn remove(path: &Path) -> Result<(), BytesFault> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(BytesFault::io("remove a file of a blob", error))
            }
            _ => Ok(()),
        }
    }

    /// Removes what can be removed of them. The fault is of the first that cannot.
    pub fn remove_all(paths: &[PathBuf]) -> Result<(), BytesFault> {
        let mut first = FirstFault::default();
        for path in paths {
            first.of(Self::remove(path));
        }
        first.into_result()
    }

    /// The pieces that have a file in one of the directories.
    pub fn in_shard(root: &Path, shard: u8) -> Result<Vec<Uuid>, BytesFault> {
        let failed = |error| BytesFault::io("list the files of blobs", error);
        let mut found = Vec::new();
        for entry in fs::read_dir(Self::shard_in(root, shard)).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // Whatever else lies there was not made here and is left alone.
            found.extend(name.to_str().and_then(|name| Uuid::try_parse(name).ok()));
        }
        Ok(found)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
}
