//! Removing a folder whose depth others have chosen.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmod, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

/// Removes a folder with all that is in it; one that is gone already is no error.
///
/// What is in its folders moves up into it before they are removed: a path may be longer than the kernel takes, and a
/// descriptor for every level more than a process may have. Another command may be at it as well.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open(CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut tree = Tree { top, number: 0 };
    while !is_removed(CWD, path, AtFlags::REMOVEDIR)? {
        let is_less = match tree.remove_some() {
            // Of what is in it, something is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            done => done?,
        };
        if !is_less && !is_removed(CWD, path, AtFlags::REMOVEDIR)? {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
    }
    Ok(())
}

struct Tree {
    top: OwnedFd,
    /// The next name for what moves up.
    number: u64,
}

impl Tree {
    /// Removes what is in it now, but for what that holds. Whether there was anything.
    fn remove_some(&mut self) -> io::Result<bool> {
        let mut is_less = false;
        for entry in Dir::read_from(&self.top)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_other(name) {
                is_less |= is_gone(&self.top, name)? || self.empty(name)?;
            }
        }
        Ok(is_less)
    }

    fn empty(&mut self, name: &CStr) -> io::Result<bool> {
        let folder = match open(&self.top, name) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(true),
            opened => opened?,
        };
        let mut is_less = false;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_other(name) {
                if !is_gone(&folder, name)? {
                    self.move_up(&folder, name)?;
                }
                is_less = true;
            }
        }
        Ok(is_removed(&self.top, name, AtFlags::REMOVEDIR)? || is_less)
    }

    fn move_up(&mut self, from: &OwnedFd, name: &CStr) -> io::Result<()> {
        let mut is_opened = false;
        loop {
            let number = self.number.to_string();
            self.number += 1;
            match renameat(from, name, &self.top, number) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // The name is taken.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                // A folder moves only where it may be written to.
                Err(Errno::ACCESS) if !is_opened => {
                    open(from, name)?;
                    is_opened = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A folder, opened to its owner where it is not: nothing is removed from one that its permissions close.
fn open(at: impl AsFd, path: impl Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(at, path, flags | OFlags::PATH, Mode::empty())?;
    if !Mode::from_raw_mode(fstat(&found)?.st_mode).contains(Mode::RWXU) {
        // The only name of what a descriptor of this kind is of. Where it fails, so does what comes next.
        let _ = chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU);
    }
    openat(&found, c".", flags | OFlags::RDONLY, Mode::empty())
}

/// Not the folder itself and not the one above it.
pub fn is_other(name: &CStr) -> bool {
    name != c"." && name != c".."
}

/// Whether it is removed, or somebody else did so. Only a folder with something in it is not.
fn is_gone(at: &OwnedFd, name: &CStr) -> io::Result<bool> {
    match unlinkat(at, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => is_removed(at, name, AtFlags::REMOVEDIR),
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn is_removed(at: impl AsFd, path: impl Arg, flags: AtFlags) -> io::Result<bool> {
    match unlinkat(at, path, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::mkdirat;
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    #[test]
    fn a_folder_of_any_depth_is_removed_and_nothing_beside_it() {
        let outside = tempfile::TempDir::new().unwrap();
        let (kept, top) = (outside.path().join("kept"), outside.path().join("top"));
        fs::create_dir_all(kept.join("in it")).unwrap();
        fs::create_dir_all(top.join("0/0/1")).unwrap();
        fs::create_dir_all(top.join("2/0/0")).unwrap();
        fs::write(top.join("1"), "has the name of what moves up").unwrap();
        symlink(&kept, top.join("0/0/link")).unwrap();
        // Far longer than a path may be.
        let mut at = open(CWD, &top).unwrap();
        for depth in 0..2000 {
            mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = open(&at, "deeper").unwrap();
            if depth % 200 == 0 {
                mkdirat(&at, "0", Mode::RWXU).unwrap();
                mkdirat(&at, "0/1", Mode::RWXU).unwrap();
            }
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists() && kept.join("in it").is_dir());
        remove_tree(&top).unwrap();
        assert!(remove_tree(&symlink_to(&kept)).is_err() && kept.join("in it").is_dir());
    }

    #[test]
    fn what_its_permissions_close_is_removed_by_who_is_not_root() {
        let outside = tempfile::TempDir::new().unwrap();
        let closed = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let (kept, top) = (outside.path().join("kept"), outside.path().join("top"));
        fs::create_dir(&kept).unwrap();
        for mode in [0o000, 0o555, 0o300, 0o600] {
            let deep = format!("{mode:o}/{mode:o}/{mode:o}");
            fs::create_dir_all(top.join(&deep)).unwrap();
            fs::write(top.join(&deep).join("file"), "").unwrap();
            symlink(&kept, top.join(&deep).join("link")).unwrap();
            top.join(deep).ancestors().take(3).for_each(|path| closed(path, mode));
        }
        closed(&top, 0o500);
        closed(&kept, 0o500);
        // Of this thread alone.
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        set_capabilities(None, sets).unwrap();
        assert!(fs::read_dir(top.join("0")).is_err());
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        assert_eq!(fs::metadata(kept).unwrap().permissions().mode() & 0o777, 0o500, "no link is followed");
    }

    #[test]
    fn two_commands_remove_it_at_the_same_time() {
        let outside = tempfile::TempDir::new().unwrap();
        for round in 0..8 {
            let top = outside.path().join(round.to_string());
            for number in 0..20 {
                fs::create_dir_all(top.join(format!("{number}/a/b/c"))).unwrap();
                fs::write(top.join(format!("{number}/a/file")), "").unwrap();
            }
            let removed = std::thread::scope(|scope| {
                [(); 3].map(|()| scope.spawn(|| remove_tree(&top))).map(|each| each.join().unwrap())
            });
            assert!(removed.iter().all(Result::is_ok) && !top.exists(), "{removed:?}");
        }
    }

    fn symlink_to(path: &Path) -> std::path::PathBuf {
        let link = path.with_file_name("link");
        symlink(path, &link).unwrap();
        link
    }
}
