//! `Microsoft.KeyVault/vaults`.

use std::sync::Arc;

use arcadia_arm::{Arm, Desired, NameRule, Plan, Resource, ResourceKind};
use arcadia_kernel::{EntropyExt as _, Fault, Op, StatusCode};
use async_trait::async_trait;
use serde_json::Value;

use super::{deleted, names, policies};
use crate::KeyVault;
use crate::records::{DELETED_VAULTS, DUE, DeletedVault, Due, NAMES, NameClaim, folded};
use crate::vault::VAULT_TYPE;
use crate::vault::properties::{CreateMode, VaultProperties, VaultRequest};

/// What a caller must be allowed on the vault to change its permission model: only then does the change give
/// it nothing that it could not give itself.
const CHANGE_OF_MODEL: &str = "Microsoft.Authorization/roleAssignments/write";

/// The kind; its rows change what [`KeyVault`] serves.
pub struct Vaults(pub Arc<KeyVault>);

/// Whether `name` begins with a letter, ends with a letter or digit and has no two hyphens together.
fn fits(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && !name.ends_with('-')
        && !name.contains("--")
}

/// Where a deleted vault is: by subscription and name.
pub(super) fn place(resource: &Resource) -> (String, String) {
    (folded(resource.id.subscription().unwrap_or("")), folded(resource.id.name()))
}

#[async_trait]
impl ResourceKind for Vaults {
    const TYPE: &'static str = VAULT_TYPE;
    const API_VERSIONS: &'static [&'static str] = &[
        "2026-02-01",
        "2025-05-01",
        "2024-11-01",
        "2024-04-01-preview",
        "2023-07-01",
        "2023-02-01",
        "2022-07-01",
        "2021-10-01",
        "2019-09-01",
        "2018-02-14",
        "2016-10-01",
    ];
    const NAME_RULE: NameRule = NameRule {
        chars_min: 3,
        chars_max: 24,
        pattern: "^[a-zA-Z](?!.*--)[a-zA-Z0-9-]*[a-zA-Z0-9]$",
        check: fits,
    };

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        let request = VaultRequest::read(desired.properties.clone())?;
        match (current, request.create_mode()?) {
            (None, CreateMode::Recover) => self.recover(plan, &desired).await,
            (None, CreateMode::Default) => self.create(plan, request, desired).await,
            // A vault that is live needs no recovery; what else the request says is not looked at.
            (Some(current), CreateMode::Recover) => Ok(current.clone()),
            (Some(current), CreateMode::Default) => self.replace(plan, current, request, desired),
        }
    }

    fn recovers(&self, desired: &Desired) -> bool {
        let mode = VaultRequest::read(desired.properties.clone()).and_then(|request| request.create_mode());
        matches!(mode, Ok(CreateMode::Recover))
    }

    /// The vault is kept, soft-deleted, with all it holds; its name stays taken.
    async fn delete(&self, plan: &mut Plan<'_>, current: &Resource) -> Result<(), Fault> {
        let properties = VaultProperties::stored(current).map_err(Fault::internal)?;
        let name = folded(current.id.name());
        let claim = plan.store.get(NAMES, name.as_str()).await?;
        let claim = claim.ok_or_else(|| Fault::internal("a live vault does not hold its name"))?;
        let deleted_at = plan.now.as_second();
        let purge_at = deleted_at + i64::from(properties.soft_delete_retention_in_days) * 86_400;
        let place = place(current);
        let due = Due::of_vault(properties.instance, place.clone(), purge_at);
        let deleted = DeletedVault {
            resource: current.clone(),
            instance: properties.instance,
            deleted_at,
            purge_at,
            purge_protected: properties.is_purge_protected(),
        };
        plan.batch.require_revision(NAMES, name.as_str(), claim.revision);
        plan.batch.put(NAMES, name.as_str(), &NameClaim { deleted: true, ..claim.value })?;
        plan.batch.put(DELETED_VAULTS, &place, &deleted)?;
        plan.batch.put(DUE, &due.key(), &due)?;
        Ok(())
    }

    fn properties(&self, resource: &Resource, _api_version: &str) -> Value {
        match VaultProperties::stored(resource) {
            Ok(properties) => properties.shown(&self.0.vault_uri(resource.id.name())),
            Err(error) => {
                tracing::error!(vault = %resource.id, %error, "a stored vault cannot be read");
                Value::Object(serde_json::Map::new())
            }
        }
    }

    fn put_status(&self, _created: bool) -> StatusCode {
        StatusCode::OK
    }

    fn extra_ops(self: Arc<Self>) -> Vec<Op<Arm>> {
        let mut rows = deleted::ops(&self.0);
        rows.extend(names::ops(&self.0));
        rows.extend(policies::ops(&self.0));
        rows
    }
}

impl Vaults {
    async fn create(
        &self,
        plan: &mut Plan<'_>,
        request: VaultRequest,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        let name = folded(plan.id.name());
        if let Some(claim) = plan.store.get(NAMES, name.as_str()).await? {
            let is_own = claim.value.deleted && claim.value.vault_id == *plan.id;
            return Err(if is_own { is_deleted() } else { name_is_taken(plan.id.name()) });
        }
        let tenant = self.0.directory.tenant().id;
        let properties = request.over(None, tenant, plan.api_version, plan.entropy.uuid())?;
        let claim = NameClaim { vault_id: plan.id.clone(), instance: properties.instance, deleted: false };
        plan.batch.require_absent(NAMES, name.as_str());
        plan.batch.put(NAMES, name.as_str(), &claim)?;
        let stored = serde_json::to_value(&properties).map_err(Fault::internal)?;
        Ok(bare(Resource::planned(plan, None, desired, stored)))
    }

    fn replace(
        &self,
        plan: &mut Plan<'_>,
        current: &Resource,
        request: VaultRequest,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        let before = VaultProperties::stored(current).map_err(Fault::internal)?;
        let tenant = self.0.directory.tenant().id;
        let after = request.over(Some(&before), tenant, plan.api_version, before.instance)?;
        let model_changes = before.enable_rbac_authorization != after.enable_rbac_authorization;
        if model_changes && !self.0.may(plan.caller, CHANGE_OF_MODEL, &current.id) {
            return Err(model_change_refused(plan));
        }
        let stored = serde_json::to_value(&after).map_err(Fault::internal)?;
        Ok(bare(Resource::planned(plan, Some(current), desired, stored)))
    }

    /// Brings a deleted vault back as it was, with all its secrets.
    async fn recover(&self, plan: &mut Plan<'_>, desired: &Desired) -> Result<Resource, Fault> {
        let name = folded(plan.id.name());
        let place = (folded(plan.id.subscription().unwrap_or("")), name.clone());
        let claim = plan.store.get(NAMES, name.as_str()).await?;
        let deleted = plan.store.get(DELETED_VAULTS, &place).await?;
        let (Some(claim), Some(deleted)) = (claim, deleted) else {
            return Err(nothing_to_recover(plan.id.name()));
        };
        let DeletedVault { resource, instance, purge_at, .. } = deleted.value;
        let elsewhere = desired.location.as_ref().is_some_and(|location| *location != resource.location);
        if resource.id != *plan.id || elsewhere {
            return Err(nothing_to_recover(plan.id.name()));
        }
        plan.batch.require_revision(NAMES, name.as_str(), claim.revision);
        plan.batch.require_revision(DELETED_VAULTS, &place, deleted.revision);
        plan.batch.put(NAMES, name.as_str(), &NameClaim { deleted: false, ..claim.value })?;
        plan.batch.delete(DELETED_VAULTS, &place);
        plan.batch.delete(DUE, &Due::of_vault(instance, place, purge_at).key());
        Ok(bare(resource))
    }
}

/// A vault has no identity, and its sku is among its properties: what a client says of them beside these is nobody's, and
/// must not be shown as the vault's own.
fn bare(resource: Resource) -> Resource {
    Resource { identity: None, sku: None, kind: None, ..resource }
}

pub(super) fn taken_message(name: &str) -> String {
    format!(
        "The vault name '{name}' is already in use. Vault names are globally unique so it is possible that the \
         name is already taken. If you are sure that the vault name was not taken then it is possible that a \
         vault with the same name was recently deleted but not purged after being placed in a recoverable \
         state. If the vault is in a recoverable state then the vault will need to be purged before reusing the \
         name. For more information about VaultAlreadyExists, soft delete and purging a vault follow this link \
         https://go.microsoft.com/fwlink/?linkid=2147740."
    )
}

fn name_is_taken(name: &str) -> Fault {
    Fault::conflict("VaultAlreadyExists", taken_message(name))
}

fn is_deleted() -> Fault {
    Fault::conflict(
        "ConflictError",
        "A vault with the same name already exists in deleted state. You need to either recover or purge \
         existing key vault. Follow this link https://go.microsoft.com/fwlink/?linkid=2149745 for more \
         information on soft delete.",
    )
}

fn nothing_to_recover(name: &str) -> Fault {
    let message = format!(
        "There is no deleted vault '{name}' that can be recovered here. A vault is recovered in the \
         subscription, resource group and location that it was deleted in; 'az keyvault list-deleted' shows \
         them."
    );
    Fault::not_found("DeletedVaultNotFound", message)
}

fn model_change_refused(plan: &Plan<'_>) -> Fault {
    let message = format!(
        "The client '{}' with object id '{}' does not have authorization to perform action \
         '{CHANGE_OF_MODEL}' over scope '{}', which changing a vault's permission model needs. If access was \
         recently granted, please refresh your credentials.",
        plan.caller.name, plan.caller.object_id, plan.id
    );
    Fault::forbidden("AuthorizationFailed", message)
        .denied("no role assignment allows a change of the permission model")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vault_names() {
        let accepts = |name: &str| Vaults::NAME_RULE.accepts(name);
        for name in ["abc", "Kv-1", "a1b2c3", &"a".repeat(24)] {
            assert!(accepts(name), "{name}");
        }
        for name in ["ab", "1ab", "ab-", "a--b", "a_b", "-ab", "a.b", "käse", "", &"a".repeat(25)] {
            assert!(!accepts(name), "{name}");
        }
    }
}
