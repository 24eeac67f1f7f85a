//! Role assignments by principal and scope, in memory, changed in the order of the commits that change them.
//!
//! A decision looks up one entry per principal (the caller and its groups) and per scope from `/` down, so its
//! time does not depend on how many assignments there are.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arcadia_kernel::{Action as _, ArmId, CallerKind, Decider, Decision, DenyReason, Fault, Plane, Question};
use foldhash::HashMap;
use uuid::Uuid;

use crate::access::condition::{Attributes, Condition, Truth};
use crate::access::explain::Verdict;
use crate::access::pattern::Patterns;
use crate::principal::PrincipalSource;
use crate::roles::{Assignment, ElevateAccess, PermissionBlock, RoleDefinition};

/// Role assignments of a site, which are all in memory, and all read when it starts.
const ASSIGNMENTS_MAX: usize = 200_000;

/// A condition, or that there is none, or that it is beyond us, in which case nothing is granted.
#[derive(Clone, Debug)]
enum Guard {
    None,
    When(Arc<Condition>),
    Unreadable,
}

impl Guard {
    fn of(condition: Option<&str>) -> Self {
        match condition.map(str::trim) {
            None | Some("") => Self::None,
            Some(text) => Condition::parse(text).map_or(Self::Unreadable, |c| Self::When(Arc::new(c))),
        }
    }

    fn holds(&self, action: &str, attributes: &Attributes) -> Truth {
        match self {
            Self::None => Truth::Yes,
            Self::When(condition) => condition.holds(action, attributes),
            Self::Unreadable => Truth::No,
        }
    }
}

/// One permission block, ready to match.
#[derive(Debug)]
struct Block {
    actions: Patterns,
    not_actions: Patterns,
    data_actions: Patterns,
    not_data_actions: Patterns,
    guard: Guard,
}

impl Block {
    fn new(block: &PermissionBlock) -> Self {
        Self {
            actions: Patterns::new(&block.actions),
            not_actions: Patterns::new(&block.not_actions),
            data_actions: Patterns::new(&block.data_actions),
            not_data_actions: Patterns::new(&block.not_data_actions),
            guard: Guard::of(block.condition.as_deref()),
        }
    }

    fn verdict(&self, action: &str, plane: Plane, attributes: &Attributes) -> Verdict {
        let (granted, subtracted) = match plane {
            Plane::Control => (&self.actions, &self.not_actions),
            Plane::Data => (&self.data_actions, &self.not_data_actions),
            Plane::Directory | Plane::None => return Verdict::ActionNotInRole,
        };
        if !granted.match_any(action) {
            return Verdict::ActionNotInRole;
        }
        if subtracted.match_any(action) {
            return Verdict::ActionSubtracted;
        }
        Verdict::of_condition(self.guard.holds(action, attributes))
    }
}

/// A role definition, ready to match.
#[derive(Debug)]
pub(crate) struct CompiledRole {
    pub(crate) definition: Arc<RoleDefinition>,
    blocks: Vec<Block>,
}

impl CompiledRole {
    fn new(definition: Arc<RoleDefinition>) -> Self {
        let blocks = definition.permissions.iter().map(Block::new).collect();
        Self { definition, blocks }
    }

    /// The best verdict of any block: blocks are apart, what one subtracts another may grant.
    fn verdict(&self, action: &str, plane: Plane, attributes: &Attributes) -> Verdict {
        self.blocks
            .iter()
            .map(|block| block.verdict(action, plane, attributes))
            .max()
            .unwrap_or(Verdict::ActionNotInRole)
    }
}

/// One role assignment, as a decision needs it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) id: ArmId,
    pub(crate) role: Uuid,
    guard: Guard,
}

type ByScope = HashMap<Box<str>, Vec<Held>>;

#[derive(Default)]
struct Index {
    by_principal: HashMap<Uuid, ByScope>,
    roles: HashMap<Uuid, Arc<CompiledRole>>,
    /// How many assignments name a role.
    uses: HashMap<Uuid, usize>,
}

impl Index {
    fn insert(&mut self, assignment: &Assignment) {
        let held = Held {
            id: assignment.id(),
            role: assignment.role_id,
            guard: Guard::of(assignment.condition.as_deref()),
        };
        let scopes = self.by_principal.entry(assignment.principal_id).or_default();
        scopes.entry(assignment.scope.folded().into()).or_default().push(held);
        *self.uses.entry(assignment.role_id).or_default() += 1;
    }

    fn remove(&mut self, assignment: &Assignment) {
        let Some(scopes) = self.by_principal.get_mut(&assignment.principal_id) else { return };
        let Some(list) = scopes.get_mut(assignment.scope.folded()) else { return };
        let id = assignment.id();
        let before = list.len();
        list.retain(|held| held.id != id);
        let removed = before - list.len();
        if list.is_empty() {
            scopes.remove(assignment.scope.folded());
        }
        if scopes.is_empty() {
            self.by_principal.remove(&assignment.principal_id);
        }
        if let Some(uses) = self.uses.get_mut(&assignment.role_id) {
            *uses = uses.saturating_sub(removed);
        }
    }
}

/// The engine: an index and the directory.
pub(crate) struct Access {
    index: RwLock<Index>,
    directory: Arc<dyn PrincipalSource>,
}

impl Access {
    pub(crate) fn new(directory: Arc<dyn PrincipalSource>, roles: &[Arc<RoleDefinition>]) -> Self {
        let access = Self { index: RwLock::new(Index::default()), directory };
        for role in roles {
            access.set_role(role.id, Some(role.clone()));
        }
        access
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        // The index is never left half changed: each change below is one insert or remove.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// One committed change of an assignment. Applying it again changes nothing.
    pub(crate) fn set_assignment(&self, before: Option<&Assignment>, after: Option<&Assignment>) {
        let mut index = self.write();
        if let Some(before) = before {
            index.remove(before);
        }
        if let Some(after) = after {
            index.remove(after);
            index.insert(after);
        }
    }

    pub(crate) fn set_role(&self, id: Uuid, definition: Option<Arc<RoleDefinition>>) {
        let compiled = definition.map(|definition| Arc::new(CompiledRole::new(definition)));
        let mut index = self.write();
        match compiled {
            Some(role) => index.roles.insert(id, role),
            None => index.roles.remove(&id),
        };
    }

    /// Every custom role, by identifier.
    pub(crate) fn custom_roles(&self) -> Vec<Arc<RoleDefinition>> {
        let index = self.read();
        let definitions = index.roles.values().map(|role| &role.definition);
        let mut found: Vec<_> = definitions.filter(|role| role.custom.is_some()).cloned().collect();
        drop(index);
        found.sort_unstable_by_key(|role| role.id);
        found
    }

    pub(crate) fn role_in_use(&self, id: Uuid) -> bool {
        self.read().uses.get(&id).is_some_and(|uses| *uses > 0)
    }

    /// 400 when the site holds as many assignments as it may.
    pub(crate) fn check_room(&self) -> Result<(), Fault> {
        if self.read().uses.values().sum::<usize>() < ASSIGNMENTS_MAX {
            return Ok(());
        }
        let message = format!(
            "No more role assignments can be created: there are {ASSIGNMENTS_MAX}. Delete some that are not needed, or \
             assign roles to groups."
        );
        Err(Fault::bad_request("RoleAssignmentLimitExceeded", message))
    }

    /// The caller's principals, the caller first. `None` when it does not exist or is disabled.
    pub(crate) fn principals(&self, object_id: Uuid) -> Option<Vec<Uuid>> {
        let groups = self.directory.groups_of(object_id)?;
        Some(
            std::iter::once(object_id)
                .chain(groups.into_iter().filter(|group| *group != object_id))
                .collect(),
        )
    }

    /// Visits every assignment that applies to the principals at `scope`, until the visitor says stop.
    pub(crate) fn visit(
        &self,
        principals: &[Uuid],
        scope: &ArmId,
        mut visitor: impl FnMut(Uuid, &Held, Option<&Arc<CompiledRole>>) -> bool,
    ) {
        let index = self.read();
        let lineage: Vec<&str> = scope.folded_lineage().collect();
        for principal in principals {
            let Some(scopes) = index.by_principal.get(principal) else { continue };
            for ancestor in &lineage {
                for held in scopes.get(*ancestor).into_iter().flatten() {
                    if visitor(*principal, held, index.roles.get(&held.role)) {
                        return;
                    }
                }
            }
        }
    }

    /// Decides with what is known of the request. `provisional` also takes conditions that are not known yet;
    /// only for a caller that asks again once they are.
    pub(crate) fn decide_with(
        &self,
        question: &Question<'_>,
        attributes: &Attributes,
        provisional: bool,
    ) -> Decision {
        let Some(principals) = self.principals(question.caller.object_id) else {
            return Decision::Denied(DenyReason::NoSuchPrincipal);
        };
        if is_elevation(question) {
            return self.decide_elevation(question);
        }
        if !matches!(question.plane, Plane::Control | Plane::Data) {
            return Decision::Denied(DenyReason::NoAssignment);
        }
        let mut judge = Judge::new(question.action, question.plane, attributes);
        let mut by = None;
        self.visit(&principals, question.scope, |_, held, role| {
            let verdict = judge.verdict(held, role);
            // What may still allow it is told only where nothing else does already.
            let allows = verdict == Verdict::Allows;
            if allows || provisional && verdict == Verdict::ConditionUnknown && by.is_none() {
                by = Some(held.id.shared());
            }
            allows
        });
        match by {
            Some(by) => Decision::Allowed { by },
            None => Decision::Denied(DenyReason::NoAssignment),
        }
    }

    /// As in Azure, a person gets elevated access, and no application, whatever its role in the directory.
    fn decide_elevation(&self, question: &Question<'_>) -> Decision {
        if question.caller.kind == CallerKind::User && question.scope.is_root() {
            self.directory.decide_by_directory_role(question)
        } else {
            Decision::Denied(DenyReason::NoAssignment)
        }
    }

    /// Whether the principal has any role at, above or below `scope`.
    pub(crate) fn has_any_role_around(&self, object_id: Uuid, scope: &ArmId) -> bool {
        let Some(principals) = self.principals(object_id) else { return false };
        let index = self.read();
        let below = format!("{}/", scope.folded());
        principals.iter().filter_map(|principal| index.by_principal.get(principal)).any(|scopes| {
            scope.folded_lineage().any(|above| scopes.contains_key(above))
                || scopes.keys().any(|held| held.starts_with(&below))
        })
    }
}

/// What assignments say to one question. A role is judged once, at however many scopes and through however many groups
/// it is held.
pub(crate) struct Judge<'a> {
    folded_action: String,
    plane: Plane,
    attributes: &'a Attributes,
    /// The first role that was judged, which in most decisions is the only one, and the others.
    first: Option<(Uuid, Verdict)>,
    others: HashMap<Uuid, Verdict>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(action: &str, plane: Plane, attributes: &'a Attributes) -> Self {
        let (folded_action, others) = (action.to_lowercase(), HashMap::default());
        Self { folded_action, plane, attributes, first: None, others }
    }

    pub(crate) fn verdict(&mut self, held: &Held, role: Option<&Arc<CompiledRole>>) -> Verdict {
        let Some(role) = role else { return Verdict::RoleMissing };
        let verdict = self.of_role(held.role, role);
        if verdict < Verdict::ConditionUnknown {
            return verdict;
        }
        verdict.min(Verdict::of_condition(held.guard.holds(&self.folded_action, self.attributes)))
    }

    fn of_role(&mut self, id: Uuid, role: &CompiledRole) -> Verdict {
        let judge = || role.verdict(&self.folded_action, self.plane, self.attributes);
        match self.first {
            None => self.first.insert((id, judge())).1,
            Some((first, verdict)) if first == id => verdict,
            Some(_) => *self.others.entry(id).or_insert_with(judge),
        }
    }
}

/// Whether roles have no say: else whoever is given `*` at `/` could have back for good what was given for a time.
pub(crate) fn is_elevation(question: &Question<'_>) -> bool {
    question.action.eq_ignore_ascii_case(&ElevateAccess::name())
}

/// The scope of one role assignment: only the row that writes or deletes it is decided there.
fn is_one_role_assignment(question: &Question<'_>) -> bool {
    let folded = question.scope.folded();
    let mut tail = folded.rsplit('/').skip(1);
    (question.action.eq_ignore_ascii_case("Microsoft.Authorization/roleAssignments/write")
        || question.action.eq_ignore_ascii_case("Microsoft.Authorization/roleAssignments/delete"))
        && tail.next() == Some("roleassignments")
        && tail.next() == Some("microsoft.authorization")
        && tail.next() == Some("providers")
}

impl Decider for Access {
    fn decide(&self, question: &Question<'_>) -> Decision {
        // Conditions on role assignments speak of the assignment, which is only known once its body (or its
        // row) was read; the handlers of those two operations ask again then. All else must be certain now.
        self.decide_with(question, &Attributes::default(), is_one_role_assignment(question))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::{PrincipalInfo, TenantInfo};

    struct Nobody;

    impl PrincipalSource for Nobody {
        fn principal(&self, _: Uuid) -> Option<PrincipalInfo> {
            None
        }

        fn groups_of(&self, _: Uuid) -> Option<std::collections::HashSet<Uuid>> {
            None
        }

        fn tenant(&self) -> TenantInfo {
            TenantInfo { id: Uuid::nil(), display_name: String::new(), default_domain: String::new() }
        }
    }

    /// By whatever many assignments: the second time it is not looked at.
    #[test]
    fn a_role_is_judged_once() {
        let role = |actions: &[&str]| {
            let actions = actions.iter().map(|action| (*action).to_owned()).collect();
            let permissions = vec![PermissionBlock { actions, ..PermissionBlock::default() }];
            let (id, name) = (Uuid::nil(), String::new());
            Arc::new(CompiledRole::new(Arc::new(RoleDefinition {
                id,
                role_name: name.clone(),
                description: name,
                permissions,
                assignable_scopes: Vec::new(),
                custom: None,
            })))
        };
        let held =
            |number: u128| Held { id: ArmId::root(), role: Uuid::from_u128(number), guard: Guard::None };
        let attributes = Attributes::default();
        let mut judge = Judge::new("a/read", Plane::Control, &attributes);
        for number in 1..4 {
            assert_eq!(judge.verdict(&held(number), Some(&role(&["b/*"]))), Verdict::ActionNotInRole);
        }
        for number in 1..4 {
            assert_eq!(judge.verdict(&held(number), Some(&role(&["A/Read"]))), Verdict::ActionNotInRole);
        }
        assert_eq!(judge.verdict(&held(4), Some(&role(&["b/*", "A/Read"]))), Verdict::Allows);
    }

    #[test]
    fn there_is_room_for_so_many_assignments() {
        let access = Access::new(Arc::new(Nobody), &[]);
        access.write().uses.insert(Uuid::nil(), ASSIGNMENTS_MAX - 1);
        assert!(access.check_room().is_ok());
        access.write().uses.insert(Uuid::max(), 1);
        assert_eq!(access.check_room().unwrap_err().code, "RoleAssignmentLimitExceeded");
    }
}
