//! One site per data directory: a file lock that ends with the process, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// [`holder`] holds the lock itself for a moment; taking it waits for longer than that.
const GLANCE: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum LockFault {
    #[error("another site is running on this data directory{}", pid_text(*.0))]
    Held(Option<i32>),
    #[error("the data directory is being copied by `arcadia backup`{}; try again when that is done", pid_text(*.0))]
    Copied(Option<i32>),
    #[error("the lock file: {0}")]
    File(#[from] io::Error),
}

fn pid_text(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// What the lock's file says before the process's id where no site holds it.
const COPYING: &str = "backup ";

/// Held by the process that runs the site, or by one that keeps it from running.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock for a site, and writes this process's id into it.
    pub fn take(path: &Path) -> Result<Self, LockFault> {
        Self::take_as(open(path)?, "")
    }

    /// Takes the lock so that no site starts meanwhile. To whoever asks for the [`holder`], no site runs.
    pub fn take_for_copying(path: &Path) -> Result<Self, LockFault> {
        match open(path) {
            // Nor can a site write to it, which is kept away all the same where it comes to it another way.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                let mut file = File::open(path)?;
                wait(&mut file, FlockOperation::NonBlockingLockShared)?;
                Ok(Self { _file: file })
            }
            opened => Self::take_as(opened?, COPYING),
        }
    }

    fn take_as(mut file: File, what: &str) -> Result<Self, LockFault> {
        wait(&mut file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{what}{}", std::process::id())?;
        file.sync_all()?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn wait(file: &mut File, how: FlockOperation) -> Result<(), LockFault> {
    let begun = Instant::now();
    loop {
        match flock(&*file, how) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < GLANCE => std::thread::sleep(GLANCE / 10),
            Err(Errno::WOULDBLOCK) => return Err(LockFault::of(file)),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

impl LockFault {
    fn of(held: &mut File) -> Self {
        let text = read_text(held).unwrap_or_default();
        match text.strip_prefix(COPYING) {
            Some(pid) => Self::Copied(pid_of(pid)),
            None => Self::Held(pid_of(&text)),
        }
    }

    /// What goes on after the message: commands about this very site, which the option `here` selects.
    pub fn next_commands(&self, here: &str) -> String {
        match self {
            Self::Held(_) => format!("; `arcadia status{here}` shows it, `arcadia down{here}` stops it"),
            Self::Copied(_) | Self::File(_) => String::new(),
        }
    }
}

/// The site's process, which holds the lock; `None` when no site does. The inner value is `None` for the moment between
/// taking the lock and writing the id.
pub fn holder(path: &Path) -> io::Result<Option<Option<i32>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => match LockFault::of(&mut file) {
            LockFault::Held(pid) => Ok(Some(pid)),
            _ => Ok(None),
        },
        Err(error) => Err(error.into()),
    }
}

/// Whether the process has the file open. One with more rights than this one does not show: then nothing speaks against
/// it.
pub fn has_open(pid: i32, path: &Path) -> io::Result<bool> {
    let wanted = fs::metadata(path)?;
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Ok(true) };
    let mut found = open.flatten().filter_map(|entry| fs::metadata(entry.path()).ok());
    Ok(found.any(|file| (file.dev(), file.ino()) == (wanted.dev(), wanted.ino())))
}

fn read_text(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    Some(text)
}

fn pid_of(text: &str) -> Option<i32> {
    text.trim().parse().ok().filter(|pid| *pid > 0)
}
