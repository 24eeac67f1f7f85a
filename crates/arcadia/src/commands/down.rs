//! `arcadia down`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::site::{DataDir, has_open, holder};
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
    let Some(pid) = holder(&lock).with_context(|| lock.display().to_string())? else {
        note(format!("arcadia: no site is running on {}", data.path().display()));
        return Ok(ExitCode::SUCCESS);
    };
    let pid = pid.and_then(Pid::from_raw).context("the site is only just starting; try again in a moment")?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => {
            // The handle was opened by number: only a process that still holds the lock may be signalled.
            let number = pid.as_raw_nonzero().get();
            if holder(&lock)?.flatten() == Some(number) {
                if !has_open(number, &lock)? && holder(&lock)?.is_some() {
                    bail!(
                        "process {number} is not the site that runs; it is only just starting, try again in a moment, or \
                         it runs in another container: stop it there"
                    );
                }
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
            bail!("process {} has not stopped; its log says what it waits for", pid.as_raw_nonzero());
        }
        if !told && begun.elapsed() > SILENCE {
            note("waiting for requests under way ...");
            told = true;
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn a_process_that_only_has_the_number_is_not_ended() {
        let folder = tempfile::TempDir::new().unwrap();
        let data = DataDir::at(folder.path().to_owned());
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        // As an earlier site left it, whose number the other has by now, while a new one is starting.
        std::fs::write(data.lock_file(), other.id().to_string()).unwrap();
        let lock = std::fs::File::open(data.lock_file()).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let told = run(&data, &Arguments {});
        let ended = other.try_wait().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(ended, None, "{told:?}");
        assert!(told.unwrap_err().to_string().contains("try again in a moment"));
    }
}
