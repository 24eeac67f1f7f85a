//! What the process finds around it: time, variables, directories. Libraries get these handed in from here.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use anyhow::Context as _;
use arcadia_kernel::Clock;
use jiff::Timestamp;
use rustix::io::{FdFlags, fcntl_setfd};

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "the program's one clock, which it hands to everything else"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A variable of the environment; `None` also when it is empty, as shells clear one that way.
#[allow(clippy::disallowed_methods, reason = "the program's one way to its environment")]
pub fn variable_os(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// [`variable_os`] as text; `None` also where it is not text.
pub fn variable(name: &str) -> Option<String> {
    variable_os(name)?.into_string().ok()
}

/// What `sudo -u` takes for a user: its name, or its number where it has none.
pub fn user(uid: u32) -> String {
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("'#{uid}'"))
}

/// What a shell has open besides the three streams, such as a lock or the file with a passphrase, is not handed to
/// processes that are started from here on: sites and machines outlive the shell, and others run in them. For a process
/// with one thread.
pub fn keep_open_files_to_itself() -> anyhow::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd").context("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if number > 2 {
            #[allow(unsafe_code, reason = "it is open, as it was just listed and no other thread closes it")]
            let open = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl_setfd(open, FdFlags::CLOEXEC)?;
        }
    }
    Ok(())
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Each connection is a file, or two that it is carried between, and the usual soft limit of 1024 is less than is
/// accepted.
pub fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
}

/// `--data`, `$ARCADIA_DATA`, for root /var/lib/arcadia, else $XDG_DATA_HOME/arcadia; absolute.
pub fn data_directory(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match named.or_else(|| variable_os("ARCADIA_DATA").map(PathBuf::from)) {
        Some(path) => Ok(std::path::absolute(path)?),
        None => default_data_directory(),
    }
}

/// `--passphrase-file`, `$ARCADIA_PASSPHRASE_FILE`.
pub fn passphrase_file(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| variable_os("ARCADIA_PASSPHRASE_FILE").map(PathBuf::from))
}

/// Where a command looks in a shell that says nothing of it.
pub fn default_data_directory() -> anyhow::Result<PathBuf> {
    if is_root() { Ok(PathBuf::from("/var/lib/arcadia")) } else { Ok(data_home()?.join("arcadia")) }
}

fn data_home() -> anyhow::Result<PathBuf> {
    // A relative XDG_DATA_HOME is invalid and ignored, as its specification says.
    if let Some(path) = variable_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        return Ok(path);
    }
    let home = variable_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.ok_or_else(|| anyhow::anyhow!("HOME is not set; name the data directory with --data"))?;
    Ok(home.join(".local/share"))
}
