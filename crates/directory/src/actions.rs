//! What can be done in the directory, in the words of its own roles.

use arcadia_kernel::action;

action!(pub UsersRead, Directory, "microsoft.directory/users/standard/read");
action!(pub UsersCreate, Directory, "microsoft.directory/users/create");
action!(pub UsersUpdate, Directory, "microsoft.directory/users/basic/update");
action!(pub UsersRevokeSessions, Directory, "microsoft.directory/users/invalidateAllRefreshTokens");
action!(pub UsersDelete, Directory, "microsoft.directory/users/delete");
action!(pub GroupsRead, Directory, "microsoft.directory/groups/standard/read");
action!(pub GroupMembersRead, Directory, "microsoft.directory/groups/members/read");
action!(pub GroupsCreate, Directory, "microsoft.directory/groups/create");
action!(pub GroupsUpdate, Directory, "microsoft.directory/groups/basic/update");
action!(pub GroupMembersUpdate, Directory, "microsoft.directory/groups/members/update");
action!(pub GroupOwnersUpdate, Directory, "microsoft.directory/groups/owners/update");
action!(pub GroupsDelete, Directory, "microsoft.directory/groups/delete");
action!(pub ApplicationsRead, Directory, "microsoft.directory/applications/standard/read");
action!(pub ApplicationsCreate, Directory, "microsoft.directory/applications/create");
action!(pub ApplicationsUpdate, Directory, "microsoft.directory/applications/basic/update");
action!(pub ApplicationCredentialsUpdate, Directory, "microsoft.directory/applications/credentials/update");
action!(pub ApplicationOwnersUpdate, Directory, "microsoft.directory/applications/owners/update");
action!(pub ApplicationsDelete, Directory, "microsoft.directory/applications/delete");
action!(pub PrincipalsRead, Directory, "microsoft.directory/servicePrincipals/standard/read");
action!(pub PrincipalsCreate, Directory, "microsoft.directory/servicePrincipals/create");
action!(pub PrincipalsUpdate, Directory, "microsoft.directory/servicePrincipals/basic/update");
action!(
    pub PrincipalCredentialsUpdate, Directory,
    "microsoft.directory/servicePrincipals/credentials/update"
);
action!(pub PrincipalOwnersUpdate, Directory, "microsoft.directory/servicePrincipals/owners/update");
action!(pub PrincipalsDelete, Directory, "microsoft.directory/servicePrincipals/delete");
action!(pub ObjectsRead, Directory, "microsoft.directory/directoryObjects/standard/read");
action!(pub DeletedRead, Directory, "microsoft.directory/deletedItems.applications/standard/read");
action!(pub DeletedRestore, Directory, "microsoft.directory/deletedItems.applications/restore");
action!(pub DeletedDelete, Directory, "microsoft.directory/deletedItems.applications/delete");
action!(pub OrganizationRead, Directory, "microsoft.directory/organization/standard/read");
action!(pub DomainsRead, Directory, "microsoft.directory/domains/standard/read");
action!(pub RoleMembersRead, Directory, "microsoft.directory/roleAssignments/standard/read");
action!(pub RoleMembersUpdate, Directory, "microsoft.directory/roleAssignments/allProperties/update");
