//! Who holds a directory role. There is one role: Global Administrator.

use arcadia_kernel::{At, Fault, Permit, Reply, Request, StatusCode};
use arcadia_store::{Batch, Row};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::actions::{RoleMembersRead, RoleMembersUpdate};
use crate::directory::Directory;
use crate::graph::Graph;
use crate::graph::body::{Body, Reader};
use crate::graph::faults::{bad_request, invalid_property, not_found, not_written};
use crate::model::{
    APPLICATIONS, AZURE_CLI_APP_ID, GLOBAL_ADMINISTRATOR, GLOBAL_ADMINISTRATOR_NAME, PRINCIPAL_APP_IDS,
    PRINCIPALS, PrincipalType, ROLES, RoleMember, ServicePrincipal, USERS,
};

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
    let row = RoleMember { role, principal };
    let key = (role, principal);
    let mut attempts = at.directory.store.attempts();
    loop {
        let mut batch = Batch::new();
        if !at.hold_member(&mut batch, principal).await? {
            return Err(not_found(&principal.to_string()));
        }
        if at.directory.store.get(ROLES, &key).await?.is_some() {
            return Err(bad_request(
                "A conflicting object with one or more of the specified property values is present in the \
                 directory.",
            ));
        }
        batch.require_absent(ROLES, &key);
        batch.put(ROLES, &key, &row)?;
        if attempts.commit(permit.stamp(), batch).await.map_err(not_written)?.is_some() {
            return Reply::json(StatusCode::CREATED, &shown(&row));
        }
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
    let mut attempts = at.directory.store.attempts();
    loop {
        let found = at.directory.store.get(ROLES, &key).await?.ok_or_else(|| not_found(text))?;
        at.directory.store.observers_told().await?;
        let mut batch = Batch::new();
        batch.require_revision(ROLES, &key, found.revision);
        batch.delete(ROLES, &key);
        at.directory.keep_administrator(&mut batch, row.principal).await?;
        if attempts.commit(permit.stamp(), batch).await.map_err(not_written)?.is_some() {
            return Ok(Reply::empty(StatusCode::NO_CONTENT));
        }
    }
}

impl Directory {
    /// Requires that somebody else can administer the directory when the batch is committed, if the one who leaves
    /// holds the role: also when nobody counts on them, as they may be enabled at the same time. Of two who remove or
    /// disable each other at once, one stays.
    ///
    /// Call it after the row that goes was read and [`arcadia_store::Store::observers_told`] returned.
    pub(crate) async fn keep_administrator(&self, batch: &mut Batch, leaving: Uuid) -> Result<(), Fault> {
        let others: Vec<_> = {
            let snapshot = self.snapshot();
            if snapshot.roles_of(leaving).next().is_none() {
                return Ok(());
            }
            snapshot.role_members().filter(|row| row.principal != leaving).collect()
        };
        for key in others.iter().map(|row| (row.role, row.principal)) {
            if let Some(row) = self.store.get(ROLES, &key).await?
                && self.require_able(batch, key.1).await?
            {
                batch.require_revision(ROLES, &key, row.revision);
                return Ok(());
            }
        }
        Err(bad_request(
            "The last Global Administrator cannot be removed, disabled or left without a credential. Assign the role \
             to another enabled user or service principal with a credential first (members of groups and managed \
             identities do not count), or add the new credential before the old one is removed (`az ad app \
             credential reset --append`).",
        ))
    }

    /// The same when an application or its service principal, `edited`, loses its last good credential. Either has
    /// its own and both are good to sign in with, so that nobody leaves while the other has one.
    ///
    /// Call it after the row of `edited` was read.
    pub(crate) async fn keep_credential(
        &self,
        batch: &mut Batch,
        app_id: Uuid,
        edited: Uuid,
    ) -> Result<(), Fault> {
        let Some(principal) = self.principal_row(app_id).await? else { return Ok(()) };
        self.store.observers_told().await?;
        // Also when an application is edited: whoever gives its principal the role at the same time writes this row.
        batch.require_revision(PRINCIPALS, &principal.value.id, principal.revision);
        if self.require_credential(batch, &principal.value, Some(edited)).await? {
            return Ok(());
        }
        self.keep_administrator(batch, principal.value.id).await
    }

    /// The service principal of an application.
    pub(crate) async fn principal_row(&self, app_id: Uuid) -> Result<Option<Row<ServicePrincipal>>, Fault> {
        match self.store.get(PRINCIPAL_APP_IDS, &app_id).await? {
            Some(reference) => Ok(self.store.get(PRINCIPALS, &reference.value.id).await?),
            None => Ok(None),
        }
    }

    /// Requires that a user or an application's service principal stays as it is, if it can sign in and administer.
    async fn require_able(&self, batch: &mut Batch, id: Uuid) -> Result<bool, Fault> {
        if let Some(row) = self.store.get(USERS, &id).await?
            && row.value.enabled
        {
            batch.require_revision(USERS, &id, row.revision);
            return Ok(true);
        }
        if let Some(row) = self.store.get(PRINCIPALS, &id).await?
            && row.value.enabled
            // The others come and go with their resource, or are a name that people sign in through.
            && row.value.kind == PrincipalType::Application
            && row.value.app_id != AZURE_CLI_APP_ID
            && self.require_credential(batch, &row.value, None).await?
        {
            batch.require_revision(PRINCIPALS, &id, row.revision);
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether a service principal has a good credential, besides those of `except`. When that is its application's,
    /// requires that the application stays as it is; the principal's own row is for the caller to require.
    async fn require_credential(
        &self,
        batch: &mut Batch,
        principal: &ServicePrincipal,
        except: Option<Uuid>,
    ) -> Result<bool, Fault> {
        let now = self.clock.epoch_seconds();
        if except != Some(principal.id) && principal.credentials.is_any_good(now) {
            return Ok(true);
        }
        let application = self.snapshot().application_of(principal.app_id).map(|application| application.id);
        let Some(id) = application.filter(|id| except != Some(*id)) else { return Ok(false) };
        match self.store.get(APPLICATIONS, &id).await? {
            Some(row) if row.value.credentials.is_any_good(now) => {
                batch.require_revision(APPLICATIONS, &id, row.revision);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
