//! Keeping bytes while they are copied: a lock on the folder, shared by whoever copies and exclusive to what removes.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{ByteStore, BytesFault};

/// While one exists, in whichever process, no bytes are removed. It ends with its process, however that ends.
pub struct BytePin {
    _folder: File,
}

impl BytePin {
    /// Waits for a removal that is under way. `None` where there is no such folder.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        let folder = match File::open(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        loop {
            match flock(&folder, FlockOperation::LockShared) {
                Ok(()) => return Ok(Some(Self { _folder: folder })),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The right to remove bytes.
pub(crate) struct Removal {
    _folder: File,
}

impl ByteStore {
    /// `None` while somebody copies.
    pub fn removal(&self) -> Result<Option<Removal>, BytesFault> {
        let failed = |error| BytesFault::io("lock the folder of blobs", error);
        let folder = File::open(&self.folder).map_err(failed)?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Removal { _folder: folder })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }
}
