//! Token issue and sign-in: `login.microsoftonline.com`.

mod authorize;
pub(crate) mod client;
mod decode;
mod device;
mod device_page;
mod discovery;
pub(crate) mod faults;
#[cfg(test)]
mod fuzz;
pub(crate) mod issue;
mod page;
mod person;
mod redirect;
mod resource;
mod session;
mod spa;
mod tenant;
mod ticket;
mod token;

use std::borrow::Cow;
use std::sync::Arc;

use arcadia_kernel::{
    ArmId, AuthFailure, Caller, Denial, EntropyExt as _, Fault, HeaderName, HeaderValue, Located, Method, Op,
    OpInfo, Pattern, Reply, RequestHead, Service, StatusCode, header, public,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::directory::Directory;

/// Forms are small; assertions and tickets are the largest fields.
const FORM_BYTES_MAX: usize = 128 * 1024;
/// AADSTS50053.
const ACCOUNT_LOCKED: &str = "50053";

/// The service in front of a [`Directory`] that issues tokens.
pub struct Login {
    pub(crate) directory: Arc<Directory>,
    /// Every path that is served, with its method.
    served: Vec<(Method, Pattern)>,
}

impl Login {
    pub fn new(directory: Arc<Directory>) -> Self {
        let served = login_ops().into_iter().map(|op| (op.info.method, op.info.pattern)).collect();
        Self { directory, served }
    }
}

const DOCUMENT: &str = "clients read it before they can sign in";
const CREDENTIAL: &str = "it checks the credential in its body";
const SIGN_IN_PAGE: &str = "people come here to sign in";

/// Every operation of the service.
pub fn login_ops() -> Vec<Op<Login>> {
    let get = Method::GET;
    let post = Method::POST;
    let mut ops = vec![
        public(
            "OpenIdConfigurationV2",
            get.clone(),
            "/{tenant}/v2.0/.well-known/openid-configuration",
            DOCUMENT,
            discovery::openid_v2,
        ),
        public(
            "OpenIdConfiguration",
            get.clone(),
            "/{tenant}/.well-known/openid-configuration",
            DOCUMENT,
            discovery::openid_v1,
        ),
        public("KeysV2", get.clone(), "/{tenant}/discovery/v2.0/keys", DOCUMENT, discovery::keys_v2),
        public("Keys", get.clone(), "/{tenant}/discovery/keys", DOCUMENT, discovery::keys_v1),
        public(
            "InstanceDiscovery",
            get.clone(),
            "/{tenant}/discovery/instance",
            DOCUMENT,
            discovery::instance,
        ),
        public("UserRealm", get.clone(), "/{tenant}/userrealm/{user}", DOCUMENT, discovery::user_realm),
        public("TokenV2", post.clone(), "/{tenant}/oauth2/v2.0/token", CREDENTIAL, token::token_v2).audited(),
        public("Token", post.clone(), "/{tenant}/oauth2/token", CREDENTIAL, token::token_v1).audited(),
        public(
            "DeviceCodeV2",
            post.clone(),
            "/{tenant}/oauth2/v2.0/devicecode",
            "a device that nobody has signed in to yet asks for a code",
            device::device_code_v2,
        )
        .audited(),
        public(
            "DeviceCode",
            post.clone(),
            "/{tenant}/oauth2/devicecode",
            "a device that nobody has signed in to yet asks for a code",
            device::device_code_v1,
        )
        .audited(),
        public(
            "AuthorizeV2",
            get.clone(),
            "/{tenant}/oauth2/v2.0/authorize",
            SIGN_IN_PAGE,
            authorize::show_v2,
        ),
        public("Authorize", get.clone(), "/{tenant}/oauth2/authorize", SIGN_IN_PAGE, authorize::show_v1),
        public("SignIn", post.clone(), "/{tenant}/login", SIGN_IN_PAGE, authorize::submit).audited(),
        public("LogoutV2", get.clone(), "/{tenant}/oauth2/v2.0/logout", SIGN_IN_PAGE, authorize::logout),
        public("Logout", get.clone(), "/{tenant}/oauth2/logout", SIGN_IN_PAGE, authorize::logout),
        public(
            "DecodePage",
            get.clone(),
            "/decode",
            "the page is the same for everyone and takes a token apart in the browser",
            decode::show,
        ),
    ];
    for path in ["/device", "/devicelogin", "/common/oauth2/deviceauth"] {
        ops.push(public("DevicePage", get.clone(), path, SIGN_IN_PAGE, device_page::show));
        ops.push(public("DeviceSignIn", post.clone(), path, SIGN_IN_PAGE, device_page::submit).audited());
    }
    for op in &mut ops {
        op.info.body_bytes_max = Some(FORM_BYTES_MAX);
    }
    ops
}

impl Service for Login {
    type Target = ();

    const NAME: &'static str = "login";

    fn audiences(&self, _: &RequestHead) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    fn locate(&self, _: &OpInfo, _: &RequestHead) -> Result<Located<()>, Fault> {
        let tenant = self.directory.tenant();
        let scope = match tenant {
            Some(tenant) => ArmId::parse(&format!("/tenants/{}", tenant.id)).map_err(Fault::internal)?,
            None => ArmId::root(),
        };
        Ok(Located { scope, target: () })
    }

    /// No operation here takes a token, so a request that fits none is told only that.
    fn challenge(&self, head: &RequestHead, _: &AuthFailure) -> Fault {
        self.not_served(head)
    }

    fn refuse(&self, head: &RequestHead, _: &Caller, _: &Denial) -> Fault {
        self.not_served(head)
    }

    fn no_such_operation(&self, head: &RequestHead, _: bool) -> Fault {
        self.not_served(head)
    }

    fn render(&self, head: &RequestHead, fault: &Fault) -> Reply {
        let body = self.error_body(head, fault);
        let reply = Reply::bytes(fault.status, "application/json; charset=utf-8", body.to_string());
        if kept_by_msal(head, fault) {
            return reply.with(header::RETRY_AFTER, HeaderValue::from_static("0"));
        }
        reply
    }

    fn finish(&self, head: &RequestHead, reply: &mut Reply) {
        let headers = &mut reply.headers;
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
            headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000; includeSubDomains"),
        );
        if let Ok(id) = HeaderValue::from_str(&head.request_id.to_string()) {
            headers.insert(HeaderName::from_static("x-ms-request-id"), id);
        }
        if let Some(id) = client_request_id(head)
            && let Ok(id) = HeaderValue::from_str(&id.to_string())
        {
            headers.insert(HeaderName::from_static("client-request-id"), id);
        }
    }
}

/// Whether a client would keep the refusal on disk for a minute, and not even ask again, unless it is told that it may
/// at once: MSAL does, which az asks by itself. SDKs send MSAL's requests through azure-core, which takes these words for
/// an order and sends a wrong password four times; and a locked account opens for nobody who asks again.
fn kept_by_msal(head: &RequestHead, fault: &Fault) -> bool {
    let of_token_endpoint = head.segments.last().is_some_and(|last| last.eq_ignore_ascii_case("token"));
    // The name of an application may stand before it.
    let agent = head.header_named("user-agent").unwrap_or_default();
    let through_azure_core = agent.split(' ').any(|product| product.starts_with("azsdk-"));
    of_token_endpoint
        && fault.status == StatusCode::BAD_REQUEST
        && fault.inner.as_deref() != Some(ACCOUNT_LOCKED)
        && !through_azure_core
}

/// The identifier a client gave its request, if it is a UUID.
pub(crate) fn client_request_id(head: &RequestHead) -> Option<Uuid> {
    head.header_named("client-request-id").and_then(|id| Uuid::try_parse(id).ok())
}

impl Login {
    /// 405 where another method would be right, else 404. What is served is no secret: every operation is public.
    fn not_served(&self, head: &RequestHead) -> Fault {
        let fits = |(_, pattern): &&(Method, Pattern)| pattern.fits(&head.segments);
        let accepted: Vec<&str> =
            self.served.iter().filter(fits).map(|(method, _)| method.as_str()).collect();
        if accepted.is_empty() {
            let message =
                "The endpoint does not exist. See /.well-known/openid-configuration below a tenant.";
            return faults::refusal(404, "invalid_request", 900_561, message);
        }
        let (accepted, received) = (accepted.join(", "), faults::shown(head.method.as_str()));
        let message =
            format!("The endpoint only accepts {accepted} requests. Received a {received} request.");
        let fault = faults::refusal(405, "invalid_request", 900_561, message);
        match HeaderValue::from_str(&accepted) {
            Ok(accepted) => fault.header(header::ALLOW, accepted),
            Err(error) => Fault::internal(error),
        }
    }

    /// An error in Entra's shape. The trace id is the request's, so that the audit log can be searched for it.
    fn error_body(&self, head: &RequestHead, fault: &Fault) -> Value {
        let number = fault.inner.as_deref().and_then(|number| number.parse::<u32>().ok());
        let (code, number) = match (number, fault.status.as_u16()) {
            (Some(number), _) => (&*fault.code, number),
            (None, 503) => ("temporarily_unavailable", 90_033),
            (None, 500..) => ("server_error", 90_033),
            (None, _) => ("invalid_request", 9_002_313),
        };
        let timestamp = self.directory.clock.now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let trace = head.request_id;
        let correlation = client_request_id(head).unwrap_or_else(|| self.directory.entropy.uuid());
        let mut body = Map::new();
        body.insert("error".into(), code.into());
        let description = format!(
            "AADSTS{number}: {}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {timestamp}",
            fault.message
        );
        body.insert("error_description".into(), description.into());
        body.insert("error_codes".into(), json!([number]));
        body.insert("timestamp".into(), timestamp.into());
        body.insert("trace_id".into(), trace.to_string().into());
        body.insert("correlation_id".into(), correlation.to_string().into());
        let uri = format!("https://{}/error?code={number}", self.directory.names().login_host);
        body.insert("error_uri".into(), uri.into());
        body.extend(fault.extra.clone());
        Value::Object(body)
    }
}
