//! `/metadata/identity`: a token for the machine's own identity, after a challenge.

use arcadia_client::ClientFault;
use arcadia_kernel::Query;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::ask::{self, Selector, TokenAsk};
use super::reply::{self, Answer, Refused};
use super::{Area, Asked};
use crate::AgentFault;
use crate::daemon::Core;
use crate::link::Link;
use crate::tokens::Held;

const CALLER_CHARACTERS_MAX: usize = 64;

/// All values are text, in this order: some clients believe the last of `expires_in` and `expires_on`.
#[derive(Serialize)]
struct TokenAnswer<'a> {
    access_token: &'a str,
    client_id: String,
    expires_in: String,
    expires_on: String,
    ext_expires_in: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    msi_res_id: Option<&'a str>,
    not_before: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_id: Option<String>,
    resource: &'a str,
    token_type: &'static str,
}

/// `GET /metadata/identity/oauth2/token`. Everything that is wrong with the request is said before the challenge, so
/// that no challenge is used up on it.
pub(super) async fn answer(asked: &Asked<'_>, fields: &Query) -> Result<Answer, Refused> {
    let (core, headers) = (asked.core, &asked.head.headers);
    ask::api_version(fields, Area::Identity)?;
    let ask = TokenAsk::read(fields)?;
    let link = core.links.link().map_err(not_linked)?;
    ask.selector.check(&link.config)?;
    check_challenge(asked)?;
    let outcome = core.tokens.token(&link, &ask.resource, ask.new).await;
    note(core, headers, &ask, outcome.as_ref().err().map(AsRef::as_ref));
    let held = outcome.map_err(|fault| refused_by_site(&fault))?;
    render(core, &link, &ask, &held)
}

/// `GET /metadata/identity/info`.
pub(super) fn info(core: &Core) -> Result<Answer, Refused> {
    let current = core.links.current().map_err(|fault| Refused::unavailable(&fault))?;
    let config = current.config.ok_or_else(|| not_linked(AgentFault::NotConnected))?;
    reply::json(&json!({ "tenantId": config.tenant_id }))
}

fn not_linked(fault: AgentFault) -> Refused {
    match fault {
        // Not 5xx: clients would try again and again.
        AgentFault::NotConnected => {
            Refused::bad_request("This machine is not connected; run 'azcmagent connect' first")
        }
        fault => Refused::unavailable(&fault),
    }
}

/// A challenge that was not met is answered with a new one, whatever was wrong with it. Who met one is not counted again:
/// what others ask meanwhile does not make it worthless.
fn check_challenge(asked: &Asked<'_>) -> Result<(), Refused> {
    let core = asked.core;
    let why = match secret(&asked.head.headers) {
        Ok(Some(secret)) if core.challenges.redeem(secret) => return Ok(()),
        Ok(Some(_)) => "The Basic Authorization header does not hold the content of a valid challenge file",
        Ok(None) => "Missing Basic Authorization header",
        Err(()) => "The Authorization header must be 'Basic' and the content of the challenge file",
    };
    asked.count()?;
    match core.challenges.issue(asked.caller.user()) {
        Ok(path) => Err(Refused::challenge(why, &path)),
        Err(fault) => {
            core.log.error(&fault.to_string());
            Err(Refused::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                "The challenge cannot be written",
            ))
        }
    }
}

/// The challenge file's content as it was sent; `None` when nothing was.
fn secret(headers: &HeaderMap) -> Result<Option<&[u8]>, ()> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    let (scheme, secret) = value.as_bytes().split_at_checked("Basic ".len()).ok_or(())?;
    if scheme.eq_ignore_ascii_case(b"Basic ") { Ok(Some(secret.trim_ascii())) } else { Err(()) }
}

fn render(core: &Core, link: &Link, ask: &TokenAsk, held: &Held) -> Result<Answer, Refused> {
    let left = (held.expires_at - core.options.clock.epoch_seconds()).max(0).to_string();
    reply::json(&TokenAnswer {
        access_token: &held.access_token,
        client_id: link.config.client_id.to_string(),
        expires_in: left.clone(),
        expires_on: held.expires_at.to_string(),
        ext_expires_in: left,
        msi_res_id: match &ask.selector {
            Selector::ResourceId(id) => Some(id),
            _ => None,
        },
        not_before: held.not_before.to_string(),
        object_id: matches!(ask.selector, Selector::ObjectId(_))
            .then(|| link.config.principal_id.to_string()),
        resource: &ask.resource,
        token_type: "Bearer",
    })
}

/// One line for each token that was asked for and not kept back by the challenge.
fn note(core: &Core, headers: &HeaderMap, ask: &TokenAsk, fault: Option<&ClientFault>) {
    let caller: String = headers
        .get("client-id")
        .and_then(|value| value.to_str().ok())
        .map(|value| value.chars().take(CALLER_CHARACTERS_MAX).collect())
        .unwrap_or_default();
    let caller = if caller.is_empty() { caller } else { format!(" (caller {caller})") };
    match fault {
        None => core.log.info(&format!("gave a token for {}{caller}", ask.resource)),
        Some(fault) => core.log.error(&format!("no token for {}{caller}: {fault}", ask.resource)),
    }
}

/// The site's refusal in this protocol. Never 401, which here means a challenge, nor 404, which clients take for a
/// service that is starting.
fn refused_by_site(fault: &ClientFault) -> Refused {
    let Some(refusal) = fault.refusal() else {
        let status = if fault.is_passing() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        let code = if fault.is_passing() { "service_unavailable" } else { "server_error" };
        return Refused::new(status, code, format!("The machine's identity cannot get a token: {fault}"));
    };
    let text = format!("The directory refused a token to the machine's identity: {}", refusal.message);
    let is_code = !refusal.code.is_empty()
        && refusal.code.len() <= 64
        && refusal.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let code = |otherwise: &str| if is_code { refusal.code.clone() } else { otherwise.to_owned() };
    match refusal.status {
        StatusCode::TOO_MANY_REQUESTS => Refused::busy(text, refusal.retry_after_seconds.unwrap_or(1)),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Refused::new(StatusCode::FORBIDDEN, code("access_denied"), text)
        }
        status if status.is_client_error() => {
            Refused::new(StatusCode::BAD_REQUEST, code("invalid_request"), text)
        }
        _ => Refused::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn sent(values: &[&str]) -> Result<Option<Vec<u8>>, ()> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        secret(&headers).map(|secret| secret.map(<[u8]>::to_vec))
    }

    #[test]
    fn the_secret_is_what_follows_basic() {
        assert_eq!(sent(&[]), Ok(None));
        assert_eq!(sent(&["Basic abc"]), Ok(Some(b"abc".to_vec())));
        assert_eq!(sent(&["basic  abc "]), Ok(Some(b"abc".to_vec())));
        assert_eq!(sent(&["Basic "]), Ok(Some(Vec::new())));
        for values in [&["Bearer abc"][..], &["Basic"], &["abc"], &["Basic a", "Basic b"]] {
            assert_eq!(sent(values), Err(()), "{values:?}");
        }
    }
}
