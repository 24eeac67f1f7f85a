//! RSA keys of 2048 to 8192 bits, in every form that clients send them.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as AwsKeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey,
};
use zeroize::Zeroizing;

use crate::der;
use crate::encoding::{b64url, b64url_decode};
use crate::hash::sha256;

const MODULUS_BITS_MIN: usize = 2048;
const MODULUS_BITS_MAX: usize = 8192;
/// Longest DER read as a key or as a certificate that holds one.
const DER_BYTES_MAX: usize = 64 * 1024;
/// Longest `n` of a JWK: 8192 bits in base64url, with some room for leading zeros.
const JWK_NUMBER_CHARACTERS_MAX: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error("this is not a readable RSA key; send an RSA key or certificate in PEM or DER form")]
    Malformed,
    #[error("the RSA key must have {MODULUS_BITS_MIN} to {MODULUS_BITS_MAX} bits")]
    Size,
    #[error("the key is longer than any accepted form of an RSA key")]
    TooLong,
    #[error("the cryptographic library refused the operation")]
    Refused,
}

/// Sizes a new key may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaBits {
    Bits2048,
    Bits3072,
    Bits4096,
}

impl TryFrom<u32> for RsaBits {
    type Error = KeyFault;

    fn try_from(bits: u32) -> Result<Self, KeyFault> {
        match bits {
            2048 => Ok(Self::Bits2048),
            3072 => Ok(Self::Bits3072),
            4096 => Ok(Self::Bits4096),
            _ => Err(KeyFault::Size),
        }
    }
}

/// A private key. `Debug` shows the public half only. Clones share the key.
#[derive(Clone)]
pub struct RsaKeyPair {
    pair: Arc<AwsKeyPair>,
    public: RsaPublicKey,
}

impl RsaKeyPair {
    /// A new key from the library's own operating-system seeded generator; takes 0.1 to several seconds, so keep it
    /// off threads that serve requests.
    pub fn generate(bits: RsaBits) -> Result<Self, KeyFault> {
        let size = match bits {
            RsaBits::Bits2048 => KeySize::Rsa2048,
            RsaBits::Bits3072 => KeySize::Rsa3072,
            RsaBits::Bits4096 => KeySize::Rsa4096,
        };
        Self::new(AwsKeyPair::generate(size).map_err(|_| KeyFault::Refused)?)
    }

    pub fn from_pkcs8_der(pkcs8: &[u8]) -> Result<Self, KeyFault> {
        if pkcs8.len() > DER_BYTES_MAX {
            return Err(KeyFault::TooLong);
        }
        Self::new(AwsKeyPair::from_pkcs8(pkcs8).map_err(|_| KeyFault::Malformed)?)
    }

    fn new(pair: AwsKeyPair) -> Result<Self, KeyFault> {
        let public = RsaPublicKey::from_pkcs1_der(pair.public_key().as_ref())?;
        Ok(Self { pair: Arc::new(pair), public })
    }

    /// Unencrypted PKCS#8, wiped when dropped.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
        let der = self.pair.as_der().map_err(|_| KeyFault::Refused)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    pub fn public(&self) -> &RsaPublicKey {
        &self.public
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 over `message` (JWA `RS256`).
    pub fn sign_rs256(&self, message: &[u8]) -> Result<Vec<u8>, KeyFault> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| KeyFault::Refused)?;
        Ok(signature)
    }
}

impl fmt::Debug for RsaKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaKeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A public key, checked and ready to verify. Clones share it.
#[derive(Clone)]
pub struct RsaPublicKey(Arc<Inner>);

struct Inner {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    pkcs1: Vec<u8>,
    rs256: ParsedPublicKey,
}

impl RsaPublicKey {
    /// `RSAPublicKey` of RFC 8017.
    pub fn from_pkcs1_der(pkcs1: &[u8]) -> Result<Self, KeyFault> {
        let pkcs1 = bounded(pkcs1)?;
        let (modulus, exponent) = der::pkcs1_public(pkcs1).ok_or(KeyFault::Malformed)?;
        Self::from_numbers(modulus, exponent)
    }

    /// `SubjectPublicKeyInfo` of RFC 5280.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, KeyFault> {
        Self::from_pkcs1_der(der::spki_rsa(bounded(spki)?).ok_or(KeyFault::Malformed)?)
    }

    /// `n` and `e` of a JWK (RFC 7518 section 6.3.1), base64url.
    pub fn from_jwk(n: &str, e: &str) -> Result<Self, KeyFault> {
        if n.len() > JWK_NUMBER_CHARACTERS_MAX || e.len() > JWK_NUMBER_CHARACTERS_MAX {
            return Err(KeyFault::TooLong);
        }
        let modulus = b64url_decode(n).ok_or(KeyFault::Malformed)?;
        let exponent = b64url_decode(e).ok_or(KeyFault::Malformed)?;
        Self::from_numbers(&modulus, &exponent)
    }

    /// The key of an X.509 certificate of any version. Neither its signature nor its dates are judged: clients
    /// register self-signed certificates that are no more than a wrapping of their key.
    pub fn from_x509_der(certificate: &[u8]) -> Result<Self, KeyFault> {
        Self::from_pkcs1_der(der::certificate_rsa(bounded(certificate)?).ok_or(KeyFault::Malformed)?)
    }

    fn from_numbers(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyFault> {
        let (modulus, exponent) = (der::strip_zeros(modulus), der::strip_zeros(exponent));
        let first = modulus.first().ok_or(KeyFault::Malformed)?;
        let bits = modulus.len() * 8 - first.leading_zeros() as usize;
        if !(MODULUS_BITS_MIN..=MODULUS_BITS_MAX).contains(&bits) {
            return Err(KeyFault::Size);
        }
        let pkcs1 = der::write_pkcs1(modulus, exponent);
        let rs256 =
            ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &pkcs1).map_err(|_| KeyFault::Malformed)?;
        Ok(Self(Arc::new(Inner { modulus: modulus.to_vec(), exponent: exponent.to_vec(), pkcs1, rs256 })))
    }

    pub fn to_pkcs1_der(&self) -> Vec<u8> {
        self.0.pkcs1.clone()
    }

    pub(crate) fn pkcs1(&self) -> &[u8] {
        &self.0.pkcs1
    }

    pub fn to_spki_der(&self) -> Vec<u8> {
        der::write_spki(&self.0.pkcs1)
    }

    /// `(n, e)` as a JWK writes them: base64url of the shortest big-endian form.
    pub fn jwk_n_e(&self) -> (String, String) {
        (b64url(&self.0.modulus), b64url(&self.0.exponent))
    }

    pub fn modulus_bits(&self) -> usize {
        let leading = self.0.modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        self.0.modulus.len() * 8 - leading
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256.
    pub fn verify_rs256(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.rs256.verify_sig(message, signature).is_ok()
    }

    /// RSASSA-PSS with SHA-256 and a salt of 32 bytes.
    pub fn verify_ps256(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &self.0.pkcs1).verify(message, signature).is_ok()
    }

    /// JWK thumbprint (RFC 7638) with SHA-256, base64url.
    pub fn thumbprint_sha256(&self) -> String {
        let (n, e) = self.jwk_n_e();
        b64url(&sha256(format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#).as_bytes()))
    }
}

fn bounded(der: &[u8]) -> Result<&[u8], KeyFault> {
    if der.len() > DER_BYTES_MAX { Err(KeyFault::TooLong) } else { Ok(der) }
}

impl PartialEq for RsaPublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.pkcs1 == other.0.pkcs1
    }
}

impl Eq for RsaPublicKey {}

impl fmt::Debug for RsaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaPublicKey({} bits, {})", self.modulus_bits(), self.thumbprint_sha256())
    }
}
