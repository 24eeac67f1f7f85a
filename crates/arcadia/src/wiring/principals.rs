//! The directory as the resource manager and the vaults see it.

use std::collections::HashSet;
use std::sync::Arc;

use arcadia_arm::{PrincipalInfo, PrincipalSource, PrincipalType, TenantInfo};
use arcadia_directory::Directory;
use arcadia_kernel::{Caller, CallerKind, Decision, Plane, Question};
use uuid::Uuid;

use super::explain::AS_USER;

pub struct Principals(pub Arc<Directory>);

impl PrincipalSource for Principals {
    fn principal(&self, id: Uuid) -> Option<PrincipalInfo> {
        if let Some(facts) = self.0.principal(id) {
            let kind = match facts.kind {
                CallerKind::User => PrincipalType::User,
                _ => PrincipalType::ServicePrincipal,
            };
            return Some(PrincipalInfo { kind, display_name: facts.display_name });
        }
        let display_name = self.0.group_name(id)?;
        Some(PrincipalInfo { kind: PrincipalType::Group, display_name })
    }

    fn groups_of(&self, id: Uuid) -> Option<HashSet<Uuid>> {
        self.0.groups_of(id)
    }

    fn tenant(&self) -> TenantInfo {
        match self.0.tenant() {
            Some(tenant) => TenantInfo {
                id: tenant.id,
                display_name: tenant.display_name.clone(),
                default_domain: tenant.domain.clone(),
            },
            // Before the directory is founded nothing is served, and no principal exists.
            None => {
                TenantInfo { id: Uuid::nil(), display_name: String::new(), default_domain: String::new() }
            }
        }
    }

    fn decide_by_directory_role(&self, question: &Question<'_>) -> Decision {
        // A token for Resource Manager does not say what a person's token for Graph would.
        let caller = Caller { delegated_scopes: Some(AS_USER.to_owned()), ..question.caller.clone() };
        self.0.decide(&Question { caller: &caller, plane: Plane::Directory, ..*question })
    }
}
