//! `arcadia audit`

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use arcadia_crypto::SystemEntropy;
use arcadia_kernel::{AuditEvent, Outcome};
use arcadia_store::Store;
use clap::Subcommand;

use crate::host::SystemClock;
use crate::site::{DataDir, Lock, SiteRecord, load_or_create_ring};
use crate::terminal::{DIM, RESET, say};

/// The record of what was done, and of what was refused
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the last records; the site must be stopped
    #[command(
        after_help = "Examples:\n  arcadia audit tail\n  arcadia audit tail -n 100 --json | jq -r .operation"
    )]
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        count: u64,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Walk the whole chain: no record was changed, removed or put in between. The site must be stopped
    #[command(
        after_help = "Examples:\n  arcadia audit verify && echo untouched\n\nExits with 1 when the chain is broken."
    )]
    Verify,
}

pub fn run(data: &DataDir, command: &Command) -> anyhow::Result<ExitCode> {
    SiteRecord::expect(data)?;
    let _lock = Lock::take(&data.lock_file()).context("stop the site first with `arcadia down`")?;
    let entropy = Arc::new(SystemEntropy);
    let ring = load_or_create_ring(data, &*entropy)?;
    let store = Store::open(data.path(), ring, Arc::new(SystemClock), entropy)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Tail { count, json } => runtime.block_on(tail(&store, *count, *json)),
        Command::Verify => runtime.block_on(verify(&store)),
    }
}

async fn tail(store: &Store, count: u64, json: bool) -> anyhow::Result<ExitCode> {
    let last = last_sequence(store).await?;
    let mut after = last.saturating_sub(count);
    while after < last {
        for (sequence, event) in store.audit_page(after, usize::try_from(last - after)?).await? {
            after = sequence;
            say(if json { serde_json::to_string(&event)? } else { line(&event) });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Numbers have no gaps, so the last one is found in a few steps however long the log is.
async fn last_sequence(store: &Store) -> anyhow::Result<u64> {
    let mut beyond = 1;
    while !store.audit_page(beyond - 1, 1).await?.is_empty() {
        beyond *= 2;
    }
    let (mut known, mut beyond) = (beyond / 2, beyond);
    while beyond - known > 1 {
        let middle = known + (beyond - known) / 2;
        if store.audit_page(middle - 1, 1).await?.is_empty() {
            beyond = middle;
        } else {
            known = middle;
        }
    }
    Ok(known)
}

fn line(event: &AuditEvent) -> String {
    let outcome = match &event.outcome {
        Outcome::Committed => "changed".to_owned(),
        Outcome::Answered { status } => status.to_string(),
        Outcome::Denied { .. } => "denied".to_owned(),
    };
    // What was recorded came from callers: no control characters to the terminal.
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    format!(
        "{} {outcome:<8} {} {} {DIM}{}{RESET} {}",
        event.time,
        plain(&event.caller_name),
        plain(&event.operation),
        plain(&event.action),
        plain(event.scope.as_str())
    )
}

async fn verify(store: &Store) -> anyhow::Result<ExitCode> {
    let check = store.audit_verify().await?;
    match check.first_broken {
        None => {
            say(format!("{} records, unbroken", check.records));
            Ok(ExitCode::SUCCESS)
        }
        Some(first) => {
            say(format!("broken: record {first} is missing or is not what was written"));
            Ok(ExitCode::FAILURE)
        }
    }
}
