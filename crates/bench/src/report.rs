//! The rows as a table for people and as JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::row::{Bound, Judged, Middle, Row};

const BEGIN: &str = "<!-- rows: written by `cargo xtask bench` -->";
const END: &str = "<!-- end of rows -->";

/// The circumstances of a run.
pub struct Run {
    pub at: String,
    pub rounds: usize,
    pub seconds: f64,
    pub processors: usize,
    /// The median of an append of 600 bytes and fdatasync at the beginning and at the end, in microseconds.
    pub fdatasync_micros: [f64; 2],
    /// Everything was cut down to see that it runs: no gate is shown, and none judged.
    pub is_smoke: bool,
}

impl Run {
    fn line(&self) -> String {
        let [first, last] = self.fdatasync_micros;
        format!(
            "Measured {} on {} processors, which the load shares; {} rounds of {} s a measurement; append of 600 B \
             with fdatasync {first:.0} us at the beginning and {last:.0} us at the end.",
            self.at, self.processors, self.rounds, self.seconds
        )
    }
}

fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn bound(bound: Option<Bound>, suffix: &str) -> String {
    match bound {
        Some(Bound::AtMost(limit)) => format!("<= {}{suffix}", short(limit)),
        Some(Bound::AtLeast(limit)) => format!(">= {}{suffix}", short(limit)),
        None => "-".to_owned(),
    }
}

/// A limit as it was written down.
fn short(limit: f64) -> String {
    format!("{limit}")
}

fn spread(middle: Option<Middle>, suffix: &str) -> String {
    middle.map_or_else(
        || "-".to_owned(),
        |Middle { median, smallest, largest }| {
            format!("{}{suffix} ({} to {})", figure(median), figure(smallest), figure(largest))
        },
    )
}

/// The table in Markdown.
pub fn table(run: &Run, rows: &[Row]) -> String {
    let mut text = format!("{}\n\n", run.line());
    let (names, line) =
        if run.is_smoke { ("", "") } else { (" judged | gate | stretch | holds |", "---|---|---|---|") };
    let _ = writeln!(text, "| work | ours | beside it |{names}\n|---|---|---|{line}");
    for row in rows {
        let judgement = if run.is_smoke { String::new() } else { judgement(row) };
        let _ = writeln!(text, "{}{judgement}", measured(row));
    }
    if run.is_smoke {
        text.push_str("\nEverything ran; no gate is judged.\n");
        return text;
    }
    let gated = rows.iter().filter_map(Row::holds);
    let (all, held) = gated.fold((0, 0), |(all, held), holds| (all + 1, held + usize::from(holds)));
    let _ = writeln!(text, "\n{held} of {all} gates hold.");
    text
}

/// What was measured, and beside what.
fn measured(row: &Row) -> String {
    let beside = match (row.besides(), row.beside.as_str()) {
        (_, "") => "-".to_owned(),
        (Some(beside), name) => format!("{name}: {} {}", figure(beside.median), row.unit),
        (None, name) => name.to_owned(),
    };
    let note = if row.note.is_empty() { String::new() } else { format!("; {}", row.note) };
    let ours = row.ours().map_or_else(|| "-".to_owned(), |ours| figure(ours.median));
    format!("| **{}**: {}{note} | {ours} {} | {beside} |", row.name, row.what, row.unit)
}

/// What is made of it.
fn judgement(row: &Row) -> String {
    let suffix = match row.judged {
        Judged::Ratio => "x".to_owned(),
        Judged::Difference | Judged::Ours => format!(" {}", row.unit),
    };
    let holds = match (row.holds(), row.reaches()) {
        (_, Some(true)) => "yes, and the stretch",
        (Some(true), _) => "yes",
        (Some(false), _) => "**no**",
        (None, _) => "-",
    };
    let (gate, stretch) = (bound(row.gate, &suffix), bound(row.stretch, &suffix));
    format!(" {} | {gate} | {stretch} | {holds} |", spread(row.figure(), &suffix))
}

pub fn json(run: &Run, rows: &[Row]) -> Result<Value> {
    let rows = rows
        .iter()
        .map(|row| {
            let mut value = serde_json::to_value(row)?;
            if let Some(fields) = value.as_object_mut() {
                fields.insert("figure".to_owned(), serde_json::to_value(row.figure())?);
                fields.insert("holds".to_owned(), json!(row.holds()));
                fields.insert("reachesStretch".to_owned(), json!(row.reaches()));
            }
            Ok(value)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "measuredAt": run.at,
        "processors": run.processors,
        "fdatasyncMicroseconds": run.fdatasync_micros,
        "rows": rows,
    }))
}

/// Puts the table between the marks of a document, and leaves what people wrote around it.
pub fn write_table(path: &Path, table: &str) -> Result<()> {
    let old = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (before, rest) =
        old.split_once(BEGIN).with_context(|| format!("no {BEGIN} in {}", path.display()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no {END} in {}", path.display()))?;
    fs::write(path, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Round;

    fn run() -> Run {
        Run {
            at: "2030-01-01".into(),
            rounds: 5,
            seconds: 2.0,
            processors: 2,
            fdatasync_micros: [200.0, 300.0],
            is_smoke: false,
        }
    }

    fn rows() -> Vec<Row> {
        let row = Row::new("a", "what", "us").ratio_to("floor").rounds(vec![Round::pair(6.0, 2.0)]);
        vec![row.clone().gate(Bound::AtMost(3.0)), row.clone().gate(Bound::AtMost(2.5)).note("slow"), row]
    }

    #[test]
    fn a_miss_is_told_as_one() {
        let text = table(&run(), &rows());
        assert!(
            text.contains(
                "| **a**: what | 6.00 us | floor: 2.00 us | 3.00x (3.00 to 3.00) | <= 3x | - | yes |"
            )
        );
        assert!(text.contains("**a**: what; slow |") && text.contains("| <= 2.5x | - | **no** |"));
        assert!(text.ends_with("1 of 2 gates hold.\n"), "{text}");
        let told = json(&run(), &rows()).unwrap();
        assert_eq!(told["rows"][1]["holds"], false);
        assert_eq!(told["rows"][0]["figure"]["median"], 3.0);
        assert_eq!(told["rows"][0]["gate"]["atMost"], 3.0);
    }

    #[test]
    fn a_smoke_run_shows_no_gate_and_judges_none() {
        let text = table(&Run { is_smoke: true, ..run() }, &rows());
        assert!(text.contains("| **a**: what; slow | 6.00 us | floor: 2.00 us |\n"), "{text}");
        for judging in ["gates hold", "holds", "| gate", "3x", "2.5x", "**no**", "yes"] {
            assert!(!text.contains(judging), "{judging} in {text}");
        }
    }

    #[test]
    fn each_row_tells_how_long_it_was_measured() {
        let rows: Vec<Row> = rows()
            .into_iter()
            .zip([Some(2.0), Some(0.5), None])
            .map(|(row, seconds)| Row { seconds_per_measurement: seconds, ..row })
            .collect();
        let told = json(&run(), &rows).unwrap();
        assert_eq!(told["rows"][0]["secondsPerMeasurement"], 2.0);
        assert_eq!(told["rows"][1]["secondsPerMeasurement"], 0.5);
        assert_eq!(told["rows"][2]["secondsPerMeasurement"], Value::Null);
        assert_eq!(told.get("secondsPerMeasurement"), None);
    }

    #[test]
    fn only_the_marked_part_of_a_document_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.md");
        fs::write(&path, format!("# Head\n{BEGIN}\nold\n{END}\nWhy.\n")).unwrap();
        write_table(&path, "new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("# Head\n{BEGIN}\nnew\n{END}\nWhy.\n"));
        fs::write(&path, "no marks").unwrap();
        assert!(write_table(&path, "new\n").is_err());
    }
}
