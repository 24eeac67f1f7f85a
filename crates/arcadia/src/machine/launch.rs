//! Making, starting, stopping and removing machines, seen from the host.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink,
};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};

use super::isolation::{Isolation, on_path};
use super::name::MachineName;
use super::record::{Folder, Record, Run, SCHEMA, identity, processes_of};
use super::removal::remove_tree;
use super::{INIT, Site, environment, sudo, users};

const START_SECONDS_MAX: u64 = 30;
const STOP_SECONDS_MAX: u64 = 8;
/// How the name of a folder begins that is being removed.
const GONE: &str = ".gone-";

/// Makes the folder of a new machine and starts it. A machine that does not start leaves nothing behind.
pub fn create(site: &Site, name: &MachineName) -> Result<Record> {
    let folder = Folder::new(name.folder(&site.data));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(site.data.join("machines"))?;
    match fs::DirBuilder::new().mode(0o700).create(folder.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("there is a machine {name} already; `arcadia machine delete {name}` removes it");
        }
        made => made.with_context(|| format!("cannot make {}", folder.path().display()))?,
    }
    let machine = Locked::take(&folder)?;
    let made =
        furnish(&folder, name, site.domain.clone()).and_then(|record| machine.start(site).map(|()| record));
    if made.is_err() {
        let _ = machine.stop();
        let _ = machine.remove();
    }
    made
}

/// Starts a machine unless it runs.
pub fn start(site: &Site, folder: &Folder) -> Result<()> {
    Locked::take(folder)?.start(site)
}

/// Waits while somebody else starts or stops the machine: a site that is up may still be starting it.
pub fn settle(folder: &Folder) -> Result<()> {
    Locked::take(folder).map(|_| ())
}

/// Stops a machine: its daemon first, then whatever else runs in it.
pub fn stop(folder: &Folder) -> Result<()> {
    Locked::take(folder)?.stop()
}

/// Stops a machine and removes its files.
pub fn delete(data: &Path, name: &MachineName) -> Result<()> {
    let folder = existing(data, name)?;
    let machine = Locked::take(&folder)?;
    machine.stop()?;
    machine.remove()
}

/// A machine that nobody else starts, stops or deletes meanwhile.
struct Locked<'a> {
    folder: &'a Folder,
    _file: File,
}

impl<'a> Locked<'a> {
    fn take(folder: &'a Folder) -> Result<Self> {
        loop {
            let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.lock());
            let file = match opened {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(missing(folder.name()));
                }
                opened => opened.with_context(|| format!("cannot open {}", folder.lock().display()))?,
            };
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            // Who had it until now may have deleted the machine, and another one may have been made since.
            let locked = file.metadata()?;
            if identity(&folder.lock()) == Some((locked.dev(), locked.ino())) {
                return Ok(Self { folder, _file: file });
            }
        }
    }

    fn start(&self, site: &Site) -> Result<()> {
        let folder = self.folder;
        if folder.running().is_some_and(|run| run.sockets == sockets(site)) {
            return Ok(());
        }
        // Where the site was moved, the machine may still run and not reach it any more.
        self.stop()?;
        refresh(folder, site)?;
        let record = folder.record()?;
        let _ = fs::remove_file(folder.status());
        let run = match hold(folder, &record, site, true)? {
            Held::Running(run) => run,
            // Where parts of /proc are masked, as in most containers, the kernel gives a new one to nobody.
            Held::NoProcessList => match hold(folder, &record, site, false)? {
                Held::Running(run) => run,
                Held::NoProcessList => {
                    bail!("the machine asked twice to go without a process list of its own")
                }
            },
        };
        folder.write_run(&run)
    }

    fn stop(&self) -> Result<()> {
        let folder = self.folder;
        let running = folder.running();
        let network = running.as_ref().and_then(Run::keep_network);
        if let Some(run) = running {
            if run.is_another_users() {
                bail!("process {}, which is to hold the machine, is another user's", run.pid);
            }
            signal(run.pid, Signal::TERM);
            if !run.ends_within(Duration::from_secs(STOP_SECONDS_MAX)) {
                signal(run.pid, Signal::KILL);
                if !run.ends_within(Duration::from_secs(2)) {
                    bail!("the machine's process {} does not end", run.pid);
                }
            }
        }
        end_stragglers(folder, network);
        folder.forget_run();
        Ok(())
    }

    /// Removes the files of a machine that does not run. First they get a name that is no machine's, so that nobody starts
    /// what is left of it.
    fn remove(self) -> Result<()> {
        let path = self.folder.path();
        let context = || format!("cannot remove {}", path.display());
        // By its number, which no other folder has that could not be removed.
        let number = fs::metadata(path).with_context(context)?.ino();
        let gone = Folder::new(path.with_file_name(format!("{GONE}{number}")));
        fs::rename(path, gone.path()).with_context(context)?;
        remove_files(&gone)
    }
}

/// Removes what is left of machines whose deletion did not come to its end. What cannot be removed is tried again; why, is
/// returned.
pub fn sweep(data: &Path) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    for entry in fs::read_dir(data.join("machines")).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(GONE.as_bytes()) {
            continue;
        }
        let folder = Folder::new(entry.path());
        let lock = OpenOptions::new().append(true).open(folder.lock());
        let is_held =
            |file: &File| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_err();
        if !lock.as_ref().is_ok_and(is_held) {
            // What another sweep has removed meanwhile is no error.
            errors.extend(remove_files(&folder).err().filter(|_| folder.path().symlink_metadata().is_ok()));
        }
    }
    errors
}

fn missing(name: impl Display) -> anyhow::Error {
    anyhow!(
        "there is no machine {name}; `arcadia machine list` shows those that are, `arcadia machine create {name}` makes it"
    )
}

/// The folder of a machine that exists.
pub fn existing(data: &Path, name: &MachineName) -> Result<Folder> {
    let folder = Folder::new(name.folder(data));
    if !folder.path().is_dir() {
        return Err(missing(name));
    }
    Ok(folder)
}

/// The machines of a data directory, by name.
pub fn all(data: &Path) -> Result<Vec<(MachineName, Folder)>> {
    let entries = match fs::read_dir(data.join("machines")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().and_then(|text| text.parse::<MachineName>().ok()) {
            found.push((name, Folder::new(entry.path())));
        }
    }
    found.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(found)
}

/// Starts every machine of a site that does not run; `arcadia up` calls it when the site can serve.
pub fn restart_all(site: &Site) -> Result<Vec<(MachineName, Result<()>)>> {
    for error in sweep(&site.data) {
        tracing::warn!("what is left of a deleted machine stays: {error:#}");
    }
    at_once(&site.data, |folder| start(site, folder))
}

/// Stops every machine of a site; `arcadia down` ends with it.
pub fn stop_all(data: &Path) -> Result<Vec<(MachineName, Result<()>)>> {
    at_once(data, stop)
}

/// Machines do not wait for one another.
fn at_once(
    data: &Path,
    act: impl Fn(&Folder) -> Result<()> + Sync,
) -> Result<Vec<(MachineName, Result<()>)>> {
    let machines = all(data)?;
    Ok(std::thread::scope(|scope| {
        let act = &act;
        let running: Vec<_> =
            machines.into_iter().map(|(name, folder)| (name, scope.spawn(move || act(&folder)))).collect();
        running
            .into_iter()
            .map(|(name, thread)| (name, thread.join().unwrap_or_else(|_| Err(anyhow!("its thread failed")))))
            .collect()
    }))
}

/// Writes what a new machine is made of.
fn furnish(folder: &Folder, name: &MachineName, domain: Option<String>) -> Result<Record> {
    let isolation = Isolation::detect();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let people = users::compose(&read("/etc/passwd"), &read("/etc/group"));
    // A folder that nothing but a bind mount leads to may be open to the machine's users: the machine's own
    // folder above it is closed to everyone else of the host.
    for (path, mode) in [(folder.path().join("etc"), 0o755), (folder.opt(), 0o755), (folder.var(), 0o755)] {
        make_folder(&path, mode)?;
    }
    let hosts =
        format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    put(&folder.hosts(), &hosts, 0o644)?;
    put(&folder.passwd(), &people.passwd, 0o644)?;
    put(&folder.group(), &people.group, 0o644)?;
    put(&folder.sudoers(), &sudo::rule(), 0o440)?;
    let record = Record {
        schema: SCHEMA,
        name: name.clone(),
        isolation,
        himds: people.himds,
        arcadmin: people.arcadmin,
        domain,
    };
    folder.write_record(&record)?;
    Ok(record)
}

/// Writes what may differ from one start to the next.
fn refresh(folder: &Folder, site: &Site) -> Result<()> {
    let opt = folder.opt();
    for part in ["bin", "share", "fallback", "home", "home/arcadmin"] {
        make_folder(&opt.join(part), 0o755)?;
    }
    let program = opt.join("bin/arcadia");
    if !program.exists() {
        put(&program, "", 0o755)?; // the program itself is bound here inside the machine
    }
    for name in ["azcmagent", "himds"] {
        let link = opt.join("bin").join(name);
        if link.symlink_metadata().is_err() {
            symlink("arcadia", &link).with_context(|| format!("cannot make {}", link.display()))?;
        }
    }
    put(&opt.join("fallback/sudo"), sudo::SCRIPT, 0o755)?;
    let roots = fs::read_to_string(&site.ca_bundle)
        .with_context(|| format!("cannot read {}; is the site up?", site.ca_bundle.display()))?;
    put(&opt.join("share/ca-bundle.pem"), &roots, 0o644)
}

fn make_folder(path: &Path, mode: u32) -> Result<()> {
    match fs::DirBuilder::new().create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.with_context(|| format!("cannot make {}", path.display()))?,
    }
    // Set apart from making it, because the caller's umask may take bits away.
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

fn put(path: &Path, text: &str, mode: u32) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).open(path).with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).with_context(context)
}

/// A program that is given nothing of the caller's environment: what holds a machine stays when the caller's shell, with
/// the credentials in it, is gone.
fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", environment::path("", false));
    command
}

enum Held {
    Running(Run),
    NoProcessList,
}

/// The ways out of a machine.
fn sockets(site: &Site) -> [PathBuf; 2] {
    [site.proxy_socket.clone(), site.database_socket.clone()]
}

/// Starts the process that holds the machine, and waits until the machine's HIMDS answers.
fn hold(folder: &Folder, record: &Record, site: &Site, own_processes: bool) -> Result<Held> {
    let mut command = bare(&own_program()?);
    command.arg(INIT).arg("begin").arg("--folder").arg(folder.path());
    command.arg("--proxy-socket").arg(&site.proxy_socket);
    command.arg("--database-socket").arg(&site.database_socket);
    if !own_processes {
        command.arg("--no-process-list");
    }
    let pid = converse(command, folder, record)?.context("the machine's process did not say its number")?;
    let run = Run::of(pid, own_processes, sockets(site)).with_context(|| log_tail(folder))?;
    folder.write_run(&run)?;
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    while Instant::now() < deadline {
        match fs::read_to_string(folder.status()).unwrap_or_default().trim() {
            "ready" => return Ok(Held::Running(run)),
            "no-process-list" => return Ok(Held::NoProcessList),
            "" => {}
            text => bail!("the machine did not start: {text}"),
        }
        if !run.is_alive() {
            bail!("the machine's process ended: {}", log_tail(folder));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(run.pid, Signal::KILL);
    bail!("the machine's HIMDS did not answer within {START_SECONDS_MAX} s: {}", log_tail(folder))
}

/// Runs the first process of a machine and answers it: it asks for its users to be mapped, which only a process
/// outside its user namespace can do, and names the process that holds the machine.
fn converse(mut command: Command, folder: &Folder, record: &Record) -> Result<Option<i32>> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.log())?;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).current_dir("/").spawn()?;
    let answer = converse_with(&mut child, record);
    drop(child.stdin.take());
    let status = child.wait()?;
    match answer {
        Ok(pid) if status.success() => Ok(pid),
        Ok(_) => bail!("the machine's first process failed: {}", log_tail(folder)),
        Err(error) => Err(error),
    }
}

fn converse_with(child: &mut Child, record: &Record) -> Result<Option<i32>> {
    let output = child.stdout.take().ok_or_else(|| anyhow!("no pipe from the machine's first process"))?;
    let mut pid = None;
    for line in BufReader::new(output).lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("map", _) => {
                record.isolation.map(child.id())?;
                let input =
                    child.stdin.as_mut().ok_or_else(|| anyhow!("no pipe to the machine's first process"))?;
                input.write_all(b"mapped\n")?;
            }
            ("holder", number) => pid = Some(number.parse()?),
            ("error", text) => bail!("{text}"),
            _ => bail!("the machine's first process said {line:?}"),
        }
    }
    Ok(pid)
}

/// Removes a stopped machine's folder. In a user namespace some files belong to subordinate ids, which only a
/// process in such a namespace may remove.
fn remove_files(folder: &Folder) -> Result<()> {
    if let Ok(record) = folder.record()
        && record.isolation.in_user_namespace()
    {
        let mut command = bare(&own_program()?);
        command.arg(INIT).arg("empty").arg("--folder").arg(folder.path());
        converse(command, folder, &record)?;
    }
    remove_tree(folder.path()).with_context(|| format!("cannot remove {}", folder.path().display()))
}

/// Ends processes that still are in the machine of the last run, whose network may have been kept since.
fn end_stragglers(folder: &Folder, network: Option<File>) {
    let Some(run) = folder.last_run().filter(Run::is_of_this_boot) else { return };
    for _ in 0..50 {
        let found = processes_of(folder, &run, network.as_ref());
        if found.is_empty() {
            return;
        }
        for pid in found {
            signal(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn log_tail(folder: &Folder) -> String {
    let text = fs::read_to_string(folder.log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    let tail = lines.into_iter().rev().collect::<Vec<_>>().join("; ");
    if tail.is_empty() { format!("{} is empty", folder.log().display()) } else { tail }
}

/// This program's file.
pub fn own_program() -> Result<std::path::PathBuf> {
    std::env::current_exe().context("cannot tell where this program is")
}

/// Whether the stand-in for sudo goes in front of the search path.
pub fn needs_fallback(isolation: Isolation) -> bool {
    isolation.in_user_namespace() || !on_path("sudo")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use tempfile::TempDir;

    use super::*;

    /// Has a network of its own, and may have a machine's folder where machines have it.
    struct Other(Child);

    impl Other {
        fn start(script: &str, folder: &Folder) -> Self {
            let mut command = Command::new("unshare");
            if !rustix::process::geteuid().is_root() {
                command.args(["--user", "--map-root-user"]);
            }
            command.args(["--net", "--mount", "sh", "-c"]);
            command.arg(format!("{script} && echo ready && exec sleep 60")).env("OWN", folder.var());
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n", "machines and this test need namespaces of their own");
            Self(child)
        }

        fn run(&self) -> Run {
            // Of a holder that has ended, whose namespace's number the other has.
            Run { start_ticks: 1, ..Run::of(self.0.id().cast_signed(), false, Default::default()).unwrap() }
        }

        fn is_alive(&mut self) -> bool {
            self.0.try_wait().unwrap().is_none()
        }
    }

    impl Drop for Other {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    const IN_PLACE: &str = "mount -t tmpfs tmpfs /var/opt && mkdir /var/opt/azcmagent && \
                            mount --bind \"$OWN\" /var/opt/azcmagent";

    #[test]
    fn a_machine_is_held_without_the_callers_environment() {
        let output = bare(Path::new("/usr/bin/env")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("PATH=/opt/azcmagent/bin:") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn only_what_is_the_machines_own_is_ended_with_it() {
        let outside = TempDir::new().unwrap();
        let folder = Folder::new(outside.path().join("m"));
        fs::create_dir_all(folder.var()).unwrap();
        let mut stranger = Other::start("true", &folder);
        folder.write_run(&stranger.run()).unwrap();
        end_stragglers(&folder, None);
        assert!(stranger.is_alive(), "it has the number of the machine's network and nothing else of it");

        let mut own = Other::start(IN_PLACE, &folder);
        folder.write_run(&Run { boot: "another".to_owned(), ..own.run() }).unwrap();
        end_stragglers(&folder, None);
        assert!(own.is_alive(), "numbers of another boot say nothing");
        folder.write_run(&own.run()).unwrap();
        end_stragglers(&folder, None);
        let deadline = Instant::now() + Duration::from_secs(10);
        while own.is_alive() {
            assert!(Instant::now() < deadline, "it is not ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_hides_in_a_machine_that_runs_is_ended_with_it() {
        let outside = TempDir::new().unwrap();
        let folder = Folder::new(outside.path().join("m"));
        fs::create_dir_all(folder.var()).unwrap();
        let hide =
            "mount -t tmpfs tmpfs /var/opt/azcmagent && { sleep 50 > /dev/null & echo $! > \"$OWN/pid\"; }";
        let own = Other::start(&format!("{IN_PLACE} && {hide}"), &folder);
        folder.write_run(&Run::of(own.0.id().cast_signed(), false, Default::default()).unwrap()).unwrap();
        let pid = fs::read_to_string(folder.var().join("pid")).unwrap();
        let hidden = || fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        assert!(!hidden().is_empty());
        stop(&folder).unwrap();
        assert!(hidden().is_empty());
    }

    #[test]
    fn a_copied_folder_does_not_end_the_machine_of_the_first() {
        let outside = TempDir::new().unwrap();
        let [first, copied] = ["m", "n"].map(|name| Folder::new(outside.path().join(name)));
        fs::create_dir_all(first.var()).unwrap();
        fs::create_dir_all(copied.var()).unwrap();
        // Whatever its root puts in the folder's place.
        let mut own = Other::start(&format!("{IN_PLACE} && mount -t tmpfs tmpfs /var/opt/azcmagent"), &first);
        let run = Run::of(own.0.id().cast_signed(), false, Default::default()).unwrap();
        first.write_run(&run).unwrap();
        let [recorded, copy] = [&first, &copied].map(|folder| folder.path().join("run.json"));
        fs::copy(recorded, copy).unwrap();
        assert!(first.running().is_some() && copied.last_run().is_some() && copied.running().is_none());
        stop(&copied).unwrap();
        assert!(own.is_alive() && copied.last_run().is_none());
        stop(&first).unwrap();
        assert!(!own.is_alive());
    }

    #[test]
    fn another_users_process_is_not_ended() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let outside = TempDir::new().unwrap();
        let folder = Folder::new(outside.path().to_owned());
        let mut other = Other(Command::new("sleep").arg("60").uid(65534).spawn().unwrap());
        let run = Run::of(other.0.id().cast_signed(), false, Default::default()).unwrap();
        folder.write_run(&run).unwrap();
        let told = stop(&folder).unwrap_err().to_string();
        assert!(told.ends_with("is another user's") && other.is_alive(), "{told}");
        assert!(folder.last_run().is_some());
    }

    #[test]
    fn who_waited_for_a_machine_that_was_deleted_is_told_so() {
        let data = TempDir::new().unwrap();
        let name: MachineName = "m1".parse().unwrap();
        let folder = Folder::new(name.folder(data.path()));
        fs::create_dir_all(folder.path()).unwrap();
        let machine = Locked::take(&folder).unwrap();
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiting = || Locked::take(&folder).map(|_| ()).map_err(|error| error.to_string());
            scope.spawn(move || sender.send(waiting()).unwrap());
            assert!(told.recv_timeout(Duration::from_millis(200)).is_err(), "it waits");
            machine.remove().unwrap();
            assert!(told.recv().unwrap().unwrap_err().starts_with("there is no machine m1;"));
        });
        assert!(all(data.path()).unwrap().is_empty());

        // What is left of a deletion that was killed, and what one is still at.
        let [left, held] = ["1", "2"]
            .map(|number| Folder::new(data.path().join("machines").join(format!("{GONE}{number}"))));
        fs::create_dir_all(left.var()).unwrap();
        fs::create_dir_all(held.var()).unwrap();
        let _machine = Locked::take(&held).unwrap();
        let in_the_way = data.path().join("machines").join(format!("{GONE}3"));
        fs::write(&in_the_way, "no folder").unwrap();
        let told = sweep(data.path());
        assert!(!left.path().exists() && held.var().exists());
        let [error] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(error.to_string(), format!("cannot remove {}", in_the_way.display()));
        assert!(all(data.path()).unwrap().is_empty());
    }
}
