//! What a certificate says about itself, for showing to people.

use serde::Serialize;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::encoding::hex;
use crate::hash::sha256;
use crate::rsa::KeyFault;

const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;

/// Nothing here is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSummary {
    pub subject: String,
    pub issuer: String,
    /// Lower-case hexadecimal.
    pub serial_number: String,
    /// Seconds since 1970.
    pub not_before_seconds: i64,
    /// Seconds since 1970.
    pub not_after_seconds: i64,
    /// SHA-256 of the DER, lower-case hexadecimal.
    pub sha256_fingerprint: String,
}

/// Reads one certificate in DER form.
pub fn certificate_summary(der: &[u8]) -> Result<CertificateSummary, KeyFault> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(KeyFault::TooLong);
    }
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| KeyFault::Malformed)?;
    Ok(CertificateSummary {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial_number: hex(parsed.raw_serial()),
        not_before_seconds: parsed.validity().not_before.timestamp(),
        not_after_seconds: parsed.validity().not_after.timestamp(),
        sha256_fingerprint: hex(&sha256(der)),
    })
}
