//! A server's process: started, watched, started again, stopped.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::files::read_text;
use super::guard::Guard;
use super::{Account, orphan};

/// The socket's name in the server's directory.
const SOCKET: &str = ".s.PGSQL.5432";

/// What a server writes down of itself, and the line that says how far it is.
pub(super) const LOCK: &str = "postmaster.pid";
const STATUS_LINE: usize = 8;

/// Pauses before a server that ended is started again: this long at first, then doubled up to the longest.
const PAUSE_MILLISECONDS_MIN: u64 = 100;
const PAUSE_MILLISECONDS_MAX: u64 = 10_000;
/// A server that ran for this long begins with the shortest pause again.
const STEADY_SECONDS: u64 = 60;
const POLL_MILLISECONDS: u64 = 10;
pub(super) const POLL: Duration = Duration::from_millis(POLL_MILLISECONDS);
/// A fast shutdown waits for a checkpoint; an immediate one is recovered from at the next start.
const FAST_SECONDS_MAX: u64 = 20;
const IMMEDIATE_SECONDS_MAX: u64 = 5;
/// When a server's log has grown over this, its end is kept.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
const LOG_BYTES_KEPT: u64 = 1024 * 1024;
const LOG_LOOK_SECONDS: u64 = 1;

/// A server's socket, through its open directory: however long the path to that is.
pub(super) fn socket_in(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

pub(super) struct Supervised {
    pub instance: Uuid,
    pub path: PathBuf,
    pub directory: File,
    pub program: PathBuf,
    pub account: Option<Account>,
    pub guard: Guard,
}

/// What a server says, by its directory.
pub(super) fn log_of(path: &Path) -> PathBuf {
    path.with_extension("log")
}

/// Gives a program nothing of the site's environment.
pub(super) fn in_nothing(command: &mut Command) {
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
}

pub(super) fn run_as(command: &mut Command, account: Option<Account>) {
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
}

/// Keeps a server running until it is to stop.
pub(super) async fn supervise(
    server: Supervised,
    ready: watch::Sender<bool>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut pause = PAUSE_MILLISECONDS_MIN;
    while !*stopping.borrow() {
        orphan::stop(&server.path).await;
        let started = Instant::now();
        match server.spawn() {
            Ok(mut child) => {
                if server.watch(&mut child, &ready, &mut stopping).await {
                    break;
                }
            }
            Err(error) => {
                tracing::error!(instance = %server.instance, %error, "a database server does not start")
            }
        }
        ready.send_replace(false);
        if started.elapsed() > Duration::from_secs(STEADY_SECONDS) {
            pause = PAUSE_MILLISECONDS_MIN;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
        pause = (pause * 2).min(PAUSE_MILLISECONDS_MAX);
    }
    ready.send_replace(false);
}

impl Supervised {
    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        in_nothing(&mut command);
        run_as(&mut command, self.account);
        command.args(["-D", "/proc/self/fd/0", "-k", "."]);
        for fixed in [
            "listen_addresses=",
            "unix_socket_permissions=0700",
            "port=5432",
            "logging_collector=off",
            "log_destination=stderr",
            "full_page_writes=on",
            // A statement that fails may have a password in it, and so may the function that it is in.
            "log_min_error_statement=panic",
            "log_error_verbosity=terse",
        ] {
            command.args(["-c", fixed]);
        }
        let log = self.log()?;
        command.stdin(Stdio::from(self.directory.try_clone()?)).stdout(log.try_clone()?).stderr(log);
        // A terminal's Ctrl-C is for the site, which stops its servers when it has stopped serving.
        command.process_group(0);
        command.spawn()
    }

    fn log(&self) -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt as _;
        self.cut_log()?;
        let path = log_of(&self.path);
        std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }

    /// The server only ever appends, so what it writes next follows what is kept.
    fn cut_log(&self) -> io::Result<()> {
        let path = log_of(&self.path);
        if !std::fs::metadata(&path).is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
            return Ok(());
        }
        let mut log = std::fs::OpenOptions::new().read(true).append(true).open(&path)?;
        log.seek(SeekFrom::End(-LOG_BYTES_KEPT.cast_signed()))?;
        let mut end = Vec::new();
        (&log).take(LOG_BYTES_KEPT).read_to_end(&mut end)?;
        log.set_len(0)?;
        log.write_all(&end)
    }

    /// Strangers' wrong passwords are written down, and whatever a role makes its server say.
    async fn bound_log(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(LOG_LOOK_SECONDS)).await;
            if let Err(error) = self.cut_log() {
                tracing::warn!(instance = %self.instance, %error, "a database server's log cannot be cut");
            }
        }
    }

    /// Waits until the server ends. Whether it was told to.
    async fn watch(
        &self,
        child: &mut Child,
        ready: &watch::Sender<bool>,
        stopping: &mut watch::Receiver<bool>,
    ) -> bool {
        let number = child.id().unwrap_or_default();
        let until_ready = async {
            while !self.is_ready(number) {
                tokio::time::sleep(POLL).await;
            }
            self.secure().await;
            ready.send_replace(true);
            tracing::info!(instance = %self.instance, "database server ready");
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = child.wait() => Some(ended),
            () = until_ready => None,
            () = self.bound_log() => None,
            _ = stopping.wait_for(|stop| *stop) => None,
        };
        if let Some(ended) = ended {
            let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::warn!(instance = %self.instance, status, "a database server ended; it is started again");
            return false;
        }
        ready.send_replace(false);
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        for (signal, seconds) in STOP_SIGNALS {
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, signal);
            }
            if tokio::time::timeout(Duration::from_secs(seconds), child.wait()).await.is_ok() {
                return true;
            }
        }
        tracing::error!(instance = %self.instance, "a database server does not stop");
        true
    }

    /// Tries until the server is such that clients may be let in.
    async fn secure(&self) {
        let mut pause = PAUSE_MILLISECONDS_MIN;
        while let Err(fault) = self.guard.secure(&self.directory).await {
            tracing::error!(instance = %self.instance, %fault, "a database server lets nobody in");
            tokio::time::sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(PAUSE_MILLISECONDS_MAX);
        }
    }

    /// Whether the server says in its lock file that it takes connections, and the file is this process's.
    fn is_ready(&self, pid: u32) -> bool {
        says_ready(&self.path, |number| number == pid.to_string())
    }
}

/// Whether the lock file in a server's directory is of such a process, and says that it takes connections.
pub(super) fn says_ready(path: &Path, is_of: impl Fn(&str) -> bool) -> bool {
    let text = read_text(&path.join(LOCK)).unwrap_or_default();
    let mut lines = text.lines();
    lines.next().is_some_and(|line| is_of(line.trim()))
        && lines.nth(STATUS_LINE - 2).is_some_and(|status| status.trim() == "ready")
}

pub(super) const STOP_SIGNALS: [(Signal, u64); 3] = [
    (Signal::INT, FAST_SECONDS_MAX),
    (Signal::QUIT, IMMEDIATE_SECONDS_MAX),
    (Signal::KILL, IMMEDIATE_SECONDS_MAX),
];
