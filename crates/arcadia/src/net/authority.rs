//! What the site's certificate authority may certify.

use arcadia_crypto::{IpSubnet, IssueFault, SiteCa};

use crate::names::SiteNames;

/// Addresses on which parts of a site listen by themselves.
const PERMITTED_ADDRESSES: &[&str] = &["127.0.0.0/8", "::1/128"];

const VALIDITY_YEARS: u32 = 10;

/// A new authority for one site, limited by name constraints to the site's names. `label` is part of its name, so that the authorities of two sites are told apart
/// by people and by verifiers that look issuers up by name.
pub fn create_authority(names: &SiteNames, label: &str, now_seconds: i64) -> Result<SiteCa, IssueFault> {
    let subnets =
        PERMITTED_ADDRESSES.iter().map(|text| text.parse()).collect::<Result<Vec<IpSubnet>, _>>()?;
    SiteCa::create(
        &format!("Arcadia site {label}"),
        &names.certified_subtrees(),
        &subnets,
        now_seconds,
        VALIDITY_YEARS,
    )
}
