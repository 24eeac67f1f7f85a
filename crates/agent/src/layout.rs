//! Where things are on the machine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::AgentFault;
use crate::accounts::{Accounts, Owner};
use crate::files::{open_folder, remove_in};

/// Clients look for challenge files nowhere else.
pub const DEFAULT_ROOT: &str = "/var/opt/azcmagent";

/// The agent's files. Root's are those that decide what root's own commands do; the daemon may run as `himds`.
///
/// | path | what | owner, mode |
/// |---|---|---|
/// | `agentconfig.json` | the connection; present exactly while the machine is connected | root 0644; group himds 0640 where the proxy takes a password |
/// | `certs/machine.key` | the machine's own key (PKCS#8 PEM) | himds 0600, in a folder of root's |
/// | `certs/vmid` | the id that the key was made with | root 0600 |
/// | `tokens/` | challenge files, each for one use | himds 0750, files 0440 |
/// | `state/heartbeat.json` | what the site said last: tags, location, when | himds 0644 |
/// | `log/himds.log` | | himds 0640 |
///
/// Without a group `himds` all of it belongs to whoever runs the agent, and what the group could read only they can.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

/// The folders below the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Certs,
    Tokens,
    State,
    Log,
}

impl Part {
    const ALL: [Self; 4] = [Self::Certs, Self::Tokens, Self::State, Self::Log];

    fn name(self) -> &'static str {
        match self {
            Self::Certs => "certs",
            Self::Tokens => "tokens",
            Self::State => "state",
            Self::Log => "log",
        }
    }

    /// Owner, mode, and mode where there is no group `himds`.
    fn access(self) -> (Owner, u32, u32) {
        match self {
            Self::Certs => (Owner::RootAndGroup, 0o750, 0o700),
            Self::Tokens => (Owner::Himds, 0o750, 0o700),
            Self::State | Self::Log => (Owner::Himds, 0o755, 0o755),
        }
    }
}

pub(crate) const CONFIG: &str = "agentconfig.json";
pub(crate) const KEY: &str = "machine.key";
pub(crate) const VM_ID: &str = "vmid";
pub(crate) const HEARTBEAT: &str = "heartbeat.json";

impl Layout {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn config(&self) -> PathBuf {
        self.root.join(CONFIG)
    }

    pub fn tokens(&self) -> PathBuf {
        self.part(Part::Tokens)
    }

    pub fn log_file(&self) -> PathBuf {
        self.part(Part::Log).join("himds.log")
    }

    pub(crate) fn part(&self, part: Part) -> PathBuf {
        self.root.join(part.name())
    }

    /// The root may be a link: it lies in a folder of the system's.
    pub(crate) fn open_root(&self) -> io::Result<File> {
        File::open(&self.root)
    }

    /// A folder below it may not: whoever the daemon runs as could have planted it.
    pub(crate) fn open_part(&self, part: Part) -> io::Result<File> {
        open_folder(&self.part(part))
    }

    /// Removes a file from a folder below the root. That either is gone already is no error.
    pub(crate) fn remove(&self, part: Part, name: &str) -> io::Result<()> {
        match self.open_part(part) {
            Ok(folder) => remove_in(&folder, name),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// What an installation does, as root and before the daemon runs for the first time as `himds`: makes the
    /// folders, so that none of those that are root's is ever the daemon's.
    pub fn install(&self) -> Result<(), AgentFault> {
        self.prepare(&Accounts::read(Path::new("/etc/passwd"), Path::new("/etc/group")))
    }

    /// Makes what is missing and sets owners and modes.
    pub(crate) fn prepare(&self, accounts: &Accounts) -> Result<(), AgentFault> {
        let fault = |path: &Path, source| AgentFault::file("cannot prepare the folder", path, source);
        make(&self.root, 0o755)
            .and_then(|()| allow(accounts, &self.open_root()?, (Owner::Root, 0o755, 0o755)))
            .map_err(|source| fault(&self.root, source))?;
        for part in Part::ALL {
            let access = part.access();
            make(&self.part(part), access.2)
                .and_then(|()| allow(accounts, &self.open_part(part)?, access))
                .map_err(|source| fault(&self.part(part), source))?;
        }
        Ok(())
    }
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().recursive(true).mode(mode).create(path) {
        Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

/// A folder that belongs to another user was set up by them, for example by root for the daemon.
fn allow(accounts: &Accounts, folder: &File, (owner, shared, alone): (Owner, u32, u32)) -> io::Result<()> {
    match accounts.give(folder, owner, shared, alone) {
        Err(fault) if fault.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn folders_are_made_private_and_links_refused() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().join("azcmagent"));
        layout.prepare(&Accounts::default()).unwrap();
        layout.prepare(&Accounts::default()).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(layout.tokens()), mode(layout.part(Part::Certs))), (0o700, 0o700));

        let linked = Layout::new(folder.path().join("link"));
        std::os::unix::fs::symlink(layout.root(), linked.root()).unwrap();
        linked.prepare(&Accounts::default()).unwrap();

        fs::remove_dir(layout.tokens()).unwrap();
        std::os::unix::fs::symlink("/tmp", layout.tokens()).unwrap();
        let fault = layout.prepare(&Accounts::default()).unwrap_err().to_string();
        assert!(fault.contains("tokens"), "{fault}");
    }
}
