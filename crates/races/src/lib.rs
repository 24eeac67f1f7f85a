//! For tests: what happens when eight ask at the same moment for what only one can have.

#![allow(clippy::unwrap_used, reason = "only tests use it, and they end with what goes wrong")]

use std::sync::Barrier;

pub use tempfile::TempDir;

/// How many ask at the same moment.
pub const THREADS: usize = 8;

/// How often a race is run: 50 times, or what `ARCADIA_RACE_ROUNDS` says (`cargo xtask races`).
#[allow(clippy::disallowed_methods, reason = "the environment says how long to test")]
pub fn rounds() -> usize {
    std::env::var("ARCADIA_RACE_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap())
}

/// Where the store of a race is kept: in memory, or in this folder where `ARCADIA_RACE_ON_DISK` is set. There commits of
/// many are gathered, and a row can be read before the observers hear of it.
#[allow(clippy::disallowed_methods, reason = "the environment says where to test")]
pub fn folder() -> Option<TempDir> {
    std::env::var_os("ARCADIA_RACE_ON_DISK").map(|_| tempfile::tempdir().unwrap())
}

/// What [`THREADS`] threads are answered that ask at the same moment; each is told its number.
pub fn race<T: Send, F: Future<Output = T>>(ask: impl Fn(usize) -> F + Sync) -> Vec<T> {
    let start = Barrier::new(THREADS);
    let (ask, start) = (&ask, &start);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                scope.spawn(move || {
                    let runtime = runtime();
                    start.wait();
                    runtime.block_on(ask(number))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Between the races, one thread asks.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
