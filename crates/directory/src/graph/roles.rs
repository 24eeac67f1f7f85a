//! Who holds a directory role. There is one role: Global Administrator.

use arcadia_kernel::{At, Fault, Permit, Reply, Request, StatusCode};
use arcadia_store::Batch;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::actions::{RoleMembersRead, RoleMembersUpdate};
use crate::directory::Committed;
use crate::graph::Graph;
use crate::graph::body::{Body, Reader};
use crate::graph::faults::{bad_request, invalid_property, not_found};
use crate::model::{GLOBAL_ADMINISTRATOR, GLOBAL_ADMINISTRATOR_NAME, ROLES, RoleMember};

/// An assignment's id is made of its two parts, so that the same one cannot exist twice.
fn assignment_id(row: &RoleMember) -> String {
    let mut bytes = row.role.as_bytes().to_vec();
    bytes.extend_from_slice(row.principal.as_bytes());
    arcadia_crypto::b64url(&bytes)
}

fn parse_id(text: &str) -> Option<RoleMember> {
    let bytes = arcadia_crypto::b64url_decode(text)?;
    let (role, principal) = bytes.split_at_checked(16)?;
    Some(RoleMember { role: Uuid::from_slice(role).ok()?, principal: Uuid::from_slice(principal).ok()? })
}

fn shown(row: &RoleMember) -> Value {
    json!({
        "id": assignment_id(row),
        "roleDefinitionId": row.role,
        "principalId": row.principal,
        "directoryScopeId": "/",
    })
}

pub(super) async fn definitions(
    at: At<Graph>,
    _: Permit<RoleMembersRead>,
    request: Request,
) -> Result<Reply, Fault> {
    let role = json!({
        "id": GLOBAL_ADMINISTRATOR,
        "templateId": GLOBAL_ADMINISTRATOR,
        "displayName": GLOBAL_ADMINISTRATOR_NAME,
        "description": "Can manage all aspects of the directory.",
        "isBuiltIn": true,
        "isEnabled": true,
    });
    at.values(&request, "roleManagement/directory/roleDefinitions", vec![role])
}

pub(super) async fn list(
    at: At<Graph>,
    _: Permit<RoleMembersRead>,
    request: Request,
) -> Result<Reply, Fault> {
    let rows = at.directory.snapshot().role_members().map(|row| shown(&row)).collect();
    at.values(&request, "roleManagement/directory/roleAssignments", rows)
}

pub(super) async fn add(
    at: At<Graph>,
    permit: Permit<RoleMembersUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let mut reader = Reader::new(body.fields);
    let role = reader.uuid("roleDefinitionId")?.ok_or_else(|| invalid_property("roleDefinitionId"))?;
    let principal = reader.uuid("principalId")?.ok_or_else(|| invalid_property("principalId"))?;
    let scope = reader.text("directoryScopeId")?;
    reader.finish()?;
    if role != GLOBAL_ADMINISTRATOR {
        return Err(not_found(&role.to_string()));
    }
    if scope.is_some_and(|scope| scope != "/") {
        return Err(bad_request("Directory roles are assigned for the whole directory: use '/'."));
    }
    let exists = {
        let snapshot = at.directory.snapshot();
        snapshot.users.contains_key(&principal)
            || snapshot.groups.contains_key(&principal)
            || snapshot.principals.contains_key(&principal)
    };
    if !exists {
        return Err(not_found(&principal.to_string()));
    }
    let row = RoleMember { role, principal };
    let mut batch = Batch::new();
    batch.require_absent(ROLES, &(role, principal));
    batch.put(ROLES, &(role, principal), &row)?;
    match at.directory.commit(permit.stamp(), batch).await? {
        Committed::Written => Reply::json(StatusCode::CREATED, &shown(&row)),
        Committed::LostRace => Err(bad_request(
            "A conflicting object with one or more of the specified \
                                                property values is present in the directory.",
        )),
    }
}

pub(super) async fn remove(
    at: At<Graph>,
    permit: Permit<RoleMembersUpdate>,
    request: Request,
) -> Result<Reply, Fault> {
    let text = request.param("assignment");
    let row = parse_id(text).ok_or_else(|| not_found(text))?;
    let key = (row.role, row.principal);
    let found = at.directory.store.get(ROLES, &key).await?.ok_or_else(|| not_found(text))?;
    if at.directory.snapshot().role_members().count() <= 1 {
        return Err(bad_request("The last Global Administrator cannot be removed."));
    }
    let mut batch = Batch::new();
    batch.require_revision(ROLES, &key, found.revision);
    batch.delete(ROLES, &key);
    match at.directory.commit(permit.stamp(), batch).await? {
        Committed::Written => Ok(Reply::empty(StatusCode::NO_CONTENT)),
        Committed::LostRace => Err(not_found(text)),
    }
}
