//! One site per data directory: a file lock that ends with the process, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
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
    #[error("the lock file: {0}")]
    File(#[from] io::Error),
}

fn pid_text(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// Held by the process that runs the site.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock and writes this process's id into it.
    pub fn take(path: &Path) -> Result<Self, LockFault> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let begun = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if begun.elapsed() < GLANCE => std::thread::sleep(GLANCE / 10),
                Err(Errno::WOULDBLOCK) => return Err(LockFault::Held(read_pid(&mut file))),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        file.sync_all()?;
        Ok(Self { _file: file })
    }
}

/// The process that holds the lock; `None` when nobody does. The inner value is `None` for the moment between taking
/// the lock and writing the id.
pub fn holder(path: &Path) -> io::Result<Option<Option<i32>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(Some(read_pid(&mut file))),
        Err(error) => Err(error.into()),
    }
}

fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}
