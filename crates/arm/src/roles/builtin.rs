//! The built-in roles, from `data/roles.json`.

use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use uuid::Uuid;

use crate::roles::{PermissionBlock, RoleDefinition};

const DATA: &str = include_str!("../../data/roles.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: Uuid,
    role_name: String,
    description: String,
    permissions: Vec<PermissionBlock>,
}

/// Every built-in role, sorted by name. Read once.
pub(crate) fn builtin_roles() -> &'static [Arc<RoleDefinition>] {
    static ROLES: OnceLock<Vec<Arc<RoleDefinition>>> = OnceLock::new();
    ROLES.get_or_init(|| match serde_json::from_str::<Vec<Row>>(DATA) {
        Ok(rows) => rows.into_iter().map(|row| Arc::new(definition(row))).collect(),
        Err(error) => {
            // The file is part of the program and a test reads it; without roles nothing is allowed.
            tracing::error!(%error, "the built-in roles cannot be read");
            Vec::new()
        }
    })
}

pub(crate) fn role_by_id(id: Uuid) -> Option<&'static Arc<RoleDefinition>> {
    builtin_roles().iter().find(|role| role.id == id)
}

fn definition(row: Row) -> RoleDefinition {
    RoleDefinition {
        id: row.id,
        role_name: row.role_name,
        description: row.description,
        permissions: row.permissions,
        assignable_scopes: Vec::new(),
        custom: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Condition;
    use crate::roles::OWNER_ROLE;

    #[test]
    fn all_are_read_and_owner_holds_no_data() {
        assert_eq!(builtin_roles().len(), 928);
        let owner = role_by_id(OWNER_ROLE).unwrap();
        assert_eq!(owner.role_name, "Owner");
        assert_eq!(owner.permissions[0].actions, ["*"]);
        assert!(owner.permissions.iter().all(|block| block.data_actions.is_empty()));
    }

    #[test]
    fn every_condition_of_a_built_in_role_is_understood() {
        let conditions: Vec<_> = builtin_roles()
            .iter()
            .flat_map(|role| role.permissions.iter().filter_map(|block| block.condition.as_deref()))
            .collect();
        assert!(conditions.len() >= 29, "{}", conditions.len());
        for condition in conditions {
            assert!(Condition::parse(condition).is_ok(), "{condition}: {:?}", Condition::parse(condition));
        }
    }
}
