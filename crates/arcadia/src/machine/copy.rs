//! A machine's folder in a backup: what it is made of, and the identity that it has.
//!
//! The machine runs meanwhile, and its users do in it what they like. So the way through it leads from one open folder to
//! the next and follows no link; and a backup is as large as the machine is on the disk, and can be unpacked by path.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, openat, readlinkat, seek, statat};
use rustix::io::Errno;
use rustix::path::Arg;
use tar::{Builder, Header};

use super::removal::is_other;

/// Of one run of the machine only: its process, its log, its sockets and the challenges that are open.
const LEFT_OUT: [&str; 4] = ["run.json", "status", "holder.log", "var-opt-azcmagent/tokens"];
const LEVELS_MAX: usize = 64;
const PATH_BYTES_MAX: usize = 1024;
/// Of a folder and those that it is in, as they are known at the same time.
const NAMES_MAX: usize = 250_000;
/// How much longer a machine's files together may be than what they take on the disk. A hole takes nothing there, nor does
/// another name of a file; in a backup both do.
const HOLES_BYTES_MAX: u64 = 64 * 1024 * 1024;
const SHOWN_CHARACTERS_MAX: usize = 100;

/// Adds all that lasts in a machine's folder, with its owners; what it is without is returned. Fails where this user may not
/// read it, and as "not found" where the machine is deleted meanwhile.
pub fn copy<W: Write>(folder: &Path, out: &mut Builder<W>) -> io::Result<Option<Omitted>> {
    let (top, found) = open(CWD, folder, OFlags::DIRECTORY)?;
    let mut copy = Copy { out, holes_left: HOLES_BYTES_MAX, seen: HashSet::new(), omitted: None };
    copy.add_folder(Dir::new(top)?, Path::new(""), Room { levels: LEVELS_MAX, names: NAMES_MAX })?;
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
            " (more than {LEVELS_MAX} folders deep, a path of more than {PATH_BYTES_MAX} bytes, more than {NAMES_MAX} names \
             in a folder, or far longer than what it takes on the disk)"
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

/// How much more there may be in a folder.
#[derive(Clone, Copy)]
struct Room {
    levels: usize,
    names: usize,
}

impl<W: Write> Copy<'_, W> {
    fn add_folder(&mut self, mut folder: Dir, below: &Path, room: Room) -> io::Result<()> {
        let names = self.names(&mut folder, below, room)?;
        let room =
            Room { levels: room.levels.saturating_sub(1), names: room.names.saturating_sub(names.len()) };
        for name in names {
            match self.add(&folder, &name, path(below, &name), room) {
                Err(error) if is_another_by_now(&error) => {}
                added => added?,
            }
        }
        Ok(())
    }

    /// What is in a folder, each name once: one that is read while files are replaced in it may tell of them twice, and
    /// nothing unpacks that.
    fn names(&mut self, folder: &mut Dir, below: &Path, room: Room) -> io::Result<BTreeSet<CString>> {
        let mut names = BTreeSet::new();
        while let Some(entry) = folder.read() {
            let entry = entry?;
            let (name, kept) = (entry.file_name(), path(below, entry.file_name()));
            if !is_other(name) || LEFT_OUT.iter().any(|left_out| kept == Path::new(left_out)) {
                continue;
            }
            if room.levels == 0 || names.len() >= room.names || kept.as_os_str().len() > PATH_BYTES_MAX {
                self.omit(kept);
            } else {
                names.insert(name.to_owned());
            }
        }
        Ok(names)
    }

    fn add(&mut self, folder: &Dir, name: &CStr, kept: PathBuf, room: Room) -> io::Result<()> {
        let at = folder.fd()?;
        let found = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let (inner, found) = open(at, name, OFlags::DIRECTORY)?;
                self.out.append_data(&mut header(&found), &kept, io::empty())?;
                self.add_folder(Dir::new(inner)?, &kept, room)
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
        let not_taken = bytes.saturating_sub(found.blocks().saturating_mul(512));
        let holes = if is_first { holes(&file, bytes, not_taken, self.holes_left)? } else { bytes };
        let Some(holes_left) = self.holes_left.checked_sub(holes) else {
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

fn path(below: &Path, name: &CStr) -> PathBuf {
    below.join(OsStr::from_bytes(name.to_bytes()))
}

/// How many of a file's bytes are holes, of which it has no more than it does not take on the disk. More than `most` are
/// not counted.
///
/// What it does not take need not be holes: a file system may compress. And what is told as one need not be, as it was
/// allocated and only not written to yet.
fn holes(file: &File, bytes: u64, not_taken: u64, most: u64) -> io::Result<u64> {
    let (mut holes, mut at) = (0, 0);
    while at < bytes && holes <= most && not_taken > 0 {
        let data = match seek(file, SeekFrom::Data(at)) {
            // This file system does not tell.
            Err(Errno::INVAL) => break,
            // From there on it is one hole.
            Err(Errno::NXIO) => bytes,
            data => data?.min(bytes),
        };
        holes += data.saturating_sub(at);
        at = match seek(file, SeekFrom::Hole(data)) {
            Err(Errno::NXIO | Errno::INVAL) => bytes,
            hole => hole?.max(data + 1),
        };
    }
    seek(file, SeekFrom::Start(0))?;
    Ok(holes.min(not_taken))
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

    #[test]
    fn what_is_compressed_or_not_written_to_yet_is_no_hole() {
        const BYTES: u64 = 80 << 20;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; BYTES as usize]).unwrap();
        assert_eq!(holes(&file, BYTES, BYTES - 512, HOLES_BYTES_MAX).unwrap(), 0, "it takes a block only");
        file.set_len(BYTES + (1 << 20)).unwrap();
        let found = |most| holes(&file, BYTES + (1 << 20), BYTES, most).unwrap();
        assert_eq!((found(HOLES_BYTES_MAX), found(0)), (1 << 20, 1 << 20));
        assert_eq!(io::Seek::stream_position(&mut file).unwrap(), 0);
        let allocated = tempfile::tempfile().unwrap();
        rustix::fs::fallocate(&allocated, rustix::fs::FallocateFlags::empty(), 0, BYTES).unwrap();
        assert_eq!(holes(&allocated, BYTES, 0, HOLES_BYTES_MAX).unwrap(), 0);
    }

    /// Replaces every file of a folder now and then while something is copied.
    struct Replacing<'a> {
        folder: &'a Path,
        writes: usize,
        out: Vec<u8>,
    }

    impl Write for Replacing<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            for number in (0..FILES).filter(|_| self.writes.is_multiple_of(100)) {
                let file = self.folder.join(format!("file{number}"));
                fs::remove_file(&file)?;
                fs::write(file, "")?;
            }
            self.out.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const FILES: usize = 1000;

    #[test]
    fn a_file_that_is_replaced_meanwhile_is_copied_once() {
        // A file system that tells of them in the order in which they were made.
        let machine = tempfile::TempDir::new_in("/dev/shm").unwrap();
        for number in 0..FILES {
            fs::write(machine.path().join(format!("file{number}")), "").unwrap();
        }
        let mut out = Builder::new(Replacing { folder: machine.path(), writes: 0, out: Vec::new() });
        assert!(copy(machine.path(), &mut out).unwrap().is_none());
        let bytes = out.into_inner().unwrap().out;
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
        let names: Vec<PathBuf> = names.collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert_eq!(names.len(), FILES);
    }

    #[test]
    fn a_folder_of_more_names_than_are_known_at_a_time_is_copied_in_part() {
        let machine = tempfile::TempDir::new().unwrap();
        fs::create_dir(machine.path().join("d")).unwrap();
        for number in 0..6 {
            fs::write(machine.path().join(format!("d/{number}")), "").unwrap();
        }
        let mut out = Builder::new(Vec::new());
        let mut copy = Copy { out: &mut out, holes_left: 0, seen: HashSet::new(), omitted: None };
        let (top, _) = open(CWD, machine.path(), OFlags::DIRECTORY).unwrap();
        copy.add_folder(Dir::new(top).unwrap(), Path::new(""), Room { levels: 9, names: 5 }).unwrap();
        let told = copy.omitted.unwrap().to_string();
        assert!(told.starts_with("d/") && told.contains(" and 1 more ("), "{told}");
        let bytes = out.into_inner().unwrap();
        assert_eq!(tar::Archive::new(bytes.as_slice()).entries().unwrap().count(), 5);
    }
}
