//! What every dispatcher shares: proof, decision, record, time, randomness, limits.

use std::sync::Arc;

use uuid::Uuid;

use crate::audit::StampFacts;
use crate::permit::Grant;
use crate::{
    Action, ArmId, AuditSink, AuditStamp, Authenticator, Caller, Clock, Decider, Entropy, EntropyExt, Permit,
    SystemWork,
};

/// Bounds on what a stranger can send.
#[derive(Clone, Debug)]
pub struct Limits {
    pub target_bytes_max: usize,
    pub body_bytes_max: usize,
    pub bearer_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { target_bytes_max: 16 * 1024, body_bytes_max: 4 * 1024 * 1024, bearer_bytes_max: 16 * 1024 }
    }
}

/// Why the site acts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The first `up`: tenant, first user, first service principal, first subscription.
    Founding,
    /// Work that an accepted request started and that outlives it.
    AsyncOperation,
    /// Removal of what has passed its time.
    Sweep,
    /// Another root key or data key.
    Keys,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Founding => "founding",
            Self::AsyncOperation => "asyncOperation",
            Self::Sweep => "sweep",
            Self::Keys => "keys",
        }
    }
}

/// Shared by all dispatchers of a site.
pub struct Gate {
    pub authenticator: Arc<dyn Authenticator>,
    pub decider: Arc<dyn Decider>,
    pub audit: Arc<dyn AuditSink>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub limits: Limits,
}

impl Gate {
    /// A permit for the site's own work. Its changes are recorded like any other, under the reason's name.
    pub fn as_system(self: &Arc<Self>, reason: Reason) -> Permit<SystemWork> {
        self.as_system_on(reason, ArmId::root(), None)
    }

    /// The same for work on one resource, whose records say so; with the number of the request that began it, where
    /// there was one.
    pub fn as_system_on(
        self: &Arc<Self>,
        reason: Reason,
        scope: ArmId,
        request_id: Option<Uuid>,
    ) -> Permit<SystemWork> {
        let gate = self.clone();
        let caller = Arc::new(Caller::system(reason.as_str()));
        let stamp = AuditStamp::new(StampFacts {
            request_id: request_id.unwrap_or_else(|| gate.entropy.uuid()),
            service: "site",
            operation: reason.as_str().into(),
            action: SystemWork::name(),
            scope: scope.clone(),
            caller: caller.clone(),
            remote: None,
            assignment: None,
            clock: gate.clock.clone(),
        });
        let decider = gate.decider.clone();
        Permit::new(Grant { caller, scope, by: None, stamp, decider, gate })
    }
}
