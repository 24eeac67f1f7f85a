//! What the site's certificate authority may certify.

use arcadia_crypto::{IpSubnet, IssueFault, SiteCa};

/// The subtrees written into the authority's certificate: the names of the services that Arcadia stands for and
/// nothing beside them, so that who trusts a site's authority trusts it for these alone. A name covers itself and
/// everything below it.
pub const PERMITTED_DNS_SUBTREES: &[&str] = &[
    "login.microsoftonline.com",
    "login.microsoft.com",
    "login.windows.net",
    "sts.windows.net",
    "graph.microsoft.com",
    "management.azure.com",
    "portal.azure.com",
    "his.arc.azure.com",
    "guestconfiguration.azure.com",
    "vault.azure.net",
    "core.windows.net",
    "postgres.database.azure.com",
    "jwt.ms",
    "localhost",
];

/// Addresses on which parts of a site listen by themselves.
const PERMITTED_ADDRESSES: &[&str] = &["127.0.0.0/8", "::1/128"];

const VALIDITY_YEARS: u32 = 10;

/// A new authority for one site. `label` is part of its name, so that the authorities of two sites are told apart
/// by people and by verifiers that look issuers up by name.
pub fn create_authority(label: &str, now_seconds: i64) -> Result<SiteCa, IssueFault> {
    let subnets =
        PERMITTED_ADDRESSES.iter().map(|text| text.parse()).collect::<Result<Vec<IpSubnet>, _>>()?;
    SiteCa::create(
        &format!("Arcadia site {label}"),
        PERMITTED_DNS_SUBTREES,
        &subnets,
        now_seconds,
        VALIDITY_YEARS,
    )
}
