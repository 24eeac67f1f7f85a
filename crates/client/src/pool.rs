//! Connections kept between requests.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::connect::Sender;
use crate::origin::Origin;

const IDLE_PER_ORIGIN_MAX: usize = 4;
const ORIGINS_MAX: usize = 16;

pub(crate) struct Pool {
    idle: Mutex<HashMap<Origin, Vec<Idle>>>,
    idle_for: Duration,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(idle_for: Duration) -> Self {
        Self { idle: Mutex::new(HashMap::new()), idle_for }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most recently used connection to `origin` that is still open.
    pub(crate) fn take(&self, origin: &Origin) -> Option<Sender> {
        let mut idle = self.lock();
        let waiting = idle.get_mut(origin)?;
        waiting.retain(|one| !one.sender.is_closed() && one.since.elapsed() < self.idle_for);
        waiting.pop().map(|one| one.sender)
    }

    pub(crate) fn give_back(&self, origin: Origin, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.lock();
        idle.retain(|_, waiting| {
            waiting.retain(|one| !one.sender.is_closed() && one.since.elapsed() < self.idle_for);
            !waiting.is_empty()
        });
        if idle.len() >= ORIGINS_MAX && !idle.contains_key(&origin) {
            return;
        }
        let waiting = idle.entry(origin).or_default();
        if waiting.len() < IDLE_PER_ORIGIN_MAX {
            waiting.push(Idle { sender, since: Instant::now() });
        }
    }
}
