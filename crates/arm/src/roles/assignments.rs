//! Role assignments at every scope.

use std::collections::BTreeMap;

use arcadia_kernel::{
    Action, ArmId, At, AuditStamp, Continuation, Decision, Fault, Method, Op, Permit, Question, Reply,
    Request, StatusCode, action, op,
};
use arcadia_store::{Batch, Row, Store};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::Arm;
use crate::access::{
    Attributes, Condition, PRINCIPAL_ATTRIBUTE, PRINCIPAL_TYPE_ATTRIBUTE, ROLE_ATTRIBUTE, Source,
};
use crate::error::{self, invalid_content, shown};
use crate::filter::{self, Argument, Filter};
use crate::kind::RESOURCES;
use crate::page::{self, Items, Window};
use crate::principal::PrincipalType;
use crate::roles::{
    ASSIGNMENT_GRANTS, ASSIGNMENT_NAMES, ASSIGNMENTS, Assignment, AssignmentRef, CUSTOM_ROLES,
    administrators, role_by_id, scopes,
};

action!(pub(crate) ReadAssignments, Control, "Microsoft.Authorization/roleAssignments/read");
action!(pub(crate) WriteAssignment, Control, "Microsoft.Authorization/roleAssignments/write");
action!(pub(crate) DeleteAssignment, Control, "Microsoft.Authorization/roleAssignments/delete");
action!(pub(crate) ReadDenyAssignments, Control, "Microsoft.Authorization/denyAssignments/read");
action!(pub(crate) ReadPermissions, Control, "Microsoft.Authorization/permissions/read");

const DESCRIPTION_CHARS_MAX: usize = 2048;
/// How many assignments one commit deletes: three rows each, well below a batch's bound.
const DELETED_AT_ONCE_MAX: usize = 4000;

pub(crate) fn rows() -> Vec<Op<Arm>> {
    const LIST: &str = "/{scope*}/providers/Microsoft.Authorization/roleAssignments";
    const ONE: &str = "/{scope*}/providers/Microsoft.Authorization/roleAssignments/{roleAssignmentName}";
    vec![
        op("RoleAssignmentList", Method::GET, LIST, list),
        op("RoleAssignmentGet", Method::GET, ONE, get),
        op("RoleAssignmentCreate", Method::PUT, ONE, put),
        op("RoleAssignmentDelete", Method::DELETE, ONE, delete),
        op(
            "DenyAssignmentList",
            Method::GET,
            "/{scope*}/providers/Microsoft.Authorization/denyAssignments",
            list_deny,
        ),
        op(
            "PermissionList",
            Method::GET,
            "/{scope*}/providers/Microsoft.Authorization/permissions",
            list_permissions,
        ),
    ]
}

fn name_of(request: &Request) -> Result<Uuid, Fault> {
    let text = request.param("roleAssignmentName");
    Uuid::try_parse(text).map_err(|_| {
        let message = format!("The role assignment ID '{}' is not valid. It must be a GUID.", shown(text));
        Fault::bad_request("InvalidRoleAssignmentId", message)
    })
}

fn id_of(scope: &ArmId, name: Uuid) -> Result<ArmId, Fault> {
    let name = name.to_string();
    let tail = ["providers", "Microsoft.Authorization", "roleAssignments", &name];
    ArmId::from_segments(scope.segments().chain(tail))
        .map_err(|_| invalid_content("The role assignment's scope is too long."))
}

fn not_found(name: Uuid) -> Fault {
    Fault::not_found("RoleAssignmentNotFound", format!("The role assignment '{name}' is not found."))
}

async fn get(at: At<Arm>, _: Permit<ReadAssignments>, request: Request) -> Result<Reply, Fault> {
    let scope = scopes::check(&at, request.param("scope"))?;
    let name = name_of(&request)?;
    let row = at.store.get(ASSIGNMENTS, &id_of(&scope, name)?).await?.ok_or_else(|| not_found(name))?;
    Reply::ok(&row.value.view(None, false))
}

#[derive(Deserialize)]
struct PutBody {
    properties: Properties,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    role_definition_id: String,
    principal_id: String,
    #[serde(default)]
    principal_type: Option<String>,
    #[serde(default)]
    condition: Option<String>,
    #[serde(default)]
    condition_version: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    delegated_managed_identity_resource_id: Option<String>,
}

/// What a client asks for, checked.
struct Wanted {
    role_id: Uuid,
    principal_id: Uuid,
    principal_type: PrincipalType,
    condition: Option<String>,
    condition_version: Option<String>,
    description: Option<String>,
}

impl Wanted {
    fn read(arm: &Arm, request: &Request) -> Result<Self, Fault> {
        let body: PutBody = serde_json::from_slice(&request.body).map_err(|error| {
            invalid_content(format!(
                "The request content was invalid and could not be deserialized: '{error}'."
            ))
        })?;
        let body = body.properties;
        if body.delegated_managed_identity_resource_id.as_ref().is_some_and(|id| !id.is_empty()) {
            let message = "Role assignments across tenants are not supported: leave out \
                           'delegatedManagedIdentityResourceId'.";
            return Err(invalid_content(message));
        }
        if body.description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_CHARS_MAX) {
            let message = format!("The description is longer than {DESCRIPTION_CHARS_MAX} characters.");
            return Err(invalid_content(message));
        }
        let (condition, condition_version) = condition(&body)?;
        let (principal_id, principal_type) = principal(arm, &body)?;
        Ok(Self {
            role_id: role_id(&body.role_definition_id)?,
            principal_id,
            principal_type,
            condition,
            condition_version,
            description: body.description,
        })
    }

    /// What conditions on `Microsoft.Authorization/roleAssignments` speak of.
    fn attributes(&self, attributes: &mut Attributes) {
        set(attributes, Source::Request, self.role_id, self.principal_id, self.principal_type);
    }
}

fn set(attributes: &mut Attributes, source: Source, role: Uuid, principal: Uuid, kind: PrincipalType) {
    attributes.set(source, ROLE_ATTRIBUTE, &role.to_string());
    attributes.set(source, PRINCIPAL_ATTRIBUTE, &principal.to_string());
    attributes.set(source, PRINCIPAL_TYPE_ATTRIBUTE, kind.as_str());
}

/// A condition is taken only when every part of it can be evaluated; one that could not would grant nothing.
fn condition(body: &Properties) -> Result<(Option<String>, Option<String>), Fault> {
    let Some(text) = body.condition.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok((None, None));
    };
    if body.condition_version.as_deref() != Some("2.0") {
        let message = "The role assignment's condition needs 'conditionVersion' to be '2.0'.";
        return Err(Fault::bad_request("InvalidConditionVersion", message));
    }
    Condition::parse(text).and_then(|condition| condition.check_attributes()).map_err(|fault| {
        let message = format!("The role assignment's condition cannot be used: {fault}.");
        Fault::bad_request("InvalidCondition", message)
    })?;
    Ok((Some(text.to_owned()), Some("2.0".to_owned())))
}

/// The GUID at the end of `[/subscriptions/{s}]/providers/Microsoft.Authorization/roleDefinitions/{guid}`.
fn role_id(text: &str) -> Result<Uuid, Fault> {
    let refused = || {
        let message = format!(
            "The role definition ID '{}' is not valid. It must end in \
             '/providers/Microsoft.Authorization/roleDefinitions/' and a GUID.",
            shown(text)
        );
        Fault::bad_request("InvalidRoleDefinitionId", message)
    };
    if let Ok(bare) = Uuid::try_parse(text) {
        return Ok(bare);
    }
    let id = ArmId::parse(text).map_err(|_| refused())?;
    let is_definition =
        id.resource_type().is_some_and(|found| found.eq_ignore_ascii_case(crate::roles::DEFINITIONS_TYPE));
    if !is_definition {
        return Err(refused());
    }
    Uuid::try_parse(id.name()).map_err(|_| refused())
}

fn principal(arm: &Arm, body: &Properties) -> Result<(Uuid, PrincipalType), Fault> {
    let id = Uuid::try_parse(&body.principal_id).map_err(|_| {
        let message =
            format!("The principal ID '{}' is not valid. It must be a GUID.", shown(&body.principal_id));
        Fault::bad_request("InvalidPrincipalId", message)
    })?;
    let given = match body.principal_type.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(PrincipalType::parse(text).ok_or_else(|| {
            let message = format!(
                "The principal type '{}' is not valid. Use User, Group or ServicePrincipal.",
                shown(text)
            );
            Fault::bad_request("InvalidPrincipalType", message)
        })?),
    };
    match (arm.directory.principal(id), given) {
        (Some(found), Some(given)) if found.kind != given => {
            let message = format!(
                "The PrincipalId '{}' has type '{}', which is different from specified PrincipalType '{given}'.",
                id.simple(),
                found.kind
            );
            Err(Fault::bad_request("UnmatchedPrincipalType", message))
        }
        (Some(found), _) => Ok((id, found.kind)),
        // As in Azure, a client that knows the type may assign before the principal is seen here. Until it
        // exists the assignment allows nothing.
        (None, Some(given)) => Ok((id, given)),
        (None, None) => {
            let message = format!(
                "Principal {} does not exist in the directory {}. Check that you have the correct principal ID. \
                 If you are creating this principal and then immediately assigning a role, this error might be \
                 related to a replication delay. In this case, set the role assignment principalType property \
                 to a value, such as ServicePrincipal, User, or Group.  See https://aka.ms/docs-principaltype",
                id.simple(),
                arm.directory.tenant().id
            );
            Err(Fault::bad_request("PrincipalNotFound", message))
        }
    }
}

/// The second decision, now that the assignment itself is known, for roles whose condition speaks of it.
fn decide<A: Action>(arm: &Arm, permit: &Permit<A>, attributes: &Attributes) -> Result<(), Fault> {
    let action = A::name();
    let question =
        Question { caller: permit.caller(), action: &action, plane: A::PLANE, scope: permit.scope() };
    let decision = arm.access.decide_with(&question, attributes, false);
    permit.decided_again(&decision);
    match decision {
        Decision::Allowed { .. } => Ok(()),
        Decision::Denied(_) => Err(error::authorization_failed(permit.caller(), &action, permit.scope())),
    }
}

async fn put(at: At<Arm>, permit: Permit<WriteAssignment>, request: Request) -> Result<Reply, Fault> {
    let scope = scopes::check_new(&at, request.param("scope"))?;
    let name = name_of(&request)?;
    let id = id_of(&scope, name)?;
    let wanted = Wanted::read(&at, &request)?;
    let mut attempts = at.store.attempts();
    loop {
        // Before the assignment itself: who makes it meanwhile under this name does not look like another one.
        let named = at.store.get(ASSIGNMENT_NAMES, &name).await?;
        let current = at.store.get(ASSIGNMENTS, &id).await?;
        let mut attributes = Attributes::default();
        wanted.attributes(&mut attributes);
        if let Some(row) = &current {
            let v = &row.value;
            set(&mut attributes, Source::Resource, v.role_id, v.principal_id, v.principal_type);
        }
        decide(&at, &permit, &attributes)?;
        if named.is_some_and(|row| row.value.id != id) {
            return Err(update_not_permitted());
        }
        let mut batch = Batch::new();
        hold_role(&at, wanted.role_id, &scope, &mut batch).await?;
        scopes::hold(&at, &scope, &mut batch).await?;
        let assignment = planned(&at, &permit, &scope, name, current.as_ref(), &wanted, &mut batch).await?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            let created = current.is_none();
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            return Reply::json(status, &assignment.view(None, created));
        }
    }
}

/// The assignment as it shall be, with the rows that keep its name and what it grants unique.
async fn planned(
    arm: &Arm,
    permit: &Permit<WriteAssignment>,
    scope: &ArmId,
    name: Uuid,
    current: Option<&Row<Assignment>>,
    wanted: &Wanted,
    batch: &mut Batch,
) -> Result<Assignment, Fault> {
    let (now, by) = (permit.now(), permit.caller().object_id);
    let assignment = Assignment {
        name,
        scope: current.map_or_else(|| scope.clone(), |row| row.value.scope.clone()),
        role_id: wanted.role_id,
        principal_id: wanted.principal_id,
        principal_type: wanted.principal_type,
        condition: wanted.condition.clone(),
        condition_version: wanted.condition_version.clone(),
        description: wanted.description.clone(),
        created_on: current.map_or(now, |row| row.value.created_on),
        updated_on: now,
        created_by: current.map_or(by, |row| row.value.created_by),
        updated_by: by,
    };
    let id = id_of(scope, name)?;
    if let Some(row) = current {
        if (row.value.role_id, row.value.principal_id) != (wanted.role_id, wanted.principal_id) {
            return Err(update_not_permitted());
        }
        if assignment.condition.is_some() {
            administrators::keep_one(arm, &row.value, batch).await?;
        }
        batch.require_revision(ASSIGNMENTS, &id, row.revision);
        batch.put(ASSIGNMENTS, &id, &assignment)?;
        return Ok(assignment);
    }
    arm.access.check_room()?;
    let grant = assignment.grant_key();
    if arm.store.get(ASSIGNMENT_GRANTS, &grant).await?.is_some() {
        return Err(Fault::conflict("RoleAssignmentExists", "The role assignment already exists."));
    }
    insert(&assignment, batch)?;
    Ok(assignment)
}

fn update_not_permitted() -> Fault {
    let message = "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.";
    Fault::bad_request("RoleAssignmentUpdateNotPermitted", message)
}

pub(super) fn insert(assignment: &Assignment, batch: &mut Batch) -> Result<(), Fault> {
    let (id, grant) = (assignment.id(), assignment.grant_key());
    let reference = AssignmentRef { id: id.clone() };
    batch.require_absent(ASSIGNMENTS, &id);
    batch.require_absent(ASSIGNMENT_NAMES, &assignment.name);
    batch.require_absent(ASSIGNMENT_GRANTS, &grant);
    batch.put(ASSIGNMENTS, &id, assignment)?;
    batch.put(ASSIGNMENT_NAMES, &assignment.name, &reference)?;
    batch.put(ASSIGNMENT_GRANTS, &grant, &reference)?;
    Ok(())
}

fn remove(assignment: &Assignment, batch: &mut Batch) {
    batch.delete(ASSIGNMENTS, &assignment.id());
    batch.delete(ASSIGNMENT_NAMES, &assignment.name);
    batch.delete(ASSIGNMENT_GRANTS, &assignment.grant_key());
}

/// Plans an assignment that nobody had to allow: those of the first owners.
pub(crate) fn put_founding(assignment: &Assignment, batch: &mut Batch) -> Result<(), Fault> {
    insert(assignment, batch)
}

/// The role exists, can be assigned here, and stays so until the commit.
async fn hold_role(arm: &Arm, role: Uuid, scope: &ArmId, batch: &mut Batch) -> Result<(), Fault> {
    if role_by_id(role).is_some() {
        return Ok(());
    }
    match arm.store.get(CUSTOM_ROLES, &role).await? {
        Some(row) if row.value.assignable_at(scope) => {
            batch.require_revision(CUSTOM_ROLES, &role, row.revision);
            Ok(batch.put(CUSTOM_ROLES, &role, &row.value)?)
        }
        _ => {
            let message =
                format!("The specified role definition with ID '{}' does not exist.", role.simple());
            Err(Fault::bad_request("RoleDefinitionDoesNotExist", message))
        }
    }
}

async fn delete(at: At<Arm>, permit: Permit<DeleteAssignment>, request: Request) -> Result<Reply, Fault> {
    let scope = scopes::check(&at, request.param("scope"))?;
    let id = id_of(&scope, name_of(&request)?)?;
    let mut attempts = at.store.attempts();
    loop {
        let Some(row) = at.store.get(ASSIGNMENTS, &id).await? else {
            return Ok(Reply::empty(StatusCode::NO_CONTENT));
        };
        let mut attributes = Attributes::default();
        let v = &row.value;
        set(&mut attributes, Source::Resource, v.role_id, v.principal_id, v.principal_type);
        decide(&at, &permit, &attributes)?;
        let mut batch = Batch::new();
        administrators::keep_one(&at, &row.value, &mut batch).await?;
        batch.require_revision(ASSIGNMENTS, &id, row.revision);
        remove(&row.value, &mut batch);
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return Reply::ok(&row.value.view(None, false));
        }
    }
}

/// Plans the end of the assignments at and below a scope that ends itself.
pub(crate) async fn delete_at_and_below(
    store: &Store,
    scope: &ArmId,
    batch: &mut Batch,
) -> Result<(), Fault> {
    for row in store.all(ASSIGNMENTS, scope).await? {
        remove(&row.value, batch);
    }
    Ok(())
}

/// Deletes assignments at and below a scope until the rest fits in one commit.
pub(crate) async fn thin_out(store: &Store, stamp: &AuditStamp, scope: &ArmId) -> Result<(), Fault> {
    loop {
        let rows = store.all(ASSIGNMENTS, scope).await?;
        if rows.len() <= DELETED_AT_ONCE_MAX {
            return Ok(());
        }
        let mut batch = Batch::new();
        for row in rows.iter().take(DELETED_AT_ONCE_MAX) {
            remove(&row.value, &mut batch);
        }
        store.commit(stamp, batch).await?;
    }
}

/// Plans the end of the assignments at and below a scope that ends itself, and that is within a resource which stays.
/// Where a role is assigned there meanwhile, the commit fails. Like the deletion of a resource, it must run to its end:
/// where there are more than one commit takes, some go before it.
pub async fn end_assignments(
    store: &Store,
    stamp: &AuditStamp,
    resource: &ArmId,
    scope: &ArmId,
    batch: &mut Batch,
) -> Result<(), Fault> {
    let row = store.get(RESOURCES, resource).await?.ok_or_else(|| error::resource_not_found(resource))?;
    batch.require_revision(RESOURCES, resource, row.revision);
    thin_out(store, stamp, scope).await?;
    delete_at_and_below(store, scope, batch).await
}

/// Which assignments a list shows.
struct Chosen {
    filter: Filter,
    below: bool,
    /// `assignedTo('X')`: X and the groups it is in.
    assigned_to: Vec<(Uuid, Vec<Uuid>)>,
}

impl Chosen {
    fn of(arm: &Arm, request: &Request) -> Result<Self, Fault> {
        let filter = Filter::parse(request.query.first("$filter").unwrap_or_default())?;
        let assigned_to = std::cell::RefCell::new(Vec::new());
        let at_scope = filter.terms().into_iter().any(is_at_scope);
        filter.check(&|leaf| match leaf {
            Filter::Equals(field, value) if field == "principalid" => guid(value).map(|_| ()),
            // It chooses what is read at all, so it can be no alternative to anything.
            leaf if is_at_scope(leaf) && at_scope => Ok(()),
            leaf if is_at_scope(leaf) => Err(filter::refused("atScope() can only be joined with 'and'")),
            Filter::Call(name, arguments) if name == "assignedto" => {
                let id = assignee(arguments)?;
                let principals = arm.access.principals(id).unwrap_or_else(|| vec![id]);
                assigned_to.borrow_mut().push((id, principals));
                Ok(())
            }
            _ => Err(filter::refused(
                "only atScope(), assignedTo('{id}') and principalId eq '{id}' can be asked for",
            )),
        })?;
        Ok(Self { filter, below: !at_scope, assigned_to: assigned_to.into_inner() })
    }

    fn fits(&self, assignment: &Assignment) -> Result<bool, Fault> {
        self.filter.holds(&|leaf| match leaf {
            Filter::Equals(_, value) => Ok(guid(value)? == assignment.principal_id),
            Filter::Call(name, arguments) if name == "assignedto" => {
                let id = assignee(arguments)?;
                let of = self.assigned_to.iter().find(|(asked, _)| *asked == id);
                Ok(of.is_some_and(|(_, principals)| principals.contains(&assignment.principal_id)))
            }
            // atScope() chooses what is read at all.
            _ => Ok(true),
        })
    }
}

fn is_at_scope(leaf: &Filter) -> bool {
    matches!(leaf, Filter::Call(name, arguments) if name == "atscope" && arguments.is_empty())
}

fn guid(text: &str) -> Result<Uuid, Fault> {
    Uuid::try_parse(text).map_err(|_| filter::refused("a principal's id must be a GUID"))
}

fn assignee(arguments: &[Argument]) -> Result<Uuid, Fault> {
    match arguments {
        [Argument::Text(text) | Argument::Field(text)] => guid(text),
        _ => Err(filter::refused("assignedTo takes one id")),
    }
}

async fn list(at: At<Arm>, _: Permit<ReadAssignments>, request: Request) -> Result<Reply, Fault> {
    let scope = scopes::check(&at, request.param("scope"))?;
    let chosen = Chosen::of(&at, &request)?;
    let window = Window::of(&at, &request)?;
    let subscription = scope.subscription().map(str::to_owned);
    let view = |row: Row<Assignment>| {
        let shown = chosen.fits(&row.value)?;
        Ok(shown.then(|| row.value.view(subscription.as_deref(), false)))
    };
    // What is inherited comes first, from the nearest scope on.
    let mut ranges = Vec::new();
    let mut above = scope.parent();
    while let Some(ancestor) = above {
        ranges.push(own_prefix(&ancestor)?);
        above = ancestor.parent();
    }
    ranges.push(if chosen.below { scope } else { own_prefix(&scope)? });
    let page = page::collect_all(&at.store, ASSIGNMENTS, &ranges, window, view).await?;
    page::reply(&at, &request, page)
}

/// The key prefix of the assignments that are made at a scope itself.
pub(super) fn own_prefix(scope: &ArmId) -> Result<ArmId, Fault> {
    scope
        .join("providers/Microsoft.Authorization/roleAssignments")
        .map_err(|_| invalid_content("The scope is too long."))
}

/// Deny assignments are made by managed applications and deployment stacks, of which this site has none.
async fn list_deny(at: At<Arm>, _: Permit<ReadDenyAssignments>, request: Request) -> Result<Reply, Fault> {
    scopes::check(&at, request.param("scope"))?;
    Reply::ok(&json!({ "value": [] }))
}

/// What the caller's roles allow at a scope: every permission block of each, as its role writes it. A page ends at a role.
async fn list_permissions(
    at: At<Arm>,
    permit: Permit<ReadPermissions>,
    request: Request,
) -> Result<Reply, Fault> {
    let scope = scopes::check(&at, request.param("scope"))?;
    let window = Window::of(&at, &request)?;
    let last = window.after.map(|after| Uuid::from_slice(&after.0)).transpose();
    let last = last.map_err(|_| Continuation::not_issued())?;
    let principals = at.access.principals(permit.caller().object_id).unwrap_or_default();
    let mut roles = BTreeMap::new();
    at.access.visit(&principals, &scope, |_, held, role| {
        roles.extend(
            role.filter(|_| last.is_none_or(|last| held.role > last)).map(|role| (held.role, role.clone())),
        );
        false
    });
    let mut items = Items::new(window.limit);
    while let Some((id, role)) = roles.pop_first() {
        role.definition.permissions.iter().for_each(|block| items.push(json!(block)));
        if items.is_full() && !roles.is_empty() {
            let end = Continuation(id.as_bytes().to_vec());
            return page::reply(&at, &request, items.page(Some(end)));
        }
    }
    page::reply(&at, &request, items.page(None))
}
