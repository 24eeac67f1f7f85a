//! Panics of a site and of its machines. Standard error of what runs in the background is a file that nobody reads,
//! and a task that panics is cut off without any client having to notice.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// What Rust says of a panic before anything else.
const PANIC: &str = "panicked at";

/// The lines of the logs below a site's directory that tell of a panic, each with its file and the line after it,
/// which is the reason.
pub fn told(data: &Path) -> Vec<String> {
    let machines = files(&data.join("machines")).into_iter().map(|machine| machine.join("holder.log"));
    let logs = files(&data.join("log")).into_iter().chain(machines);
    logs.flat_map(|log| {
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let name = log.file_name().unwrap_or(OsStr::new("")).to_string_lossy().into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let panics = lines.iter().enumerate().filter(|(_, line)| line.contains(PANIC));
        let told = panics.map(|(at, line)| format!("{name}: {line} {}", lines.get(at + 1).unwrap_or(&"")));
        told.collect::<Vec<_>>()
    })
    .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_found_wherever_they_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert_eq!(told(data), Vec::<String>::new(), "nothing is there");
        let panic = "all is well\n\nthread 'main' (7) panicked at src/a.rs:1:2:\nno reason\n";
        for log in ["log/site.log", "log/site.log.1", "machines/m1/holder.log"] {
            let path = data.join(log);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "all is well\n").unwrap();
            assert_eq!(told(data), Vec::<String>::new());
            fs::write(&path, panic).unwrap();
            let found = told(data);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].ends_with("(7) panicked at src/a.rs:1:2: no reason"), "{found:?}");
            fs::remove_file(&path).unwrap();
        }
    }
}
