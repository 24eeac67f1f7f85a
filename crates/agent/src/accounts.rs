//! Who `himds` is on this machine.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::Path;

const NAME: &str = "himds";
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Whom a file or folder belongs to. What only root may change stays out of the daemon's reach, who runs as `himds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Root,
    /// Root's, and the group `himds` may read it.
    RootAndGroup,
    Himds,
}

/// The user and group that own what the daemon makes. Where the machine has neither, root keeps everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    user: Option<u32>,
    group: Option<u32>,
}

impl Accounts {
    /// Looks in the files themselves: the daemon must not depend on a name service that may be away.
    pub(crate) fn read(passwd: &Path, group: &Path) -> Self {
        let text = |path| crate::files::read_bounded(path, FILE_BYTES_MAX).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&text(passwd)), &String::from_utf8_lossy(&text(group)))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let id = |text: &str, field: usize| {
            let line = text.lines().find(|line| line.split(':').next() == Some(NAME))?;
            line.split(':').nth(field)?.parse().ok()
        };
        Self { user: id(passwd, 2), group: id(group, 2).or_else(|| id(passwd, 3)) }
    }

    /// Gives `file` to `owner` with the mode `shared`, or leaves it to whoever runs this with the mode `alone`: when
    /// there is no such group, and when the system does not allow it (an ordinary user, or ids that the user
    /// namespace does not map). Never more than `alone` before the owner is right.
    pub(crate) fn give(&self, file: &File, owner: Owner, shared: u32, alone: u32) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(alone))?;
        let (user, group) = match (owner, self.group) {
            (Owner::Root, _) => (Some(0), Some(0)),
            (Owner::RootAndGroup, Some(group)) => (Some(0), Some(group)),
            (Owner::Himds, Some(group)) => (self.user, Some(group)),
            (_, None) => return Ok(()),
        };
        match fchown(file, user, group) {
            Ok(()) => file.set_permissions(Permissions::from_mode(shared)),
            Err(fault) => {
                tracing::debug!(%fault, "a file stays with the user who made it");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nhimds2:x:5:5::/:/x\nhimds:*:997:996:himds:/:/x\n";
        let group = "himdsx:x:1:\nhimds:x:995:nina\n";
        assert_eq!(Accounts::parse(passwd, group), Accounts { user: Some(997), group: Some(995) });
        assert_eq!(Accounts::parse(passwd, ""), Accounts { user: Some(997), group: Some(996) });
        assert_eq!(Accounts::parse("", group), Accounts { user: None, group: Some(995) });
        assert_eq!(Accounts::parse("himds:x", "himds:x:-1:"), Accounts::default());
    }

    #[test]
    fn a_file_that_cannot_be_given_stays_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("f")).unwrap();
        Accounts::default().give(&file, Owner::Himds, 0o440, 0o400).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o400);
    }
}
