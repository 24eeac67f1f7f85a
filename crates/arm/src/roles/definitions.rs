//! Role definitions: the built-in ones, and those that a tenant adds.

use std::sync::Arc;

use arcadia_kernel::{
    Action, ArmId, At, Continuation, Fault, Method, Op, Permit, Reply, Request, SignedIn, StatusCode, action,
    op, signed_in,
};
use arcadia_store::{Batch, Row};
use serde::Deserialize;
use uuid::Uuid;

use crate::Arm;
use crate::error::{self, invalid_content, shown};
use crate::filter::{self, Filter};
use crate::page::{self, Items, Turn, Window};
use crate::roles::{
    ASSIGNMENTS, CUSTOM_ROLES, CustomFacts, PermissionBlock, ROLE_NAMES, RoleDefinition, RoleName,
    builtin_roles, role_by_id, scopes,
};
use crate::size::text_bytes;

action!(pub(crate) ReadDefinitions, Control, "Microsoft.Authorization/roleDefinitions/read");
action!(pub(crate) WriteDefinition, Control, "Microsoft.Authorization/roleDefinitions/write");
action!(pub(crate) DeleteDefinition, Control, "Microsoft.Authorization/roleDefinitions/delete");

const NAME_CHARS_MAX: usize = 512;
const DESCRIPTION_CHARS_MAX: usize = 2048;
/// Assignable scopes, and their bytes together: a change is decided on at those that the role has and at those that it
/// shall have, and the request's record has room for all of these decisions.
const SCOPES_MAX: usize = 128;
const SCOPE_BYTES_MAX: usize = 16 * 1024;
const BLOCKS_MAX: usize = 16;
/// Actions of a role, and their bytes together: some times as many as the largest built-in role has.
const PATTERNS_MAX: usize = 1024;
const PATTERN_BYTES_MAX: usize = 64 * 1024;
const PATTERN_CHARS_MAX: usize = 256;
/// Runs of anything in one action; those of built-in roles have one.
const STARS_MAX: usize = 8;
/// Azure's own bound for a tenant.
const CUSTOM_ROLES_MAX: usize = 5000;

pub(crate) fn rows() -> Vec<Op<Arm>> {
    const LIST: &str = "/{scope*}/providers/Microsoft.Authorization/roleDefinitions";
    const ONE: &str = "/{scope*}/providers/Microsoft.Authorization/roleDefinitions/{roleDefinitionId}";
    const BECAUSE: &str = "shows the built-in roles, which are the same everywhere and no secret";
    vec![
        // Before the rows of any scope: both fit the path of the root.
        signed_in(
            "RoleDefinitionListBuiltIn",
            Method::GET,
            "/providers/Microsoft.Authorization/roleDefinitions",
            BECAUSE,
            list_builtin,
        ),
        signed_in(
            "RoleDefinitionGetBuiltIn",
            Method::GET,
            "/providers/Microsoft.Authorization/roleDefinitions/{roleDefinitionId}",
            BECAUSE,
            get_builtin,
        ),
        op("RoleDefinitionList", Method::GET, LIST, list),
        op("RoleDefinitionGet", Method::GET, ONE, get),
        op("RoleDefinitionCreateOrUpdate", Method::PUT, ONE, put),
        op("RoleDefinitionDelete", Method::DELETE, ONE, delete),
    ]
}

fn id_of(request: &Request) -> Result<Uuid, Fault> {
    let text = request.param("roleDefinitionId");
    Uuid::try_parse(text).map_err(|_| {
        let message = format!("The role definition ID '{}' is not valid. It must be a GUID.", shown(text));
        Fault::bad_request("InvalidRoleDefinitionId", message)
    })
}

fn not_found(id: Uuid) -> Fault {
    let message = format!("The specified role definition with ID '{}' does not exist.", id.simple());
    Fault::not_found("RoleDefinitionDoesNotExist", message)
}

/// `$filter` of lists of role definitions.
struct Chosen {
    filter: Filter,
    /// Custom roles that can be assigned below the scope only are shown too.
    below: bool,
}

impl Chosen {
    fn of(request: &Request) -> Result<Self, Fault> {
        let filter = Filter::parse(request.query.first("$filter").unwrap_or_default())?;
        let terms = filter.terms();
        let below = terms.iter().any(|term| is_call(term, "atscopeandbelow"));
        filter.check(&|leaf| match leaf {
            Filter::Equals(field, _) if field == "rolename" || field == "type" => Ok(()),
            // What chooses the roles that are looked at at all is no alternative to anything.
            leaf if is_call(leaf, "atscopeandbelow") || is_call(leaf, "atscope") => {
                match terms.contains(&leaf) {
                    true => Ok(()),
                    false => Err(filter::refused("atScopeAndBelow() can only be joined with 'and'")),
                }
            }
            _ => Err(filter::refused("only roleName eq, type eq and atScopeAndBelow() can be asked for")),
        })?;
        Ok(Self { filter, below })
    }

    /// Whether the role is shown at `scope`.
    fn shows(&self, role: &RoleDefinition, scope: &ArmId) -> Result<bool, Fault> {
        let is_below = || self.below && role.assignable_scopes.iter().any(|below| scope.contains(below));
        Ok(self.fits(role)? && (role.assignable_at(scope) || is_below()))
    }

    fn fits(&self, role: &RoleDefinition) -> Result<bool, Fault> {
        self.filter.holds(&|leaf| match leaf {
            Filter::Equals(field, value) if field == "rolename" => {
                Ok(role.role_name.to_lowercase() == value.to_lowercase())
            }
            Filter::Equals(_, value) => {
                let own = if role.custom.is_some() { "CustomRole" } else { "BuiltInRole" };
                Ok(own.eq_ignore_ascii_case(value))
            }
            _ => Ok(true),
        })
    }
}

fn is_call(leaf: &Filter, wanted: &str) -> bool {
    matches!(leaf, Filter::Call(name, arguments) if name == wanted && arguments.is_empty())
}

async fn list(at: At<Arm>, _: Permit<ReadDefinitions>, request: Request) -> Result<Reply, Fault> {
    let scope = scopes::check(&at, request.param("scope"))?;
    listed(&at, &request, &at.access.custom_roles(), &scope).await
}

async fn list_builtin(at: At<Arm>, _: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    listed(&at, &request, &[], &ArmId::root()).await
}

/// The custom roles and then the built-in ones, as far as they are asked for. A page ends at a role, and the next one
/// begins behind it, or where it was.
async fn listed(
    arm: &Arm,
    request: &Request,
    custom: &[Arc<RoleDefinition>],
    scope: &ArmId,
) -> Result<Reply, Fault> {
    let chosen = Chosen::of(request)?;
    let window = Window::of(arm, request)?;
    let roles: Vec<&Arc<RoleDefinition>> = custom.iter().chain(builtin_roles()).collect();
    let mut at = match window.after {
        None => 0,
        Some(Continuation(last)) => {
            let last = Uuid::from_slice(&last).map_err(|_| Continuation::not_issued())?;
            let behind = roles.iter().position(|role| role.id == last).map(|at| at + 1);
            behind.unwrap_or_else(|| custom.partition_point(|role| role.id < last))
        }
    };
    let (mut items, mut turn) = (Items::new(window.limit), Turn::begin());
    while let Some(role) = roles.get(at).filter(|_| !items.is_full()) {
        if chosen.shows(role, scope)? {
            items.push(role.view(scope.subscription()));
        }
        at += 1;
        turn.passes().await;
    }
    let last = roles[..at].last().filter(|_| at < roles.len());
    page::reply(arm, request, items.page(last.map(|last| Continuation(last.id.as_bytes().to_vec()))))
}

async fn get(at: At<Arm>, _: Permit<ReadDefinitions>, request: Request) -> Result<Reply, Fault> {
    let scope = scopes::check(&at, request.param("scope"))?;
    let id = id_of(&request)?;
    if let Some(role) = role_by_id(id) {
        return Reply::ok(&role.view(scope.subscription()));
    }
    let row = at.store.get(CUSTOM_ROLES, &id).await?.filter(|row| row.value.assignable_at(&scope));
    Reply::ok(&row.ok_or_else(|| not_found(id))?.value.view(scope.subscription()))
}

async fn get_builtin(_: At<Arm>, _: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    let id = id_of(&request)?;
    Reply::ok(&role_by_id(id).ok_or_else(|| not_found(id))?.view(None))
}

#[derive(Deserialize)]
struct PutBody {
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    role_name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    assignable_scopes: Vec<String>,
    permissions: Vec<WantedBlock>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WantedBlock {
    #[serde(default)]
    actions: Option<Vec<String>>,
    #[serde(default)]
    not_actions: Option<Vec<String>>,
    #[serde(default)]
    data_actions: Option<Vec<String>>,
    #[serde(default)]
    not_data_actions: Option<Vec<String>>,
    #[serde(default)]
    condition: Option<String>,
}

/// What a client asks for, checked.
struct Wanted {
    role_name: String,
    description: String,
    assignable_scopes: Vec<ArmId>,
    permissions: Vec<PermissionBlock>,
}

impl Wanted {
    fn read(arm: &Arm, request: &Request) -> Result<Self, Fault> {
        let body: PutBody = serde_json::from_slice(&request.body).map_err(|error| {
            invalid_content(format!(
                "The request content was invalid and could not be deserialized: '{error}'."
            ))
        })?;
        let body = body.properties;
        let role_name = body.role_name.trim().to_owned();
        if role_name.is_empty() || role_name.chars().count() > NAME_CHARS_MAX {
            let message = format!("The role's name must have 1 to {NAME_CHARS_MAX} characters.");
            return Err(Fault::bad_request("InvalidRoleDefinitionName", message));
        }
        if body.kind.is_some_and(|kind| !kind.is_empty() && !kind.eq_ignore_ascii_case("CustomRole")) {
            return Err(invalid_content("Only roles of the type 'CustomRole' can be written."));
        }
        let description = body.description.unwrap_or_default();
        if description.chars().count() > DESCRIPTION_CHARS_MAX {
            let message = format!("The description is longer than {DESCRIPTION_CHARS_MAX} characters.");
            return Err(invalid_content(message));
        }
        Ok(Self {
            role_name,
            description,
            assignable_scopes: assignable(arm, &body.assignable_scopes)?,
            permissions: blocks(body.permissions)?,
        })
    }
}

fn assignable(arm: &Arm, texts: &[String]) -> Result<Vec<ArmId>, Fault> {
    if texts.is_empty() || texts.len() > SCOPES_MAX {
        let message = format!("A custom role must have 1 to {SCOPES_MAX} assignable scopes.");
        return Err(Fault::bad_request("InvalidAssignableScopes", message));
    }
    if texts.iter().map(|text| text_bytes(text)).sum::<usize>() > SCOPE_BYTES_MAX {
        return Err(error::too_large("the list of a role's assignable scopes", SCOPE_BYTES_MAX));
    }
    texts
        .iter()
        .map(|text| {
            let scope = scopes::check_new(arm, text)?;
            if scope.is_root() {
                let message =
                    "The scope '/' is only for built-in roles. Name subscriptions or resource groups.";
                return Err(Fault::bad_request("InvalidAssignableScopes", message));
            }
            Ok(scope)
        })
        .collect()
}

fn blocks(wanted: Vec<WantedBlock>) -> Result<Vec<PermissionBlock>, Fault> {
    if wanted.is_empty() || wanted.len() > BLOCKS_MAX {
        let message = format!("A custom role must have 1 to {BLOCKS_MAX} permission objects.");
        return Err(invalid_content(message));
    }
    let (mut count, mut bytes) = (0, 0);
    wanted
        .into_iter()
        .map(|block| {
            if block.condition.is_some_and(|condition| !condition.is_empty()) {
                return Err(invalid_content(
                    "Custom roles have no conditions. Put the condition on the role assignment.",
                ));
            }
            let mut checked = |patterns: Option<Vec<String>>| {
                let patterns = patterns.unwrap_or_default();
                count += patterns.len();
                if count > PATTERNS_MAX {
                    let message = format!("A role has at most {PATTERNS_MAX} actions.");
                    return Err(invalid_content(message));
                }
                bytes += patterns.iter().map(String::len).sum::<usize>();
                if bytes > PATTERN_BYTES_MAX {
                    return Err(error::too_large("the list of a role's actions", PATTERN_BYTES_MAX));
                }
                patterns.iter().try_for_each(|pattern| check_pattern(pattern))?;
                Ok(patterns)
            };
            Ok(PermissionBlock {
                actions: checked(block.actions)?,
                not_actions: checked(block.not_actions)?,
                data_actions: checked(block.data_actions)?,
                not_data_actions: checked(block.not_data_actions)?,
                ..PermissionBlock::default()
            })
        })
        .collect()
}

fn check_pattern(pattern: &str) -> Result<(), Fault> {
    let fits = !pattern.is_empty()
        && pattern.len() <= PATTERN_CHARS_MAX
        && pattern.chars().all(|c| c.is_ascii_alphanumeric() || "./*-_".contains(c))
        && (pattern == "*" || pattern.contains('/'))
        && pattern.bytes().filter(|byte| *byte == b'*').count() <= STARS_MAX;
    if fits {
        return Ok(());
    }
    let message = format!(
        "'{}' does not match any of the actions supported by the providers. Write it as \
         '{{namespace}}/{{type}}/read', with '*' for any part.",
        shown(pattern)
    );
    Err(Fault::bad_request("InvalidActionOrNotAction", message))
}

/// A change of a role changes what its assignees may do wherever it is assigned, so the caller needs the right
/// at every scope that the role has and shall have.
async fn check_everywhere<A: Action>(permit: &Permit<A>, scopes: &[&ArmId]) -> Result<(), Fault> {
    let (mut turn, mut bytes) = (Turn::begin(), 0);
    for (number, scope) in scopes.iter().enumerate() {
        bytes += text_bytes(scope.as_str());
        // The roles of before there were bounds may have more scopes than a record has room for.
        let is_recorded = number < 2 * SCOPES_MAX && bytes <= 2 * SCOPE_BYTES_MAX;
        let may = match is_recorded {
            true => permit.also::<A>(scope).is_ok(),
            false => permit.may(&A::name(), A::PLANE, scope),
        };
        if !may {
            return Err(error::authorization_failed(permit.caller(), &A::name(), scope));
        }
        turn.passes().await;
    }
    Ok(())
}

/// The role is assigned nowhere but at scopes that it keeps: who may change it later is asked at these alone, and
/// must not thereby change what is allowed elsewhere. An assignment that is made meanwhile writes the role's row.
async fn check_assigned(arm: &Arm, role: &RoleDefinition, kept: &[ArmId]) -> Result<(), Fault> {
    let keeps = |scope: &ArmId| kept.iter().any(|kept| kept.contains(scope));
    if role.assignable_scopes.iter().all(keeps) {
        return Ok(());
    }
    let assignments = arm.store.all(ASSIGNMENTS, &()).await?;
    let outside =
        assignments.into_iter().find(|row| row.value.role_id == role.id && !keeps(&row.value.scope));
    let Some(outside) = outside else { return Ok(()) };
    let message = format!(
        "The role is assigned at '{}', which the assignable scopes would no longer contain. Delete that role \
         assignment first.",
        outside.value.scope
    );
    Err(Fault::bad_request("RoleDefinitionHasAssignments", message))
}

async fn put(at: At<Arm>, permit: Permit<WriteDefinition>, request: Request) -> Result<Reply, Fault> {
    let scope = scopes::check(&at, request.param("scope"))?;
    let id = id_of(&request)?;
    if role_by_id(id).is_some() {
        let message = "Built-in roles cannot be changed. Write a custom role under a new GUID.";
        return Err(Fault::bad_request("RoleDefinitionIsBuiltIn", message));
    }
    let wanted = Wanted::read(&at, &request)?;
    let mut attempts = at.store.attempts();
    loop {
        let current = at.store.get(CUSTOM_ROLES, &id).await?;
        let old_scopes = current.iter().flat_map(|row| row.value.assignable_scopes.iter());
        let scopes: Vec<&ArmId> = wanted.assignable_scopes.iter().chain(old_scopes).collect();
        check_everywhere(&permit, &scopes).await?;
        if let Some(row) = &current {
            check_assigned(&at, &row.value, &wanted.assignable_scopes).await?;
        }
        let mut batch = Batch::new();
        let role = planned(&at, &permit, id, current.as_ref(), &wanted, &mut batch).await?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            // Exactly 201, also for an update: clients take nothing else.
            return Reply::json(StatusCode::CREATED, &role.view(scope.subscription()));
        }
    }
}

async fn planned(
    arm: &Arm,
    permit: &Permit<WriteDefinition>,
    id: Uuid,
    current: Option<&Row<RoleDefinition>>,
    wanted: &Wanted,
    batch: &mut Batch,
) -> Result<RoleDefinition, Fault> {
    let name_key = wanted.role_name.to_lowercase();
    let holder = arm.store.get(ROLE_NAMES, &name_key).await?;
    let builtin = builtin_roles().iter().any(|role| role.role_name.to_lowercase() == name_key);
    if builtin || holder.as_ref().is_some_and(|row| row.value.id != id) {
        let message =
            "A custom role with the same name already exists in this directory. Use a different name.";
        return Err(Fault::conflict("RoleDefinitionWithSameNameExists", message));
    }
    let (now, by) = (permit.now(), permit.caller().object_id);
    match current {
        Some(row) => {
            batch.require_revision(CUSTOM_ROLES, &id, row.revision);
            let old_key = row.value.role_name.to_lowercase();
            if old_key != name_key {
                batch.delete(ROLE_NAMES, &old_key);
            }
        }
        None => {
            if arm.access.custom_roles().len() >= CUSTOM_ROLES_MAX {
                let message = format!("The directory already has {CUSTOM_ROLES_MAX} custom roles.");
                return Err(Fault::bad_request("RoleDefinitionLimitExceeded", message));
            }
            batch.require_absent(CUSTOM_ROLES, &id);
        }
    }
    match &holder {
        Some(row) => batch.require_revision(ROLE_NAMES, &name_key, row.revision),
        None => batch.require_absent(ROLE_NAMES, &name_key),
    }
    let facts = current.and_then(|row| row.value.custom.clone());
    let role = RoleDefinition {
        id,
        role_name: wanted.role_name.clone(),
        description: wanted.description.clone(),
        permissions: wanted.permissions.clone(),
        assignable_scopes: wanted.assignable_scopes.clone(),
        custom: Some(CustomFacts {
            created_on: facts.as_ref().map_or(now, |facts| facts.created_on),
            created_by: facts.as_ref().map_or(by, |facts| facts.created_by),
            updated_on: now,
            updated_by: by,
        }),
    };
    batch.put(ROLE_NAMES, &name_key, &RoleName { id })?;
    batch.put(CUSTOM_ROLES, &id, &role)?;
    Ok(role)
}

async fn delete(at: At<Arm>, permit: Permit<DeleteDefinition>, request: Request) -> Result<Reply, Fault> {
    let scope = scopes::check(&at, request.param("scope"))?;
    let id = id_of(&request)?;
    if role_by_id(id).is_some() {
        let message = "Built-in roles cannot be deleted.";
        return Err(Fault::bad_request("RoleDefinitionIsBuiltIn", message));
    }
    let mut attempts = at.store.attempts();
    loop {
        let Some(row) = at.store.get(CUSTOM_ROLES, &id).await? else {
            return Ok(Reply::empty(StatusCode::NO_CONTENT));
        };
        check_everywhere(&permit, &row.value.assignable_scopes.iter().collect::<Vec<_>>()).await?;
        at.store.observers_told().await?;
        if at.access.role_in_use(id) {
            let message = "There are existing role assignments referencing role. Delete those first.";
            return Err(Fault::bad_request("RoleDefinitionHasAssignments", message));
        }
        let mut batch = Batch::new();
        batch.require_revision(CUSTOM_ROLES, &id, row.revision);
        batch.delete(CUSTOM_ROLES, &id);
        batch.delete(ROLE_NAMES, &row.value.role_name.to_lowercase());
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return Reply::ok(&row.value.view(scope.subscription()));
        }
    }
}
