//! What is kept of a machine on disk, and how the process that holds it is recognised again.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::isolation::Isolation;
use super::name::MachineName;
use super::users::Account;

/// `machine.json`: what stays the same for as long as the machine exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub schema: u32,
    pub name: MachineName,
    pub isolation: Isolation,
    pub himds: Account,
    pub arcadmin: Account,
    /// The domain of a site that has names of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

pub const SCHEMA: u32 = 1;

/// A machine's folder and the files in it.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The machine's.
    pub fn name(&self) -> impl fmt::Display {
        self.0.file_name().unwrap_or_default().display()
    }

    pub fn hosts(&self) -> PathBuf {
        self.0.join("etc/hosts")
    }

    pub fn passwd(&self) -> PathBuf {
        self.0.join("etc/passwd")
    }

    pub fn group(&self) -> PathBuf {
        self.0.join("etc/group")
    }

    pub fn sudoers(&self) -> PathBuf {
        self.0.join("etc/sudoers")
    }

    pub fn opt(&self) -> PathBuf {
        self.0.join("opt-azcmagent")
    }

    pub fn var(&self) -> PathBuf {
        self.0.join("var-opt-azcmagent")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("holder.log")
    }

    pub fn status(&self) -> PathBuf {
        self.0.join("status")
    }

    /// Locked by whoever starts, stops or deletes the machine.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    fn record_file(&self) -> PathBuf {
        self.0.join("machine.json")
    }

    fn run_file(&self) -> PathBuf {
        self.0.join("run.json")
    }

    pub fn record(&self) -> Result<Record> {
        read(&self.record_file())
    }

    pub fn write_record(&self, record: &Record) -> Result<()> {
        write(&self.record_file(), record)
    }

    pub fn write_run(&self, run: &Run) -> Result<()> {
        write(&self.run_file(), &Run { place: identity(&self.0), ..run.clone() })
    }

    pub fn forget_run(&self) {
        let _ = fs::remove_file(self.run_file());
    }

    /// The process that holds the machine, when it is still that process and the machine is this folder's.
    pub fn running(&self) -> Option<Run> {
        let is_own = |run: &Run| run.place.is_none_or(|place| identity(&self.0) == Some(place));
        self.last_run().filter(|run| run.is_alive() && is_own(run))
    }

    /// The last run on record, alive or not.
    pub fn last_run(&self) -> Option<Run> {
        read(&self.run_file()).ok()
    }
}

/// `run.json`: the process that holds the machine now. A process id alone may have been given to another
/// process since; with its start time and the boot it belongs to it names one process for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub pid: i32,
    pub start_ticks: u64,
    pub boot: String,
    /// The number of the machine's network namespace, by which its processes are found.
    pub network: u64,
    /// Whether the machine has a process list of its own.
    pub own_processes: bool,
    /// Of the site, which may be in another place since.
    #[serde(default)]
    pub sockets: [PathBuf; 2],
    /// Which folder it was recorded in: a copied one has the runs of the first on record. The folder alone can tell, because
    /// what is found where in the machine is up to the machine's root.
    #[serde(default)]
    pub place: Option<(u64, u64)>,
}

impl Run {
    /// Describes the process `pid`.
    pub fn of(pid: i32, own_processes: bool, sockets: [PathBuf; 2]) -> Result<Self> {
        Ok(Self {
            pid,
            start_ticks: start_ticks(pid).context("the machine's process has ended")?,
            boot: boot()?,
            network: network_of(pid).context("the machine's network namespace cannot be seen")?,
            own_processes,
            sockets,
            place: None,
        })
    }

    /// Whether the process holds its machine. One that was killed is still listed while the others in the machine end, but
    /// is in no network any more.
    pub fn is_alive(&self) -> bool {
        self.is_listed() && network_of(self.pid) == Some(self.network)
    }

    fn is_listed(&self) -> bool {
        self.is_of_this_boot() && start_ticks(self.pid) == Some(self.start_ticks)
    }

    pub fn ends_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while self.is_listed() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// The machine's network, if it has it still: its number is no other's for as long as this is open. Never the caller's
    /// own, in which others are, too.
    pub fn keep_network(&self) -> Option<File> {
        let network = File::open(namespace(self.pid, "net")).ok()?;
        let is_callers = network_of("self") == Some(self.network);
        (self.is_alive() && !is_callers).then_some(network)
    }

    /// Whether the process cannot be one that the caller started. One that has just ended is nobody's.
    pub fn is_another_users(&self) -> bool {
        let owner = fs::metadata(format!("/proc/{}", self.pid)).map(|process| process.uid());
        owner.is_ok_and(|owner| owner != rustix::process::geteuid().as_raw())
    }

    /// No process of an earlier boot is left, and its numbers are others' by now.
    pub fn is_of_this_boot(&self) -> bool {
        boot().is_ok_and(|boot| boot == self.boot)
    }
}

/// Which file this is, whatever it is called.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// The number of a process's network namespace.
fn network_of(pid: impl fmt::Display) -> Option<u64> {
    fs::metadata(namespace(pid, "net")).ok().map(|file| file.ino())
}

fn namespace(pid: impl fmt::Display, kind: &str) -> PathBuf {
    format!("/proc/{pid}/ns/{kind}").into()
}

/// What runs in a machine, the holder included.
pub fn processes_of(folder: &Folder, run: &Run, network: Option<&File>) -> Vec<i32> {
    let own = identity(&folder.var());
    let host = identity(&namespace("self", "mnt"));
    let is_the_machines = |pid: i32| match network {
        // Of what is in the machine's network only who goes there from the host has the host's files.
        Some(_) => identity(&namespace(pid, "mnt")).is_some_and(|mounts| Some(mounts) != host),
        // The number of a namespace is used again once it is gone, by whoever makes the next one: what is in it is the
        // machine's only where it has the machine's own folder in its place.
        None => own.is_some() && in_place(pid) == own,
    };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| network_of(*pid) == Some(run.network) && is_the_machines(*pid)).collect()
}

/// Which folder a process has where a machine has its own.
fn in_place(pid: i32) -> Option<(u64, u64)> {
    identity(Path::new(&format!("/proc/{pid}/root{}", arcadia_agent::DEFAULT_ROOT)))
}

fn boot() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?.trim().to_owned())
}

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot; none when the process is gone or only waits to be
/// collected by its parent.
fn start_ticks(pid: i32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<u64> {
    // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let draft = path.with_extension("new");
    fs::write(&draft, serde_json::to_vec_pretty(value)?)
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let run = Run::of(pid, false, Default::default()).unwrap();
        assert!(run.is_alive());
        assert!(!Run { start_ticks: run.start_ticks + 1, ..run.clone() }.is_alive());
        assert!(run.keep_network().is_none(), "the test and others are in it");
        let ending = Run { network: run.network + 1, ..run.clone() };
        assert!(ending.is_listed() && !ending.is_alive());
        assert!(!Run { boot: "another".to_owned(), ..run }.is_alive());
    }

    #[test]
    fn a_program_may_have_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_stat(&format!("12 (a) b (c)) {rest}")), Some(4711));
        assert_eq!(parse_stat(&format!("12 (a) {}", rest.replacen('S', "Z", 1))), None);
        assert_eq!(parse_stat("12 (a"), None);
    }
}
