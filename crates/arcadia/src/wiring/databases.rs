//! Where database servers live on this machine, and what they run as.

use std::path::{Path, PathBuf};

use arcadia_postgres::{Account, Installation, Place};

use crate::host::{is_root, variable_os};
use crate::site::DataDir;

/// The user that Debian's package makes, and one that every system has.
const USERS: [&str; 2] = ["postgres", "nobody"];

pub fn place(data: &DataDir) -> Place {
    let folder = data.postgres_folder();
    let search_path: Vec<PathBuf> =
        variable_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    // Servers refuse to run as root.
    let account = if is_root() { account() } else { None };
    let installation = Installation::find(&search_path);
    Place { folder, account, installation }
}

fn account() -> Option<Account> {
    let passwd = std::fs::read_to_string(Path::new("/etc/passwd")).ok()?;
    USERS.iter().find_map(|user| of(&passwd, user))
}

fn of(passwd: &str, user: &str) -> Option<Account> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.first() == Some(&user))?;
    let number = |at: usize| fields.get(at)?.parse::<u32>().ok().filter(|number| *number != 0);
    Some(Account { uid: number(2)?, gid: number(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_read_and_root_is_none() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres:x:101:104:PostgreSQL:/var/lib/postgresql:/bin/bash\nnobody:x\n";
        assert_eq!(of(passwd, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(of(passwd, "root"), None);
        assert_eq!(of(passwd, "nobody"), None);
    }
}
