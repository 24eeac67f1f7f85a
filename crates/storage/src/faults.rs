//! Refusals in the Blob service's words.

use arcadia_kernel::{Fault, HeaderName, HeaderValue, StatusCode};

const CANNOT_VERIFY: &str = "CannotVerifyCopySource";

pub(crate) fn authentication_failed(detail: &str) -> Fault {
    let message = "Server failed to authenticate the request. Make sure the value of Authorization header is formed \
                   correctly including the signature.";
    Fault::forbidden("AuthenticationFailed", message).extra("AuthenticationErrorDetail", detail)
}

pub(crate) fn permission_mismatch() -> Fault {
    let message = "This request is not authorized to perform this operation using this permission.";
    Fault::forbidden("AuthorizationPermissionMismatch", message)
}

pub(crate) fn key_not_permitted() -> Fault {
    let message = "Key based authentication is not permitted on this storage account.";
    Fault::forbidden("KeyBasedAuthenticationNotPermitted", message)
}

pub(crate) fn account_not_found() -> Fault {
    Fault::not_found("ResourceNotFound", "The specified resource does not exist.")
}

pub(crate) fn container_not_found() -> Fault {
    Fault::not_found("ContainerNotFound", "The specified container does not exist.")
}

pub(crate) fn container_exists() -> Fault {
    Fault::conflict("ContainerAlreadyExists", "The specified container already exists.")
}

pub(crate) fn public_access_not_permitted() -> Fault {
    let message = "Public access is not permitted on this storage account.";
    Fault::conflict("PublicAccessNotPermitted", message)
}

pub(crate) fn blob_not_found() -> Fault {
    Fault::not_found("BlobNotFound", "The specified blob does not exist.")
}

pub(crate) fn blob_exists() -> Fault {
    Fault::conflict("BlobAlreadyExists", "The specified blob already exists.")
}

pub(crate) fn condition_not_met() -> Fault {
    let message = "The condition specified using HTTP conditional header(s) is not met.";
    Fault::new(StatusCode::PRECONDITION_FAILED, "ConditionNotMet", message)
}

pub(crate) fn source_condition_not_met() -> Fault {
    let message = "The source condition specified using HTTP conditional header(s) is not met.";
    Fault::new(StatusCode::PRECONDITION_FAILED, "SourceConditionNotMet", message)
}

pub(crate) fn conditions_not_supported(name: &str) -> Fault {
    Fault::bad_request("ConditionHeadersNotSupported", "Condition headers are not supported.")
        .extra("HeaderName", name)
}

/// What a request for the source itself would have been told, in the words for sources of copies.
pub(crate) fn copy_source(status: StatusCode, code: &str, message: &str) -> Fault {
    let fault = Fault::new(status, CANNOT_VERIFY, message)
        .extra("CopySourceStatusCode", status.as_str())
        .extra("CopySourceErrorCode", code)
        .extra("CopySourceErrorMessage", message);
    [("x-ms-copy-source-status-code", status.as_str()), ("x-ms-copy-source-error-code", code)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::from_str(value).ok()?)))
        .fold(fault, |fault, (name, value)| fault.header(HeaderName::from_static(name), value))
}

pub(crate) fn copy_source_absent(code: &str, message: &str) -> Fault {
    copy_source(StatusCode::NOT_FOUND, code, message)
}

pub(crate) fn copy_source_denied() -> Fault {
    let Fault { status, code, message, .. } = permission_mismatch();
    copy_source(status, &code, &message)
}

/// A source with a signature of its own.
pub(crate) fn copy_source_signed() -> Fault {
    let message = "Server failed to authenticate the request. Shared access signatures are not served by this site; a \
                   copy reads its source with the token or the account key of the request.";
    copy_source(StatusCode::FORBIDDEN, "AuthenticationFailed", message)
}

/// Accounts are reached with TLS alone.
pub(crate) fn copy_source_without_tls() -> Fault {
    let message = "The account being accessed does not support http.";
    copy_source(StatusCode::BAD_REQUEST, "AccountRequiresHttps", message)
}

/// Nobody was asked, so there is no answer of a source to pass on.
pub(crate) fn copy_source_elsewhere() -> Fault {
    let message = "Could not verify the copy source. This site copies from its own storage accounts only.";
    Fault::conflict(CANNOT_VERIFY, message)
}

pub(crate) fn no_pending_copy() -> Fault {
    Fault::conflict("NoPendingCopyOperation", "There is currently no pending copy operation.")
}

pub(crate) fn invalid_tier() -> Fault {
    Fault::bad_request("InvalidBlobTier", "The specified blob tier is invalid.")
}

pub(crate) fn missing_query(name: &str) -> Fault {
    let message = "A query parameter that's mandatory for this request is not specified.";
    Fault::bad_request("MissingRequiredQueryParameter", message).extra("QueryParameterName", name)
}

pub(crate) fn unsatisfiable_condition() -> Fault {
    let message = "The request includes an unsatisfiable condition for this operation.";
    Fault::bad_request("UnsatisfiableCondition", message)
}

pub(crate) fn lease_not_present(with_container: bool) -> Fault {
    let (code, message) = if with_container {
        ("LeaseNotPresentWithContainerOperation", "There is currently no lease on the container.")
    } else {
        ("LeaseNotPresentWithBlobOperation", "There is currently no lease on the blob.")
    };
    Fault::new(StatusCode::PRECONDITION_FAILED, code, message)
}

/// An answer without a body.
pub(crate) fn not_modified() -> Fault {
    let message = "The condition specified using HTTP conditional header(s) is not met.";
    Fault::new(StatusCode::NOT_MODIFIED, "ConditionNotMet", message)
}

/// A name of a length that none has.
pub(crate) fn out_of_range() -> Fault {
    let message = "The specified resource name length is not within the permissible limits.";
    Fault::bad_request("OutOfRangeInput", message)
}

pub(crate) fn invalid_resource_name() -> Fault {
    Fault::bad_request("InvalidResourceName", "The specified resource name contains invalid characters.")
}

pub(crate) fn invalid_header(name: &str, value: &str) -> Fault {
    let message = "The value for one of the HTTP headers is not in the correct format.";
    Fault::bad_request("InvalidHeaderValue", message)
        .extra("HeaderName", name)
        .extra("HeaderValue", shown(value))
}

pub(crate) fn missing_header(name: &str) -> Fault {
    let message = "An HTTP header that's mandatory for this request is not specified.";
    Fault::bad_request("MissingRequiredHeader", message).extra("HeaderName", name)
}

pub(crate) fn missing_length() -> Fault {
    let message = "The Content-Length header was not specified.";
    Fault::new(StatusCode::LENGTH_REQUIRED, "MissingContentLengthHeader", message)
}

pub(crate) fn unsupported_header(name: &str) -> Fault {
    let message = format!("One of the HTTP headers specified in the request is not supported: {name}.");
    Fault::bad_request("UnsupportedHeader", message).extra("HeaderName", name)
}

pub(crate) fn invalid_query(name: &str, value: &str) -> Fault {
    let message = "Value for one of the query parameters specified in the request URI is invalid.";
    Fault::bad_request("InvalidQueryParameterValue", message)
        .extra("QueryParameterName", name)
        .extra("QueryParameterValue", shown(value))
}

pub(crate) fn query_out_of_range(name: &str, value: &str, min: usize, max: usize) -> Fault {
    let message =
        "One of the query parameters specified in the request URI is outside the permissible range.";
    Fault::bad_request("OutOfRangeQueryParameterValue", message)
        .extra("QueryParameterName", name)
        .extra("QueryParameterValue", shown(value))
        .extra("MinimumAllowed", min.to_string())
        .extra("MaximumAllowed", max.to_string())
}

pub(crate) fn unsupported_query(name: &str, value: &str) -> Fault {
    let message = format!(
        "One of the query parameters specified in the request URI is not supported: {name}={}.",
        shown(value)
    );
    Fault::bad_request("UnsupportedQueryParameter", message).extra("QueryParameterName", name)
}

pub(crate) fn md5_mismatch(sent: &str, found: &str) -> Fault {
    let message =
        "The MD5 value specified in the request did not match with the MD5 value calculated by the server.";
    Fault::bad_request("Md5Mismatch", message)
        .extra("UserSpecifiedMd5", shown(sent))
        .extra("ServerCalculatedMd5", found)
}

pub(crate) fn invalid_block_list() -> Fault {
    Fault::bad_request("InvalidBlockList", "The specified block list is invalid.")
}

pub(crate) fn ambiguous_block_list(id: &str) -> Fault {
    let message = format!(
        "The specified block list is invalid: it means two different blocks by the id {}. Put one of them again under \
         an id of its own.",
        shown(id)
    );
    Fault::bad_request("InvalidBlockList", message)
}

pub(crate) fn invalid_block_id() -> Fault {
    let message = "The specified block ID is invalid. The block ID must be Base64-encoded.";
    Fault::bad_request("InvalidBlockId", message)
}

pub(crate) fn invalid_range(length: u64) -> Fault {
    let message = "The range specified is invalid for the current size of the resource.";
    let fault = Fault::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", message);
    match format!("bytes */{length}").parse() {
        Ok(value) => fault.header(arcadia_kernel::header::CONTENT_RANGE, value),
        Err(_) => fault,
    }
}

/// What a request sent, short enough and fit for an answer.
fn shown(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).take(256).collect()
}
