//! GET, HEAD and lists of resources of one kind.

use arcadia_crypto::{hex, hmac_sha256};
use arcadia_kernel::{ArmId, Fault, Reply, Request, RequestHead, StatusCode, header};
use arcadia_store::Row;
use serde_json::{Map, Value, json};

use crate::Arm;
use crate::engine::requested_id;
use crate::error;
use crate::kind::{AnyKind, RESOURCES, Resource};
use crate::page::{self, Window};
use crate::resources::ListFilter;
use crate::version;

const ETAG_BYTES: usize = 16;

/// A resource as clients of `api_version` see it.
pub(crate) fn view(kind: &dyn AnyKind, resource: &Resource, api_version: &str) -> Value {
    let mut view = base_view(resource, kind.located(), kind.type_name());
    view.insert("properties".into(), kind.properties(resource, api_version));
    if !resource.created_by.is_empty() {
        let system = json!({
            "createdBy": resource.created_by,
            "createdByType": resource.created_by_type,
            "createdAt": resource.created_at,
            "lastModifiedBy": resource.modified_by,
            "lastModifiedByType": resource.modified_by_type,
            "lastModifiedAt": resource.modified_at,
        });
        view.insert("systemData".into(), system);
    }
    Value::Object(view)
}

/// What the generic lists show: everything but properties.
pub(crate) fn base_view(resource: &Resource, located: bool, type_name: &str) -> Map<String, Value> {
    let mut view = Map::new();
    view.insert("id".into(), json!(resource.id));
    view.insert("name".into(), json!(resource.id.name()));
    view.insert("type".into(), json!(type_name));
    if located || !resource.location.is_empty() {
        view.insert("location".into(), json!(resource.location));
    }
    if located || !resource.tags.is_empty() {
        view.insert("tags".into(), json!(resource.tags));
    }
    for (name, value) in [("identity", &resource.identity), ("sku", &resource.sku)] {
        if let Some(value) = value {
            view.insert(name.into(), value.clone());
        }
    }
    if let Some(kind) = &resource.kind {
        view.insert("kind".into(), json!(kind));
    }
    view
}

/// Of what is stored, and not of its revision: a row is also written as it is, for what is made below it. Keyed, because
/// what is stored may be more than clients see; the key ends with the process, and a condition on an older tag then fails.
pub(super) fn etag(arm: &Arm, resource: &Resource) -> Result<String, Fault> {
    let stored = serde_json::to_vec(resource).map_err(Fault::internal)?;
    Ok(format!("\"{}\"", hex(&hmac_sha256(&arm.etag_key, &stored)[..ETAG_BYTES])))
}

/// The row, or the 404 that says whether it is the group or the resource that is missing.
pub(super) async fn existing(arm: &Arm, id: &ArmId) -> Result<Row<Resource>, Fault> {
    if let Some(row) = arm.store.get(RESOURCES, id).await? {
        return Ok(row);
    }
    if let Some(group) = id.resource_group_id() {
        arm.group(&group).await?;
    }
    Err(error::resource_not_found(id))
}

/// The same, of what has no row as well.
async fn existing_or_unrecorded(arm: &Arm, type_name: &str, id: &ArmId) -> Result<Resource, Fault> {
    match existing(arm, id).await {
        Ok(row) => Ok(row.value),
        Err(fault) => unrecorded(arm, &*arm.kind(type_name)?, id).await?.ok_or(fault),
    }
}

/// What is there without a row. Its name is taken as it is spelled: two may differ in nothing else.
pub(super) async fn unrecorded(arm: &Arm, kind: &dyn AnyKind, id: &ArmId) -> Result<Option<Resource>, Fault> {
    let Some(beside) = id.parent() else { return Ok(None) };
    if beside.parent().is_none_or(|parent| !arm.is_kind(&parent)) {
        return Ok(None);
    }
    let found = kind.unrecorded(&beside).await?;
    Ok(found.into_iter().find(|resource| resource.id.name() == id.name()))
}

pub(super) async fn get(arm: &Arm, type_name: &str, request: &Request) -> Result<Reply, Fault> {
    let resource = existing_or_unrecorded(arm, type_name, &requested_id(type_name, request)?).await?;
    found(arm, type_name, &resource, request)
}

/// What a GET of the resource would answer; nothing of one that is gone.
pub(crate) async fn get_if_there(
    arm: &Arm,
    id: &ArmId,
    request: &RequestHead,
) -> Result<Option<Reply>, Fault> {
    let row = arm.store.get(RESOURCES, id).await?;
    row.map(|row| found(arm, &id.resource_type().unwrap_or_default(), &row.value, request)).transpose()
}

fn found(arm: &Arm, type_name: &str, resource: &Resource, request: &RequestHead) -> Result<Reply, Fault> {
    let kind = arm.kind(type_name)?;
    Reply::ok(&view(&*kind, resource, version::required(&request.query)?))?
        .with_text(header::ETAG, &etag(arm, resource)?)
}

pub(super) async fn exists(arm: &Arm, type_name: &str, request: &Request) -> Result<Reply, Fault> {
    existing_or_unrecorded(arm, type_name, &requested_id(type_name, request)?).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// The resources of a kind below what the path names, as far as the caller may see them.
pub(super) async fn list(
    arm: &Arm,
    type_name: &str,
    request: &Request,
    visible: impl Fn(&ArmId) -> bool,
) -> Result<Reply, Fault> {
    let kind = arm.kind(type_name)?;
    let api_version = version::required(&request.query)?;
    let filter = ListFilter::of(&request.query)?;
    let window = Window::of(arm, request)?;
    let prefix = list_prefix(arm, type_name, request).await?;
    let shown = |resource: &Resource| {
        let is_kind = resource.id.resource_type().is_some_and(|found| found.eq_ignore_ascii_case(type_name));
        let shown = is_kind && filter.fits(resource)? && visible(&resource.id);
        Ok::<_, Fault>(shown.then(|| view(&*kind, resource, api_version)))
    };
    let mut page = page::collect(&arm.store, RESOURCES, &prefix, window, |row| shown(&row.value)).await?;
    if page.next.is_none() && type_name.matches('/').count() > 1 {
        // On the last page, whatever it has room for: these are few.
        for resource in kind.unrecorded(&prefix).await? {
            if arm.store.get(RESOURCES, &resource.id).await?.is_none() {
                page.items.extend(shown(&resource)?);
            }
        }
    }
    page::reply(arm, request, page)
}

async fn list_prefix(arm: &Arm, type_name: &str, request: &Request) -> Result<ArmId, Fault> {
    let malformed = |_| error::invalid_content("The resource identifier is not well formed.");
    if request.param("resourceGroupName").is_empty() {
        return ArmId::from_segments(["subscriptions", request.param("subscriptionId")]).map_err(malformed);
    }
    // Without the last name this is the path of the list itself.
    let list = ArmId::from_segments(request.segments.iter().map(String::as_str)).map_err(malformed)?;
    if type_name.matches('/').count() > 1 {
        if let Some(parent) = list.parent().filter(|parent| arm.is_kind(parent)) {
            existing(arm, &parent).await?;
        }
    } else if let Some(group) = list.resource_group_id() {
        arm.group(&group).await?;
    }
    Ok(list)
}
