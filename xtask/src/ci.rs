//! `cargo xtask ci`: everything that must pass.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::output::{say, stream};
use super::tally::Tally;
use super::{catalogue, install, lab, output, panics, tidy};

type Step = (&'static str, fn(&Path) -> Result<Tally>);

/// Without it nothing else is tried.
const ROOM: &str = "room on the disk";

const TOOLS: &str = "tools";
/// What comes after it needs the tools.
const BUILD: &str = "build";

const STEPS: [Step; 14] = [
    (ROOM, room),
    (TOOLS, tools),
    ("format", format),
    ("tidy", tidy_up),
    ("lints", lints),
    (BUILD, build),
    ("tests", tests),
    ("databases on a newer PostgreSQL", newer_databases),
    ("extensions for az", extensions),
    ("reference is up to date", reference),
    ("conformance with real clients", conformance),
    ("walk-through, restarting at every step", walk_through),
    ("guide as it is written", guide),
    ("soak: kill -9 under eight writers", kills),
];

/// A minute's worth; `cargo xtask soak` does more.
const SOAK_ROUNDS: &str = "20";
const SOAK_UP_MILLISECONDS_MAX: &str = "10000";

/// Bytes that everything built for the tests takes.
const BUILT: u64 = 4 << 30;
/// Bytes that clients, sites and the soak take beside it, and some to spare.
const BESIDE: u64 = 2 << 30;

/// Folders below `extensions`, each with a folder `tests`.
const EXTENSIONS: [&str; 3] = ["arcadia", "connectedmachine", "db_up"];

pub fn run(root: &Path, only: &[String]) -> Result<ExitCode> {
    let began = Instant::now();
    let mut sum = Tally::default();
    let mut summary = Vec::new();
    for (name, step) in chosen(only) {
        say(format_args!("\n==== {name}"));
        let began = Instant::now();
        let tally = step(root).unwrap_or_else(|error| {
            say(format_args!("error: {error:#}"));
            Tally::one(false)
        });
        let line = format!("{name}: {tally}, {:.1} s", began.elapsed().as_secs_f64());
        say(format_args!("---- {line}"));
        summary.push(line);
        sum += tally;
        if name == ROOM && sum.failed > 0 {
            break;
        }
    }
    say(format_args!("\n==== all, {:.0} s", began.elapsed().as_secs_f64()));
    for line in summary {
        say(line);
    }
    let sum = sum.with_status(true);
    say(sum);
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The steps whose names contain one of the words, and the tools that they need; all of them without words.
fn chosen(only: &[String]) -> Vec<Step> {
    let is_named = |name: &str| only.is_empty() || only.iter().any(|word| name.contains(word.as_str()));
    let needs_tools =
        STEPS.iter().rev().take_while(|(name, _)| *name != BUILD).any(|(name, _)| is_named(name));
    STEPS.into_iter().filter(|(name, _)| is_named(name) || *name == TOOLS && needs_tools).collect()
}

/// Says so at once where the disk would be full half an hour later, as a failure of whatever writes just then.
fn room(root: &Path) -> Result<Tally> {
    let target = root.join("target");
    let needed = if target.join("debug/deps").is_dir() { BESIDE } else { BESIDE + BUILT };
    std::fs::create_dir_all(&target)?;
    for (folder, needed) in [(target, needed), (std::env::temp_dir(), BESIDE)] {
        let disk =
            rustix::fs::statvfs(&folder).with_context(|| format!("cannot look at {}", folder.display()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        ensure!(
            free >= needed,
            "the disk of {} has {} MiB left, and the tests need {} MiB there; make room (`cargo clean` removes what was \
             built before; TMPDIR names another temporary directory)",
            folder.display(),
            free >> 20,
            needed >> 20,
        );
    }
    Ok(Tally::one(true))
}

/// Nothing is compiled twice here, and what would speed that up is a third of what compiling writes.
fn cargo(root: &Path) -> Command {
    let mut command = output::cargo(root);
    command.env("CARGO_INCREMENTAL", "0");
    command
}

fn tools(root: &Path) -> Result<Tally> {
    install::everything(root)?;
    Ok(Tally::one(true))
}

fn format(root: &Path) -> Result<Tally> {
    passes(cargo(root).args(["fmt", "--all", "--check"]))
}

fn tidy_up(root: &Path) -> Result<Tally> {
    Ok(Tally::one(tidy::run(root)? == ExitCode::SUCCESS))
}

fn lints(root: &Path) -> Result<Tally> {
    passes(cargo(root).args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn build(root: &Path) -> Result<Tally> {
    passes(cargo(root).args(["build", "--quiet", "--workspace", "--bins"]))
}

fn tests(root: &Path) -> Result<Tally> {
    counts(cargo(root).args(["test", "--quiet", "--workspace", "--no-fail-fast"]))
}

/// The servers' tests once more: the newest PostgreSQL on the search path is the one that is used.
fn newer_databases(root: &Path) -> Result<Tally> {
    // Servers run as a user of their own, who need not be let into this tree.
    let place = tempfile::Builder::new()
        .prefix("arcadia-postgresql")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()?;
    let installed = install::newer_postgresql(root)?;
    output::capture(Command::new("cp").arg("--recursive").arg(installed).arg(place.path()))?;
    let bin = place.path().join("native/bin");
    say(output::capture(Command::new(bin.join("postgres")).arg("--version"))?.trim());
    let mut tests = cargo(root);
    tests.args(["test", "--quiet", "--package", "arcadia-postgres", "--test", "it"]);
    counts(install::on_path_first(&mut tests, vec![bin])?)
}

/// The extensions' own tests, with the Python that az runs on.
fn extensions(root: &Path) -> Result<Tally> {
    let mut sum = Tally::default();
    for name in EXTENSIONS {
        let mut python = Command::new(root.join("target/venv/az/bin/python"));
        python.args(["-m", "unittest", "discover", "-s", "tests"]);
        python.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(root.join("extensions").join(name));
        let (lines, succeeded) = stream(&mut python)?;
        sum += Tally::of_unittest(&lines, succeeded);
    }
    Ok(sum)
}

fn reference(root: &Path) -> Result<Tally> {
    let stale = catalogue::stale(root)?;
    for file in &stale {
        say(format_args!(
            "{} is not what `arcadia reference` prints; run: cargo xtask catalogue",
            file.display()
        ));
    }
    Ok(Tally::one(stale.is_empty()))
}

fn conformance(root: &Path) -> Result<Tally> {
    counts(install::with_tools(root, Command::new("python3").arg(root.join("tests/conformance/run.py")))?)
}

fn walk_through(root: &Path) -> Result<Tally> {
    let folder = tempfile::tempdir()?;
    // A directory that is named for it stays, and its log with it.
    let data = folder.path().join("data");
    let mut walked =
        counts(lab::command(root)?.arg("--data").arg(&data).args(["lab", "--restart-at-every-step"]))?;
    let panics = panics::told(&data);
    panics.iter().for_each(|panic| say(format_args!("FAILED  {panic}")));
    walked += Tally::one(panics.is_empty());
    Ok(walked)
}

fn guide(root: &Path) -> Result<Tally> {
    counts(install::with_tools(root, Command::new("python3").arg(root.join("tests/guide/run.py")))?)
}

/// Machines that checks run on are slow at times: a start that hangs fails here, a slow one in the long soak.
fn kills(root: &Path) -> Result<Tally> {
    let soak = ["run", "--quiet", "--package", "xtask", "--", "soak", "--rounds", SOAK_ROUNDS];
    let soak = [&soak[..], &["--up-max", SOAK_UP_MILLISECONDS_MAX]].concat();
    counts(cargo(root).args(soak))
}

/// A step that is one check.
fn passes(command: &mut Command) -> Result<Tally> {
    Ok(Tally::one(stream(command)?.1))
}

/// A step that counts its checks itself.
fn counts(command: &mut Command) -> Result<Tally> {
    let (lines, succeeded) = stream(command)?;
    Ok(Tally::of_lines(&lines).with_status(succeeded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_needs_the_tools_has_them_installed() {
        let names = |words: &[&str]| -> Vec<&str> {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            chosen(&words).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&[]).len(), STEPS.len());
        assert_eq!(names(&["conformance"]), [TOOLS, "conformance with real clients"]);
        assert_eq!(names(&["tests"]), [TOOLS, "tests"]);
        assert_eq!(names(&["format", "tidy"]), ["format", "tidy"]);
        assert_eq!(names(&["nothing"]), [""; 0]);
    }
}
