//! Whether a name is free.

use std::sync::Arc;

use arcadia_arm::{Arm, NameRule, ResourceKind as _};
use arcadia_kernel::{At, Fault, Json, Method, Op, Permit, Reply, action, op};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Vaults;
use super::vault::taken_message;
use crate::KeyVault;
use crate::records::{NAMES, folded};

action!(CheckName, Control, "Microsoft.KeyVault/checkNameAvailability/read");
action!(CheckHsmName, Control, "Microsoft.KeyVault/checkMhsmNameAvailability/read");

const BODY_BYTES_MAX: usize = 16 * 1024;
/// Managed HSMs have names of their own; there are none here, so every well-formed one is free.
const HSM_RULE: NameRule = NameRule { chars_min: 3, chars_max: 24, ..Vaults::NAME_RULE };

#[derive(Deserialize)]
struct Ask {
    name: String,
}

pub(super) fn ops(keyvault: &Arc<KeyVault>) -> Vec<Op<Arm>> {
    let keyvault = keyvault.clone();
    vec![
        op(
            "VaultCheckName",
            Method::POST,
            "/subscriptions/{subscription}/providers/Microsoft.KeyVault/checkNameAvailability",
            move |_: At<Arm>, permit, ask| check_vault(keyvault.clone(), permit, ask),
        )
        .body_bytes_max(BODY_BYTES_MAX),
        op(
            "ManagedHsmCheckName",
            Method::POST,
            "/subscriptions/{subscription}/providers/Microsoft.KeyVault/checkMhsmNameAvailability",
            |_: At<Arm>, _: Permit<CheckHsmName>, ask: Json<Ask>| async move {
                Reply::ok(&invalid(&HSM_RULE, &ask.value.name).unwrap_or_else(free))
            },
        )
        .body_bytes_max(BODY_BYTES_MAX),
    ]
}

async fn check_vault(
    keyvault: Arc<KeyVault>,
    _permit: Permit<CheckName>,
    ask: Json<Ask>,
) -> Result<Reply, Fault> {
    let name = ask.value.name.as_str();
    if let Some(answer) = invalid(&Vaults::NAME_RULE, name) {
        return Reply::ok(&answer);
    }
    let is_taken = keyvault.store.get(NAMES, folded(name).as_str()).await?.is_some();
    Reply::ok(&if is_taken {
        json!({ "nameAvailable": false, "reason": "AlreadyExists", "message": taken_message(name) })
    } else {
        free()
    })
}

fn free() -> Value {
    json!({ "nameAvailable": true })
}

fn invalid(rule: &NameRule, name: &str) -> Option<Value> {
    let message = "The name is not valid: it must have 3 to 24 letters, digits and hyphens, begin with a letter, \
                   end with a letter or digit, and not have two hyphens together.";
    let answer = || json!({ "nameAvailable": false, "reason": "AccountNameInvalid", "message": message });
    (!rule.accepts(name)).then(answer)
}
