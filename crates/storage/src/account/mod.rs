//! Accounts as the data plane sees them: a snapshot in memory, kept by the store's own changes.

#[cfg(test)]
mod fuzz;
pub(crate) mod properties;
pub(crate) mod services;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arcadia_arm::Resource;
use arcadia_kernel::ArmId;
use arcadia_store::Change;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::records::AccountKeys;
use properties::AccountProperties;

pub(crate) const PROVIDER: &str = "Microsoft.Storage";
pub(crate) const ACCOUNT_TYPE: &str = "Microsoft.Storage/storageAccounts";

/// One live account.
#[derive(Clone, Debug)]
pub struct Account {
    pub(crate) id: ArmId,
    pub(crate) kind: String,
    pub(crate) sku: String,
    pub(crate) properties: AccountProperties,
}

impl Account {
    /// `None` for a resource of another kind.
    pub(crate) fn of(resource: &Resource) -> Option<Self> {
        if !resource.id.resource_type()?.eq_ignore_ascii_case(ACCOUNT_TYPE) {
            return None;
        }
        match AccountProperties::stored(resource) {
            Ok(properties) => Some(Self {
                id: resource.id.clone(),
                kind: resource.kind.clone().unwrap_or_default(),
                sku: resource
                    .sku
                    .as_ref()
                    .and_then(|sku| sku["name"].as_str())
                    .unwrap_or_default()
                    .to_owned(),
                properties,
            }),
            Err(error) => {
                tracing::error!(account = %resource.id, %error, "a stored account cannot be read; it is not served");
                None
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.id.name()
    }

    pub(crate) fn instance(&self) -> Uuid {
        self.properties.instance
    }
}

/// As clients see it.
pub(crate) fn sku_shown(name: &str) -> Value {
    json!({ "name": name, "tier": name.split('_').next().unwrap_or("Standard") })
}

/// Every live account by name, and their keys by instance.
#[derive(Default)]
pub(crate) struct AccountIndex {
    accounts: RwLock<HashMap<String, Arc<Account>>>,
    keys: RwLock<HashMap<Uuid, Arc<AccountKeys>>>,
}

impl AccountIndex {
    pub fn by_name(&self, name: &str) -> Option<Arc<Account>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        // As it is in almost every host name.
        let is_folded = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        if is_folded {
            accounts.get(name).cloned()
        } else {
            accounts.get(&name.to_ascii_lowercase()).cloned()
        }
    }

    pub fn keys(&self, instance: Uuid) -> Option<Arc<AccountKeys>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(&instance).cloned()
    }

    pub fn insert(&self, account: Account) {
        let name = account.name().to_ascii_lowercase();
        self.accounts.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(account));
    }

    pub fn insert_keys(&self, keys: AccountKeys) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(keys.instance, Arc::new(keys));
    }

    /// Takes over what a commit changed.
    pub fn follow(&self, changes: &[Change<Resource>]) {
        for change in changes {
            match (change.after.as_ref().and_then(Account::of), change.before.as_ref().and_then(Account::of))
            {
                (Some(account), _) => self.insert(account),
                (None, Some(gone)) => {
                    let name = gone.name().to_ascii_lowercase();
                    self.accounts.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
                }
                (None, None) => {}
            }
        }
    }

    pub fn follow_keys(&self, changes: &[Change<AccountKeys>]) {
        for change in changes {
            match (&change.after, &change.before) {
                (Some(keys), _) => self.insert_keys(keys.clone()),
                (None, Some(gone)) => {
                    self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(&gone.instance);
                }
                (None, None) => {}
            }
        }
    }
}
