//! What a site and its services are called: Azure's own names, or names under a domain of the site's own.
//!
//! A site has one of the two, chosen at its first start and kept in `site.json`: tokens, identifiers and links hold
//! these names, so they never change afterwards. Every service is handed its names from here.

use arcadia_arm::ArmNames;
use arcadia_client::Endpoints;
use arcadia_directory::DirectoryNames;
use arcadia_keyvault::KeyVaultNames;
use arcadia_machines::HIS_AUDIENCE;
use arcadia_postgres::PostgresNames;
use arcadia_storage::StorageNames;

/// What a site under its own domain calls its cloud.
pub const OWN_CLOUD: &str = "Arcadia";
/// Names of loopback clients; in every authority's certificate.
const LOCALHOST: &str = "localhost";

/// The names of one site. Suffixes are domain names without a leading dot, origins have no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteNames {
    domain: Option<String>,
}

/// The services by which host names are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Login,
    Graph,
    Management,
    Vaults,
    Blobs,
    Databases,
    Heartbeats,
    /// A page that leads to one of the site's own.
    Pages,
    /// Whatever else is asked for under the own domain.
    Unserved,
}

impl SiteNames {
    /// Azure's own names, for a site that is reached by its proxy.
    pub fn azure() -> Self {
        Self { domain: None }
    }

    /// Names under a domain of the site's own.
    pub fn of_domain(domain: &str) -> Self {
        Self { domain: Some(domain.to_lowercase()) }
    }

    /// As `site.json` has it.
    pub fn of(domain: Option<&str>) -> Self {
        domain.map_or_else(Self::azure, Self::of_domain)
    }

    /// `None` for Azure's names.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    fn name(&self, azure: &str, own: &str) -> String {
        match &self.domain {
            None => azure.to_owned(),
            Some(domain) => format!("{own}.{domain}"),
        }
    }

    /// `login.microsoftonline.com`: where tokens are issued.
    pub fn login_host(&self) -> String {
        self.name("login.microsoftonline.com", "login")
    }

    pub fn login_origin(&self) -> String {
        format!("https://{}", self.login_host())
    }

    /// `vault.azure.net`.
    pub fn vault_suffix(&self) -> String {
        self.name("vault.azure.net", "vault")
    }

    /// `blob.core.windows.net`: what follows a storage account's name.
    pub fn blob_suffix(&self) -> String {
        self.name("blob.core.windows.net", "blob")
    }

    /// `postgres.database.azure.com`: what follows a database server's name.
    pub fn postgres_suffix(&self) -> String {
        self.name("postgres.database.azure.com", "postgres")
    }

    /// What machines' tokens for heartbeats are for.
    pub fn his_audience(&self) -> String {
        match &self.domain {
            None => HIS_AUDIENCE.to_owned(),
            Some(domain) => format!("https://his.{domain}"),
        }
    }

    pub fn directory(&self) -> DirectoryNames {
        match &self.domain {
            None => {
                let device_page = format!("{}/device", self.login_origin());
                DirectoryNames { device_page, ..DirectoryNames::azure() }
            }
            Some(domain) => DirectoryNames::of_domain(domain),
        }
    }

    pub fn arm(&self) -> ArmNames {
        match &self.domain {
            None => ArmNames::azure(),
            Some(domain) => ArmNames::of_domain(OWN_CLOUD, domain),
        }
    }

    pub fn keyvault(&self) -> KeyVaultNames {
        match &self.domain {
            None => KeyVaultNames::azure(),
            Some(domain) => KeyVaultNames::of_domain(domain),
        }
    }

    pub fn postgres(&self) -> PostgresNames {
        match &self.domain {
            None => PostgresNames::azure(),
            Some(domain) => PostgresNames::of_domain(domain),
        }
    }

    pub fn storage(&self) -> StorageNames {
        match &self.domain {
            None => StorageNames::azure(),
            Some(domain) => StorageNames::of_domain(domain),
        }
    }

    /// For clients of this site.
    pub fn endpoints(&self) -> Endpoints {
        match &self.domain {
            None => Endpoints::default(),
            Some(domain) => Endpoints::of_domain(domain),
        }
    }

    /// The patterns of host names and what answers there.
    pub fn hosts(&self) -> Vec<(String, Role)> {
        let fixed = if self.domain.is_some() { OWN_HOSTS } else { AZURE_HOSTS };
        let mut hosts: Vec<(String, Role)> =
            fixed.iter().map(|(name, role)| (self.name(name, name), *role)).collect();
        hosts.push((format!("*.{}", self.vault_suffix()), Role::Vaults));
        hosts.push((format!("*.{}", self.blob_suffix()), Role::Blobs));
        hosts.push((format!("*.{}", self.postgres_suffix()), Role::Databases));
        hosts
    }

    /// The subtrees that the site's authority may certify, and no others: who trusts the authority trusts it for
    /// these alone. A name covers itself and everything below it.
    pub fn certified_subtrees(&self) -> Vec<&str> {
        match &self.domain {
            None => AZURE_SUBTREES.to_vec(),
            Some(domain) => vec![domain, LOCALHOST],
        }
    }
}

const AZURE_HOSTS: &[(&str, Role)] = &[
    ("login.microsoftonline.com", Role::Login),
    ("login.windows.net", Role::Login),
    ("login.microsoft.com", Role::Login),
    // A region's, which SDKs ask where AZURE_REGIONAL_AUTHORITY_NAME says so.
    ("*.login.microsoft.com", Role::Login),
    ("sts.windows.net", Role::Login),
    ("graph.microsoft.com", Role::Graph),
    ("management.azure.com", Role::Management),
    ("*.his.arc.azure.com", Role::Heartbeats),
    ("jwt.ms", Role::Pages),
];

/// Below the own domain.
const OWN_HOSTS: &[(&str, Role)] = &[
    ("login", Role::Login),
    ("graph", Role::Graph),
    ("management", Role::Management),
    ("*.his", Role::Heartbeats),
    ("*", Role::Unserved),
];

const AZURE_SUBTREES: &[&str] = &[
    "login.microsoftonline.com",
    "login.microsoft.com",
    "login.windows.net",
    "sts.windows.net",
    "graph.microsoft.com",
    "management.azure.com",
    "his.arc.azure.com",
    "vault.azure.net",
    "blob.core.windows.net",
    "postgres.database.azure.com",
    "jwt.ms",
    LOCALHOST,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_site_is_one_its_authority_certifies() {
        for names in [SiteNames::azure(), SiteNames::of_domain("Example.NET")] {
            let subtrees = names.certified_subtrees();
            for (pattern, _) in names.hosts() {
                let host = pattern.replace('*', "x");
                let covered = |subtree: &&str| {
                    host.strip_suffix(subtree).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                };
                assert!(subtrees.iter().any(covered), "{host}");
            }
        }
    }

    #[test]
    fn an_authority_certifies_no_more_than_the_names_of_its_site() {
        for names in [SiteNames::azure(), SiteNames::of_domain("Example.NET")] {
            for subtree in names.certified_subtrees().into_iter().filter(|name| *name != LOCALHOST) {
                let is_served = |(pattern, _): &(String, Role)| {
                    pattern == subtree || pattern.strip_prefix("*.") == Some(subtree)
                };
                assert!(names.hosts().iter().any(is_served), "{subtree}");
            }
        }
    }

    #[test]
    fn services_agree_on_their_names() {
        for names in [SiteNames::azure(), SiteNames::of_domain("example.net")] {
            let (arm, vaults, directory) = (names.arm(), names.keyvault(), names.directory());
            let endpoints = names.endpoints();
            assert_eq!(arm.login_origin, names.login_origin());
            assert_eq!(vaults.login_origin, names.login_origin());
            assert_eq!(endpoints.login, names.login_origin());
            assert_eq!(directory.login_host, names.login_host());
            assert_eq!(directory.blob_suffix, names.blob_suffix());
            assert_eq!(arm.graph_origin, format!("https://{}", directory.graph_host));
            assert_eq!(arm.keyvault_suffix, vaults.suffixes[0]);
            assert_eq!(arm.keyvault_suffix, names.vault_suffix());
            assert_eq!(format!("blob.{}", arm.storage_suffix), names.blob_suffix());
            assert_eq!(arm.postgres_suffix, names.postgres_suffix());
            let databases = names.postgres();
            assert_eq!(
                (&databases.suffix, &databases.audiences[0]),
                (&arm.postgres_suffix, &arm.database_audience)
            );
            assert_eq!(arm.audiences[0], endpoints.management_audience);
            assert_eq!(endpoints.his_audience, names.his_audience());
            for audience in
                [&arm.audiences[0], &vaults.resource, &arm.database_audience, &endpoints.his_audience]
            {
                let known = |known: &String| {
                    arcadia_kernel::trim_audience(known) == arcadia_kernel::trim_audience(audience)
                };
                assert!(directory.resources.iter().any(known), "{audience}");
            }
        }
    }
}
