//! What goes wrong with servers, and how a client of the resource manager is told.

use std::io;
use std::path::{Path, PathBuf};

use arcadia_kernel::Fault;

/// A server's word for it.
const DISK_FULL: &str = "53100";

/// A fault of a server or of its files. Logged in full; a client learns only what [`Fault`] says.
#[derive(Debug, thiserror::Error)]
pub enum ServerFault {
    #[error("PostgreSQL is not installed; install it with: apt-get install postgresql")]
    NotInstalled,
    #[error(
        "the server's files are of PostgreSQL {major}; install it with: apt-get install postgresql-{major}"
    )]
    OtherVersion { major: u32 },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// What a copy is written to, which only its caller can name: no fault of a server's.
    #[error("the copy cannot be written: {0}")]
    Target(io::Error),
    #[error("{program} failed ({status}): {said}")]
    Program { program: &'static str, status: String, said: String },
    #[error("the server does not accept connections yet")]
    NotReady,
    #[error("the connection to the server broke: {0}")]
    Connection(#[from] io::Error),
    #[error("the server refuses: {}", said(.0))]
    Sql(#[from] tokio_postgres::Error),
    #[error(
        "{path} leads out of the server's directory, and a copy of it would not be whole; drop the tablespace"
    )]
    Tablespace { path: PathBuf },
    #[error("{} has too little space free", .path.display())]
    NoRoom { path: PathBuf },
    #[error(
        "its role \"{role}\" is, or has the number of, one that runs programs and reaches files as the user that servers run \
         as, so whoever has the role may have had every server of this site; delete the server, or restore a backup of before"
    )]
    BrokenOpen { role: String },
    #[error("a task of the server's broke off")]
    Broken,
}

/// In the server's words; a statement is not among them. The library's own say only that there was an error.
fn said(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |told| format!("{} {}", told.code().code(), told.message()))
}

impl ServerFault {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    /// Whether it was the disk that is full, for this program or for the server.
    fn is_for_want_of_room(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::File { source, .. } | Self::Target(source) => source.kind() == io::ErrorKind::StorageFull,
            _ => self.code() == Some(DISK_FULL),
        }
    }

    /// The code of a refusal that no time changes.
    fn for_good(&self) -> Option<&str> {
        self.code().filter(|code| stays(code))
    }

    /// The five characters of a refusal by the server.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Sql(error) => error.code().map(tokio_postgres::error::SqlState::code),
            _ => None,
        }
    }
}

impl From<ServerFault> for Fault {
    fn from(fault: ServerFault) -> Self {
        match fault {
            ServerFault::NotInstalled => not_installed(),
            ServerFault::NotReady => not_ready().caused_by(ServerFault::NotReady),
            fault if fault.is_for_want_of_room() => no_room().caused_by(fault),
            fault => match fault.for_good().map(refused) {
                Some(refused) => refused.caused_by(fault),
                None => Fault::internal(fault),
            },
        }
    }
}

/// Whether a refusal is of what is asked for, and not of when: a role or database that came or went meanwhile is looked up
/// again.
fn stays(code: &str) -> bool {
    const COME_AND_GONE: [&str; 3] = ["42704", "42710", "42P04"];
    ["42", "0L", "2B"].iter().any(|class| code.starts_with(class)) && !COME_AND_GONE.contains(&code)
}

/// 409: what somebody made in the server is in the way.
fn refused(code: &str) -> Fault {
    let message = format!(
        "PostgreSQL in the server refuses what the operation needs, with the code {code}; its words are in the site's log. \
         Undo in SQL what is in the way, such as a membership of azure_pg_admin in the role, and retry."
    );
    Fault::conflict("ServerRefuses", message)
}

/// 503: it starts, recovers, or cannot start, which the site's log says.
fn not_ready() -> Fault {
    Fault::unavailable(
        "The database server does not take connections at the moment. Retry in a while; if it stays so, the site's log \
         names the cause.",
    )
}

/// 409: nothing is made, so that nothing has to be undone once the package is there.
pub(crate) fn not_installed() -> Fault {
    Fault::conflict(
        "PostgreSqlNotInstalled",
        "PostgreSQL is not installed on the machine that runs this site. Install it there with 'apt-get install \
         postgresql' (or your system's package) and retry.",
    )
}

/// 409: an operation that meets it ends, and leaves nothing behind that would take the rest of the space.
fn no_room() -> Fault {
    Fault::conflict(
        "InsufficientStorage",
        "There is not enough free space on the disk of this site's database servers. Free some there and retry.",
    )
}

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::bad_request("InvalidParameterValue", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_time_changes_is_not_tried_again() {
        for code in ["0LP01", "2BP01", "42501", "42939", "42P01"] {
            assert!(stays(code), "{code}");
        }
        for code in ["42704", "42710", "42P04", "40P01", "53300", "55P03", "57014", "57P03", "XX000", "23505"]
        {
            assert!(!stays(code), "{code}");
        }
        assert_eq!(refused("0LP01").status, 409);
    }
}
