//! What is the same for every kind of object: lookup by id, memberships, owners.

use std::collections::BTreeSet;

use arcadia_kernel::{Action, At, Fault, Permit, Reply, Request, StatusCode};
use arcadia_store::{Batch, Record, Table};
use serde_json::Value;
use uuid::Uuid;

use crate::actions::{DomainsRead, ObjectsRead, OrganizationRead};
use crate::directory::Committed;
use crate::graph::Graph;
use crate::graph::body::{Body, Reader};
use crate::graph::faults::{bad_request, invalid_property, not_found};
use crate::graph::render::{Domain, Organization, typed};
use crate::model::{OWNERS, OwnerLink};
use crate::snapshot::DirectoryObject;

const IDS_MAX: usize = 1000;
/// Graph takes no more group ids in one check.
const CHECKED_GROUPS_MAX: usize = 20;
const OWNERS_MAX: usize = 100;

/// The objects behind `ids`, each with its type.
pub(super) fn typed_list(at: &At<Graph>, ids: Vec<Uuid>) -> Vec<(Uuid, Value)> {
    let snapshot = at.directory.snapshot();
    ids.into_iter().filter_map(|id| Some((id, typed(&snapshot, &snapshot.object(id)?)))).collect()
}

/// `directoryObjects/getByIds`: how the command line turns principals' ids into names.
pub(super) async fn by_ids(at: At<Graph>, _: Permit<ObjectsRead>, body: Body) -> Result<Reply, Fault> {
    let mut reader = Reader::new(body.fields);
    let ids = reader.texts("ids")?.ok_or_else(|| invalid_property("ids"))?;
    let types = reader.texts("types")?.unwrap_or_default();
    reader.finish()?;
    if ids.len() > IDS_MAX {
        return Err(bad_request(format!("At most {IDS_MAX} ids can be asked for at once.")));
    }
    let ids: Result<Vec<Uuid>, Fault> =
        ids.iter().map(|id| Uuid::try_parse(id).map_err(|_| invalid_property("ids"))).collect();
    let wanted = |found: &DirectoryObject| {
        let kind = match found {
            DirectoryObject::User(_) => "user",
            DirectoryObject::Group(_) => "group",
            DirectoryObject::Application(_) => "application",
            DirectoryObject::ServicePrincipal(_) => "servicePrincipal",
        };
        types.is_empty()
            || types
                .iter()
                .any(|name| name.eq_ignore_ascii_case(kind) || name.eq_ignore_ascii_case("directoryObject"))
    };
    let found = {
        let snapshot = at.directory.snapshot();
        let objects = ids?.into_iter().filter_map(|id| snapshot.object(id)).filter(wanted);
        objects.map(|object| typed(&snapshot, &object)).collect()
    };
    at.values(&body.head, "directoryObjects", found)
}

pub(super) async fn show(at: At<Graph>, _: Permit<ObjectsRead>, request: Request) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let shown = {
        let snapshot = at.directory.snapshot();
        let object = snapshot.object(id).ok_or_else(|| at.target.not_found())?;
        typed(&snapshot, &object)
    };
    match shown {
        Value::Object(fields) => at.one(&request, "directoryObjects", fields),
        _ => Err(at.target.not_found()),
    }
}

/// Which of some groups the object is in, directly or through others.
pub(super) async fn check_member_groups<A: Action>(
    at: At<Graph>,
    _: Permit<A>,
    body: Body,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let mut reader = Reader::new(body.fields);
    let asked = reader.texts("groupIds")?.ok_or_else(|| invalid_property("groupIds"))?;
    reader.finish()?;
    if asked.len() > CHECKED_GROUPS_MAX {
        return Err(bad_request(format!("At most {CHECKED_GROUPS_MAX} groups can be checked at once.")));
    }
    let asked: Result<Vec<Uuid>, Fault> =
        asked.iter().map(|id| Uuid::try_parse(id).map_err(|_| invalid_property("groupIds"))).collect();
    let groups = at.directory.snapshot().transitive_groups_of(id);
    let found =
        asked?.into_iter().filter(|group| groups.contains(group)).map(|group| group.to_string().into());
    at.values(&body.head, "Collection(Edm.String)", found.collect())
}

/// Every group the object is in, directly or through others.
pub(super) async fn member_groups<A: Action>(
    at: At<Graph>,
    _: Permit<A>,
    body: Body,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let mut reader = Reader::new(body.fields);
    // Every group here is a security group, so both answers are the same.
    reader.flag("securityEnabledOnly")?;
    reader.finish()?;
    let mut groups: Vec<Uuid> = at.directory.snapshot().transitive_groups_of(id).into_iter().collect();
    groups.sort();
    let groups = groups.into_iter().map(|group| group.to_string().into());
    at.values(&body.head, "Collection(Edm.String)", groups.collect())
}

pub(super) async fn add_owner<A: Action, V: Record>(
    at: &At<Graph>,
    permit: &Permit<A>,
    table: Table<Uuid, V>,
    object: Uuid,
    owner: Uuid,
) -> Result<Reply, Fault> {
    if at.directory.snapshot().owners_of(object).count() >= OWNERS_MAX {
        return Err(bad_request(format!("An object can have at most {OWNERS_MAX} owners.")));
    }
    let key = (object, owner);
    let mut change = at.change(permit);
    loop {
        let mut batch = Batch::new();
        if !at.hold(&mut batch, table, object).await? {
            return Err(at.target.not_found());
        }
        if !at.hold_owner(&mut batch, owner).await? {
            return Err(not_found(&owner.to_string()));
        }
        if at.directory.store.get(OWNERS, &key).await?.is_some() {
            return Err(bad_request(
                "One or more added object references already exist for the following modified properties: \
                 'owners'.",
            ));
        }
        batch.require_absent(OWNERS, &key);
        batch.put(OWNERS, &key, &OwnerLink { object, owner })?;
        if change.commit(batch).await? {
            return Ok(Reply::empty(StatusCode::NO_CONTENT));
        }
    }
}

/// Makes `owners` the owners of an object that the batch creates.
pub(super) async fn plan_owners(
    at: &At<Graph>,
    batch: &mut Batch,
    object: Uuid,
    owners: &BTreeSet<Uuid>,
) -> Result<(), Fault> {
    for owner in owners {
        if !at.hold_owner(batch, *owner).await? {
            return Err(not_found(&owner.to_string()));
        }
        batch.put(OWNERS, &(object, *owner), &OwnerLink { object, owner: *owner })?;
    }
    Ok(())
}

pub(super) async fn remove_owner<A: Action>(
    at: &At<Graph>,
    permit: &Permit<A>,
    object: Uuid,
    text: &str,
) -> Result<Reply, Fault> {
    let owner = Uuid::try_parse(text).map_err(|_| not_found(text))?;
    let row = at.directory.store.get(OWNERS, &(object, owner)).await?.ok_or_else(|| not_found(text))?;
    let mut batch = Batch::new();
    batch.require_revision(OWNERS, &(object, owner), row.revision);
    batch.delete(OWNERS, &(object, owner));
    match at.commit(permit, batch).await? {
        Committed::Written => Ok(Reply::empty(StatusCode::NO_CONTENT)),
        Committed::LostRace => Err(not_found(text)),
    }
}

pub(super) async fn organizations(
    at: At<Graph>,
    _: Permit<OrganizationRead>,
    request: Request,
) -> Result<Reply, Fault> {
    let tenant = at.directory.founded_tenant()?;
    at.list(&request, std::iter::once(Organization(tenant)))
}

pub(super) async fn domains(at: At<Graph>, _: Permit<DomainsRead>, request: Request) -> Result<Reply, Fault> {
    let tenant = at.directory.founded_tenant()?;
    at.list(&request, std::iter::once(Domain(tenant)))
}
