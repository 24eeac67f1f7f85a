//! PostgreSQL's own programs, and a server of its own as a peer: the settings of a site's servers, and TLS.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::process::{Process, clean, free_port};
use crate::trust::{Certificates, NAME};

/// Where Debian puts the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";
pub const USER: &str = "bench";
pub const PASSWORD: &str = "Bench-2026-word";
const PATIENCE: Duration = Duration::from_secs(60);
/// Those of a site's servers (see `arcadia_postgres`).
const SETTINGS: &str = "max_connections = 100\nsuperuser_reserved_connections = 5\nshared_buffers = 32MB\n\
                        dynamic_shared_memory_type = posix\nfsync = on\npassword_encryption = scram-sha-256\n\
                        authentication_timeout = 30s\ntimezone = 'UTC'\nlog_timezone = 'UTC'\n\
                        datestyle = 'iso, mdy'\nlc_messages = 'C'\nlog_min_messages = warning\n\
                        full_page_writes = on\n";

/// The programs of the newest version that is installed; nothing where none is.
pub fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).ok()?.flatten();
    let numbered = versions.filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((number, entry.path().join("bin")))
    });
    numbered.filter(|(_, bin)| bin.join("pgbench").is_file()).max().map(|(_, bin)| bin)
}

/// A server that is reached without a site.
pub struct Direct {
    _folder: TempDir,
    process: Option<Process>,
    programs: PathBuf,
    data: PathBuf,
    port: u16,
}

/// Where clients go, and as whom.
#[derive(Clone, Debug)]
pub struct Door {
    /// Of this machine's loopback: load goes nowhere else.
    pub address: SocketAddrV4,
    /// In the TLS hello.
    pub host: String,
    pub user: String,
    pub database: String,
    is_plain: bool,
}

impl Door {
    pub fn new(address: SocketAddrV4, host: &str, user: &str, database: &str) -> Result<Self> {
        ensure!(address.ip().is_loopback(), "load goes to this machine's loopback only, not to {address}");
        Ok(Self {
            address,
            host: host.to_owned(),
            user: user.to_owned(),
            database: database.to_owned(),
            is_plain: false,
        })
    }

    /// For a server that does not speak TLS.
    pub fn without_tls(mut self) -> Self {
        self.is_plain = true;
        self
    }

    /// One of PostgreSQL's clients, told where to go and to speak TLS.
    pub fn client(&self, programs: &Path, name: &str) -> Command {
        let mut command = clean(&programs.join(name));
        command.env("PGHOST", &self.host).env("PGHOSTADDR", self.address.ip().to_string());
        command.env("PGPORT", self.address.port().to_string()).env("PGUSER", &self.user);
        command
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", &self.database)
            .env("PGSSLMODE", if self.is_plain { "disable" } else { "require" });
        command.stdin(Stdio::null());
        command
    }
}

/// Runs a program to its end; what it printed.
pub fn must(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !done.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A command as the user that may run servers.
fn as_server(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return clean(program);
    }
    let mut command = clean(Path::new("setpriv"));
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

impl Direct {
    /// A folder that the servers' user can enter.
    fn place() -> Result<TempDir> {
        let folder = tempfile::Builder::new().prefix("arcadia-bench-postgres").tempdir()?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        if rustix::process::geteuid().is_root() {
            must(clean(Path::new("chown")).arg("postgres").arg(folder.path()))?;
        }
        Ok(folder)
    }

    /// Makes a server and starts it. With certificates, it speaks TLS.
    pub fn start(programs: &Path, certificates: Option<&Certificates>) -> Result<Self> {
        let folder = Self::place()?;
        let (data, word) = (folder.path().join("data"), folder.path().join("password"));
        fs::write(&word, PASSWORD)?;
        let mut initdb = as_server(&programs.join("initdb"));
        initdb.arg("--pgdata").arg(&data).arg("--pwfile").arg(&word).args(["--username", USER]);
        initdb.args(["--encoding=UTF8", "--data-checksums", "--auth=scram-sha-256", "--locale=C.UTF-8"]);
        must(&mut initdb)?;
        let port = free_port()?;
        let mut settings = format!(
            "{SETTINGS}listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n",
            folder.path().display()
        );
        if let Some(certificates) = certificates {
            for (from, to) in [(&certificates.leaf, "server.crt"), (&certificates.key, "server.key")] {
                install(from, &data.join(to))?;
            }
            settings.push_str("ssl = on\n");
        }
        let file = data.join("postgresql.conf");
        fs::write(&file, settings)?;
        let mut direct = Self { _folder: folder, process: None, programs: programs.to_owned(), data, port };
        direct.run()?;
        Ok(direct)
    }

    fn run(&mut self) -> Result<()> {
        let mut server = as_server(&self.programs.join("postgres"));
        server.arg("-D").arg(&self.data).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(Process::spawn(&mut server)?);
        let deadline = Instant::now() + PATIENCE;
        // The line that a server writes when it takes connections.
        let status = self.data.join("postmaster.pid");
        while !fs::read_to_string(&status).unwrap_or_default().lines().any(|line| line.trim() == "ready") {
            ensure!(Instant::now() < deadline, "a PostgreSQL without a site does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub fn door(&self, database: &str) -> Result<Door> {
        Door::new(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port), NAME, USER, database)
    }

    /// Makes a database as `createdb` does.
    pub fn create_database(&self, name: &str) -> Result<()> {
        let door = self.door("postgres")?.without_tls();
        must(door.client(&self.programs, "createdb").arg(name)).map(|_| ())
    }
}

/// Copies a file that only the servers' user may read.
fn install(from: &Path, to: &Path) -> Result<()> {
    let mut command = clean(Path::new("install"));
    command.arg("--mode=600");
    if rustix::process::geteuid().is_root() {
        command.arg("--owner=postgres");
    }
    must(command.arg(from).arg(to)).map(|_| ())
}

impl Drop for Direct {
    /// Before its folder goes. `SIGTERM` would wait for clients.
    fn drop(&mut self) {
        if let Some(process) = &self.process
            && let Some(pid) = rustix::process::Pid::from_raw(process.id().cast_signed())
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        self.process = None;
    }
}
