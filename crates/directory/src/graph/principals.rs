//! Service principals: what applications and managed identities are in this tenant.

use arcadia_kernel::{At, CallerKind, Fault, Permit, Reply, Request, StatusCode};
use arcadia_store::Batch;
use serde_json::{Map, Value};

use crate::actions::{
    PrincipalCredentialsUpdate, PrincipalOwnersUpdate, PrincipalsCreate, PrincipalsDelete, PrincipalsRead,
    PrincipalsUpdate,
};
use crate::graph::applications::read_key_id;
use crate::graph::body::{Body, Reader, reference};
use crate::graph::credentials::{NewSecret, SentCredentials, with_secret, without_secret};
use crate::graph::faults::{bad_request, insufficient, invalid_property};
use crate::graph::objects::{add_owner, plan_owners, remove_owner, typed_list};
use crate::graph::render::{PrincipalView, Shown as _};
use crate::graph::shape::{Members, Shape};
use crate::graph::{Graph, new_id};
use crate::login::faults::shown;
use crate::model::{
    APPLICATIONS, AZURE_CLI_APP_ID, Credentials, OWNERS, OwnerLink, PRINCIPAL_APP_IDS, PRINCIPALS,
    PrincipalType, Reference, ServicePrincipal,
};

/// Properties that are kept as they are sent.
const DOCUMENT: Members = &[
    ("appRoleAssignmentRequired", Shape::Flag),
    ("description", Shape::Text),
    ("homepage", Shape::Text),
    ("loginUrl", Shape::Text),
    ("logoutUrl", Shape::Text),
    ("notes", Shape::Text),
    ("notificationEmailAddresses", Shape::Texts),
    ("preferredSingleSignOnMode", Shape::Text),
    ("tags", Shape::Texts),
    ("tokenEncryptionKeyId", Shape::Unapplied),
];

pub(super) async fn list(at: At<Graph>, _: Permit<PrincipalsRead>, request: Request) -> Result<Reply, Fault> {
    let snapshot = at.directory.snapshot();
    at.list(&request, snapshot.principals.values().map(|principal| PrincipalView::of(&snapshot, principal)))
}

pub(super) async fn show(at: At<Graph>, _: Permit<PrincipalsRead>, request: Request) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let view = {
        let snapshot = at.directory.snapshot();
        snapshot.principals.get(&id).map(|principal| PrincipalView::of(&snapshot, principal))
    };
    at.one(&request, "servicePrincipals", view.ok_or_else(|| at.target.not_found())?.show())
}

fn document(reader: &mut Reader) -> Result<Map<String, Value>, Fault> {
    let document = reader.document(DOCUMENT)?;
    // Null would switch the requirement off without saying so.
    match document.get("appRoleAssignmentRequired") {
        Some(Value::Null) => Err(invalid_property("appRoleAssignmentRequired")),
        _ => Ok(document),
    }
}

pub(super) async fn create(
    at: At<Graph>,
    permit: Permit<PrincipalsCreate>,
    body: Body,
) -> Result<Reply, Fault> {
    let mut reader = Reader::new(body.fields);
    let app_id = reader.required_text("appId")?;
    let enabled = reader.flag("accountEnabled")?.unwrap_or(true);
    // The name is the application's; clients send it again.
    reader.text("displayName")?;
    let owners = reader.references("owners")?;
    let document = document(&mut reader)?;
    reader.finish()?;
    if !owners.is_empty() {
        let scope = permit.scope().clone();
        permit.also::<PrincipalOwnersUpdate>(&scope).map_err(|denial| insufficient(&denial))?;
    }
    let missing = || {
        let message = format!(
            "When using this permission, the backing application of the service principal being created must in \
             the local tenant. The appId '{}' is not known here.",
            shown(&app_id)
        );
        Fault::bad_request("Request_BadRequest", message)
    };
    let parsed = uuid::Uuid::try_parse(&app_id).map_err(|_| invalid_property("appId"))?;
    let application = at.directory.snapshot().application_of(parsed).cloned().ok_or_else(missing)?;
    let in_use = || {
        let message = format!(
            "The service principal cannot be created, updated, or restored because the service principal name \
             {parsed} is already in use."
        );
        Fault::conflict("Request_MultipleObjectsWithSameKeyValue", message)
    };
    let principal = ServicePrincipal {
        id: new_id(&at),
        app_id: parsed,
        display_name: application.display_name.clone(),
        kind: PrincipalType::Application,
        enabled,
        resource_id: None,
        created_seconds: permit.epoch_seconds(),
        document,
        credentials: Credentials::default(),
    };
    let mut change = at.change(&permit);
    loop {
        let mut batch = Batch::new();
        if !at.hold(&mut batch, APPLICATIONS, application.id).await? {
            return Err(missing());
        }
        if at.directory.store.get(PRINCIPAL_APP_IDS, &parsed).await?.is_some() {
            return Err(in_use());
        }
        batch.require_absent(PRINCIPAL_APP_IDS, &parsed);
        batch.put(PRINCIPAL_APP_IDS, &parsed, &Reference { id: principal.id })?;
        batch.put(PRINCIPALS, &principal.id, &principal)?;
        if permit.caller().kind == CallerKind::User {
            let link = OwnerLink { object: principal.id, owner: permit.caller().object_id };
            batch.put(OWNERS, &(link.object, link.owner), &link)?;
        }
        plan_owners(&at, &mut batch, principal.id, &owners).await?;
        if change.commit(batch).await? {
            let view = PrincipalView::of(&at.directory.snapshot(), &principal.into());
            return at.created(&body.head, &view);
        }
    }
}

/// Refuses changes that would cut a principal off from what it belongs to.
fn check_own(principal: &ServicePrincipal) -> Result<(), Fault> {
    if principal.kind == PrincipalType::ManagedIdentity {
        return Err(bad_request(
            "A managed identity is changed and deleted only through the resource it belongs to.",
        ));
    }
    if principal.app_id == AZURE_CLI_APP_ID {
        return Err(bad_request("The command line's own client cannot be changed in this way."));
    }
    Ok(())
}

pub(super) async fn update(
    at: At<Graph>,
    permit: Permit<PrincipalsUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let mut reader = Reader::new(body.fields);
    let enabled = reader.flag("accountEnabled")?;
    let credentials = SentCredentials::read(&mut reader, permit.entropy())?;
    let document = document(&mut reader)?;
    reader.finish()?;
    if !credentials.is_empty() {
        let scope = permit.scope().clone();
        permit.also::<PrincipalCredentialsUpdate>(&scope).map_err(|denial| insufficient(&denial))?;
    }
    at.edit(&permit, PRINCIPALS, id, |principal, _| {
        // Any principal may be switched off.
        if !credentials.is_empty() || !document.is_empty() {
            check_own(principal)?;
        }
        let mut principal = principal.clone();
        principal.credentials = credentials.apply(&principal.credentials)?;
        principal.enabled = enabled.unwrap_or(principal.enabled);
        principal.document.extend(document.clone());
        Ok(principal)
    })
    .await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn delete(
    at: At<Graph>,
    permit: Permit<PrincipalsDelete>,
    _: Request,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    at.remove(&permit, PRINCIPALS, id, |principal, batch| {
        check_own(principal)?;
        at.directory.plan_remove_principal(batch, principal);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn add_password(
    at: At<Graph>,
    permit: Permit<PrincipalCredentialsUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let new = NewSecret::read(Reader::new(body.fields), permit.epoch_seconds(), permit.entropy())?;
    at.edit(&permit, PRINCIPALS, id, |principal, _| {
        check_own(principal)?;
        let credentials = with_secret(&principal.credentials, &new.credential)?;
        Ok(ServicePrincipal { credentials, ..principal.clone() })
    })
    .await?;
    at.secret(&body.head, &new)
}

pub(super) async fn remove_password(
    at: At<Graph>,
    permit: Permit<PrincipalCredentialsUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let key_id = read_key_id(body)?;
    at.edit(&permit, PRINCIPALS, id, |principal, _| {
        let credentials = without_secret(&principal.credentials, key_id)?;
        Ok(ServicePrincipal { credentials, ..principal.clone() })
    })
    .await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn owners(
    at: At<Graph>,
    _: Permit<PrincipalsRead>,
    request: Request,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let owners = at.directory.snapshot().owners_of(id).collect();
    at.mixed(&request, typed_list(&at, owners))
}

pub(super) async fn owner_add(
    at: At<Graph>,
    permit: Permit<PrincipalOwnersUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let owner = reference(&body.fields)?;
    add_owner(&at, &permit, PRINCIPALS, at.target.id()?, owner).await
}

pub(super) async fn owner_remove(
    at: At<Graph>,
    permit: Permit<PrincipalOwnersUpdate>,
    request: Request,
) -> Result<Reply, Fault> {
    remove_owner(&at, &permit, at.target.id()?, request.param("other")).await
}
