//! `himds.log`: logrus lines, bounded in size.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arcadia_kernel::Clock;
use rustix::fs::{Mode, OFlags};

use crate::accounts::{Accounts, Owner};

/// At this size the file becomes `himds.log.1` and a new one is begun.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const MESSAGE_CHARACTERS_MAX: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warning,
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The daemon's log. Messages name things and never hold a token, key or secret.
pub(crate) struct Log {
    path: PathBuf,
    accounts: Accounts,
    clock: Arc<dyn Clock>,
    open: Mutex<Option<Open>>,
}

struct Open {
    file: File,
    bytes: u64,
}

impl Log {
    pub(crate) fn new(path: PathBuf, accounts: Accounts, clock: Arc<dyn Clock>) -> Self {
        Self { path, accounts, clock, open: Mutex::new(None) }
    }

    pub(crate) fn info(&self, message: &str) {
        tracing::info!("{message}");
        self.write(Level::Info, message);
    }

    pub(crate) fn warning(&self, message: &str) {
        tracing::warn!("{message}");
        self.write(Level::Warning, message);
    }

    pub(crate) fn error(&self, message: &str) {
        tracing::error!("{message}");
        self.write(Level::Error, message);
    }

    /// A log that cannot be written must not take the service down: that is told to the process's own trace.
    fn write(&self, level: Level, message: &str) {
        let line = line(&self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), level, message);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(fault) = self.append(&mut open, &line) {
            *open = None;
            tracing::warn!(path = %self.path.display(), %fault, "the log cannot be written");
        }
    }

    fn append(&self, open: &mut Option<Open>, line: &str) -> io::Result<()> {
        if open.as_ref().is_some_and(|open| open.bytes + line.len() as u64 > FILE_BYTES_MAX) {
            *open = None;
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        let open = match open {
            Some(open) => open,
            None => open.insert(open_log(&self.path, &self.accounts)?),
        };
        open.file.write_all(line.as_bytes())?;
        open.bytes += line.len() as u64;
        Ok(())
    }
}

fn open_log(path: &Path, accounts: &Accounts) -> io::Result<Open> {
    let flags = OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let file: File = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?.into();
    accounts.give(&file, Owner::Himds, 0o640, 0o600)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

/// `time="..." level=info msg="..."`, always one line.
fn line(time: &str, level: Level, message: &str) -> String {
    let mut text = String::with_capacity(message.len() + 64);
    for c in message.chars().take(MESSAGE_CHARACTERS_MAX) {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
    format!("time=\"{time}\" level={} msg=\"{text}\"\n", level.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcadia_kernel::FixedClock;

    #[test]
    fn logrus_lines() {
        assert_eq!(
            line("2026-11-21T19:00:00Z", Level::Warning, "a \"b\"\nc\u{1b}"),
            "time=\"2026-11-21T19:00:00Z\" level=warning msg=\"a \\\"b\\\"\\nc\u{fffd}\"\n"
        );
    }

    #[test]
    fn appended_and_turned_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("himds.log");
        let clock = Arc::new(FixedClock::at_epoch_seconds(1_800_000_000));
        let log = Log::new(path.clone(), Accounts::default(), clock.clone());
        log.info("one");
        drop(log);
        let log = Log::new(path.clone(), Accounts::default(), clock);
        log.error("two");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "time=\"2027-01-15T08:00:00Z\" level=info msg=\"one\"\ntime=\"2027-01-15T08:00:00Z\" level=error msg=\"two\"\n"
        );
        log.open.lock().unwrap().as_mut().unwrap().bytes = FILE_BYTES_MAX;
        log.info("three");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("msg=\"three\"\n"));
        assert!(std::fs::read_to_string(folder.path().join("himds.log.1")).unwrap().contains("two"));
    }
}
