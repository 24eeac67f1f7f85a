//! Refusals in the Blob service's words.

use arcadia_kernel::{Fault, StatusCode};

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
