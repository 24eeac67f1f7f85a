//! How a request writes what it changes: nothing but what its caller may still write.

use arcadia_kernel::{Action, Decision, Fault, Permit};
use arcadia_store::{Attempts, Batch};

use crate::directory::Committed;
use crate::graph::Graph;
use crate::graph::faults::{insufficient, not_written};

/// A change of one request, which is planned anew when another one came in between.
pub(crate) struct Change<'a, A> {
    permit: &'a Permit<A>,
    attempts: Attempts<'a>,
}

impl<A: Action> Change<'_, A> {
    /// Commits. `false`: what the batch requires did not hold, and nothing was written; read and plan anew.
    pub(crate) async fn commit(&mut self, batch: Batch) -> Result<bool, Fault> {
        check_still_allowed(self.permit)?;
        let written = self.attempts.commit(self.permit.stamp(), batch).await.map_err(not_written)?;
        Ok(written.is_some())
    }
}

impl Graph {
    pub(crate) fn change<'a, A: Action>(&'a self, permit: &'a Permit<A>) -> Change<'a, A> {
        Change { permit, attempts: self.directory.store.attempts() }
    }

    /// Writes a batch that is not planned anew.
    pub(crate) async fn commit<A: Action>(
        &self,
        permit: &Permit<A>,
        batch: Batch,
    ) -> Result<Committed, Fault> {
        check_still_allowed(permit)?;
        self.directory.commit(permit.stamp(), batch).await
    }
}

/// Between its decision and its commit a request may have waited for long, for a hash or for its turn among many who
/// change the same, and who asks can make it longer. What was taken away meanwhile is not used.
fn check_still_allowed<A: Action>(permit: &Permit<A>) -> Result<(), Fault> {
    // What still holds is on record already.
    if permit.may(&A::name(), A::PLANE, permit.scope()) {
        return Ok(());
    }
    let Err(denial) = permit.also::<A>(permit.scope()) else { return Ok(()) };
    permit.decided_again(&Decision::Denied(denial.reason.clone()));
    Err(insufficient(&denial))
}
