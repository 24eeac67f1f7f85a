//! Why a decision is as it is.

use arcadia_kernel::{ArmId, Decider as _, Decision, Plane, Question};
use serde::Serialize;
use uuid::Uuid;

use crate::access::condition::{Attributes, Truth};
use crate::access::index::{Access, Judge, is_elevation};

/// What one role assignment says to one question; the later, the closer it comes to allowing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The assignment names a role definition that no longer exists.
    RoleMissing,
    /// No `actions` (or `dataActions`) entry of the role matches.
    ActionNotInRole,
    /// One matches, but so does an entry of `notActions` (or `notDataActions`) of the same block.
    ActionSubtracted,
    /// The condition of the role or of the assignment does not hold, or cannot be read.
    ConditionFails,
    /// The condition depends on what only the request itself tells.
    ConditionUnknown,
    Allows,
}

impl Verdict {
    pub(crate) fn of_condition(truth: Truth) -> Self {
        match truth {
            Truth::Yes => Self::Allows,
            Truth::Unknown => Self::ConditionUnknown,
            Truth::No => Self::ConditionFails,
        }
    }
}

/// One role assignment that applies to the caller at the scope, and what it says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    pub assignment: ArmId,
    pub role_id: Uuid,
    pub role_name: Option<String>,
    pub principal_id: Uuid,
    /// The assignment is one of a group that the caller is a member of.
    pub through_group: bool,
    pub verdict: Verdict,
}

/// A decision with its reasons.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub allowed: bool,
    /// The assignment that allowed it, or the reason of the refusal.
    pub because: String,
    pub action: String,
    pub plane: Plane,
    pub scope: ArmId,
    pub object_id: Uuid,
    pub groups: Vec<Uuid>,
    /// Every assignment that was looked at. Those at other scopes or of other principals are not among them.
    pub considered: Vec<Considered>,
}

impl Access {
    pub(crate) fn explain(&self, question: &Question<'_>) -> Explanation {
        let (allowed, because) = match self.decide(question) {
            Decision::Allowed { by } => (true, by.as_ref().to_owned()),
            Decision::Denied(reason) => (false, reason.to_string()),
        };
        let object_id = question.caller.object_id;
        let principals = self.principals(object_id).unwrap_or_default();
        let by_roles = if is_elevation(question) { &[] } else { &*principals };
        let attributes = Attributes::default();
        let mut judge = Judge::new(question.action, question.plane, &attributes);
        let mut considered = Vec::new();
        self.visit(by_roles, question.scope, |principal_id, held, role| {
            considered.push(Considered {
                assignment: held.id.clone(),
                role_id: held.role,
                role_name: role.map(|role| role.definition.role_name.clone()),
                principal_id,
                through_group: principal_id != object_id,
                verdict: judge.verdict(held, role),
            });
            false
        });
        Explanation {
            allowed,
            because,
            action: question.action.to_owned(),
            plane: question.plane,
            scope: question.scope.clone(),
            object_id,
            groups: principals.into_iter().skip(1).collect(),
            considered,
        }
    }
}
