//! Where the site's log goes: standard error, or a file of bounded size once it runs in the background.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::host::variable;

/// A log file of this size makes room for a new one; one old file is kept.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The destination of the log, which can change while the site runs.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Option<LogFile>>>);

struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// Starts logging to standard error at `level`, or as `$ARCADIA_LOG` says (`debug`, `arcadia_arm=trace,info`).
pub fn start(level: &str) -> anyhow::Result<Log> {
    let directives = variable("ARCADIA_LOG").unwrap_or_else(|| level.to_owned());
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| anyhow::anyhow!("ARCADIA_LOG: `{directives}` is not a log filter: {error}"))?;
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(log.clone())
        .init();
    Ok(log)
}

impl Log {
    /// Sends the log, and whatever else is written to standard error, to a file from now on.
    pub fn move_to(&self, path: PathBuf) -> io::Result<()> {
        let file = LogFile::open(path)?;
        rustix::stdio::dup2_stderr(&file.file)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    /// Returns whether a new file was begun.
    fn write_line(&mut self, line: &[u8]) -> io::Result<bool> {
        let full = self.bytes + line.len() as u64 > LOG_BYTES_MAX;
        if full {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            *self = Self::open(self.path.clone())?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(full)
    }
}

/// One event's writer.
pub struct Line(Log);

impl Line {
    fn put(&self, line: &[u8]) -> io::Result<()> {
        match self.0.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(file) => {
                if file.write_line(line)? {
                    rustix::stdio::dup2_stderr(&file.file)?;
                }
                Ok(())
            }
            None => io::stderr().write_all(line),
        }
    }
}

impl Write for Line {
    /// A line that cannot be written is lost, and nothing else. Were it an error, it would be told on standard error,
    /// which is the same full disk, and that panics: the thread that logs why a commit failed would end with it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_lines_and_nobody_down() {
        let log = Log::default();
        let file = LogFile::open("/dev/full".into()).unwrap();
        *log.0.lock().unwrap() = Some(file);
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
        tracing::subscriber::with_default(subscriber, || tracing::error!("no space"));
        assert!(Line(log).write_all(b"no space either\n").is_ok());
    }

    #[test]
    fn a_full_log_makes_room() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("site.log");
        File::create(&path).unwrap().set_len(LOG_BYTES_MAX - 2).unwrap();
        let mut log = LogFile::open(path.clone()).unwrap();
        assert!(!log.write_line(b"ab").unwrap());
        assert!(log.write_line(b"cd").unwrap());
        assert!(!log.write_line(b"ef").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"cdef");
        assert_eq!(fs::metadata(folder.path().join("site.log.1")).unwrap().len(), LOG_BYTES_MAX);
    }
}
