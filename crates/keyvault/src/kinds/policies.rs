//! `PUT .../vaults/{name}/accessPolicies/{add|replace|remove}`: changes to access policies one by one.

use std::sync::Arc;

use arcadia_arm::{Arm, RESOURCES, caller_name, caller_type};
use arcadia_kernel::{ArmId, At, Fault, Json, Method, Op, Permit, Reply, action, op};
use serde::Deserialize;
use serde_json::json;

use crate::KeyVault;
use crate::vault::policy::{AccessPolicy, UpdateKind};
use crate::vault::properties::{VaultProperties, bad_request, checked_policies};

action!(WriteAccessPolicies, Control, "Microsoft.KeyVault/vaults/accessPolicies/write");

#[derive(Deserialize)]
struct UpdateBody {
    properties: UpdateProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdateProperties {
    access_policies: Vec<AccessPolicy>,
}

pub(super) fn ops(keyvault: &Arc<KeyVault>) -> Vec<Op<Arm>> {
    let keyvault = keyvault.clone();
    vec![op(
        "VaultAccessPolicyUpdate",
        Method::PUT,
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.KeyVault/vaults/{name}/accessPolicies/{kind}",
        move |_: At<Arm>, permit, body| update(keyvault.clone(), permit, body),
    )]
}

fn vault_not_found(id: &ArmId) -> Fault {
    let message = format!(
        "The Resource 'Microsoft.KeyVault/vaults/{}' under resource group '{}' was not found. For more details \
         please go to https://aka.ms/ARMResourceNotFoundFix",
        id.name(),
        id.resource_group().unwrap_or("<null>"),
    );
    Fault::not_found("ResourceNotFound", message)
}

async fn update(
    keyvault: Arc<KeyVault>,
    permit: Permit<WriteAccessPolicies>,
    body: Json<UpdateBody>,
) -> Result<Reply, Fault> {
    let kind = UpdateKind::parse(body.head.param("kind"))
        .ok_or_else(|| bad_request("Access policies are changed by 'add', 'replace' or 'remove'."))?;
    let tenant = keyvault.directory.tenant().id;
    let change = checked_policies(body.value.properties.access_policies, tenant)?;
    let id = permit.scope().parent().and_then(|list| list.parent());
    let id = id.ok_or_else(|| Fault::internal("the scope of an access policy is not below a vault"))?;
    let mut attempts = keyvault.store.attempts();
    loop {
        let row = keyvault.store.get(RESOURCES, &id).await?.ok_or_else(|| vault_not_found(&id))?;
        let mut resource = row.value;
        let mut properties = VaultProperties::stored(&resource).map_err(Fault::internal)?;
        kind.apply(&mut properties.access_policies, change.clone());
        properties.access_policies = checked_policies(properties.access_policies, tenant)?;
        resource.properties = serde_json::to_value(&properties).map_err(Fault::internal)?;
        resource.modified_at = permit.now();
        resource.modified_by = caller_name(permit.caller());
        resource.modified_by_type = caller_type(permit.caller()).to_owned();
        let mut batch = arcadia_store::Batch::new();
        batch.require_revision(RESOURCES, &id, row.revision);
        batch.put(RESOURCES, &id, &resource)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return Reply::ok(&json!({
                "id": format!("{id}/accessPolicies/"),
                "type": "Microsoft.KeyVault/vaults/accessPolicies",
                "location": resource.location,
                "properties": { "accessPolicies": properties.access_policies },
            }));
        }
    }
}
