//! Why a call did not give what was asked.

use http::StatusCode;

/// What a service said when it refused, read from whichever envelope it used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// The service's own code: `AuthorizationFailed`, `invalid_client`, ... Empty when it gave none.
    pub code: String,
    /// The service's own message, at most 4096 bytes; the start of the body when there is no envelope.
    pub message: String,
    pub retry_after_seconds: Option<u64>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status.as_u16())?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// Why a call failed. Messages hold names and numbers, never a token, secret or body that was sent.
#[derive(Debug, thiserror::Error)]
pub enum ClientFault {
    #[error("{0}")]
    Options(String),
    #[error(
        "`{0}` is not a usable address: give https://host[:port]/path (http only for this machine itself)"
    )]
    Url(String),
    #[error("a header of the request is not well formed: {0}")]
    Header(&'static str),
    #[error("{target} cannot be reached: {source}")]
    Unreachable { target: String, source: std::io::Error },
    #[error("the proxy {proxy} does not open a way to {target}: {reason}")]
    Proxy { proxy: String, target: String, reason: String },
    #[error(
        "the certificate or TLS of {host} is not accepted: {source}; if this is a private site, give its certificate"
    )]
    Tls { host: String, source: std::io::Error },
    #[error("{what} took longer than {seconds} s")]
    Timeout { what: String, seconds: u64 },
    #[error("the answer of {host} is longer than {bytes_max} bytes")]
    TooLong { host: String, bytes_max: usize },
    #[error("the connection to {host} broke off: {source}")]
    Broken { host: String, source: hyper::Error },
    #[error("the answer of {host} is not what was expected: {reason}")]
    Unreadable { host: String, reason: String },
    #[error("the assertion could not be signed: {0}")]
    Signing(#[from] arcadia_crypto::KeyFault),
    #[error("{0}")]
    Refused(Box<Refusal>),
}

impl ClientFault {
    /// What the service said, when it was the service that refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the same call may succeed a little later: no way there, or the service was busy or failing.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Proxy { .. } | Self::Timeout { .. } | Self::Broken { .. } => {
                true
            }
            Self::Refused(refusal) => {
                refusal.status.is_server_error()
                    || matches!(refusal.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            _ => false,
        }
    }
}
