//! `arcadia audit`

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arcadia_crypto::SystemEntropy;
use arcadia_kernel::{AuditEvent, Outcome};
use arcadia_store::{AuditCheck, StoreError, StoreReader};
use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use crate::site::{DataDir, SiteFault, SiteRecord, load_ring};
use crate::terminal::{DIM, RESET, note, say};

/// How often a followed log is looked at.
const GLANCE: Duration = Duration::from_millis(200);
const PAGE_RECORDS: usize = 500;

/// The record of what was done, and of what was refused
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arcadia audit tail --follow\n  arcadia audit verify")]
pub enum Command {
    /// Show the last records, of a running site or a stopped one
    #[command(
        after_help = "Examples:\n  arcadia audit tail\n  arcadia audit tail -n 100 --json | jq -r .operation\n  \
                            arcadia audit tail --follow\n\n\
                            Reads the log beside the running site, without writing to it or making it wait."
    )]
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
        count: u64,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        /// Go on with the records that come, until interrupted
        #[arg(short, long)]
        follow: bool,
    },
    /// Walk the whole chain, and look at every row: no record was changed, removed or put in between, and no row removed,
    /// added, altered or put back to an earlier state. The site may run
    #[command(after_help = "Examples:\n  arcadia audit verify && echo untouched\n\n\
                            Names the first record that is missing or changed, and exits with 1, when the chain is broken; \
                            so it does when the rows are not the ones that were written last, or one of them was altered. That \
                            the whole data directory was put back to an earlier state shows in neither: keep records elsewhere.")]
    Verify {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

pub fn run(data: &DataDir, command: &Command) -> anyhow::Result<ExitCode> {
    let log = Log::open(data)?;
    match command {
        Command::Tail { count, json, follow } => tail(data, &log, *count, *json, *follow),
        Command::Verify { json: true } => describe_verified(&log),
        Command::Verify { json: false } => verify(&log),
    }
}

/// The log of a site that may run and go over to another data key meanwhile.
struct Log {
    site: SiteRecord,
    reader: StoreReader,
    /// Why the keys could not be had when they were looked at last: then what does not open is not broken.
    lost: Arc<Mutex<Option<SiteFault>>>,
}

impl Log {
    fn open(data: &DataDir) -> anyhow::Result<Self> {
        let site = SiteRecord::expect(data)?;
        let lost = Arc::new(Mutex::new(None));
        let (again, told) = (data.clone(), lost.clone());
        let newer = move || {
            let (ring, fault) = match load_ring(&again) {
                Ok(ring) => (Some(ring), None),
                Err(fault) => (None, Some(fault)),
            };
            *told.lock().unwrap_or_else(PoisonError::into_inner) = fault;
            ring
        };
        let ring = load_ring(data)?;
        // Looking for what is wrong is what these commands are for, so a log with a broken end opens as well.
        let reader = StoreReader::open_unchecked(data.path(), ring, Arc::new(SystemEntropy))?;
        Ok(Self { site, reader: reader.following(newer), lost })
    }

    fn page(&self, after: u64, limit: usize) -> anyhow::Result<Vec<(u64, AuditEvent)>> {
        self.found(self.reader.audit_page(after, limit))
    }

    fn last_record(&self) -> anyhow::Result<u64> {
        Ok(self.reader.last_record()?)
    }

    fn verify(&self) -> anyhow::Result<AuditCheck> {
        let check = self.found(self.site.verify_log(&self.reader))?;
        if check.first_broken.is_some() {
            self.keys_are_known()?;
        }
        Ok(check)
    }

    fn check_rows(&self) -> anyhow::Result<()> {
        self.found(self.reader.check_rows())
    }

    fn found<T>(&self, found: Result<T, StoreError>) -> anyhow::Result<T> {
        found.or_else(|error| {
            self.keys_are_known()?;
            Err(error.into())
        })
    }

    fn keys_are_known(&self) -> anyhow::Result<()> {
        match self.lost.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(SiteFault::WrongPassphrase) => {
                anyhow::bail!("the site's passphrase was changed meanwhile; run this again with the new one")
            }
            Some(fault) => Err(fault.into()),
        }
    }
}

/// A record as it is shown to programs.
#[derive(Serialize)]
struct Numbered<'a> {
    sequence: u64,
    #[serde(flatten)]
    event: &'a AuditEvent,
}

fn tail(data: &DataDir, log: &Log, count: u64, json: bool, follow: bool) -> anyhow::Result<ExitCode> {
    let broken = |what: String| {
        anyhow::anyhow!("{what}; look at the log with `arcadia audit verify{}`", data.option())
    };
    let last = log.last_record()?;
    if last == 0 {
        return Err(broken("every record is missing".to_owned()));
    }
    let mut after = last.saturating_sub(count);
    loop {
        let page = log.page(after, PAGE_RECORDS)?;
        for (sequence, event) in &page {
            if *sequence != after + 1 {
                return Err(broken(format!("record {} is missing", after + 1)));
            }
            after = *sequence;
            say(if json {
                serde_json::to_string(&Numbered { sequence: after, event })?
            } else {
                line(after, event)
            });
        }
        if !follow && (page.is_empty() || after >= last) {
            return Ok(ExitCode::SUCCESS);
        }
        if page.is_empty() {
            if log.last_record()? < after {
                return Err(broken("records were removed".to_owned()));
            }
            std::thread::sleep(GLANCE);
        }
    }
}

fn line(sequence: u64, event: &AuditEvent) -> String {
    let outcome = match &event.outcome {
        Outcome::Committed => "changed".to_owned(),
        Outcome::Answered { status } => status.to_string(),
        Outcome::Denied { .. } => "denied".to_owned(),
        Outcome::LeftOut { requests, .. } => format!("{requests} more"),
    };
    // What was recorded came from callers: no control characters to the terminal.
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let mut line = format!(
        "{sequence:>8} {:.3} {outcome:<8} {:<24} {} {DIM}{}{RESET} {}",
        event.time,
        plain(&event.operation),
        plain(&event.caller_name),
        plain(&event.action),
        plain(event.scope.as_str())
    );
    for decided in &event.also {
        let verdict = if decided.assignment.is_some() { "also" } else { "but not" };
        let (action, scope) = (plain(&decided.action), plain(decided.scope.as_str()));
        line.push_str(&format!(" {verdict} {DIM}{action}{RESET} {scope}"));
    }
    line
}

/// The same for programs: `firstBroken` is a record's number, `rows` what is wrong with the rows.
fn describe_verified(log: &Log) -> anyhow::Result<ExitCode> {
    let check = log.verify()?;
    let rows = match check.first_broken {
        None => log.check_rows().err(),
        Some(_) => None,
    };
    // What is no fault of the rows' is no finding.
    let rows = rows.map(|error| error.downcast::<StoreError>().map(|found| found.to_string())).transpose()?;
    let is_whole = check.first_broken.is_none() && rows.is_none();
    say(serde_json::to_string_pretty(&json!({
        "records": check.records, "unbroken": is_whole, "firstBroken": check.first_broken, "rows": rows,
    }))?);
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify(log: &Log) -> anyhow::Result<ExitCode> {
    let check = log.verify()?;
    let Some(first) = check.first_broken else {
        say(format!("{} records, unbroken", check.records));
        log.check_rows()?;
        note("every row is the one that was written last, and opens");
        return Ok(ExitCode::SUCCESS);
    };
    say(format!("broken: record {first} is missing or is not what was written"));
    if first > 1
        && let Ok(Some((last, event))) = log.page(first - 2, 1).map(|page| page.into_iter().next())
    {
        say(format!("the last one before it: {}", line(last, &event)));
    }
    Ok(ExitCode::FAILURE)
}
