//! What an account may be set to. What is not enforced here is refused, never ignored.

use arcadia_arm::Resource;
use arcadia_kernel::Fault;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

const TLS_VERSIONS: [&str; 3] = ["TLS1_0", "TLS1_1", "TLS1_2"];
const TIERS: [&str; 3] = ["Hot", "Cool", "Cold"];
const RULES: [&str; 4] = ["ipRules", "virtualNetworkRules", "resourceAccessRules", "ipv6Rules"];
const BYPASSES: [&str; 3] = ["Logging", "Metrics", "AzureServices"];
const SERVICES: [&str; 4] = ["blob", "file", "queue", "table"];
/// What an account keeps, by the names that requests have for it and, in the change of one, its row.
const KEPT: [&str; 10] = [
    "instance",
    "accessTier",
    "allowBlobPublicAccess",
    "allowSharedKeyAccess",
    "allowCrossTenantReplication",
    "defaultToOAuthAuthentication",
    "isLocalUserEnabled",
    "minimumTlsVersion",
    "supportsHttpsTrafficOnly",
    "networkBypass",
];
/// What no request sets; clients send it back as they got it.
const READ_ONLY: [&str; 17] = [
    "accountMigrationInProgress",
    "blobRestoreStatus",
    "creationTime",
    "failoverInProgress",
    "geoReplicationStats",
    "isSkuConversionBlocked",
    "keyCreationTime",
    "lastGeoFailoverTime",
    "primaryEndpoints",
    "primaryLocation",
    "privateEndpointConnections",
    "provisioningState",
    "secondaryEndpoints",
    "secondaryLocation",
    "statusOfPrimary",
    "statusOfSecondary",
    "storageAccountSkuConversionStatus",
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
    /// Local users are SFTP's, which is not served: there is none, whatever this says.
    #[serde(default)]
    pub is_local_user_enabled: bool,
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
            asked => asked.as_str().and_then(bypass_of).ok_or_else(|| {
                let expected = format!("None, or some of {} with commas between them", BYPASSES.join(", "));
                invalid("networkAcls.bypass", &expected)
            })?,
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
            is_local_user_enabled: flag(
                "isLocalUserEnabled",
                current.map(|c| c.is_local_user_enabled),
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
            "isLocalUserEnabled": self.is_local_user_enabled,
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

/// Refuses every property that is not known to be kept or to mean nothing else than what is done anyway.
fn refuse_unserved(asked: &Value) -> Result<(), Fault> {
    for (name, value) in fields(asked) {
        let is_served = match name {
            "isHnsEnabled"
            | "isSftpEnabled"
            | "isNfsV3Enabled"
            | "enableExtendedGroups"
            | "isBlobReplicationEnabled" => *value == false,
            "publicNetworkAccess" => value == "Enabled",
            "dnsEndpointType" => value == "Standard",
            "largeFileSharesState" => value == "Disabled",
            FILES_IDENTITY => fields(object(name, value)?).all(|(_, value)| value == "None"),
            "networkAcls" => fields(object(name, value)?).all(|(name, value)| match name {
                "bypass" => true,
                "defaultAction" => value == "Allow",
                _ => RULES.contains(&name) && value.as_array().is_some_and(Vec::is_empty),
            }),
            // Whatever is asked for each service, everything is sealed.
            "encryption" => fields(object(name, value)?).all(|(name, value)| match name {
                "keySource" => value == "Microsoft.Storage",
                "requireInfrastructureEncryption" => *value == false,
                "services" => value.is_object() && fields(value).all(|(name, _)| SERVICES.contains(&name)),
                _ => false,
            }),
            _ => KEPT.contains(&name) || READ_ONLY.contains(&name),
        };
        if !is_served {
            return Err(not_served(name));
        }
    }
    Ok(())
}

/// As Azure writes it; `None` of what is no such list.
fn bypass_of(text: &str) -> Option<String> {
    if text.trim().eq_ignore_ascii_case("None") {
        return Some("None".to_owned());
    }
    let mut left = BYPASSES.to_vec();
    let take = |name: &str| {
        let at = left.iter().position(|known| known.eq_ignore_ascii_case(name.trim()))?;
        Some(left.remove(at))
    };
    let names: Option<Vec<&str>> = text.split(',').map(take).collect();
    Some(names?.join(", "))
}

/// Those that say something; JSON's null says what leaving them out does.
pub(super) fn fields(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.as_str(), value)).filter(|(_, value)| !value.is_null())
}

pub(super) fn object<'a>(name: &str, value: &'a Value) -> Result<&'a Value, Fault> {
    if value.is_object() { Ok(value) } else { Err(invalid(name, "an object")) }
}

pub(super) fn invalid(name: &str, expected: &str) -> Fault {
    let message = format!("The value for the property '{name}' is not valid; it is {expected}.");
    Fault::bad_request("InvalidRequestPropertyValue", message)
}

/// For a property, or a field beside them, that is not known or not at its default.
pub(crate) fn not_served(name: &str) -> Fault {
    let message = format!(
        "The property '{name:.64}' asks for something that this site does not enforce for storage accounts, so it is \
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
            json!({ "encryption": { "keyvaultproperties": { "keyname": "k" } } }),
            json!({ "encryption": { "identity": { "userAssignedIdentity": "/subscriptions/s" } } }),
            json!({ "encryption": { "services": { "disk": {} } } }),
            json!({ "networkAcls": { "perimeters": [{}] } }),
            json!({ "networkAcls": { "bypass": "Everybody" } }),
            json!({ "networkAcls": { "bypass": "" } }),
            json!({ "networkAcls": { "bypass": "None, Logging" } }),
            json!({ "networkAcls": { "bypass": "Logging,Logging" } }),
            json!({ "allowSharedKeyAccessForServices": { "blob": { "enabled": false } } }),
            json!({ "dualStackEndpointPreference": { "publishIpv6Endpoint": true } }),
            json!({ "geoPriorityReplicationStatus": { "isBlobEnabled": true } }),
            json!({ "dataCollaborationPolicyProperties": {} }),
            json!({ "largeFileSharesState": "Enabled" }),
            json!({ "azureFilesIdentityBasedAuthentication": {
                "directoryServiceOptions": "None", "defaultSharePermission": "StorageFileDataSmbShareReader"
            } }),
            // Another case is another name here, and would be passed over.
            json!({ "allowsharedkeyaccess": false }),
        ] {
            let refused = over(asked.clone()).unwrap_err();
            let name = asked.as_object().unwrap().keys().next().unwrap();
            assert_eq!((refused.status.as_u16(), refused.message.contains(name)), (400, true), "{asked}");
        }
        assert!(over(json!({ "sasPolicy": null, "networkAcls": { "ipRules": null } })).is_ok());
        for (bypass, shown) in [
            ("None", "None"),
            ("none", "None"),
            ("azureServices", "AzureServices"),
            ("Logging, Metrics, AzureServices", "Logging, Metrics, AzureServices"),
            ("Metrics,  logging", "Metrics, Logging"),
        ] {
            let kept = over(json!({ "networkAcls": { "bypass": bypass } })).unwrap();
            assert_eq!(kept.network_bypass, shown);
        }
    }

    #[test]
    fn what_clients_send_by_default_is_taken() {
        let az = json!({ "encryption": { "keySource": "Microsoft.Storage", "services": { "blob": {} } } });
        let az_update = json!({
            "accessTier": "Hot",
            "supportsHttpsTrafficOnly": true,
            "encryption": {
                "keySource": "Microsoft.Storage",
                "services": { "blob": { "enabled": true, "keyType": "Account" }, "file": { "enabled": true } },
            },
            "networkAcls": {
                "bypass": "AzureServices", "virtualNetworkRules": [], "ipRules": [], "defaultAction": "Allow",
            },
        });
        let terraform = json!({
            "accessTier": "Hot",
            "allowBlobPublicAccess": true,
            "allowCrossTenantReplication": false,
            "allowSharedKeyAccess": true,
            "defaultToOAuthAuthentication": false,
            "dnsEndpointType": "Standard",
            "encryption": {
                "keySource": "Microsoft.Storage",
                "services": { "queue": { "keyType": "Service" }, "table": { "keyType": "Service" } },
            },
            "isHnsEnabled": false,
            "isLocalUserEnabled": true,
            "isNfsV3Enabled": false,
            "isSftpEnabled": false,
            "minimumTlsVersion": "TLS1_2",
            "networkAcls": { "defaultAction": "Allow" },
            "publicNetworkAccess": "Enabled",
            "supportsHttpsTrafficOnly": true,
        });
        for asked in [az, az_update, terraform] {
            assert!(over(asked.clone()).is_ok(), "{asked}");
        }
    }
}
