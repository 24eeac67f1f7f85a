//! `cargo xtask fuzz`: the fuzz targets of the crates, run by libFuzzer until a time is over.
//!
//! A target is a test made by `arcadia_fuzz::target!`. Its examples lie beside it, in `__fuzz__/NAME/corpus`; what a
//! run finds besides is kept in `target/fuzz/NAME`. Everything is built by the stable compiler, in a target directory
//! of its own.

mod build;
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::output::say;

/// What may be asked for.
#[derive(clap::Args)]
pub struct Options {
    /// Names of targets; all of them when none is named.
    targets: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// How many run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Show the names of the targets and stop.
    #[arg(long)]
    list: bool,
    /// Replace the examples in the tree by the fewest that reach what all found inputs reach.
    #[arg(long)]
    minimize: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// One target, known by its folder.
#[derive(Clone)]
pub struct Target {
    name: String,
    /// The crate's folder in `crates`.
    member: String,
    /// The test's name in its binary: `gateway::fuzz::startup`.
    test: String,
    /// `__fuzz__/NAME/corpus`.
    examples: PathBuf,
}

pub fn run(root: &Path, options: &Options) -> Result<ExitCode> {
    let targets = chosen(targets(root)?, &options.targets)?;
    if options.list {
        targets.iter().for_each(|target| say(format!("{:<20} {}", target.name, target.member)));
        return Ok(ExitCode::SUCCESS);
    }
    let programs = build::programs(root, &targets)?;
    if options.minimize {
        for target in &targets {
            run::minimize(root, target, programs.of(target)?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    run::all(root, &targets, &programs, options)
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
        let source = member.join("src");
        if source.is_dir() {
            collect(&member, &source, &source, &mut found)?;
        }
    }
    Ok(found)
}

fn collect(member: &Path, source: &Path, folder: &Path, found: &mut Vec<Target>) -> Result<()> {
    for below in folders(folder)? {
        if below.ends_with("__fuzz__") {
            for target in folders(&below)? {
                found.push(target_at(member, source, folder, &target)?);
            }
        } else {
            collect(member, source, &below, found)?;
        }
    }
    Ok(())
}

fn target_at(member: &Path, source: &Path, module: &Path, folder: &Path) -> Result<Target> {
    let text = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = text(folder).context("a target's folder has a name")?;
    let modules = module.strip_prefix(source)?.iter().map(|part| format!("{}::", part.to_string_lossy()));
    Ok(Target {
        member: text(member).context("a crate's folder has a name")?,
        test: format!("{}fuzz::{name}", modules.collect::<String>()),
        examples: folder.join("corpus"),
        name,
    })
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
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
        let mut names: Vec<&str> = all.iter().map(|target| &*target.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len(), "two targets have the same name");
        assert!(chosen(all.clone(), &["nothing".to_owned()]).is_err());
        assert_eq!(chosen(all, &["startup".to_owned()]).unwrap().len(), 1);
    }
}
