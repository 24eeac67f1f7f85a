//! PostgreSQL's programs, and the user that runs them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's packages put the programs of each version, outside of the search path.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The oldest that is used: from it on, a database can be dropped under its clients.
const MAJOR_MIN: u32 = 13;

/// A user by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// The one that this process runs as.
    pub(crate) fn own() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

/// A PostgreSQL that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    bin: PathBuf,
    major: u32,
    minor: u32,
}

impl Installation {
    /// The newest one, of Debian's place and of the folders of a search path.
    pub fn find(search_path: &[PathBuf]) -> Option<Self> {
        let debian = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
        // Of equals the last one is taken: Debian's own.
        let folders = search_path.iter().cloned().chain(debian.map(|entry| entry.path().join("bin")));
        folders.filter_map(|bin| Self::at(&bin)).max_by_key(|found| (found.major, found.minor))
    }

    fn at(bin: &Path) -> Option<Self> {
        if !bin.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
        let (major, minor) = version(std::str::from_utf8(&output.stdout).ok()?)?;
        (major >= MAJOR_MIN).then(|| Self { bin: bin.to_owned(), major, minor })
    }

    pub fn major(&self) -> u32 {
        self.major
    }

    pub fn minor(&self) -> u32 {
        self.minor
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The server program for a directory of another version, which only that version can read.
    pub(crate) fn server_of(&self, major: u32) -> Option<PathBuf> {
        if major == self.major {
            return Some(self.program("postgres"));
        }
        Some(Path::new(DEBIAN).join(major.to_string()).join("bin/postgres"))
            .filter(|program| program.is_file())
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15 and 18.
fn version(text: &str) -> Option<(u32, u32)> {
    let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let (major, minor) = word.split_once('.').unwrap_or((word, "0"));
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    Some((digits(major).parse().ok()?, digits(minor).parse().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some((15, 18)));
        assert_eq!(version("postgres (PostgreSQL) 18beta1\n"), Some((18, 0)));
        assert_eq!(version("something else"), None);
    }
}
