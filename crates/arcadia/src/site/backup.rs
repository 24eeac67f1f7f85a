//! What a backup is on disk: a directory of files, a list of them, and a seal over the list.
//!
//! `manifest.json` names every file with its length and digest; `manifest.seal` is the manifest sealed under the
//! site's data keys, so that a backup opens with its own root key only and no file of it can be changed unseen.
//! Private keys and credentials are sealed in the same way; the store's rows are sealed already.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use arcadia_crypto::{hex, sha256};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DataDir, SiteFault};

pub const SCHEMA: u32 = 1;
pub const MANIFEST: &str = "manifest.json";
pub const MANIFEST_SEAL: &str = "manifest.seal";
pub const ROOT_KEY: &str = "root.key";
pub const STORE: &str = "store.db";
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// How a file of a site is kept in a backup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Plain,
    /// Sealed under the site's data keys, with the name as additional data.
    Sealed,
}

/// A small file of a data directory.
pub struct Part {
    /// In the data directory.
    pub name: &'static str,
    /// In the backup.
    pub kept_as: &'static str,
    pub form: Form,
    pub mode: u32,
    /// Some operators remove it once they have noted what is in it.
    pub optional: bool,
}

/// All but the store and the root key.
pub const PARTS: [Part; 5] = [
    Part { name: "ring.json", kept_as: "ring.json", form: Form::Plain, mode: 0o600, optional: false },
    Part { name: "ca.pem", kept_as: "ca.pem", form: Form::Plain, mode: 0o644, optional: false },
    Part { name: "ca.key.pem", kept_as: "ca.key.sealed", form: Form::Sealed, mode: 0o600, optional: false },
    Part {
        name: "credentials.json",
        kept_as: "credentials.sealed",
        form: Form::Sealed,
        mode: 0o600,
        optional: true,
    },
    // Last, as at the founding: where it is, a site is whole.
    Part { name: "site.json", kept_as: "site.json", form: Form::Plain, mode: 0o600, optional: false },
];

impl Part {
    pub fn additional_data(&self) -> Vec<u8> {
        [b"\0backup ".as_slice(), self.name.as_bytes()].concat()
    }
}

pub const MANIFEST_DATA: &[u8] = b"\0backup manifest";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema: u32,
    pub made_by: String,
    pub made_at: Timestamp,
    pub tenant_id: Uuid,
    pub audit_records: u64,
    pub with_root_key: bool,
    pub files: Vec<Entry>,
    /// What the site had beside these files.
    pub not_included: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub bytes: u64,
    /// SHA-256, in hex, of the SHA-256s of each 4 MiB.
    pub digest: String,
}

impl Entry {
    pub fn of(folder: &Path, name: &str) -> Result<Self, SiteFault> {
        let path = folder.join(name);
        let (bytes, digest) = digest(&path).map_err(SiteFault::file(&path))?;
        Ok(Self { name: name.to_owned(), bytes, digest })
    }
}

fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut bytes, mut digests) = (0, Vec::new());
    loop {
        let mut chunk = Vec::new();
        bytes += (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)? as u64;
        if chunk.is_empty() {
            break;
        }
        digests.extend_from_slice(&sha256(&chunk));
    }
    Ok((bytes, hex(&sha256(&digests))))
}

/// A directory that gets its name once it is whole, and is removed when it does not come to that.
pub struct Draft {
    path: PathBuf,
    target: PathBuf,
    done: bool,
}

impl Draft {
    /// Makes an empty directory beside `target`, which must be empty or not exist.
    pub fn beside(target: &Path) -> Result<Self, SiteFault> {
        // As a whole path, so that it has a name and a parent.
        let target = std::path::absolute(target).map_err(SiteFault::file(target))?;
        match fs::read_dir(&target) {
            Ok(mut found) => {
                if found.next().is_some() {
                    return Err(SiteFault::NotEmpty(target));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(SiteFault::file(&target)(error)),
        }
        let name = target.file_name().ok_or_else(|| SiteFault::NotEmpty(target.clone()))?;
        let name = format!(".{}.{}.new", name.to_string_lossy(), std::process::id());
        let path = target.with_file_name(name);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(SiteFault::file(&path))?;
        Ok(Self { path, target, done: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new file in it, durable when this returns.
    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), SiteFault> {
        let path = self.path.join(name);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(SiteFault::file(&path))
    }

    /// Copies a file of any size into it.
    pub fn copy(&self, from: &Path, name: &str) -> Result<(), SiteFault> {
        let path = self.path.join(name);
        let copy = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            io::copy(&mut File::open(from)?, &mut file)?;
            file.sync_all()
        };
        copy().map_err(SiteFault::file(&path))
    }

    /// Gives it its name.
    pub fn finish(mut self) -> Result<(), SiteFault> {
        let finish = || {
            File::open(&self.path)?.sync_all()?;
            // An empty directory gives way; one that is not empty by now does not.
            fs::rename(&self.path, &self.target)?;
            File::open(self.target.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        finish().map_err(SiteFault::file(&self.target))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// What a data directory holds that is in no backup: each kind that has anything in it, in words.
pub fn not_included(data: &DataDir) -> Vec<String> {
    let kinds: [(&[&str], &str); 3] = [
        (&["blobs/files", "blobs/segments"], "the bytes of blobs (blobs/)"),
        (&["postgres"], "the data of database servers (postgres/)"),
        (&["machines"], "machines made by `arcadia machine` (machines/)"),
    ];
    let holds =
        |folder: &&str| fs::read_dir(data.path().join(folder)).is_ok_and(|mut found| found.next().is_some());
    kinds
        .iter()
        .filter(|(folders, _)| folders.iter().any(holds))
        .map(|(_, words)| (*words).to_owned())
        .collect()
}
