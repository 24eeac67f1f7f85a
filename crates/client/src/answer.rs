//! What came back.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{ClientFault, Refusal};

const MESSAGE_BYTES_MAX: usize = 4096;

/// A whole answer: its body was read within the client's bound.
#[derive(Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub(crate) host: String,
}

/// Neither headers nor body, which may hold a token.
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Answer {
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn header_named(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// This answer if its status is a success, else what the service said.
    pub fn accepted(self) -> Result<Self, ClientFault> {
        if self.status.is_success() { Ok(self) } else { Err(ClientFault::Refused(Box::new(self.refusal()))) }
    }

    /// The body as JSON, whatever the status.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientFault> {
        serde_json::from_slice(&self.body).map_err(|fault| ClientFault::Unreadable {
            host: self.host.clone(),
            // It may quote the body.
            reason: bounded(&format!("its JSON does not fit: {fault}")),
        })
    }

    /// Reads the service's code and message from the envelopes in use: `{"error":{"code","message"}}` of ARM, Key
    /// Vault and Graph, `{"error","error_description"}` of OAuth, `{"code","message"}`.
    pub fn refusal(&self) -> Refusal {
        let body: Option<Value> = serde_json::from_slice(&self.body).ok();
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(bounded);
        let (code, message) = match body.as_ref() {
            Some(Value::Object(body)) => match body.get("error") {
                Some(Value::Object(error)) => (text(error.get("code")), text(error.get("message"))),
                Some(Value::String(code)) => (Some(bounded(code)), text(body.get("error_description"))),
                _ => (text(body.get("code")), text(body.get("message"))),
            },
            _ => (None, Some(bounded(&String::from_utf8_lossy(&self.body)))),
        };
        Refusal {
            status: self.status,
            code: code.unwrap_or_default(),
            message: message.unwrap_or_default(),
            retry_after_seconds: self
                .header(&header::RETRY_AFTER)
                .and_then(|value| value.trim().parse().ok()),
        }
    }
}

/// At most [`MESSAGE_BYTES_MAX`], without control characters but ends of lines: it may reach a terminal.
pub(crate) fn bounded(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control() || *c == '\n') {
        if out.len() + c.len_utf8() > MESSAGE_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, http::HeaderValue::from_static("7"));
        Answer {
            status: StatusCode::FORBIDDEN,
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
            host: "h".to_owned(),
        }
    }

    #[test]
    fn every_envelope_is_read() {
        for (body, code, message) in [
            (r#"{"error":{"code":"AuthorizationFailed","message":"no"}}"#, "AuthorizationFailed", "no"),
            (
                r#"{"error":"invalid_client","error_description":"AADSTS7000215: no"}"#,
                "invalid_client",
                "AADSTS7000215: no",
            ),
            (r#"{"code":"X","message":"y"}"#, "X", "y"),
            (r#"{"error":"only text"}"#, "only text", ""),
            ("<html>\u{1b}[31m", "", "<html>[31m"),
            ("[]", "", "[]"),
            ("", "", ""),
        ] {
            let refusal = answer(body).refusal();
            assert_eq!((refusal.code.as_str(), refusal.message.as_str()), (code, message), "{body}");
            assert_eq!(refusal.retry_after_seconds, Some(7));
        }
        assert_eq!(answer(&"é".repeat(9000)).refusal().message.len(), 4096);
    }

    #[test]
    fn a_refusal_is_a_fault_with_the_services_words() {
        let fault = answer(r#"{"error":{"code":"C","message":"m"}}"#).accepted().err().unwrap();
        assert_eq!(fault.to_string(), "403 C: m");
        assert!(!fault.is_passing());
    }
}
