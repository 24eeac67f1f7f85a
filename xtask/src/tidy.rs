//! `cargo xtask tidy`: rules that a machine can check.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Result;

use super::output::{capture, say};
use super::{directions, links};

const LINES_MAX: usize = 600;
const ARCHITECTURE_LINES_MAX: usize = 250;

/// Words that mean unfinished work or a test that does not run. Put together here, so that this file does not
/// hold them itself.
const FORBIDDEN: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("dbg", "!("),
    concat!("#[", "ignore"),
];

pub fn run(root: &Path) -> Result<ExitCode> {
    let mut found = directions::faults(root)?;
    for file in files(root)? {
        let Ok(text) = fs::read_to_string(root.join(&file)) else { continue };
        found.extend(faults(root, &file, &text));
    }
    for fault in &found {
        say(fault);
    }
    say(if found.is_empty() { "tidy".to_owned() } else { format!("{} things are not tidy", found.len()) });
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The project's files: what is committed, and what is new and not ignored.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let text = capture(Command::new("git").args(arguments).current_dir(root))?;
    let mut files: Vec<PathBuf> =
        text.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    files.retain(|file| root.join(file).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

fn faults(root: &Path, file: &Path, text: &str) -> Vec<String> {
    let name = file.display();
    let kind = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_code = matches!(kind, "rs" | "py" | "sh" | "mjs" | "js" | "css" | "html");
    let mut found = Vec::new();
    let lines = text.lines().count();
    if is_code && lines > LINES_MAX {
        found.push(format!("{name} has {lines} lines; more than {LINES_MAX} want to be two files"));
    }
    if file == Path::new("ARCHITECTURE.md") && lines > ARCHITECTURE_LINES_MAX {
        found.push(format!("{name} has {lines} lines; it is to stay below {ARCHITECTURE_LINES_MAX}"));
    }
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if is_code && let Some(word) = FORBIDDEN.iter().find(|word| line.contains(**word)) {
            found.push(format!("{name}:{number}: {word}"));
        }
        if matches!(kind, "rs" | "py" | "sh" | "mjs" | "js" | "md" | "toml") && line.ends_with([' ', '\t']) {
            found.push(format!("{name}:{number}: white space at the end of the line"));
        }
    }
    if kind == "md" {
        found.extend(links::broken(root, file, text));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(file: &str, text: &str) -> usize {
        faults(Path::new("/nowhere"), Path::new(file), text).len()
    }

    #[test]
    fn what_is_not_tidy() {
        assert_eq!(count("a.rs", "fn a() {}\n"), 0);
        assert_eq!(count("a.rs", &format!("{}b)\n", FORBIDDEN[0])), 1);
        assert_eq!(count("a.rs", "fn a() {} \n"), 1);
        assert_eq!(count("a.rs", &"x\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(count("a.json", &"x\n".repeat(LINES_MAX + 1)), 0);
        assert_eq!(count("ARCHITECTURE.md", &"x\n".repeat(ARCHITECTURE_LINES_MAX + 1)), 1);
        assert_eq!(count("a.md", "[a](b.md)\n"), 1);
    }
}
