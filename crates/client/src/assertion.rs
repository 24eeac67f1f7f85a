//! Proof by signature: the client assertion of RFC 7523 section 2.2.

use arcadia_crypto::{RsaKeyPair, b64url, sha1};
use arcadia_kernel::{Entropy, EntropyExt as _};
use serde::Serialize;

use crate::ClientFault;

/// Long enough for a clock that is a few minutes off, short enough to be useless when found later.
const LIFETIME_SECONDS: i64 = 10 * 60;

/// A private key and the name it is known by at the directory. `Debug` shows the public half only.
#[derive(Clone, Debug)]
pub struct AssertionKey {
    key: RsaKeyPair,
    name: KeyName,
}

#[derive(Clone, Debug)]
enum KeyName {
    /// `kid`: the RFC 7638 thumbprint of the public key.
    Thumbprint(String),
    /// `x5t`: the SHA-1 of a certificate of the key.
    Certificate(String),
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x5t: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl AssertionKey {
    /// A key that is registered by itself, as a machine's is.
    pub fn from_key(key: RsaKeyPair) -> Self {
        let thumbprint = key.public().thumbprint_sha256();
        Self { key, name: KeyName::Thumbprint(thumbprint) }
    }

    /// A key that is registered by its certificate, as a service principal's is.
    pub fn from_certificate(key: RsaKeyPair, certificate_der: &[u8]) -> Self {
        Self { key, name: KeyName::Certificate(b64url(&sha1(certificate_der))) }
    }

    pub fn key(&self) -> &RsaKeyPair {
        &self.key
    }

    /// A signed assertion by `client_id` for the token endpoint `audience`, valid for ten minutes from `now_seconds`.
    pub fn sign(
        &self,
        client_id: &str,
        audience: &str,
        entropy: &dyn Entropy,
        now_seconds: i64,
    ) -> Result<String, ClientFault> {
        let (kid, x5t) = match &self.name {
            KeyName::Thumbprint(kid) => (Some(kid.as_str()), None),
            KeyName::Certificate(x5t) => (None, Some(x5t.as_str())),
        };
        let header = Header { alg: "RS256", typ: "JWT", kid, x5t };
        let claims = Claims {
            aud: audience,
            iss: client_id,
            sub: client_id,
            jti: entropy.uuid().to_string(),
            iat: now_seconds,
            nbf: now_seconds,
            exp: now_seconds + LIFETIME_SECONDS,
        };
        let mut token = segment(&header)?;
        token.push('.');
        token.push_str(&segment(&claims)?);
        let signature = self.key.sign_rs256(token.as_bytes())?;
        token.push('.');
        token.push_str(&b64url(&signature));
        Ok(token)
    }
}

fn segment<T: Serialize>(value: &T) -> Result<String, ClientFault> {
    let json = serde_json::to_vec(value).map_err(|_| ClientFault::Header("the assertion's claims"))?;
    Ok(b64url(&json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcadia_crypto::{RsaBits, SystemEntropy, verify_assertion};

    #[test]
    fn the_verifier_accepts_it_for_its_own_audience_and_time_only() {
        let key = RsaKeyPair::generate(RsaBits::Bits2048).unwrap();
        let public = key.public().clone();
        let now = 1_800_000_000;
        let token = AssertionKey::from_key(key).sign("c", "https://h/t", &SystemEntropy, now).unwrap();
        let read = verify_assertion(&token, std::slice::from_ref(&public), &["https://h/t"], now).unwrap();
        assert_eq!((read.issuer.as_str(), read.subject.as_str()), ("c", "c"));
        assert_eq!(read.expires_at, now + 600);
        assert_eq!(read.header["kid"], public.thumbprint_sha256());
        assert!(read.jti.is_some_and(|jti| jti.len() == 36));
        let keys = [public];
        assert!(verify_assertion(&token, &keys, &["https://h/other"], now).is_err());
        assert!(verify_assertion(&token, &keys, &["https://h/t"], now + 1200).is_err());
    }

    #[test]
    fn a_certificate_is_named_by_its_thumbprint() {
        let key = RsaKeyPair::generate(RsaBits::Bits2048).unwrap();
        let signer = AssertionKey::from_certificate(key, b"abc");
        let token = signer.sign("c", "a", &SystemEntropy, 0).unwrap();
        let (header, _) = arcadia_crypto::peek(&token).unwrap();
        assert_eq!(header["x5t"], "qZk-NkcGgWq6PiVxeFDCbJzQ2J0");
        assert!(!header.contains_key("kid"));
    }
}
