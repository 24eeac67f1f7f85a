//! Runs of libFuzzer, some at once, and what came of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::build::Programs;
use super::{Options, Target};
use crate::output::say;

/// Longest input, in bytes.
const INPUT_BYTES_MAX: u32 = 4096;
/// Longest time for one input, on a machine that has other work.
const INPUT_SECONDS_MAX: u32 = 20;
/// Most memory that a target may have; what grows without bound gets there.
const MEMORY_MEBIBYTES_MAX: u32 = 768;
/// Most examples of one target, and most bytes of them, in the tree.
const EXAMPLES_MAX: usize = 50;
const EXAMPLE_BYTES_MAX: u64 = 100 * 1024;

/// What came of one target.
struct Outcome {
    target: Target,
    minutes: f64,
    executions: u64,
    /// Branches that were reached, as libFuzzer counts them.
    reached: u64,
    /// Inputs that reach something that no other does.
    inputs: u64,
    clean: bool,
    log: PathBuf,
}

fn place(root: &Path, target: &Target, part: &str) -> PathBuf {
    root.join("target/fuzz").join(&target.name).join(part)
}

pub fn all(root: &Path, targets: &[Target], programs: &Programs, options: &Options) -> Result<ExitCode> {
    let waiting: Mutex<VecDeque<&Target>> = Mutex::new(targets.iter().collect());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, targets.len().max(1)) {
            scope.spawn(|| {
                while let Some(target) = next(&waiting) {
                    let outcome = programs.of(target).and_then(|program| one(root, target, program, options));
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut outcomes = outcomes.into_iter().collect::<Result<Vec<Outcome>>>()?;
    outcomes.sort_by(|one, other| one.target.name.cmp(&other.target.name));
    show(&outcomes, options.json);
    Ok(if outcomes.iter().all(|outcome| outcome.clean) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn next<'a>(waiting: &Mutex<VecDeque<&'a Target>>) -> Option<&'a Target> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// The target's test program as libFuzzer's, with its own arguments in the variable that bolero reads.
fn fuzzer(target: &Target, program: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command
        .args([target.test.as_str(), "--exact", "--nocapture", "--test-threads", "1"])
        .env("BOLERO_LIBFUZZER_ARGS", arguments.join(" "))
        .stdin(Stdio::null());
    command
}

fn one(root: &Path, target: &Target, program: &Path, options: &Options) -> Result<Outcome> {
    let (found, failures) = (place(root, target, "found"), place(root, target, "failures"));
    for folder in [&found, &failures] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let log = place(root, target, "log");
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let seconds = (options.minutes * 60.0).clamp(1.0, 86_400.0) as u64;
    let arguments = [
        found.display().to_string(),
        target.examples.display().to_string(),
        format!("-artifact_prefix={}/", failures.display()),
        format!("-max_total_time={seconds}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MEBIBYTES_MAX}"),
        "-print_final_stats=1".to_owned(),
    ];
    let started = Instant::now();
    let mut command = fuzzer(target, program, &arguments);
    let status = command.stdout(output.try_clone()?).stderr(output).status()?;
    let text = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
    let executions = number_after(&text, "stat::number_of_executed_units:").unwrap_or(0);
    let outcome = Outcome {
        target: target.clone(),
        minutes: started.elapsed().as_secs_f64() / 60.0,
        executions,
        reached: number_after(&text, " cov: ").unwrap_or(0),
        inputs: number_after(&text, " corp: ").unwrap_or(0),
        // A test that is not there runs nothing and succeeds.
        clean: status.success() && executions > 0,
        log,
    };
    say(if outcome.clean {
        format!("{}: clean", target.name)
    } else {
        format!("{}: FAILED, see {}", target.name, outcome.log.display())
    });
    Ok(outcome)
}

/// The number behind the last such words.
fn number_after(text: &str, words: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(words)?;
    let digits = rest.trim_start();
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

fn show(outcomes: &[Outcome], as_json: bool) {
    if as_json {
        let rows: Vec<Value> = outcomes
            .iter()
            .map(|outcome| {
                json!({
                    "target": outcome.target.name,
                    "crate": outcome.target.member,
                    "minutes": (outcome.minutes * 10.0).round() / 10.0,
                    "executions": outcome.executions,
                    "reached": outcome.reached,
                    "inputs": outcome.inputs,
                    "clean": outcome.clean,
                    "log": outcome.log,
                })
            })
            .collect();
        return say(json!({ "targets": rows }));
    }
    say("| target | minutes | executions | branches | inputs | result |");
    say("|---|---|---|---|---|---|");
    for outcome in outcomes {
        let result = if outcome.clean { "clean" } else { "FAILED" };
        say(format!(
            "| `{}` | {:.0} | {} | {} | {} | {result} |",
            outcome.target.name, outcome.minutes, outcome.executions, outcome.reached, outcome.inputs
        ));
    }
}

/// Keeps the examples that were written by hand, and of what was found those that reach the most more, up to a bound.
pub fn minimize(root: &Path, target: &Target, program: &Path) -> Result<()> {
    let found = place(root, target, "found");
    fs::create_dir_all(&found)?;
    for example in files(&target.examples)? {
        if example.file_name().is_some_and(|name| name.to_string_lossy().starts_with("found-")) {
            fs::remove_file(example)?;
        }
    }
    let by_hand = files(&target.examples)?;
    let mut all = by_hand.clone();
    all.extend(files(&found)?);
    let reached = reached(root, target, program, &all)?;
    let mut kept: Vec<usize> = (0..by_hand.len()).collect();
    let mut seen: BTreeSet<u64> =
        kept.iter().filter_map(|number| reached.get(number)).flatten().copied().collect();
    let lengths = all.iter().map(|path| Ok(fs::metadata(path)?.len())).collect::<Result<Vec<u64>>>()?;
    let mut bytes: u64 = lengths[..by_hand.len()].iter().sum();
    while kept.len() < EXAMPLES_MAX {
        let fits = |number: &usize| !kept.contains(number) && bytes + lengths[*number] <= EXAMPLE_BYTES_MAX;
        let more =
            |number: usize| reached.get(&number).map_or(0, |reached| reached.difference(&seen).count());
        let candidates = (0..all.len()).filter(fits).map(|number| (more(number), Reverse(number)));
        let Some((1.., Reverse(best))) = candidates.max() else { break };
        if let Some(name) = all[best].file_name() {
            fs::copy(&all[best], target.examples.join(format!("found-{:.16}", name.to_string_lossy())))?;
        }
        seen.extend(reached.get(&best).into_iter().flatten());
        bytes += lengths[best];
        kept.push(best);
    }
    let count = kept.len();
    say(format!("{}: {count} examples, {bytes} bytes", target.name));
    Ok(())
}

/// The files of a folder, the shortest first.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// What each file reaches. libFuzzer's merge would start the program again without the test's name, so this is the
/// inner half of it, over a list that is written here.
fn reached(
    root: &Path,
    target: &Target,
    program: &Path,
    files: &[PathBuf],
) -> Result<BTreeMap<usize, BTreeSet<u64>>> {
    let control = place(root, target, "control");
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    fs::write(&control, format!("{}\n0\n{}\n", names.len(), names.join("\n")))?;
    let arguments = ["-merge_inner=1".to_owned(), format!("-merge_control_file={}", control.display())];
    let output = File::create(place(root, target, "merge-log"))?;
    let mut command = fuzzer(target, program, &arguments);
    if !command.stdout(output.try_clone()?).stderr(output).status()?.success() {
        bail!("the inputs of {} cannot be read again; one of them fails", target.name);
    }
    Ok(fs::read_to_string(&control)?.lines().filter_map(features).collect())
}

/// `FT 3 17 4711`: the file's number, and the numbers of what it reaches.
fn features(line: &str) -> Option<(usize, BTreeSet<u64>)> {
    let mut numbers = line.strip_prefix("FT ")?.split(' ');
    let file = numbers.next()?.parse().ok()?;
    Some((file, numbers.filter_map(|number| number.parse().ok()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_last_line_that_has_them() {
        let text = "#2\tINITED cov: 5 ft: 6 corp: 1/1b\n#9\tDONE   cov: 77 ft: 90 corp: 12/34b\n\
                    stat::number_of_executed_units: 1234\n";
        assert_eq!(number_after(text, " cov: "), Some(77));
        assert_eq!(number_after(text, " corp: "), Some(12));
        assert_eq!(number_after(text, "stat::number_of_executed_units:"), Some(1234));
        assert_eq!(number_after(text, "nothing"), None);
        assert_eq!(features("FT 3 17 4711"), Some((3, BTreeSet::from([17, 4711]))));
        assert_eq!(features("COV 3 17"), None);
    }
}
