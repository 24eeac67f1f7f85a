//! Every operation of Graph, on one page.

use arcadia_kernel::{Method, Op, op, signed_in};

use crate::actions::{GroupMembersRead, ObjectsRead, PrincipalsRead, UsersRead};
use crate::graph::groups::{member_of, transitive_member_of};
use crate::graph::objects::{check_member_groups, member_groups};
use crate::graph::{Graph, applications, deleted, groups, me, objects, principals, roles, users};

pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
const OWN: &str = "it shows the caller to itself and nobody else";

/// Every operation of the service.
pub fn graph_ops() -> Vec<Op<Graph>> {
    let mut ops = own_ops();
    ops.extend(user_ops());
    ops.extend(group_ops());
    ops.extend(application_ops());
    ops.extend(principal_ops());
    ops.extend(object_ops());
    for op in &mut ops {
        op.info.body_bytes_max = Some(BODY_BYTES_MAX);
    }
    ops
}

fn own_ops() -> Vec<Op<Graph>> {
    vec![
        signed_in("MeGet", Method::GET, "/{api}/me", OWN, me::show),
        signed_in("MeMemberOf", Method::GET, "/{api}/me/memberOf", OWN, me::member_of),
        signed_in("MeOwnedObjects", Method::GET, "/{api}/me/ownedObjects", OWN, me::owned_objects),
        signed_in(
            "MeRevokeSignInSessions",
            Method::POST,
            "/{api}/me/revokeSignInSessions",
            "it ends the caller's own sessions, for which the client must act with all of the caller's rights",
            me::revoke_sessions,
        ),
        signed_in("UserInfo", Method::GET, "/oidc/userinfo", OWN, me::user_info),
        signed_in("UserInfoPost", Method::POST, "/oidc/userinfo", OWN, me::user_info),
    ]
}

fn user_ops() -> Vec<Op<Graph>> {
    let (get, post) = (Method::GET, Method::POST);
    vec![
        op("UserList", get.clone(), "/{api}/users", users::list),
        op("UserCreate", post.clone(), "/{api}/users", users::create),
        op("UserMemberOf", get.clone(), "/{api}/users/{id}/memberOf", member_of::<UsersRead>),
        op(
            "UserTransitiveMemberOf",
            get.clone(),
            "/{api}/users/{id}/transitiveMemberOf",
            transitive_member_of::<UsersRead>,
        ),
        op(
            "UserCheckMemberGroups",
            post.clone(),
            "/{api}/users/{id}/checkMemberGroups",
            check_member_groups::<UsersRead>,
        ),
        op("UserGet", get, "/{api}/users/{id}", users::show),
        op("UserUpdate", Method::PATCH, "/{api}/users/{id}", users::update),
        op("UserDelete", Method::DELETE, "/{api}/users/{id}", users::delete),
        op(
            "UserRevokeSignInSessions",
            post.clone(),
            "/{api}/users/{id}/revokeSignInSessions",
            users::revoke_sessions,
        ),
        op("UserGetMemberGroups", post, "/{api}/users/{id}/getMemberGroups", member_groups::<UsersRead>),
    ]
}

fn group_ops() -> Vec<Op<Graph>> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    vec![
        op("GroupList", get.clone(), "/{api}/groups", groups::list),
        op("GroupCreate", post.clone(), "/{api}/groups", groups::create),
        op("GroupGet", get.clone(), "/{api}/groups/{id}", groups::show),
        op("GroupUpdate", Method::PATCH, "/{api}/groups/{id}", groups::update),
        op("GroupDelete", delete.clone(), "/{api}/groups/{id}", groups::delete),
        op("GroupMembers", get.clone(), "/{api}/groups/{id}/members", groups::members),
        op(
            "GroupTransitiveMembers",
            get.clone(),
            "/{api}/groups/{id}/transitiveMembers",
            groups::transitive_members,
        ),
        op("GroupMemberAdd", post.clone(), "/{api}/groups/{id}/members/$ref", groups::add_member),
        op(
            "GroupMemberRemove",
            delete.clone(),
            "/{api}/groups/{id}/members/{other}/$ref",
            groups::remove_member,
        ),
        op("GroupOwners", get.clone(), "/{api}/groups/{id}/owners", groups::owners),
        op("GroupOwnerAdd", post.clone(), "/{api}/groups/{id}/owners/$ref", groups::owner_add),
        op("GroupOwnerRemove", delete, "/{api}/groups/{id}/owners/{other}/$ref", groups::owner_remove),
        op("GroupMemberOf", get, "/{api}/groups/{id}/memberOf", member_of::<GroupMembersRead>),
        op(
            "GroupGetMemberGroups",
            post.clone(),
            "/{api}/groups/{id}/getMemberGroups",
            member_groups::<GroupMembersRead>,
        ),
        op(
            "GroupCheckMemberGroups",
            post,
            "/{api}/groups/{id}/checkMemberGroups",
            check_member_groups::<GroupMembersRead>,
        ),
    ]
}

fn application_ops() -> Vec<Op<Graph>> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    vec![
        op("ApplicationList", get.clone(), "/{api}/applications", applications::list),
        op("ApplicationCreate", post.clone(), "/{api}/applications", applications::create),
        op("ApplicationGet", get.clone(), "/{api}/applications/{id}", applications::show),
        op("ApplicationUpdate", Method::PATCH, "/{api}/applications/{id}", applications::update),
        op("ApplicationDelete", delete.clone(), "/{api}/applications/{id}", applications::delete),
        op(
            "ApplicationAddPassword",
            post.clone(),
            "/{api}/applications/{id}/addPassword",
            applications::add_password,
        ),
        op(
            "ApplicationRemovePassword",
            post.clone(),
            "/{api}/applications/{id}/removePassword",
            applications::remove_password,
        ),
        op("ApplicationOwners", get.clone(), "/{api}/applications/{id}/owners", applications::owners),
        op(
            "ApplicationOwnerAdd",
            post.clone(),
            "/{api}/applications/{id}/owners/$ref",
            applications::owner_add,
        ),
        op(
            "ApplicationOwnerRemove",
            delete.clone(),
            "/{api}/applications/{id}/owners/{other}/$ref",
            applications::owner_remove,
        ),
        op(
            "DeletedApplicationList",
            get.clone(),
            "/{api}/directory/deletedItems/microsoft.graph.application",
            deleted::list,
        ),
        op("DeletedItemGet", get, "/{api}/directory/deletedItems/{id}", deleted::show),
        op("DeletedItemDelete", delete, "/{api}/directory/deletedItems/{id}", deleted::delete),
        op("DeletedItemRestore", post, "/{api}/directory/deletedItems/{id}/restore", deleted::restore),
    ]
}

fn principal_ops() -> Vec<Op<Graph>> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let at = "/{api}/servicePrincipals";
    vec![
        op("ServicePrincipalList", get.clone(), at, principals::list),
        op("ServicePrincipalCreate", post.clone(), at, principals::create),
        op("ServicePrincipalGet", get.clone(), "/{api}/servicePrincipals/{id}", principals::show),
        op("ServicePrincipalUpdate", Method::PATCH, "/{api}/servicePrincipals/{id}", principals::update),
        op("ServicePrincipalDelete", delete.clone(), "/{api}/servicePrincipals/{id}", principals::delete),
        op(
            "ServicePrincipalAddPassword",
            post.clone(),
            "/{api}/servicePrincipals/{id}/addPassword",
            principals::add_password,
        ),
        op(
            "ServicePrincipalRemovePassword",
            post.clone(),
            "/{api}/servicePrincipals/{id}/removePassword",
            principals::remove_password,
        ),
        op("ServicePrincipalOwners", get.clone(), "/{api}/servicePrincipals/{id}/owners", principals::owners),
        op(
            "ServicePrincipalOwnerAdd",
            post.clone(),
            "/{api}/servicePrincipals/{id}/owners/$ref",
            principals::owner_add,
        ),
        op(
            "ServicePrincipalOwnerRemove",
            delete,
            "/{api}/servicePrincipals/{id}/owners/{other}/$ref",
            principals::owner_remove,
        ),
        op(
            "ServicePrincipalMemberOf",
            get,
            "/{api}/servicePrincipals/{id}/memberOf",
            member_of::<PrincipalsRead>,
        ),
        op(
            "ServicePrincipalGetMemberGroups",
            post.clone(),
            "/{api}/servicePrincipals/{id}/getMemberGroups",
            member_groups::<PrincipalsRead>,
        ),
        op(
            "ServicePrincipalCheckMemberGroups",
            post,
            "/{api}/servicePrincipals/{id}/checkMemberGroups",
            check_member_groups::<PrincipalsRead>,
        ),
    ]
}

fn object_ops() -> Vec<Op<Graph>> {
    let (get, post) = (Method::GET, Method::POST);
    let assignments = "/{api}/roleManagement/directory/roleAssignments";
    vec![
        op("DirectoryObjectsGetByIds", post.clone(), "/{api}/directoryObjects/getByIds", objects::by_ids),
        op("DirectoryObjectGet", get.clone(), "/{api}/directoryObjects/{id}", objects::show),
        op(
            "DirectoryObjectGetMemberGroups",
            post.clone(),
            "/{api}/directoryObjects/{id}/getMemberGroups",
            member_groups::<ObjectsRead>,
        ),
        op(
            "DirectoryObjectCheckMemberGroups",
            post.clone(),
            "/{api}/directoryObjects/{id}/checkMemberGroups",
            check_member_groups::<ObjectsRead>,
        ),
        op("OrganizationList", get.clone(), "/{api}/organization", objects::organizations),
        op("DomainList", get.clone(), "/{api}/domains", objects::domains),
        op(
            "DirectoryRoleDefinitionList",
            get.clone(),
            "/{api}/roleManagement/directory/roleDefinitions",
            roles::definitions,
        ),
        op("DirectoryRoleAssignmentList", get, assignments, roles::list),
        op("DirectoryRoleAssignmentCreate", post, assignments, roles::add),
        op(
            "DirectoryRoleAssignmentDelete",
            Method::DELETE,
            "/{api}/roleManagement/directory/roleAssignments/{assignment}",
            roles::remove,
        ),
    ]
}
