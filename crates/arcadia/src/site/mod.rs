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

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub use archive::{ArchiveReader, ArchiveWriter};
pub use credentials::Credentials;
pub use files::{read_bounded, write_atomic};
pub use keys::{
    KeyPlace, KeysLock, SiteKeys, authority_notice, load_or_create_authority, load_ring,
    new_root_of_passphrase, open_keys, open_or_create_keys, root_in_file, save_ring, settle,
};
pub use lock::{Lock, LockFault, has_open, holder};
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
    #[error("there is no site in {path}; make one with `arcadia up{option}`")]
    NoSite { path: PathBuf, option: String },
    #[error("the first start of the site in {path} came to no end; take it up with `arcadia up{option}`")]
    Unfinished { path: PathBuf, option: String },
    #[error(
        "{0} is missing although the site has been founded, and no other file says what it is called; put it back from a \
         backup, or name another directory with --data"
    )]
    RecordMissing(PathBuf),
    #[error(
        "{path} belongs to another user; run this as its owner (`sudo -u {owner} arcadia ...`), or name another directory \
         with --data"
    )]
    NotOurs { path: PathBuf, owner: String },
    #[error(
        "others may write to {0}, and so put into it what they like: look through it and run `chmod go-w {quoted}`, or name \
         another directory with --data", quoted = crate::quote::sh(&.0.display().to_string())
    )]
    Writable(PathBuf),
    #[error(
        "{0:?} is not text in UTF-8, as the path of a data directory must be; name another one with --data"
    )]
    PathNotText(PathBuf),
    #[error(
        "{0} is too long a path for a data directory, which has sockets in it: {PATH_BYTES_MAX} bytes are the most; name \
         another one with --data"
    )]
    PathTooLong(PathBuf),
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

/// Of its path: that of a socket has 107 at most, and this is the longest of those in a data directory.
const PATH_BYTES_MAX: usize = 107 - "/proxy.sock".len();

/// Where everything of a site is kept. Only its owner can enter.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    passphrase: PassphraseSource,
    /// Of a site that runs: the directory itself, whatever it is called meanwhile.
    held: Arc<OnceLock<File>>,
}

impl DataDir {
    /// Names a directory, which need not exist. One of another user is refused, to root too: its owner says what lies in
    /// it, links and pipes as well, and what runs in its machines; and could not read what another leaves there. So is one
    /// that others may write to, unless nothing is in it yet.
    pub fn ours(path: PathBuf) -> Result<Self, SiteFault> {
        use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        let fault = SiteFault::file(&path);
        match fs::metadata(&path) {
            Ok(found) => {
                check_owner(&path, &found)?;
                check_writers(&path, &found)?;
            }
            Err(error) if [NotFound, NotADirectory].contains(&error.kind()) => {}
            Err(error) => return Err(fault(error)),
        }
        match fs::read_dir(&path) {
            // Told once, with its path.
            Err(error) if error.kind() == PermissionDenied => Err(fault(error)),
            _ => Ok(Self { path, passphrase: PassphraseSource::default(), held: Arc::default() }),
        }
    }

    /// A test's own.
    #[cfg(test)]
    pub fn at(path: PathBuf) -> Self {
        Self { path, passphrase: PassphraseSource::default(), held: Arc::default() }
    }

    /// Says where the passphrase is that the root key may be made of.
    pub fn unlocked_by(self, file: Option<PathBuf>) -> Self {
        Self { passphrase: PassphraseSource::file(file), ..self }
    }

    pub fn passphrase(&self) -> &PassphraseSource {
        &self.passphrase
    }

    /// Whether a site can be in a directory of this name.
    pub fn check_path(&self) -> Result<(), SiteFault> {
        match self.path.to_str() {
            None => Err(SiteFault::PathNotText(self.path.clone())),
            Some(text) if text.len() > PATH_BYTES_MAX => Err(SiteFault::PathTooLong(self.path.clone())),
            Some(_) => Ok(()),
        }
    }

    /// Makes the directory where it does not exist, and closes it to others where it does: only one that is empty or a
    /// site's already, as others may go in and out of any other.
    pub fn prepare(&self) -> Result<(), SiteFault> {
        self.check_path()?;
        let path = &self.path;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
            match error.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                    SiteFault::NotADirectory(path.clone())
                }
                _ => SiteFault::file(path)(error),
            }
        })?;
        let folder = File::open(path).map_err(SiteFault::file(path))?;
        let found = folder.metadata().map_err(SiteFault::file(path))?;
        // Another user may have made it in the meantime.
        check_owner(path, &found)?;
        check_writers(path, &found)?;
        if !self.may_hold_a_site().map_err(SiteFault::file(path))? {
            return Err(SiteFault::NotASite(path.clone()));
        }
        if found.permissions().mode() & 0o077 != 0 {
            folder.set_permissions(fs::Permissions::from_mode(0o700)).map_err(SiteFault::file(path))?;
            // Somebody may have put something into it until now.
            check_writers(path, &found)?;
        }
        for inner in [self.log_folder(), self.env_folder()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&inner)
                .map_err(SiteFault::file(&inner))?;
        }
        // Prepared once more, it is the one that it was.
        let _ = self.held.set(folder);
        Ok(())
    }

    /// The directory itself: of a site that runs also after it was given another name.
    fn folder(&self) -> io::Result<File> {
        self.held.get().map_or_else(|| File::open(&self.path), File::try_clone)
    }

    fn may_hold_a_site(&self) -> io::Result<bool> {
        // A file: also /var and /run have something that is called lock.
        let is_file = |name: &str| self.path.join(name).symlink_metadata().is_ok_and(|found| found.is_file());
        if OF_A_SITE.into_iter().any(is_file) {
            return Ok(true);
        }
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if !OF_NO_MATTER.iter().any(|known| name == *known) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a site that was founded does not start again without, and is not there.
    pub fn missing(&self) -> Vec<PathBuf> {
        if matches!(SiteRecord::load(self), Ok(None)) {
            return Vec::new();
        }
        let mut needed = vec![self.record_file(), self.ring_file(), self.store_file(), self.blobs_folder()];
        // A first start that came to no end makes both.
        if self.ca_file().exists() || self.ca_key_file().exists() {
            needed.extend([self.ca_file(), self.ca_key_file()]);
        }
        let ring = RingFile::load(&self.ring_file());
        if ring.is_ok_and(|ring| ring.is_some_and(|ring| ring.passphrase_costs().next().is_none())) {
            needed.push(self.root_key_file());
        }
        needed.retain(|path| !path.exists());
        needed
    }

    /// What a command that is shown needs to find this directory in any shell: ` --data DIR`, nothing for the default.
    pub fn option(&self) -> String {
        match crate::host::default_data_directory() {
            Ok(path) if path == self.path => String::new(),
            _ => format!(" --data {}", crate::quote::sh(&self.path.display().to_string())),
        }
    }

    pub fn lock_file(&self) -> PathBuf {
        self.path.join("lock")
    }

    pub fn record_file(&self) -> PathBuf {
        self.path.join("site.json")
    }

    pub fn credentials_file(&self) -> PathBuf {
        self.path.join("credentials.json")
    }

    pub fn running_file(&self) -> PathBuf {
        self.path.join("running.json")
    }

    pub fn trouble_file(&self) -> PathBuf {
        self.path.join(trouble::NAME)
    }

    fn keys_lock_file(&self) -> PathBuf {
        self.path.join("keys.lock")
    }

    pub fn root_key_file(&self) -> PathBuf {
        self.path.join("root.key")
    }

    pub fn ring_file(&self) -> PathBuf {
        self.path.join("ring.json")
    }

    pub fn ca_file(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    pub fn ca_key_file(&self) -> PathBuf {
        self.path.join("ca.key.pem")
    }

    pub fn proxy_socket(&self) -> PathBuf {
        self.path.join("proxy.sock")
    }

    /// The socket on which machines reach the databases' gateway.
    pub fn postgres_socket(&self) -> PathBuf {
        self.path.join("pg.sock")
    }

    /// The bytes of blobs.
    pub fn blobs_folder(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// A directory for each database server.
    pub fn postgres_folder(&self) -> PathBuf {
        self.path.join("postgres")
    }

    /// The store's own file, which it makes in the data directory itself.
    pub fn store_file(&self) -> PathBuf {
        self.path.join("store.db")
    }

    pub fn log_folder(&self) -> PathBuf {
        self.path.join("log")
    }

    pub fn log_file(&self) -> PathBuf {
        self.log_folder().join("site.log")
    }

    /// Files that shells point at: bundles of certificates.
    pub fn env_folder(&self) -> PathBuf {
        self.path.join("env")
    }
}

fn check_owner(path: &Path, found: &fs::Metadata) -> Result<(), SiteFault> {
    let owner = found.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(SiteFault::NotOurs { path: path.to_owned(), owner: crate::host::user(owner) })
}

fn check_writers(path: &Path, found: &fs::Metadata) -> Result<(), SiteFault> {
    if !found.is_dir() || found.mode() & 0o022 == 0 {
        return Ok(());
    }
    match fs::read_dir(path).map_err(SiteFault::file(path))?.next() {
        None => Ok(()),
        Some(_) => Err(SiteFault::Writable(path.to_owned())),
    }
}

#[cfg(test)]
mod tests;
