//! Reading and writing small files so that a crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::SiteFault;

/// Longest small file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Replaces `path` by `bytes`, durable when it returns. Nobody sees half a file.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SiteFault> {
    let fault = SiteFault::file(path);
    let Some(folder) = path.parent() else { return Err(fault(io::ErrorKind::InvalidInput.into())) };
    (|| {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.new", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        let written = file
            // The mode given to `open` is cut by the process's mask; a file meant for others is opened to them here.
            .set_permissions(fs::Permissions::from_mode(mode))
            .and_then(|()| file.write_all(bytes))
            .and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = renamed {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        File::open(folder)?.sync_all()
    })()
    .map_err(fault)
}

/// The contents of a small file; `None` when there is none.
pub fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, SiteFault> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
        }
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SiteFault::file(path)(error)),
    }
}

/// Reads a JSON file; `None` when there is none.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, SiteFault> {
    let Some(bytes) = read_bounded(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| SiteFault::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// Writes a JSON file that only its owner reads.
pub fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), SiteFault> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| SiteFault::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    bytes.push(b'\n');
    write_atomic(path, &bytes, 0o600)
}
