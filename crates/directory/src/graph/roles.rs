//! Who holds a directory role. There is one role: Global Administrator.

use arcadia_kernel::{At, Fault, Permit, Reply, Request, StatusCode};
use arcadia_store::{Batch, Row};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::actions::{RoleMembersRead, RoleMembersUpdate};
use crate::directory::Directory;
use crate::graph::Graph;
use crate::graph::body::{Body, Reader};
use crate::graph::faults::{bad_request, invalid_property, not_found};
use crate::graph::odata::{Field, Fields, Kind, Queried};
use crate::graph::render::{Shown, object};
use crate::model::{
    APPLICATIONS, AZURE_CLI_APP_ID, Credentials, GLOBAL_ADMINISTRATOR, GLOBAL_ADMINISTRATOR_NAME,
    PRINCIPAL_APP_IDS, PRINCIPALS, PrincipalType, ROLES, RoleMember, ServicePrincipal, USERS,
};

/// How long the credential of an administrator who stays is good at least.
const STAYS_SECONDS: i64 = 24 * 60 * 60;

/// Where every assignment holds.
const WHOLE_DIRECTORY: &str = "/";

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

/// There is one role, so that its holders are all that tells assignments apart.
impl Shown for RoleMember {
    const SET: &'static str = "roleManagement/directory/roleAssignments";

    fn id(&self) -> Uuid {
        self.principal
    }

    fn show(&self) -> Map<String, Value> {
        object(json!({
            "id": assignment_id(self),
            "roleDefinitionId": self.role,
            "principalId": self.principal,
            "directoryScopeId": WHOLE_DIRECTORY,
        }))
    }
}

impl Queried for RoleMember {
    const FIELDS: Fields = &[
        ("id", Kind::Text),
        ("principalId", Kind::Text),
        ("roleDefinitionId", Kind::Text),
        ("directoryScopeId", Kind::Text),
    ];

    fn field(&self, name: &str) -> Field<'_> {
        match name {
            "id" => Field::Text(assignment_id(self).into()),
            "principalId" => Field::Text(self.principal.to_string().into()),
            "roleDefinitionId" => Field::Text(self.role.to_string().into()),
            _ => Field::Text(WHOLE_DIRECTORY.into()),
        }
    }
}

struct GlobalAdministrator;

impl Shown for GlobalAdministrator {
    const SET: &'static str = "roleManagement/directory/roleDefinitions";

    fn id(&self) -> Uuid {
        GLOBAL_ADMINISTRATOR
    }

    fn show(&self) -> Map<String, Value> {
        object(json!({
            "id": GLOBAL_ADMINISTRATOR,
            "templateId": GLOBAL_ADMINISTRATOR,
            "displayName": GLOBAL_ADMINISTRATOR_NAME,
            "description": "Can manage all aspects of the directory.",
            "isBuiltIn": true,
            "isEnabled": true,
        }))
    }
}

impl Queried for GlobalAdministrator {
    const FIELDS: Fields = &[
        ("id", Kind::Text),
        ("templateId", Kind::Text),
        ("displayName", Kind::Text),
        ("isBuiltIn", Kind::Flag),
        ("isEnabled", Kind::Flag),
    ];

    fn field(&self, name: &str) -> Field<'_> {
        match name {
            "id" | "templateId" => Field::Text(GLOBAL_ADMINISTRATOR.to_string().into()),
            "displayName" => Field::Text(GLOBAL_ADMINISTRATOR_NAME.into()),
            _ => Field::Flag(true),
        }
    }
}

pub(super) async fn definitions(
    at: At<Graph>,
    _: Permit<RoleMembersRead>,
    request: Request,
) -> Result<Reply, Fault> {
    at.list(&request, std::iter::once(GlobalAdministrator))
}

pub(super) async fn list(
    at: At<Graph>,
    _: Permit<RoleMembersRead>,
    request: Request,
) -> Result<Reply, Fault> {
    let mut rows: Vec<RoleMember> = at.directory.snapshot().role_members().collect();
    rows.sort_by_key(Shown::id);
    at.list(&request, rows.into_iter())
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
    if scope.is_some_and(|scope| scope != WHOLE_DIRECTORY) {
        return Err(bad_request("Directory roles are assigned for the whole directory: use '/'."));
    }
    let row = RoleMember { role, principal };
    let key = (role, principal);
    let mut change = at.change(&permit);
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
        if change.commit(batch).await? {
            return Reply::json(StatusCode::CREATED, &row.show());
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
    let mut change = at.change(&permit);
    loop {
        let found = at.directory.store.get(ROLES, &key).await?.ok_or_else(|| not_found(text))?;
        at.directory.store.observers_told().await?;
        let mut batch = Batch::new();
        batch.require_revision(ROLES, &key, found.revision);
        batch.delete(ROLES, &key);
        at.directory.keep_administrator(&mut batch, row.principal).await?;
        if change.commit(batch).await? {
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
        if self.snapshot().roles_of(leaving).next().is_none() {
            return Ok(());
        }
        let door = self.principal_row(AZURE_CLI_APP_ID).await?;
        if self.require_other(batch, leaving, door.as_ref()).await? {
            return Ok(());
        }
        Err(bad_request(
            "The last Global Administrator cannot be removed, disabled or left without a credential that is good for a \
             day. Assign the role to another enabled user or service principal with a credential first (members of \
             groups and managed identities do not count, nor do users while the service principal of the Azure CLI is \
             disabled), or add the new credential before the old one is removed (`az ad app credential reset --append`).",
        ))
    }

    /// The same when `disabled` can no longer sign in, nor people through it.
    pub(crate) async fn keep_sign_in(&self, batch: &mut Batch, disabled: Uuid) -> Result<(), Fault> {
        let door = self.principal_row(AZURE_CLI_APP_ID).await?;
        if door.is_none_or(|door| door.value.id != disabled) {
            return self.keep_administrator(batch, disabled).await;
        }
        if self.require_other(batch, disabled, None).await? {
            return Ok(());
        }
        Err(bad_request(
            "The service principal of the Azure CLI cannot be disabled while every Global Administrator is a user: \
             users administer the directory through it alone. Assign the role to an enabled service principal with \
             a credential first.",
        ))
    }

    /// The same when of an application or its service principal, `edited`, the last credential goes that is good for
    /// long enough. Either has its own, and both are good to sign in with: nobody leaves while the other has one.
    ///
    /// Call it after the row of `edited` was read.
    pub(crate) async fn keep_credential(
        &self,
        batch: &mut Batch,
        app_id: Uuid,
        edited: Uuid,
        before: &Credentials,
        after: &Credentials,
    ) -> Result<(), Fault> {
        let now = self.clock.epoch_seconds();
        // One that would end before anybody makes another is none; no more is asked of it than was there.
        let Some(until) = before.good_until(now).map(|end| end.min(now + STAYS_SECONDS)) else {
            return Ok(());
        };
        if after.good_until(now) >= Some(until) {
            return Ok(());
        }
        let Some(principal) = self.principal_row(app_id).await? else { return Ok(()) };
        self.store.observers_told().await?;
        // Also when an application is edited: whoever gives its principal the role at the same time writes this row.
        batch.require_revision(PRINCIPALS, &principal.value.id, principal.revision);
        if self.require_credential(batch, &principal.value, Some(edited), until).await? {
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

    /// Requires that one who holds the role besides `leaving` can sign in, people through `door`. `false`: nobody can.
    async fn require_other(
        &self,
        batch: &mut Batch,
        leaving: Uuid,
        door: Option<&Row<ServicePrincipal>>,
    ) -> Result<bool, Fault> {
        let mut others: Vec<_> = self.snapshot().role_members().collect();
        others.retain(|row| row.principal != leaving);
        for key in others.iter().map(|row| (row.role, row.principal)) {
            if let Some(row) = self.store.get(ROLES, &key).await?
                && self.require_able(batch, key.1, door).await?
            {
                batch.require_revision(ROLES, &key, row.revision);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Requires that a user or an application's service principal stays as it is, if it can sign in and administer.
    /// Only through the command line's client, `door`, a user is given the right to.
    async fn require_able(
        &self,
        batch: &mut Batch,
        id: Uuid,
        door: Option<&Row<ServicePrincipal>>,
    ) -> Result<bool, Fault> {
        if let Some(row) = self.store.get(USERS, &id).await?
            && row.value.enabled
            && let Some(door) = door.filter(|door| door.value.enabled)
        {
            batch.require_revision(USERS, &id, row.revision);
            batch.require_revision(PRINCIPALS, &door.value.id, door.revision);
            return Ok(true);
        }
        let now = self.clock.epoch_seconds();
        if let Some(row) = self.store.get(PRINCIPALS, &id).await?
            && row.value.enabled
            // The others come and go with their resource, or are a name that people sign in through.
            && row.value.kind == PrincipalType::Application
            && row.value.app_id != AZURE_CLI_APP_ID
            && self.require_credential(batch, &row.value, None, now + STAYS_SECONDS).await?
        {
            batch.require_revision(PRINCIPALS, &id, row.revision);
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether a service principal has a credential that is good now and until that time, besides those of `except`.
    /// When that is its application's, requires that the application stays as it is; the principal's own row is for the
    /// caller to require.
    async fn require_credential(
        &self,
        batch: &mut Batch,
        principal: &ServicePrincipal,
        except: Option<Uuid>,
        until: i64,
    ) -> Result<bool, Fault> {
        let now = self.clock.epoch_seconds();
        let is_good = |credentials: &Credentials| credentials.good_until(now) >= Some(until);
        if except != Some(principal.id) && is_good(&principal.credentials) {
            return Ok(true);
        }
        let application = self.snapshot().application_of(principal.app_id).map(|application| application.id);
        let Some(id) = application.filter(|id| except != Some(*id)) else { return Ok(false) };
        match self.store.get(APPLICATIONS, &id).await? {
            Some(row) if is_good(&row.value.credentials) => {
                batch.require_revision(APPLICATIONS, &id, row.revision);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
