//! Containers as the resource manager has them: the rows of the data plane, with the same actions and scopes.

use std::sync::Arc;

use arcadia_arm::Arm;
use arcadia_kernel::{
    At, Continuation, Fault, Json, Method, Op, Permit, Reply, Request, RequestHead, StatusCode, header, op,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{BODY_BYTES_MAX, account_at};
use crate::account::Account;
use crate::account::services::{container_asked, container_shown, no_legal_hold};
use crate::conditions::Conditions;
use crate::data::{DeleteContainer, ReadContainer, WriteContainer, first, results};
use crate::records::{Container, Metadata};
use crate::{Storage, faults, paths};

/// The most containers of one page, and how many there are when the client does not say. Their metadata is not in it.
const ITEMS_MAX: usize = 1000;
/// Longer than any name; what no name can begin with finds nothing.
const FILTER_BYTES_MAX: usize = 1024;
const TYPE: &str = "Microsoft.Storage/storageAccounts/blobServices/containers";
const CONTAINERS: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{name}/blobServices/default/containers";
const CONTAINER: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{name}/blobServices/default/containers/{container}";

pub(super) fn ops(storage: &Arc<Storage>) -> Vec<Op<Arm>> {
    let [listed, got, put, patched, gone] = [(); 5].map(|()| storage.clone());
    vec![
        op("BlobContainerList", Method::GET, CONTAINERS, move |_: At<Arm>, permit, request| {
            list(listed.clone(), permit, request)
        }),
        op("BlobContainerGet", Method::GET, CONTAINER, move |_: At<Arm>, permit, request| {
            get(got.clone(), permit, request)
        }),
        op("BlobContainerCreate", Method::PUT, CONTAINER, move |_: At<Arm>, permit, body| {
            create(put.clone(), permit, body)
        })
        .body_bytes_max(BODY_BYTES_MAX),
        op("BlobContainerUpdate", Method::PATCH, CONTAINER, move |_: At<Arm>, permit, body| {
            update(patched.clone(), permit, body)
        })
        .body_bytes_max(BODY_BYTES_MAX),
        op("BlobContainerDelete", Method::DELETE, CONTAINER, move |_: At<Arm>, permit, request| {
            delete(gone.clone(), permit, request)
        }),
    ]
}

/// What lists and single containers have in common.
fn shown(account: &Account, container: &Container) -> Result<Value, Fault> {
    let id = paths::container_scope(&account.id, &container.name).map_err(Fault::internal)?;
    let modified = Timestamp::from_second(container.modified).map_err(Fault::internal)?;
    let mut properties = container_shown();
    properties["lastModifiedTime"] = Value::from(format!("{modified:.7}"));
    Ok(json!({
        "id": id,
        "name": container.name,
        "type": TYPE,
        "etag": format!("\"{}\"", container.etag),
        "properties": properties,
    }))
}

fn in_list(account: &Account, container: &Container) -> Result<Value, Fault> {
    let mut shown = shown(account, container)?;
    shown["properties"]["immutableStorageWithVersioning"] = json!({ "enabled": false });
    Ok(shown)
}

fn answer(status: StatusCode, account: &Account, container: &Container) -> Result<Reply, Fault> {
    let mut shown = shown(account, container)?;
    shown["properties"]["legalHold"] = no_legal_hold();
    if !container.metadata.is_empty() {
        shown["properties"]["metadata"] = json!(container.metadata);
    }
    Reply::json(status, &shown)?.with_text(header::ETAG, &format!("\"{}\"", container.etag))
}

fn name(head: &RequestHead) -> Result<&str, Fault> {
    let name = head.param("container");
    paths::check_container(name).map(|()| name)
}

async fn list(
    storage: Arc<Storage>,
    permit: Permit<ReadContainer>,
    request: Request,
) -> Result<Reply, Fault> {
    let account = account_at(&storage, permit.scope())?;
    let text = |name: &str| request.query.first(name).unwrap_or_default();
    let prefix = text("$filter");
    if prefix.len() > FILTER_BYTES_MAX {
        return Err(faults::invalid_query("$filter", prefix));
    }
    // Nothing that was deleted is kept, so there is nothing more to include.
    let include = text("$include");
    if !include.is_empty() && !include.eq_ignore_ascii_case("deleted") {
        return Err(faults::invalid_query("$include", include));
    }
    let items_max = match text("$maxpagesize") {
        "" => ITEMS_MAX,
        number => results("$maxpagesize", number, ITEMS_MAX)?,
    };
    let after = match text("$skiptoken") {
        "" => None,
        token => Some(Continuation::parse(token, &request)?),
    };
    let mut value = Vec::new();
    let start = first([prefix], after);
    let page = storage.page_of_containers(account.instance(), prefix, start, items_max, |container| {
        value.push(in_list(&account, container));
        true
    });
    let next = page.await?;
    let mut body = json!({ "value": value.into_iter().collect::<Result<Vec<_>, _>>()? });
    if let Some(next) = next {
        body["nextLink"] = next.link(&request, "%24skipToken").into();
    }
    Reply::ok(&body)
}

async fn get(storage: Arc<Storage>, permit: Permit<ReadContainer>, request: Request) -> Result<Reply, Fault> {
    let account = account_at(&storage, permit.scope())?;
    let container = storage.container(&account, name(&request)?).await?;
    answer(StatusCode::OK, &account, &container.value)
}

/// A container that is there stays as it is, but for the metadata that the request has.
async fn create(
    storage: Arc<Storage>,
    permit: Permit<WriteContainer>,
    body: Json<Value>,
) -> Result<Reply, Fault> {
    let account = account_at(&storage, permit.scope())?;
    let (name, conditions) = (name(&body.head)?, Conditions::of(&body.head)?);
    let metadata = container_asked(&body.value)?;
    let written = storage.write_container(&account, name, &permit, |current| match current {
        Some(current) => changed(current, &conditions, metadata.as_ref(), &permit),
        None => {
            conditions.check_put(None)?;
            Ok(Some(Container::new(name, metadata.clone().unwrap_or_default(), &permit)))
        }
    });
    let written = written.await?;
    let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    answer(status, &account, &written.container)
}

async fn update(
    storage: Arc<Storage>,
    permit: Permit<WriteContainer>,
    body: Json<Value>,
) -> Result<Reply, Fault> {
    let account = account_at(&storage, permit.scope())?;
    let (name, conditions) = (name(&body.head)?, Conditions::of(&body.head)?);
    let metadata = container_asked(&body.value)?;
    let written = storage.write_container(&account, name, &permit, |current| {
        changed(current.ok_or_else(faults::container_not_found)?, &conditions, metadata.as_ref(), &permit)
    });
    answer(StatusCode::OK, &account, &written.await?.container)
}

/// Metadata replaces what was there; without it nothing changes.
fn changed(
    current: &Container,
    conditions: &Conditions,
    metadata: Option<&Metadata>,
    permit: &Permit<WriteContainer>,
) -> Result<Option<Container>, Fault> {
    conditions.check_change(current.state())?;
    Ok(metadata.map(|metadata| current.with_metadata(metadata.clone(), permit)))
}

async fn delete(
    storage: Arc<Storage>,
    permit: Permit<DeleteContainer>,
    request: Request,
) -> Result<Reply, Fault> {
    let account = account_at(&storage, permit.scope())?;
    let (name, conditions) = (name(&request)?, Conditions::of(&request)?);
    let was_there = storage.delete_container(account, name, permit, conditions).await?;
    Ok(Reply::empty(if was_there { StatusCode::OK } else { StatusCode::NO_CONTENT }))
}
