//! Answers and refusals in the forms of the protocol.

use std::path::Path;

use arcadia_kernel::EntropyExt as _;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use super::Area;
use crate::daemon::Core;
use crate::health::seconds;

pub(crate) type Answer = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Why a request is not served.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    /// One of the protocol's error codes; identity answers show it.
    code: String,
    text: String,
    extra: Extra,
}

#[derive(Debug)]
enum Extra {
    None,
    /// A challenge: where the file is that opens this.
    Challenge(HeaderValue),
    /// The api-versions that would do.
    Versions(&'static [&'static str]),
    RetryAfter(u64),
    Allow,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: impl Into<String>, text: impl Into<String>) -> Self {
        Self { status, code: code.into(), text: text.into(), extra: Extra::None }
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", text)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found")
    }

    pub(super) fn method() -> Self {
        let refused =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Only GET is supported.");
        Self { extra: Extra::Allow, ..refused }
    }

    pub(super) fn too_many() -> Self {
        Self::busy("Too many requests. Try again in a second.", 1)
    }

    pub(super) fn busy(text: impl Into<String>, retry_after_seconds: u64) -> Self {
        let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", text);
        Self { extra: Extra::RetryAfter(retry_after_seconds), ..refused }
    }

    pub(super) fn versions(text: &str, newest: &'static [&'static str]) -> Self {
        Self { extra: Extra::Versions(newest), ..Self::bad_request(text) }
    }

    /// The daemon itself cannot do it at the moment; the cause names files, never what is in them.
    pub(super) fn unavailable(fault: &dyn std::fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", fault.to_string())
    }

    /// 401 with a new challenge: `Basic realm=` and the path, without quotes, as clients split it.
    pub(super) fn challenge(text: &str, file: &Path) -> Self {
        let refused = Self::new(StatusCode::UNAUTHORIZED, "unauthorized_client", text);
        match HeaderValue::from_str(&format!("Basic realm={}", file.display())) {
            Ok(value) => Self { extra: Extra::Challenge(value), ..refused },
            Err(_) => Self::unavailable(&"the challenge's path cannot be put into a header"),
        }
    }

    pub(super) fn render(self, core: &Core, area: Area) -> Answer {
        let status = self.status;
        let body = match area {
            Area::Identity if status == StatusCode::UNAUTHORIZED => json!({
                "error": self.code,
                "error_description": self.text,
                "error_codes": [status.as_u16()],
                "timestamp": seconds(core.options.clock.now()),
                "trace_id": core.options.entropy.uuid(),
                "correlation_id": core.options.entropy.uuid(),
            }),
            Area::Identity => json!({ "error": self.code, "error_description": self.text }),
            _ => match self.extra {
                Extra::Versions(newest) => json!({ "error": self.text, "newest-versions": newest }),
                _ => json!({ "error": self.text }),
            },
        };
        let mut answer = text_answer(status, JSON, body.to_string());
        let (name, value) = match self.extra {
            Extra::Challenge(value) => (header::WWW_AUTHENTICATE, value),
            Extra::RetryAfter(seconds) => (header::RETRY_AFTER, HeaderValue::from(seconds)),
            Extra::Allow => (header::ALLOW, HeaderValue::from_static("GET")),
            Extra::None | Extra::Versions(_) => return answer,
        };
        answer.headers_mut().insert(name, value);
        answer
    }
}

/// 200 with a JSON body.
pub(super) fn json<T: Serialize>(value: &T) -> Result<Answer, Refused> {
    let body = serde_json::to_string(value).map_err(|fault| Refused::unavailable(&fault))?;
    Ok(text_answer(StatusCode::OK, JSON, body))
}

/// 200 with a plain text body.
pub(super) fn text(text: String) -> Answer {
    text_answer(StatusCode::OK, TEXT, text)
}

fn text_answer(status: StatusCode, content_type: HeaderValue, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
