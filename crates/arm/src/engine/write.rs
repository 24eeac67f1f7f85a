//! PUT and PATCH of resources.

use arcadia_kernel::{ArmId, Fault, Reply, Request, StatusCode, header};
use arcadia_store::{Batch, Row};

use crate::Arm;
use crate::asynchronous::{self, Change, accepted};
use crate::engine::body::{self, Body};
use crate::engine::read::{etag, existing, view};
use crate::engine::{Work, requested_id};
use crate::error;
use crate::groups::GROUPS;
use crate::kind::{AnyKind, Desired, Plan, RESOURCES, Resource, caller_name, caller_type};
use crate::operations::Operation;
use crate::size::json_bytes;
use crate::version;

/// The most that a resource's stored form has: a vault with 1024 access policies that name every permission, twice over.
/// What is written beside it (its former state, the vault that was deleted) has room in a row and in a commit as well.
const RESOURCE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The most that `identity` and `sku` have each. They are kept as they were sent, and merged by PATCH.
const OBJECT_BYTES_MAX: usize = 8 * 1024;

/// What the client says about the present state.
pub(super) struct Preconditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
}

impl Preconditions {
    pub(super) fn of(request: &Request) -> Self {
        // What is no text fits no state; it is never taken for absent. Several are one list, as HTTP has it.
        let read = |name: header::HeaderName| {
            let values = request.headers.get_all(&name).iter();
            let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            (!values.is_empty()).then(|| values.join(",").trim().to_owned())
        };
        Self { if_match: read(header::IF_MATCH), if_none_match: read(header::IF_NONE_MATCH) }
    }

    pub(super) fn check(&self, arm: &Arm, current: Option<&Resource>) -> Result<(), Fault> {
        if self.if_match.is_none() && self.if_none_match.is_none() {
            return Ok(());
        }
        self.check_tag(current.map(|current| etag(arm, current)).transpose()?.as_deref())
    }

    fn check_tag(&self, current: Option<&str>) -> Result<(), Fault> {
        let fits = |tags: &str| {
            current.is_some_and(|current| tags == "*" || tags.split(',').any(|tag| tag.trim() == current))
        };
        let failed = self.if_match.as_deref().is_some_and(|tags| !fits(tags))
            || self.if_none_match.as_deref().is_some_and(fits);
        if !failed {
            return Ok(());
        }
        let message = "The condition specified using HTTP conditional header(s) is not met.";
        Err(Fault::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", message))
    }
}

pub(super) async fn put(
    arm: &Arm,
    type_name: &str,
    work: &Work<'_>,
    request: Request,
) -> Result<Reply, Fault> {
    let kind = arm.kind(type_name)?;
    let id = requested_id(type_name, &request)?;
    // Kinds without a location may have nothing to say: `az postgres db create` sends no body.
    let desired = match request.body.is_empty() && !kind.located() {
        true => Desired { properties: serde_json::json!({}), ..Desired::default() },
        false => Body::read(&request)?.into_desired()?,
    };
    let preconditions = Preconditions::of(&request);
    let api_version = version::required(&request.query)?;
    let mut attempts = arm.store.attempts();
    loop {
        let current = arm.store.get(RESOURCES, &id).await?;
        preconditions.check(arm, current.as_ref().map(|row| &row.value))?;
        let mut batch = Batch::new();
        prepare(arm, &*kind, &id, current.as_ref(), &desired, &mut batch).await?;
        let mut plan = plan(arm, work, &id, api_version, &mut batch);
        let before = current.as_ref().map(|row| &row.value);
        let resource = kind.put(&mut plan, before, desired.clone()).await?;
        let resource = stamped(resource, &id, before, work);
        let created = before.is_none();
        let begun = begin(arm, work, &*kind, &resource, before, &mut batch).await?;
        write(&mut batch, current.as_ref(), &resource)?;
        if attempts.commit(work.stamp, batch).await?.is_some() {
            return match begun {
                Some(begun) => {
                    arm.wake.notify_one();
                    accepted(arm, &request, &*kind, &resource, &begun).await
                }
                None => reply(arm, &*kind, &resource, api_version, created),
            };
        }
    }
}

pub(super) async fn patch(
    arm: &Arm,
    type_name: &str,
    work: &Work<'_>,
    request: Request,
) -> Result<Reply, Fault> {
    let kind = arm.kind(type_name)?;
    let id = requested_id(type_name, &request)?;
    let change = Body::read(&request)?.into_desired()?;
    let preconditions = Preconditions::of(&request);
    let api_version = version::required(&request.query)?;
    let mut attempts = arm.store.attempts();
    loop {
        let current = existing(arm, &id).await?;
        preconditions.check(arm, Some(&current.value))?;
        let mut batch = Batch::new();
        prepare(arm, &*kind, &id, Some(&current), &change, &mut batch).await?;
        let mut plan = plan(arm, work, &id, api_version, &mut batch);
        let resource = kind.patch(&mut plan, &current.value, change.clone()).await?;
        let resource = stamped(resource, &id, Some(&current.value), work);
        let begun = begin(arm, work, &*kind, &resource, Some(&current.value), &mut batch).await?;
        write(&mut batch, Some(&current), &resource)?;
        if attempts.commit(work.stamp, batch).await?.is_some() {
            if let Some(begun) = begun {
                arm.wake.notify_one();
                return accepted(arm, &request, &*kind, &resource, &begun).await;
            }
            return Reply::ok(&view(&*kind, &resource, api_version))?
                .with_text(header::ETAG, &etag(arm, &resource)?);
        }
    }
}

/// Of an asynchronous kind: the operation that carries the change out, in the same commit.
async fn begin(
    arm: &Arm,
    work: &Work<'_>,
    kind: &dyn AnyKind,
    resource: &Resource,
    before: Option<&Resource>,
    batch: &mut Batch,
) -> Result<Option<Operation>, Fault> {
    if !kind.asynchronous() {
        return Ok(None);
    }
    let change = match before {
        Some(before) => Change::Update { before: Some(Box::new(before.clone())) },
        None => Change::Create,
    };
    asynchronous::begin(arm, work, resource, change, batch).await.map(Some)
}

pub(super) fn plan<'a>(
    arm: &'a Arm,
    work: &Work<'a>,
    id: &'a ArmId,
    api_version: &'a str,
    batch: &'a mut Batch,
) -> Plan<'a> {
    Plan {
        id,
        api_version,
        caller: work.caller,
        now: work.now,
        entropy: work.entropy,
        stamp: work.stamp,
        store: &arm.store,
        batch,
    }
}

/// Group, parent, name and location are as they must be, and stay so until the commit.
async fn prepare(
    arm: &Arm,
    kind: &dyn AnyKind,
    id: &ArmId,
    current: Option<&Row<Resource>>,
    desired: &Desired,
    batch: &mut Batch,
) -> Result<(), Fault> {
    let group_id = id.resource_group_id().ok_or_else(|| error::resource_not_found(id))?;
    let group = arm.group(&group_id).await?;
    group.value.check_active()?;
    if let Some(current) = current {
        return check_same_location(&current.value, desired.location.as_deref());
    }
    check_name(kind, id)?;
    if !kind.recovers(desired) {
        arm.check_registered(id).await?;
    }
    match desired.location.as_deref() {
        Some(location) => arm.check_location(
            location,
            &format!("resource type '{}'", kind.type_name()),
            "LocationNotAvailableForResourceType",
        )?,
        None if kind.located() => return Err(body::location_required()),
        None => {}
    }
    batch.require_revision(GROUPS, &group_id, group.revision);
    hold_parent(arm, kind, id, batch).await
}

/// A nested resource needs its parent. The parent's row is written again as it is, so that its deletion, which
/// may run at this moment, sees the child or fails.
pub(super) async fn hold_parent(
    arm: &Arm,
    kind: &dyn AnyKind,
    id: &ArmId,
    batch: &mut Batch,
) -> Result<(), Fault> {
    let Some(parent) = id.parent().and_then(|types| types.parent()).filter(|parent| arm.is_kind(parent))
    else {
        return Ok(());
    };
    let Some(row) = arm.store.get(RESOURCES, &parent).await? else {
        let message = format!(
            "Failed to perform 'write' on resource(s) of type '{}', because the parent resource '{parent}' \
             could not be found.",
            kind.type_name()
        );
        return Err(Fault::not_found("ParentResourceNotFound", message));
    };
    if asynchronous::deletion_of(arm, &parent).await?.is_some() {
        return Err(asynchronous::busy(&parent));
    }
    batch.require_revision(RESOURCES, &parent, row.revision);
    batch.put(RESOURCES, &parent, &row.value)?;
    Ok(())
}

fn check_name(kind: &dyn AnyKind, id: &ArmId) -> Result<(), Fault> {
    let rule = kind.name_rule();
    // `providers` divides identifiers; as a name it would make them ambiguous.
    if rule.accepts(id.name()) && !id.name().eq_ignore_ascii_case("providers") {
        return Ok(());
    }
    let message = format!(
        "The provided resource name '{}' is not valid for type '{}'. It must have {} to {} characters and fit \
         the pattern '{}'.",
        error::shown(id.name()),
        kind.type_name(),
        rule.chars_min,
        rule.chars_max,
        rule.pattern
    );
    Err(Fault::bad_request("InvalidResourceName", message))
}

fn check_same_location(current: &Resource, wanted: Option<&str>) -> Result<(), Fault> {
    match wanted {
        Some(wanted) if wanted != current.location && !current.location.is_empty() => Err(Fault::conflict(
            "InvalidResourceLocation",
            format!(
                "The resource '{}' already exists in location '{}' in resource group '{}'. A resource with \
                 the same name cannot be created in location '{}'. Please select a new resource name.",
                current.id.name(),
                current.location,
                current.id.resource_group().unwrap_or_default(),
                error::shown(wanted)
            ),
        )),
        _ => Ok(()),
    }
}

/// Identifier and `systemData` are the engine's: whatever the kind made of them, they say what was asked for,
/// who created it and who changed it.
fn stamped(mut resource: Resource, id: &ArmId, before: Option<&Resource>, work: &Work<'_>) -> Resource {
    match before {
        Some(before) => {
            resource.id = before.id.clone();
            resource.created_at = before.created_at;
            resource.created_by = before.created_by.clone();
            resource.created_by_type = before.created_by_type.clone();
        }
        // Brought back: spelled as it was, and made when it was.
        None if resource.id == *id => {}
        None => resource.id = id.clone(),
    }
    resource.modified_at = work.now;
    resource.modified_by = caller_name(work.caller);
    resource.modified_by_type = caller_type(work.caller).to_owned();
    resource
}

/// Plans the resource, for as long as it is still what it was.
fn write(batch: &mut Batch, current: Option<&Row<Resource>>, resource: &Resource) -> Result<(), Fault> {
    check_size(resource)?;
    match current {
        Some(row) => batch.require_revision(RESOURCES, &resource.id, row.revision),
        None => batch.require_absent(RESOURCES, &resource.id),
    }
    Ok(batch.put(RESOURCES, &resource.id, resource)?)
}

/// Of what is about to be stored, and not of a body: what is merged grows with every PATCH.
fn check_size(resource: &Resource) -> Result<(), Fault> {
    for (name, object) in [("identity", &resource.identity), ("sku", &resource.sku)] {
        if object.as_ref().is_some_and(|object| json_bytes(object) > OBJECT_BYTES_MAX) {
            return Err(error::too_large(&format!("the property '{name}'"), OBJECT_BYTES_MAX));
        }
    }
    match resource.bytes() <= RESOURCE_BYTES_MAX {
        true => Ok(()),
        false => Err(error::too_large("a resource", RESOURCE_BYTES_MAX)),
    }
}

fn reply(
    arm: &Arm,
    kind: &dyn AnyKind,
    resource: &Resource,
    api_version: &str,
    created: bool,
) -> Result<Reply, Fault> {
    let mut reply = Reply::json(kind.put_status(created), &view(kind, resource, api_version))?
        .with_text(header::ETAG, &etag(arm, resource)?)?;
    for (name, value) in kind.put_headers(resource) {
        reply.headers.append(name, value);
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use arcadia_kernel::{HeaderMap, HeaderValue, Method, Params, Query, RequestHead};

    use super::*;

    fn if_match(values: &[&[u8]]) -> Preconditions {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_bytes(value).unwrap());
        }
        let head = RequestHead {
            method: Method::PUT,
            host: String::new(),
            origin: String::new(),
            path: String::new(),
            segments: Vec::new(),
            raw_query: String::new(),
            query: Query::default(),
            headers,
            params: Params::default(),
            remote: None,
            request_id: uuid::Uuid::nil(),
            caller_id: Default::default(),
        };
        Preconditions::of(&Request { head: head.into(), body: Default::default() })
    }

    #[test]
    fn a_condition_that_is_no_text_is_not_an_absent_one() {
        assert!(if_match(&[]).check_tag(None).is_ok());
        assert!(if_match(&[b"*"]).check_tag(None).is_err());
        assert!(if_match(&[b"\xff"]).check_tag(None).is_err());
        assert!(if_match(&[b"\"a\"", b"\xff"]).check_tag(None).is_err());
    }
}
