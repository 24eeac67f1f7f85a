//! Runs of libFuzzer, some at once, and what came of them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::{Value, json};

use super::build::Programs;
use super::{Options, Target, figures};
use crate::output::{note, say};

/// Longest input, in bytes.
const INPUT_BYTES_MAX: u32 = 4096;
/// Longest time for one input, on a machine that has other work.
const INPUT_SECONDS_MAX: u32 = 20;
/// Most memory that a target may have; what grows without bound gets there.
const MEMORY_MEBIBYTES_MAX: u32 = 768;
/// How often a target's processor time is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What Linux counts processor time in when it shows it to programs, on every machine that Arcadia runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// libFuzzer's when SIGTERM or SIGINT ends it.
const INTERRUPTED: i32 = 72;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It had its time.
    Clean,
    /// Somebody ended it. Until then nothing failed.
    BrokenOff,
    Failed,
}

impl End {
    fn of(status: ExitStatus, executions: u64) -> Self {
        match status.code() {
            Some(INTERRUPTED) => Self::BrokenOff,
            None if status.signal() == Some(Signal::KILL.as_raw()) => Self::BrokenOff,
            // A test that is not there runs nothing and succeeds.
            Some(0) if executions > 0 => Self::Clean,
            _ => Self::Failed,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::BrokenOff => "broken off",
            Self::Failed => "FAILED",
        }
    }
}

/// What came of one target.
pub struct Outcome {
    pub target: Target,
    /// Processor time of the target, in seconds.
    pub cpu_seconds: f64,
    pub executions: u64,
    /// Branches that were reached, as libFuzzer counts them.
    pub branches: u64,
    /// Inputs that reach something that no other does.
    pub inputs: u64,
    pub memory_mebibytes: u64,
    pub end: End,
    log: PathBuf,
}

pub fn place(root: &Path, target: &Target, part: &str) -> PathBuf {
    root.join("target/fuzz").join(&target.name).join(part)
}

/// Runs each target for its seconds of processor time. Outcomes are in the order of the targets' names.
pub fn all(
    root: &Path,
    work: &[(&Target, f64)],
    programs: &Programs,
    options: &Options,
) -> Result<Vec<Outcome>> {
    let waiting: Mutex<VecDeque<&(&Target, f64)>> = Mutex::new(work.iter().collect());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, work.len().max(1)) {
            scope.spawn(|| {
                while let Some((target, seconds)) = next(&waiting) {
                    let outcome =
                        programs.of(target).and_then(|program| one(root, target, program, *seconds));
                    // One at a time: what is kept is read and written anew.
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    let kept = |outcome| if options.keep { keep(root, outcome) } else { Ok(outcome) };
                    outcomes.push(outcome.and_then(kept));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut outcomes = outcomes.into_iter().collect::<Result<Vec<Outcome>>>()?;
    outcomes.sort_by(|one, other| one.target.name.cmp(&other.target.name));
    Ok(outcomes)
}

fn keep(root: &Path, outcome: Outcome) -> Result<Outcome> {
    figures::keep(root, &outcome)?;
    Ok(outcome)
}

fn next<'a>(waiting: &Mutex<VecDeque<&'a (&'a Target, f64)>>) -> Option<&'a (&'a Target, f64)> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// The target's test program as libFuzzer's, with its own arguments in the variable that bolero reads.
pub fn fuzzer(target: &Target, program: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command
        .args([target.test.as_str(), "--exact", "--nocapture", "--test-threads", "1"])
        .env("BOLERO_LIBFUZZER_ARGS", arguments.join(" "))
        // Else the allocator keeps some 40 MiB of what was freed for each thread that hashed a password, and what grows
        // cannot be told from that.
        .env("MALLOC_MMAP_THRESHOLD_", "1048576")
        .stdin(Stdio::null());
    command
}

fn one(root: &Path, target: &Target, program: &Path, seconds: f64) -> Result<Outcome> {
    let (found, failures) = (place(root, target, "found"), place(root, target, "failures"));
    for folder in [&found, &failures] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let log = place(root, target, "log");
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let arguments = [
        found.display().to_string(),
        target.examples.display().to_string(),
        format!("-artifact_prefix={}/", failures.display()),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MEBIBYTES_MAX}"),
        "-print_final_stats=1".to_owned(),
    ];
    let mut command = fuzzer(target, program, &arguments);
    let child = command.stdout(output.try_clone()?).stderr(output).spawn();
    let child = child.with_context(|| format!("cannot run {}", program.display()))?;
    let (status, cpu_seconds) = let_run(child, seconds)?;
    let text = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
    let executions = number_after(&text, "stat::number_of_executed_units:").unwrap_or(0);
    let outcome = Outcome {
        target: target.clone(),
        cpu_seconds,
        executions,
        branches: number_after(&text, " cov: ").unwrap_or(0),
        inputs: number_after(&text, " corp: ").unwrap_or(0),
        memory_mebibytes: number_after(&text, "stat::peak_rss_mb:").unwrap_or(0),
        end: End::of(status, executions),
        log,
    };
    note(match outcome.end {
        End::Failed => format!("{}: FAILED, see {}", target.name, outcome.log.display()),
        end => format!("{}: {}", target.name, end.words()),
    });
    Ok(outcome)
}

/// Asks the fuzzer to end when it has had its processor time, and waits for it. Gives how it ended and the time it had.
fn let_run(mut child: Child, cpu_seconds_max: f64) -> Result<(ExitStatus, f64)> {
    let pid = Pid::from_child(&child);
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let mut asked = false;
    while waitid(WaitId::Pid(pid), ended)?.is_none() {
        if !asked && processor_seconds(pid)? >= cpu_seconds_max {
            // libFuzzer finishes the input that it is at, tells its figures and succeeds.
            kill_process(pid, Signal::USR1)?;
            asked = true;
        }
        sleep(LOOK_EVERY);
    }
    // A process that has ended and is not waited for yet still tells what it has used.
    let cpu_seconds = processor_seconds(pid)?;
    Ok((child.wait()?, cpu_seconds))
}

fn processor_seconds(pid: Pid) -> Result<f64> {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    ticks(&text)
        .map(|ticks| ticks as f64 / TICKS_PER_SECOND)
        .with_context(|| format!("cannot understand {path}"))
}

/// The time in the program and the time in the kernel, of a line that begins with a number, a name and a state.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let [user, system] = [fields.next()?, fields.next()?].map(str::parse::<u64>);
    Some(user.ok()? + system.ok()?)
}

/// The number behind the last such words.
fn number_after(text: &str, words: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(words)?;
    let digits = rest.trim_start();
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

pub fn show(outcomes: &[Outcome], as_json: bool) {
    if as_json {
        let rows: Vec<Value> = outcomes.iter().map(Outcome::as_json).collect();
        return say(json!({ "targets": rows }));
    }
    say("| target | CPU s | executions | branches | inputs | MiB | result |");
    say("|---|---|---|---|---|---|---|");
    for outcome in outcomes {
        let result = outcome.end.words();
        say(format!(
            "| `{}` | {:.1} | {} | {} | {} | {} | {result} |",
            outcome.target.name,
            outcome.cpu_seconds,
            outcome.executions,
            outcome.branches,
            outcome.inputs,
            outcome.memory_mebibytes
        ));
    }
}

impl Outcome {
    fn as_json(&self) -> Value {
        json!({
            "target": self.target.name,
            "crate": self.target.member,
            "cpuSeconds": self.cpu_seconds,
            "executions": self.executions,
            "branches": self.branches,
            "inputs": self.inputs,
            "memoryMebibytes": self.memory_mebibytes,
            "clean": self.end == End::Clean,
            "result": self.end.words(),
            "log": self.log,
        })
    }
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
    }

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let line = "7 (a) b (c) R 1 7 7 0 -1 4194304 100 200 0 0 250 31 9 9 20 0 1 0";
        assert_eq!(ticks(line), Some(281));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn who_is_ended_has_not_failed() {
        let ended = |script: &str| Command::new("sh").args(["-c", script]).status().unwrap();
        assert_eq!(End::of(ended("exit 0"), 1), End::Clean);
        assert_eq!(End::of(ended("exit 0"), 0), End::Failed);
        assert_eq!(End::of(ended("exit 72"), 1), End::BrokenOff);
        assert_eq!(End::of(ended("kill -KILL $$"), 0), End::BrokenOff);
        for failure in ["exit 1", "exit 77", "kill -SEGV $$", "kill -ABRT $$"] {
            assert_eq!(End::of(ended(failure), 1), End::Failed, "{failure}");
        }
    }

    #[test]
    fn a_program_is_asked_to_end_when_it_has_had_its_time() {
        let mut command = Command::new("sh");
        let script = "trap 'echo asked; exit 0' USR1; while :; do :; done";
        let child = command.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let (status, cpu_seconds) = let_run(child, 0.3).unwrap();
        assert!(status.success() && cpu_seconds >= 0.3);
    }
}
