//! Where the command line writes: results on standard output, everything else on standard error.
//!
//! Colours appear on a terminal only (and not with NO_COLOR); whoever closed the other end of a pipe has seen enough.

use std::io::{self, BufRead as _, Read as _, Write as _};

use arcadia_crypto::Zeroizing;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// Longer than any passphrase.
const HIDDEN_BYTES_MAX: usize = 4096;

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

/// Asks the person at the terminal for something that is not shown while it is typed. `None` when standard input is not
/// a terminal: then nobody is asked, and nothing waits.
pub fn ask_hidden(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
    let input = io::stdin();
    if !isatty(&input) {
        return Ok(None);
    }
    let shown = tcgetattr(&input)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON);
    let mut out = io::stderr().lock();
    write!(out, "{question}").and_then(|()| out.flush())?;
    tcsetattr(&input, OptionalActions::Flush, &hidden)?;
    let mut line = Zeroizing::new(String::with_capacity(HIDDEN_BYTES_MAX));
    let read = input.lock().take(HIDDEN_BYTES_MAX as u64).read_line(&mut line);
    tcsetattr(&input, OptionalActions::Now, &shown)?;
    read?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing was typed"));
    }
    Ok(Some(line))
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

/// A count of bytes for the person who waits, on a terminal only and gone when it is dropped.
pub fn progress(of: &str) -> ProgressBar {
    let shown = ProgressBar::no_length().with_prefix(of.to_owned()).with_finish(ProgressFinish::AndClear);
    match ProgressStyle::with_template("{spinner} {prefix}: {bytes} ({bytes_per_sec})") {
        Ok(style) => shown.with_style(style),
        Err(_) => shown,
    }
}
