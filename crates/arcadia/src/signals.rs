//! Signals that end a process: SIGTERM, SIGINT and SIGHUP. The last two only where whoever started it has not had them
//! ignored, as `nohup` does for a terminal that is closed, and a script's shell for Ctrl-C in what it runs in the
//! background.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// What a shell adds to a signal's number for the exit status.
const ENDED_BY_SIGNAL: i32 = 128;
/// What comes so soon after a first signal comes with it: `timeout` sends two, and so does a terminal that is closed.
const TOGETHER: Duration = Duration::from_secs(1);

/// Taken from the moment that this is made.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Option<Signal>,
    hang_up: Option<Signal>,
}

impl StopSignals {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            // Always, as `arcadia down` sends it.
            terminate: signal(SignalKind::terminate())?,
            interrupt: unless_ignored(SignalKind::interrupt())?,
            hang_up: unless_ignored(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn wait(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = next(&mut self.interrupt) => SignalKind::interrupt(),
            _ = next(&mut self.hang_up) => SignalKind::hangup(),
        }
    }
}

async fn next(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// From now on the first signal calls `clean_up` on a thread of its own, and ends the process after that if it returns
/// true. A second signal, which does not come with the first, ends it at once.
#[allow(
    clippy::disallowed_methods,
    reason = "the process ends by a signal, which no error in main stands for"
)]
pub fn before_the_end(clean_up: impl FnOnce() -> bool + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let taken = {
        let _inside = runtime.enter();
        StopSignals::new()
    };
    let mut signals = taken?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let signal = runtime.block_on(last(async || signals.wait().await, clean_up));
        std::process::exit(ENDED_BY_SIGNAL + signal.as_raw_value());
    })?;
    Ok(())
}

/// The one of the `signals` that ends the process.
async fn last(
    mut signals: impl AsyncFnMut() -> SignalKind,
    clean_up: impl FnOnce() -> bool + Send + 'static,
) -> SignalKind {
    let first = signals().await;
    let begun = Instant::now();
    let cleaned = tokio::task::spawn_blocking(clean_up);
    let ended = async {
        match cleaned.await {
            Ok(false) => std::future::pending().await,
            _ => first,
        }
    };
    let second = async {
        loop {
            let signal = signals().await;
            if begun.elapsed() > TOGETHER {
                break signal;
            }
        }
    };
    tokio::select! {
        signal = ended => signal,
        signal = second => signal,
    }
}

/// Taking a signal would undo that it is ignored, so this is asked first.
fn unless_ignored(kind: SignalKind) -> io::Result<Option<Signal>> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    // The lowest bit is signal 1.
    let is_ignored = ((mask << 1) >> kind.as_raw_value()) & 1 == 1;
    if is_ignored { Ok(None) } else { signal(kind).map(Some) }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_at_once_and_one_that_comes_with_the_first_does_not() {
        let (sent, mut signals) = mpsc::channel(1);
        let (release, released) = std::sync::mpsc::channel::<()>();
        let script = async {
            // Room for one means that the ones before are taken.
            for signal in [SignalKind::terminate(), SignalKind::terminate(), SignalKind::hangup()] {
                sent.send(signal).await.unwrap();
            }
            drop(sent.reserve().await);
            tokio::time::advance(2 * TOGETHER).await;
            sent.send(SignalKind::interrupt()).await.unwrap();
            std::future::pending().await
        };
        let ended = tokio::select! {
            signal = last(async || signals.recv().await.unwrap(), move || released.recv().is_err()) => signal,
            () = script => unreachable!(),
        };
        assert_eq!(ended, SignalKind::interrupt());
        drop(release);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_ends_what_is_cleaned_up_and_nothing_that_is_done() {
        for (is_removed, ended) in [(true, Some(SignalKind::hangup())), (false, None)] {
            let mut first = Some(SignalKind::hangup());
            let next = async || match first.take() {
                Some(signal) => signal,
                None => std::future::pending().await,
            };
            let last = last(next, move || is_removed);
            assert_eq!(tokio::time::timeout(TOGETHER, last).await.ok(), ended);
        }
    }
}
