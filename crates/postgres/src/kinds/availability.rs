//! Whether a server's name is free: asked of a subscription, and of a location in it.

use std::sync::Arc;

use arcadia_arm::Arm;
use arcadia_kernel::{At, Fault, Json, Method, Op, Permit, Reply, action, op};
use serde::Deserialize;
use serde_json::json;

use crate::Postgres;
use crate::names::is_server_name;
use crate::records::NAMES;

action!(pub CheckName, Control, "Microsoft.DBforPostgreSQL/checkNameAvailability/action");
action!(pub CheckNameAt, Control, "Microsoft.DBforPostgreSQL/locations/checkNameAvailability/action");

const BODY_BYTES_MAX: usize = 16 * 1024;

#[derive(Deserialize)]
struct Ask {
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
}

pub(super) fn ops(postgres: &Arc<Postgres>) -> Vec<Op<Arm>> {
    let (here, there) = (postgres.clone(), postgres.clone());
    vec![
        op(
            "PostgresCheckName",
            Method::POST,
            "/subscriptions/{subscription}/providers/Microsoft.DBforPostgreSQL/checkNameAvailability",
            move |_: At<Arm>, _: Permit<CheckName>, ask: Json<Ask>| {
                let postgres = here.clone();
                async move { answer(&postgres, &ask.value).await }
            },
        )
        .body_bytes_max(BODY_BYTES_MAX),
        op(
            "PostgresCheckNameAt",
            Method::POST,
            "/subscriptions/{subscription}/providers/Microsoft.DBforPostgreSQL/locations/{location}/checkNameAvailability",
            move |_: At<Arm>, _: Permit<CheckNameAt>, ask: Json<Ask>| {
                let postgres = there.clone();
                async move { answer(&postgres, &ask.value).await }
            },
        )
        .body_bytes_max(BODY_BYTES_MAX),
    ]
}

async fn answer(postgres: &Postgres, ask: &Ask) -> Result<Reply, Fault> {
    let name = ask.name.as_str();
    let refused = if !is_server_name(name) {
        Some((
            "Invalid",
            "The name must have 3 to 63 lower-case letters, digits and hyphens, and no hyphen at an end.",
        ))
    } else if postgres.store.get(NAMES, name.to_ascii_lowercase().as_str()).await?.is_some() {
        Some(("AlreadyExists", "Specified server name is already used."))
    } else {
        None
    };
    let mut answer = json!({ "name": name, "type": ask.kind, "nameAvailable": refused.is_none() });
    match refused {
        Some((reason, message)) => {
            answer["reason"] = reason.into();
            answer["message"] = message.into();
        }
        None => answer["message"] = "".into(),
    }
    Reply::ok(&answer)
}
