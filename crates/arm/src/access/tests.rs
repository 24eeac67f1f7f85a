//! The decision, by example. What it means is said, in ten lines, in [`super::oracle`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arcadia_kernel::{ArmId, Caller, Decider as _, Decision, DenyReason, Plane, Question};
use jiff::Timestamp;
use uuid::Uuid;

use crate::access::index::Access;
use crate::access::{Attributes, ROLE_ATTRIBUTE, Source, Verdict};
use crate::principal::{PrincipalInfo, PrincipalSource, PrincipalType, TenantInfo};
use crate::roles::{Assignment, builtin_roles};

const NINA: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
const GROUP: Uuid = Uuid::from_u128(11);
const OUTER: Uuid = Uuid::from_u128(12);
const GONE: Uuid = Uuid::from_u128(99);

/// Everybody exists but [`GONE`]; memberships are given with nesting resolved, as a directory does.
struct Directory(HashMap<Uuid, HashSet<Uuid>>);

impl PrincipalSource for Directory {
    fn principal(&self, id: Uuid) -> Option<PrincipalInfo> {
        (id != GONE).then(|| PrincipalInfo { kind: PrincipalType::User, display_name: id.to_string() })
    }

    fn groups_of(&self, id: Uuid) -> Option<HashSet<Uuid>> {
        (id != GONE).then(|| self.0.get(&id).cloned().unwrap_or_default())
    }

    fn tenant(&self) -> TenantInfo {
        TenantInfo { id: Uuid::nil(), display_name: String::new(), default_domain: String::new() }
    }
}

fn engine(groups: &[(Uuid, &[Uuid])]) -> Access {
    let groups = groups.iter().map(|(id, of)| (*id, of.iter().copied().collect())).collect();
    Access::new(Arc::new(Directory(groups)), builtin_roles())
}

fn role_named(name: &str) -> Uuid {
    builtin_roles().iter().find(|role| role.role_name == name).unwrap().id
}

fn assignment(number: u128, principal: Uuid, role: Uuid, scope: &str) -> Assignment {
    Assignment {
        name: Uuid::from_u128(number),
        scope: ArmId::parse(scope).unwrap(),
        role_id: role,
        principal_id: principal,
        principal_type: PrincipalType::User,
        condition: None,
        condition_version: None,
        description: None,
        created_on: Timestamp::UNIX_EPOCH,
        updated_on: Timestamp::UNIX_EPOCH,
        created_by: Uuid::nil(),
        updated_by: Uuid::nil(),
    }
}

fn caller(id: Uuid) -> Caller {
    Caller { object_id: id, ..Caller::anonymous() }
}

fn may(access: &Access, who: Uuid, plane: Plane, action: &str, scope: &str) -> bool {
    let scope = ArmId::parse(scope).unwrap();
    let question = Question { caller: &caller(who), action, plane, scope: &scope };
    matches!(access.decide(&question), Decision::Allowed { .. })
}

const RG: &str = "/subscriptions/s/resourceGroups/rg";
const GET_SECRET: &str = "Microsoft.KeyVault/vaults/secrets/getSecret/action";

fn vault(name: &str) -> String {
    format!("{RG}/providers/Microsoft.KeyVault/vaults/{name}")
}

#[test]
fn nobody_may_anything_by_default() {
    let access = engine(&[]);
    assert!(!may(
        &access,
        NINA,
        Plane::Control,
        "Microsoft.Resources/subscriptions/read",
        "/subscriptions/s"
    ));
    assert!(!may(&access, Uuid::nil(), Plane::Control, "a/read", "/"));
}

#[test]
fn scopes_are_whole_segments_without_case() {
    let access = engine(&[]);
    let user = role_named("Key Vault Secrets User");
    access.set_assignment(None, Some(&assignment(1, NINA, user, &format!("{}/secrets/s", vault("v")))));
    let secret = |scope: String| may(&access, NINA, Plane::Data, GET_SECRET, &scope);
    assert!(secret(format!("{}/secrets/s", vault("v"))));
    assert!(secret(format!("{}/SECRETS/S", vault("V")).replace("resourceGroups", "resourcegroups")));
    assert!(!secret(format!("{}/secrets/s2", vault("v"))));
    assert!(!secret(format!("{}/secrets", vault("v"))));
    assert!(!secret(vault("v")));
    assert!(!secret(format!("{}/secrets/s", vault("v2"))));

    access.set_assignment(None, Some(&assignment(2, OTHER, user, &vault("v"))));
    let other = |scope: String| may(&access, OTHER, Plane::Data, GET_SECRET, &scope);
    assert!(other(format!("{}/secrets/s2", vault("v"))));
    assert!(!other(format!("{}/secrets/s", vault("v2"))));

    let reader = role_named("Reader");
    access.set_assignment(None, Some(&assignment(3, GROUP, reader, RG)));
    let read = "Microsoft.Resources/subscriptions/resourceGroups/read";
    assert!(may(&access, GROUP, Plane::Control, read, RG));
    assert!(!may(&access, GROUP, Plane::Control, read, &format!("{RG}2")));
    assert!(!may(&access, GROUP, Plane::Control, read, "/subscriptions/s"));
}

#[test]
fn control_never_gives_data() {
    let access = engine(&[]);
    for (number, role) in ["Owner", "Contributor", "Reader"].into_iter().enumerate() {
        let who = Uuid::from_u128(100 + number as u128);
        access.set_assignment(
            None,
            Some(&assignment(number as u128, who, role_named(role), "/subscriptions/s")),
        );
        let secret = format!("{}/secrets/s", vault("v"));
        assert!(may(&access, who, Plane::Control, "Microsoft.KeyVault/vaults/read", &vault("v")), "{role}");
        assert!(!may(&access, who, Plane::Data, GET_SECRET, &secret), "{role}");
        assert!(!may(&access, who, Plane::Data, "Microsoft.KeyVault/vaults/read", &vault("v")), "{role}");
        assert!(!may(&access, who, Plane::Directory, "microsoft.directory/users/read", "/"), "{role}");
        assert!(!may(&access, who, Plane::None, "signedIn", "/subscriptions/s"), "{role}");
    }
    let write = "Microsoft.Authorization/roleAssignments/write";
    let contributor = Uuid::from_u128(101);
    assert!(may(&access, Uuid::from_u128(100), Plane::Control, write, RG));
    assert!(!may(&access, contributor, Plane::Control, write, RG));
    assert!(may(&access, contributor, Plane::Control, "Microsoft.KeyVault/vaults/write", RG));
    assert!(!may(&access, Uuid::from_u128(102), Plane::Control, "Microsoft.KeyVault/vaults/write", RG));
}

#[test]
fn what_one_role_subtracts_another_may_grant() {
    let access = engine(&[]);
    let write = "Microsoft.Authorization/roleAssignments/write";
    access.set_assignment(None, Some(&assignment(1, NINA, role_named("Contributor"), RG)));
    assert!(!may(&access, NINA, Plane::Control, write, RG));
    let administrator = role_named("User Access Administrator");
    let second = assignment(2, NINA, administrator, RG);
    access.set_assignment(None, Some(&second));
    assert!(may(&access, NINA, Plane::Control, write, RG));
    access.set_assignment(Some(&second), None);
    assert!(!may(&access, NINA, Plane::Control, write, RG));
}

#[test]
fn groups_count_and_the_gone_do_not() {
    let access = engine(&[(NINA, &[GROUP, OUTER])]);
    let user = role_named("Key Vault Secrets User");
    access.set_assignment(None, Some(&assignment(1, OUTER, user, RG)));
    access.set_assignment(None, Some(&assignment(2, GONE, user, RG)));
    let secret = format!("{}/secrets/s", vault("v"));
    assert!(may(&access, NINA, Plane::Data, GET_SECRET, &secret));
    assert!(!may(&access, OTHER, Plane::Data, GET_SECRET, &secret));
    let scope = ArmId::parse(&secret).unwrap();
    let question = Question { caller: &caller(GONE), action: GET_SECRET, plane: Plane::Data, scope: &scope };
    assert_eq!(access.decide(&question), Decision::Denied(DenyReason::NoSuchPrincipal));
}

#[test]
fn a_condition_on_assignments_holds_back_until_the_assignment_is_known() {
    let access = engine(&[]);
    access.set_assignment(
        None,
        Some(&assignment(1, NINA, role_named("Key Vault Data Access Administrator"), RG)),
    );
    let write = "Microsoft.Authorization/roleAssignments/write";
    let one = format!("{RG}/providers/Microsoft.Authorization/roleAssignments/{NINA}");
    // Elsewhere than at the one row that asks again, not known means no.
    assert!(!may(&access, NINA, Plane::Control, write, RG));
    assert!(!may(&access, NINA, Plane::Control, "Microsoft.Authorization/roleAssignments/delete", RG));
    assert!(may(&access, NINA, Plane::Control, write, &one));
    assert!(!may(&access, OTHER, Plane::Control, write, &one));
    let decided = |role: &str| {
        let mut known = Attributes::default();
        known.set(Source::Request, ROLE_ATTRIBUTE, &role_named(role).to_string());
        let scope = ArmId::parse(&one).unwrap();
        let question =
            Question { caller: &caller(NINA), action: write, plane: Plane::Control, scope: &scope };
        matches!(access.decide_with(&question, &known, false), Decision::Allowed { .. })
    };
    assert!(decided("Key Vault Secrets Officer"));
    assert!(!decided("Owner"));
}

#[test]
fn an_unreadable_condition_grants_nothing() {
    let access = engine(&[]);
    let mut held = assignment(1, NINA, role_named("Owner"), RG);
    held.condition = Some("@Resource[a] DateTimeGreaterThan '2020-01-01'".into());
    access.set_assignment(None, Some(&held));
    assert!(!may(&access, NINA, Plane::Control, "Microsoft.KeyVault/vaults/read", RG));
    let never = "@Principal[x] StringEquals 'y'".to_owned();
    let unknown = Assignment { condition: Some(never), ..held.clone() };
    access.set_assignment(Some(&held), Some(&unknown));
    assert!(!may(&access, NINA, Plane::Control, "Microsoft.KeyVault/vaults/read", RG));
}

#[test]
fn explanations_name_what_was_looked_at() {
    let access = engine(&[(NINA, &[GROUP])]);
    access.set_assignment(None, Some(&assignment(1, GROUP, role_named("Owner"), RG)));
    access.set_assignment(None, Some(&assignment(2, NINA, role_named("Contributor"), "/subscriptions/s")));
    access.set_assignment(None, Some(&assignment(3, NINA, Uuid::from_u128(7), RG)));
    access.set_assignment(None, Some(&assignment(4, NINA, role_named("Owner"), "/subscriptions/other")));
    let scope = ArmId::parse(&vault("v")).unwrap();
    let explain = |action: &str, plane| {
        access.explain(&Question { caller: &caller(NINA), action, plane, scope: &scope })
    };
    let refused = explain(GET_SECRET, Plane::Data);
    assert!(!refused.allowed);
    let verdicts: Vec<_> = refused.considered.iter().map(|c| c.verdict).collect();
    assert_eq!(verdicts, [Verdict::ActionNotInRole, Verdict::RoleMissing, Verdict::ActionNotInRole]);
    assert!(refused.considered[2].through_group);

    let allowed = explain("Microsoft.Authorization/roleAssignments/write", Plane::Control);
    assert!(allowed.allowed);
    assert_eq!(allowed.because, assignment(1, GROUP, Uuid::nil(), RG).id().as_str());
    assert_eq!(allowed.considered[0].verdict, Verdict::ActionSubtracted);
    assert_eq!(allowed.considered[2].role_name.as_deref(), Some("Owner"));
}

#[test]
fn many_assignments_do_not_matter_to_one_decision() {
    let access = engine(&[(NINA, &[GROUP])]);
    let reader = role_named("Reader");
    for number in 0..20_000_u128 {
        let who = Uuid::from_u128(1_000 + number % 500);
        access.set_assignment(None, Some(&assignment(number, who, reader, &format!("{RG}/x/{number}"))));
    }
    access.set_assignment(None, Some(&assignment(99_999, GROUP, reader, RG)));
    // What is looked at is what applies, not what there is.
    let scope = ArmId::parse(&vault("v")).unwrap();
    let question = Question { caller: &caller(NINA), action: "a/read", plane: Plane::Control, scope: &scope };
    let explained = access.explain(&question);
    assert!(explained.allowed);
    assert_eq!(explained.considered.len(), 1);
}

/// The record of a request names what allowed it, not what might have.
#[test]
fn what_is_certain_comes_before_what_depends_on_a_body() {
    let access = engine(&[]);
    let condition = "(@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] \
                     ForAnyOfAnyValues:GuidEquals{acdd72a7-3385-48ef-bd42-f606fba81ae7})";
    let owner = role_named("Owner");
    let conditional = Assignment {
        condition: Some(condition.to_owned()),
        ..assignment(1, NINA, owner, "/subscriptions/s")
    };
    let certain = assignment(2, NINA, owner, RG);
    access.set_assignment(None, Some(&conditional));
    let scope = ArmId::parse(&format!("{RG}/providers/Microsoft.Authorization/roleAssignments/x")).unwrap();
    let action = "Microsoft.Authorization/roleAssignments/write";
    let caller = caller(NINA);
    let question = Question { caller: &caller, action, plane: Plane::Control, scope: &scope };
    let by = || match access.decide(&question) {
        Decision::Allowed { by } => by.to_string(),
        Decision::Denied(reason) => panic!("{reason:?}"),
    };
    assert_eq!(by(), conditional.id().to_string(), "the body will tell");
    access.set_assignment(None, Some(&certain));
    assert_eq!(by(), certain.id().to_string());
}
