//! A machine's users: the host's, and `himds` and `arcadmin`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The user and group of the agent's daemon; members of the group may read challenge files.
pub const HIMDS: &str = "himds";

/// The ordinary user of the walk-through.
pub const ARCADMIN: &str = "arcadmin";

/// The home of [`ARCADMIN`], inside the machine's own `/opt/azcmagent`, so that the host's `/home` stays as it is.
pub const ARCADMIN_HOME: &str = "/opt/azcmagent/home/arcadmin";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// The texts of a machine's `/etc/passwd` and `/etc/group`.
#[derive(Debug)]
pub struct Users {
    pub passwd: String,
    pub group: String,
    pub himds: Account,
    pub arcadmin: Account,
}

/// Adds `himds` and `arcadmin` to the host's users, with ids that are free there. A password field of `*`
/// rather than `x` keeps PAM from looking for them in `/etc/shadow`, which stays the host's.
pub fn compose(passwd: &str, group: &str) -> Users {
    let mut taken: BTreeSet<u32> = [passwd, group].iter().flat_map(|text| ids(text)).collect();
    let mut users = Users {
        passwd: terminated(passwd),
        group: terminated(group),
        himds: Account { uid: 0, gid: 0 },
        arcadmin: Account { uid: 0, gid: 0 },
    };
    users.himds =
        users.ensure(HIMDS, (100..1000).rev(), &mut taken, "/var/opt/azcmagent", "/usr/sbin/nologin");
    users.arcadmin = users.ensure(ARCADMIN, 1000..60000, &mut taken, ARCADMIN_HOME, "/bin/bash");
    users
}

impl Users {
    fn ensure(
        &mut self,
        name: &str,
        mut candidates: impl Iterator<Item = u32>,
        taken: &mut BTreeSet<u32>,
        home: &str,
        shell: &str,
    ) -> Account {
        if let Some(account) = find(&self.passwd, name) {
            return account;
        }
        let id = candidates.find(|id| !taken.contains(id)).unwrap_or(60001);
        taken.insert(id);
        let gid = group_id(&self.group, name).unwrap_or_else(|| {
            self.group.push_str(&format!("{name}:x:{id}:\n"));
            id
        });
        self.passwd.push_str(&format!("{name}:*:{id}:{gid}:{name}:{home}:{shell}\n"));
        Account { uid: id, gid }
    }
}

/// A user's line of a passwd file.
#[derive(Debug, PartialEq, Eq)]
pub struct Login {
    pub account: Account,
    pub home: String,
}

pub fn find_login(passwd: &str, name: &str) -> Option<Login> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let fields: Vec<&str> = line.split(':').collect();
    let account = Account { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? };
    Some(Login { account, home: (*fields.get(5)?).to_owned() })
}

/// The groups whose lines of a group file name the user.
pub fn groups_of(group: &str, name: &str) -> impl Iterator<Item = u32> {
    group.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let (gid, members) = (fields.next()?.parse().ok()?, fields.next()?);
        members.split(',').any(|member| member.trim() == name).then_some(gid)
    })
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    find_login(passwd, name).map(|login| login.account)
}

fn group_id(group: &str, name: &str) -> Option<u32> {
    let line = group.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

fn ids(text: &str) -> impl Iterator<Item = u32> {
    text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok())
}

fn terminated(text: &str) -> String {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nsys:x:999:998::/:/usr/sbin/nologin\nme:x:1000:1000::/home/me:/bin/sh";
    const GROUP: &str = "root:x:0:\nsys:x:998:\nme:x:1000:\n";

    #[test]
    fn new_users_get_free_ids_and_the_old_ones_stay() {
        let users = compose(PASSWD, GROUP);
        assert_eq!(users.himds, Account { uid: 997, gid: 997 });
        assert_eq!(users.arcadmin, Account { uid: 1001, gid: 1001 });
        assert!(users.passwd.starts_with(PASSWD));
        assert!(users.passwd.contains("\nhimds:*:997:997:himds:/var/opt/azcmagent:/usr/sbin/nologin\n"));
        assert!(users.group.ends_with("himds:x:997:\narcadmin:x:1001:\n"));
    }

    #[test]
    fn a_host_with_the_users_keeps_its_own() {
        let passwd = format!("{PASSWD}\nhimds:x:120:121::/:/bin/false\n");
        let users = compose(&passwd, &format!("{GROUP}himds:x:121:\n"));
        assert_eq!(users.himds, Account { uid: 120, gid: 121 });
        assert_eq!(users.passwd.matches("himds:").count(), 1);
    }

    #[test]
    fn a_group_without_its_user_is_used() {
        let users = compose(PASSWD, "himds:x:55:\n");
        assert_eq!(users.himds.gid, 55);
        assert_eq!(users.group.matches("himds").count(), 1);
    }

    #[test]
    fn groups_are_those_that_name_the_whole_user() {
        let group =
            "root:x:0:\nhimds:x:997:sys,me\nother:x:55:me2, me\nme:x:1000:\nbroken:x:y:me\nshort:x:7\n";
        assert_eq!(groups_of(group, "me").collect::<Vec<_>>(), [997, 55]);
        assert_eq!(groups_of(group, "m").count(), 0);
    }

    #[test]
    fn logins_are_found_by_whole_name() {
        assert_eq!(find_login(PASSWD, "me").unwrap().home, "/home/me");
        assert_eq!(find_login(PASSWD, "m"), None);
        assert_eq!(find_login("short:x", "short"), None);
    }
}
