//! Groups and who is in them.

use arcadia_kernel::{Action, At, Fault, Permit, Reply, Request, StatusCode};
use arcadia_store::Batch;
use uuid::Uuid;

use crate::actions::{
    GroupMembersRead, GroupMembersUpdate, GroupOwnersUpdate, GroupsCreate, GroupsDelete, GroupsRead,
    GroupsUpdate,
};
use crate::directory::Committed;
use crate::graph::body::{Body, Reader, reference};
use crate::graph::faults::{bad_request, insufficient, invalid_property, not_found};
use crate::graph::objects::{add_owner, plan_owners, remove_owner, typed_list};
use crate::graph::render::Shown as _;
use crate::graph::{Graph, new_id};
use crate::model::{GROUPS, Group, Link, MEMBERS};
use crate::names::{is_display_name, is_user_part};

const DESCRIPTION_CHARACTERS_MAX: usize = 1024;
/// Members of one group; deleting a group removes them all in one commit.
const MEMBERS_MAX: usize = 10_000;

pub(super) async fn list(at: At<Graph>, _: Permit<GroupsRead>, request: Request) -> Result<Reply, Fault> {
    let snapshot = at.directory.snapshot();
    at.list(&request, snapshot.groups.values().cloned())
}

pub(super) async fn show(at: At<Graph>, _: Permit<GroupsRead>, request: Request) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let group = at.directory.snapshot().groups.get(&id).cloned().ok_or_else(|| at.target.not_found())?;
    at.one(&request, "groups", group.show())
}

struct Sent {
    display_name: Option<String>,
    mail_nickname: Option<String>,
    description: Option<Option<String>>,
}

impl Sent {
    fn read(mut reader: Reader) -> Result<Self, Fault> {
        let has_description = reader.has("description");
        let description = reader.text("description")?;
        if description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_CHARACTERS_MAX) {
            return Err(invalid_property("description"));
        }
        let sent = Self {
            display_name: reader.text("displayName")?,
            mail_nickname: reader.text("mailNickname")?,
            description: has_description.then_some(description),
        };
        // Only plain security groups exist here.
        if reader.flag("mailEnabled")? == Some(true) {
            return Err(bad_request("Mail-enabled groups are not supported. Set 'mailEnabled' to false."));
        }
        if reader.flag("securityEnabled")? == Some(false) {
            return Err(bad_request("Only security groups are supported. Set 'securityEnabled' to true."));
        }
        if reader.texts("groupTypes")?.is_some_and(|types| !types.is_empty()) {
            return Err(bad_request("Only security groups are supported. Leave 'groupTypes' empty."));
        }
        reader.finish()?;
        if sent.display_name.as_deref().is_some_and(|name| !is_display_name(name)) {
            return Err(invalid_property("displayName"));
        }
        if sent.mail_nickname.as_deref().is_some_and(|name| !is_user_part(name)) {
            return Err(invalid_property("mailNickname"));
        }
        Ok(sent)
    }
}

pub(super) async fn create(at: At<Graph>, permit: Permit<GroupsCreate>, body: Body) -> Result<Reply, Fault> {
    let mut reader = Reader::new(body.fields);
    let (owners, members) = (reader.references("owners")?, reader.references("members")?);
    let scope = permit.scope().clone();
    if !owners.is_empty() {
        permit.also::<GroupOwnersUpdate>(&scope).map_err(|denial| insufficient(&denial))?;
    }
    if !members.is_empty() {
        permit.also::<GroupMembersUpdate>(&scope).map_err(|denial| insufficient(&denial))?;
    }
    let sent = Sent::read(reader)?;
    let required = |value: Option<String>, name: &str| {
        value.ok_or_else(|| {
            bad_request(format!("A value is required for property '{name}' of resource 'Group'."))
        })
    };
    let group = Group {
        id: new_id(&at),
        display_name: required(sent.display_name, "displayName")?,
        mail_nickname: required(sent.mail_nickname, "mailNickname")?,
        description: sent.description.flatten(),
        created_seconds: permit.epoch_seconds(),
    };
    let mut change = at.change(&permit);
    loop {
        let mut batch = Batch::new();
        batch.require_absent(GROUPS, &group.id);
        batch.put(GROUPS, &group.id, &group)?;
        plan_owners(&at, &mut batch, group.id, &owners).await?;
        for member in &members {
            if !at.hold_member(&mut batch, *member).await? {
                return Err(not_found(&member.to_string()));
            }
            let link = Link { group: group.id, member: *member };
            batch.put(MEMBERS, &(link.group, link.member), &link)?;
        }
        if change.commit(batch).await? {
            return at.created(&body.head, &group);
        }
    }
}

pub(super) async fn update(at: At<Graph>, permit: Permit<GroupsUpdate>, body: Body) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let sent = Sent::read(Reader::new(body.fields))?;
    at.edit(&permit, GROUPS, id, |group, _| {
        let mut group = group.clone();
        group.display_name = sent.display_name.clone().unwrap_or(group.display_name);
        group.mail_nickname = sent.mail_nickname.clone().unwrap_or(group.mail_nickname);
        group.description = sent.description.clone().unwrap_or(group.description);
        Ok(group)
    })
    .await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn delete(at: At<Graph>, permit: Permit<GroupsDelete>, _: Request) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    at.remove(&permit, GROUPS, id, |_, batch| {
        at.directory.plan_remove_links(batch, id);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn members(
    at: At<Graph>,
    _: Permit<GroupMembersRead>,
    request: Request,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let members = at.directory.snapshot().members_of(id).collect();
    at.mixed(&request, typed_list(&at, members))
}

/// Members of the group and of every group in it.
pub(super) async fn transitive_members(
    at: At<Graph>,
    _: Permit<GroupMembersRead>,
    request: Request,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let members = {
        let snapshot = at.directory.snapshot();
        let mut found = std::collections::BTreeSet::new();
        let mut waiting = vec![id];
        while let Some(group) = waiting.pop() {
            waiting.extend(snapshot.members_of(group).filter(|member| found.insert(*member)));
        }
        found.into_iter().collect()
    };
    at.mixed(&request, typed_list(&at, members))
}

pub(super) async fn add_member(
    at: At<Graph>,
    permit: Permit<GroupMembersUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let group = at.target.id()?;
    let member = reference(&body.fields)?;
    if member == group {
        return Err(bad_request("A group cannot be a member of itself."));
    }
    if at.directory.snapshot().members_of(group).count() >= MEMBERS_MAX {
        return Err(bad_request(format!("A group can have at most {MEMBERS_MAX} members.")));
    }
    let mut change = at.change(&permit);
    loop {
        let mut batch = Batch::new();
        // A membership that outlives its group would still give what the group was given.
        if !at.hold(&mut batch, GROUPS, group).await? {
            return Err(at.target.not_found());
        }
        if !at.hold_member(&mut batch, member).await? {
            return Err(not_found(&member.to_string()));
        }
        if at.directory.store.get(MEMBERS, &(group, member)).await?.is_some() {
            return Err(bad_request(
                "One or more added object references already exist for the following modified properties: \
                 'members'.",
            ));
        }
        batch.require_absent(MEMBERS, &(group, member));
        batch.put(MEMBERS, &(group, member), &Link { group, member })?;
        if change.commit(batch).await? {
            return Ok(Reply::empty(StatusCode::NO_CONTENT));
        }
    }
}

pub(super) async fn remove_member(
    at: At<Graph>,
    permit: Permit<GroupMembersUpdate>,
    request: Request,
) -> Result<Reply, Fault> {
    let group = at.target.id()?;
    let text = request.param("other");
    let member = Uuid::try_parse(text).map_err(|_| not_found(text))?;
    let row = at.directory.store.get(MEMBERS, &(group, member)).await?.ok_or_else(|| not_found(text))?;
    let mut batch = Batch::new();
    batch.require_revision(MEMBERS, &(group, member), row.revision);
    batch.delete(MEMBERS, &(group, member));
    match at.commit(&permit, batch).await? {
        Committed::Written => Ok(Reply::empty(StatusCode::NO_CONTENT)),
        Committed::LostRace => Err(not_found(text)),
    }
}

pub(super) async fn owners(at: At<Graph>, _: Permit<GroupsRead>, request: Request) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let owners = at.directory.snapshot().owners_of(id).collect();
    at.mixed(&request, typed_list(&at, owners))
}

pub(super) async fn owner_add(
    at: At<Graph>,
    permit: Permit<GroupOwnersUpdate>,
    body: Body,
) -> Result<Reply, Fault> {
    let owner = reference(&body.fields)?;
    add_owner(&at, &permit, GROUPS, at.target.id()?, owner).await
}

pub(super) async fn owner_remove(
    at: At<Graph>,
    permit: Permit<GroupOwnersUpdate>,
    request: Request,
) -> Result<Reply, Fault> {
    remove_owner(&at, &permit, at.target.id()?, request.param("other")).await
}

/// The groups that an object is directly in.
pub(super) async fn member_of<A: Action>(
    at: At<Graph>,
    _: Permit<A>,
    request: Request,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let groups = at.directory.snapshot().direct_groups_of(id).collect();
    at.mixed(&request, typed_list(&at, groups))
}

/// The groups that an object is in, directly or through others.
pub(super) async fn transitive_member_of<A: Action>(
    at: At<Graph>,
    _: Permit<A>,
    request: Request,
) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let groups = at.directory.snapshot().transitive_groups_of(id).into_iter().collect();
    at.mixed(&request, typed_list(&at, groups))
}
