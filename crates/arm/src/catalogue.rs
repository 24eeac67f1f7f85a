//! `az provider operation`: every action that a row of this site is decided on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use arcadia_kernel::{
    Access, At, Fault, Method, Op, OpInfo, Permit, Plane, Reply, Request, SignedIn, signed_in,
};
use serde_json::{Value, json};

use crate::Arm;
use crate::error;

/// Action name and whether it is one on data.
pub(crate) type Actions = BTreeSet<(String, bool)>;

pub(crate) fn rows() -> Vec<Op<Arm>> {
    const BECAUSE: &str = "tells which actions there are to put into roles, which every client may know";
    vec![
        signed_in(
            "ProviderOperationsListAtTenant",
            Method::GET,
            "/providers/Microsoft.Authorization/providerOperations",
            BECAUSE,
            list,
        ),
        signed_in(
            "ProviderOperationsGetAtTenant",
            Method::GET,
            "/providers/Microsoft.Authorization/providerOperations/{providerNamespace}",
            BECAUSE,
            get,
        ),
    ]
}

impl Arm {
    /// Adds the actions of operation tables to what `providerOperations` lists. The resource manager's own are
    /// there already; the site adds those of its other services.
    pub fn publish_operations<'a>(&self, rows: impl IntoIterator<Item = &'a OpInfo>) {
        let mut actions = self.actions.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            if let Access::Decided { action, plane: plane @ (Plane::Control | Plane::Data) } = &row.access {
                actions.insert((action.to_string(), *plane == Plane::Data));
            }
        }
    }

    /// By namespace, then by resource type; those of the namespace itself under no type.
    fn operations(&self) -> BTreeMap<String, BTreeMap<String, Vec<Value>>> {
        let mut by_namespace: BTreeMap<String, BTreeMap<String, Vec<Value>>> = BTreeMap::new();
        for (action, is_data) in self.actions.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let (type_name, verb) = split(action);
            let (namespace, name) = type_name.split_once('/').unwrap_or((type_name, ""));
            by_namespace.entry(namespace.to_owned()).or_default().entry(name.to_owned()).or_default().push(
                json!({
                    "name": action,
                    "displayName": verb,
                    "description": format!("{verb} on {type_name}"),
                    "isDataAction": is_data,
                }),
            );
        }
        by_namespace
    }
}

/// `Microsoft.KeyVault/vaults/secrets/getSecret/action` is the verb `getSecret` on `…/vaults/secrets`.
fn split(action: &str) -> (&str, &str) {
    let verb_at = action.strip_suffix("/action").unwrap_or(action).rfind('/').unwrap_or(0);
    let (type_name, verb) = action.split_at(verb_at);
    let verb = verb.trim_start_matches('/');
    (type_name, verb.strip_suffix("/action").unwrap_or(verb))
}

fn view(namespace: &str, types: &BTreeMap<String, Vec<Value>>) -> Value {
    let own = types.get("").cloned().unwrap_or_default();
    let types: Vec<Value> = types
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, operations)| json!({ "name": name, "displayName": name, "operations": operations }))
        .collect();
    json!({
        "id": format!("/providers/Microsoft.Authorization/providerOperations/{namespace}"),
        "type": "Microsoft.Authorization/providerOperations",
        "name": namespace,
        "displayName": namespace,
        "resourceTypes": types,
        "operations": own,
    })
}

async fn list(at: At<Arm>, _: Permit<SignedIn>, _: Request) -> Result<Reply, Fault> {
    let value: Vec<Value> = at.operations().iter().map(|(namespace, types)| view(namespace, types)).collect();
    Reply::ok(&json!({ "value": value }))
}

async fn get(at: At<Arm>, _: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    let wanted = request.param("providerNamespace");
    let operations = at.operations();
    let found = operations.iter().find(|(namespace, _)| namespace.eq_ignore_ascii_case(wanted));
    let Some((namespace, types)) = found else {
        let message = format!("The resource namespace '{}' is invalid.", error::shown(wanted));
        return Err(Fault::not_found("InvalidResourceNamespace", message));
    };
    Reply::ok(&view(namespace, types))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_a_verb_on_a_type() {
        assert_eq!(split("N.X/a/read"), ("N.X/a", "read"));
        assert_eq!(split("N.X/a/b/getB/action"), ("N.X/a/b", "getB"));
    }
}
