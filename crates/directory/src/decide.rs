//! Who may do what in the directory: its roles and the permissions every member has.

use arcadia_kernel::{Caller, CallerKind, Decider, Decision, DenyReason, Plane, Question};
use uuid::Uuid;

use crate::directory::Directory;
use crate::model::{GLOBAL_ADMINISTRATOR, GLOBAL_ADMINISTRATOR_NAME};
use crate::snapshot::Snapshot;

/// What is said to have allowed a member's reading.
const DEFAULT_USER_PERMISSIONS: &str = "defaultUserPermissions";
/// The delegated permission with which an application acts with all of its user's rights.
pub(crate) const ACCESS_AS_USER: &str = "Directory.AccessAsUser.All";

/// What members may read of one another.
const READABLE_BY_MEMBERS: &[&str] = &[
    "microsoft.directory/users/standard/read",
    "microsoft.directory/groups/standard/read",
    "microsoft.directory/groups/members/read",
    "microsoft.directory/applications/standard/read",
    "microsoft.directory/servicePrincipals/standard/read",
    "microsoft.directory/directoryObjects/standard/read",
    "microsoft.directory/organization/standard/read",
    "microsoft.directory/domains/standard/read",
];
const READ_USER: &str = "microsoft.directory/users/standard/read";
const END_OWN_SESSIONS: &str = "microsoft.directory/users/invalidateAllRefreshTokens";
const READ_PRINCIPAL: &str = "microsoft.directory/servicePrincipals/standard/read";

impl Directory {
    /// Whether a caller's token still counts: its principal is of this tenant, exists and is enabled, and so is the
    /// application that has a person's token.
    pub fn stands(&self, caller: &Caller) -> bool {
        stands(&self.snapshot(), caller)
    }

    /// Answers for [`Plane::Directory`]; denies every other plane.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        let snapshot = self.snapshot();
        if !stands(&snapshot, question.caller) {
            return Decision::Denied(DenyReason::NoSuchPrincipal);
        }
        match allowed_by(&snapshot, question) {
            Some(by) => Decision::Allowed { by: by.into() },
            None => Decision::Denied(DenyReason::NoAssignment),
        }
    }
}

impl Decider for Directory {
    fn decide(&self, question: &Question<'_>) -> Decision {
        Directory::decide(self, question)
    }
}

fn stands(snapshot: &Snapshot, caller: &Caller) -> bool {
    let is_enabled = match snapshot.users.get(&caller.object_id) {
        // Every token names the application that has it; a question about a person may name none.
        Some(user) => user.enabled && (caller.app_id.is_nil() || snapshot.is_enabled_client(caller.app_id)),
        None => snapshot.is_enabled_principal(caller.object_id),
    };
    is_enabled && snapshot.tenant.as_ref().is_some_and(|tenant| tenant.id == caller.tenant_id)
}

fn allowed_by(snapshot: &Snapshot, question: &Question<'_>) -> Option<&'static str> {
    if question.plane != Plane::Directory {
        return None;
    }
    let caller = question.caller;
    let is_user = snapshot.users.contains_key(&caller.object_id);
    if is_user != (caller.kind == CallerKind::User) {
        return None;
    }
    // An application acts for a person only as far as it was given leave to.
    let with_all_rights = !is_user
        || caller
            .delegated_scopes
            .as_deref()
            .is_some_and(|scopes| scopes.split(' ').any(|scope| scope == ACCESS_AS_USER));
    if with_all_rights && is_global_administrator(snapshot, caller.object_id) {
        return Some(GLOBAL_ADMINISTRATOR_NAME);
    }
    let own = Uuid::try_parse(question.scope.name()).ok() == Some(caller.object_id);
    let allowed = match caller.kind {
        CallerKind::User => {
            (with_all_rights && READABLE_BY_MEMBERS.contains(&question.action))
                || (own && question.action == READ_USER)
                || (own && with_all_rights && question.action == END_OWN_SESSIONS)
        }
        CallerKind::Application => own && question.action == READ_PRINCIPAL,
        _ => false,
    };
    allowed.then_some(DEFAULT_USER_PERMISSIONS)
}

fn is_global_administrator(snapshot: &Snapshot, principal: Uuid) -> bool {
    let holds = |id: Uuid| snapshot.roles_of(id).any(|role| role == GLOBAL_ADMINISTRATOR);
    holds(principal) || snapshot.transitive_groups_of(principal).into_iter().any(holds)
}
