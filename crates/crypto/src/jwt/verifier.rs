//! Checking the bearer tokens that services are shown.

use std::sync::Arc;

use arcadia_kernel::{Authenticator, Caller, CallerKind, TokenFault, VerifiedToken};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::LEEWAY_SECONDS;
use super::cache::TokenCache;
use super::compact::{Parts, numeric_date, text};
use super::keys::KeySet;

const ISSUERS_MAX: usize = 64;
const CACHED_TOKENS_MAX: usize = 4096;
/// Audiences and issuers of refused tokens are repeated in messages, up to this length.
const ECHO_CHARACTERS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifierFault {
    #[error("name 1 to {ISSUERS_MAX} accepted issuers")]
    Issuers,
}

/// Accepts RS256 tokens of known keys and issuers.
///
/// Refused are: tokens over 16 KiB, any algorithm but the one the key is published for (so `none`, and `HS256` with
/// the public key as its secret), headers with `crit`, unknown `kid`s, foreign issuers, tokens without `exp` or
/// `nbf`, and tokens outside their times by more than 300 seconds. Verified tokens are remembered (bounded) until
/// they expire.
pub struct TokenVerifier {
    keys: KeySet,
    issuers: Vec<String>,
    cache: TokenCache,
}

impl TokenVerifier {
    /// `issuers` are compared exactly with the token's `iss`.
    pub fn new(keys: KeySet, issuers: impl IntoIterator<Item = String>) -> Result<Self, VerifierFault> {
        let issuers: Vec<String> = issuers.into_iter().take(ISSUERS_MAX + 1).collect();
        if issuers.is_empty() || issuers.len() > ISSUERS_MAX || issuers.iter().any(String::is_empty) {
            return Err(VerifierFault::Issuers);
        }
        Ok(Self { keys, issuers, cache: TokenCache::new(CACHED_TOKENS_MAX) })
    }

    /// Claims whose signature verifies under the key the header names.
    fn signed_claims(&self, token: &str) -> Result<Map<String, Value>, TokenFault> {
        let parts = Parts::parse(token).map_err(|_| TokenFault::Malformed)?;
        let algorithm = parts.algorithm().ok_or(TokenFault::Algorithm)?;
        let kid = parts.header_text("kid").ok_or(TokenFault::UnknownKey)?;
        let (key, pinned) = self.keys.find(kid).ok_or(TokenFault::UnknownKey)?;
        if algorithm != pinned {
            return Err(TokenFault::Algorithm);
        }
        if !key.verify_rs256(parts.signed.as_bytes(), &parts.signature) {
            return Err(TokenFault::Signature);
        }
        parts.claims().map_err(|_| TokenFault::Malformed)
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<String, TokenFault> {
        let found = text(claims, "iss").unwrap_or_default();
        if self.issuers.iter().any(|issuer| issuer == found) {
            return Ok(found.to_owned());
        }
        Err(TokenFault::Issuer {
            expected: self.issuers.clone(),
            found: found.chars().take(ECHO_CHARACTERS_MAX).collect(),
        })
    }

    /// `(nbf, exp)`; both are required.
    fn check_times(claims: &Map<String, Value>, now: i64) -> Result<(f64, f64), TokenFault> {
        let not_before = numeric_date(claims, "nbf").ok_or(TokenFault::Malformed)?;
        let not_after = numeric_date(claims, "exp").ok_or(TokenFault::Malformed)?;
        let now = now as f64;
        if now - LEEWAY_SECONDS >= not_after {
            return Err(TokenFault::Expired);
        }
        if now + LEEWAY_SECONDS < not_before {
            return Err(TokenFault::NotYetValid);
        }
        Ok((not_before, not_after))
    }
}

impl Authenticator for TokenVerifier {
    fn verify(&self, token: &str, now: i64) -> Result<VerifiedToken, TokenFault> {
        if token.len() > super::TOKEN_BYTES_MAX {
            return Err(TokenFault::Malformed);
        }
        let mark = self.cache.mark(token);
        if let Some(known) = mark.and_then(|mark| self.cache.find(&mark, now)) {
            return Ok(known);
        }
        let claims = self.signed_claims(token)?;
        let issuer = self.check_issuer(&claims)?;
        let times = Self::check_times(&claims, now)?;
        let verified = VerifiedToken {
            caller: Arc::new(caller(&claims, issuer).ok_or(TokenFault::Malformed)?),
            audience: text(&claims, "aud").ok_or(TokenFault::Malformed)?.into(),
            expires_at: times.1 as i64,
        };
        if let Some(mark) = mark {
            self.cache.insert(mark, verified.clone(), times);
        }
        Ok(verified)
    }
}

/// Who the claims of a version 1.0 or 2.0 access token describe; `None` when they describe nobody.
fn caller(claims: &Map<String, Value>, issuer: String) -> Option<Caller> {
    let uuid = |name: &str| text(claims, name).and_then(|value| Uuid::try_parse(value).ok());
    let resource_id = text(claims, "xms_mirid").map(str::to_owned);
    let kind = match text(claims, "idtyp") {
        Some("app") if resource_id.is_some() => CallerKind::ManagedIdentity,
        Some("app") => CallerKind::Application,
        Some("user") | None => CallerKind::User,
        Some(_) => return None,
    };
    let app_id = uuid("appid").or_else(|| uuid("azp"))?;
    let named = match kind {
        CallerKind::User => {
            ["upn", "unique_name", "preferred_username"].iter().find_map(|name| text(claims, name))
        }
        _ => None,
    };
    Some(Caller {
        kind,
        tenant_id: uuid("tid")?,
        object_id: uuid("oid")?,
        app_id,
        name: named.map_or_else(|| app_id.to_string(), str::to_owned),
        resource_id,
        issuer,
        delegated_scopes: text(claims, "scp").map(str::to_owned),
    })
}
