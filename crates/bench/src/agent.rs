//! The agent's daemon in a process of its own, with its limits of requests raised: they exist to bound what local
//! processes can ask, which is what is measured here.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arcadia_agent::{Agent, AgentOptions, HimdsLimits};
use arcadia_crypto::SystemEntropy;
use arcadia_kernel::Clock;
use clap::Args;

use crate::loopback::LoopbackTarget;
use crate::process::{Meter, Process, clean};

const PER_SECOND: u32 = 1_000_000;
const READY: &str = "ready ";

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The files of a connected machine.
    root: PathBuf,
}

struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the bench is a program of its own")]
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// Serves until the process is ended. The port is printed.
#[allow(clippy::print_stdout, reason = "the parent reads the port")]
pub fn serve(arguments: &Arguments) -> Result<()> {
    // As the real daemon does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut options = AgentOptions::new(Arc::new(SystemClock), Arc::new(SystemEntropy));
        options.root.clone_from(&arguments.root);
        options.addresses = vec!["127.0.0.1:0".parse()?];
        options.limits = HimdsLimits {
            metadata_per_second: PER_SECOND,
            identity_per_second: PER_SECOND,
            ..HimdsLimits::default()
        };
        let agent = Agent::bind(options).await?;
        let address = *agent.addresses().first().context("an address")?;
        println!("{READY}{}", address.port());
        agent.run(std::future::pending()).await?;
        Ok(())
    })
}

/// A daemon that runs.
pub struct Daemon {
    process: Process,
    pub target: LoopbackTarget,
}

impl Daemon {
    pub fn start(root: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("the bench finds itself")?;
        let mut command = clean(&program);
        command.arg("agent").arg(root).stderr(Stdio::inherit());
        let (process, port, _) =
            Process::start(&mut command, |line| line.strip_prefix(READY)?.parse::<u16>().ok())?;
        Ok(Self { process, target: LoopbackTarget::new(false, port)? })
    }

    pub fn meter(&self) -> Meter {
        Meter::of([self.process.id()])
    }
}
