//! Issuing tokens.

use serde::Serialize;
use serde_json::{Value, json};

use crate::encoding::{add_b64url, b64, b64url};
use crate::hash::sha1;
use crate::rsa::{KeyFault, RsaKeyPair, RsaPublicKey};

#[derive(Debug, thiserror::Error)]
pub enum SignFault {
    #[error("the signing certificate is for another key")]
    CertificateMismatch,
    #[error("the token could not be signed: {0}")]
    Key(#[from] KeyFault),
    #[error("the claims are not serializable: {0}")]
    Claims(#[from] sonic_rs::Error),
}

/// Signs with RS256. `kid` and `x5t` are both the base64url SHA-1 of the signing certificate, as clients of
/// version 1.0 tokens expect.
pub struct JwtSigner {
    key: RsaKeyPair,
    certificate_der: Vec<u8>,
    kid: String,
    /// The header of every token, as it stands in one.
    header: String,
}

/// Field order is the order in the token.
#[derive(Serialize)]
struct Header<'a> {
    typ: &'static str,
    alg: &'static str,
    x5t: &'a str,
    kid: &'a str,
}

impl JwtSigner {
    /// `certificate_der` is a certificate of `key`, for example from [`crate::self_signed`].
    pub fn new(key: RsaKeyPair, certificate_der: Vec<u8>) -> Result<Self, SignFault> {
        if RsaPublicKey::from_x509_der(&certificate_der)? != *key.public() {
            return Err(SignFault::CertificateMismatch);
        }
        let kid = b64url(&sha1(&certificate_der));
        let header = Header { typ: "JWT", alg: "RS256", x5t: &kid, kid: &kid };
        let header = b64url(&sonic_rs::to_vec(&header)?);
        Ok(Self { key, certificate_der, kid, header })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    pub fn public_key(&self) -> &RsaPublicKey {
        self.key.public()
    }

    /// A token in compact form; times in `claims` are the caller's.
    pub fn sign<T: Serialize + ?Sized>(&self, claims: &T) -> Result<String, SignFault> {
        let mut token = self.header.clone();
        token.push('.');
        add_b64url(&sonic_rs::to_vec(claims)?, &mut token);
        let signature = self.key.sign_rs256(token.as_bytes())?;
        token.push('.');
        add_b64url(&signature, &mut token);
        Ok(token)
    }

    /// The public half as a member of a JWKS document's `keys`.
    pub fn public_jwk(&self) -> Value {
        let (n, e) = self.key.public().jwk_n_e();
        json!({
            "kty": "RSA",
            "use": "sig",
            "kid": self.kid,
            "x5t": self.kid,
            "n": n,
            "e": e,
            "x5c": [b64(&self.certificate_der)],
        })
    }

    /// As [`JwtSigner::public_jwk`], saying also which issuer's tokens the key signs.
    pub fn public_jwk_for_issuer(&self, issuer: &str) -> Value {
        let mut key = self.public_jwk();
        key["issuer"] = Value::from(issuer);
        key
    }
}
