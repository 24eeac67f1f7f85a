//! What the least that does the same work costs: bare hyper, rustls and aws-lc-rs, run as a process of its own so
//! that its processor time is measured as a site's is.

mod work;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::load::Peer;
use crate::loopback::LoopbackTarget;
use crate::process::{Meter, Process, clean};
use crate::trust::{Certificates, NAME, trusting};
pub use work::SECRET_BYTES;
use work::Work;

/// What a floor does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Answers a few bytes.
    Small,
    /// Finds a known token by its hash, opens 4 KiB sealed with AES-256-GCM, answers them as JSON.
    Secret,
    /// Makes one RS256 signature with a key of 2048 bits and answers it in a token.
    Sign,
    /// Writes the body into a file of its own and waits until the disk has it.
    File,
}

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    kind: Kind,
    /// Serve TLS with these PEM files; plain HTTP without.
    #[arg(long, requires = "key")]
    leaf: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
    /// Where files are written.
    #[arg(long)]
    folder: Option<PathBuf>,
}

const READY: &str = "ready ";

/// Serves until the process is ended. The port is printed.
#[allow(clippy::print_stdout, reason = "the parent reads the port")]
pub fn serve(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let work = Arc::new(Work::new(arguments.kind, arguments.folder.clone())?);
        let tls = match (&arguments.leaf, &arguments.key) {
            (Some(leaf), Some(key)) => {
                let files = Certificates { authority: PathBuf::new(), leaf: leaf.clone(), key: key.clone() };
                Some(TlsAcceptor::from(Arc::new(files.server()?)))
            }
            _ => None,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{READY}{}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (work, tls) = (work.clone(), tls.clone());
            tokio::spawn(async move {
                let Some(tls) = tls else { return answer(stream, work).await };
                // A client that goes away is no failure.
                if let Ok(stream) = tls.accept(stream).await {
                    answer(stream, work).await;
                }
            });
        }
    })
}

async fn answer<S>(stream: S, work: Arc<Work>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        let work = work.clone();
        async move { work.answer(request).await }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A floor that runs.
pub struct Floor {
    process: Process,
    target: LoopbackTarget,
    certificates: Certificates,
}

impl Floor {
    pub fn start(kind: Kind, certificates: &Certificates, tls: bool) -> Result<Self> {
        let program = std::env::current_exe().context("the bench finds itself")?;
        let mut command = clean(&program);
        let name = kind.to_possible_value().context("every kind has a name")?;
        command.arg("floor").arg(name.get_name()).stderr(Stdio::inherit());
        let folder = certificates.leaf.parent().context("certificates are in a folder")?;
        command.arg("--folder").arg(folder);
        if tls {
            command.arg("--leaf").arg(&certificates.leaf).arg("--key").arg(&certificates.key);
        }
        let (process, port, _) =
            Process::start(&mut command, |line| line.strip_prefix(READY)?.parse::<u16>().ok())?;
        let target = LoopbackTarget::new(tls, port)?;
        Ok(Self { process, target, certificates: certificates.clone() })
    }

    pub fn peer(&self) -> Result<Peer> {
        let trust = trusting([self.certificates.authority.as_path()])?;
        Ok(Peer { target: self.target, name: NAME.to_owned(), trust })
    }

    pub fn meter(&self) -> Meter {
        Meter::of([self.process.id()])
    }
}
