//! Running a command in a machine.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Access, access};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_gid, set_thread_groups, set_thread_uid,
};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::record::{Folder, Record, Run};
use super::{environment, launch, users};
use crate::host::variable_os;

const ENDED: &str = "the machine has just ended";

#[derive(clap::Args)]
pub struct Enter {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    user: Option<String>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// What a command in a machine is at first: this program, which goes to the machine's files and takes on the command's user
/// with all of its groups.
#[derive(clap::Args)]
pub struct Become {
    /// The descriptor of the machine's mount namespace.
    #[arg(long)]
    mounts: RawFd,
    /// Absent on a machine that has one user.
    #[arg(long)]
    uid: Option<u32>,
    /// The user's own comes first.
    #[arg(long = "gid")]
    gids: Vec<u32>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Replaces this process by one of a single thread that enters the machine and runs the command.
pub fn become_enter(
    folder: &Folder,
    user: Option<&str>,
    command: &[OsString],
    input: Stdio,
) -> Result<ExitCode> {
    let mut process = std::process::Command::new(launch::own_program()?);
    process.stdin(input).arg(super::INIT).arg("enter").arg("--folder").arg(folder.path());
    if let Some(user) = user {
        process.arg("--user").arg(user);
    }
    Err(process.arg("--").args(command).exec()).context("cannot start this program again")
}

pub fn run(enter: Enter) -> Result<ExitCode> {
    let folder = Folder::new(enter.folder.clone());
    let record = folder.record()?;
    let run = folder.running().with_context(|| format!("machine {} does not run", record.name))?;
    let known = Known {
        passwd: std::fs::read_to_string(folder.passwd())?,
        group: std::fs::read_to_string(folder.group())?,
    };
    let fallback = launch::needs_fallback(record.isolation);
    let mounts = join(&run).with_context(|| format!("cannot enter machine {}", record.name))?;
    let command = prepare(&enter, &record, &known, fallback, &mounts)?;
    // Threads are not possible here: a process whose children go to another process list cannot have any.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(supervise(command))?;
    Ok(exit_code(status))
}

/// Enters the namespaces of the machine's holder, the user namespace first: it gives the right to the others. All but that
/// of its mounts, which is given back: the machine's root says what is found where in there, and this process starts a
/// program that is not the machine's.
fn join(run: &Run) -> Result<File> {
    let own = |kind: &str| std::fs::metadata(format!("/proc/self/ns/{kind}")).map(|file| file.ino()).ok();
    let open_of = |kind: &str| {
        let path = format!("/proc/{}/ns/{kind}", run.pid);
        match File::open(&path) {
            Err(_) if !run.is_alive() => bail!(ENDED),
            opened => opened.with_context(|| format!("cannot open {path}")),
        }
    };
    let mut wanted = vec![("user", LinkNameSpaceType::User)];
    if run.own_processes {
        wanted.push(("pid", LinkNameSpaceType::ProcessID));
    }
    wanted.push(("net", LinkNameSpaceType::Network));
    wanted.push(("uts", LinkNameSpaceType::HostNameAndNISDomainName));
    let mut open = Vec::new();
    for (kind, number) in wanted {
        let file = open_of(kind)?;
        if Some(file.metadata()?.ino()) != own(kind) {
            open.push((kind, number, file));
        }
    }
    let mounts = open_of("mnt")?;
    // A user namespace gives its maker all rights over what enters it.
    if run.is_another_users() {
        bail!("process {}, which is to hold it, is another user's", run.pid);
    }
    // Last: all that was found out is of the process that is on record.
    if !run.is_alive() {
        bail!(ENDED);
    }
    for (kind, number, file) in open {
        move_into_link_name_space(file.as_fd(), Some(number))
            .with_context(|| format!("its {kind} namespace"))?;
    }
    Ok(mounts)
}

/// The machine's users and groups, as its own files have them now.
struct Known {
    passwd: String,
    group: String,
}

#[allow(clippy::disallowed_methods, reason = "a command in a machine gets the caller's environment")]
fn prepare(enter: &Enter, record: &Record, known: &Known, fallback: bool, mounts: &File) -> Result<Command> {
    let callers = std::env::var("PATH").unwrap_or_default();
    let path = environment::path(&callers, fallback);
    // This program, by the host's /proc: the one in the machine may be older, or another.
    let mut command = Command::new("/proc/self/exe");
    command.arg(super::INIT).arg("become").arg(format!("--mounts={}", mounts.as_raw_fd()));
    fcntl_setfd(mounts, FdFlags::empty())?;
    let user = enter.user.as_deref().unwrap_or("root");
    let login = users::find_login(&known.passwd, user)
        .with_context(|| format!("machine {} has no user {user}", record.name))?;
    if record.isolation.separates_users() {
        let others = users::groups_of(&known.group, user).filter(|gid| record.isolation.has_group(*gid));
        let groups = std::iter::once(login.account.gid).chain(others);
        command.arg(format!("--uid={}", login.account.uid)).args(groups.map(|gid| format!("--gid={gid}")));
    } else if login.account.uid != 0 {
        bail!(
            "machine {} has no other user than root: {}",
            record.name,
            record.isolation.note().unwrap_or_default()
        );
    }
    command.arg("--").args(&enter.command);
    for (name, _) in std::env::vars_os() {
        if !environment::is_passed_on(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.env("PATH", &path).envs(environment::variables(record.domain.as_deref()));
    if enter.user.is_some() {
        command.env("HOME", &login.home).env("USER", user).env("LOGNAME", user);
    }
    Ok(command)
}

/// Becomes the command.
pub fn become_command(wanted: &Become) -> Result<ExitCode> {
    let Some((name, arguments)) = wanted.command.split_first() else { bail!("there is no command") };
    go_to_files(wanted.mounts).context("cannot enter the machine's mount namespace")?;
    if let Some(uid) = wanted.uid {
        let groups: Vec<Gid> = wanted.gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let own = groups.first().context("the user has no group")?;
        set_thread_groups(&groups).context("cannot take on the user's groups")?;
        set_thread_gid(*own).context("cannot take on the user's group")?;
        set_thread_uid(Uid::from_raw(uid)).context("cannot take on the user")?;
    }
    let error = match find(name.as_ref(), &variable_os("PATH").unwrap_or_default()) {
        Some(program) => std::process::Command::new(program).arg0(name).args(arguments).exec(),
        None => std::io::ErrorKind::NotFound.into(),
    };
    not_started(&error, name)
}

/// Stays in the directory where it is, if the machine has it too.
fn go_to_files(mounts: RawFd) -> Result<()> {
    let here = std::env::current_dir().ok();
    let mounts = File::open(format!("/proc/self/fd/{mounts}"))?;
    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
    // That led to its root.
    let landed = here.is_some_and(|path| std::env::set_current_dir(path).is_ok());
    if !landed {
        std::env::set_current_dir("/")?;
    }
    Ok(())
}

/// Looks for a program as a shell of the user does, on the machine's path: goes on where the user may not enter or run what
/// is there. What may not be run is told only where there is nothing else.
fn find(program: &Path, path: &OsStr) -> Option<PathBuf> {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Some(program.to_owned());
    }
    let found =
        || std::env::split_paths(path).map(|folder| folder.join(program)).filter(|file| file.is_file());
    found().find(|file| access(file, Access::EXEC_OK).is_ok()).or_else(|| found().next())
}

/// Runs the command and passes signals on to it. A terminal sends its own to the command as well, so those are
/// only kept from ending this process before the command has ended.
async fn supervise(mut command: Command) -> Result<ExitStatus> {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut first = signal(SignalKind::user_defined1())?;
    let mut second = signal(SignalKind::user_defined2())?;
    let mut child = command.spawn().context("cannot start this program again")?;
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    loop {
        let wanted = tokio::select! {
            status = child.wait() => return Ok(status?),
            _ = interrupt.recv() => (!terminal).then_some(Signal::INT),
            _ = quit.recv() => (!terminal).then_some(Signal::QUIT),
            _ = terminate.recv() => Some(Signal::TERM),
            _ = hang_up.recv() => Some(Signal::HUP),
            _ = first.recv() => Some(Signal::USR1),
            _ = second.recv() => Some(Signal::USR2),
        };
        if let (Some(pid), Some(wanted)) = (pid, wanted) {
            let _ = rustix::process::kill_process(pid, wanted);
        }
    }
}

/// What a shell says and returns for a command that is not there or cannot be run.
fn not_started(error: &std::io::Error, name: &OsStr) -> Result<ExitCode> {
    let (text, code) = match error.kind() {
        std::io::ErrorKind::NotFound => ("command not found".to_owned(), 127),
        _ => (error.to_string(), 126),
    };
    writeln!(std::io::stderr(), "arcadia: {}: {text}", name.to_string_lossy())?;
    Ok(ExitCode::from(code))
}

/// The command's own status; 128 + the signal's number when a signal ended it, as shells have it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|number| 128 + number)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_users_process_is_not_entered() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mut other = std::process::Command::new("sleep");
        let mut other = other.arg("60").uid(65534).spawn().unwrap();
        let run = Run::of(other.id().cast_signed(), false, Default::default()).unwrap();
        let told = join(&run).map(|_| ()).unwrap_err().to_string();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(told.contains("another user's"), "{told}");
    }
}
