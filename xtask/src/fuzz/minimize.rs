//! The fewest examples that reach what a long run has found.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::Target;
use super::run::{fuzzer, place};
use crate::output::say;

/// Most examples of one target, and most bytes of them, in the tree.
const EXAMPLES_MAX: usize = 50;
const EXAMPLE_BYTES_MAX: u64 = 100 * 1024;

/// What examples that were found are called in the tree.
const FOUND: &str = "found-";

/// Keeps the examples that were written by hand, and of what was found, now or before, those that reach the most more,
/// up to a bound. Nothing is removed before everything could be read.
pub fn minimize(root: &Path, target: &Target, program: &Path) -> Result<()> {
    let found = place(root, target, "found");
    fs::create_dir_all(&found)?;
    let (before, by_hand): (Vec<_>, Vec<_>) =
        files(&target.examples)?.into_iter().partition(|path| is_found(path));
    let all: Vec<PathBuf> = by_hand.iter().chain(&before).cloned().chain(files(&found)?).collect();
    let kept = fewest(&all, by_hand.len(), &reached(root, target, program, &all)?)?;
    for stale in before.iter().filter(|path| !kept.contains(path)) {
        fs::remove_file(stale)?;
    }
    let mut bytes = 0;
    for path in &kept {
        bytes += fs::metadata(path)?.len();
        if let (Some(name), true) = (path.file_name(), path.starts_with(&found)) {
            fs::copy(path, target.examples.join(format!("{FOUND}{:.16}", name.to_string_lossy())))?;
        }
    }
    say(format!("{}: {} examples, {bytes} bytes", target.name, kept.len()));
    Ok(())
}

fn is_found(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOUND))
}

/// The first files, and those of the others that reach more than all before them, the best ones first.
fn fewest(all: &[PathBuf], first: usize, reached: &BTreeMap<usize, BTreeSet<u64>>) -> Result<Vec<PathBuf>> {
    let lengths = all.iter().map(|path| Ok(fs::metadata(path)?.len())).collect::<Result<Vec<u64>>>()?;
    let mut kept: Vec<usize> = (0..first).collect();
    let mut seen: BTreeSet<u64> =
        kept.iter().filter_map(|number| reached.get(number)).flatten().copied().collect();
    let mut bytes: u64 = lengths[..first].iter().sum();
    while kept.len() < EXAMPLES_MAX {
        let fits = |number: &usize| !kept.contains(number) && bytes + lengths[*number] <= EXAMPLE_BYTES_MAX;
        let more =
            |number: usize| reached.get(&number).map_or(0, |reached| reached.difference(&seen).count());
        let candidates = (0..all.len()).filter(fits).map(|number| (more(number), Reverse(number)));
        let Some((1.., Reverse(best))) = candidates.max() else { break };
        seen.extend(reached.get(&best).into_iter().flatten());
        bytes += lengths[best];
        kept.push(best);
    }
    Ok(kept.into_iter().map(|number| all[number].clone()).collect())
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
    fn what_a_file_reaches_is_read() {
        assert_eq!(features("FT 3 17 4711"), Some((3, BTreeSet::from([17, 4711]))));
        assert_eq!(features("COV 3 17"), None);
    }

    #[test]
    fn what_reaches_nothing_more_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<PathBuf> =
            ["example-a", "found-b", "c", "d"].map(|name| folder.path().join(name)).into();
        all.iter().for_each(|path| fs::write(path, b"12345678").unwrap());
        let reached = [(0, vec![1]), (1, vec![1, 2]), (2, vec![2]), (3, vec![2, 3, 4])];
        let reached = reached.map(|(number, what)| (number, BTreeSet::from_iter(what)));
        let kept = fewest(&all, 1, &BTreeMap::from(reached)).unwrap();
        assert_eq!(kept, [all[0].clone(), all[3].clone()]);
        fs::write(&all[3], vec![0; EXAMPLE_BYTES_MAX as usize]).unwrap();
        let kept = fewest(&all, 1, &BTreeMap::from([(1, BTreeSet::from([2])), (3, BTreeSet::from([2, 3]))]));
        assert_eq!(kept.unwrap(), [all[0].clone(), all[1].clone()]);
    }
}
