//! Programs that are measured: what they have used of the processors and of memory.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Linux tells times in /proc in hundredths of a second (USER_HZ), on every architecture that is built for.
const TICKS_PER_SECOND: u64 = 100;
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// A child of the bench, stopped when it is dropped.
pub struct Process {
    name: String,
    child: Option<Child>,
}

impl Process {
    /// Starts a program and waits for a line on its standard output that `ready` accepts.
    pub fn start<T>(
        command: &mut Command,
        mut ready: impl FnMut(&str) -> Option<T>,
    ) -> Result<(Self, T, Vec<String>)> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        let stdout = child.stdout.take().context("a piped output")?;
        let process = Self { name, child: Some(child) };
        let mut lines = Vec::new();
        let mut reader = BufReader::new(stdout);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                bail!("{} ended before it was ready: {lines:?}", process.name);
            }
            let line = line.trim_end().to_owned();
            let found = ready(&line);
            lines.push(line);
            if let Some(found) = found {
                // Read on, so that the program never waits for a full pipe.
                std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
                return Ok((process, found, lines));
            }
        }
    }

    /// Starts a program that is ready when it says so elsewhere.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {name}"))?;
        Ok(Self { name, child: Some(child) })
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Asks the program to end (SIGTERM) and waits; kills it when it does not.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let Some(mut child) = self.child.take() else { bail!("{} was stopped before", self.name) };
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill()?;
        Ok(child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.stop();
        }
    }
}

/// The processor time of some processes, with all their threads, ended ones included.
#[derive(Clone, Debug, Default)]
pub struct Meter(Vec<u32>);

impl Meter {
    pub fn of(processes: impl IntoIterator<Item = u32>) -> Self {
        Self(processes.into_iter().collect())
    }

    pub fn cpu(&self) -> Result<Duration> {
        self.0.iter().map(|id| cpu(*id)).sum()
    }
}

/// User and system time of a process.
pub fn cpu(id: u32) -> Result<Duration> {
    let path = format!("/proc/{id}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let ticks = ticks(&text).with_context(|| format!("{path} is not what it was"))?;
    Ok(Duration::from_micros(ticks * 1_000_000 / TICKS_PER_SECOND))
}

/// Fields 14 and 15 of `/proc/PID/stat`, counted after the name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// The processor time of this thread.
pub fn thread_cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("/proc/thread-self/schedstat is not what it was")?))
}

/// What a process has in memory, in bytes.
pub fn resident_bytes(id: u32) -> Result<u64> {
    status_bytes(id, "VmRSS:")
}

/// The part of it that is the process's own: without pages of files such as the program itself.
pub fn anonymous_bytes(id: u32) -> Result<u64> {
    status_bytes(id, "RssAnon:")
}

fn status_bytes(id: u32, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(number.with_context(|| format!("/proc/{id}/status has no {field}"))? * 1024)
}

/// The children of a process.
pub fn children(id: u32) -> Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    Ok(text.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect())
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A command with nothing of the caller's environment but where programs and temporary files are.
pub fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_after_the_name() {
        let stat = "7 (a) (b) c) S 1 7 7 0 -1 4194304 100 200 0 0 123 45 6 7 20 0 3 0 99 1 2";
        assert_eq!(ticks(stat), Some(168));
        assert_eq!(ticks("7 a S"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let id = std::process::id();
        assert!(resident_bytes(id).unwrap() > anonymous_bytes(id).unwrap());
        let before = cpu(id).unwrap();
        let start = Instant::now();
        while cpu(id).unwrap() == before && start.elapsed() < Duration::from_secs(60) {
            std::hint::black_box(arcadia_crypto::sha256(&[0; 4096]));
        }
        assert!(Meter::of([id]).cpu().unwrap() > before);
    }

    #[test]
    fn a_program_is_waited_for_and_stopped() {
        let mut command = clean(Path::new("/bin/sh"));
        command.args(["-c", "echo a; echo ready 5; exec sleep 600"]);
        let (mut process, port, lines) = Process::start(&mut command, |line| {
            line.strip_prefix("ready ").map(|port| port.parse::<u16>().unwrap())
        })
        .unwrap();
        assert_eq!((port, lines), (5, vec!["a".to_owned(), "ready 5".to_owned()]));
        assert!(!process.stop().unwrap().success());
        let mut ending = clean(Path::new("/bin/true"));
        assert!(Process::start(&mut ending, |_| Some(())).is_err());
    }
}
