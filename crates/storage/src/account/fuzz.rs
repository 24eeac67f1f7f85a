//! Fuzz target for what an account, its services and its containers may be set to.

use serde_json::{Value, json};
use uuid::Uuid;

use super::properties::AccountProperties;
use super::services::{self, check_blob_service, check_file_service, container_asked};

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
    services_ignore_nothing(&first);
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

/// The same of a service or a container: a body that is taken names nothing that is not so.
fn services_ignore_nothing(body: &Value) {
    let account = services::tests::account();
    let body = &json!({ "properties": body });
    for taken in [check_blob_service(body, &account), check_file_service(body, &account)] {
        assert!(taken.is_err() || all_off(body), "{body}");
    }
    let Ok(metadata) = container_asked(body) else { return };
    assert_eq!(metadata.is_some(), body["properties"]["metadata"].is_object(), "{body}");
    let bytes: usize = metadata.iter().flatten().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes <= 8192, "{body}");
    if let Some(metadata) = metadata {
        let again = json!({ "properties": { "metadata": metadata } });
        assert_eq!(container_asked(&again).unwrap(), Some(metadata), "{again}");
    }
    let mut rest = body["properties"].clone();
    for name in [
        "metadata",
        "publicAccess",
        "lastModifiedTime",
        "leaseStatus",
        "leaseState",
        "defaultEncryptionScope",
    ] {
        rest[name] = Value::Null;
    }
    assert!(all_off(&rest), "{body}");
}

/// Nothing is switched on, and nothing is named or counted.
fn all_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(all_off),
        Value::Bool(true) => false,
    }
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
