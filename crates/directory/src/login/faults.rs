//! Refusals in Entra's words: an OAuth error code, an AADSTS number and a sentence.

use arcadia_kernel::{Fault, StatusCode};

/// An OAuth refusal; the number is rendered as `AADSTS<number>`.
pub(crate) fn refusal(status: u16, error: &'static str, number: u32, message: impl Into<String>) -> Fault {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    Fault::new(status, error, message).inner(number.to_string())
}

pub(crate) fn invalid_request(number: u32, message: impl Into<String>) -> Fault {
    refusal(400, "invalid_request", number, message)
}

pub(crate) fn invalid_grant(number: u32, message: impl Into<String>) -> Fault {
    refusal(400, "invalid_grant", number, message)
}

pub(crate) fn invalid_client(number: u32, message: impl Into<String>) -> Fault {
    refusal(401, "invalid_client", number, message)
}

pub(crate) fn missing_parameter(name: &str) -> Fault {
    invalid_request(900_144, format!("The request body must contain the following parameter: '{name}'."))
}

pub(crate) fn no_such_tenant(error: &'static str, tenant: &str) -> Fault {
    let tenant = shown(tenant);
    let message = format!(
        "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into \
         the correct cloud. Check with your subscription administrator, this may happen if there are no active \
         subscriptions for the tenant."
    );
    refusal(400, error, 90_002, message)
}

pub(crate) fn no_such_client(client: &str, tenant: &str) -> Fault {
    let (client, tenant) = (shown(client), shown(tenant));
    let message = format!(
        "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if \
         the application has not been installed by the administrator of the tenant or consented to by any user \
         in the tenant. You may have sent your authentication request to the wrong tenant."
    );
    refusal(400, "unauthorized_client", 700_016, message)
}

pub(crate) fn wrong_secret(client: &str) -> Fault {
    let message = format!(
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
         value, not the client secret ID, for a secret added to app '{}'.",
        shown(client)
    );
    invalid_client(7_000_215, message)
}

pub(crate) fn wrong_password() -> Fault {
    invalid_grant(50_126, "Error validating credentials due to invalid username or password.")
}

pub(crate) fn no_such_user(user: &str, tenant: &str) -> Fault {
    let message = format!(
        "The user account {} does not exist in the {} directory. To sign into this application, the account \
         must be added to the directory.",
        shown(user),
        shown(tenant)
    );
    invalid_grant(50_034, message)
}

pub(crate) fn disabled_user() -> Fault {
    invalid_grant(50_057, "The user account is disabled.")
}

pub(crate) fn locked() -> Fault {
    let message = "The account is locked, you've tried to sign in too many times with an incorrect user ID or \
                   password. Wait a minute and try again.";
    invalid_grant(50_053, message)
}

/// Too many tries from one address.
pub(crate) fn too_many_requests() -> Fault {
    let message = "Too many failed or started sign-ins from this address. Wait a minute and try again.";
    refusal(429, "temporarily_unavailable", 90_033, message)
        .header(arcadia_kernel::header::RETRY_AFTER, arcadia_kernel::HeaderValue::from_static("60"))
}

pub(crate) fn no_such_resource(resource: &str, tenant: &str) -> Fault {
    let message = format!(
        "The resource principal named {} was not found in the tenant named {}. This can happen if the \
         application has not been installed by the administrator of the tenant or consented to by any user in \
         the tenant. You might have sent your authentication request to the wrong tenant.",
        shown(resource),
        shown(tenant)
    );
    refusal(400, "invalid_resource", 500_011, message)
}

pub(crate) fn invalid_scope(scope: &str) -> Fault {
    let scope = shown(scope);
    let message = format!(
        "The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."
    );
    refusal(400, "invalid_scope", 70_011, message)
}

/// What a stranger sent, fit to be repeated: bounded and without control characters.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
