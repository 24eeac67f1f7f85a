//! X.509 certificates (RFC 5280): the site's own authority, self-signed certificates, and reading.
//!
//! Every certificate says all that strict verifiers (OpenSSL's `-x509_strict`, Python's `VERIFY_X509_STRICT`) ask
//! for: names of issuer and subject that differ, key identifiers on both sides, key usage, basic constraints.

mod ca;
mod key;
mod names;

use std::ops::RangeInclusive;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PKCS_RSA_SHA256, PublicKeyData, SerialNumber, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use x509_parser::prelude::{FromDer as _, Validity};

pub use ca::{IssuedLeaf, LEAF_DAYS_MAX, SiteCa};
pub use names::IpSubnet;

use crate::der;
use crate::rsa::{KeyFault, RsaKeyPair};

const DAY_SECONDS: i64 = 24 * 60 * 60;
const YEAR_SECONDS: i64 = 365 * DAY_SECONDS + DAY_SECONDS / 4;
/// Certificates begin this long ago, for clients whose clock is behind.
const BACKDATE_SECONDS: i64 = 10 * 60;
const YEARS_MAX: u32 = 30;
/// The first second of the year 3000: a clock beyond it is wrong.
const NOW_SECONDS_MAX: i64 = 32_503_680_000;
const COMMON_NAME_CHARACTERS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueFault {
    #[error(
        "`{0}` is not a DNS name; use labels of letters, digits and hyphens, with `*` only as the first label"
    )]
    InvalidName(String),
    #[error("`{0}` is outside the names this authority may certify")]
    NotPermitted(String),
    #[error("a certificate needs 1 to {0} names")]
    NameCount(usize),
    #[error("an authority needs 1 to {0} permitted DNS subtrees and at most as many address ranges")]
    Constraints(usize),
    #[error("a common name has 1 to {COMMON_NAME_CHARACTERS_MAX} characters and no control characters")]
    CommonName,
    #[error("the requested validity is out of range, or the clock is wrong")]
    Validity,
    #[error("the authority's certificate has expired or is about to; make a new one")]
    AuthorityExpired,
    #[error("the authority's certificate or key is not readable: {0}")]
    Unreadable(&'static str),
    #[error("the authority's key does not belong to its certificate")]
    KeyMismatch,
    #[error("the cryptographic library refused the operation: {0}")]
    Refused(String),
}

impl From<rcgen::Error> for IssueFault {
    fn from(error: rcgen::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<KeyFault> for IssueFault {
    fn from(error: KeyFault) -> Self {
        Self::Refused(error.to_string())
    }
}

/// A self-signed certificate of `key`, as DER: what a token-signing key is published in.
pub fn self_signed(
    common_name: &str,
    key: &RsaKeyPair,
    now_seconds: i64,
    years: u32,
) -> Result<Vec<u8>, IssueFault> {
    let mut params = parameters(common_name, None)?;
    let from = check_now(now_seconds)? - BACKDATE_SECONDS;
    set_validity(&mut params, from, now_seconds + check_years(years)?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params.self_signed(&RsaSigningKey(key))?.der().to_vec())
}

/// The seconds in which a certificate of any version says that it is good. `None` when it does not say so readably.
/// As with [`crate::RsaPublicKey::from_x509_der`], nothing else of it is judged.
pub fn validity_seconds(certificate: &[u8]) -> Option<RangeInclusive<i64>> {
    let dates = der::element(der::SEQUENCE, der::certificate_dates(certificate)?);
    let (_, dates) = Validity::from_der(&dates).ok()?;
    Some(dates.not_before.timestamp()..=dates.not_after.timestamp())
}

struct RsaSigningKey<'a>(&'a RsaKeyPair);

impl PublicKeyData for RsaSigningKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public().pkcs1()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

impl SigningKey for RsaSigningKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign_rs256(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// Parameters with a subject and a serial number of 20 random bytes, the rest empty.
fn parameters(common_name: &str, organization: Option<&str>) -> Result<CertificateParams, IssueFault> {
    let length = common_name.chars().count();
    if !(1..=COMMON_NAME_CHARACTERS_MAX).contains(&length) || common_name.chars().any(char::is_control) {
        return Err(IssueFault::CommonName);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(serial_number());
    Ok(params)
}

/// Positive, never zero, and always 20 octets long.
fn serial_number() -> SerialNumber {
    use arcadia_kernel::Entropy as _;
    let mut bytes = [0; 20];
    crate::SystemEntropy.fill(&mut bytes);
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// `from` and `until` are seconds since 1970, already checked to be in range.
fn set_validity(params: &mut CertificateParams, from: i64, until: i64) {
    let since_1970 = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(from);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(until);
}

fn check_now(now_seconds: i64) -> Result<i64, IssueFault> {
    if (BACKDATE_SECONDS..=NOW_SECONDS_MAX).contains(&now_seconds) {
        Ok(now_seconds)
    } else {
        Err(IssueFault::Validity)
    }
}

fn check_years(years: u32) -> Result<i64, IssueFault> {
    if (1..=YEARS_MAX).contains(&years) {
        Ok(i64::from(years) * YEAR_SECONDS)
    } else {
        Err(IssueFault::Validity)
    }
}

/// What a TLS server's certificate may be used for.
fn server_usages(params: &mut CertificateParams) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}
