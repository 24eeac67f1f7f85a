//! The directory on the wire: the part of Microsoft Graph that Azure's clients call.

mod applications;
mod body;
mod change;
mod credentials;
mod deleted;
mod faults;
#[cfg(test)]
mod fuzz;
mod groups;
mod keyed;
mod list;
mod me;
mod objects;
mod odata;
mod principals;
mod render;
mod roles;
mod shape;
mod table;
mod users;

use std::borrow::Cow;
use std::sync::Arc;

use arcadia_kernel::{
    Action, ArmId, AuthFailure, Caller, Denial, EntropyExt as _, Fault, HeaderName, HeaderValue, Located,
    OpInfo, Permit, Reply, RequestHead, Service, StatusCode, TokenFault, header,
};
use arcadia_store::{Batch, Record, Table};
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub use table::graph_ops;

use crate::directory::Directory;
use crate::login::client_request_id;
use crate::model::{
    Application, Credentials, GRAPH_APP_ID, GROUPS, Group, PRINCIPALS, ServicePrincipal, USERS, User,
};

/// The service that shows and changes a [`Directory`].
pub struct Graph {
    pub(crate) directory: Arc<Directory>,
}

impl Graph {
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }

    /// Reads, edits and writes one row; starts over when another request came between. `edit` may add more to
    /// the batch. 400 when it keeps the last who administers the directory from signing in.
    pub(crate) async fn edit<A: Action, V: Edited>(
        &self,
        permit: &Permit<A>,
        table: Table<Uuid, V>,
        id: Uuid,
        mut edit: impl FnMut(&V, &mut Batch) -> Result<V, Fault>,
    ) -> Result<V, Fault> {
        let mut change = self.change(permit);
        loop {
            let row = self.directory.store.get(table, &id).await?;
            let row = row.ok_or_else(|| faults::not_found(&id.to_string()))?;
            let mut batch = Batch::new();
            batch.require_revision(table, &id, row.revision);
            let edited = edit(&row.value, &mut batch)?;
            if row.value.is_enabled() && !edited.is_enabled() {
                self.directory.store.observers_told().await?;
                self.directory.keep_sign_in(&mut batch, id).await?;
            }
            if let Some((app_id, before)) = row.value.credentials()
                && let Some((_, after)) = edited.credentials()
            {
                self.directory.keep_credential(&mut batch, app_id, id, before, after).await?;
            }
            batch.put(table, &id, &edited)?;
            if change.commit(batch).await? {
                return Ok(edited);
            }
        }
    }

    /// Requires that an object is still as it is when the batch is committed, and writes it so, for a deletion at the same
    /// time to see what is written about it, or fail. `false`: there is no such object.
    pub(crate) async fn hold<V: Record>(
        &self,
        batch: &mut Batch,
        table: Table<Uuid, V>,
        id: Uuid,
    ) -> Result<bool, Fault> {
        let Some(row) = self.directory.store.get(table, &id).await? else { return Ok(false) };
        batch.require_revision(table, &id, row.revision);
        batch.put(table, &id, &row.value)?;
        Ok(true)
    }

    /// The same for whoever can be a member or have a role: a user, a group or a service principal.
    pub(crate) async fn hold_member(&self, batch: &mut Batch, id: Uuid) -> Result<bool, Fault> {
        Ok(self.hold(batch, USERS, id).await?
            || self.hold(batch, GROUPS, id).await?
            || self.hold(batch, PRINCIPALS, id).await?)
    }

    /// The same for whoever can own an object: a user or a service principal.
    pub(crate) async fn hold_owner(&self, batch: &mut Batch, id: Uuid) -> Result<bool, Fault> {
        Ok(self.hold(batch, USERS, id).await? || self.hold(batch, PRINCIPALS, id).await?)
    }

    /// Reads and removes one row with what `plan` adds. 404 when it is gone, 400 when nobody would be left who
    /// administers the directory.
    pub(crate) async fn remove<A: Action, V: Record>(
        &self,
        permit: &Permit<A>,
        table: Table<Uuid, V>,
        id: Uuid,
        mut plan: impl FnMut(&V, &mut Batch) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut change = self.change(permit);
        loop {
            let row = self.directory.store.get(table, &id).await?;
            let row = row.ok_or_else(|| faults::not_found(&id.to_string()))?;
            self.directory.store.observers_told().await?;
            let mut batch = Batch::new();
            batch.require_revision(table, &id, row.revision);
            batch.delete(table, &id);
            self.directory.keep_administrator(&mut batch, id).await?;
            plan(&row.value, &mut batch)?;
            if change.commit(batch).await? {
                return Ok(());
            }
        }
    }
}

/// An object that requests change.
pub(crate) trait Edited: Record {
    /// Whether it may sign in, if it is of those who can.
    fn is_enabled(&self) -> bool {
        true
    }

    /// What the service principal of an application signs in with, and which application's, if it is kept here.
    fn credentials(&self) -> Option<(Uuid, &Credentials)> {
        None
    }
}

impl Edited for User {
    fn is_enabled(&self) -> bool {
        self.enabled
    }
}

impl Edited for ServicePrincipal {
    fn is_enabled(&self) -> bool {
        self.enabled
    }

    fn credentials(&self) -> Option<(Uuid, &Credentials)> {
        Some((self.app_id, &self.credentials))
    }
}

impl Edited for Group {}

impl Edited for Application {
    fn credentials(&self) -> Option<(Uuid, &Credentials)> {
        Some((self.app_id, &self.credentials))
    }
}

/// The object a path names.
pub struct GraphTarget {
    /// `None` when it names none, or none that exists by that name.
    id: Option<Uuid>,
    /// As it was written.
    text: String,
}

impl GraphTarget {
    /// The object's id; 404 when the name is nobody's.
    pub(crate) fn id(&self) -> Result<Uuid, Fault> {
        self.id.ok_or_else(|| faults::not_found(&self.text))
    }

    pub(crate) fn not_found(&self) -> Fault {
        faults::not_found(&self.text)
    }
}

impl Service for Graph {
    type Target = GraphTarget;

    const NAME: &'static str = "graph";

    fn segments(path: &str) -> Option<Vec<String>> {
        keyed::segments(path)
    }

    fn audiences(&self, _: &RequestHead) -> Vec<Cow<'_, str>> {
        let origin = format!("https://{}", self.directory.names().graph_host);
        vec![origin.into(), GRAPH_APP_ID.to_string().into()]
    }

    fn locate(&self, _: &OpInfo, head: &RequestHead) -> Result<Located<GraphTarget>, Fault> {
        let api = head.param("api");
        if !api.is_empty() && !["v1.0", "beta"].contains(&api.to_ascii_lowercase().as_str()) {
            let message = format!("Invalid version: {}", crate::login::faults::shown(api));
            return Err(Fault::bad_request("BadRequest", message));
        }
        let named = keyed::Named::of(head);
        let id = named.resolve(&self.directory.snapshot());
        let scope = match (id, named.set.as_str()) {
            (_, "") => ArmId::root(),
            (Some(id), set) => ArmId::from_segments([set, &id.to_string()]).map_err(Fault::internal)?,
            (None, set) => ArmId::from_segments([set]).map_err(Fault::internal)?,
        };
        Ok(Located { scope, target: GraphTarget { id, text: named.key } })
    }

    fn challenge(&self, _: &RequestHead, failure: &AuthFailure) -> Fault {
        let message = match failure {
            AuthFailure::Missing => "Access token is empty.",
            AuthFailure::Scheme => "The authorization scheme must be Bearer.",
            AuthFailure::Token(TokenFault::Expired | TokenFault::NotYetValid) => {
                "Lifetime validation failed, the token is expired."
            }
            AuthFailure::Token(TokenFault::Audience { .. }) => {
                "Access token validation failure. Invalid audience."
            }
            AuthFailure::Token(TokenFault::Issuer { .. }) => {
                "Access token validation failure. Invalid issuer."
            }
            AuthFailure::Token(_) => "CompactToken parsing or validation failed.",
        };
        let names = self.directory.names();
        let challenge = format!(
            "Bearer realm=\"\", authorization_uri=\"https://{}/common/oauth2/authorize\", client_id=\"{GRAPH_APP_ID}\"",
            names.login_host
        );
        let fault = Fault::new(StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken", message);
        match HeaderValue::from_str(&challenge) {
            Ok(challenge) => fault.header(header::WWW_AUTHENTICATE, challenge),
            Err(error) => Fault::internal(error),
        }
    }

    fn refuse(&self, _: &RequestHead, _: &Caller, denial: &Denial) -> Fault {
        faults::insufficient(denial)
    }

    fn no_such_operation(&self, head: &RequestHead, other_method_fits: bool) -> Fault {
        if other_method_fits {
            return Fault::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "Request_BadRequest",
                "Specified HTTP method is not allowed for the request target.",
            );
        }
        let segment = head.segments.get(1).or(head.segments.first()).map(String::as_str).unwrap_or("");
        let segment = crate::login::faults::shown(segment);
        Fault::bad_request("BadRequest", format!("Resource not found for the segment '{segment}'."))
    }

    fn render(&self, head: &RequestHead, fault: &Fault) -> Reply {
        let date = self.directory.clock.now().strftime("%Y-%m-%dT%H:%M:%S").to_string();
        let client = client_request_id(head).unwrap_or(head.request_id);
        let mut error = Map::new();
        error.insert("code".into(), fault.code.as_ref().into());
        error.insert("message".into(), fault.message.as_str().into());
        error.extend(fault.extra.clone());
        error.insert(
            "innerError".into(),
            json!({ "date": date, "request-id": head.request_id, "client-request-id": client }),
        );
        let body = Value::Object(Map::from_iter([("error".to_owned(), Value::Object(error))]));
        Reply::bytes(fault.status, "application/json", body.to_string())
    }

    fn finish(&self, head: &RequestHead, reply: &mut Reply) {
        let headers = &mut reply.headers;
        let client = client_request_id(head).unwrap_or(head.request_id);
        for (name, id) in [("request-id", head.request_id), ("client-request-id", client)] {
            if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
                headers.insert(HeaderName::from_static(name), id);
            }
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
        headers.insert(HeaderName::from_static("odata-version"), HeaderValue::from_static("4.0"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000; includeSubDomains"),
        );
    }
}

/// A new id that nobody has.
pub(crate) fn new_id(graph: &Graph) -> Uuid {
    graph.directory.entropy.uuid()
}
