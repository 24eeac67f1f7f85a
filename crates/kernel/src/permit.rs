//! The right to run one operation, once, on one resource.

use std::marker::PhantomData;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    Action, AlsoDecided, ArmId, AuditStamp, Caller, Decider, Decision, Denial, Entropy, Gate, Plane, Question,
};

/// Proof that the caller may do `A` on [`Permit::scope`]. Only the dispatcher makes one, after deciding.
pub struct Permit<A> {
    grant: Grant,
    action: PhantomData<fn() -> A>,
}

/// What a permit carries, before it is given its action type.
#[derive(Clone)]
pub(crate) struct Grant {
    pub caller: Arc<Caller>,
    pub scope: ArmId,
    pub by: Option<Arc<str>>,
    pub stamp: AuditStamp,
    /// Who answers further questions of this request.
    pub decider: Arc<dyn Decider>,
    pub gate: Arc<Gate>,
}

impl<A: Action> Permit<A> {
    pub(crate) fn new(grant: Grant) -> Self {
        Self { grant, action: PhantomData }
    }

    pub fn caller(&self) -> &Caller {
        &self.grant.caller
    }

    /// The resource it was granted on.
    pub fn scope(&self) -> &ArmId {
        &self.grant.scope
    }

    /// What allowed it: the role assignment's identifier.
    pub fn allowed_by(&self) -> Option<&str> {
        self.grant.by.as_deref()
    }

    /// What the store takes to write.
    pub fn stamp(&self) -> &AuditStamp {
        &self.grant.stamp
    }

    pub fn request_id(&self) -> Uuid {
        self.grant.stamp.request_id()
    }

    pub fn now(&self) -> Timestamp {
        self.grant.gate.clock.now()
    }

    /// Whole seconds since 1970.
    pub fn epoch_seconds(&self) -> i64 {
        self.grant.gate.clock.epoch_seconds()
    }

    pub fn entropy(&self) -> &dyn Entropy {
        &*self.grant.gate.entropy
    }

    /// Whether the caller may also do `action` at `scope`; for showing only what a caller may read.
    pub fn may(&self, action: &str, plane: Plane, scope: &ArmId) -> bool {
        matches!(self.ask(action, plane, scope), Decision::Allowed { .. })
    }

    /// Puts on record what a handler decided that knows more of the request than the dispatcher did: what allowed it is
    /// that, and nothing where it is refused.
    pub fn decided_again(&self, decision: &Decision) {
        self.grant.stamp.allowed_by(decision.allowed_by());
    }

    /// A permit for a further action that the same request needs. Granted or not, the request's record says so.
    pub fn also<B: Action>(&self, scope: &ArmId) -> Result<Permit<B>, Denial> {
        let action = B::name();
        let decision = self.ask(&action, B::PLANE, scope);
        let assignment = decision.allowed_by();
        let decided = AlsoDecided { action: action.clone().into_owned(), scope: scope.clone(), assignment };
        self.grant.stamp.note(decided);
        match decision {
            Decision::Allowed { by } => {
                let grant = Grant { scope: scope.clone(), by: Some(by), ..self.grant.clone() };
                Ok(Permit::new(grant))
            }
            Decision::Denied(reason) => {
                Err(Denial { action: action.into_owned(), plane: B::PLANE, scope: scope.clone(), reason })
            }
        }
    }

    fn ask(&self, action: &str, plane: Plane, scope: &ArmId) -> Decision {
        self.grant.decider.decide(&Question { caller: &self.grant.caller, action, plane, scope })
    }
}
