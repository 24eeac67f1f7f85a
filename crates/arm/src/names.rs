//! The names that this site is known by, and the documents that tell them.

use serde_json::{Value, json};

use crate::locations::{Location, azure_locations};

/// Origins are `https://host[:port]` without a trailing slash; suffixes are domain names.
#[derive(Clone, Debug)]
pub struct ArmNames {
    /// `AzureCloud`, or the name of an own cloud.
    pub cloud_name: String,
    /// `https://management.azure.com`.
    pub management_origin: String,
    /// `https://login.microsoftonline.com`.
    pub login_origin: String,
    /// `https://graph.microsoft.com`.
    pub graph_origin: String,
    pub portal_origin: String,
    /// Audiences that a token for the resource manager may name; the first is what `az` asks tokens for.
    pub audiences: Vec<String>,
    /// `vault.azure.net`.
    pub keyvault_suffix: String,
    /// `core.windows.net`.
    pub storage_suffix: String,
    /// `postgres.database.azure.com`.
    pub postgres_suffix: String,
    /// The audience of directory tokens for databases.
    pub database_audience: String,
    /// Where resources can be; PUT refuses others.
    pub locations: Vec<Location>,
}

impl ArmNames {
    /// The names of the public cloud, for a site that is reached by its proxy.
    pub fn azure() -> Self {
        Self {
            cloud_name: "AzureCloud".into(),
            management_origin: "https://management.azure.com".into(),
            login_origin: "https://login.microsoftonline.com".into(),
            graph_origin: "https://graph.microsoft.com".into(),
            portal_origin: "https://portal.azure.com".into(),
            audiences: vec![
                "https://management.core.windows.net/".into(),
                "https://management.azure.com/".into(),
            ],
            keyvault_suffix: "vault.azure.net".into(),
            storage_suffix: "core.windows.net".into(),
            postgres_suffix: "postgres.database.azure.com".into(),
            database_audience: "https://ossrdbms-aad.database.windows.net".into(),
            locations: azure_locations(),
        }
    }

    /// The names of a cloud under a domain of its own: `management.DOMAIN`, `login.DOMAIN`, `*.vault.DOMAIN`, …
    pub fn of_domain(cloud_name: &str, domain: &str) -> Self {
        Self {
            cloud_name: cloud_name.to_owned(),
            management_origin: format!("https://management.{domain}"),
            login_origin: format!("https://login.{domain}"),
            graph_origin: format!("https://graph.{domain}"),
            portal_origin: format!("https://portal.{domain}"),
            audiences: vec![
                format!("https://management.{domain}/"),
                "https://management.core.windows.net/".into(),
                "https://management.azure.com/".into(),
            ],
            keyvault_suffix: format!("vault.{domain}"),
            storage_suffix: format!("storage.{domain}"),
            postgres_suffix: format!("postgres.{domain}"),
            database_audience: format!("https://database.{domain}"),
            locations: azure_locations(),
        }
    }

    /// `/metadata/endpoints`, in the shape of the version that was asked for: one object from 2022-09-01 on, a
    /// list of clouds before, and the four endpoints of 2015-01-01.
    pub(crate) fn metadata(&self, api_version: &str) -> Value {
        if api_version < "2018-01-01" {
            return json!({
                "galleryEndpoint": format!("{}/", self.portal_origin),
                "graphEndpoint": format!("{}/", self.graph_origin),
                "portalEndpoint": format!("{}/", self.portal_origin),
                "authentication": {
                    "loginEndpoint": format!("{}/", self.login_origin),
                    "audiences": self.audiences,
                },
            });
        }
        let cloud = self.cloud();
        if api_version < "2022-09-01" { json!([cloud]) } else { cloud }
    }

    /// Only what this site serves: a client that asks for another service is told by its own means that this
    /// cloud has none.
    fn cloud(&self) -> Value {
        json!({
            "name": self.cloud_name,
            "portal": self.portal_origin,
            "authentication": {
                "loginEndpoint": self.login_origin,
                "audiences": self.audiences,
                "tenant": "common",
                "identityProvider": "AAD",
            },
            "resourceManager": format!("{}/", self.management_origin),
            "sqlManagement": format!("{}/", self.management_origin),
            "gallery": format!("{}/", self.portal_origin),
            "graph": format!("{}/", self.graph_origin),
            "graphAudience": format!("{}/", self.graph_origin),
            "microsoftGraphResourceId": format!("{}/", self.graph_origin),
            "ossrDbmsResourceId": self.database_audience,
            "suffixes": {
                "keyVaultDns": self.keyvault_suffix,
                "storage": self.storage_suffix,
                "postgresqlServerEndpoint": self.postgres_suffix,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_shapes() {
        let names = ArmNames::of_domain("Arcadia", "example.net");
        assert!(names.metadata("2015-01-01")["authentication"]["loginEndpoint"].is_string());
        assert_eq!(names.metadata("2019-05-01")[0]["name"], "Arcadia");
        let latest = names.metadata("2022-09-01");
        assert_eq!(latest["resourceManager"], "https://management.example.net/");
        assert_eq!(latest["suffixes"]["keyVaultDns"], "vault.example.net");
        assert_eq!(names.metadata("2024-01-01"), latest);
    }
}
