//! The site's own certificate authority.

use std::fmt;
use std::net::IpAddr;

use rcgen::{BasicConstraints, IsCa, Issuer, KeyUsagePurpose, PublicKeyData as _, SanType};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::key::EcKey;
use super::names::{IpSubnet, Permitted};
use super::{
    BACKDATE_SECONDS, COMMON_NAME_CHARACTERS_MAX, DAY_SECONDS, IssueFault, check_now, check_years,
    parameters, server_usages, set_validity,
};
use crate::pem::{pem_decode, pem_encode, pem_encode_secret};

/// Longest validity of a server certificate, which clients such as browsers enforce.
pub const LEAF_DAYS_MAX: u32 = 397;
const NAMES_MAX: usize = 128;
const ORGANIZATION: &str = "Arcadia";

/// A P-256 authority that can only certify names under its permitted DNS subtrees and address ranges: the
/// constraints are in its own certificate (critical), so a stolen key is of no use against other names.
///
/// Keys come from the library's own operating-system seeded generator.
pub struct SiteCa {
    issuer: Issuer<'static, EcKey>,
    certificate_der: Vec<u8>,
    permitted: Permitted,
    not_before_seconds: i64,
    not_after_seconds: i64,
}

/// A server certificate and its key, ready for a TLS listener.
#[derive(Clone)]
pub struct IssuedLeaf {
    /// The leaf alone: the authority is a root, which clients must hold already.
    pub chain_der: Vec<Vec<u8>>,
    pub key_pkcs8_der: Zeroizing<Vec<u8>>,
    pub not_before_seconds: i64,
    pub not_after_seconds: i64,
}

impl SiteCa {
    /// A new authority. Subtrees are names without a leading dot (`vault.azure.net` covers itself and everything
    /// below it). Where no address range is given, all addresses are excluded.
    pub fn create(
        common_name: &str,
        permitted_dns_subtrees: &[&str],
        permitted_ip_subnets: &[IpSubnet],
        now_seconds: i64,
        years: u32,
    ) -> Result<Self, IssueFault> {
        let permitted = Permitted::new(permitted_dns_subtrees, permitted_ip_subnets)?;
        let mut params = parameters(common_name, Some(ORGANIZATION))?;
        let from = check_now(now_seconds)? - BACKDATE_SECONDS;
        set_validity(&mut params, from, now_seconds + check_years(years)?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(permitted.to_constraints());
        let key = EcKey::generate()?;
        let certificate_der = params.self_signed(&key)?.der().to_vec();
        Self::from_parts(certificate_der, key)
    }

    /// An authority made by [`SiteCa::create`] and stored. A certificate without its constraints is refused.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, IssueFault> {
        let block = |text: &str, label: &str, fault: IssueFault| {
            let blocks = pem_decode(text).map_err(|_| fault.clone())?;
            blocks.into_iter().find(|block| block.label == label).ok_or(fault)
        };
        let certificate = block(
            certificate_pem,
            "CERTIFICATE",
            IssueFault::Unreadable("no CERTIFICATE block in its PEM text"),
        )?;
        let key =
            block(key_pem, "PRIVATE KEY", IssueFault::Unreadable("no PRIVATE KEY block in its PEM text"))?;
        Self::from_parts(certificate.der.to_vec(), EcKey::from_pkcs8(&key.der)?)
    }

    fn from_parts(certificate_der: Vec<u8>, key: EcKey) -> Result<Self, IssueFault> {
        let (rest, parsed) = X509Certificate::from_der(&certificate_der)
            .map_err(|_| IssueFault::Unreadable("its certificate is not X.509"))?;
        if !rest.is_empty() || !parsed.is_ca() {
            return Err(IssueFault::Unreadable("its certificate is not an authority's"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(IssueFault::KeyMismatch);
        }
        let constraints = parsed.name_constraints().ok().flatten();
        let permitted = constraints
            .and_then(|extension| Permitted::from_parsed(extension.value))
            .ok_or(IssueFault::Unreadable("its certificate lacks the name constraints it must have"))?;
        let (not_before_seconds, not_after_seconds) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(certificate_der.as_slice()), key)?;
        Ok(Self { issuer, certificate_der, permitted, not_before_seconds, not_after_seconds })
    }

    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    pub fn certificate_pem(&self) -> String {
        pem_encode("CERTIFICATE", &self.certificate_der)
    }

    /// Unencrypted PKCS#8, wiped when dropped.
    pub fn key_pem(&self) -> Zeroizing<String> {
        pem_encode_secret("PRIVATE KEY", self.issuer.key().pkcs8_der())
    }

    pub fn not_after_seconds(&self) -> i64 {
        self.not_after_seconds
    }

    /// Whether [`SiteCa::issue_server`] would certify this DNS name.
    pub fn permits_dns(&self, name: &str) -> bool {
        self.permitted.check_dns(name).is_ok()
    }

    /// A new P-256 server certificate for `dns_names` (a first label of `*` is allowed) and `ip_addresses`. It is
    /// valid for `days` (1 to [`LEAF_DAYS_MAX`], counted from ten minutes ago) and never beyond the authority.
    pub fn issue_server(
        &self,
        dns_names: &[&str],
        ip_addresses: &[IpAddr],
        now_seconds: i64,
        days: u32,
    ) -> Result<IssuedLeaf, IssueFault> {
        if !(1..=NAMES_MAX).contains(&(dns_names.len() + ip_addresses.len())) {
            return Err(IssueFault::NameCount(NAMES_MAX));
        }
        let dns_names: Vec<String> =
            dns_names.iter().map(|name| self.permitted.check_dns(name)).collect::<Result<_, _>>()?;
        let (from, until) = self.leaf_validity(now_seconds, days)?;

        let mut params = parameters(&common_name(&dns_names, ip_addresses), None)?;
        for name in &dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        for address in ip_addresses {
            params.subject_alt_names.push(SanType::IpAddress(self.permitted.check_ip(*address)?));
        }
        set_validity(&mut params, from, until);
        server_usages(&mut params);
        let key = EcKey::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(IssuedLeaf {
            chain_der: vec![certificate.der().to_vec()],
            key_pkcs8_der: key.pkcs8_der().clone(),
            not_before_seconds: from,
            not_after_seconds: until,
        })
    }

    fn leaf_validity(&self, now_seconds: i64, days: u32) -> Result<(i64, i64), IssueFault> {
        if !(1..=LEAF_DAYS_MAX).contains(&days) {
            return Err(IssueFault::Validity);
        }
        let from = (check_now(now_seconds)? - BACKDATE_SECONDS).max(self.not_before_seconds);
        let until = (from + i64::from(days) * DAY_SECONDS).min(self.not_after_seconds);
        if until <= now_seconds { Err(IssueFault::AuthorityExpired) } else { Ok((from, until)) }
    }
}

/// The first DNS name, cut to what a common name may hold. Verifiers take names from the alternative names; for an
/// address the text is one that no verifier mistakes for a DNS name.
fn common_name(dns_names: &[String], ip_addresses: &[IpAddr]) -> String {
    match (dns_names.first(), ip_addresses.first()) {
        (Some(name), _) => name.chars().take(COMMON_NAME_CHARACTERS_MAX).collect(),
        (None, Some(address)) => format!("address {address}"),
        (None, None) => String::new(),
    }
}

impl fmt::Debug for SiteCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteCa")
            .field("permitted", &self.permitted)
            .field("not_after_seconds", &self.not_after_seconds)
            .finish_non_exhaustive()
    }
}
