//! A machine's view of the file system, made inside its mount namespace.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};

use super::environment;
use super::isolation::Isolation;
use super::record::Folder;
use super::sudo;

/// Cuts the namespace off from the host's: the host's later mounts are seen here, none of ours there.
pub fn separate() -> Result<()> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).context("cannot separate the machine's mounts from the host's")
}

/// Puts the process list of the machine at /proc. False when the kernel does not give one.
pub fn process_list() -> Result<bool> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("proc", "/proc", "proc", flags, None::<&std::ffi::CStr>) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => Ok(false),
        Err(error) => Err(error).context("cannot mount the machine's process list"),
    }
}

/// Puts the machine's own files and folders in their places.
pub fn furnish(folder: &Folder, isolation: Isolation, program: &Path) -> Result<()> {
    for (own, place) in [(folder.var(), "/var/opt/azcmagent"), (folder.opt(), "/opt/azcmagent")] {
        place_folder(&own, Path::new(place))?;
    }
    bind(program, &Path::new(environment::BIN).join("arcadia"))?;
    for (own, place) in
        [(folder.hosts(), "/etc/hosts"), (folder.passwd(), "/etc/passwd"), (folder.group(), "/etc/group")]
    {
        place_file(&own, Path::new(place))?;
    }
    if isolation == Isolation::Root && Path::new("/etc/sudoers.d").is_dir() {
        place_file(&folder.sudoers(), Path::new(sudo::RULE))?;
    }
    // A name service cache of the host would answer with the host's users.
    for cache in ["/run/nscd", "/run/systemd/userdb"] {
        if Path::new(cache).is_dir() {
            empty(Path::new(cache))?;
        }
    }
    Ok(())
}

fn place_folder(own: &Path, place: &Path) -> Result<()> {
    if !place.is_dir() {
        make_room(place)?;
        fs::create_dir(place).with_context(|| format!("cannot make {}", place.display()))?;
    }
    bind(own, place)
}

fn place_file(own: &Path, place: &Path) -> Result<()> {
    if !place.is_file() {
        make_room(place)?;
        File::create(place).with_context(|| format!("cannot make {}", place.display()))?;
    }
    bind(own, place)
}

/// Makes the folder that shall hold `place` one that may be written without the host's changing: an empty file
/// system in memory in which everything that was there is bound again.
fn make_room(place: &Path) -> Result<()> {
    let Some(parent) = place.parent() else { bail!("{} has no folder", place.display()) };
    if !parent.is_dir() {
        make_room(parent)?;
        return fs::create_dir(parent).with_context(|| format!("cannot make {}", parent.display()));
    }
    if parent == Path::new("/") {
        bail!(
            "{} does not exist on this host; make it once as root: mkdir {}",
            place.display(),
            place.display()
        );
    }
    let parent = fs::canonicalize(parent)?;
    let before: Vec<(OsString, fs::FileType)> = fs::read_dir(&parent)?
        .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?))))
        .collect::<io::Result<_>>()?;
    let old = File::open(&parent)?;
    empty(&parent)?;
    for (name, kind) in before {
        // Through the open folder the old content can still be reached below the new file system.
        let source =
            PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&old))).join(&name);
        let target = parent.join(&name);
        let bound = rebind(&source, &target, kind);
        bound.with_context(|| format!("cannot keep {} in its place", target.display()))?;
    }
    Ok(())
}

fn rebind(source: &Path, target: &Path, kind: fs::FileType) -> Result<()> {
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(source)?, target)?;
        return Ok(());
    }
    if kind.is_dir() {
        fs::create_dir(target)?;
    } else {
        File::create(target)?;
    }
    Ok(mount_bind_recursive(source, target)?)
}

fn empty(place: &Path) -> Result<()> {
    let options = c"mode=0755,size=64m";
    mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options))
        .with_context(|| format!("cannot mount a file system in memory at {}", place.display()))
}

fn bind(own: &Path, place: &Path) -> Result<()> {
    // Recursive, because the kernel does not let a user namespace bind a folder apart from what is mounted in it.
    mount_bind_recursive(own, place)
        .with_context(|| format!("cannot put {} at {}", own.display(), place.display()))
}
