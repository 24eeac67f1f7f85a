//! Whether a name is free.

use std::sync::Arc;

use arcadia_arm::{Arm, ResourceKind as _};
use arcadia_kernel::{At, Fault, Json, Method, Op, Permit, Reply, action, op};
use serde::Deserialize;
use serde_json::json;

use super::Accounts;
use crate::Storage;
use crate::records::NAMES;

action!(CheckName, Control, "Microsoft.Storage/checknameavailability/read");

const BODY_BYTES_MAX: usize = 16 * 1024;

#[derive(Deserialize)]
struct Ask {
    name: String,
}

pub(super) fn ops(storage: &Arc<Storage>) -> Vec<Op<Arm>> {
    let storage = storage.clone();
    vec![
        op(
            "StorageAccountCheckName",
            Method::POST,
            "/subscriptions/{subscription}/providers/Microsoft.Storage/checkNameAvailability",
            move |_: At<Arm>, permit, ask| check(storage.clone(), permit, ask),
        )
        .body_bytes_max(BODY_BYTES_MAX),
    ]
}

async fn check(storage: Arc<Storage>, _: Permit<CheckName>, ask: Json<Ask>) -> Result<Reply, Fault> {
    let name = ask.value.name.as_str();
    if !Accounts::NAME_RULE.accepts(name) {
        let message = format!(
            "{name} is not a valid storage account name. Storage account name must be between 3 and 24 characters \
             in length and use numbers and lower-case letters only."
        );
        return Reply::ok(
            &json!({ "nameAvailable": false, "reason": "AccountNameInvalid", "message": message }),
        );
    }
    if storage.store.get(NAMES, name).await?.is_some() {
        let message = taken_message(name);
        return Reply::ok(&json!({ "nameAvailable": false, "reason": "AlreadyExists", "message": message }));
    }
    Reply::ok(&json!({ "nameAvailable": true }))
}

pub(super) fn taken_message(name: &str) -> String {
    format!("The storage account named {name} is already taken.")
}
