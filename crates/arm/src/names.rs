//! The names that this site is known by, and the documents that tell them.

use serde_json::{Map, Value, json};

use crate::locations::{Location, azure_locations};

/// Origins are `https://host[:port]` without a trailing slash; suffixes are domain names.
#[derive(Clone, Debug)]
pub struct ArmNames {
    /// The domain of a site that has names of its own; `None` for the public cloud's.
    pub domain: Option<String>,
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
            domain: None,
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
    /// Tokens for the public cloud's resource manager are not for this one.
    pub fn of_domain(cloud_name: &str, domain: &str) -> Self {
        Self {
            domain: Some(domain.to_owned()),
            cloud_name: cloud_name.to_owned(),
            management_origin: format!("https://management.{domain}"),
            login_origin: format!("https://login.{domain}"),
            graph_origin: format!("https://graph.{domain}"),
            portal_origin: format!("https://portal.{domain}"),
            audiences: vec![format!("https://management.{domain}/")],
            keyvault_suffix: format!("vault.{domain}"),
            storage_suffix: domain.to_owned(),
            postgres_suffix: format!("postgres.{domain}"),
            database_audience: format!("https://ossrdbms.{domain}"),
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

    /// Every field that clients read. They fail before they send anything when one is missing, without saying that
    /// it is the service which is missing; so the services that this site does not have are named as well. Under
    /// an own domain these names are the site's, which refuses them in words.
    fn cloud(&self) -> Value {
        let mut suffixes = self.unserved(UNSERVED_SUFFIXES);
        suffixes.insert("keyVaultDns".into(), self.keyvault_suffix.clone().into());
        suffixes.insert("storage".into(), self.storage_suffix.clone().into());
        suffixes.insert("postgresqlServerEndpoint".into(), self.postgres_suffix.clone().into());
        let mut cloud = self.unserved(UNSERVED_ENDPOINTS);
        let own = json!({
            "name": self.cloud_name,
            "portal": self.portal_origin,
            "authentication": {
                "loginEndpoint": self.login_origin,
                "audiences": self.audiences,
                "tenant": "common",
                "identityProvider": "AAD",
            },
            "resourceManager": format!("{}/", self.management_origin),
            "graph": format!("{}/", self.graph_origin),
            "graphAudience": format!("{}/", self.graph_origin),
            "microsoftGraphResourceId": format!("{}/", self.graph_origin),
            // Azure writes the first, az reads the second.
            "ossrDbmsResourceId": self.database_audience,
            "ossrdbmsResourceId": self.database_audience,
            "suffixes": suffixes,
        });
        if let Value::Object(own) = own {
            cloud.extend(own);
        }
        Value::Object(cloud)
    }

    fn unserved(&self, table: &[Unserved]) -> Map<String, Value> {
        let row = |(field, azure, own): &Unserved| {
            let value = match &self.domain {
                Some(domain) => own.replace("{domain}", domain),
                None => (*azure).to_owned(),
            };
            ((*field).to_owned(), value.into())
        };
        table.iter().map(row).collect()
    }
}

/// A field of the metadata, its value in the public cloud, and its value under an own domain.
type Unserved = (&'static str, &'static str, &'static str);

const UNSERVED_ENDPOINTS: &[Unserved] = &[
    ("activeDirectoryDataLake", "https://datalake.azure.net/", "https://datalake.{domain}/"),
    ("appInsightsResourceId", "https://api.applicationinsights.io", "https://appinsights.{domain}"),
    (
        "appInsightsTelemetryChannelResourceId",
        "https://dc.applicationinsights.azure.com/v2/track",
        "https://telemetry.{domain}/v2/track",
    ),
    ("appServiceResourceId", "https://appservice.azure.com", "https://appservice.{domain}"),
    ("attestationResourceId", "https://attest.azure.net", "https://attest.{domain}"),
    ("batch", "https://batch.core.windows.net/", "https://batch.{domain}/"),
    ("gallery", "https://gallery.azure.com/", "https://gallery.{domain}/"),
    ("logAnalyticsResourceId", "https://api.loganalytics.io", "https://loganalytics.{domain}"),
    ("media", "https://rest.media.azure.net", "https://media.{domain}"),
    ("sqlManagement", "https://management.core.windows.net:8443/", "https://sql.{domain}/"),
    ("synapseAnalyticsResourceId", "https://dev.azuresynapse.net", "https://synapse.{domain}"),
    (
        "vmImageAliasDoc",
        "https://raw.githubusercontent.com/Azure/azure-rest-api-specs/main/arm-compute/quickstart-templates/aliases.json",
        "https://images.{domain}/aliases.json",
    ),
];

const UNSERVED_SUFFIXES: &[Unserved] = &[
    ("acrLoginServer", "azurecr.io", "registry.{domain}"),
    ("attestationEndpoint", "attest.azure.net", "attest.{domain}"),
    ("azureDataLakeAnalyticsCatalogAndJob", "azuredatalakeanalytics.net", "datalakeanalytics.{domain}"),
    ("azureDataLakeStoreFileSystem", "azuredatalakestore.net", "datalakestore.{domain}"),
    ("azureFrontDoorEndpointSuffix", "azurefd.net", "frontdoor.{domain}"),
    ("mariadbServerEndpoint", "mariadb.database.azure.com", "mariadb.{domain}"),
    ("mhsmDns", "managedhsm.azure.net", "managedhsm.{domain}"),
    ("mysqlServerEndpoint", "mysql.database.azure.com", "mysql.{domain}"),
    ("sqlServerHostname", "database.windows.net", "database.{domain}"),
    ("storageSyncEndpointSuffix", "afs.azure.net", "storagesync.{domain}"),
    ("synapseAnalytics", "dev.azuresynapse.net", "synapse.{domain}"),
];

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
        assert_eq!(latest["suffixes"]["storage"], "example.net");
        assert_eq!(names.metadata("2024-01-01"), latest);
    }

    #[test]
    fn an_own_cloud_names_nothing_outside_its_domain() {
        fn outside<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::String(text) if text.contains('.') && !text.contains("example.net") => {
                    found.push(text)
                }
                Value::Array(items) => items.iter().for_each(|item| outside(item, found)),
                Value::Object(fields) => fields.values().for_each(|item| outside(item, found)),
                _ => {}
            }
        }
        for version in ["2015-01-01", "2019-05-01", "2022-09-01"] {
            let metadata = ArmNames::of_domain("Arcadia", "example.net").metadata(version);
            let mut found = Vec::new();
            outside(&metadata, &mut found);
            assert!(found.is_empty(), "{version}: {found:?}");
        }
        let azure = ArmNames::azure().metadata("2022-09-01");
        assert_eq!(azure["suffixes"]["mhsmDns"], "managedhsm.azure.net");
        assert!(!azure.to_string().contains("{domain}"));
    }
}
