//! A vault's properties: as a client asks for them, as they are stored, and as they are shown.

use arcadia_arm::Resource;
use arcadia_kernel::Fault;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::network::Block;
use super::policy::AccessPolicy;

pub(crate) const RETENTION_DAYS_DEFAULT: u16 = 90;
const RETENTION_DAYS: std::ops::RangeInclusive<u16> = 7..=RETENTION_DAYS_DEFAULT;
const ACCESS_POLICIES_MAX: usize = 1024;
const NETWORK_RULES_MAX: usize = 1000;
const RESOURCE_ID_CHARS_MAX: usize = 2048;
/// From this management version on a vault is created with roles when nothing is said.
const RBAC_BY_DEFAULT_SINCE: &str = "2026-02-01";

/// The properties of a vault as they are stored. The names are those of the wire, so that a change can be
/// merged over them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VaultProperties {
    /// See [`crate::records::NameClaim::instance`]; never shown, never taken from a client.
    pub instance: Uuid,
    pub tenant_id: Uuid,
    pub sku: Sku,
    pub access_policies: Vec<AccessPolicy>,
    pub enable_rbac_authorization: bool,
    pub soft_delete_retention_in_days: u16,
    /// `Some(true)` or absent: it is never switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_purge_protection: Option<bool>,
    #[serde(default)]
    pub enabled_for_deployment: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled_for_disk_encryption: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled_for_template_deployment: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_acls: Option<NetworkAcls>,
    pub public_network_access: PublicAccess,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sku {
    /// Always `A`.
    pub family: String,
    /// `standard` or `premium`.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PublicAccess {
    Enabled,
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NetworkAction {
    Allow,
    Deny,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetworkAcls {
    /// `AzureServices` or `None`.
    pub bypass: String,
    pub default_action: NetworkAction,
    pub ip_rules: Vec<IpRule>,
    pub virtual_network_rules: Vec<VirtualNetworkRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IpRule {
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VirtualNetworkRule {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_missing_vnet_service_endpoint: Option<bool>,
}

/// What a PUT says. Fields that only the service sets (`vaultUri`, `provisioningState`, ...) come back in
/// updates and are not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VaultRequest {
    tenant_id: Option<Uuid>,
    sku: Option<Sku>,
    access_policies: Option<Vec<AccessPolicy>>,
    pub enable_rbac_authorization: Option<bool>,
    enable_soft_delete: Option<bool>,
    soft_delete_retention_in_days: Option<i64>,
    enable_purge_protection: Option<bool>,
    enabled_for_deployment: Option<bool>,
    enabled_for_disk_encryption: Option<bool>,
    enabled_for_template_deployment: Option<bool>,
    network_acls: Option<NetworkRequest>,
    public_network_access: Option<String>,
    create_mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NetworkRequest {
    bypass: Option<String>,
    default_action: Option<String>,
    ip_rules: Option<Vec<IpRule>>,
    virtual_network_rules: Option<Vec<VirtualNetworkRule>>,
}

/// `createMode` of a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CreateMode {
    Default,
    Recover,
}

pub(crate) fn bad_request(message: impl Into<String>) -> Fault {
    Fault::bad_request("BadRequest", message)
}

impl VaultRequest {
    pub fn read(properties: Value) -> Result<Self, Fault> {
        serde_json::from_value(properties).map_err(|error| {
            bad_request(format!("The properties of the vault are not well formed: {error}."))
        })
    }

    pub fn create_mode(&self) -> Result<CreateMode, Fault> {
        match self.create_mode.as_deref() {
            None => Ok(CreateMode::Default),
            Some(mode) if mode.eq_ignore_ascii_case("default") => Ok(CreateMode::Default),
            Some(mode) if mode.eq_ignore_ascii_case("recover") => Ok(CreateMode::Recover),
            Some(_) => Err(bad_request("createMode must be 'default' or 'recover'.")),
        }
    }

    /// The vault as it shall be: what is not said stays as it is in `current`, or gets its default.
    pub fn over(
        self,
        current: Option<&VaultProperties>,
        tenant: Uuid,
        api_version: &str,
        new_instance: Uuid,
    ) -> Result<VaultProperties, Fault> {
        self.check_irrevocable(current)?;
        let retention = self.retention(current)?;
        let access_policies = match self.access_policies {
            Some(policies) => checked_policies(policies, tenant)?,
            None => current.map(|c| c.access_policies.clone()).unwrap_or_default(),
        };
        let rbac_by_default = api_version.get(..10).is_some_and(|date| date >= RBAC_BY_DEFAULT_SINCE);
        Ok(VaultProperties {
            instance: current.map_or(new_instance, |c| c.instance),
            tenant_id: checked_tenant(self.tenant_id, current, tenant)?,
            sku: match (self.sku, current) {
                (Some(sku), _) => checked_sku(&sku)?,
                (None, Some(current)) => current.sku.clone(),
                (None, None) => return Err(bad_request("The vault's properties must have a sku.")),
            },
            access_policies,
            enable_rbac_authorization: self
                .enable_rbac_authorization
                .or(current.map(|c| c.enable_rbac_authorization))
                .unwrap_or(rbac_by_default),
            soft_delete_retention_in_days: retention,
            enable_purge_protection: self
                .enable_purge_protection
                .or(current.and_then(|c| c.enable_purge_protection)),
            enabled_for_deployment: self
                .enabled_for_deployment
                .or(current.map(|c| c.enabled_for_deployment))
                .unwrap_or(false),
            enabled_for_disk_encryption: self
                .enabled_for_disk_encryption
                .or(current.and_then(|c| c.enabled_for_disk_encryption)),
            enabled_for_template_deployment: self
                .enabled_for_template_deployment
                .or(current.and_then(|c| c.enabled_for_template_deployment)),
            network_acls: match self.network_acls {
                Some(rules) => Some(rules.checked()?),
                None => current.and_then(|c| c.network_acls.clone()),
            },
            public_network_access: match self.public_network_access.as_deref() {
                None => current.map_or(PublicAccess::Enabled, |c| c.public_network_access),
                Some(text) if text.eq_ignore_ascii_case("enabled") => PublicAccess::Enabled,
                Some(text) if text.eq_ignore_ascii_case("disabled") => PublicAccess::Disabled,
                Some(_) => return Err(bad_request("publicNetworkAccess must be 'Enabled' or 'Disabled'.")),
            },
        })
    }

    fn check_irrevocable(&self, current: Option<&VaultProperties>) -> Result<(), Fault> {
        if self.enable_purge_protection == Some(false) {
            return Err(bad_request(
                "The property \"enablePurgeProtection\" cannot be set to false. Enabling the purge protection \
                 for a vault is an irreversible action.",
            ));
        }
        if self.enable_soft_delete == Some(false) {
            return Err(bad_request(if current.is_some() {
                "The property \"enableSoftDelete\" can be set to false only for creating new vault. Enabling the \
                 'soft delete' functionality is an irreversible action."
            } else {
                "The property \"enableSoftDelete\" cannot be set to false: every vault keeps what is deleted for \
                 its retention period. Leave the property out."
            }));
        }
        Ok(())
    }

    fn retention(&self, current: Option<&VaultProperties>) -> Result<u16, Fault> {
        let wanted = match self.soft_delete_retention_in_days {
            None => None,
            Some(days) => {
                Some(u16::try_from(days).ok().filter(|days| RETENTION_DAYS.contains(days)).ok_or_else(
                    || bad_request("The property \"softDeleteRetentionInDays\" must be from 7 to 90 days."),
                )?)
            }
        };
        match (current.map(|c| c.soft_delete_retention_in_days), wanted) {
            (Some(set), Some(wanted)) if set != wanted => Err(bad_request(
                "The property \"softDeleteRetentionInDays\" has been set already and it can't be modified.",
            )),
            (Some(set), _) => Ok(set),
            (None, wanted) => Ok(wanted.unwrap_or(RETENTION_DAYS_DEFAULT)),
        }
    }
}

impl NetworkRequest {
    fn checked(self) -> Result<NetworkAcls, Fault> {
        let bypass = match self.bypass.as_deref() {
            None => "AzureServices",
            Some(text) if text.eq_ignore_ascii_case("AzureServices") => "AzureServices",
            Some(text) if text.eq_ignore_ascii_case("None") => "None",
            Some(_) => return Err(bad_request("networkAcls.bypass must be 'AzureServices' or 'None'.")),
        };
        let default_action = match self.default_action.as_deref() {
            None => NetworkAction::Allow,
            Some(text) if text.eq_ignore_ascii_case("allow") => NetworkAction::Allow,
            Some(text) if text.eq_ignore_ascii_case("deny") => NetworkAction::Deny,
            Some(_) => return Err(bad_request("networkAcls.defaultAction must be 'Allow' or 'Deny'.")),
        };
        let ip_rules = self.ip_rules.unwrap_or_default();
        let virtual_network_rules = self.virtual_network_rules.unwrap_or_default();
        if ip_rules.len() > NETWORK_RULES_MAX || virtual_network_rules.len() > NETWORK_RULES_MAX {
            return Err(bad_request(format!(
                "networkAcls takes at most {NETWORK_RULES_MAX} rules of a kind."
            )));
        }
        let ip_rules = ip_rules.iter().map(IpRule::canonical).collect::<Result<_, Fault>>()?;
        if virtual_network_rules.iter().any(|rule| rule.id.len() > RESOURCE_ID_CHARS_MAX) {
            return Err(bad_request("networkAcls.virtualNetworkRules has an id that is too long."));
        }
        let virtual_network_rules = virtual_network_rules
            .into_iter()
            .map(|rule| VirtualNetworkRule { id: rule.id.to_ascii_lowercase(), ..rule })
            .collect();
        Ok(NetworkAcls { bypass: bypass.to_owned(), default_action, ip_rules, virtual_network_rules })
    }
}

impl IpRule {
    /// Blocks are shown as the service writes them, whatever they were written like; clients read them strictly.
    fn canonical(&self) -> Result<Self, Fault> {
        let block = Block::parse(&self.value).ok_or_else(|| {
            let shown: String = self.value.chars().take(64).collect();
            bad_request(format!(
                "networkAcls.ipRules has '{shown}', which is neither an address nor a CIDR range."
            ))
        })?;
        Ok(Self { value: block.to_string() })
    }
}

pub(crate) fn checked_policies(
    policies: Vec<AccessPolicy>,
    tenant: Uuid,
) -> Result<Vec<AccessPolicy>, Fault> {
    if policies.len() > ACCESS_POLICIES_MAX {
        return Err(bad_request(format!("A vault has at most {ACCESS_POLICIES_MAX} access policies.")));
    }
    let mut checked: Vec<AccessPolicy> = Vec::with_capacity(policies.len());
    for policy in policies {
        let policy = policy.checked(tenant)?;
        if checked.iter().any(|other| other.is_for_same_as(&policy)) {
            return Err(bad_request(format!(
                "There is more than one access policy for the object '{}'; give it one with all its permissions.",
                policy.object_id
            )));
        }
        checked.push(policy);
    }
    Ok(checked)
}

fn checked_tenant(
    wanted: Option<Uuid>,
    current: Option<&VaultProperties>,
    tenant: Uuid,
) -> Result<Uuid, Fault> {
    match wanted.or(current.map(|c| c.tenant_id)) {
        None => Err(bad_request("The vault's properties must have a tenantId.")),
        Some(id) if id == tenant => Ok(id),
        Some(id) => Err(bad_request(format!(
            "The tenantId '{id}' is not the tenant of this subscription, which is '{tenant}'."
        ))),
    }
}

fn checked_sku(sku: &Sku) -> Result<Sku, Fault> {
    let name = ["standard", "premium"].into_iter().find(|known| known.eq_ignore_ascii_case(&sku.name));
    match name {
        Some(name) if sku.family.eq_ignore_ascii_case("A") => {
            Ok(Sku { family: "A".to_owned(), name: name.to_owned() })
        }
        _ => {
            Err(bad_request("The vault's sku must have the family 'A' and the name 'standard' or 'premium'."))
        }
    }
}

impl VaultProperties {
    pub fn stored(resource: &Resource) -> Result<Self, serde_json::Error> {
        Self::deserialize(&resource.properties)
    }

    pub fn is_purge_protected(&self) -> bool {
        self.enable_purge_protection == Some(true)
    }

    /// As clients see it.
    pub fn shown(&self, vault_uri: &str) -> Value {
        let mut shown = json!({
            "sku": self.sku,
            "tenantId": self.tenant_id,
            "accessPolicies": self.access_policies,
            "enabledForDeployment": self.enabled_for_deployment,
            "enableSoftDelete": true,
            "softDeleteRetentionInDays": self.soft_delete_retention_in_days,
            "enableRbacAuthorization": self.enable_rbac_authorization,
            "vaultUri": vault_uri,
            "provisioningState": "Succeeded",
            "publicNetworkAccess": self.public_network_access,
        });
        let optional = [
            ("networkAcls", self.network_acls.as_ref().map(|rules| json!(rules))),
            ("enabledForDiskEncryption", self.enabled_for_disk_encryption.map(Value::from)),
            ("enabledForTemplateDeployment", self.enabled_for_template_deployment.map(Value::from)),
            ("enablePurgeProtection", self.enable_purge_protection.map(Value::from)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                shown[name] = value;
            }
        }
        shown
    }
}
