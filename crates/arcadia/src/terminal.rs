//! Where the command line writes: results on standard output, everything else on standard error.
//!
//! Colours appear on a terminal only (and not with NO_COLOR); whoever closed the other end of a pipe has seen enough.

use std::io::{self, Write as _};

pub const BOLD: &str = "\x1b[1m";
pub const DIM: &str = "\x1b[2m";
pub const RESET: &str = "\x1b[0m";

/// A line of result. Escape codes in it are removed where they would not be shown.
pub fn say(line: impl AsRef<str>) {
    let mut out = anstream::stdout().lock();
    give_up_quietly(writeln!(out, "{}", line.as_ref()).and_then(|()| out.flush()));
}

/// A line for the person who waits.
pub fn note(line: impl AsRef<str>) {
    let mut out = anstream::stderr().lock();
    // There is nowhere left to tell that standard error is gone.
    let _ = writeln!(out, "{}", line.as_ref());
}

/// Writing to a pipe that nobody reads ends the command as it would any other.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where a command ends early, by its reader's wish"
)]
fn give_up_quietly(result: io::Result<()>) {
    if let Err(error) = result {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        if !quiet {
            note(format!("arcadia: standard output: {error}"));
        }
        std::process::exit(if quiet { 0 } else { 1 });
    }
}
