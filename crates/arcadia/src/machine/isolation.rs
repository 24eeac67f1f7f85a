//! How a machine's namespaces are had on this host.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// The ways, best first. What a machine was created with stays with it, because the owners of its files depend
/// on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Isolation {
    /// Held by root; users are the host's numbers.
    Root,
    /// In a user namespace: root there is the caller, the other users are the caller's subordinate ids.
    Subordinate { uid: u32, gid: u32, first_uid: u32, first_gid: u32, count: u32 },
    /// In a user namespace with one user: root, who is the caller.
    Single { uid: u32, gid: u32 },
}

impl Isolation {
    /// The best way that this caller has.
    pub fn detect() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        if uid == 0 {
            return Self::Root;
        }
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let name = user_name(&read("/etc/passwd"), uid);
        let uids = range(&read("/etc/subuid"), name.as_deref(), uid);
        // A user's line in /etc/subgid bears the user's name or number too, not the group's.
        let gids = range(&read("/etc/subgid"), name.as_deref(), uid);
        match (uids, gids) {
            (Some((first_uid, uid_count)), Some((first_gid, gid_count))) if mapping_programs_exist() => {
                let count = uid_count.min(gid_count).min(65536);
                Self::Subordinate { uid, gid, first_uid, first_gid, count }
            }
            _ => Self::Single { uid, gid },
        }
    }

    pub fn in_user_namespace(self) -> bool {
        self != Self::Root
    }

    /// Whether `himds`, `arcadmin` and root are different users on the machine.
    pub fn separates_users(self) -> bool {
        !matches!(self, Self::Single { .. })
    }

    /// Whether a machine has a group of this number.
    pub fn has_group(self, gid: u32) -> bool {
        match self {
            Self::Root => true,
            Self::Subordinate { count, .. } => gid <= count,
            Self::Single { .. } => gid == 0,
        }
    }

    /// What a person should know about this way, in a sentence; nothing when there is nothing to know.
    pub fn note(self) -> Option<&'static str> {
        (!self.separates_users()).then_some(
            "this machine has one user only, so root, himds and arcadmin cannot be told apart on it and the \
             challenge file is protected by nothing but its mode; with the package uidmap and a line for you in \
             /etc/subuid and /etc/subgid, or as root, they are separate",
        )
    }

    /// Gives the new user namespace of the process `pid` its users. Called from outside of it.
    pub fn map(self, pid: u32) -> Result<()> {
        match self {
            Self::Root => Ok(()),
            Self::Subordinate { uid, gid, first_uid, first_gid, count } => {
                map_with("newuidmap", pid, uid, first_uid, count)?;
                map_with("newgidmap", pid, gid, first_gid, count)
            }
            Self::Single { uid, gid } => {
                let folder = format!("/proc/{pid}");
                let folder = Path::new(&folder);
                // The kernel lets an ordinary user map a group only after the namespace gave up setgroups.
                put(&folder.join("setgroups"), "deny")?;
                put(&folder.join("uid_map"), &format!("0 {uid} 1"))?;
                put(&folder.join("gid_map"), &format!("0 {gid} 1"))
            }
        }
    }
}

fn map_with(program: &str, pid: u32, own: u32, first: u32, count: u32) -> Result<()> {
    let arguments = [pid, 0, own, 1, 1, first, count].map(|number| number.to_string());
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.with_context(|| format!("cannot run {program} (package uidmap)"))?;
    if !done.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> Result<()> {
    // One write call: the kernel takes a map in one piece or not at all.
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

fn mapping_programs_exist() -> bool {
    ["newuidmap", "newgidmap"].iter().all(|program| on_path(program))
}

/// Whether a program is on the caller's search path.
#[allow(clippy::disallowed_methods, reason = "the search path is the caller's")]
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    let wanted = uid.to_string();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&wanted))?;
    line.split(':').next().map(str::to_owned)
}

/// The first range of subordinate ids of a user: `NAME-OR-NUMBER:FIRST:COUNT`. Ranges that are too small for a
/// machine's users are passed over.
fn range(text: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    const COUNT_MIN: u32 = 2000;
    let number = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ((Some(owner) == name || owner == number) && count >= COUNT_MIN).then_some((first, count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_by_name_or_number() {
        let text = "root:1:65536\nnina:100000:65536\n1001:165536:65536\n";
        assert_eq!(range(text, Some("nina"), 1000), Some((100_000, 65536)));
        assert_eq!(range(text, None, 1001), Some((165_536, 65536)));
        assert_eq!(range(text, Some("nin"), 100), None);
        assert_eq!(range("nina:100000:10\nnina:200000:65536", Some("nina"), 1), Some((200_000, 65536)));
        assert_eq!(range("nina:x:y", Some("nina"), 1), None);
    }

    #[test]
    fn one_user_comes_with_a_note() {
        assert!(Isolation::Single { uid: 1, gid: 1 }.note().is_some());
        assert!(Isolation::Root.note().is_none());
    }
}
