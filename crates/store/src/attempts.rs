//! Changes that are planned anew when another one came in between.

use std::time::Duration;

use arcadia_kernel::AuditStamp;
use tokio::sync::MutexGuard;
use tokio::time::timeout;

use crate::backend::Revision;
use crate::{Batch, CommitError, Store};

/// How often a change is planned anew.
const AGAIN_MAX: u32 = 32;
/// How long the turn is waited for. Who has it only reads and commits, so this is never reached unless the disk stands
/// still; who waited this long goes on without.
const TURN_WAITED_MAX: Duration = Duration::from_secs(5);

/// The attempts of one change: read, plan, [`commit`](Self::commit), and again for as long as that finds that something
/// was changed after it was read. From the second attempt on a change has the store's turn until it is written, so that
/// many who want the same row come one after the other, in the order of their first attempts, and none of them loses
/// again and again.
///
/// While it lasts nothing else may be waited for that makes attempts of its own.
pub struct Attempts<'s> {
    store: &'s Store,
    again: u32,
    turn: Option<MutexGuard<'s, ()>>,
}

impl<'s> Attempts<'s> {
    pub(crate) fn new(store: &'s Store) -> Self {
        Self { store, again: AGAIN_MAX, turn: None }
    }

    /// Commits, as [`Store::commit`] does. `None`: what the batch requires did not hold, and nothing was written; read
    /// and plan anew. [`CommitError::Conflict`] when that happened too often.
    pub async fn commit(
        &mut self,
        stamp: &AuditStamp,
        batch: Batch,
    ) -> Result<Option<Revision>, CommitError> {
        match self.store.commit(stamp, batch).await {
            Ok(revision) => {
                self.turn = None;
                Ok(Some(revision))
            }
            Err(CommitError::Conflict) if self.again > 0 => {
                self.again -= 1;
                if self.turn.is_none() {
                    self.turn = timeout(TURN_WAITED_MAX, self.store.turn()).await.ok();
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
