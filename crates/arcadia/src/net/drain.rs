//! Stopping without cutting anyone off: everything that serves holds a [`Drain`], and the [`Drainer`] waits until
//! the last one is gone.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Held by each listener, connection and background task.
#[derive(Clone)]
pub struct Drain {
    stopping: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

impl Drain {
    /// Returns once the site is to stop (also when its [`Drainer`] is gone).
    pub async fn requested(&mut self) {
        // An error means that the drainer was dropped, which asks for the same.
        let _ = self.stopping.wait_for(|stopping| *stopping).await;
    }
}

/// Asks everyone to finish, and waits for it.
pub struct Drainer {
    stopping: watch::Sender<bool>,
    alive: mpsc::Receiver<()>,
}

impl Drainer {
    pub fn new() -> (Self, Drain) {
        let (stopping, requested) = watch::channel(false);
        let (held, alive) = mpsc::channel(1);
        (Self { stopping, alive }, Drain { stopping: requested, _alive: held })
    }

    /// Whether everyone finished within `patience`.
    pub async fn drain(mut self, patience: Duration) -> bool {
        self.stopping.send_replace(true);
        tokio::time::timeout(patience, self.alive.recv()).await.is_ok()
    }
}
