//! What a backup is on disk: a directory of files, a list of them, and a seal over the list.
//!
//! `manifest.json` names every file with its length and digest; `manifest.seal` is the manifest sealed under the
//! site's data keys, so that a backup opens with its own root key only and no file of it can be changed unseen.
//! Private keys and credentials are sealed in the same way; the store's rows are sealed already.
//!
//! The bytes of blobs are in `blobs/` as they are in a site, and not in the list, as there may be millions of them:
//! each is sealed under a key in its row, so that the rows say which there are and whether they are whole. Every
//! other directory of a site is one sealed archive.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcadia_crypto::{hex, sha256};
use arcadia_storage::CopiedBytes;
use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, FlockOperation, StatxAttributes, StatxFlags, flock, statx};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::SiteFault;
use crate::signals;

/// 2 has blobs, database servers and machines, which a restore by an older version would leave out.
pub const SCHEMA: u32 = 2;
pub const MANIFEST: &str = "manifest.json";
pub const MANIFEST_SEAL: &str = "manifest.seal";
pub const ROOT_KEY: &str = "root.key";
pub const STORE: &str = "store.db";
pub const BLOBS: &str = "blobs";
pub const SERVERS: &str = "postgres";
pub const MACHINES: &str = "machines";
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

/// What a file is sealed with, so that none stands for another.
pub fn additional_data(name: &str) -> Vec<u8> {
    [b"\0backup ".as_slice(), name.as_bytes()].concat()
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
    /// In `blobs/`.
    #[serde(default)]
    pub blobs: Blobs,
    #[serde(default)]
    pub database_servers: Vec<Archived>,
    #[serde(default)]
    pub machines: Vec<Archived>,
    /// What the site had beside these files.
    pub not_included: Vec<String>,
}

impl Manifest {
    pub fn archives(&self) -> impl Iterator<Item = &Archived> {
        self.database_servers.iter().chain(&self.machines)
    }

    /// What is wrong with a list of archives, in words: each is of the list's kind and the only one of its folder, and its
    /// file is one of those that are checked.
    pub fn check_archives(&self) -> Result<(), String> {
        for (kind, archives) in [(SERVERS, &self.database_servers), (MACHINES, &self.machines)] {
            let mut folders = BTreeSet::new();
            for archive in archives {
                let (folder, kept_as) = (&archive.folder, archive.kept_as());
                if !folder.starts_with(&format!("{kind}/")) {
                    return Err(format!("{folder} is listed in it as if it were in {kind}"));
                }
                if !folders.insert(folder) {
                    return Err(format!("{folder} is listed in it twice"));
                }
                if !self.files.iter().any(|file| file.name == kept_as) {
                    return Err(format!("{kept_as} is not among the files that it lists"));
                }
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn of_nothing(schema: u32) -> Self {
        Self {
            schema,
            made_by: String::new(),
            made_at: Timestamp::UNIX_EPOCH,
            tenant_id: Uuid::nil(),
            audit_records: 0,
            with_root_key: false,
            files: Vec::new(),
            blobs: Blobs::default(),
            database_servers: Vec::new(),
            machines: Vec::new(),
            not_included: Vec::new(),
        }
    }

    /// For people.
    pub fn contents(&self) -> String {
        let named = |what: &str, all: &[Archived]| {
            let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
            if names.is_empty() { String::new() } else { format!(", {what} {}", names.join(" ")) }
        };
        let (servers, machines) =
            (named("database servers", &self.database_servers), named("machines", &self.machines));
        format!(
            "{} audit records, {} blobs and blocks of {} bytes{servers}{machines}",
            self.audit_records, self.blobs.pieces, self.blobs.bytes
        )
    }
}

/// The bytes of blobs: whole ones and blocks, and their length before sealing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blobs {
    pub pieces: u64,
    pub bytes: u64,
}

impl From<CopiedBytes> for Blobs {
    fn from(copied: CopiedBytes) -> Self {
        Self { pieces: copied.pieces, bytes: copied.bytes }
    }
}

/// A directory of a site, kept as a sealed archive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Archived {
    /// What people call it.
    name: String,
    /// In the data directory, and nowhere else.
    folder: String,
}

/// An [`Archived`] as a manifest has it, whoever wrote that.
#[derive(Deserialize)]
struct Written {
    name: String,
    folder: String,
}

impl TryFrom<Written> for Archived {
    type Error = String;

    fn try_from(Written { name, folder }: Written) -> Result<Self, String> {
        let is_plain = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
                && !text.starts_with('.')
                && !text.is_empty()
        };
        let is_sound = |(kind, directory)| [SERVERS, MACHINES].contains(&kind) && is_plain(directory);
        if !folder.split_once('/').is_some_and(is_sound) {
            return Err(format!("{folder:?} is no folder of a database server or a machine"));
        }
        if !is_plain(&name) {
            return Err(format!("{name:?} is no name of a database server or a machine"));
        }
        Ok(Self { name, folder })
    }
}

impl Archived {
    pub fn new(kind: &str, name: impl Into<String>, directory: impl Display) -> Self {
        Self { name: name.into(), folder: format!("{kind}/{directory}") }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// In the data directory.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// In the backup.
    pub fn kept_as(&self) -> String {
        format!("{}.sealed", self.folder)
    }
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
        let (bytes, digest) = File::open(&path).and_then(digest).map_err(SiteFault::file(&path))?;
        Ok(Self { name: name.to_owned(), bytes, digest })
    }

    /// Whether these are the bytes of the file that it names.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        digest(bytes).is_ok_and(|found| found == (self.bytes, self.digest.clone()))
    }
}

fn digest(mut file: impl io::Read) -> io::Result<(u64, String)> {
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

/// What makes a directory a backup or a site, and so comes last, in this order: a store without its ring opens nothing.
const COMES_LAST: [&str; 4] = [STORE, "ring.json", "site.json", MANIFEST];
/// The system's own, in a file system of its own.
const OF_THE_SYSTEM: &str = "lost+found";

/// A directory that gets its name once it is whole, and is removed when it does not come to that. Where the name is that
/// of a file system of its own, or of a directory beside which nothing can be made, it is a folder in there whose contents
/// move up at the end.
pub struct Draft {
    path: PathBuf,
    target: PathBuf,
    in_target: bool,
    is_done: IsDone,
    /// Locked, so that it is not taken for one that a process left which was killed.
    held: File,
}

/// Held for as long as a draft gets its name or is removed, so that only one of these happens.
#[derive(Clone, Default)]
struct IsDone(Arc<Mutex<bool>>);

impl IsDone {
    fn held(&self) -> MutexGuard<'_, bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a draft that is still written to, until it is gone.
const REMOVALS_MAX: usize = 100;
const GLANCE: Duration = Duration::from_millis(20);

impl Draft {
    /// Makes an empty directory for `target`, which must be empty or not exist. Drafts of it that processes left which were
    /// killed are removed.
    pub fn of(target: &Path) -> Result<Self, SiteFault> {
        let target = real_path(target).map_err(SiteFault::file(target))?;
        let name = target.file_name().ok_or_else(|| SiteFault::NotEmpty(target.clone()))?;
        let (first, last) = (format!(".{}.", name.to_string_lossy()), ".new");
        let is_draft = |name: &OsString| {
            let name = name.to_string_lossy();
            let process = name.strip_prefix(&first).and_then(|rest| rest.strip_suffix(last));
            process.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let exists = match contents(&target) {
            // With anything else in there, it may be what was just moving up.
            Ok(found) if !found.iter().all(is_draft) => return Err(SiteFault::NotEmpty(target)),
            Ok(found) if !found.iter().all(|name| is_swept(&target.join(name))) => {
                return Err(SiteFault::NotEmpty(target));
            }
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(SiteFault::file(&target)(error)),
        };
        let others = target.parent().and_then(|above| contents(above).ok()).unwrap_or_default();
        for other in others.iter().filter(|name| is_draft(name)) {
            is_swept(&target.with_file_name(other));
        }
        let name = format!("{first}{}{last}", std::process::id());
        let (inside, beside) = (target.join(&name), target.with_file_name(&name));
        let create = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        let mut in_target = exists && is_mounted(&target).map_err(SiteFault::file(&target))?;
        if !in_target {
            match create(&beside) {
                Err(error) if exists && is_closed(&error) => in_target = true,
                made => {
                    made.map_err(SiteFault::file(&beside))?;
                    return Self::hold(beside, target, in_target);
                }
            }
        }
        create(&inside).map_err(SiteFault::file(&inside))?;
        Self::hold(inside, target, in_target)
    }

    fn hold(path: PathBuf, target: PathBuf, in_target: bool) -> Result<Self, SiteFault> {
        let folder = File::open(&path).map_err(SiteFault::file(&path))?;
        // Where a file system has no locks, nobody gets one to remove it with either.
        let _ = flock(&folder, FlockOperation::NonBlockingLockExclusive);
        Ok(Self { path, target, in_target, is_done: IsDone::default(), held: folder })
    }

    /// Has a signal that ends the process remove it as well: there may be keys in it that nothing seals. Once it has its
    /// name, a signal does not end the process, which has only to say so.
    pub fn remove_at_signals(&self) -> Result<(), SiteFault> {
        signals::before_the_end(self.removal()).map_err(SiteFault::file(&self.path))
    }

    /// Returns whether it is removed, and then keeps whoever works on it from going on.
    fn removal(&self) -> impl FnOnce() -> bool + Send + 'static {
        let (path, is_done) = (self.path.clone(), self.is_done.clone());
        move || {
            let is_done = is_done.held();
            if *is_done {
                return false;
            }
            // What is copied meanwhile makes new files in it, until the directory is gone.
            let is_gone = || match fs::remove_dir_all(&path) {
                Err(error) => error.kind() == io::ErrorKind::NotFound,
                Ok(()) => true,
            };
            for _ in 0..REMOVALS_MAX {
                if is_gone() {
                    break;
                }
                std::thread::sleep(GLANCE);
            }
            // Whoever worked on it waits here, and says nothing of files that are missing.
            std::mem::forget(is_done);
            true
        }
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

    /// A directory in it.
    pub fn folder(&self, name: &str) -> Result<PathBuf, SiteFault> {
        let path = self.path.join(name);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(SiteFault::file(&path))?;
        Ok(path)
    }

    /// Gives it its name. All that is in it is durable when this returns.
    pub fn finish(self) -> Result<(), SiteFault> {
        let synced = rustix::fs::syncfs(&self.held);
        synced.map_err(|error| SiteFault::file(&self.path)(error.into()))?;
        let mut is_done = self.is_done.held();
        let finish = || {
            if self.in_target {
                return self.move_up();
            }
            // An empty directory gives way; one that is not empty by now does not.
            fs::rename(&self.path, &self.target)?;
            File::open(self.target.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        *is_done = finish().map_err(SiteFault::file(&self.target)).map(|()| true)?;
        Ok(())
    }

    fn move_up(&self) -> io::Result<()> {
        if contents(&self.target)?.iter().any(|name| !self.path.ends_with(name)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let folder = File::open(&self.target)?;
        let is_open = folder.metadata()?.permissions().mode() & 0o077 != 0;
        match fs::set_permissions(&self.target, fs::Permissions::from_mode(0o700)) {
            // Another's, who lets this user write there. What matters in it is closed by itself.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            closed if is_open => closed?,
            _ => {}
        }
        let mut names = contents(&self.path)?;
        names.sort_by_key(|name| COMES_LAST.iter().position(|last| name == last));
        for name in names {
            fs::rename(self.path.join(&name), self.target.join(&name))?;
            folder.sync_all()?;
        }
        fs::remove_dir(&self.path)
    }
}

/// As a whole path, so that it has a name and a parent; that of what a link leads to, as a
/// directory cannot take the place of the link.
fn real_path(target: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && target.symlink_metadata().is_err() => {
            std::path::absolute(target)
        }
        found => found,
    }
}

/// Whether what is made as `target` is in `folder`.
pub fn is_inside(target: &Path, folder: &Path) -> io::Result<bool> {
    let (target, folder) = (real_path(target)?, fs::canonicalize(folder)?);
    // Of what does not exist yet, the first above it that does.
    let existing = target.ancestors().find_map(|above| fs::canonicalize(above).ok());
    Ok(existing.is_some_and(|existing| existing.starts_with(folder)))
}

/// Whether a draft is gone that nobody holds: this user's, and a directory.
fn is_swept(path: &Path) -> bool {
    let own = |found: fs::Metadata| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if !path.symlink_metadata().is_ok_and(own) {
        return false;
    }
    let Ok(folder) = File::open(path) else { return false };
    flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() && fs::remove_dir_all(path).is_ok()
}

/// Whether the directory is a file system of its own, whose name nothing else can take.
fn is_mounted(directory: &Path) -> io::Result<bool> {
    let above = directory.parent().unwrap_or(directory);
    let is_other = fs::metadata(directory)?.dev() != fs::metadata(above)?.dev();
    // A part of the same file system may be mounted there, which only newer kernels than 5.8 tell.
    let told = statx(CWD, directory, AtFlags::empty(), StatxFlags::empty());
    let is_root = told.is_ok_and(|told| told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    Ok(is_other || is_root || directory.join(OF_THE_SYSTEM).exists())
}

/// Whether nothing can be made in a directory by this user, or by anybody.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The names in a directory.
fn contents(folder: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    names.filter(|name| name.as_ref().map_or(true, |name| name != OF_THE_SYSTEM)).collect()
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !*self.is_done.held() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use rustix::fs::inotify;

    use super::*;

    #[test]
    fn a_directory_that_exists_is_filled_and_not_replaced() {
        let folder = tempfile::TempDir::new().unwrap();
        let target = folder.path().join("mounted");
        fs::create_dir_all(target.join(OF_THE_SYSTEM)).unwrap();
        let before = fs::metadata(&target).unwrap().ino();
        drop(Draft::of(&target).unwrap());
        assert!(contents(&target).unwrap().is_empty(), "what is not finished leaves nothing");
        let draft = Draft::of(&target).unwrap();
        assert!(matches!(Draft::of(&target), Err(SiteFault::NotEmpty(_))), "one at a time");
        for name in COMES_LAST.iter().rev() {
            draft.write(name, b"x", 0o600).unwrap();
        }
        draft.folder("zoo").unwrap();
        let seen = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&seen, &target, inotify::WatchFlags::MOVED_TO).unwrap();
        draft.finish().unwrap();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&seen, &mut buffer);
        let came = std::iter::from_fn(|| Some(events.next().ok()?.file_name()?.to_str().unwrap().to_owned()));
        let came: Vec<String> = came.collect();
        assert_eq!(came, [&["zoo"], &COMES_LAST[..]].concat(), "what makes it a site or a backup last");
        let found = fs::metadata(&target).unwrap();
        assert_eq!((found.ino(), found.mode() & 0o777), (before, 0o700));

        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join(OF_THE_SYSTEM)).unwrap();
        let draft = Draft::of(&taken).unwrap();
        draft.write(STORE, b"new", 0o600).unwrap();
        fs::write(taken.join("other"), "of somebody who came meanwhile").unwrap();
        assert!(draft.finish().is_err());
        assert_eq!(contents(&taken).unwrap(), ["other"], "nothing is put beside it");

        for (name, stays) in [(".other.1.new", false), (".other.2.new", true), (".other.x.new", true)] {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("root.key"), "left by one that was killed").unwrap();
            let held = File::open(folder.path().join(".other.2.new"));
            held.iter().for_each(|held| flock(held, FlockOperation::NonBlockingLockExclusive).unwrap());
            drop(Draft::of(&folder.path().join("other")).unwrap());
            assert_eq!(path.exists(), stays, "{name}");
        }
        fs::create_dir(folder.path().join("other")).unwrap();
        let draft = Draft::of(&folder.path().join("other")).unwrap();
        draft.write(STORE, b"new", 0o600).unwrap();
        fs::write(folder.path().join("other").join(STORE), "old").unwrap();
        assert!(draft.finish().is_err());
        assert_eq!(fs::read(folder.path().join("other").join(STORE)).unwrap(), b"old", "nothing is replaced");
    }

    #[test]
    fn a_signal_removes_what_is_not_finished_and_nothing_else() {
        let folder = tempfile::TempDir::new().unwrap();
        let target = folder.path().join("backup");
        let draft = Draft::of(&target).unwrap();
        draft.write(STORE, b"x", 0o600).unwrap();
        let (late, is_done) = (draft.removal(), draft.is_done.clone());
        draft.finish().unwrap();
        assert!(!late(), "it is whole, and the process has to say so");
        assert!(is_done.0.try_lock().is_ok(), "which nothing keeps it from");
        assert_eq!(contents(&target).unwrap(), [STORE]);

        let draft = Draft::of(&folder.path().join("other")).unwrap();
        assert!(draft.removal()());
        assert!(!draft.path().exists() && draft.is_done.0.try_lock().is_err());
        // It would wait for the end of the process.
        std::mem::forget(draft);
    }
}
