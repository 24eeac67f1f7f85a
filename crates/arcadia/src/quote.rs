//! Variables written so that a shell reads back exactly what was meant, whatever is in them.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// bash, zsh, dash: `eval "$(arcadia env)"`
    Sh,
    /// fish: `arcadia env --format fish | source`
    Fish,
    /// One JSON object.
    Json,
    /// NAME="value" lines, for systemd's EnvironmentFile and dotenv libraries
    Dotenv,
}

/// One line per variable (one object for JSON).
pub fn render(format: Format, variables: &[(String, String)]) -> Result<String, serde_json::Error> {
    if format == Format::Json {
        let object: serde_json::Map<_, _> =
            variables.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        return serde_json::to_string_pretty(&object);
    }
    let line = |(name, value): &(String, String)| match format {
        Format::Fish => format!("set -gx {name} {}", fish(value)),
        Format::Dotenv => format!("{name}={}", dotenv(value)),
        Format::Sh | Format::Json => format!("export {name}={}", sh(value)),
    };
    Ok(variables.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// In single quotes nothing means anything but the single quote.
pub fn sh(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// In fish's single quotes `\\` and `\'` are read as escapes.
fn fish(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

fn dotenv(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for character in value.chars() {
        match character {
            '"' | '\\' | '$' | '`' => out.extend(['\\', character]),
            '\n' => out.push_str(r"\n"),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const HOSTILE: &str = "a b'c\"d\\e$(id)`id`$HOME;&|\n*~!#{x}";

    #[test]
    fn a_real_shell_reads_back_what_was_written() {
        let script = render(Format::Sh, &[("X".into(), HOSTILE.into())]).unwrap();
        for shell in ["sh", "bash"] {
            let output =
                Command::new(shell).arg("-c").arg(format!("{script}\nprintf %s \"$X\"")).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), HOSTILE, "{shell}");
        }
    }

    #[test]
    fn the_other_formats() {
        let variables = [("A".to_owned(), HOSTILE.to_owned()), ("B".to_owned(), "b".to_owned())];
        let json: serde_json::Value =
            serde_json::from_str(&render(Format::Json, &variables).unwrap()).unwrap();
        assert_eq!((json["A"].as_str(), json["B"].as_str()), (Some(HOSTILE), Some("b")));
        let plain = [("A".to_owned(), r"it's\x".to_owned())];
        assert_eq!(render(Format::Fish, &plain).unwrap(), r"set -gx A 'it\'s\\x'");
        assert_eq!(render(Format::Dotenv, &plain).unwrap(), r#"A="it's\\x""#);
    }
}
