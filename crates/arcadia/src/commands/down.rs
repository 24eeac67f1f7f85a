//! `arcadia down`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::site::{DataDir, holder};
use crate::terminal::note;

/// The site itself waits for its machines to stop, and then ten seconds for requests under way.
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(20);
const SILENCE: Duration = Duration::from_secs(1);

/// Stop the site: requests under way are finished, then it ends
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  arcadia down\n  arcadia down --data /srv/arcadia\n\n\
                        Stopping a site that does not run is no error.")]
pub struct Arguments {}

pub fn run(data: &DataDir, _: &Arguments) -> anyhow::Result<ExitCode> {
    let lock = data.lock_file();
    let Some(pid) = holder(&lock)? else {
        note(format!("arcadia: no site is running on {}", data.path().display()));
        return Ok(ExitCode::SUCCESS);
    };
    let pid = pid.and_then(Pid::from_raw).context("the site is only just starting; try again in a moment")?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => {
            // The handle was opened by number: only a process that still holds the lock may be signalled.
            if holder(&lock)?.flatten() == Some(pid.as_raw_nonzero().get()) {
                pidfd_send_signal(&process, Signal::TERM)
                    .with_context(|| format!("process {} cannot be told to stop", pid.as_raw_nonzero()))?;
            }
        }
        Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error).context("the site's process cannot be reached"),
    }
    wait(&lock, pid)?;
    Ok(ExitCode::SUCCESS)
}

fn wait(lock: &std::path::Path, pid: Pid) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut told = false;
    while holder(lock)?.is_some() {
        if begun.elapsed() > PATIENCE {
            anyhow::bail!("process {} has not stopped; its log says what it waits for", pid.as_raw_nonzero());
        }
        if !told && begun.elapsed() > SILENCE {
            note("waiting for requests under way ...");
            told = true;
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}
