//! The processes that make up a machine.
//!
//! `begin` leaves the host's namespaces, which only a process of one thread can do, starts `hold` in them as
//! the first process of the machine's process list, says its number and ends. `hold` furnishes the machine,
//! keeps the forwarder and the agent's daemon running, and collects what ends. `enter` runs a command in a
//! machine, which `become` turns into as the user that it is for. `empty` removes a machine's files that belong to users of
//! its user namespace.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use arcadia_kernel::{GIVE_WAY_AFTER, Places};
use clap::Parser;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::UnshareFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::forward::{CONNECTIONS_MAX, forward};
use super::record::{Folder, Record};
use super::removal::remove_tree;
use crate::host::raise_file_limit;
use crate::net::{DATABASE_PORT, FIRST_DATABASE_ADDRESS};

use super::{HIMDS_PORT, INIT, PROXY_PORT, enter, environment, loopback, mounts};

const NO_SITE: &str = "The site of this machine is not up; start it with: arcadia up\n";
const DAEMON_STOP_SECONDS: u64 = 5;
const DAEMON_RESTART_MILLISECONDS: u64 = 500;

#[derive(Parser)]
#[command(name = INIT, hide = true)]
enum Part {
    Begin(Begin),
    Hold(Begin),
    Enter(enter::Enter),
    Become(enter::Become),
    Empty {
        #[arg(long)]
        folder: PathBuf,
    },
}

#[derive(clap::Args, Clone)]
struct Begin {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    proxy_socket: PathBuf,
    #[arg(long)]
    database_socket: PathBuf,
    #[arg(long)]
    no_process_list: bool,
}

pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let part = match Part::try_parse_from(std::iter::once(OsString::from(INIT)).chain(arguments)) {
        Ok(part) => part,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(2);
        }
    };
    let done = match part {
        Part::Begin(begin) => told(begin_machine(&begin)),
        Part::Empty { folder } => told(empty(&Folder::new(folder))),
        Part::Hold(begin) => hold(&begin).map(|()| ExitCode::SUCCESS),
        Part::Enter(enter) => enter::run(enter),
        Part::Become(wanted) => enter::become_command(&wanted),
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "arcadia: {error:#}");
        ExitCode::FAILURE
    })
}

/// Passes an error to the process that started this one.
fn told(done: Result<()>) -> Result<ExitCode> {
    if let Err(error) = &done {
        let text = format!("{error:#}").replace('\n', "; ");
        say(&format!("error {text}"))?;
    }
    done.map(|()| ExitCode::SUCCESS)
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{line}").and_then(|()| output.flush()).context("nobody listens")
}

fn begin_machine(begin: &Begin) -> Result<()> {
    let record = Folder::new(begin.folder.clone()).record()?;
    let _ = rustix::process::setsid();
    // Whoever starts a machine may have a narrower one, and the machine's users would not get into its folders.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    enter_user_namespace(&record)?;
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWUTS;
    if !begin.no_process_list {
        flags |= UnshareFlags::NEWPID;
    }
    unshare(flags).with_context(|| {
        if record.isolation.in_user_namespace() {
            "this host does not let its users make namespaces (see the sysctls user.max_user_namespaces, \
             kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns); as root it works"
        } else {
            "root may not make namespaces here; a container needs --privileged, or --cap-add SYS_ADMIN with \
             --security-opt seccomp=unconfined"
        }
    })?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(INIT).arg("hold").arg("--folder").arg(&begin.folder);
    command.arg("--proxy-socket").arg(&begin.proxy_socket);
    command.arg("--database-socket").arg(&begin.database_socket);
    if begin.no_process_list {
        command.arg("--no-process-list");
    }
    // The log is this process's standard error.
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    say(&format!("holder {}", child.id()))
}

fn enter_user_namespace(record: &Record) -> Result<()> {
    if !record.isolation.in_user_namespace() {
        return Ok(());
    }
    unshare(UnshareFlags::NEWUSER).context(
        "this host does not let its users make user namespaces (sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone); as root it works",
    )?;
    say("map")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() != "mapped" {
        bail!("the machine's users were not mapped");
    }
    Ok(())
}

#[allow(
    deprecated,
    reason = "the replacement is unsafe for the sake of one flag, FILES, which is not used here"
)]
fn unshare(flags: UnshareFlags) -> Result<()> {
    Ok(rustix::thread::unshare(flags)?)
}

fn empty(folder: &Folder) -> Result<()> {
    enter_user_namespace(&folder.record()?)?;
    for part in [folder.var(), folder.opt()] {
        remove_tree(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    Ok(())
}

fn hold(begin: &Begin) -> Result<()> {
    let folder = Folder::new(begin.folder.clone());
    let held = furnish(&folder, begin).and_then(|record| match record {
        Some(record) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, serve(&folder, &record, begin))
        }
        None => Ok(()),
    });
    if let Err(error) = &held {
        let _ = fs::write(folder.status(), format!("{error:#}"));
    }
    held
}

/// Makes the machine's inside. None when it has to be begun again without a process list of its own.
fn furnish(folder: &Folder, begin: &Begin) -> Result<Option<Record>> {
    let record = folder.record()?;
    let program = std::env::current_exe()?;
    mounts::separate()?;
    if !begin.no_process_list && !mounts::process_list()? {
        fs::write(folder.status(), "no-process-list")?;
        return Ok(None);
    }
    rustix::system::sethostname(record.name.as_str().as_bytes())
        .context("cannot set the machine's host name")?;
    loopback::up().context("cannot bring the machine's loopback up")?;
    mounts::furnish(folder, record.isolation, &program)?;
    if record.isolation.separates_users() {
        arcadia_agent::Layout::new(arcadia_agent::DEFAULT_ROOT.into()).install()?;
        own(Path::new(super::users::ARCADMIN_HOME), record.arcadmin.uid, record.arcadmin.gid)?;
    }
    Ok(Some(record))
}

fn own(path: &Path, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chown(path, Some(uid), Some(gid))
        .with_context(|| format!("cannot change the owner of {}", path.display()))
}

async fn serve(folder: &Folder, record: &Record, begin: &Begin) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut children = signal(SignalKind::child())?;
    raise_file_limit();
    let places = || Places::new(CONNECTIONS_MAX, GIVE_WAY_AFTER);
    let listener = TcpListener::bind(("127.0.0.1", PROXY_PORT)).await?;
    tokio::spawn(forward(listener, begin.proxy_socket.clone(), Some(NO_SITE), places()));
    let databases = TcpListener::bind((FIRST_DATABASE_ADDRESS, DATABASE_PORT)).await?;
    tokio::spawn(forward(databases, begin.database_socket.clone(), None, places()));
    let status = folder.status();
    tokio::task::spawn_local(async move {
        wait_for_himds().await;
        let _ = fs::write(status, "ready");
    });
    let mut daemon = Some(start_daemon(record)?);
    loop {
        let restart = async {
            match daemon {
                Some(_) => std::future::pending::<()>().await,
                None => tokio::time::sleep(Duration::from_millis(DAEMON_RESTART_MILLISECONDS)).await,
            }
        };
        tokio::select! {
            _ = terminated.recv() => break,
            _ = children.recv() => {
                for pid in collect() {
                    if daemon == Some(pid) {
                        complain("the agent's daemon ended; it is started again");
                        daemon = None;
                    }
                }
            }
            () = restart => daemon = start_daemon(record).inspect_err(|error| complain(&format!("{error:#}"))).ok(),
        }
    }
    stop_daemon(daemon).await;
    Ok(())
}

/// Collects every process that has ended. The machine's first process inherits those whose parent is gone.
fn collect() -> Vec<Pid> {
    let mut ended = Vec::new();
    while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
        ended.push(pid);
    }
    ended
}

/// Starts the agent's daemon as `himds`, with nothing of the caller's environment. It keeps its own log; what it
/// says before it has one goes to the machine's.
fn start_daemon(record: &Record) -> Result<Pid> {
    let mut command = Command::new(Path::new(environment::BIN).join("himds"));
    let variables = environment::variables(record.domain.as_deref());
    command.env_clear().env("PATH", environment::path("", false)).envs(variables);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    if record.isolation.separates_users() {
        command.uid(record.himds.uid).gid(record.himds.gid);
    }
    let child = command.spawn().context("cannot start the agent's daemon")?;
    Pid::from_raw(child.id().cast_signed()).context("a process without a number")
}

async fn stop_daemon(daemon: Option<Pid>) {
    let Some(pid) = daemon else { return };
    let _ = rustix::process::kill_process(pid, Signal::TERM);
    for _ in 0..DAEMON_STOP_SECONDS * 50 {
        if collect().contains(&pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

/// Waits until something answers HTTP on the machine's HIMDS port.
async fn wait_for_himds() {
    while answers().await.is_none() {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

async fn answers() -> Option<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", HIMDS_PORT)).await.ok()?;
    let request =
        b"GET /metadata/versions HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut first = [0_u8; 7];
    stream.read_exact(&mut first).await.ok()?;
    (&first == b"HTTP/1.").then_some(())
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
