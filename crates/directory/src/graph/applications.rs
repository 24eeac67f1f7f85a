//! Applications.

use arcadia_kernel::{Action, At, CallerKind, Fault, Permit, Reply, Request, StatusCode};
use arcadia_store::Batch;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::actions::{
    ApplicationCredentialsUpdate, ApplicationOwnersUpdate, ApplicationsCreate, ApplicationsDelete,
    ApplicationsRead, ApplicationsUpdate,
};
use crate::graph::body::{Body, Reader, merge, reference};
use crate::graph::credentials::{NewSecret, SentCredentials, with_secret, without_secret};
use crate::graph::faults::{bad_request, insufficient, invalid_property, taken};
use crate::graph::objects::{add_owner, plan_owners, remove_owner, typed_list};
use crate::graph::render::Shown as _;
use crate::graph::shape::{Members, Shape};
use crate::graph::table::BODY_BYTES_MAX;
use crate::graph::{Graph, new_id};
use crate::model::{
    APPLICATIONS, Application, Credentials, DELETED_APPLICATIONS, DeletedApplication, IDENTIFIER_URIS,
    OWNERS, OwnerLink, PRINCIPALS, Reference, fold,
};
use crate::names::is_display_name;

/// Properties that are kept as they are sent.
const DOCUMENT: Members = &[
    ("description", Shape::Text),
    ("groupMembershipClaims", Shape::Unapplied),
    ("isDeviceOnlyAuthSupported", Shape::Flag),
    ("isFallbackPublicClient", Shape::Flag),
    ("notes", Shape::Text),
    ("serviceManagementReference", Shape::Text),
    ("signInAudience", Shape::Text),
    ("tags", Shape::Texts),
    ("tokenEncryptionKeyId", Shape::Unapplied),
    ("defaultRedirectUri", Shape::Text),
    ("optionalClaims", Shape::Unapplied),
    ("addIns", Shape::List(&[])),
    (
        "api",
        Shape::Section(&[
            ("acceptMappedClaims", Shape::Flag),
            ("knownClientApplications", Shape::Texts),
            ("oauth2PermissionScopes", Shape::List(PERMISSION)),
            ("preAuthorizedApplications", Shape::List(&[])),
            ("requestedAccessTokenVersion", Shape::Version),
        ]),
    ),
    ("appRoles", Shape::List(PERMISSION)),
    ("info", Shape::Section(&[])),
    ("parentalControlSettings", Shape::Section(&[])),
    ("publicClient", Shape::Section(&[("redirectUris", Shape::Redirects)])),
    (
        "requiredResourceAccess",
        Shape::List(&[
            ("resourceAppId", Shape::Id),
            ("resourceAccess", Shape::List(&[("id", Shape::Id), ("type", Shape::Text)])),
        ]),
    ),
    (
        "web",
        Shape::Section(&[
            ("homePageUrl", Shape::Text),
            ("implicitGrantSettings", Shape::Section(&[])),
            ("logoutUrl", Shape::Text),
            ("redirectUris", Shape::Redirects),
        ]),
    ),
    ("spa", Shape::Section(&[("redirectUris", Shape::Redirects)])),
    ("uniqueName", Shape::Text),
    ("samlMetadataUrl", Shape::Text),
];
/// A delegated permission or a role of applications.
const PERMISSION: Members =
    &[("id", Shape::Id), ("displayName", Shape::Text), ("isEnabled", Shape::Flag), ("value", Shape::Text)];
const IDENTIFIER_URIS_MAX: usize = 50;
const IDENTIFIER_URI_CHARACTERS_MAX: usize = 255;

struct Sent {
    display_name: Option<String>,
    identifier_uris: Option<Vec<String>>,
    credentials: SentCredentials,
    document: Map<String, Value>,
}

impl Sent {
    fn read(at: &At<Graph>, mut reader: Reader) -> Result<Self, Fault> {
        let sent = Self {
            display_name: reader.text("displayName")?,
            identifier_uris: reader.texts("identifierUris")?,
            credentials: SentCredentials::read(&mut reader, &*at.directory.entropy)?,
            document: reader.document(DOCUMENT)?,
        };
        reader.finish()?;
        if sent.display_name.as_deref().is_some_and(|name| !is_display_name(name)) {
            return Err(invalid_property("displayName"));
        }
        let usable = |uri: &String| {
            let shape =
                uri.split_once(':').is_some_and(|(scheme, rest)| !scheme.is_empty() && rest.len() > 1);
            shape && uri.len() <= IDENTIFIER_URI_CHARACTERS_MAX && !uri.contains(char::is_whitespace)
        };
        if let Some(uris) = &sent.identifier_uris
            && (uris.len() > IDENTIFIER_URIS_MAX || !uris.iter().all(usable))
        {
            return Err(invalid_property("identifierUris"));
        }
        let names = at.directory.names();
        if let Some(uri) = sent.identifier_uris.iter().flatten().find(|uri| names.is_platform(uri)) {
            let message = format!(
                "The identifier URI '{uri}' belongs to the platform. Use one such as 'api://NAME', or one of a \
                 domain of your own."
            );
            return Err(bad_request(message));
        }
        Ok(sent)
    }
}

/// Keeps identifier URIs unique: rows for the new ones, none for those that went.
fn plan_uris(
    at: &At<Graph>,
    batch: &mut Batch,
    id: Uuid,
    before: &[String],
    after: &[String],
) -> Result<(), Fault> {
    let folded =
        |uris: &[String]| uris.iter().map(|uri| fold(uri)).collect::<std::collections::BTreeSet<_>>();
    let (before, after) = (folded(before), folded(after));
    for uri in after.difference(&before) {
        if at.directory.snapshot().application_with_uri(uri).is_some() {
            return Err(taken("identifierUris"));
        }
        batch.require_absent(IDENTIFIER_URIS, uri.as_str());
        batch.put(IDENTIFIER_URIS, uri.as_str(), &Reference { id })?;
    }
    for uri in before.difference(&after) {
        batch.delete(IDENTIFIER_URIS, uri.as_str());
    }
    Ok(())
}

pub(super) async fn list(
    at: At<Graph>,
    _: Permit<ApplicationsRead>,
    request: Request,
) -> Result<Reply, Fault> {
    let snapshot = at.directory.snapshot();
    at.list(&request, snapshot.applications.values().cloned())
}

pub(super) async fn show(
    at: At<Graph>,
    _: Permit<ApplicationsRead>,
    request: Request,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let found = at.directory.snapshot().applications.get(&id).cloned();
    let application = found.ok_or_else(|| at.target.not_found())?;
    at.one(&request, "applications", application.show())
}

pub(super) async fn create(
    at: At<Graph>,
    permit: Permit<ApplicationsCreate>,
    body: Body,
) -> Result<Reply, Fault> {
    let now = permit.epoch_seconds();
    let mut reader = Reader::new(body.fields);
    let owners = reader.references("owners")?;
    if !owners.is_empty() {
        let scope = permit.scope().clone();
        permit.also::<ApplicationOwnersUpdate>(&scope).map_err(|denial| insufficient(&denial))?;
    }
    let sent = Sent::read(&at, reader)?;
    let display_name = sent.display_name.ok_or_else(|| {
        bad_request("A value is required for property 'displayName' of resource 'Application'.")
    })?;
    let application = Application {
        id: new_id(&at),
        app_id: new_id(&at),
        display_name,
        created_seconds: now,
        identifier_uris: sent.identifier_uris.unwrap_or_default(),
        document: sent.document,
        credentials: sent.credentials.apply(&Credentials::default())?,
    };
    let mut change = at.change(&permit);
    loop {
        let mut batch = Batch::new();
        batch.require_absent(APPLICATIONS, &application.id);
        batch.put(APPLICATIONS, &application.id, &application)?;
        plan_uris(&at, &mut batch, application.id, &[], &application.identifier_uris)?;
        if permit.caller().kind == CallerKind::User {
            let row = OwnerLink { object: application.id, owner: permit.caller().object_id };
            batch.put(OWNERS, &(row.object, row.owner), &row)?;
        }
        plan_owners(&at, &mut batch, application.id, &owners).await?;
        if change.commit(batch).await? {
            return at.created(&body.head, &application);
        }
    }
}

pub(super) async fn update(
    at: At<Graph>,
    permit: Permit<ApplicationsUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let sent = Sent::read(&at, Reader::new(body.fields))?;
    if !sent.credentials.is_empty() {
        let scope = permit.scope().clone();
        permit.also::<ApplicationCredentialsUpdate>(&scope).map_err(|denial| insufficient(&denial))?;
    }
    at.edit(&permit, APPLICATIONS, id, |application, batch| {
        let mut application = application.clone();
        application.credentials = sent.credentials.apply(&application.credentials)?;
        if let Some(uris) = &sent.identifier_uris {
            plan_uris(&at, batch, id, &application.identifier_uris, uris)?;
            application.identifier_uris = uris.clone();
        }
        application.display_name = sent.display_name.clone().unwrap_or(application.display_name);
        merge(&mut application.document, &sent.document);
        check_size(&application.document)?;
        Ok(application)
    })
    .await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// What is kept of an application is no longer than what one request may send, however many requests add to it.
fn check_size(document: &Map<String, Value>) -> Result<(), Fault> {
    let bytes = serde_json::to_vec(document).map_err(Fault::internal)?.len();
    if bytes <= BODY_BYTES_MAX {
        return Ok(());
    }
    Err(bad_request(format!("The properties of an application can have at most {BODY_BYTES_MAX} bytes.")))
}

/// Moves the application to the deleted ones and removes its service principal with it.
pub(super) async fn delete(
    at: At<Graph>,
    permit: Permit<ApplicationsDelete>,
    _: Request,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let now = permit.epoch_seconds();
    let store = &at.directory.store;
    let mut change = at.change(&permit);
    loop {
        let row = store.get(APPLICATIONS, &id).await?.ok_or_else(|| at.target.not_found())?;
        let application = row.value;
        let mut batch = Batch::new();
        batch.require_revision(APPLICATIONS, &id, row.revision);
        batch.delete(APPLICATIONS, &id);
        for uri in &application.identifier_uris {
            batch.delete(IDENTIFIER_URIS, fold(uri).as_str());
        }
        let principal = at.directory.principal_row(application.app_id).await?;
        store.observers_told().await?;
        if let Some(row) = &principal {
            at.directory.keep_administrator(&mut batch, row.value.id).await?;
            batch.require_revision(PRINCIPALS, &row.value.id, row.revision);
            at.directory.plan_remove_principal(&mut batch, &row.value);
        }
        at.directory.plan_remove_links(&mut batch, id);
        let principal = principal.map(|row| row.value);
        let deleted = DeletedApplication { application, principal, deleted_seconds: now };
        batch.put(DELETED_APPLICATIONS, &id, &deleted)?;
        if change.commit(batch).await? {
            return Ok(Reply::empty(StatusCode::NO_CONTENT));
        }
    }
}

pub(super) async fn add_password(
    at: At<Graph>,
    permit: Permit<ApplicationCredentialsUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let new = NewSecret::read(Reader::new(body.fields), permit.epoch_seconds(), permit.entropy())?;
    edit_credentials(&at, &permit, id, |credentials| with_secret(credentials, &new.credential)).await?;
    at.secret(&body.head, &new)
}

pub(super) async fn remove_password(
    at: At<Graph>,
    permit: Permit<ApplicationCredentialsUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let key_id = read_key_id(body)?;
    edit_credentials(&at, &permit, id, |credentials| without_secret(credentials, key_id)).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

pub(super) fn read_key_id(body: Body) -> Result<Uuid, Fault> {
    let mut reader = Reader::new(body.fields);
    let key_id = reader.uuid("keyId")?.ok_or_else(|| invalid_property("keyId"))?;
    reader.finish()?;
    Ok(key_id)
}

async fn edit_credentials<A: Action>(
    at: &At<Graph>,
    permit: &Permit<A>,
    id: Uuid,
    edit: impl Fn(&Credentials) -> Result<Credentials, Fault>,
) -> Result<(), Fault> {
    at.edit(permit, APPLICATIONS, id, |application, _| {
        Ok(Application { credentials: edit(&application.credentials)?, ..application.clone() })
    })
    .await?;
    Ok(())
}

impl Graph {
    pub(super) fn secret(&self, head: &arcadia_kernel::RequestHead, new: &NewSecret) -> Result<Reply, Fault> {
        let mut body = self.entity(head, "", new.show());
        let context = format!(
            "https://{}/{}/$metadata#microsoft.graph.passwordCredential",
            self.directory.names().graph_host,
            head.param("api")
        );
        body["@odata.context"] = context.into();
        Reply::ok(&body)
    }
}

pub(super) async fn owners(
    at: At<Graph>,
    _: Permit<ApplicationsRead>,
    request: Request,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let owners = at.directory.snapshot().owners_of(id).collect();
    at.mixed(&request, typed_list(&at, owners))
}

pub(super) async fn owner_add(
    at: At<Graph>,
    permit: Permit<ApplicationOwnersUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let owner = reference(&body.fields)?;
    add_owner(&at, &permit, APPLICATIONS, at.target.id()?, owner).await
}

pub(super) async fn owner_remove(
    at: At<Graph>,
    permit: Permit<ApplicationOwnersUpdate>,
    request: Request,
) -> Result<Reply, Fault> {
    remove_owner(&at, &permit, at.target.id()?, request.param("other")).await
}
