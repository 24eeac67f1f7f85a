//! What the blob service, the file service and the containers of an account may be asked to be, as the resource manager
//! has them. None of their switches is enforced here, so a request may say what is so, and nothing else.

use arcadia_kernel::Fault;
use serde_json::{Map, Value, json};

use super::properties::{fields, invalid, not_served, object};
use super::{Account, sku_shown};
use crate::faults;
use crate::headers::metadata_of_json;
use crate::records::Metadata;

/// What the resource manager itself writes; clients send it back as they got it.
const ENVELOPE: [&str; 5] = ["id", "name", "type", "etag", "systemData"];
const NO_SCOPE: &str = "$account-encryption-key";

/// A request to set the blob service.
pub(crate) fn check_blob_service(body: &Value, account: &Account) -> Result<(), Fault> {
    let off = json!({ "enabled": false });
    let kept_off = json!({ "enabled": false, "allowPermanentDelete": false });
    let is = json!({
        "cors": { "corsRules": [] },
        "deleteRetentionPolicy": kept_off,
        "containerDeleteRetentionPolicy": kept_off,
        "isVersioningEnabled": false,
        "changeFeed": off,
        "restorePolicy": off,
        "lastAccessTimeTrackingPolicy": { "enable": false },
        "automaticSnapshotPolicyEnabled": false,
        "staticWebsite": off,
    });
    all_so(properties_of_service(body, account)?, &is)
}

/// A request to set the file service. The settings of SMB that a client leaves to the service are empty.
pub(crate) fn check_file_service(body: &Value, account: &Account) -> Result<(), Fault> {
    let smb = json!({
        "multichannel": { "enabled": false },
        "versions": "",
        "authenticationMethods": "",
        "kerberosTicketEncryption": "",
        "channelEncryption": "",
    });
    let is = json!({
        "cors": { "corsRules": [] },
        "shareDeleteRetentionPolicy": { "enabled": false, "allowPermanentDelete": false },
        "protocolSettings": { "smb": smb },
    });
    all_so(properties_of_service(body, account)?, &is)
}

/// A request to make a container or to change it: the metadata that it shall have, if it says so.
pub(crate) fn container_asked(body: &Value) -> Result<Option<Metadata>, Fault> {
    let properties = properties(body, &json!({}))?;
    let mut rest = Map::new();
    let mut metadata = None;
    for (name, value) in fields(properties) {
        match (name, value) {
            ("metadata", Value::Object(pairs)) => metadata = Some(metadata_of_json(pairs)?),
            ("metadata", _) => return Err(invalid("metadata", "an object of strings")),
            ("publicAccess", access) => check_public_access(access)?,
            // A time of its own, which only the service sets.
            ("lastModifiedTime", Value::String(_)) => {}
            _ => _ = rest.insert(name.to_owned(), value.clone()),
        }
    }
    let mut is = container_shown();
    is["enableNfsV3RootSquash"] = Value::Bool(false);
    is["enableNfsV3AllSquash"] = Value::Bool(false);
    is["legalHold"] = no_legal_hold();
    is["immutableStorageWithVersioning"] = json!({ "enabled": false });
    all_so(&Value::Object(rest), &is)?;
    Ok(metadata)
}

/// The properties that every container has alike.
pub(crate) fn container_shown() -> Value {
    json!({
        "deleted": false,
        "remainingRetentionDays": 0,
        "defaultEncryptionScope": NO_SCOPE,
        "denyEncryptionScopeOverride": false,
        "publicAccess": "None",
        "leaseStatus": "Unlocked",
        "leaseState": "Available",
        "hasImmutabilityPolicy": false,
        "hasLegalHold": false,
    })
}

pub(crate) fn no_legal_hold() -> Value {
    json!({ "hasLegalHold": false, "tags": [] })
}

/// Azure takes these words in any case.
fn check_public_access(access: &Value) -> Result<(), Fault> {
    let is = |word: &str| access.as_str().is_some_and(|access| access.eq_ignore_ascii_case(word));
    match () {
        () if is("None") => Ok(()),
        () if is("Blob") || is("Container") => Err(faults::public_access_not_permitted()),
        () => Err(invalid("publicAccess", "one of None, Blob, Container")),
    }
}

/// A service has the SKU of its account, which is not the service's to set.
fn properties_of_service<'a>(body: &'a Value, account: &Account) -> Result<&'a Value, Fault> {
    properties(body, &json!({ "sku": sku_shown(&account.sku) }))
}

/// `properties` of a body. Whatever stands beside them is the service's own, or is so in `beside`.
fn properties<'a>(body: &'a Value, beside: &Value) -> Result<&'a Value, Fault> {
    if !body.is_object() {
        let message = "The request content is not a JSON object.";
        return Err(Fault::bad_request("InvalidRequestContent", message));
    }
    for (name, value) in fields(body).filter(|(name, _)| *name != "properties" && !ENVELOPE.contains(name)) {
        check_so(name, value, beside)?;
    }
    match &body["properties"] {
        Value::Null => Ok(&Value::Null),
        properties => object("properties", properties),
    }
}

/// Refuses the first property that asks for anything but what is so.
fn all_so(asked: &Value, is: &Value) -> Result<(), Fault> {
    fields(asked).try_for_each(|(name, value)| check_so(name, value, is))
}

fn check_so(name: &str, value: &Value, is: &Value) -> Result<(), Fault> {
    if is_so(value, &is[name]) { Ok(()) } else { Err(not_served(name)) }
}

/// Whether what is asked for is so already: objects may say less, and JSON's null says nothing.
fn is_so(asked: &Value, is: &Value) -> bool {
    match (asked, is) {
        (Value::Null, _) => true,
        (Value::Object(asked), Value::Object(_)) => {
            asked.iter().all(|(name, value)| is_so(value, &is[name.as_str()]))
        }
        _ => asked == is,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use arcadia_kernel::ArmId;
    use uuid::Uuid;

    use super::*;
    use crate::account::properties::AccountProperties;

    pub(crate) fn account() -> Account {
        Account {
            id: ArmId::parse("/subscriptions/s/resourceGroups/g/providers/p/storageAccounts/a").unwrap(),
            kind: "StorageV2".to_owned(),
            sku: "Standard_LRS".to_owned(),
            properties: AccountProperties::over(&json!({}), None, Uuid::nil()).unwrap(),
        }
    }

    #[test]
    fn a_service_takes_what_clients_send_by_default() {
        let az = json!({
            "cors": { "corsRules": [] }, "deleteRetentionPolicy": { "enabled": false, "allowPermanentDelete": false },
        });
        let terraform = json!({
            "changeFeed": { "enabled": false },
            "containerDeleteRetentionPolicy": { "enabled": false },
            "cors": { "corsRules": [] },
            "deleteRetentionPolicy": { "enabled": false },
            "isVersioningEnabled": false,
            "lastAccessTimeTrackingPolicy": { "enable": false },
            "restorePolicy": { "enabled": false },
        });
        let nothing = json!({ "cors": null, "changeFeed": { "enabled": null }, "staticWebsite": {} });
        for asked in [az, terraform, nothing, json!(null)] {
            let body = json!({ "properties": asked, "sku": { "name": "Standard_LRS" }, "name": "default" });
            check_blob_service(&body, &account()).unwrap();
        }
        let smb =
            json!({ "authenticationMethods": "", "versions": "", "multichannel": { "enabled": false } });
        let files = json!({
            "cors": {}, "shareDeleteRetentionPolicy": { "enabled": false }, "protocolSettings": { "smb": smb },
        });
        check_file_service(&json!({ "properties": files }), &account()).unwrap();
    }

    #[test]
    fn a_service_refuses_what_it_would_have_to_enforce() {
        for asked in [
            json!({ "deleteRetentionPolicy": { "enabled": true, "days": 7 } }),
            json!({ "deleteRetentionPolicy": { "enabled": false, "allowPermanentDelete": true } }),
            json!({ "deleteRetentionPolicy": { "Enabled": true } }),
            json!({ "deleteRetentionPolicy": true }),
            json!({ "containerDeleteRetentionPolicy": { "enabled": true } }),
            json!({ "isVersioningEnabled": true }),
            json!({ "changeFeed": { "enabled": true } }),
            json!({ "changeFeed": { "retentionInDays": 7 } }),
            json!({ "restorePolicy": { "enabled": true, "days": 6 } }),
            json!({ "lastAccessTimeTrackingPolicy": { "enable": true } }),
            json!({ "cors": { "corsRules": [{ "allowedOrigins": ["*"] }] } }),
            json!({ "cors": [] }),
            json!({ "defaultServiceVersion": "2018-11-09" }),
            json!({ "automaticSnapshotPolicyEnabled": true }),
            json!({ "staticWebsite": { "enabled": true } }),
            json!({ "staticWebsite": { "enabled": false, "indexDocument": "index.html" } }),
            json!({ "somethingNew": false }),
        ] {
            let refused = check_blob_service(&json!({ "properties": asked }), &account()).unwrap_err();
            let name = asked.as_object().unwrap().keys().next().unwrap();
            assert_eq!(
                (&*refused.code, refused.message.contains(name)),
                ("FeatureNotSupported", true),
                "{asked}"
            );
        }
        for body in [
            json!({ "sku": { "name": "Premium_LRS" } }),
            json!({ "sku": { "name": "Standard_LRS", "capacity": 1 } }),
            json!({ "isVersioningEnabled": true }),
            json!({ "Properties": {} }),
        ] {
            let refused = check_blob_service(&body, &account()).unwrap_err();
            assert_eq!(&*refused.code, "FeatureNotSupported", "{body}");
        }
        for body in [json!([]), json!("x"), json!(null), json!({ "properties": [] })] {
            assert_eq!(check_blob_service(&body, &account()).unwrap_err().status.as_u16(), 400, "{body}");
        }
        for asked in [
            json!({ "shareDeleteRetentionPolicy": { "enabled": true, "days": 7 } }),
            json!({ "protocolSettings": { "smb": { "multichannel": { "enabled": true } } } }),
            json!({ "protocolSettings": { "smb": { "versions": "SMB3.1.1" } } }),
            json!({ "protocolSettings": { "nfs": {} } }),
            json!({ "isVersioningEnabled": false }),
        ] {
            let refused = check_file_service(&json!({ "properties": asked }), &account()).unwrap_err();
            assert_eq!(&*refused.code, "FeatureNotSupported", "{asked}");
        }
    }

    #[test]
    fn a_container_has_metadata_and_nothing_else_of_its_own() {
        let of = |properties: Value| container_asked(&json!({ "properties": properties }));
        assert_eq!(container_asked(&json!({})).unwrap(), None);
        assert_eq!(of(json!({ "metadata": null, "publicAccess": "none" })).unwrap(), None);
        for none in [json!({}), json!({ "a": null })] {
            assert_eq!(of(json!({ "metadata": none })).unwrap(), Some(Metadata::new()));
        }
        let two = of(json!({ "metadata": { "Key1": " v 1 ", "_k": "" } })).unwrap().unwrap();
        assert_eq!(two, [("Key1", "v 1"), ("_k", "")].map(|(n, v)| (n.to_owned(), v.to_owned())).into());
        let mut shown = container_shown();
        shown["lastModifiedTime"] = json!("2026-11-21T12:00:00.0000000Z");
        shown["legalHold"] = no_legal_hold();
        shown["immutableStorageWithVersioning"] = json!({ "enabled": false });
        assert_eq!(of(shown).unwrap(), None, "what is shown can be put back");
        let long = "x".repeat(8192);
        for (properties, code) in [
            (json!({ "publicAccess": "Blob" }), "PublicAccessNotPermitted"),
            (json!({ "publicAccess": "container" }), "PublicAccessNotPermitted"),
            (json!({ "publicAccess": "All" }), "InvalidRequestPropertyValue"),
            (json!({ "publicAccess": true }), "InvalidRequestPropertyValue"),
            (json!({ "metadata": "a=b" }), "InvalidRequestPropertyValue"),
            (json!({ "metadata": { "a": 1 } }), "InvalidMetadata"),
            (json!({ "metadata": { "a": ["b"] } }), "InvalidMetadata"),
            (json!({ "metadata": { "a-b": "c" } }), "InvalidMetadata"),
            (json!({ "metadata": { "1a": "c" } }), "InvalidMetadata"),
            (json!({ "metadata": { "": "c" } }), "InvalidMetadata"),
            (json!({ "metadata": { "a": "b\nc" } }), "InvalidMetadata"),
            (json!({ "metadata": { "a": "ä" } }), "InvalidMetadata"),
            (json!({ "metadata": { "a": "1", "A": "2" } }), "InvalidMetadata"),
            (json!({ "metadata": { "a": long } }), "MetadataTooLarge"),
            (json!({ "defaultEncryptionScope": "mine" }), "FeatureNotSupported"),
            (json!({ "denyEncryptionScopeOverride": true }), "FeatureNotSupported"),
            (json!({ "immutableStorageWithVersioning": { "enabled": true } }), "FeatureNotSupported"),
            (json!({ "enableNfsV3RootSquash": true }), "FeatureNotSupported"),
            (json!({ "legalHold": { "hasLegalHold": true } }), "FeatureNotSupported"),
            (json!({ "immutabilityPolicy": {} }), "FeatureNotSupported"),
            (json!({ "PublicAccess": "Blob" }), "FeatureNotSupported"),
            (json!({ "lastModifiedTime": 1 }), "FeatureNotSupported"),
        ] {
            let refused = of(properties.clone()).unwrap_err();
            assert_eq!(&*refused.code, code, "{properties}");
        }
        for body in [json!({ "metadata": { "a": "b" } }), json!({ "sku": { "name": "Standard_LRS" } })] {
            assert_eq!(&*container_asked(&body).unwrap_err().code, "FeatureNotSupported", "{body}");
        }
    }
}
