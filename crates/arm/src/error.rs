//! Refusals in the words of Azure Resource Manager.

use arcadia_kernel::{
    ArmId, AuthFailure, Caller, Denial, Fault, HeaderValue, Plane, Reply, StatusCode, TokenFault, header,
};
use serde_json::{Map, Value};

use crate::names::ArmNames;

/// The longest piece of a client's own text that is repeated to it, in characters.
const SHOWN_CHARS_MAX: usize = 128;

/// A client's own text, cut to a length that is fit to repeat.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
}

pub(crate) fn group_not_found(name: &str) -> Fault {
    Fault::not_found("ResourceGroupNotFound", format!("Resource group '{}' could not be found.", shown(name)))
}

pub(crate) fn subscription_not_found(id: &str) -> Fault {
    let message = format!("The subscription '{}' could not be found.", shown(id));
    Fault::not_found("SubscriptionNotFound", message)
}

/// `Microsoft.X/a/b/name1/name2`: a resource's type followed by its names.
fn type_and_names(id: &ArmId) -> String {
    let segments: Vec<&str> = id.segments().collect();
    let at = segments.iter().rposition(|s| s.eq_ignore_ascii_case("providers")).map_or(0, |at| at + 2);
    let names: Vec<&str> =
        segments.get(at..).unwrap_or_default().iter().skip(1).step_by(2).copied().collect();
    format!("{}/{}", id.resource_type().unwrap_or_default(), names.join("/"))
}

pub(crate) fn resource_not_found(id: &ArmId) -> Fault {
    let message = format!(
        "The Resource '{}' under resource group '{}' was not found. For more details please go to \
         https://aka.ms/ARMResourceNotFoundFix",
        shown(&type_and_names(id)),
        shown(id.resource_group().unwrap_or("<null>")),
    );
    Fault::not_found("ResourceNotFound", message)
}

pub(crate) fn invalid_content(message: impl Into<String>) -> Fault {
    Fault::bad_request("InvalidRequestContent", message)
}

/// 413: what is asked for has no room, however small the request is that asks for it.
pub(crate) fn too_large(what: &str, bytes_max: usize) -> Fault {
    let message =
        format!("The request content size exceeds the maximum size: {what} has at most {bytes_max} bytes.");
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestContentTooLarge", message)
}

/// 403 as clients know it, for the dispatcher's refusals and for those of handlers.
pub(crate) fn authorization_failed(caller: &Caller, action: &str, scope: &ArmId) -> Fault {
    let message = format!(
        "The client '{}' with object id '{}' does not have authorization to perform action '{action}' over \
         scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your \
         credentials.",
        caller.name, caller.object_id,
    );
    Fault::forbidden("AuthorizationFailed", message).denied("no role assignment allows it")
}

pub(crate) fn refused(caller: &Caller, denial: &Denial) -> Fault {
    if denial.plane == Plane::None {
        let message = format!(
            "The client '{}' with object id '{}' does not exist in the directory any more, or is disabled: its token \
             opens nothing. Sign in again; with the Azure CLI run 'az account clear' first, because 'az login' alone \
             keeps using the old token.",
            caller.name, caller.object_id,
        );
        return Fault::forbidden("AuthorizationFailed", message);
    }
    authorization_failed(caller, &denial.action, &denial.scope)
}

/// 401 with the challenge that names where to get a token.
pub(crate) fn challenge(names: &ArmNames, tenant: uuid::Uuid, failure: &AuthFailure) -> Fault {
    let (code, message, error, description) = match failure {
        AuthFailure::Missing => (
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.".to_owned(),
            "invalid_token",
            "The authentication failed because of missing 'Authorization' header.",
        ),
        AuthFailure::Scheme => (
            "AuthenticationFailedInvalidHeader",
            "Authentication failed. The 'Authorization' header is provided in an invalid format.".to_owned(),
            "invalid_request",
            "The 'Authorization' header is not 'Bearer' followed by a token.",
        ),
        AuthFailure::Token(fault) => token_fault(fault),
    };
    let value = format!(
        "Bearer authorization_uri=\"{}/{tenant}\", error=\"{error}\", error_description=\"{description}\"",
        names.login_origin.trim_end_matches('/')
    );
    let fault = Fault::new(StatusCode::UNAUTHORIZED, code, message);
    match HeaderValue::from_str(&value) {
        Ok(value) => fault.header(header::WWW_AUTHENTICATE, value),
        Err(error) => fault.caused_by(error),
    }
}

fn token_fault(fault: &TokenFault) -> (&'static str, String, &'static str, &'static str) {
    let quoted =
        |list: &[String]| list.iter().map(|item| format!("'{}'", shown(item))).collect::<Vec<_>>().join(",");
    let (code, message, description) = match fault {
        TokenFault::Expired => (
            "ExpiredAuthenticationToken",
            "The access token has expired. Get a new one and send the request again.".to_owned(),
            "The access token has expired.",
        ),
        TokenFault::NotYetValid => (
            "InvalidAuthenticationToken",
            "The access token is not valid yet. Compare the clocks of the machines involved.".to_owned(),
            "The access token is not valid yet.",
        ),
        TokenFault::Audience { expected, found } => (
            "InvalidAuthenticationTokenAudience",
            format!(
                "The access token has been obtained for wrong audience or resource '{}'. It should exactly \
                 match with one of the allowed audiences {}.",
                shown(found),
                quoted(expected)
            ),
            "The access token is for another audience.",
        ),
        TokenFault::Issuer { expected, found } => (
            "InvalidAuthenticationTokenTenant",
            format!(
                "The access token is from the wrong issuer '{}'. It must match one of the tenants {} \
                 associated with this subscription.",
                shown(found),
                quoted(expected)
            ),
            "The access token is from the wrong issuer.",
        ),
        TokenFault::Malformed | TokenFault::Algorithm | TokenFault::UnknownKey | TokenFault::Signature => (
            "InvalidAuthenticationToken",
            "The access token is invalid.".to_owned(),
            "The access token is invalid.",
        ),
    };
    (code, message, "invalid_token", description)
}

/// `{"error":{"code","message",…}}`.
pub(crate) fn render(fault: &Fault) -> Reply {
    let mut error = Map::new();
    error.insert("code".into(), fault.code.clone().into());
    error.insert("message".into(), fault.message.clone().into());
    error.extend(fault.extra.clone());
    let body = Value::Object(Map::from_iter([("error".to_owned(), Value::Object(error))])).to_string();
    Reply::bytes(fault.status, "application/json; charset=utf-8", body).with(
        arcadia_kernel::HeaderName::from_static("x-ms-failure-cause"),
        HeaderValue::from_static("gateway"),
    )
}
