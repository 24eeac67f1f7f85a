//! `--config FILE`: flags from a file of `flag: value` lines or a JSON object.

use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;

use super::Stop;
use crate::files::read_bounded;

const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The arguments with those of the file before the ones that were given, so that the given ones win.
pub(super) fn expand(args: Vec<OsString>) -> Result<Vec<OsString>, Stop> {
    let Some(path) = named(&args) else { return Ok(args) };
    let wrong = |reason: String| {
        Stop::ConfigFile(format!("the file {} of --config cannot be used: {reason}", path.to_string_lossy()))
    };
    let bytes = read_bounded(Path::new(&path), FILE_BYTES_MAX).map_err(|fault| wrong(fault.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not text".to_owned()))?;
    let flags = read(&text).map_err(wrong)?;
    // After the command's name: the file's flags are the command's.
    let at = args.iter().position(|arg| matches!(arg.to_str(), Some("connect" | "disconnect" | "show")));
    let at = at.map_or(args.len(), |at| at + 1);
    let mut all = args;
    all.splice(at..at, flags.into_iter().map(OsString::from));
    Ok(all)
}

fn named(args: &[OsString]) -> Option<OsString> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str() else { continue };
        if text == "--config" {
            return args.next().cloned();
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(path.into());
        }
    }
    None
}

pub(super) fn read(text: &str) -> Result<Vec<String>, String> {
    let pairs: Vec<(String, String)> = if text.trim_start().starts_with('{') {
        let fields: serde_json::Map<String, Value> =
            serde_json::from_str(text).map_err(|fault| fault.to_string())?;
        fields.into_iter().map(|(name, value)| Ok((name, plain(&value)?))).collect::<Result<_, String>>()?
    } else {
        lines(text)?
    };
    Ok(pairs.into_iter().flat_map(|(name, value)| flag(&name, value)).collect())
}

fn plain(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        _ => Err("values must be text, numbers, true or false".to_owned()),
    }
}

/// Flat YAML: `name: value`, with comments and optional quotes.
fn lines(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.trim_start().is_empty() || line.trim_start().starts_with('#') || line == "---" {
            continue;
        }
        let pair = line.split_once(':').filter(|(name, value)| {
            !name.starts_with([' ', '\t', '-']) && (value.is_empty() || value.starts_with([' ', '\t']))
        });
        let (name, value) = pair.ok_or_else(|| format!("line {} is not 'flag: value'", number + 1))?;
        let value = value.trim();
        let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        let value = quoted.unwrap_or_else(|| value.split(" #").next().unwrap_or("").trim_end());
        pairs.push((name.trim().to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// `use-device-code: true` is a switch; one that is false is left out.
fn flag(name: &str, value: String) -> Vec<String> {
    let name = format!("--{}", name.trim_start_matches('-'));
    match value.as_str() {
        "true" => vec![name],
        "false" => Vec::new(),
        _ => vec![format!("{name}={value}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms() {
        let yaml = "---\n# a comment\nresource-group: arc-hack # of the lab\ntags: 'a=b,c=d # e'\nuse-device-code: true\nforce: false\n";
        assert_eq!(
            read(yaml).unwrap(),
            ["--resource-group=arc-hack", "--tags=a=b,c=d # e", "--use-device-code"]
        );
        let json = r#"{"location":"uksouth","use-device-code":true}"#;
        assert_eq!(read(json).unwrap(), ["--location=uksouth", "--use-device-code"]);
        for text in ["a", "a:b", " a: b", "- a: b", r#"{"a":["b"]}"#, "{"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_files_flags_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.yaml");
        std::fs::write(&file, "location: uksouth").unwrap();
        let args = ["azcmagent", "connect", "--location", "ukwest", "--config", file.to_str().unwrap()];
        let all = expand(args.iter().map(OsString::from).collect()).ok().unwrap();
        assert_eq!(all[1..4], ["connect", "--location=uksouth", "--location"]);
        assert!(matches!(
            expand(["x", "--config=/nowhere"].map(OsString::from).to_vec()),
            Err(Stop::ConfigFile(_))
        ));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = read(&text);
        }
    }
}
