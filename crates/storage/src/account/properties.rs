//! What an account may be set to. What is not enforced here is refused, never ignored.

use arcadia_arm::Resource;
use arcadia_kernel::Fault;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

const TLS_VERSIONS: [&str; 3] = ["TLS1_0", "TLS1_1", "TLS1_2"];
const TIERS: [&str; 3] = ["Hot", "Cool", "Cold"];
const RULES: [&str; 4] = ["ipRules", "virtualNetworkRules", "resourceAccessRules", "ipv6Rules"];
/// Settings that would change what the service does and that it does not serve: only what they mean by default.
const OFF: [&str; 6] = [
    "isHnsEnabled",
    "isSftpEnabled",
    "isNfsV3Enabled",
    "isLocalUserEnabled",
    "enableExtendedGroups",
    "isBlobReplicationEnabled",
];
const ABSENT: [&str; 6] = [
    "customDomain",
    "immutableStorageWithVersioning",
    "sasPolicy",
    "keyPolicy",
    "routingPreference",
    "allowedCopyScope",
];
const FILES_IDENTITY: &str = "azureFilesIdentityBasedAuthentication";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountProperties {
    /// Made anew for each account; never shown.
    pub instance: Uuid,
    pub access_tier: String,
    pub allow_blob_public_access: bool,
    pub allow_shared_key_access: bool,
    pub allow_cross_tenant_replication: bool,
    pub default_to_o_auth_authentication: bool,
    pub minimum_tls_version: String,
    pub supports_https_traffic_only: bool,
    /// `Deny` is refused, and so are rules, so only who may bypass them is kept.
    pub network_bypass: String,
}

impl AccountProperties {
    pub fn stored(resource: &Resource) -> Result<Self, serde_json::Error> {
        Self::deserialize(&resource.properties)
    }

    /// A request's properties over those that the account has. Read-only ones are passed over, as clients send
    /// back what they got.
    pub fn over(asked: &Value, current: Option<&Self>, instance: Uuid) -> Result<Self, Fault> {
        refuse_unserved(asked)?;
        let flag = |name: &str, before: Option<bool>, default: bool| match &asked[name] {
            Value::Null => Ok(before.unwrap_or(default)),
            Value::Bool(value) => Ok(*value),
            _ => Err(invalid(name, "true or false")),
        };
        let one_of = |name: &str, allowed: &[&str], before: Option<&String>, default: &str| match &asked[name]
        {
            Value::Null => Ok(before.map_or_else(|| default.to_owned(), String::clone)),
            Value::String(value) if allowed.contains(&value.as_str()) => Ok(value.clone()),
            _ => Err(invalid(name, &format!("one of {}", allowed.join(", ")))),
        };
        let bypass = match &asked["networkAcls"]["bypass"] {
            Value::Null => current.map_or_else(|| "AzureServices".to_owned(), |c| c.network_bypass.clone()),
            Value::String(value) if value.len() <= 64 => value.clone(),
            _ => return Err(invalid("networkAcls.bypass", "a text such as AzureServices")),
        };
        Ok(Self {
            instance: current.map_or(instance, |current| current.instance),
            access_tier: one_of("accessTier", &TIERS, current.map(|c| &c.access_tier), "Hot")?,
            allow_blob_public_access: flag(
                "allowBlobPublicAccess",
                current.map(|c| c.allow_blob_public_access),
                false,
            )?,
            allow_shared_key_access: flag(
                "allowSharedKeyAccess",
                current.map(|c| c.allow_shared_key_access),
                true,
            )?,
            allow_cross_tenant_replication: flag(
                "allowCrossTenantReplication",
                current.map(|c| c.allow_cross_tenant_replication),
                false,
            )?,
            default_to_o_auth_authentication: flag(
                "defaultToOAuthAuthentication",
                current.map(|c| c.default_to_o_auth_authentication),
                false,
            )?,
            minimum_tls_version: one_of(
                "minimumTlsVersion",
                &TLS_VERSIONS,
                current.map(|c| &c.minimum_tls_version),
                "TLS1_2",
            )?,
            supports_https_traffic_only: flag(
                "supportsHttpsTrafficOnly",
                current.map(|c| c.supports_https_traffic_only),
                true,
            )?,
            network_bypass: bypass,
        })
    }

    /// As clients see them, without endpoints and times.
    pub fn shown(&self) -> Value {
        json!({
            "dnsEndpointType": "Standard",
            "publicNetworkAccess": "Enabled",
            "accessTier": self.access_tier,
            "allowBlobPublicAccess": self.allow_blob_public_access,
            "allowSharedKeyAccess": self.allow_shared_key_access,
            "allowCrossTenantReplication": self.allow_cross_tenant_replication,
            "defaultToOAuthAuthentication": self.default_to_o_auth_authentication,
            "minimumTlsVersion": self.minimum_tls_version,
            "supportsHttpsTrafficOnly": self.supports_https_traffic_only,
            "isHnsEnabled": false,
            "isSftpEnabled": false,
            "isNfsV3Enabled": false,
            "isLocalUserEnabled": false,
            "privateEndpointConnections": [],
            "networkAcls": {
                "bypass": self.network_bypass,
                "virtualNetworkRules": [],
                "ipRules": [],
                "ipv6Rules": [],
                "defaultAction": "Allow",
            },
            "provisioningState": "Succeeded",
        })
    }
}

fn refuse_unserved(asked: &Value) -> Result<(), Fault> {
    let is_off = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
    if let Some(name) = OFF.iter().find(|name| !is_off(&asked[**name])) {
        return Err(not_served(name));
    }
    if let Some(name) = ABSENT.iter().find(|name| !asked[**name].is_null()) {
        return Err(not_served(name));
    }
    let part = |name: &str| match &asked[name] {
        part @ (Value::Null | Value::Object(_)) => Ok(part),
        _ => Err(invalid(name, "an object")),
    };
    let files = part(FILES_IDENTITY)?;
    if !files.is_null() && files["directoryServiceOptions"] != "None" {
        return Err(not_served(FILES_IDENTITY));
    }
    let default = |value: &Value, allowed: &str| value.is_null() || *value == allowed;
    if !default(&asked["publicNetworkAccess"], "Enabled") {
        return Err(not_served("publicNetworkAccess"));
    }
    if !default(&asked["dnsEndpointType"], "Standard") {
        return Err(not_served("dnsEndpointType"));
    }
    let rules = part("networkAcls")?;
    let is_empty = |rules: &Value| rules.is_null() || rules.as_array().is_some_and(Vec::is_empty);
    if !default(&rules["defaultAction"], "Allow") || !RULES.iter().all(|name| is_empty(&rules[*name])) {
        return Err(not_served("networkAcls"));
    }
    let encryption = part("encryption")?;
    if !default(&encryption["keySource"], "Microsoft.Storage")
        || !is_off(&encryption["requireInfrastructureEncryption"])
    {
        return Err(not_served("encryption"));
    }
    Ok(())
}

fn invalid(name: &str, expected: &str) -> Fault {
    let message = format!("The value for the property '{name}' is not valid; it is {expected}.");
    Fault::bad_request("InvalidRequestPropertyValue", message)
}

fn not_served(name: &str) -> Fault {
    let message = format!(
        "The property '{name}' asks for something that this site does not enforce for storage accounts, so it is \
         refused rather than ignored. Leave it out, or give it its default."
    );
    Fault::bad_request("FeatureNotSupported", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(asked: Value) -> Result<AccountProperties, Fault> {
        AccountProperties::over(&asked, None, Uuid::nil())
    }

    #[test]
    fn defaults_are_the_strict_ones_and_a_shown_account_can_be_put_back() {
        let made = over(json!({})).unwrap();
        assert!(!made.allow_blob_public_access && made.allow_shared_key_access);
        assert_eq!(made.minimum_tls_version, "TLS1_2");
        assert_eq!(over(made.shown()).unwrap(), made);
        let changed =
            AccountProperties::over(&json!({ "allowSharedKeyAccess": false }), Some(&made), Uuid::max())
                .unwrap();
        assert_eq!(changed, AccountProperties { allow_shared_key_access: false, ..made });
    }

    #[test]
    fn what_is_not_enforced_is_refused() {
        for asked in [
            json!({ "networkAcls": { "defaultAction": "Deny" } }),
            json!({ "networkAcls": { "ipRules": [{ "value": "203.0.113.7" }] } }),
            json!({ "publicNetworkAccess": "Disabled" }),
            json!({ "minimumTlsVersion": "TLS1_3" }),
            json!({ "isHnsEnabled": true }),
            json!({ "encryption": { "keySource": "Microsoft.Keyvault" } }),
            json!({ "encryption": { "requireInfrastructureEncryption": true } }),
            json!({ "sasPolicy": { "sasExpirationPeriod": "1.00:00:00" } }),
            json!({ "allowSharedKeyAccess": "no" }),
            json!({ "accessTier": "Archive" }),
            json!({ "keyPolicy": { "directoryServiceOptions": "None" } }),
            json!({ "azureFilesIdentityBasedAuthentication": { "directoryServiceOptions": "AD" } }),
            json!({ "networkAcls": { "ipRules": { "value": "203.0.113.7" } } }),
            json!({ "networkAcls": [{ "defaultAction": "Deny" }] }),
            json!({ "encryption": "Microsoft.Keyvault" }),
        ] {
            assert_eq!(over(asked.clone()).unwrap_err().status.as_u16(), 400, "{asked}");
        }
        let az = json!({ "encryption": { "keySource": "Microsoft.Storage", "services": { "blob": {} } } });
        assert!(over(az).is_ok());
    }
}
