//! Where things are on the machine.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::AgentFault;
use crate::accounts::Accounts;
use crate::files::open_folder;

/// Clients look for challenge files nowhere else.
pub const DEFAULT_ROOT: &str = "/var/opt/azcmagent";

/// The agent's files:
///
/// | path | what | mode |
/// |---|---|---|
/// | `agentconfig.json` | the connection; present exactly while the machine is connected | 0644 |
/// | `heartbeat.json` | what the site said last: tags, location, when | 0644 |
/// | `certs/machine.key`, `certs/vmid` | the machine's own key (PKCS#8 PEM) and the id it was made with | 0600 |
/// | `tokens/` | challenge files, each for one use | 0750, files 0440 |
/// | `log/himds.log` | | 0640 |
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn config(&self) -> PathBuf {
        self.root.join("agentconfig.json")
    }

    pub(crate) fn heartbeat(&self) -> PathBuf {
        self.root.join("heartbeat.json")
    }

    fn certs(&self) -> PathBuf {
        self.root.join("certs")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.certs().join("machine.key")
    }

    pub(crate) fn vm_id(&self) -> PathBuf {
        self.certs().join("vmid")
    }

    pub fn tokens(&self) -> PathBuf {
        self.root.join("tokens")
    }

    pub fn log_file(&self) -> PathBuf {
        self.root.join("log/himds.log")
    }

    /// Makes what is missing and sets owners and modes.
    pub(crate) fn prepare(&self, accounts: &Accounts) -> Result<(), AgentFault> {
        make(&self.root, accounts, 0o755, 0o755)?;
        make(&self.certs(), accounts, 0o700, 0o700)?;
        make(&self.tokens(), accounts, 0o750, 0o700)?;
        make(&self.root.join("log"), accounts, 0o755, 0o755)
    }
}

fn make(path: &Path, accounts: &Accounts, shared: u32, alone: u32) -> Result<(), AgentFault> {
    let fault = |source| AgentFault::file("cannot prepare the folder", path, source);
    match fs::DirBuilder::new().recursive(true).mode(alone).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(fault(source)),
        _ => {}
    }
    let folder = open_folder(path).map_err(fault)?;
    // A folder that belongs to another user was set up by them, for example by the package for the daemon's own user.
    match accounts.give(&folder, shared, alone) {
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome.map_err(fault),
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
        assert_eq!((mode(layout.tokens()), mode(layout.certs())), (0o700, 0o700));

        fs::remove_dir(layout.tokens()).unwrap();
        std::os::unix::fs::symlink("/tmp", layout.tokens()).unwrap();
        let fault = layout.prepare(&Accounts::default()).unwrap_err().to_string();
        assert!(fault.contains("tokens"), "{fault}");
    }
}
