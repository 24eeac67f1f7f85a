//! Who exists: what the resource manager must know of the directory.

use std::collections::HashSet;
use std::fmt;

use arcadia_kernel::{Decision, DenyReason, Question};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a role is assigned to, as `principalType` words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PrincipalType {
    User,
    Group,
    ServicePrincipal,
    ForeignGroup,
    Device,
}

impl PrincipalType {
    /// Reads a client's `principalType`, without regard to case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::User, Self::Group, Self::ServicePrincipal, Self::ForeignGroup, Self::Device]
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(text))
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::ServicePrincipal => "ServicePrincipal",
            Self::ForeignGroup => "ForeignGroup",
            Self::Device => "Device",
        }
    }
}

impl fmt::Display for PrincipalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalInfo {
    pub kind: PrincipalType,
    pub display_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantInfo {
    pub id: Uuid,
    pub display_name: String,
    /// For example `contoso.onmicrosoft.com`.
    pub default_domain: String,
}

/// The directory, as far as the resource manager needs it. Answers from memory.
pub trait PrincipalSource: Send + Sync + 'static {
    /// A user, group or service principal that exists.
    fn principal(&self, id: Uuid) -> Option<PrincipalInfo>;
    /// The groups that the principal is a member of, nested ones included. `None` when there is no such
    /// principal or it is disabled.
    fn groups_of(&self, id: Uuid) -> Option<HashSet<Uuid>>;
    fn tenant(&self) -> TenantInfo;
    /// What the caller's directory roles, and nothing else, say to what no role of the resource manager allows.
    fn decide_by_directory_role(&self, question: &Question<'_>) -> Decision {
        let _ = question;
        Decision::Denied(DenyReason::NoAssignment)
    }
}
