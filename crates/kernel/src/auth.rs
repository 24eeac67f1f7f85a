//! Proof of identity: what a bearer token must satisfy, and the ways it can fail.

use std::sync::Arc;

use crate::{Caller, Decider};

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("the token is not well formed")]
    Malformed,
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    #[error("the token's signing key is not known")]
    UnknownKey,
    #[error("the token's signature does not verify")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token's issuer is not accepted")]
    Issuer { expected: Vec<String>, found: String },
    #[error("the token is for another audience")]
    Audience { expected: Vec<String>, found: String },
}

/// Why a request carries no accepted identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthFailure {
    /// No `Authorization` header, or an empty one.
    Missing,
    /// A scheme that the service does not take.
    Scheme,
    Token(TokenFault),
}

/// A token whose signature, issuer and times were checked. The audience is checked by the dispatcher, against
/// the service that was asked.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    pub caller: Arc<Caller>,
    pub audience: Arc<str>,
    /// Seconds since 1970.
    pub expires_at: i64,
}

/// Who asks, and who decides what they may do.
pub struct Proven {
    pub caller: Arc<Caller>,
    /// For a credential that carries its own rights (an account key, a shared access signature): decides in
    /// place of roles. `None` for an identity.
    pub decider: Option<Arc<dyn Decider>>,
}

impl Proven {
    pub(crate) fn anonymous() -> Self {
        Self { caller: Arc::new(Caller::anonymous()), decider: None }
    }
}

/// Verifies bearer tokens against published keys.
pub trait Authenticator: Send + Sync + 'static {
    /// Checks form, algorithm, key, signature, issuer and times of `token`, at `now` seconds since 1970.
    fn verify(&self, token: &str, now: i64) -> Result<VerifiedToken, TokenFault>;
}

/// Whether two audiences are the same one, as [`trim_audience`] has it.
pub(crate) fn is_same_audience(one: &str, other: &str) -> bool {
    one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'))
}

/// Audiences are compared without regard to case and to one or more trailing slashes, as clients send both.
pub fn trim_audience(audience: &str) -> String {
    audience.trim_end_matches('/').to_ascii_lowercase()
}
