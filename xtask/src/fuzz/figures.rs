//! What all kept runs had together, in docs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::run::{End, Outcome};
use crate::output::note;

const JSON: &str = "docs/fuzzing.json";
const TABLE: &str = "docs/fuzzing.md";
/// What is behind this line in the document is written here.
const MARK: &str = "<!-- From here on written by `cargo xtask fuzz --keep`. -->\n";
/// What the project asks of every target: processor time without a failure.
const CPU_SECONDS_WANTED: f64 = 30.0 * 60.0;

#[derive(Default, Serialize, Deserialize)]
struct Figures {
    targets: BTreeMap<String, Row>,
}

/// One target's clean runs since its last failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(rename = "crate")]
    member: String,
    runs: u64,
    cpu_seconds: f64,
    executions: u64,
    /// Those of the last run, as libFuzzer counts them, libraries included.
    branches: u64,
    /// The most of all runs.
    memory_mebibytes: u64,
    /// Runs that failed, ever.
    failures: u64,
}

impl Row {
    fn add(&mut self, outcome: &Outcome) {
        self.member.clone_from(&outcome.target.member);
        if outcome.end == End::Failed {
            let failures = self.failures + 1;
            *self = Self { member: std::mem::take(&mut self.member), failures, ..Self::default() };
            return;
        }
        if outcome.executions == 0 {
            // Killed before it could tell.
            return;
        }
        self.runs += 1;
        self.cpu_seconds = ((self.cpu_seconds + outcome.cpu_seconds) * 100.0).round() / 100.0;
        self.executions += outcome.executions;
        self.branches = outcome.branches;
        self.memory_mebibytes = self.memory_mebibytes.max(outcome.memory_mebibytes);
    }
}

fn read(root: &Path) -> Result<Figures> {
    match fs::read(root.join(JSON)) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("cannot understand {JSON}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Figures::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {JSON}")),
    }
}

/// The processor time that each target has had since its last failure, in seconds.
pub fn had(root: &Path) -> Result<BTreeMap<String, f64>> {
    Ok(read(root)?.targets.into_iter().map(|(name, row)| (name, row.cpu_seconds)).collect())
}

/// Adds a run to what is kept, and writes the table of it.
pub fn keep(root: &Path, outcome: &Outcome) -> Result<()> {
    let (json, document) = (root.join(JSON), root.join(TABLE));
    let mut figures = read(root)?;
    figures.targets.entry(outcome.target.name.clone()).or_default().add(outcome);
    let text = fs::read_to_string(&document).with_context(|| format!("cannot read {TABLE}"))?;
    let written =
        with_table(&text, &figures).with_context(|| format!("{TABLE} has no line {}", MARK.trim()))?;
    fs::write(&json, format!("{}\n", serde_json::to_string_pretty(&figures)?))?;
    fs::write(&document, written)?;
    note(format!("added to {JSON} and {TABLE}"));
    Ok(())
}

fn with_table(document: &str, figures: &Figures) -> Option<String> {
    let (before, _) = document.split_once(MARK)?;
    Some(format!("{before}{MARK}\n{}", table(figures)))
}

fn table(figures: &Figures) -> String {
    let rows = figures.targets.values();
    let (mut cpu_seconds, mut executions, mut done) = (0.0, 0, 0);
    for row in rows {
        cpu_seconds += row.cpu_seconds;
        executions += row.executions;
        done += usize::from(row.cpu_seconds >= CPU_SECONDS_WANTED);
    }
    let count = figures.targets.len();
    let mut out = format!(
        "Together {} executions in {:.0} minutes of processor time, without a failure since the last one of each \
         target.\n{done} of {count} targets have had the {:.0} minutes that are asked for.\n\n\
         | target | crate | CPU min | of {:.0} | executions | branches | MiB | failed runs before |\n\
         |---|---|---|---|---|---|---|---|\n",
        counted(executions),
        cpu_seconds / 60.0,
        CPU_SECONDS_WANTED / 60.0,
        CPU_SECONDS_WANTED / 60.0,
    );
    for (name, row) in &figures.targets {
        let _ = writeln!(
            out,
            "| `{name}` | {} | {:.1} | {:.0} % | {} | {} | {} | {} |",
            row.member,
            row.cpu_seconds / 60.0,
            (row.cpu_seconds / CPU_SECONDS_WANTED * 100.0).floor(),
            counted(row.executions),
            row.branches,
            row.memory_mebibytes,
            row.failures,
        );
    }
    out
}

/// `4711`, `47 k`, `4.7 M`.
fn counted(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{} k", number / 1000),
        _ => format!("{:.1} M", number as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rows: &[(&str, f64, u64)]) -> Figures {
        let row = |&(name, cpu_seconds, executions): &(&str, f64, u64)| {
            (name.to_owned(), Row { cpu_seconds, executions, ..Row::default() })
        };
        Figures { targets: rows.iter().map(row).collect() }
    }

    #[test]
    fn the_table_takes_the_place_of_the_last_one() {
        let document = format!("# Fuzzing\n{MARK}old\n");
        let written = with_table(&document, &figures(&[("a", 1800.0, 12_345), ("b", 1799.0, 5)])).unwrap();
        assert!(written.starts_with(&format!("# Fuzzing\n{MARK}\nTogether 12 k executions in 60 minutes")));
        assert!(written.contains("1 of 2 targets") && !written.contains("old"));
        assert!(written.contains("| `b` |  | 30.0 | 99 % | 5 |"), "{written}");
        assert_eq!(with_table(&written, &figures(&[])).unwrap().matches(MARK).count(), 1);
        assert!(with_table("# Fuzzing\n", &figures(&[])).is_none());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0, 9999, 10_000, 999_999, 4_711_000].map(counted),
            ["0", "9999", "10 k", "999 k", "4.7 M"]
        );
    }
}
