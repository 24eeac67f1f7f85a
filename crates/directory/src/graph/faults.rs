//! Refusals in Graph's words.

use arcadia_kernel::{Denial, Fault, StatusCode};
use arcadia_store::CommitError;
use serde_json::json;

use crate::login::faults::shown;

pub(crate) fn not_found(id: &str) -> Fault {
    let message = format!(
        "Resource '{}' does not exist or one of its queried reference-property objects are not present.",
        shown(id)
    );
    Fault::not_found("Request_ResourceNotFound", message)
}

/// 403, for the dispatcher's refusals and for those of handlers.
pub(crate) fn insufficient(denial: &Denial) -> Fault {
    Fault::forbidden("Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
        .denied(denial.reason.to_string())
}

pub(crate) fn bad_request(message: impl Into<String>) -> Fault {
    Fault::bad_request("Request_BadRequest", message)
}

pub(crate) fn invalid_property(name: &str) -> Fault {
    bad_request(format!("Invalid value specified for property '{}' of the resource.", shown(name)))
}

pub(crate) fn unknown_property(name: &str) -> Fault {
    bad_request(format!("Invalid property '{}'.", shown(name)))
}

pub(crate) fn unsupported_query(message: impl Into<String>) -> Fault {
    Fault::bad_request("Request_UnsupportedQuery", message)
}

/// Two objects cannot share this value.
pub(crate) fn taken(property: &str) -> Fault {
    bad_request(format!("Another object with the same value for property {property} already exists."))
        .extra("details", json!([{ "code": "ObjectConflict", "target": property, "message": "" }]))
}

/// Why a change was not written.
pub(crate) fn not_written(error: CommitError) -> Fault {
    match error {
        CommitError::Conflict => Fault::new(
            StatusCode::CONFLICT,
            "Directory_ConcurrencyViolation",
            "The resource was changed by other requests at the same time. Please retry.",
        ),
        CommitError::Store(error) => error.into(),
    }
}
