//! What is left of servers that nobody watches any more: found, and stopped.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

use super::files::read_text;
use super::process::{LOCK, POLL, STOP_SIGNALS};

/// A killed process is gone as soon as the kernel has released what it had.
const END_SECONDS_MAX: u64 = 20;

/// Stops what works in this directory: a server that an earlier run of the site left behind, and what is left of one
/// whose own end was sudden.
pub(super) async fn stop(path: &Path) {
    stop_postmaster(path).await;
    end_rest(path).await;
}

async fn stop_postmaster(path: &Path) {
    let lock = path.join(LOCK);
    let Some(pid) = recorded(&lock) else { return };
    if !works_in(pid, path) {
        // The number is another process's by now; with the file there, the server would think that it still runs.
        if is_alive(pid) {
            let _ = std::fs::remove_file(&lock);
        }
        return;
    }
    tracing::info!(pid = pid.as_raw_nonzero().get(), "a database server of an earlier run is stopped");
    for (signal, seconds) in STOP_SIGNALS {
        let _ = rustix::process::kill_process(pid, signal);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < deadline {
            if !works_in(pid, path) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Ends the processes of a server whose postmaster is gone. They notice that by themselves, unless they wait for a lock
/// in shared memory whose holder was killed with it: then they stay for ever, and as long as one of them has that memory
/// no server starts in the directory. What they had not committed is undone by the next start.
async fn end_rest(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(END_SECONDS_MAX);
    let mut ended = 0;
    loop {
        let left = processes_of(path);
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            tracing::error!(?left, "processes of a database server do not end");
            return;
        }
        ended = ended.max(left.len());
        for pid in left {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        tokio::time::sleep(POLL).await;
    }
    if ended > 0 {
        tracing::warn!(processes = ended, "what a database server had left running was ended");
    }
}

/// Who was given the directory as standard input, as each process of a server is and nobody else.
fn processes_of(path: &Path) -> Vec<Pid> {
    let Some(own) = place_of(path) else { return Vec::new() };
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| place_of(process_file(*pid, "fd/0")) == Some(own)).collect()
}

/// Whether a server works in this directory, be it one that is just starting or stopping, or what is left of one: it may
/// still write.
pub(super) fn runs_in(path: &Path) -> bool {
    recorded(&path.join(LOCK)).is_some_and(|pid| works_in(pid, path)) || !processes_of(path).is_empty()
}

fn recorded(lock: &Path) -> Option<Pid> {
    let text = read_text(lock).ok()?;
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    // A number below 2 names no server, and below 0 a group.
    Pid::from_raw(number).filter(|pid| pid.as_raw_nonzero().get() > 1)
}

fn is_alive(pid: Pid) -> bool {
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// Whether the process is the one that works in this directory; a number alone may have come to mean another.
fn works_in(pid: Pid, path: &Path) -> bool {
    place_of(path).is_some_and(|own| place_of(process_file(pid, "cwd")) == Some(own))
}

fn process_file(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()))
}

/// What makes two names of one directory the same.
fn place_of(path: impl AsRef<Path>) -> Option<(u64, u64)> {
    std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_a_server_left_running_still_runs() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!runs_in(directory.path()));
        let as_servers_have_it = File::open(directory.path()).unwrap();
        let mut left =
            Command::new("sleep").arg("600").stdin(as_servers_have_it).stdout(Stdio::null()).spawn().unwrap();
        assert!(runs_in(directory.path()));
        left.kill().unwrap();
        left.wait().unwrap();
        assert!(!runs_in(directory.path()));
    }
}
