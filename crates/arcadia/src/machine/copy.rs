//! A machine's folder in a backup: what it is made of, and the identity that it has.
//!
//! The machine runs meanwhile, and its users do in it what they like. So the way through it leads from one open folder to
//! the next and follows no link; and a backup is as large as the machine is on the disk, and can be unpacked by path.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::path::Arg;
use tar::{Builder, Header};

use super::removal::is_other;

/// Of one run of the machine only: its process, its log, its sockets and the challenges that are open.
const LEFT_OUT: [&str; 4] = ["run.json", "status", "holder.log", "var-opt-azcmagent/tokens"];
const LEVELS_MAX: usize = 64;
const PATH_BYTES_MAX: usize = 1024;
/// How much longer a machine's files together may be than what they take on the disk. A hole takes nothing there, nor does
/// another name of a file; in a backup both do.
const HOLES_BYTES_MAX: u64 = 64 * 1024 * 1024;
const SHOWN_CHARACTERS_MAX: usize = 100;

/// Adds all that lasts in a machine's folder, with its owners; what it is without is returned. Fails where this user may not
/// read it, and as "not found" where the machine is deleted meanwhile.
pub fn copy<W: Write>(folder: &Path, out: &mut Builder<W>) -> io::Result<Option<Omitted>> {
    let (top, found) = open(CWD, folder, OFlags::DIRECTORY)?;
    let mut copy = Copy { out, holes_left: HOLES_BYTES_MAX, seen: HashSet::new(), omitted: None };
    copy.add_folder(Dir::read_from(top)?, Path::new(""), 1)?;
    let now = folder.symlink_metadata()?;
    if (now.dev(), now.ino()) != (found.dev(), found.ino()) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(copy.omitted)
}

/// Files and folders of a machine that a backup is made without.
pub struct Omitted {
    first: PathBuf,
    others: u64,
}

impl fmt::Display for Omitted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Escaped: whoever made it has chosen what is in its name.
        let first: String =
            self.first.to_string_lossy().escape_debug().take(SHOWN_CHARACTERS_MAX + 1).collect();
        match first.char_indices().nth(SHOWN_CHARACTERS_MAX) {
            Some((end, _)) => write!(formatter, "{}...", &first[..end])?,
            None => formatter.write_str(&first)?,
        }
        if self.others > 0 {
            write!(formatter, " and {} more", self.others)?;
        }
        write!(
            formatter,
            " (more than {LEVELS_MAX} folders deep, a path of more than {PATH_BYTES_MAX} bytes, or far longer than what it \
             takes on the disk)"
        )
    }
}

struct Copy<'a, W: Write> {
    out: &'a mut Builder<W>,
    holes_left: u64,
    /// The files that are in it already, by whatever name.
    seen: HashSet<(u64, u64)>,
    omitted: Option<Omitted>,
}

impl<W: Write> Copy<'_, W> {
    fn add_folder(&mut self, mut folder: Dir, below: &Path, level: usize) -> io::Result<()> {
        while let Some(entry) = folder.read() {
            let entry = entry?;
            let name = entry.file_name();
            let kept = below.join(OsStr::from_bytes(name.to_bytes()));
            if !is_other(name) || LEFT_OUT.iter().any(|left_out| kept == Path::new(left_out)) {
                continue;
            }
            if level > LEVELS_MAX || kept.as_os_str().len() > PATH_BYTES_MAX {
                self.omit(kept);
                continue;
            }
            match self.add(&folder, name, kept, level) {
                Err(error) if is_another_by_now(&error) => {}
                added => added?,
            }
        }
        Ok(())
    }

    fn add(&mut self, folder: &Dir, name: &CStr, kept: PathBuf, level: usize) -> io::Result<()> {
        let at = folder.fd()?;
        let found = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let (inner, found) = open(at, name, OFlags::DIRECTORY)?;
                self.out.append_data(&mut header(&found), &kept, io::empty())?;
                self.add_folder(Dir::new(inner)?, &kept, level + 1)
            }
            FileType::Symlink => {
                let (link, found) = open(at, name, OFlags::PATH)?;
                let target = readlinkat(&link, c"", Vec::new())?;
                self.out.append_link(&mut header(&found), &kept, OsStr::from_bytes(target.to_bytes()))
            }
            FileType::RegularFile => {
                // A pipe may be in its place meanwhile.
                let (file, found) = open(at, name, OFlags::NONBLOCK)?;
                if found.is_file() { self.add_file(file, &found, kept) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn add_file(&mut self, file: File, found: &Metadata, kept: PathBuf) -> io::Result<()> {
        let bytes = found.size();
        let is_first = self.seen.insert((found.dev(), found.ino()));
        let taken = if is_first { found.blocks().saturating_mul(512) } else { 0 };
        let Some(holes_left) = self.holes_left.checked_sub(bytes.saturating_sub(taken)) else {
            self.omit(kept);
            return Ok(());
        };
        self.holes_left = holes_left;
        // Exactly as long as was said, whatever is written to it meanwhile.
        self.out.append_data(&mut header(found), kept, file.chain(io::repeat(0)).take(bytes))
    }

    fn omit(&mut self, kept: PathBuf) {
        match &mut self.omitted {
            Some(omitted) => omitted.others += 1,
            none => *none = Some(Omitted { first: kept, others: 0 }),
        }
    }
}

fn open(at: impl AsFd, name: impl Arg, flags: OFlags) -> io::Result<(File, Metadata)> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(at, name, flags, Mode::empty())?);
    let found = file.metadata()?;
    Ok((file, found))
}

fn header(found: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(found);
    header
}

/// The agent replaces files by new ones, and the machine's users whatever they have by something else.
fn is_another_by_now(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn copied(folder: &Path) -> (Vec<(String, u64)>, Option<String>) {
        let mut out = Builder::new(Vec::new());
        let omitted = copy(folder, &mut out).unwrap().map(|omitted| omitted.to_string());
        let bytes = out.into_inner().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), entry.size())
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        (entries, omitted)
    }

    #[test]
    fn what_lasts_is_copied_and_no_link_is_followed() {
        let outside = tempfile::TempDir::new().unwrap();
        let machine = outside.path().join("m");
        fs::create_dir_all(machine.join("var-opt-azcmagent/tokens")).unwrap();
        fs::write(machine.join("var-opt-azcmagent/tokens/x.key"), "open").unwrap();
        fs::write(machine.join("var-opt-azcmagent/identity"), "kept").unwrap();
        fs::write(machine.join("run.json"), "{}").unwrap();
        symlink(outside.path(), machine.join("link")).unwrap();
        rustix::fs::mkfifoat(CWD, machine.join("pipe"), Mode::RWXU).unwrap();
        let (entries, omitted) = copied(&machine);
        let expected = [("link", 0), ("var-opt-azcmagent", 0), ("var-opt-azcmagent/identity", 4)];
        assert_eq!(entries, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
        assert_eq!(omitted, None);
        let gone = copy(&outside.path().join("none"), &mut Builder::new(io::sink())).err().unwrap();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_no_path_leads_to_is_left_out_and_named() {
        for (name, levels, kept) in [("d".to_owned(), 70, LEVELS_MAX), ("\x1b".repeat(200), 30, 5)] {
            let machine = tempfile::TempDir::new().unwrap();
            fs::write(machine.path().join("kept"), "").unwrap();
            let mut at = File::open(machine.path()).unwrap();
            for _ in 0..levels {
                rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
                at = open(&at, &name, OFlags::DIRECTORY).unwrap().0;
            }
            let (entries, omitted) = copied(machine.path());
            assert_eq!(entries.len(), kept + 1);
            let told = omitted.unwrap();
            assert!(told.len() < 400 && !told.contains('\x1b') && !told.contains("more ("), "{told}");
            super::super::removal::remove_tree(machine.path()).unwrap();
        }
    }

    #[test]
    fn a_machine_is_not_larger_in_a_backup_than_on_the_disk() {
        let machine = tempfile::TempDir::new().unwrap();
        let made = |name: &str, bytes| {
            let file = File::create(machine.path().join(name)).unwrap();
            file.set_len(bytes).unwrap();
            file
        };
        made("huge", 1 << 40);
        made("small", 4096);
        made("written", 0).write_all(&vec![7; 40 << 20]).unwrap();
        for other in 0..9 {
            fs::hard_link(machine.path().join("written"), machine.path().join(format!("name{other}")))
                .unwrap();
        }
        let (entries, omitted) = copied(machine.path());
        let total: u64 = entries.iter().map(|(_, bytes)| bytes).sum();
        assert!(total <= HOLES_BYTES_MAX + (40 << 20), "{entries:?}");
        assert!(entries.contains(&("small".to_owned(), 4096)) || entries.len() == 3, "{entries:?}");
        assert!(omitted.unwrap().contains(" and 8 more ("));
    }
}
