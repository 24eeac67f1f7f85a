//! Signed assertions by which a client proves who it is (RFC 7523 section 2.2).

use serde_json::{Map, Value};

use super::compact::{Parts, PeekFault, numeric_date, text};
use super::{Algorithm, LEEWAY_SECONDS};
use crate::rsa::RsaPublicKey;

/// Longest time an assertion may still be valid for when it is shown.
pub const ASSERTION_LIFETIME_SECONDS_MAX: i64 = 24 * 60 * 60;
const KEYS_MAX: usize = 64;
const AUDIENCES_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionFault {
    #[error("the client assertion is not well formed: {0}")]
    Malformed(#[from] PeekFault),
    #[error("the client assertion's algorithm is not accepted; sign it with RS256 or PS256")]
    Algorithm,
    #[error("the client assertion's signature does not verify with any key registered for the client")]
    Signature,
    #[error("the client assertion has no usable `{0}` claim")]
    MissingClaim(&'static str),
    #[error("the client assertion is for another audience; use the token endpoint's address")]
    Audience,
    #[error("the client assertion has expired; make a new one, and check the clock")]
    Expired,
    #[error("the client assertion is not valid yet; check the clock")]
    NotYetValid,
    #[error(
        "the client assertion is valid for longer than {ASSERTION_LIFETIME_SECONDS_MAX} seconds from now"
    )]
    LifetimeTooLong,
}

/// A verified assertion. Whether `issuer` and `subject` name the client, and whether `jti` was seen before, is for
/// the caller to check.
#[derive(Clone, Debug)]
pub struct Assertion {
    pub header: Map<String, Value>,
    pub claims: Map<String, Value>,
    pub issuer: String,
    pub subject: String,
    pub jti: Option<String>,
    /// Whole seconds since 1970, rounded down.
    pub expires_at: i64,
}

/// Checks a client assertion: signature by one of `keys` (the first 64), `aud` one of `audiences` (text or array),
/// `exp` in the future and no further than a day, `nbf` and `iat` not in the future, all with 300 seconds of leeway
/// for clocks. Times may have fractions.
pub fn verify_assertion(
    token: &str,
    keys: &[RsaPublicKey],
    audiences: &[&str],
    now_seconds: i64,
) -> Result<Assertion, AssertionFault> {
    let parts = Parts::parse(token)?;
    let algorithm = parts.algorithm().ok_or(AssertionFault::Algorithm)?;
    let signed = parts.signed.as_bytes();
    let verifies = |key: &RsaPublicKey| match algorithm {
        Algorithm::Rs256 => key.verify_rs256(signed, &parts.signature),
        Algorithm::Ps256 => key.verify_ps256(signed, &parts.signature),
    };
    if !keys.iter().take(KEYS_MAX).any(verifies) {
        return Err(AssertionFault::Signature);
    }
    let claims = parts.claims()?;
    check_audience(&claims, audiences)?;
    let expires_at = check_times(&claims, now_seconds)?;
    let required =
        |name: &'static str| text(&claims, name).map(str::to_owned).ok_or(AssertionFault::MissingClaim(name));
    Ok(Assertion {
        issuer: required("iss")?,
        subject: required("sub")?,
        jti: text(&claims, "jti").map(str::to_owned),
        header: parts.header,
        expires_at,
        claims,
    })
}

fn check_audience(claims: &Map<String, Value>, accepted: &[&str]) -> Result<(), AssertionFault> {
    let is_accepted = |value: &Value| value.as_str().is_some_and(|value| accepted.contains(&value));
    let found = match claims.get("aud").ok_or(AssertionFault::MissingClaim("aud"))? {
        Value::Array(values) => values.len() <= AUDIENCES_MAX && values.iter().any(is_accepted),
        value => is_accepted(value),
    };
    if found { Ok(()) } else { Err(AssertionFault::Audience) }
}

fn check_times(claims: &Map<String, Value>, now_seconds: i64) -> Result<i64, AssertionFault> {
    let now = now_seconds as f64;
    let expires = numeric_date(claims, "exp").ok_or(AssertionFault::MissingClaim("exp"))?;
    if expires <= now - LEEWAY_SECONDS {
        return Err(AssertionFault::Expired);
    }
    if expires - now > ASSERTION_LIFETIME_SECONDS_MAX as f64 {
        return Err(AssertionFault::LifetimeTooLong);
    }
    for name in ["nbf", "iat"] {
        if claims.contains_key(name) {
            let from = numeric_date(claims, name).ok_or(AssertionFault::MissingClaim(name))?;
            if from > now + LEEWAY_SECONDS {
                return Err(AssertionFault::NotYetValid);
            }
        }
    }
    Ok(expires.floor() as i64)
}
