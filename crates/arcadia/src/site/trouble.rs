//! `trouble.json`: why a running site cannot answer, for `arcadia status`.
//!
//! The file has its length from the start and is written over in place, so that a full disk can be told as well. It is
//! found in the directory itself, so that it can be told as well that the directory has another name by now.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use jiff::Timestamp;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use serde::{Deserialize, Serialize};

use super::files::read_bounded;
use super::{DataDir, SiteFault};

/// More than any reason is long.
const FILE_BYTES: usize = 8192;
/// In the data directory.
pub(super) const NAME: &str = "trouble.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    pub pid: u32,
    pub since: Timestamp,
    pub reason: String,
    /// Until the site is started again; else it may pass, as a full disk does.
    pub lasting: bool,
}

impl Trouble {
    /// Of this process.
    pub fn new(reason: String, lasting: bool, since: Timestamp) -> Self {
        Self { pid: std::process::id(), since, reason, lasting }
    }

    /// Makes room in time.
    pub fn none(data: &DataDir) -> Result<(), SiteFault> {
        write_over(data, Vec::new())
    }

    pub fn save(&self, data: &DataDir) -> Result<(), SiteFault> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| SiteFault::Damaged { path: data.trouble_file(), reason: error.to_string() })?;
        write_over(data, bytes)
    }

    pub fn clear(data: &DataDir) {
        if let Ok(folder) = data.folder() {
            let _ = unlinkat(folder, NAME, AtFlags::empty());
        }
    }

    /// That of the site which runs as `pid`; what a predecessor left says nothing.
    pub fn of(data: &DataDir, pid: u32) -> Result<Option<Self>, SiteFault> {
        Ok(Self::last(data)?.filter(|trouble| trouble.pid == pid))
    }

    /// That of the last site, if it ended in it.
    pub fn last(data: &DataDir) -> Result<Option<Self>, SiteFault> {
        let path = data.trouble_file();
        let bytes = read_bounded(&path)?.unwrap_or_default();
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        let found: Self = serde_json::from_slice(&bytes)
            .map_err(|error| SiteFault::Damaged { path, reason: error.to_string() })?;
        Ok(Some(found))
    }
}

/// In one piece of always the same length; JSON does not mind blanks after it.
fn write_over(data: &DataDir, mut bytes: Vec<u8>) -> Result<(), SiteFault> {
    bytes.resize(bytes.len().max(FILE_BYTES), b' ');
    let write = || {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = File::from(openat(data.folder()?, NAME, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all_at(&bytes, 0)
    };
    write().map_err(SiteFault::file(&data.trouble_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_keeps_its_length_and_tells_of_its_own_process() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::at(folder.path().to_owned());
        let length = || data.trouble_file().metadata().unwrap().len();
        let own = std::process::id();
        assert!(Trouble::of(&data, own).unwrap().is_none());
        Trouble::none(&data).unwrap();
        assert!(Trouble::of(&data, own).unwrap().is_none());
        let before = length();
        let trouble = Trouble::new("the disk is full".to_owned(), false, Timestamp::UNIX_EPOCH);
        trouble.save(&data).unwrap();
        assert_eq!((length(), Trouble::of(&data, own).unwrap().unwrap().reason), (before, trouble.reason));
        assert!(Trouble::of(&data, own + 1).unwrap().is_none());
        assert!(Trouble::last(&data).unwrap().is_some());
        Trouble::none(&data).unwrap();
        assert!(Trouble::of(&data, own).unwrap().is_none());
        Trouble::clear(&data);
        assert!(!data.trouble_file().exists());
    }
}
