//! A site on disk: its data directory, its keys, what it is called, and whether it runs.

mod archive;
pub mod backup;
mod credentials;
mod files;
mod keys;
mod lock;
mod passphrase;
mod record;
mod ring;
mod root_change;
mod running;
mod trouble;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

pub use archive::{ArchiveReader, ArchiveWriter};
pub use credentials::Credentials;
pub use files::{read_bounded, write_atomic};
pub use keys::{
    KeyPlace, KeysLock, SiteKeys, authority_ending, load_or_create_authority, load_ring,
    new_root_of_passphrase, open_keys, open_or_create_keys, root_in_file, save_ring, settle,
};
pub use lock::{Lock, has_open, holder};
pub use passphrase::{PASSPHRASE_FILE, PassphraseSource, read_from};
pub use record::SiteRecord;
pub use ring::{NamedRoot, RingFile, RootSource};
pub use root_change::RootChange;
pub use running::{Running, State};
pub use trouble::Trouble;

/// What is wrong with a data directory, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SiteFault {
    // `cause` and not `source`, which would be told twice.
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: io::Error },
    #[error("there is no site in {0}; make one with `arcadia up --data {0}`")]
    NoSite(PathBuf),
    #[error("{0} belongs to another user; run this as its owner, or name another directory with --data")]
    NotOurs(PathBuf),
    #[error("{0} is not empty; name a directory that is empty or does not exist")]
    NotEmpty(PathBuf),
    #[error(
        "{0} holds other things than a site, and would be closed to all other users; name a directory that is empty or \
         does not exist with --data"
    )]
    NotASite(PathBuf),
    #[error("{0} exists and is not a directory; name another one with --data")]
    NotADirectory(PathBuf),
    #[error("{path} cannot be read: {reason}; put it back from a backup")]
    Damaged { path: PathBuf, reason: String },
    #[error("{path} was written by a newer Arcadia (schema {schema}); run that version")]
    Newer { path: PathBuf, schema: u32 },
    #[error(
        "{0} is missing although the site has data; without it nothing opens. Put it back from a backup, \
         or name another directory with --data"
    )]
    KeyMissing(PathBuf),
    #[error(
        "{0} is missing although the site has been started before, and its clients trust no other certificate; put it \
         back from a backup or from a machine that has it (it is not secret)"
    )]
    AuthorityMissing(PathBuf),
    #[error(
        "{0} is missing, and with it the first credentials: sign in with others, or put it back from a backup; nobody \
         but the site's own directory knows them, and in there are hashes only"
    )]
    CredentialsMissing(PathBuf),
    #[error("{0} is not the root key that the site's data keys are under; put the right one back")]
    WrongRootKey(PathBuf),
    #[error("this is not the passphrase of the site; nothing was changed")]
    WrongPassphrase,
    #[error(
        "the site's root key is made of a passphrase: name a file that holds it with --passphrase-file or \
         ARCADIA_PASSPHRASE_FILE, or run this on a terminal and be asked"
    )]
    PassphraseNeeded,
    #[error(
        "no passphrase was given: name a file that holds it with {0}, or run this on a terminal and be asked"
    )]
    NoNewPassphrase(&'static str),
    #[error("the passphrase cannot be read from {path}: {cause}")]
    PassphraseFile { path: PathBuf, cause: io::Error },
    #[error("the passphrase was not given: {0}")]
    Asking(io::Error),
    #[error(transparent)]
    PassphraseRefused(#[from] arcadia_crypto::PassphraseFault),
    #[error(
        "another command reads or changes the keys of {0} (a backup keeps them until it is done); try again later"
    )]
    KeysBusy(PathBuf),
    #[error(
        "{0} is missing or empty although the site has been founded; put it back, or restore a backup into another \
         directory with `arcadia restore`"
    )]
    StoreMissing(PathBuf),
}

impl SiteFault {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |cause| Self::File { path, cause }
    }
}

/// What says of a directory that it is a site's: one of these is there from the first moment on.
const OF_A_SITE: [&str; 4] = ["lock", "ring.json", "store.db", "site.json"];
/// What may be in a directory that is to become a site's: a start that ended early, or a file system of its own.
const OF_NO_MATTER: [&str; 3] = ["log", "env", "lost+found"];

/// Where everything of a site is kept. Only its owner can enter.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf, PassphraseSource);

impl DataDir {
    /// Names a directory without touching it.
    pub fn at(path: PathBuf) -> Self {
        Self(path, PassphraseSource::default())
    }

    /// Says where the passphrase is that the root key may be made of.
    pub fn unlocked_by(self, file: Option<PathBuf>) -> Self {
        Self(self.0, PassphraseSource::file(file))
    }

    pub fn passphrase(&self) -> &PassphraseSource {
        &self.1
    }

    /// Makes the directory where it does not exist, and closes it to others where it does: only one that is empty or a
    /// site's already, as others may go in and out of any other.
    pub fn prepare(&self) -> Result<(), SiteFault> {
        let path = &self.0;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
            match error.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                    SiteFault::NotADirectory(path.clone())
                }
                _ => SiteFault::file(path)(error),
            }
        })?;
        let found = fs::metadata(path).map_err(SiteFault::file(path))?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(SiteFault::NotOurs(path.clone()));
        }
        if !self.may_hold_a_site().map_err(SiteFault::file(path))? {
            return Err(SiteFault::NotASite(path.clone()));
        }
        if found.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(SiteFault::file(path))?;
        }
        for folder in [self.log_folder(), self.env_folder()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(SiteFault::file(&folder))?;
        }
        Ok(())
    }

    fn may_hold_a_site(&self) -> io::Result<bool> {
        // A file: also /var and /run have something that is called lock.
        let is_file = |name: &str| self.0.join(name).symlink_metadata().is_ok_and(|found| found.is_file());
        if OF_A_SITE.into_iter().any(is_file) {
            return Ok(true);
        }
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            if !OF_NO_MATTER.iter().any(|known| name == *known) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What a command that is shown needs to find this directory in any shell: ` --data DIR`, nothing for the default.
    pub fn option(&self) -> String {
        match crate::host::default_data_directory() {
            Ok(path) if path == self.0 => String::new(),
            _ => format!(" --data {}", crate::quote::sh(&self.0.display().to_string())),
        }
    }

    pub fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub fn record_file(&self) -> PathBuf {
        self.0.join("site.json")
    }

    pub fn credentials_file(&self) -> PathBuf {
        self.0.join("credentials.json")
    }

    pub fn running_file(&self) -> PathBuf {
        self.0.join("running.json")
    }

    pub fn trouble_file(&self) -> PathBuf {
        self.0.join("trouble.json")
    }

    pub fn root_key_file(&self) -> PathBuf {
        self.0.join("root.key")
    }

    pub fn ring_file(&self) -> PathBuf {
        self.0.join("ring.json")
    }

    pub fn ca_file(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    pub fn ca_key_file(&self) -> PathBuf {
        self.0.join("ca.key.pem")
    }

    pub fn proxy_socket(&self) -> PathBuf {
        self.0.join("proxy.sock")
    }

    /// The socket on which machines reach the databases' gateway.
    pub fn postgres_socket(&self) -> PathBuf {
        self.0.join("pg.sock")
    }

    /// The bytes of blobs.
    pub fn blobs_folder(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// A directory for each database server.
    pub fn postgres_folder(&self) -> PathBuf {
        self.0.join("postgres")
    }

    /// The store's own file, which it makes in the data directory itself.
    pub fn store_file(&self) -> PathBuf {
        self.0.join("store.db")
    }

    pub fn log_folder(&self) -> PathBuf {
        self.0.join("log")
    }

    pub fn log_file(&self) -> PathBuf {
        self.log_folder().join("site.log")
    }

    /// Files that shells point at: bundles of certificates.
    pub fn env_folder(&self) -> PathBuf {
        self.0.join("env")
    }
}

#[cfg(test)]
mod tests;
