//! `arcadia lab`: the walk-through on a fresh site, step by step, with the real clients.
//!
//! `steps` is the walk-through as data, `check` what a step must show, `bench` the site, the machine and the two
//! places where commands are typed, `tools` the clients that must be there.

mod bench;
mod check;
mod steps;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::host::{is_root, variable, variable_os};
use crate::machine;
use crate::terminal::{BOLD, DIM, RESET, note, say};
use bench::Bench;
use steps::{Side, Step};

/// Lines of a step's output that are shown.
const OUTPUT_LINES_MAX: usize = 12;
const OUTPUT_COLUMNS_MAX: usize = 160;

/// Run the walk-through on a fresh site, step by step, with the real clients
///
/// A site in a directory of its own, the machine `ubuntu-01` in it, and every command of the text with az, curl and
/// jq: what is typed, what came out of it, and whether it is what it should be. Everything is removed at the end.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  arcadia lab\n  arcadia lab --keep\n  arcadia lab --keep --data ~/lab\n\n\
                        `cargo xtask lab` installs the clients first."
)]
pub struct Arguments {
    /// Leave the site and the machine running, and say how to go on by hand
    #[arg(long)]
    keep: bool,
    /// Stop and start the site before every step
    #[arg(long, hide = true)]
    restart_at_every_step: bool,
}

/// Runs the walk-through. `named` is the value of `--data` or of its variable.
pub fn run(named: Option<PathBuf>, arguments: &Arguments) -> Result<ExitCode> {
    let tools = tools::find()?;
    // A site that a shell was pointed at is not the lab's to use; one that was named for it is, if it is new.
    let named =
        named.filter(|path| variable_os("ARCADIA_DATA").is_none_or(|known| known != path.as_os_str()));
    let mut bench = Bench::prepare(named)?;
    let outcome = walk(&mut bench, &tools, arguments);
    let complete = matches!(outcome, Ok(true));
    if arguments.keep {
        go_on(&bench);
    } else {
        bench.remove()?;
    }
    outcome?;
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the steps; true when all did what they should. The first that does not ends the walk.
fn walk(bench: &mut Bench, tools: &tools::Tools, arguments: &Arguments) -> Result<bool> {
    let began = Instant::now();
    note(format!("The site and all that belongs to it are in {}", bench.folder().display()));
    bench.start_site()?;
    if let Some(reason) = &tools.no_terraform {
        note(reason);
    } else {
        bench.write_terraform()?;
    }
    let interrupted = interruption()?;
    let separate = machine::users_are_separate();
    if !separate {
        note("One user only on machines of this host: the step that another user is refused is left out.");
    }
    let root = is_root();
    if !root {
        note(
            "Not root here: the step that installs packages, which a machine shares with its host, is left out.",
        );
    }
    let steps: Vec<Step> = steps::all(tools.no_terraform.is_none())
        .into_iter()
        .filter(|step| (separate || !step.needs_users) && (root || !step.needs_root))
        .collect();
    let mut done = 0;
    for (place, step) in steps.iter().enumerate() {
        if arguments.restart_at_every_step && !step.follows {
            bench.restart_site()?;
        }
        show_title(place + 1, steps.len(), step);
        if !attempt(bench, step)? {
            break;
        }
        if interrupted.load(Ordering::Relaxed) {
            note("Interrupted.");
            break;
        }
        done += 1;
    }
    say("");
    say(format!(
        "{BOLD}{done} of {} steps{RESET} {DIM}in {:.0} s{RESET}",
        steps.len(),
        began.elapsed().as_secs_f64()
    ));
    Ok(done == steps.len())
}

/// Becomes true when this program is told to end, so that it can still put away what it made.
fn interruption() -> Result<Arc<AtomicBool>> {
    let told = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&told);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                seen.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(told)
}

fn show_title(number: usize, count: usize, step: &Step) {
    let place = match step.side {
        Side::Workstation => "here",
        Side::Machine => bench::MACHINE,
    };
    say(format!("\n{BOLD}{number:>2}/{count} {}{RESET} {DIM}({place}){RESET}", step.title));
    for line in step.script.lines() {
        say(format!("   $ {line}"));
    }
    for line in step.typed.lines() {
        say(format!("   > {line}"));
    }
}

fn attempt(bench: &mut Bench, step: &Step) -> Result<bool> {
    let began = Instant::now();
    let seen = bench.type_in(step)?;
    show_output(&seen.text);
    let seconds = began.elapsed().as_secs_f64();
    match step.check.judge(&seen) {
        Ok(what) => {
            say(format!("   \x1b[32m✓{RESET} {what} {DIM}{seconds:.1} s{RESET}"));
            Ok(true)
        }
        Err(why) => {
            say(format!("   \x1b[31m✗ {why}{RESET}"));
            Ok(false)
        }
    }
}

fn show_output(text: &str) {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    for line in lines.iter().take(OUTPUT_LINES_MAX) {
        let mut shown: String = line.chars().take(OUTPUT_COLUMNS_MAX).collect();
        if shown.len() < line.len() {
            shown.push_str(" ...");
        }
        say(format!("   {DIM}{shown}{RESET}"));
    }
    if lines.len() > OUTPUT_LINES_MAX {
        say(format!("   {DIM}... {} more lines{RESET}", lines.len() - OUTPUT_LINES_MAX));
    }
}

fn go_on(bench: &Bench) {
    let quote = |path: &std::path::Path| crate::quote::sh(&path.display().to_string());
    let program = if on_search_path() { "arcadia".to_owned() } else { quote(bench.program()) };
    say("\nTo go on by hand:");
    say(format!("  export ARCADIA_DATA={}", quote(bench.data())));
    say(format!("  export AZURE_CONFIG_DIR={}", quote(&bench.az_folder())));
    say(format!("  eval \"$({program} env --admin)\""));
    say(format!("  {program} machine shell {}", bench::MACHINE));
    say(format!(
        "and when you are done: {program} machine delete {}; {program} down; rm -r {}",
        bench::MACHINE,
        quote(bench.folder())
    ));
}

fn on_search_path() -> bool {
    let own = std::env::current_exe().ok();
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| {
        let found = std::fs::canonicalize(folder.join("arcadia")).ok();
        found.is_some() && found == own
    })
}
