//! What is done to the project rather than with it: checks, generated documents, the walk-through.

mod bench;
mod catalogue;
mod ci;
mod directions;
mod fuzz;
mod install;
mod lab;
mod links;
mod output;
mod panics;
mod repeat;
mod soak;
mod tally;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks, generated documents and the walk-through")]
enum Task {
    /// Run everything that must pass; the last line is `N passed, N failed`.
    Ci {
        /// Run only the steps whose heading contains one of these words.
        only: Vec<String>,
    },
    /// Check the house rules: directions between crates, sizes of files, words, links.
    Tidy,
    /// Write docs/reference from the operation tables.
    Catalogue,
    /// Compare the access engine with its oracle, over random roles, groups, assignments and scopes; and with another
    /// what the directory makes of nested groups.
    Access {
        #[arg(long, default_value_t = 1_000_000)]
        cases: u32,
        /// That of a run which found a difference; else any.
        #[arg(long)]
        seed: Option<u64>,
        /// Write what was compared, and when, into docs/access.json.
        #[arg(long)]
        keep: bool,
    },
    /// Let eight threads race for each thing that is good once; half of the rounds over a store on disk, where there is one.
    Races {
        #[arg(long, default_value_t = 1000)]
        rounds: u32,
    },
    /// Build for release and measure; every figure stands beside a floor or a peer in the same run.
    Bench {
        /// Handed on to the bench: groups of rows, `--rounds`, `--seconds`, `--smoke`. With none, the table and the
        /// JSON of docs are written.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the fuzz targets by libFuzzer. For example `cargo xtask fuzz jwt filter --minutes 5`.
    Fuzz(fuzz::Options),
    /// Install what the walk-through needs, and run it on a fresh site.
    Lab {
        /// Handed on to `arcadia lab`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Kill a site, its machine and its database at random moments while eight writers write; nothing may be lost.
    Soak(soak::Arguments),
}

fn main() -> Result<ExitCode> {
    let root = root()?;
    match Task::parse() {
        Task::Ci { only } => ci::run(&root, &only),
        Task::Tidy => tidy::run(&root),
        Task::Catalogue => catalogue::write(&root),
        Task::Access { cases, seed, keep } => repeat::access(&root, cases, seed, keep),
        Task::Races { rounds } => repeat::races(&root, rounds),
        Task::Bench { arguments } => bench::run(&root, &arguments),
        Task::Fuzz(options) => fuzz::run(&root, &options),
        Task::Lab { arguments } => lab::run(&root, &arguments),
        Task::Soak(arguments) => soak::run(&root, &arguments),
    }
}

/// The folder of the workspace.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_path_buf).context("xtask lies in the workspace")
}
