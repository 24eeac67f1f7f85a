//! The caller itself.

use arcadia_kernel::{ArmId, At, CallerKind, Fault, Permit, Reply, Request, SignedIn};
use serde_json::Map;

use crate::actions::UsersRevokeSessions;
use crate::graph::objects::typed_list;
use crate::graph::render::{Shown as _, typed};
use crate::graph::users::end_sessions;
use crate::graph::{Graph, faults};
use crate::login::issue::pairwise;
use crate::model::User;
use crate::snapshot::DirectoryObject;

fn caller(at: &At<Graph>, permit: &Permit<SignedIn>) -> Result<std::sync::Arc<User>, Fault> {
    if permit.caller().kind != CallerKind::User {
        let message = "/me request is only valid with delegated authentication flow.";
        return Err(Fault::bad_request("BadRequest", message));
    }
    let id = permit.caller().object_id;
    let snapshot = at.directory.snapshot();
    let user = snapshot.users.get(&id).filter(|user| user.enabled);
    user.cloned().ok_or_else(|| faults::not_found(&id.to_string()))
}

pub(super) async fn show(at: At<Graph>, permit: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    let user = caller(&at, &permit)?;
    at.one(&request, "users", user.show())
}

/// The groups the caller is in.
pub(super) async fn member_of(
    at: At<Graph>,
    permit: Permit<SignedIn>,
    request: Request,
) -> Result<Reply, Fault> {
    let user = caller(&at, &permit)?;
    let items = {
        let snapshot = at.directory.snapshot();
        let groups = snapshot.direct_groups_of(user.id).filter_map(|id| snapshot.groups.get(&id).cloned());
        groups.map(|group| (group.id, typed(&snapshot, &DirectoryObject::Group(group)))).collect()
    };
    at.mixed(&request, items)
}

/// What the caller owns.
pub(super) async fn owned_objects(
    at: At<Graph>,
    permit: Permit<SignedIn>,
    request: Request,
) -> Result<Reply, Fault> {
    let user = caller(&at, &permit)?;
    let owned = at.directory.snapshot().owned_by(user.id).collect();
    at.mixed(&request, typed_list(&at, owned))
}

/// Ends every session that the caller began so far, this one too.
pub(super) async fn revoke_sessions(
    at: At<Graph>,
    permit: Permit<SignedIn>,
    request: Request,
) -> Result<Reply, Fault> {
    let id = caller(&at, &permit)?.id;
    let scope = ArmId::from_segments(["users", &id.to_string()]).map_err(Fault::internal)?;
    let permit =
        permit.also::<UsersRevokeSessions>(&scope).map_err(|denial| faults::insufficient(&denial))?;
    end_sessions(&at, &permit, id, &request).await
}

/// OpenID Connect's description of the person (OpenID Connect Core section 5.3), with the `sub` of the id token. What
/// is not known is left out.
pub(super) async fn user_info(at: At<Graph>, permit: Permit<SignedIn>, _: Request) -> Result<Reply, Fault> {
    let user = caller(&at, &permit)?;
    let mut claims = Map::new();
    claims.insert("sub".into(), pairwise(user.id, permit.caller().app_id).into());
    claims.insert("name".into(), user.display_name.as_str().into());
    claims.insert("preferred_username".into(), user.upn.as_str().into());
    for (claim, property) in [("given_name", "givenName"), ("family_name", "surname"), ("email", "mail")] {
        claims.extend(user.profile.get(property).map(|value| (claim.to_owned(), value.clone())));
    }
    Reply::ok(&claims)
}
