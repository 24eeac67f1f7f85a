//! One shape for every refusal and failure; each service renders it in its own dialect.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

use crate::{BoxError, Outcome};

/// What a client is told, and (apart) what only the log is told.
///
/// `message` reaches strangers: build it from literals and typed fields only. There is deliberately no conversion
/// from arbitrary errors; attach those with [`Fault::caused_by`], which is logged and never rendered.
pub struct Fault {
    pub status: StatusCode,
    pub code: Cow<'static, str>,
    pub inner: Option<Cow<'static, str>>,
    pub message: String,
    /// Extra fields of the error object, where a dialect has them (`error_codes`, `details`, ...).
    pub extra: Map<String, Value>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    source: Option<BoxError>,
    denied: Option<String>,
}

impl Fault {
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            inner: None,
            message: message.into(),
            extra: Map::new(),
            headers: Vec::new(),
            source: None,
            denied: None,
        }
    }

    /// 400 with the given code.
    pub fn bad_request(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 403 with the given code.
    pub fn forbidden(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 404 with the given code.
    pub fn not_found(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 409 with the given code.
    pub fn conflict(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 500: something of ours went wrong. The cause is logged, the client learns nothing of it.
    pub fn internal(source: impl Into<BoxError>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            "The server encountered an internal error. Please retry the request; the site's log names the cause.",
        )
        .caused_by(source)
    }

    /// 503 with `Retry-After: 1`.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
            .header(http::header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    pub fn inner(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.inner = Some(code.into());
        self
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn extra(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says that an access decision refused, and why; for the audit record, and never rendered.
    pub fn denied(mut self, reason: impl Into<String>) -> Self {
        self.denied = Some(reason.into());
        self
    }

    /// What the audit record of a request says that ended in this fault.
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.denied {
            Some(reason) => Outcome::Denied { reason: reason.clone() },
            None => Outcome::Answered { status: self.status.as_u16() },
        }
    }

    /// The cause, for the log.
    pub fn source(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.code)?;
        if let Some(inner) = &self.inner {
            write!(f, "/{inner}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(source) = &self.source {
            write!(f, " (cause: {source})")?;
        }
        Ok(())
    }
}
