//! `arcadia machine`: connected machines as Linux namespaces.
//!
//! A machine has its own loopback (so its own 127.0.0.1:40342), its own `/var/opt/azcmagent`,
//! `/opt/azcmagent`, `/etc/hosts` and users, its own host name and process list. Everything else of the
//! file system is the host's. It has no route to anywhere: a forwarder in it carries the proxy port of its
//! loopback to the site's Unix socket, and that is its only way out.
//!
//! | file | what |
//! |---|---|
//! | `name`, `record` | names, what is kept on disk, which process holds a machine |
//! | `users`, `sudo`, `environment` | what a machine looks like from inside |
//! | `isolation` | how namespaces are had: as root, or in a user namespace with or without subordinate ids |
//! | `launch`, `holder`, `mounts`, `loopback` | starting a machine and being one |
//! | `forward` | the way from a machine to its site |
//! | `enter` | running something in a machine |
//! | `copy` | a machine in a backup |
//! | `removal` | removing a folder whose depth others have chosen |
//! | `command` | the command line |

mod command;
mod copy;
mod enter;
mod environment;
mod forward;
mod holder;
mod isolation;
mod launch;
mod loopback;
mod mounts;
mod name;
mod record;
mod removal;
mod sudo;
mod users;

pub use command::{Command, run};
pub use copy::{Omitted, copy};
pub use isolation::on_path;
pub use launch::{all, restart_all, stop_all};
pub use removal::remove_tree;

use std::path::PathBuf;
use std::process::ExitCode;

/// The hidden first argument of the processes that make up a machine.
pub const INIT: &str = "machine-init";

/// Where the HIMDS of every machine listens, on the machine's own loopback.
pub const HIMDS_PORT: u16 = 40342;

/// Where a machine's forwarder to the site's proxy listens, on the machine's own loopback.
pub const PROXY_PORT: u16 = 40344;

/// The parts of a running site that machines use.
#[derive(Clone, Debug)]
pub struct Site {
    /// The site's data directory; machines live in its `machines` folder.
    pub data: PathBuf,
    /// The Unix socket on which the site's CONNECT proxy answers.
    pub proxy_socket: PathBuf,
    /// The Unix socket on which the databases' gateway answers.
    pub database_socket: PathBuf,
    /// PEM file with the roots that clients on a machine shall trust.
    pub ca_bundle: PathBuf,
    /// The domain of a site that has names of its own.
    pub domain: Option<String>,
}

/// Whether root, `himds` and `arcadmin` will be different users on a machine that this caller makes.
pub fn users_are_separate() -> bool {
    isolation::Isolation::detect().separates_users()
}

/// What this process does when it was started as part of a machine. To be done while it still has a single thread: the
/// kernel lets only such a process change its user namespace.
pub fn part() -> Option<impl FnOnce() -> ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let is_part = arguments.next().is_some_and(|first| first == INIT);
    is_part.then_some(move || holder::main(arguments))
}
