//! Signals that end a process: SIGTERM, SIGINT, and SIGHUP of a terminal that is closed (unless `nohup` had it ignored).

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell adds to a signal's number for the exit status.
const ENDED_BY_SIGNAL: i32 = 128;

/// Taken from the moment that this is made.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl StopSignals {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: if hang_up_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// The next one.
    pub async fn wait(&mut self) -> SignalKind {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = hang_up => SignalKind::hangup(),
        }
    }
}

/// From now on the first signal calls `clean_up` on a thread of its own, and ends the process after that.
#[allow(
    clippy::disallowed_methods,
    reason = "the process ends by a signal, which no error in main stands for"
)]
pub fn before_the_end(clean_up: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let taken = {
        let _inside = runtime.enter();
        StopSignals::new()
    };
    let mut signals = taken?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let signal = runtime.block_on(signals.wait());
        clean_up();
        std::process::exit(ENDED_BY_SIGNAL + signal.as_raw_value());
    })?;
    Ok(())
}

/// Taking a signal would undo that it is ignored, so this is asked first.
fn hang_up_is_ignored() -> bool {
    const HANG_UP_BIT: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & HANG_UP_BIT != 0)
}
