//! The data plane's refusals in the service's own words.

use arcadia_kernel::{Caller, CallerKind, Denial, DenyReason, Fault, StatusCode};

use crate::vault::Vault;

const NAME_CHARS_SHOWN_MAX: usize = 127;

pub(crate) fn bad_parameter(message: impl Into<String>) -> Fault {
    Fault::bad_request("BadParameter", message)
}

/// A host name without a vault. On Azure it would not resolve; here the name reaches us, so it is answered.
pub(crate) fn no_such_vault(host: &str) -> Fault {
    let message = format!(
        "There is no key vault at '{host}'. Check the vault's name; if it was deleted recently, recover it with \
         'az keyvault recover'."
    );
    Fault::not_found("VaultNotFound", message)
}

pub(crate) fn invalid_name(name: &str) -> Fault {
    let shown: String = name.chars().take(NAME_CHARS_SHOWN_MAX).collect();
    bad_parameter(format!(
        "The request URI contains an invalid name: {shown}. Names have 1 to 127 letters, digits and hyphens."
    ))
}

pub(crate) fn invalid_version(name: &str) -> Fault {
    bad_parameter(format!(
        "The request URI contains an invalid version for '{name}'. Versions have 32 hexadecimal digits."
    ))
}

pub(crate) fn secret_not_found(name_or_id: &str) -> Fault {
    let message = format!(
        "A secret with (name/id) {name_or_id} was not found in this key vault. If you recently deleted this \
         secret you may be able to recover it using the correct recovery command. For help resolving this \
         issue, please see https://go.microsoft.com/fwlink/?linkid=2125182"
    );
    Fault::not_found("SecretNotFound", message)
}

pub(crate) fn deleted_secret_not_found(name: &str) -> Fault {
    Fault::not_found("SecretNotFound", format!("Deleted Secret not found: {name}"))
}

pub(crate) fn secret_is_deleted(name: &str) -> Fault {
    let message = format!(
        "Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this \
         state, the secret can only be recovered or purged."
    );
    Fault::conflict("Conflict", message).inner("ObjectIsDeletedButRecoverable")
}

pub(crate) fn secret_exists(name: &str) -> Fault {
    Fault::bad_request("MethodNotAllowed", format!("Secret exists already: {name}"))
        .inner("RequestNotAllowedOnNonDeletedObject")
}

pub(crate) fn secret_disabled() -> Fault {
    Fault::forbidden("Forbidden", "Operation get is not allowed on a disabled secret.")
        .inner("SecretDisabled")
}

pub(crate) fn purge_protected(vault: &Vault) -> Fault {
    let message = format!(
        "Operation \"purge\" is not allowed because purge protection is enabled for this vault. Key Vault \
         service will automatically purge it after the retention period has passed.\r\nVault: {}",
        vault.place()
    );
    Fault::forbidden("Forbidden", message)
}

pub(crate) fn malformed_backup() -> Fault {
    Fault::bad_request("Malformed backup blob", "Backup blob contains invalid or corrupt version.")
}

pub(crate) fn restore_conflict(id: &str) -> Fault {
    let message = format!(
        "There was a conflict restoring the secret '{id}'. This can happen if either: a second secret with the \
         same name was created after the first secret was deleted; thus trying to restore a secret whose name \
         is already in use. To fix this, rename the second secret to something else so that the restore works. \
         The second probable cause of this exception is when multiple operations are performed in parallel \
         against the secret. To avoid this error, perform operations against a secret in a sequential manner."
    );
    Fault::conflict("Conflict", message)
}

pub(crate) fn unknown_path() -> Fault {
    Fault::not_found("NotFound", "The requested path is not one that this key vault serves.")
}

pub(crate) fn other_method(method: &str) -> Fault {
    let message = format!("The method {method} is not supported at this path.");
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
}

/// The caller as every refusal names it.
pub(crate) fn caller_facts(caller: &Caller) -> String {
    let mut facts = format!("appid={};oid={};iss={}", caller.app_id, caller.object_id, caller.issuer);
    if caller.kind == CallerKind::ManagedIdentity
        && let Some(resource) = &caller.resource_id
    {
        facts.push_str(&format!(";xms_mirid={resource};xms_az_rid={resource}"));
    }
    facts
}

/// No role assignment allows it.
pub(crate) fn forbidden_by_rbac(vault: &Vault, caller: &Caller, denial: &Denial) -> Fault {
    let deny_assignment = match &denial.reason {
        DenyReason::DenyAssignment(id) => format!("'{id}'"),
        DenyReason::NoAssignment
        | DenyReason::NoAccessPolicy
        | DenyReason::NoSuchPrincipal
        | DenyReason::CredentialSwitchedOff => "null".to_owned(),
    };
    let message = format!(
        "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or \
         role definitions were changed recently, please observe propagation time.\r\nCaller: {}\r\nAction: \
         '{}'\r\nResource: '{}'\r\nAssignment: (not found)\r\nDenyAssignmentId: {deny_assignment}\r\n\
         DecisionReason: null \r\nVault: {}\r\n",
        caller_facts(caller),
        denial.action,
        vault.resource_shown(&denial.scope),
        vault.place(),
    );
    Fault::forbidden("Forbidden", message).inner("ForbiddenByRbac")
}

/// No access policy of the vault allows `verb` on `object`.
pub(crate) fn forbidden_by_policy(
    vault: &Vault,
    caller: &Caller,
    groups: usize,
    (object, verb): (&str, &str),
) -> Fault {
    let message = format!(
        "The user, group or application 'appid={};oid={};numgroups={groups};iss={}' does not have {object} \
         {verb} permission on key vault '{}'. For help resolving this issue, please see \
         https://go.microsoft.com/fwlink/?linkid=2125287",
        caller.app_id,
        caller.object_id,
        caller.issuer,
        vault.place(),
    );
    Fault::forbidden("Forbidden", message).inner("ForbiddenByPolicy")
}

/// The vault takes no requests from public networks.
pub(crate) fn forbidden_by_connection(vault: &Vault) -> Fault {
    let message = format!(
        "Public network access is disabled and request is not from a trusted service nor via an approved \
         private link.\r\nVault: {}",
        vault.place()
    );
    Fault::forbidden("Forbidden", message).inner("ForbiddenByConnection")
}

/// The vault's network rules do not name the client's address.
pub(crate) fn forbidden_by_firewall(vault: &Vault, address: &str) -> Fault {
    let message = format!(
        "Client address is not authorized and caller is not a trusted service.\r\nClient address: \
         {address}\r\nVault: {}",
        vault.place()
    );
    Fault::forbidden("Forbidden", message).inner("ForbiddenByFirewall")
}
