//! Speaking to the terminal.

use std::io::Write;

use serde_json::Value;

use crate::onboard::{Event, OnboardFault};

const PROGRESS_WIDTH: usize = 15;

/// Results go to standard output. Messages do too, as scripts expect of this command, unless they are kept apart.
/// That a stream is closed stops nothing: the machine is to be connected whether or not anyone reads on.
pub(super) struct Voice<'a> {
    out: &'a mut (dyn Write + Send),
    err: &'a mut (dyn Write + Send),
    messages_apart: bool,
}

impl<'a> Voice<'a> {
    pub(super) fn new(
        out: &'a mut (dyn Write + Send),
        err: &'a mut (dyn Write + Send),
        messages_apart: bool,
    ) -> Self {
        Self { out, err, messages_apart }
    }

    fn message(&mut self, text: &str) {
        let stream: &mut dyn Write = if self.messages_apart { self.err } else { self.out };
        let _ = writeln!(stream, "{text}");
        let _ = stream.flush();
    }

    pub(super) fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    pub(super) fn result(&mut self, as_json: bool, value: &Value) {
        if as_json {
            self.line(&value.to_string());
        }
    }

    pub(super) fn info(&mut self, text: &str) {
        self.message(&format!("INFO    {text}"));
    }

    pub(super) fn warning(&mut self, text: &str) {
        self.message(&format!("WARN    {text}"));
    }

    pub(super) fn error(&mut self, fault: &OnboardFault) {
        self.message(&format!("ERROR   {}: {fault}", fault.failure.code()));
    }

    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::Info(text) => self.info(&text),
            Event::Warning(text) => self.warning(&text),
            Event::Progress(percent) => self.message(&progress(percent)),
        }
    }
}

fn progress(percent: u8) -> String {
    let percent = percent.min(100);
    let filled = PROGRESS_WIDTH * usize::from(percent) / 100;
    let bar = if percent == 100 {
        "=".repeat(filled)
    } else {
        format!("{}>", "=".repeat(filled.saturating_sub(1)))
    };
    format!("{percent:>4}% [{bar:<PROGRESS_WIDTH$}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(progress(20), "  20% [==>            ]");
        assert_eq!(progress(100), " 100% [===============]");
        assert_eq!(progress(0), "   0% [>              ]");
    }
}
