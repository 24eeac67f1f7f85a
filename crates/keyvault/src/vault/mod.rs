//! Vaults as the data plane sees them: a snapshot in memory, kept by the store's own changes.

#[cfg(test)]
mod fuzz;
pub(crate) mod network;
pub(crate) mod policy;
pub(crate) mod properties;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arcadia_arm::Resource;
use arcadia_kernel::{ArmId, HeaderValue};
use arcadia_store::Change;

use crate::records::folded;
pub use policy::ALLOWED_BY_POLICY;
use properties::VaultProperties;

pub(crate) const PROVIDER: &str = "Microsoft.KeyVault";
pub(crate) const VAULT_TYPE: &str = "Microsoft.KeyVault/vaults";
/// `/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v`.
const VAULT_ID_SEGMENTS: usize = 8;

/// One live vault.
#[derive(Clone, Debug)]
pub struct Vault {
    pub(crate) id: ArmId,
    pub(crate) location: String,
    /// The location as every answer's header says it.
    pub(crate) region: Option<HeaderValue>,
    pub(crate) properties: VaultProperties,
}

impl Vault {
    /// `None` for a resource of another kind.
    pub(crate) fn of(resource: &Resource) -> Option<Self> {
        if !resource.id.resource_type()?.eq_ignore_ascii_case(VAULT_TYPE) {
            return None;
        }
        match VaultProperties::stored(resource) {
            Ok(properties) => {
                let location = resource.location.clone();
                let region = HeaderValue::from_str(&location).ok();
                Some(Self { id: resource.id.clone(), location, region, properties })
            }
            Err(error) => {
                tracing::error!(vault = %resource.id, %error, "a stored vault cannot be read; it is not served");
                None
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.id.name()
    }

    /// The vault as refusals name it.
    pub(crate) fn place(&self) -> String {
        format!("{};location={}", self.name(), self.location)
    }

    /// `scope` as refusals show it: provider segments in lower case, names as they are, and a list of versions
    /// as the secret it belongs to.
    pub(crate) fn resource_shown(&self, scope: &ArmId) -> String {
        let mut shown = String::new();
        for (at, segment) in scope.segments().enumerate() {
            let is_name = at % 2 == 1 && at != VAULT_ID_SEGMENTS - 3;
            if at == VAULT_ID_SEGMENTS + 2 {
                break;
            }
            shown.push('/');
            shown.push_str(&if is_name { segment.to_owned() } else { segment.to_ascii_lowercase() });
        }
        shown
    }

    /// How deleted objects may come back, as attributes word it.
    pub(crate) fn recovery_level(&self) -> &'static str {
        let customized = self.properties.soft_delete_retention_in_days != properties::RETENTION_DAYS_DEFAULT;
        match (customized, self.properties.is_purge_protected()) {
            (false, false) => "Recoverable+Purgeable",
            (false, true) => "Recoverable",
            (true, false) => "CustomizedRecoverable+Purgeable",
            (true, true) => "CustomizedRecoverable",
        }
    }

    pub(crate) fn retention_seconds(&self) -> i64 {
        i64::from(self.properties.soft_delete_retention_in_days) * 86_400
    }
}

/// Every live vault by folded name.
#[derive(Default)]
pub(crate) struct VaultIndex(RwLock<HashMap<String, Arc<Vault>>>);

impl VaultIndex {
    pub fn by_name(&self, name: &str) -> Option<Arc<Vault>> {
        let vaults = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // As it is in almost every host name.
        let is_folded = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        if is_folded { vaults.get(name).cloned() } else { vaults.get(&folded(name)).cloned() }
    }

    /// The vault that `scope` is or lies in.
    pub fn containing(&self, scope: &ArmId) -> Option<Arc<Vault>> {
        let name = scope.segments().nth(VAULT_ID_SEGMENTS - 1)?;
        self.by_name(name).filter(|vault| vault.id.contains(scope))
    }

    pub fn insert(&self, vault: Vault) {
        let name = folded(vault.name());
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(vault));
    }

    /// Takes over what a commit changed.
    pub fn follow(&self, changes: &[Change<Resource>]) {
        for change in changes {
            match (change.after.as_ref().and_then(Vault::of), change.before.as_ref().and_then(Vault::of)) {
                (Some(vault), _) => self.insert(vault),
                (None, Some(gone)) => {
                    let name = folded(gone.name());
                    self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
                }
                (None, None) => {}
            }
        }
    }
}
