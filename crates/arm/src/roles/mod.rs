//! Role definitions and role assignments: what is stored, what clients see, and the rows that change them.

mod administrators;
mod assignments;
mod builtin;
mod definitions;
mod elevation;
mod scopes;

use arcadia_kernel::ArmId;
use arcadia_store::{Record, Table};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

pub use assignments::end_assignments;
pub(crate) use assignments::{delete_at_and_below, put_founding, rows as assignment_rows, thin_out};
pub(crate) use builtin::{builtin_roles, role_by_id};
pub(crate) use definitions::rows as definition_rows;
pub(crate) use elevation::{ElevateAccess, rows as elevation_rows};

use crate::principal::PrincipalType;

/// Custom role definitions by id.
pub(crate) const CUSTOM_ROLES: Table<Uuid, RoleDefinition> = Table::new("arm/customRoles");
/// Custom role definitions by folded name, so that a name is used once.
pub(crate) const ROLE_NAMES: Table<String, RoleName> = Table::new("arm/customRoleNames");
/// Role assignments by identifier, so that a scope is a prefix of those at and below it.
pub(crate) const ASSIGNMENTS: Table<ArmId, Assignment> = Table::new("arm/roleAssignments");
/// Role assignments by their own GUID, which is used once in a tenant.
pub(crate) const ASSIGNMENT_NAMES: Table<Uuid, AssignmentRef> = Table::new("arm/roleAssignmentNames");
/// Role assignments by what they say, which is said once.
pub(crate) const ASSIGNMENT_GRANTS: Table<(Uuid, Uuid, ArmId), AssignmentRef> =
    Table::new("arm/roleAssignmentGrants");

/// `Owner`: everything but data.
pub(crate) const OWNER_ROLE: Uuid = Uuid::from_u128(0x8e3af657_a8ff_443c_a75c_2fe8c4bcb635);
/// `User Access Administrator`: assigns roles, and reads everything but data.
const USER_ACCESS_ADMINISTRATOR_ROLE: Uuid = Uuid::from_u128(0x18d7d88d_d35e_4fb5_a5c3_7773c20a72d9);

pub(crate) const DEFINITIONS_TYPE: &str = "Microsoft.Authorization/roleDefinitions";
pub(crate) const ASSIGNMENTS_TYPE: &str = "Microsoft.Authorization/roleAssignments";

/// One block of a role: what it allows, less what it takes back, when its condition holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PermissionBlock {
    pub actions: Vec<String>,
    pub not_actions: Vec<String>,
    pub data_actions: Vec<String>,
    pub not_data_actions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition_version: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoleDefinition {
    pub id: Uuid,
    pub role_name: String,
    pub description: String,
    pub permissions: Vec<PermissionBlock>,
    /// Empty for a built-in role, which is assignable everywhere.
    #[serde(default)]
    pub assignable_scopes: Vec<ArmId>,
    #[serde(default)]
    pub custom: Option<CustomFacts>,
}

/// What only custom roles have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CustomFacts {
    pub created_on: Timestamp,
    pub updated_on: Timestamp,
    pub created_by: Uuid,
    pub updated_by: Uuid,
}

impl Record for RoleDefinition {}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RoleName {
    pub id: Uuid,
}

impl Record for RoleName {}

impl RoleDefinition {
    /// As clients see it. The identifier carries the subscription of the query, as it does in Azure.
    pub(crate) fn view(&self, subscription: Option<&str>) -> Value {
        let scopes: Vec<&str> = match self.custom {
            None => vec!["/"],
            Some(_) => self.assignable_scopes.iter().map(ArmId::as_str).collect(),
        };
        json!({
            "properties": {
                "roleName": self.role_name,
                "type": if self.custom.is_some() { "CustomRole" } else { "BuiltInRole" },
                "description": self.description,
                "assignableScopes": scopes,
                "permissions": self.permissions,
                "createdOn": self.custom.as_ref().map(|c| c.created_on),
                "updatedOn": self.custom.as_ref().map(|c| c.updated_on),
                "createdBy": self.custom.as_ref().map(|c| c.created_by),
                "updatedBy": self.custom.as_ref().map(|c| c.updated_by),
            },
            "id": role_definition_id(self.id, subscription),
            "type": DEFINITIONS_TYPE,
            "name": self.id,
        })
    }

    /// Whether the role can be assigned at `scope`.
    pub(crate) fn assignable_at(&self, scope: &ArmId) -> bool {
        self.custom.is_none() || self.assignable_scopes.iter().any(|assignable| assignable.contains(scope))
    }
}

pub(crate) fn role_definition_id(role: Uuid, subscription: Option<&str>) -> String {
    match subscription {
        Some(subscription) => format!("/subscriptions/{subscription}/providers/{DEFINITIONS_TYPE}/{role}"),
        None => format!("/providers/{DEFINITIONS_TYPE}/{role}"),
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Assignment {
    pub name: Uuid,
    pub scope: ArmId,
    pub role_id: Uuid,
    pub principal_id: Uuid,
    pub principal_type: PrincipalType,
    #[serde(default)]
    pub condition: Option<String>,
    #[serde(default)]
    pub condition_version: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    pub created_on: Timestamp,
    pub updated_on: Timestamp,
    pub created_by: Uuid,
    pub updated_by: Uuid,
}

impl Record for Assignment {}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AssignmentRef {
    pub id: ArmId,
}

impl Record for AssignmentRef {}

impl Assignment {
    pub(crate) fn id(&self) -> ArmId {
        let name = self.name.to_string();
        let tail = ["providers", "Microsoft.Authorization", "roleAssignments", &name];
        // A stored scope leaves room for its assignments; `scopes::check` saw to it.
        ArmId::from_segments(self.scope.segments().chain(tail)).unwrap_or_else(|_| self.scope.clone())
    }

    pub(crate) fn grant_key(&self) -> (Uuid, Uuid, ArmId) {
        (self.principal_id, self.role_id, self.scope.clone())
    }

    /// As clients see it. The role's identifier carries the subscription of the query, because `az` compares
    /// it with those of the role definitions that it lists at the same scope.
    pub(crate) fn view(&self, subscription: Option<&str>, just_created: bool) -> Value {
        let subscription = subscription.or(self.scope.subscription());
        json!({
            "properties": {
                "roleDefinitionId": role_definition_id(self.role_id, subscription),
                "principalId": self.principal_id,
                "principalType": self.principal_type,
                "scope": self.scope,
                "condition": self.condition,
                "conditionVersion": self.condition_version,
                "createdOn": self.created_on,
                "updatedOn": self.updated_on,
                "createdBy": if just_created { None } else { Some(self.created_by) },
                "updatedBy": self.updated_by,
                "delegatedManagedIdentityResourceId": null,
                "description": self.description,
            },
            "id": self.id(),
            "type": ASSIGNMENTS_TYPE,
            "name": self.name,
        })
    }
}
