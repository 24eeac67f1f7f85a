//! Where a cloud's services answer.

use serde::{Deserialize, Serialize};

/// The public client that `az` and `azcmagent` sign people in as.
pub const AZ_CLIENT_ID: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

/// Origins (`https://host[:port]`, no trailing slash) of the services of one cloud; Azure's own by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    pub login: String,
    pub management: String,
    /// The audience that tokens for `management` are asked for, with its own slash as `az` sends it.
    pub management_audience: String,
    pub graph: String,
    /// The hybrid identity service that machines report to.
    pub his: String,
    /// The audience of machines' tokens for `his`.
    pub his_audience: String,
    /// `.vault.azure.net`.
    pub key_vault_suffix: String,
    /// Where people look at resources in a browser.
    pub portal: String,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            login: "https://login.microsoftonline.com".to_owned(),
            management: "https://management.azure.com".to_owned(),
            management_audience: "https://management.core.windows.net/".to_owned(),
            graph: "https://graph.microsoft.com".to_owned(),
            his: "https://gbl.his.arc.azure.com".to_owned(),
            his_audience: "https://his.arc.azure.com".to_owned(),
            key_vault_suffix: ".vault.azure.net".to_owned(),
            portal: "https://portal.azure.com".to_owned(),
        }
    }
}

impl Endpoints {
    /// The services of a site under a domain of its own: `login.DOMAIN`, `management.DOMAIN`, ...
    pub fn of_domain(domain: &str) -> Self {
        Self {
            login: format!("https://login.{domain}"),
            management: format!("https://management.{domain}"),
            management_audience: format!("https://management.{domain}/"),
            graph: format!("https://graph.{domain}"),
            his: format!("https://gbl.his.{domain}"),
            his_audience: format!("https://his.{domain}"),
            key_vault_suffix: format!(".vault.{domain}"),
            portal: format!("https://portal.{domain}"),
        }
    }

    /// The v2 scope for `management`: `https://management.core.windows.net//.default`.
    pub fn management_scope(&self) -> String {
        format!("{}/.default", self.management_audience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_keeps_the_slash_of_the_audience() {
        assert_eq!(Endpoints::default().management_scope(), "https://management.core.windows.net//.default");
    }

    #[test]
    fn an_own_domain_has_nothing_of_azures() {
        let all = serde_json::to_string(&Endpoints::of_domain("example.net")).unwrap();
        assert!(!all.contains("azure.") && !all.contains("microsoft") && !all.contains("windows"), "{all}");
        assert_eq!(
            Endpoints::of_domain("example.net").management_scope(),
            "https://management.example.net//.default"
        );
    }

    #[test]
    fn missing_fields_are_azures_own() {
        let endpoints: Endpoints = serde_json::from_str(r#"{"login":"https://login.example.net"}"#).unwrap();
        assert_eq!(endpoints.login, "https://login.example.net");
        assert_eq!(endpoints.management, "https://management.azure.com");
    }
}
