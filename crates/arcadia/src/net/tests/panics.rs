//! A panic is a failed test: the task alone is cut off by it, and no client need notice.

use std::cell::Cell;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

thread_local! {
    /// Of this thread, in which all tasks of its test run.
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// Of threads that runtimes made, and that belong to no test.
static ELSEWHERE: AtomicUsize = AtomicUsize::new(0);

/// Fails its test when it goes, where a task has panicked since it came.
pub struct NoPanics {
    before: usize,
}

impl NoPanics {
    pub fn watch() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if thread::current().name().is_some_and(|name| name.starts_with("tokio")) {
                    ELSEWHERE.fetch_add(1, Ordering::SeqCst);
                } else {
                    HERE.set(HERE.get() + 1);
                }
                told(panic);
            }));
        });
        Self { before: panics() }
    }
}

impl Drop for NoPanics {
    fn drop(&mut self) {
        assert!(thread::panicking() || panics() == self.before, "a task panicked; it is told above");
    }
}

fn panics() -> usize {
    HERE.get() + ELSEWHERE.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_task_that_panics_fails_its_test() {
    let fails = |watch: NoPanics| std::panic::catch_unwind(move || drop(watch)).is_err();
    assert!(!fails(NoPanics::watch()));
    let watch = NoPanics::watch();
    tokio::spawn(async { panic!("as a test wants it") }).await.unwrap_err();
    assert!(fails(watch));
}
