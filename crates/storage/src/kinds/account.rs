//! `Microsoft.Storage/storageAccounts`.

use std::sync::Arc;

use arcadia_arm::{Arm, Desired, NameRule, Plan, Resource, ResourceKind};
use arcadia_kernel::{EntropyExt as _, Fault, Op, StatusCode};
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{containers, keys, names, services};
use crate::Storage;
use crate::account::properties::{AccountProperties, not_served};
use crate::account::{ACCOUNT_TYPE, sku_shown};
use crate::records::{Garbage, KEYS, NAMES, NameClaim, Refuse};

const SKUS: [&str; 8] = [
    "Standard_LRS",
    "Standard_ZRS",
    "Standard_GRS",
    "Standard_RAGRS",
    "Standard_GZRS",
    "Standard_RAGZRS",
    "Premium_LRS",
    "Premium_ZRS",
];
const GENERAL: &str = "StorageV2";
const OF_BLOCKS: &str = "BlockBlobStorage";
const KINDS: [&str; 4] = [GENERAL, "Storage", "BlobStorage", OF_BLOCKS];
/// What can be made a general account, as `az storage account update --upgrade-to-storagev2` does. Nothing else changes
/// its kind.
const UPGRADED: [&str; 2] = ["Storage", "BlobStorage"];

/// The kind; its rows change what [`Storage`] serves.
pub struct Accounts(pub Arc<Storage>);

fn fits(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[async_trait]
impl ResourceKind for Accounts {
    const TYPE: &'static str = ACCOUNT_TYPE;
    const API_VERSIONS: &'static [&'static str] = &[
        "2025-08-01",
        "2025-06-01",
        "2025-01-01",
        "2024-01-01",
        "2023-05-01",
        "2023-01-01",
        "2022-09-01",
        "2021-09-01",
        "2021-04-01",
        "2019-06-01",
        "2018-02-01",
    ];
    const NAME_RULE: NameRule = NameRule { chars_min: 3, chars_max: 24, pattern: "^[a-z0-9]+$", check: fits };

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        mut desired: Desired,
    ) -> Result<Resource, Fault> {
        let before = current.map(AccountProperties::stored).transpose().map_err(Fault::internal)?;
        let kind = kind(desired.kind.as_deref(), current)?;
        desired.sku = Some(sku(desired.sku.as_ref(), current, kind)?);
        desired.kind = Some(kind.to_owned());
        if desired.identity.as_ref().is_some_and(|identity| identity["type"] != "None") {
            let message =
                "Storage accounts of this site have no identity; leave the property 'identity' out.";
            return Err(Fault::bad_request("FeatureNotSupported", message));
        }
        let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if let Some((name, _)) = desired.extra.iter().find(|(_, value)| !is_empty(value)) {
            return Err(not_served(name));
        }
        let after = AccountProperties::over(&desired.properties, before.as_ref(), plan.entropy.uuid())?;
        if current.is_none() {
            let name = plan.id.name();
            if plan.store.get(NAMES, name).await?.is_some() {
                return Err(Fault::conflict("StorageAccountAlreadyTaken", names::taken_message(name)));
            }
            let claim = NameClaim { account_id: plan.id.clone(), instance: after.instance };
            plan.batch.require_absent(NAMES, name);
            plan.batch.put(NAMES, name, &claim)?;
            let made = keys::make(after.instance, plan.now, plan.entropy);
            plan.batch.put(KEYS, &after.instance, &made)?;
        }
        let stored = serde_json::to_value(&after).map_err(Fault::internal)?;
        Ok(Resource::planned(plan, current, desired, stored))
    }

    /// The account, its keys and its name are gone at once; what it holds is unreachable then, and is removed by
    /// the sweep.
    async fn delete(&self, plan: &mut Plan<'_>, current: &Resource) -> Result<(), Fault> {
        let properties = AccountProperties::stored(current).map_err(Fault::internal)?;
        let name = current.id.name();
        let claim = plan.store.get(NAMES, name).await?;
        let claim = claim.ok_or_else(|| Fault::internal("a live account does not hold its name"))?;
        plan.batch.require_revision(NAMES, name, claim.revision);
        plan.batch.delete(NAMES, name);
        plan.batch.delete(KEYS, &properties.instance);
        let garbage =
            Garbage::new(plan.entropy.uuid(), plan.now.as_second(), Refuse::Account(properties.instance));
        let key = garbage.key();
        plan.batch.put(crate::records::GARBAGE, &key, &garbage)?;
        Ok(())
    }

    fn properties(&self, resource: &Resource, _api_version: &str) -> Value {
        let properties = match AccountProperties::stored(resource) {
            Ok(properties) => properties,
            Err(error) => {
                tracing::error!(account = %resource.id, %error, "a stored account cannot be read");
                return Value::Object(Map::new());
            }
        };
        let mut shown = properties.shown();
        let created = resource.created_at.to_string();
        let enabled = json!({ "keyType": "Account", "enabled": true, "lastEnabledTime": created });
        shown["encryption"] = json!({ "keySource": "Microsoft.Storage", "services": { "blob": enabled } });
        shown["creationTime"] = Value::from(created);
        if let Some(keys) = self.0.accounts.keys(properties.instance) {
            let times = keys.keys.iter().map(|key| (key.name.clone(), Value::from(key.created.to_string())));
            shown["keyCreationTime"] = Value::Object(times.collect());
        }
        shown["primaryEndpoints"] =
            json!({ "blob": format!("{}/", self.0.names.blob_origin(resource.id.name())) });
        shown["primaryLocation"] = Value::from(resource.location.as_str());
        shown["statusOfPrimary"] = Value::from("available");
        shown
    }

    /// `az` takes 200 and 202 for a new account, and nothing else.
    fn put_status(&self, _created: bool) -> StatusCode {
        StatusCode::OK
    }

    fn extra_ops(self: Arc<Self>) -> Vec<Op<Arm>> {
        let mut rows = keys::ops(&self.0);
        rows.extend(names::ops(&self.0));
        rows.extend(services::ops(&self.0));
        rows.extend(containers::ops(&self.0));
        rows
    }
}

/// `{name, tier}`; the name is required for a new account.
fn sku(asked: Option<&Value>, current: Option<&Resource>, kind: &str) -> Result<Value, Fault> {
    let name = |sku: &Value| sku["name"].as_str().and_then(|name| known(&SKUS, name));
    let before = current.and_then(|current| current.sku.as_ref()).and_then(name);
    let Some(asked) = asked.map_or(before, name) else {
        let message = format!("The property 'sku.name' must be one of {}.", SKUS.join(", "));
        return Err(Fault::bad_request("InvalidRequestPropertyValue", message));
    };
    let is_premium = |name: &str| name.starts_with("Premium_");
    let moves = before.is_some_and(|before| is_premium(before) != is_premium(asked));
    let fits = kind != OF_BLOCKS || is_premium(asked);
    if before != Some(asked) && (moves || !fits) {
        let message = "Values for request parameters are invalid: sku.";
        return Err(Fault::bad_request("InvalidValuesForRequestParameters", message));
    }
    Ok(sku_shown(asked))
}

fn kind(asked: Option<&str>, current: Option<&Resource>) -> Result<&'static str, Fault> {
    let before = current.and_then(|current| current.kind.as_deref());
    let Some(asked) = known(&KINDS, asked.or(before).unwrap_or(GENERAL)) else {
        let message = format!("The property 'kind' must be one of {}.", KINDS.join(", "));
        return Err(Fault::bad_request("InvalidRequestPropertyValue", message));
    };
    let may_become = |before: &str| before == asked || (asked == GENERAL && UPGRADED.contains(&before));
    if before.is_none_or(may_become) {
        return Ok(asked);
    }
    let message = "The property 'kind' was specified in the input, but it cannot be updated as it is read-only. For more \
                   information, see - https://aka.ms/storageaccountupdate";
    Err(Fault::bad_request("AccountPropertyCannotBeUpdated", message))
}

fn known(names: &[&'static str], name: &str) -> Option<&'static str> {
    names.iter().find(|known| known.eq_ignore_ascii_case(name)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_names() {
        for name in ["abc", "a1b2c3", "123", &"a".repeat(24)] {
            assert!(Accounts::NAME_RULE.accepts(name), "{name}");
        }
        for name in ["ab", "Abc", "a-b-c", "a.b", "käse", "a_b", "", &"a".repeat(25)] {
            assert!(!Accounts::NAME_RULE.accepts(name), "{name}");
        }
    }
}
