//! The engine against an oracle: ten lines that say what a decision means, over random worlds.
//!
//! A world has custom roles and built-in ones, nested groups, people who do not exist, and a history of changes of
//! which the oracle only learns the end. Names are few, so that prefixes, equal names in another case and
//! neighbours are common. `cargo xtask access` runs as many worlds as one likes, from any seed.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arcadia_kernel::{ArmId, Caller, Decider as _, Decision, Plane, Question};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};
use uuid::Uuid;

use crate::access::index::Access;
use crate::access::pattern::naive;
use crate::principal::{PrincipalInfo, PrincipalSource, PrincipalType, TenantInfo};
use crate::roles::{Assignment, CustomFacts, PermissionBlock, RoleDefinition, builtin_roles};

/// Worlds of an ordinary run.
const CASES: u32 = 2000;
const PEOPLE: usize = 3;
const GROUPS: usize = 3;
const CUSTOM_ROLES: usize = 3;
const BUILT_IN: [&str; 7] = [
    "Owner",
    "Contributor",
    "Reader",
    "User Access Administrator",
    "Key Vault Secrets User",
    "Key Vault Secrets Officer",
    "Storage Blob Data Reader",
];

const SCOPES: [&str; 17] = [
    "/",
    "/subscriptions/s",
    "/SUBSCRIPTIONS/S",
    "/subscriptions/s2",
    "/providers/Microsoft.Management/managementGroups/s",
    "/subscriptions/s/resourceGroups/rg",
    "/subscriptions/S/resourcegroups/RG",
    "/subscriptions/s/resourceGroups/rg2",
    "/subscriptions/s/resourceGroups/r",
    "/subscriptions/s2/resourceGroups/rg",
    "/subscriptions/s/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/v",
    "/subscriptions/s/resourceGroups/rg/providers/microsoft.keyvault/VAULTS/V",
    "/subscriptions/s/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/v2",
    "/subscriptions/s/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/v/secrets/x",
    "/subscriptions/s/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/v/secrets/x2",
    "/subscriptions/s/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/V/Secrets/X/versions",
    "/subscriptions/s/resourceGroups/rg2/providers/Microsoft.KeyVault/vaults/v/secrets/x",
];
const ACTIONS: [&str; 9] = [
    "Microsoft.Resources/subscriptions/resourceGroups/read",
    "Microsoft.KeyVault/vaults/read",
    "microsoft.keyvault/VAULTS/Write",
    "Microsoft.KeyVault/vaults/deploy/action",
    "Microsoft.Authorization/roleAssignments/write",
    "Microsoft.KeyVault/vaults/secrets/getSecret/action",
    "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
    "MICROSOFT.KEYVAULT/vaults/secrets/SETSECRET/action",
    "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
];
const PATTERNS: [&str; 15] = [
    "*",
    "*/read",
    "*/READ",
    "*read*",
    "*/action",
    "*/write",
    "Microsoft.KeyVault/*",
    "microsoft.keyvault/vaults/*/action",
    "Microsoft.KeyVault/vault/*",
    "Microsoft.KeyVault/vaults/read",
    "Microsoft.KeyVault/vaults/secrets/getSecret/action",
    "Microsoft.KeyVault/vaults/secrets/getSecret",
    "*/secrets/*",
    "Microsoft.*/*/write",
    "Microsoft.Authorization/*",
];

/// People first, then groups.
type Who = usize;

#[derive(Clone, Debug)]
struct Role {
    blocks: Vec<PermissionBlock>,
    assignable: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Held {
    who: Who,
    /// Built-in roles come after the custom ones; the one before them does not exist.
    role: usize,
    at: &'static str,
    /// Cannot be understood, so that it grants nothing.
    strange_condition: bool,
    /// Taken away again.
    removed: bool,
}

#[derive(Clone, Debug)]
struct World {
    /// As they are in the end; before that, each was another.
    roles: Vec<Role>,
    before: Vec<Role>,
    /// Group and member.
    members: Vec<(Who, Who)>,
    gone: Who,
    held: Vec<Held>,
}

#[derive(Clone, Debug)]
struct Ask {
    who: Who,
    plane: Plane,
    action: &'static str,
    at: &'static str,
}

/// What a decision means.
fn oracle(world: &World, ask: &Ask) -> bool {
    let fits = |list: &[String], action: &str| list.iter().any(|p| naive(p.as_bytes(), action.as_bytes()));
    let below = |at: &str, scope: &str| {
        let (at, scope) = (at.trim_end_matches('/').to_lowercase() + "/", scope.to_lowercase() + "/");
        scope.starts_with(&at)
    };
    let grants = |block: &PermissionBlock| match ask.plane {
        Plane::Control => fits(&block.actions, ask.action) && !fits(&block.not_actions, ask.action),
        Plane::Data => fits(&block.data_actions, ask.action) && !fits(&block.not_data_actions, ask.action),
        _ => false,
    };
    ask.who != world.gone
        && world.held.iter().filter(|held| !held.removed && !held.strange_condition).any(|held| {
            let assignable = world.assignable(held.role).iter().any(|at| below(at, held.at));
            let holds = is_in(&world.members, ask.who, held.who, GROUPS);
            holds && assignable && below(held.at, ask.at) && world.blocks(held.role).iter().any(grants)
        })
}

/// Whether `who` is `whole`, or a member of it through at most `hops` groups.
fn is_in(members: &[(Who, Who)], who: Who, whole: Who, hops: usize) -> bool {
    let above = members.iter().filter(|(_, member)| hops > 0 && *member == who);
    who == whole || above.into_iter().any(|(group, _)| is_in(members, *group, whole, hops - 1))
}

impl World {
    fn blocks(&self, role: usize) -> &[PermissionBlock] {
        match self.roles.get(role) {
            Some(role) => &role.blocks,
            None => built_in(role).map_or(&[], |role| &role.permissions),
        }
    }

    fn assignable(&self, role: usize) -> &[&'static str] {
        self.roles.get(role).map_or(&["/"], |role| &role.assignable)
    }

    /// Memberships with nesting resolved, as a directory hands them out.
    fn directory(&self) -> Directory {
        let groups = (0..PEOPLE + GROUPS).map(|who| {
            let (mut found, mut open) = (HashSet::new(), vec![who]);
            while let Some(next) = open.pop() {
                let above = self.members.iter().filter(|(_, member)| *member == next);
                open.extend(above.map(|(group, _)| *group).filter(|group| found.insert(*group)));
            }
            (principal(who), found.into_iter().map(principal).collect())
        });
        Directory { groups: groups.collect(), gone: principal(self.gone) }
    }

    /// The engine after everything that happened in this world.
    fn engine(&self) -> Access {
        let access = Access::new(Arc::new(self.directory()), built_ins());
        for (number, role) in self.before.iter().enumerate() {
            access.set_role(role_id(number), Some(Arc::new(definition(number, role))));
        }
        for (number, held) in self.held.iter().enumerate() {
            let made = assignment(number, held);
            let assignable = match self.roles.get(held.role) {
                Some(role) => definition(held.role, role).assignable_at(&made.scope),
                None => built_in(held.role).is_none_or(|role| role.assignable_at(&made.scope)),
            };
            if assignable {
                // A change that is told twice is one change.
                access.set_assignment(None, Some(&made));
                access.set_assignment(None, Some(&made));
            }
        }
        for (number, role) in self.roles.iter().enumerate() {
            access.set_role(role_id(number), Some(Arc::new(definition(number, role))));
        }
        for (number, held) in self.held.iter().enumerate().filter(|(_, held)| held.removed) {
            access.set_assignment(Some(&assignment(number, held)), None);
        }
        access
    }
}

fn principal(who: Who) -> Uuid {
    Uuid::from_u128(500 + who as u128)
}

/// The built-in roles that are assigned; none of them has a condition.
fn built_ins() -> &'static [Arc<RoleDefinition>] {
    static FOUND: std::sync::OnceLock<Vec<Arc<RoleDefinition>>> = std::sync::OnceLock::new();
    FOUND.get_or_init(|| {
        let named =
            |name: &&str| builtin_roles().iter().find(|role| role.role_name == *name).unwrap().clone();
        let found: Vec<_> = BUILT_IN.iter().map(named).collect();
        assert!(found.iter().all(|role| role.permissions.iter().all(|block| block.condition.is_none())));
        found
    })
}

fn built_in(role: usize) -> Option<&'static RoleDefinition> {
    built_ins().get(role.checked_sub(CUSTOM_ROLES + 1)?).map(|role| &**role)
}

fn role_id(role: usize) -> Uuid {
    built_in(role).map_or(Uuid::from_u128(900 + role as u128), |role| role.id)
}

fn definition(number: usize, role: &Role) -> RoleDefinition {
    let (id, time) = (role_id(number), Timestamp::UNIX_EPOCH);
    RoleDefinition {
        id,
        role_name: String::new(),
        description: String::new(),
        permissions: role.blocks.clone(),
        assignable_scopes: role.assignable.iter().map(|scope| ArmId::parse(scope).unwrap()).collect(),
        custom: Some(CustomFacts { created_on: time, updated_on: time, created_by: id, updated_by: id }),
    }
}

fn assignment(number: usize, held: &Held) -> Assignment {
    Assignment {
        name: Uuid::from_u128(number as u128),
        scope: ArmId::parse(held.at).unwrap(),
        role_id: role_id(held.role),
        principal_id: principal(held.who),
        principal_type: PrincipalType::User,
        condition: held.strange_condition.then(|| "@Resource[a] DateTimeGreaterThan '2020-01-01'".to_owned()),
        condition_version: None,
        description: None,
        created_on: Timestamp::UNIX_EPOCH,
        updated_on: Timestamp::UNIX_EPOCH,
        created_by: Uuid::nil(),
        updated_by: Uuid::nil(),
    }
}

struct Directory {
    groups: HashMap<Uuid, HashSet<Uuid>>,
    gone: Uuid,
}

impl PrincipalSource for Directory {
    fn principal(&self, id: Uuid) -> Option<PrincipalInfo> {
        (id != self.gone).then(|| PrincipalInfo { kind: PrincipalType::User, display_name: String::new() })
    }

    fn groups_of(&self, id: Uuid) -> Option<HashSet<Uuid>> {
        (id != self.gone).then(|| self.groups[&id].clone())
    }

    fn tenant(&self) -> TenantInfo {
        TenantInfo { id: Uuid::nil(), display_name: String::new(), default_domain: String::new() }
    }
}

fn patterns(most: usize) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(select(&PATTERNS[..]).prop_map(str::to_owned), 0..=most)
}

fn role() -> impl Strategy<Value = Role> {
    let block = (patterns(3), patterns(1), patterns(3), patterns(1));
    let block = block.prop_map(|(actions, not_actions, data_actions, not_data_actions)| PermissionBlock {
        actions,
        not_actions,
        data_actions,
        not_data_actions,
        ..PermissionBlock::default()
    });
    let assignable = prop_oneof![
        3 => Just(vec!["/"]),
        2 => proptest::collection::vec(select(&SCOPES[1..]), 1..4),
    ];
    (proptest::collection::vec(block, 1..3), assignable)
        .prop_map(|(blocks, assignable)| Role { blocks, assignable })
}

fn held() -> impl Strategy<Value = Held> {
    let roles = CUSTOM_ROLES + 1 + BUILT_IN.len();
    // Wide scopes are assigned at more often than narrow ones, or too little would be allowed.
    let at = prop_oneof![1 => Just(SCOPES[0]), 4 => select(&SCOPES[..8]), 4 => select(&SCOPES[..])];
    let one_in = |many: u8| (0..many).prop_map(|number| number == 0);
    (0..PEOPLE + GROUPS, 0..roles, at, one_in(10), one_in(6)).prop_map(
        |(who, role, at, strange_condition, removed)| Held { who, role, at, strange_condition, removed },
    )
}

fn world() -> impl Strategy<Value = World> {
    let roles = || proptest::collection::vec(role(), CUSTOM_ROLES);
    let group = PEOPLE..PEOPLE + GROUPS;
    let members = proptest::collection::vec((group, 0..PEOPLE + GROUPS), 0..8);
    let held = proptest::collection::vec(held(), 0..48);
    // In half of the worlds somebody does not exist.
    (roles(), roles(), members, 0..PEOPLE * 2, held).prop_map(|(roles, before, members, gone, held)| World {
        roles,
        before,
        members,
        gone,
        held,
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let plane = prop_oneof![10 => Just(Plane::Control), 10 => Just(Plane::Data), 1 => Just(Plane::Directory)];
    (0..PEOPLE, plane, select(&ACTIONS[..]), select(&SCOPES[..])).prop_map(|(who, plane, action, at)| Ask {
        who,
        plane,
        action,
        at,
    })
}

fn agrees(world: &World, ask: &Ask) -> Result<bool, TestCaseError> {
    let access = world.engine();
    let scope = ArmId::parse(ask.at).unwrap();
    let caller = Caller { object_id: principal(ask.who), ..Caller::anonymous() };
    let question = Question { caller: &caller, action: ask.action, plane: ask.plane, scope: &scope };
    let allowed = matches!(access.decide(&question), Decision::Allowed { .. });
    prop_assert_eq!(allowed, oracle(world, ask), "the engine and the oracle differ");
    prop_assert_eq!(allowed, access.explain(&question).allowed, "an explanation differs from its decision");
    Ok(allowed)
}

#[allow(clippy::disallowed_methods, reason = "the environment says how long to test")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn the_engine_agrees_with_the_oracle() {
    let cases = number("ARCADIA_ACCESS_CASES").map_or(CASES, |cases| u32::try_from(cases).unwrap());
    let mut random = [0; 8];
    arcadia_kernel::Entropy::fill(&arcadia_crypto::SystemEntropy, &mut random);
    let seed = number("ARCADIA_ACCESS_SEED").unwrap_or(u64::from_be_bytes(random));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let allowed = Cell::new(0);
    let checked = TestRunner::new_with_rng(config, rng).run(&(world(), ask()), |(world, ask)| {
        allowed.set(allowed.get() + u32::from(agrees(&world, &ask)?));
        Ok(())
    });
    checked.unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    let share = f64::from(allowed.get()) * 100.0 / f64::from(cases);
    println!("access: {cases} cases from seed {seed}, no difference, {share:.1} % allowed");
    assert!((20.0..80.0).contains(&share), "{share:.1} % allowed: the cases say little");
}
