//! The access decision's question and answer. The engine that answers lives in `arm` (roles) and `directory`.

use std::sync::Arc;

use crate::{ArmId, Caller, Plane};

/// May this caller do this here?
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub caller: &'a Caller,
    pub action: &'a str,
    pub plane: Plane,
    pub scope: &'a ArmId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// `by` names what allowed it: a role assignment's identifier, or a directory role.
    Allowed {
        by: Arc<str>,
    },
    Denied(DenyReason),
}

impl Decision {
    /// What allowed it; nothing where it is refused.
    pub fn allowed_by(&self) -> Option<Arc<str>> {
        match self {
            Self::Allowed { by } => Some(by.clone()),
            Self::Denied(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DenyReason {
    #[error("no role assignment allows it")]
    NoAssignment,
    #[error("no access policy of the vault allows it, and roles do not count there")]
    NoAccessPolicy,
    #[error("the deny assignment {0} forbids it")]
    DenyAssignment(String),
    #[error("the principal no longer exists or is disabled")]
    NoSuchPrincipal,
    #[error("credentials of this kind are switched off here")]
    CredentialSwitchedOff,
}

/// A refusal, with what a service needs to word it.
#[derive(Clone, Debug)]
pub struct Denial {
    pub action: String,
    pub plane: Plane,
    pub scope: ArmId,
    pub reason: DenyReason,
}

/// Answers from a snapshot in memory, so it is neither slow nor fallible: what it does not know, it denies.
pub trait Decider: Send + Sync + 'static {
    fn decide(&self, question: &Question<'_>) -> Decision;
}
