//! Deleted applications: listed, restored, or removed for good.

use arcadia_kernel::{At, Fault, Permit, Reply, Request, StatusCode};

use crate::actions::{DeletedDelete, DeletedRead, DeletedRestore};
use crate::graph::Graph;
use crate::graph::body::Body;
use crate::graph::faults::taken;
use crate::graph::render::{Shown as _, typed};
use crate::model::{
    APPLICATIONS, DELETED_APPLICATIONS, IDENTIFIER_URIS, PRINCIPAL_APP_IDS, PRINCIPALS, Reference, fold,
};
use crate::snapshot::DirectoryObject;

pub(super) async fn list(at: At<Graph>, _: Permit<DeletedRead>, request: Request) -> Result<Reply, Fault> {
    let snapshot = at.directory.snapshot();
    at.list(&request, snapshot.deleted.values().cloned())
}

pub(super) async fn show(at: At<Graph>, _: Permit<DeletedRead>, request: Request) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let found = at.directory.snapshot().deleted.get(&id).cloned();
    let mut shown = found.ok_or_else(|| at.target.not_found())?.show();
    shown.insert("@odata.type".into(), "#microsoft.graph.application".into());
    at.one(&request, "directoryObjects", shown)
}

pub(super) async fn delete(at: At<Graph>, permit: Permit<DeletedDelete>, _: Request) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    at.remove(&permit, DELETED_APPLICATIONS, id, |_, _| Ok(())).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Brings an application back with its service principal, its secrets and its ids.
pub(super) async fn restore(
    at: At<Graph>,
    permit: Permit<DeletedRestore>,
    body: Body,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    at.remove(&permit, DELETED_APPLICATIONS, id, |deleted, batch| {
        let application = &deleted.application;
        for uri in &application.identifier_uris {
            if at.directory.snapshot().application_with_uri(uri).is_some() {
                return Err(taken("identifierUris"));
            }
            batch.require_absent(IDENTIFIER_URIS, fold(uri).as_str());
            batch.put(IDENTIFIER_URIS, fold(uri).as_str(), &Reference { id })?;
        }
        batch.put(APPLICATIONS, &id, application)?;
        if let Some(principal) = &deleted.principal {
            batch.require_absent(PRINCIPAL_APP_IDS, &principal.app_id);
            batch.put(PRINCIPAL_APP_IDS, &principal.app_id, &Reference { id: principal.id })?;
            batch.put(PRINCIPALS, &principal.id, principal)?;
        }
        Ok(())
    })
    .await?;
    let shown = {
        let snapshot = at.directory.snapshot();
        let application = snapshot.applications.get(&id).cloned().ok_or_else(|| at.target.not_found())?;
        typed(&snapshot, &DirectoryObject::Application(application))
    };
    match shown {
        serde_json::Value::Object(fields) => at.one(&body.head, "directoryObjects", fields),
        _ => Err(at.target.not_found()),
    }
}
