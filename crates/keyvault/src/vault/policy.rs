//! Access policies: the permission model of a vault that does not use roles.

use std::sync::Arc;

use arcadia_arm::PrincipalSource;
use arcadia_kernel::{ArmId, Caller, Decider, Decision, DenyReason, Fault, Plane, Question};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::properties::bad_request;
use super::{PROVIDER, VAULT_ID_SEGMENTS, Vault};
use crate::KeyVault;

/// Starts what [`Decision::Allowed`] names when a policy and not a role assignment allowed it.
pub const ALLOWED_BY_POLICY: &str = "accessPolicy:";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccessPolicy {
    pub tenant_id: Uuid,
    /// A user, group or service principal.
    pub object_id: Uuid,
    /// When set, the policy is for this object only when it acts through this application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_id: Option<Uuid>,
    pub permissions: Permissions,
}

/// Permissions by kind of object; `None` where a client did not mention the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Permissions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Vec<String>>,
}

const KEY_VERBS: &[&str] = &[
    "all",
    "backup",
    "create",
    "decrypt",
    "delete",
    "encrypt",
    "get",
    "getrotationpolicy",
    "import",
    "list",
    "purge",
    "recover",
    "release",
    "restore",
    "rotate",
    "setrotationpolicy",
    "sign",
    "unwrapKey",
    "update",
    "verify",
    "wrapKey",
];
const SECRET_VERBS: &[&str] =
    &["all", "backup", "delete", "get", "list", "purge", "recover", "restore", "set"];
const CERTIFICATE_VERBS: &[&str] = &[
    "all",
    "backup",
    "create",
    "delete",
    "deleteissuers",
    "get",
    "getissuers",
    "import",
    "list",
    "listissuers",
    "managecontacts",
    "manageissuers",
    "purge",
    "recover",
    "restore",
    "setissuers",
    "update",
];
const STORAGE_VERBS: &[&str] = &[
    "all",
    "backup",
    "delete",
    "deletesas",
    "get",
    "getsas",
    "list",
    "listsas",
    "purge",
    "recover",
    "regeneratekey",
    "restore",
    "set",
    "setsas",
    "update",
];

/// A kind of object, its verbs, and those that are given.
type Listed<'a> = (&'static str, &'static [&'static str], &'a mut Option<Vec<String>>);

impl Permissions {
    fn lists(&mut self) -> [Listed<'_>; 4] {
        [
            ("keys", KEY_VERBS, &mut self.keys),
            ("secrets", SECRET_VERBS, &mut self.secrets),
            ("certificates", CERTIFICATE_VERBS, &mut self.certificates),
            ("storage", STORAGE_VERBS, &mut self.storage),
        ]
    }

    fn of(&self, object: &str) -> &[String] {
        let list = match object {
            "keys" => &self.keys,
            "secrets" => &self.secrets,
            "certificates" => &self.certificates,
            _ => &None,
        };
        list.as_deref().unwrap_or_default()
    }

    fn is_empty(&mut self) -> bool {
        self.lists().iter().all(|(_, _, list)| list.as_ref().is_none_or(Vec::is_empty))
    }
}

impl AccessPolicy {
    /// Knows every verb, spells them as the service does, names each once.
    pub fn checked(mut self, tenant: Uuid) -> Result<Self, Fault> {
        if self.tenant_id != tenant {
            return Err(bad_request(format!(
                "The access policy for the object '{}' is for another tenant than this subscription's, which is \
                 '{tenant}'.",
                self.object_id
            )));
        }
        for (object, known, list) in self.permissions.lists() {
            let Some(list) = list else { continue };
            let mut checked: Vec<String> = Vec::new();
            for verb in list.iter() {
                let spelled =
                    known.iter().find(|known| known.eq_ignore_ascii_case(verb)).ok_or_else(|| {
                        let shown: String = verb.chars().take(40).collect();
                        bad_request(format!(
                            "'{shown}' is not a permission on {object}. Known are: {}.",
                            known.join(", ")
                        ))
                    })?;
                if !checked.iter().any(|have| have == spelled) {
                    checked.push((*spelled).to_owned());
                }
            }
            *list = checked;
        }
        Ok(self)
    }

    pub fn is_for_same_as(&self, other: &Self) -> bool {
        self.object_id == other.object_id && self.application_id == other.application_id
    }

    fn is_for(&self, caller: &Caller, groups: &std::collections::HashSet<Uuid>) -> bool {
        self.tenant_id == caller.tenant_id
            && (self.object_id == caller.object_id || groups.contains(&self.object_id))
            && self.application_id.is_none_or(|application| application == caller.app_id)
    }
}

/// How `PUT .../accessPolicies/{kind}` changes the policies of a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpdateKind {
    Add,
    Replace,
    Remove,
}

impl UpdateKind {
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "add" => Some(Self::Add),
            "replace" => Some(Self::Replace),
            "remove" => Some(Self::Remove),
            _ => None,
        }
    }

    /// `change` is checked already.
    pub fn apply(self, policies: &mut Vec<AccessPolicy>, change: Vec<AccessPolicy>) {
        for changed in change {
            let found = policies.iter_mut().find(|policy| policy.is_for_same_as(&changed));
            match (self, found) {
                (Self::Add, Some(policy)) => add(&mut policy.permissions, changed.permissions),
                (Self::Replace, Some(policy)) => policy.permissions = changed.permissions,
                (Self::Add | Self::Replace, None) => policies.push(changed),
                (Self::Remove, Some(policy)) => remove(&mut policy.permissions, changed.permissions),
                (Self::Remove, None) => {}
            }
        }
        if self == Self::Remove {
            policies.retain_mut(|policy| !policy.permissions.is_empty());
        }
    }
}

fn add(to: &mut Permissions, mut what: Permissions) {
    for ((_, _, list), (_, _, new)) in to.lists().into_iter().zip(what.lists()) {
        let Some(new) = new.take() else { continue };
        let list = list.get_or_insert_default();
        for verb in new {
            if !list.contains(&verb) {
                list.push(verb);
            }
        }
    }
}

fn remove(from: &mut Permissions, mut what: Permissions) {
    for ((_, _, list), (_, _, gone)) in from.lists().into_iter().zip(what.lists()) {
        if let (Some(list), Some(gone)) = (list, gone) {
            list.retain(|verb| !gone.contains(verb));
        }
    }
}

/// The kind of object and the verb that allows `action` at `scope`. `None`: no policy allows it.
pub(crate) fn verb(action: &str, scope: &ArmId) -> Option<(&'static str, &'static str)> {
    let mut parts = action.splitn(4, '/');
    let (provider, kind, object) = (parts.next()?, parts.next()?, parts.next()?);
    if !provider.eq_ignore_ascii_case(PROVIDER) || !kind.eq_ignore_ascii_case("vaults") {
        return None;
    }
    if !object.eq_ignore_ascii_case("secrets") {
        return None;
    }
    let verb = match parts.next()?.to_ascii_lowercase().as_str() {
        "getsecret/action" => "get",
        // Of one secret and not of its list of versions: its deleted form, which is for who may get it.
        "readmetadata/action" if scope.segments().count() == VAULT_ID_SEGMENTS + 2 => "get",
        "readmetadata/action" => "list",
        "setsecret/action" | "update/action" => "set",
        "delete" => "delete",
        "recover/action" => "recover",
        "purge/action" => "purge",
        "backup/action" => "backup",
        "restore/action" => "restore",
        _ => return None,
    };
    Some(("secrets", verb))
}

/// `all` leaves out what nothing brings back.
fn gives(have: &str, verb: &str) -> bool {
    have == verb || (have == "all" && verb != "purge")
}

/// Decides by the vault's policies alone; roles count for nothing in such a vault.
pub(crate) fn decide(vault: &Vault, directory: &dyn PrincipalSource, question: &Question<'_>) -> Decision {
    let Some(groups) = directory.groups_of(question.caller.object_id) else {
        return Decision::Denied(DenyReason::NoSuchPrincipal);
    };
    let Some((object, verb)) = verb(question.action, question.scope) else {
        return Decision::Denied(DenyReason::NoAccessPolicy);
    };
    let allows = |policy: &&AccessPolicy| {
        policy.is_for(question.caller, &groups)
            && policy.permissions.of(object).iter().any(|have| gives(have, verb))
    };
    match vault.properties.access_policies.iter().find(allows) {
        Some(policy) => Decision::Allowed { by: format!("{ALLOWED_BY_POLICY}{}", policy.object_id).into() },
        None => Decision::Denied(DenyReason::NoAccessPolicy),
    }
}

/// Asks the vaults with access policies first, and the engine of roles for everything else.
pub(crate) struct PolicyFirst {
    pub keyvault: Arc<KeyVault>,
    pub roles: Arc<dyn Decider>,
}

impl Decider for PolicyFirst {
    fn decide(&self, question: &Question<'_>) -> Decision {
        match self.keyvault.decide_by_policy(question) {
            Some(decision) if question.plane == Plane::Data => decision,
            _ => self.roles.decide(question),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: Uuid = Uuid::from_u128(1);

    fn policy(object: u128, secrets: &[&str]) -> AccessPolicy {
        AccessPolicy {
            tenant_id: TENANT,
            object_id: Uuid::from_u128(object),
            application_id: None,
            permissions: Permissions {
                secrets: Some(secrets.iter().map(|verb| (*verb).to_owned()).collect()),
                ..Permissions::default()
            },
        }
    }

    fn verbs_of(policies: &[AccessPolicy], object: u128) -> Option<Vec<String>> {
        let found = policies.iter().find(|policy| policy.object_id == Uuid::from_u128(object))?;
        found.permissions.secrets.clone()
    }

    #[test]
    fn verbs_are_spelled_as_known_and_once() {
        let checked = policy(7, &["GET", "get", "List"]).checked(TENANT).unwrap();
        assert_eq!(checked.permissions.secrets.unwrap(), ["get", "list"]);
        assert!(policy(7, &["read"]).checked(TENANT).unwrap_err().message.contains("'read' is not"));
        assert!(policy(7, &["get"]).checked(Uuid::from_u128(2)).is_err());
    }

    #[test]
    fn policies_are_added_replaced_and_removed_by_object() {
        let mut policies = vec![policy(7, &["get"])];
        UpdateKind::Add.apply(&mut policies, vec![policy(7, &["get", "list"]), policy(8, &["set"])]);
        assert_eq!(verbs_of(&policies, 7).unwrap(), ["get", "list"]);
        assert_eq!(verbs_of(&policies, 8).unwrap(), ["set"]);
        UpdateKind::Replace.apply(&mut policies, vec![policy(7, &["purge"])]);
        assert_eq!(verbs_of(&policies, 7).unwrap(), ["purge"]);
        UpdateKind::Remove.apply(&mut policies, vec![policy(8, &["set", "get"]), policy(9, &["get"])]);
        assert_eq!((verbs_of(&policies, 8), policies.len()), (None, 1));
        assert_eq!(UpdateKind::parse("Replace"), Some(UpdateKind::Replace));
        assert_eq!(UpdateKind::parse("drop"), None);
    }

    #[test]
    fn an_action_has_the_verb_of_the_policy_model() {
        let vault =
            ArmId::parse("/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v").unwrap();
        let at = |suffix: &str, action: &str| {
            let scope = vault.join(suffix).unwrap();
            verb(&format!("Microsoft.KeyVault/vaults/secrets/{action}"), &scope).map(|(_, verb)| verb)
        };
        assert_eq!(at("secrets/s", "getSecret/action"), Some("get"));
        assert_eq!(at("", "readMetadata/action"), Some("list"));
        assert_eq!(at("secrets/s", "readMetadata/action"), Some("get"));
        assert_eq!(at("secrets/s/versions", "readMetadata/action"), Some("list"));
        assert_eq!(at("secrets/s", "update/action"), Some("set"));
        assert_eq!(at("secrets/s", "unknown/action"), None);
        assert_eq!(verb("Microsoft.Storage/vaults/secrets/delete", &vault), None);
    }
}
