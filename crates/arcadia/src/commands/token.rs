//! `arcadia token`

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use arcadia_kernel::Clock as _;
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::host::SystemClock;
use crate::terminal::{BOLD, DIM, RESET, note, say};

const INPUT_BYTES_MAX: u64 = 64 * 1024;
/// Claims that are times, in seconds since 1970.
const TIMES: &[&str] = &["exp", "nbf", "iat", "auth_time", "xms_tcdt"];

/// Look into access tokens
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arcadia token decode \"$token\"")]
pub enum Command {
    /// Show the header and claims of a token; nothing is sent anywhere, and nothing is verified
    #[command(after_help = "Examples:\n  arcadia token decode \"$token\"\n  \
                            az account get-access-token --query accessToken -o tsv \\\n    \
                            | arcadia token decode\n  \
                            arcadia token decode --json \"$token\" | jq -r .claims.oid")]
    Decode {
        /// The token; read from standard input when absent or `-`
        token: Option<String>,
        /// One JSON object with `header` and `claims`
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Decode { token, json } = command;
    let token = match token.as_deref() {
        None | Some("-") => read_input()?,
        Some(token) => token.to_owned(),
    };
    let token = token.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
    let (header, claims) = arcadia_crypto::peek(token).context("this is not a JSON web token")?;
    if *json {
        say(plain(&serde_json::to_string_pretty(&json!({ "header": header, "claims": claims }))?));
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemClock.epoch_seconds();
    for (title, part) in [("header", &header), ("claims", &claims)] {
        say(format!("{BOLD}{title}{RESET}"));
        for line in lines(part, now) {
            say(line);
        }
    }
    note("The signature was not checked: this shows what the token says, not that it is true.");
    Ok(ExitCode::SUCCESS)
}

fn read_input() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut text).context("standard input")?;
    Ok(text)
}

fn lines(part: &Map<String, Value>, now: i64) -> Vec<String> {
    let width = part.keys().map(String::len).max().unwrap_or(0);
    part.iter()
        .map(|(name, value)| {
            let shown = match value {
                // Text is shown as JSON too where it has characters that a terminal would act on.
                Value::String(text) if !text.chars().any(char::is_control) => text.clone(),
                other => plain(&other.to_string()),
            };
            let time = TIMES.contains(&name.as_str()).then(|| value.as_f64()).flatten();
            let time = time.and_then(|seconds| human_time(seconds as i64, now));
            let time = time.map(|time| format!("  {DIM}{time}{RESET}")).unwrap_or_default();
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            format!("  {name:<width$}  {shown}{time}")
        })
        .collect()
}

/// JSON may have characters in it that a terminal acts on, such as U+009B; here they are written as numbers.
fn plain(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // Between values; in one it is `\n` already.
            '\n' => text.push('\n'),
            character if character.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            character => text.push(character),
        }
    }
    text
}

/// `2026-11-22T10:00:00Z, in 59 min`
fn human_time(seconds: i64, now: i64) -> Option<String> {
    let time = Timestamp::from_second(seconds).ok()?;
    let distance = seconds.abs_diff(now);
    let amount = match distance {
        0..120 => format!("{distance} s"),
        120..7_200 => format!("{} min", distance / 60),
        7_200..172_800 => format!("{} h", distance / 3_600),
        _ => format!("{} days", distance / 86_400),
    };
    Some(if seconds >= now { format!("{time}, in {amount}") } else { format!("{time}, {amount} ago") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_words() {
        let now = 1_800_000_000;
        assert_eq!(human_time(now + 3_599, now).unwrap(), "2027-01-15T08:59:59Z, in 59 min");
        assert_eq!(human_time(now - 60, now).unwrap(), "2027-01-15T07:59:00Z, 60 s ago");
        assert_eq!(human_time(now + 86_399, now).unwrap().split(", ").nth(1), Some("in 23 h"));
        assert!(human_time(i64::MAX, now).is_none());
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let claims = json!({ "a\u{1b}[2J": "x\u{1b}[2J\n\u{9b}2J\u{7f}", "exp": 5, "l": ["\u{9b}"] });
        let shown = lines(claims.as_object().unwrap(), 5).join("|").replace(DIM, "").replace(RESET, "");
        assert!(!shown.contains(char::is_control), "{shown:?}");
        let json = plain(&serde_json::to_string_pretty(&claims).unwrap());
        assert!(!json.contains(|c: char| c.is_control() && c != '\n'), "{json:?}");
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), claims, "it is the same JSON");
        assert!(shown.contains("1970-01-01T00:00:05Z, in 0 s"), "{shown}");
    }
}
