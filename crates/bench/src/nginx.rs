//! nginx as a peer for connections: the same kind of certificate, no logs, its own defaults otherwise.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::load::Peer;
use crate::loopback::LoopbackTarget;
use crate::process::{Meter, Process, children, clean, free_port};
use crate::trust::{Certificates, NAME, trusting};

const PROGRAM: &str = "/usr/sbin/nginx";
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Nginx {
    process: Process,
    target: LoopbackTarget,
    certificates: Certificates,
}

/// Whether nginx is installed.
pub fn is_installed() -> bool {
    Path::new(PROGRAM).is_file()
}

impl Nginx {
    /// Serves the files of `folder` (or a few bytes, at `/small`) by TLS with one worker for each processor.
    pub fn start(certificates: &Certificates, folder: &Path) -> Result<Self> {
        let target = LoopbackTarget::new(true, free_port()?)?;
        let place = tempfile::Builder::new().prefix("nginx").tempdir_in(folder)?.keep();
        let file = place.join("nginx.conf");
        fs::write(&file, configuration(certificates, folder, &place, target))?;
        let mut command = clean(Path::new(PROGRAM));
        command.arg("-p").arg(&place).arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::inherit());
        let process = Process::spawn(&mut command)?;
        let started = Self { process, target, certificates: certificates.clone() };
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(target.address()).is_err()
            || children(started.process.id())?.is_empty()
        {
            ensure!(Instant::now() < deadline, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(started)
    }

    pub fn peer(&self) -> Result<Peer> {
        let trust = trusting([self.certificates.authority.as_path()])?;
        Ok(Peer { target: self.target, name: NAME.to_owned(), trust })
    }

    /// The workers and their master.
    pub fn meter(&self) -> Result<Meter> {
        let workers = children(self.process.id()).context("nginx runs")?;
        Ok(Meter::of(workers.into_iter().chain([self.process.id()])))
    }
}

fn configuration(certificates: &Certificates, root: &Path, place: &Path, target: LoopbackTarget) -> String {
    let (leaf, key) = (certificates.leaf.display(), certificates.key.display());
    let (root, place) = (root.display(), place.display());
    // As root, workers would change to a user that may not read the files.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "{user} daemon off; worker_processes auto; pid {place}/pid; error_log {place}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         access_log off; keepalive_requests 100000000; sendfile on; tcp_nodelay on;\n\
         client_body_temp_path {place}; proxy_temp_path {place}; fastcgi_temp_path {place};\n\
         uwsgi_temp_path {place}; scgi_temp_path {place}; default_type application/octet-stream;\n\
         server {{\n\
         listen {address} ssl; server_name {NAME}; root {root};\n\
         ssl_certificate {leaf}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n\
         location = /small {{ default_type application/json; return 200 '{{\"value\":\"small\"}}'; }}\n\
         }}\n}}\n",
        address = target.address(),
    )
}
