//! `cargo xtask fuzz`: the fuzz targets of the crates, run by libFuzzer until their time is used up.
//!
//! A target is a test made by `arcadia_fuzz::target!`, in a crate or in its tests of whole requests. Its examples lie
//! beside it, in `__fuzz__/NAME/corpus`; what a run finds besides is kept in `target/fuzz/NAME`. Everything is built by
//! the stable compiler, in a target directory of its own.

mod build;
mod figures;
mod minimize;
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::output::say;

/// What may be asked for.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Names of targets; all of them when none is named.
    targets: Vec<String>,
    /// Processor time that each target gets, in minutes. On a busy machine it takes longer than that.
    #[arg(long, default_value_t = 30.0, value_parser = minutes)]
    minutes: f64,
    /// How many run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Show the names of the targets and stop.
    #[arg(long, conflicts_with_all = ["minimize", "keep"])]
    list: bool,
    /// Replace the found examples in the tree by the fewest that reach what all found inputs reach.
    #[arg(long, conflicts_with = "keep")]
    minimize: bool,
    /// Go on where kept runs left off: a target gets what it lacks of its time, and once it ends its figures are added to
    /// docs/fuzzing.json and to the table of docs/fuzzing.md. A failure sets its target back to nothing; a target that is
    /// ended by a signal keeps what it had.
    #[arg(long)]
    keep: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask fuzz --list
  cargo xtask fuzz jwt filter --minutes 5
  cargo xtask fuzz --minutes 1 --jobs 4 --json > figures.json
  cargo xtask fuzz --keep
  cargo xtask fuzz --minimize jwt";
/// Shortest and longest run of one target.
const MINUTES: std::ops::RangeInclusive<f64> = 0.01..=24.0 * 60.0;

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "that is no number".to_owned())?;
    if MINUTES.contains(&minutes) {
        return Ok(minutes);
    }
    Err(format!("minutes are {} to {}", MINUTES.start(), MINUTES.end()))
}

/// One target, known by its folder.
#[derive(Clone)]
pub struct Target {
    name: String,
    /// The crate's folder in `crates`.
    member: String,
    /// The program of tests that it is in: the crate's own, or one beside it.
    program: Program,
    /// The test's name in its program: `gateway::fuzz::startup`.
    test: String,
    /// `__fuzz__/NAME/corpus`.
    examples: PathBuf,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Program {
    /// Tests in `src`.
    Own,
    /// Tests in `tests/NAME`.
    Beside(String),
}

pub fn run(root: &Path, options: &Options) -> Result<ExitCode> {
    let targets = chosen(targets(root)?, &options.targets)?;
    if options.list {
        return Ok(list(&targets, options.json));
    }
    let programs = build::programs(root, &targets)?;
    if options.minimize {
        for target in &targets {
            minimize::minimize(root, target, programs.of(target)?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let outcomes = run::all(root, &work(root, &targets, options)?, &programs, options)?;
    run::show(&outcomes, options.json);
    Ok(if outcomes.iter().all(|outcome| outcome.end == run::End::Clean) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The targets and the processor time that each gets, in seconds.
fn work<'a>(root: &Path, targets: &'a [Target], options: &Options) -> Result<Vec<(&'a Target, f64)>> {
    let wanted = options.minutes * 60.0;
    if !options.keep {
        return Ok(targets.iter().map(|target| (target, wanted)).collect());
    }
    let had = figures::had(root)?;
    let lacks = |target: &Target| wanted - had.get(&target.name).copied().unwrap_or(0.0);
    Ok(targets.iter().map(|target| (target, lacks(target))).filter(|(_, lacks)| *lacks > 0.0).collect())
}

fn list(targets: &[Target], as_json: bool) -> ExitCode {
    if as_json {
        let rows = targets.iter().map(|target| json!({ "target": target.name, "crate": target.member }));
        say(json!({ "targets": rows.collect::<Vec<_>>() }));
    } else {
        targets.iter().for_each(|target| say(format!("{:<20} {}", target.name, target.member)));
    }
    ExitCode::SUCCESS
}

fn chosen(all: Vec<Target>, names: &[String]) -> Result<Vec<Target>> {
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|target| target.name == **name)) {
        bail!("there is no fuzz target {unknown}; `cargo xtask fuzz --list` shows which there are");
    }
    Ok(all.into_iter().filter(|target| names.is_empty() || names.contains(&target.name)).collect())
}

/// Every target of the workspace, in the order of crates and names.
fn targets(root: &Path) -> Result<Vec<Target>> {
    let mut found = Vec::new();
    for member in folders(&root.join("crates"))? {
        let name = name_of(&member)?;
        let mut programs = vec![(Program::Own, member.join("src"))];
        for tests in folders(&member.join("tests"))? {
            programs.push((Program::Beside(name_of(&tests)?), tests));
        }
        for (program, source) in programs {
            collect(&name, &program, &source, &source, &mut found)?;
        }
    }
    Ok(found)
}

fn collect(
    member: &str,
    program: &Program,
    source: &Path,
    folder: &Path,
    found: &mut Vec<Target>,
) -> Result<()> {
    for below in folders(folder)? {
        if !below.ends_with("__fuzz__") {
            collect(member, program, source, &below, found)?;
            continue;
        }
        let modules = folder.strip_prefix(source)?.iter();
        let modules: String = modules.map(|part| format!("{}::", part.to_string_lossy())).collect();
        for target in folders(&below)? {
            let name = name_of(&target)?;
            found.push(Target {
                member: member.to_owned(),
                program: program.clone(),
                test: format!("{modules}fuzz::{name}"),
                examples: target.join("corpus"),
                name,
            });
        }
    }
    Ok(())
}

fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

/// The folders in a folder; none where there is no such folder.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut folders: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_by_their_folders() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let all = targets(root).unwrap();
        let startup = all.iter().find(|target| target.name == "startup").unwrap();
        assert_eq!((&*startup.member, &*startup.test), ("postgres", "gateway::fuzz::startup"));
        assert!(startup.program == Program::Own);
        let mut names: Vec<&str> = all.iter().map(|target| &*target.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len(), "two targets have the same name");
        assert!(chosen(all.clone(), &["nothing".to_owned()]).is_err());
        assert_eq!(chosen(all, &["startup".to_owned()]).unwrap().len(), 1);
    }

    #[test]
    fn minutes_are_bounded() {
        assert_eq!(minutes("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "nan", "inf", "1441", "x"] {
            assert!(minutes(wrong).is_err(), "{wrong}");
        }
    }
}
