//! `cargo xtask bench`: what the program costs, each figure beside a floor or a peer in the same run.

mod agent;
mod azurite;
mod blob_site;
mod database_site;
mod disk;
mod fleet;
mod floor;
mod load;
mod loopback;
mod nginx;
mod postgres;
mod process;
mod report;
mod row;
mod rows;
mod site;
mod trust;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser};

use report::Run;
use row::Row;
use rows::{Bench, GROUPS};
use trust::Certificates;

const SECONDS_MAX: f64 = 60.0;
const ROUNDS_MAX: usize = 50;
const OBJECTS: std::ops::RangeInclusive<usize> = 10_000..=1_000_000;

#[derive(Parser)]
#[command(
    name = "arcadia-bench",
    about = "What arcadia costs, each figure beside a floor or a peer in the same run"
)]
enum Command {
    /// Measure
    #[command(after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench secret --rounds 3 \
                        --seconds 1\n  cargo xtask bench growth --objects 1000000\n  cargo xtask bench --smoke")]
    Run(Arguments),
    /// Serve as a floor
    #[command(hide = true)]
    Floor(floor::Arguments),
    /// Serve as a machine's agent
    #[command(hide = true)]
    Agent(agent::Arguments),
}

#[derive(Args)]
struct Arguments {
    /// Measure only the groups whose names contain one of these words
    only: Vec<String>,
    /// The program to measure
    #[arg(long)]
    arcadia: PathBuf,
    /// Interleaved rounds of every row
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// See that everything runs, in a few seconds; the figures mean nothing and no gate is judged
    #[arg(long)]
    smoke: bool,
    /// Secrets, and as many blobs, in the large site of the rows of growth
    #[arg(long, default_value_t = 100_000)]
    objects: usize,
    /// Where files are made, on the disk that is measured [default: the system's temporary folder]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Write the rows to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table into this document, between its marks
    #[arg(long)]
    table: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    match Command::parse() {
        Command::Run(arguments) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(run(&arguments))
        }
        Command::Floor(arguments) => floor::serve(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Agent(arguments) => agent::serve(&arguments).map(|()| ExitCode::SUCCESS),
    }
}

#[allow(clippy::print_stdout, reason = "the bench tells what it measures")]
async fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!((1..=ROUNDS_MAX).contains(&arguments.rounds), "1 to {ROUNDS_MAX} rounds");
    ensure!(arguments.seconds > 0.0 && arguments.seconds <= SECONDS_MAX, "up to {SECONDS_MAX} seconds");
    let (fewest, most) = (OBJECTS.start(), OBJECTS.end());
    ensure!(OBJECTS.contains(&arguments.objects), "{fewest} to {most} objects");
    let parent = arguments.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("arcadia-bench").tempdir_in(parent)?;
    let (rounds, seconds) = if arguments.smoke { (1, 0.2) } else { (arguments.rounds, arguments.seconds) };
    let bench = Bench {
        arcadia: arguments.arcadia.canonicalize().with_context(|| arguments.arcadia.display().to_string())?,
        folder: folder.path().to_owned(),
        certificates: Certificates::make(folder.path())?,
        rounds,
        time: Duration::from_secs_f64(seconds),
        objects: arguments.objects,
        is_smoke: arguments.smoke,
    };
    let before = disk::append_micros(folder.path())?;
    let mut rows = Vec::new();
    let wanted =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|word| name.contains(word));
    for group in GROUPS.iter().filter(|group| wanted(group.name)) {
        println!("measuring {}", group.name);
        let measured =
            (group.measure)(&bench).await.with_context(|| format!("the rows of {}", group.name))?;
        rows.extend(measured);
        let run = Run {
            at: now(),
            rounds,
            seconds,
            processors: std::thread::available_parallelism()?.get(),
            fdatasync_micros: [before, disk::append_micros(folder.path())?],
            is_smoke: arguments.smoke,
        };
        // After each group: a run that is cut short leaves what it has.
        tell(arguments, &run, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "the bench tells what it measures")]
fn tell(arguments: &Arguments, run: &Run, rows: &[Row]) -> Result<()> {
    let table = report::table(run, rows);
    println!("\n{table}");
    if arguments.smoke {
        return Ok(());
    }
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_string_pretty(&report::json(run, rows)?)? + "\n")?;
    }
    if let Some(path) = &arguments.table {
        report::write_table(path, &table)?;
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the bench is a program of its own")]
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}
