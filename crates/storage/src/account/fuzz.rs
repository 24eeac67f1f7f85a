//! Fuzz target for what an account may be set to.

use serde_json::{Value, json};
use uuid::Uuid;

use super::properties::AccountProperties;

const INSTANCE: Uuid = Uuid::from_u128(1);
const LATER_INSTANCE: Uuid = Uuid::from_u128(2);

/// What is kept, and by what a client may set it.
const KEPT: [&str; 9] = [
    "accessTier",
    "allowBlobPublicAccess",
    "allowSharedKeyAccess",
    "allowCrossTenantReplication",
    "defaultToOAuthAuthentication",
    "isLocalUserEnabled",
    "minimumTlsVersion",
    "supportsHttpsTrafficOnly",
    "networkAcls/bypass",
];
/// What would have to be enforced, and the one value that it may have: what it means when it is left out.
const NOT_SERVED: [(&str, &str); 31] = [
    ("isHnsEnabled", "false"),
    ("isSftpEnabled", "false"),
    ("isNfsV3Enabled", "false"),
    ("enableExtendedGroups", "false"),
    ("isBlobReplicationEnabled", "false"),
    ("customDomain", ""),
    ("immutableStorageWithVersioning", ""),
    ("sasPolicy", ""),
    ("keyPolicy", ""),
    ("routingPreference", ""),
    ("allowedCopyScope", ""),
    ("allowSharedKeyAccessForServices", ""),
    ("dualStackEndpointPreference", ""),
    ("geoPriorityReplicationStatus", ""),
    ("dataCollaborationPolicyProperties", ""),
    ("largeFileSharesState", r#""Disabled""#),
    ("encryption/keyvaultproperties", ""),
    ("encryption/identity", ""),
    ("azureFilesIdentityBasedAuthentication/directoryServiceOptions", r#""None""#),
    ("publicNetworkAccess", r#""Enabled""#),
    ("dnsEndpointType", r#""Standard""#),
    ("networkAcls/defaultAction", r#""Allow""#),
    ("networkAcls/ipRules", "[]"),
    ("networkAcls/virtualNetworkRules", "[]"),
    ("networkAcls/resourceAccessRules", "[]"),
    ("networkAcls/ipv6Rules", "[]"),
    ("encryption/keySource", r#""Microsoft.Storage""#),
    ("encryption/requireInfrastructureEncryption", "false"),
    ("azureFilesIdentityBasedAuthentication/", ""),
    ("networkAcls/", ""),
    ("encryption/", ""),
];

arcadia_fuzz::target!(account_body, |data: &[u8]| nothing_is_ignored_that_should_be_enforced(data));

/// Two bodies, a line each: the first makes an account, the second changes it.
fn nothing_is_ignored_that_should_be_enforced(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n').map(serde_json::from_slice::<Value>);
    let Some(Ok(first @ Value::Object(_))) = lines.next() else { return };
    let Ok(made) = AccountProperties::over(&first, None, INSTANCE) else { return };
    checked(&first, &made, None);
    let shown = made.shown();
    assert_eq!(AccountProperties::over(&shown, None, INSTANCE).unwrap(), made);
    let again = AccountProperties::over(&shown, Some(&made), LATER_INSTANCE).unwrap();
    assert_eq!((&again, again.instance), (&made, INSTANCE));
    let Some(Ok(second @ Value::Object(_))) = lines.next() else { return };
    let Ok(changed) = AccountProperties::over(&second, Some(&made), LATER_INSTANCE) else { return };
    checked(&second, &changed, Some(&made));
    assert_eq!(changed.instance, INSTANCE);
}

/// What was asked for is what is shown now, or what was before; nothing was asked for that is not served.
fn checked(asked: &Value, now: &AccountProperties, before: Option<&AccountProperties>) {
    let defaults = AccountProperties::over(&json!({}), before, INSTANCE).unwrap().shown();
    let now = now.shown();
    let at = |value: &Value, path: &str| value.pointer(&format!("/{path}")).cloned().unwrap_or(Value::Null);
    for path in KEPT {
        let wanted = Some(at(asked, path)).filter(|value| !value.is_null());
        assert_eq!(at(&now, path), wanted.unwrap_or_else(|| at(&defaults, path)), "{path}");
    }
    for (path, allowed) in NOT_SERVED {
        let found = match path.strip_suffix('/') {
            // A part that is no object has nothing in it that could be looked at.
            Some(part) => Some(at(asked, part)).filter(|value| !value.is_object()).unwrap_or(Value::Null),
            None => at(asked, path),
        };
        let allowed: Value = serde_json::from_str(allowed).unwrap_or(Value::Null);
        assert!(found.is_null() || found == allowed, "{path} was ignored: {found}");
    }
}
