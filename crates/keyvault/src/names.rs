//! Where vaults are reached, and what their challenge names.

use arcadia_kernel::RequestHead;

/// The application id of Key Vault in every tenant, which v2 tokens name as their audience.
const KEYVAULT_APPLICATION: &str = "cfa8b339-82a2-471a-a3c9-0fc0be7a4093";

/// Host names and origins of the data plane. An own domain hands in its own; see [`KeyVaultNames::azure`].
#[derive(Clone, Debug)]
pub struct KeyVaultNames {
    /// What follows a vault's name in its host name, without a leading dot: `vault.azure.net`. The first one
    /// makes `vaultUri` and identifiers, and may have a port; the others are only answered.
    pub suffixes: Vec<String>,
    /// `https://login.microsoftonline.com`; the tenant's id is added.
    pub login_origin: String,
    /// What a client asks a token for: `https://vault.azure.net`. Its host must be a parent of every vault's
    /// host, as clients check that.
    pub resource: String,
    /// What a token may name as its audience. The first is told to a client whose token names another.
    pub audiences: Vec<String>,
}

impl KeyVaultNames {
    /// Azure's own names.
    pub fn azure() -> Self {
        Self {
            suffixes: vec!["vault.azure.net".to_owned()],
            login_origin: "https://login.microsoftonline.com".to_owned(),
            resource: "https://vault.azure.net".to_owned(),
            audiences: vec!["https://vault.azure.net".to_owned(), KEYVAULT_APPLICATION.to_owned()],
        }
    }

    /// The names of a site under a domain of its own: `*.vault.DOMAIN`, `login.DOMAIN`.
    pub fn of_domain(domain: &str) -> Self {
        let resource = format!("https://vault.{domain}");
        Self {
            suffixes: vec![format!("vault.{domain}")],
            login_origin: format!("https://login.{domain}"),
            audiences: vec![resource.clone(), KEYVAULT_APPLICATION.to_owned()],
            resource,
        }
    }

    /// `https://{name}.vault.azure.net`, without a slash at the end.
    pub(crate) fn vault_origin(&self, name: &str) -> String {
        let suffix = self.suffixes.first().map_or("", String::as_str);
        ["https://", &name.to_ascii_lowercase(), ".", suffix].concat()
    }

    /// The vault that a host names, lower case.
    pub(crate) fn vault_name<'a>(&self, head: &'a RequestHead) -> Option<&'a str> {
        self.suffixes.iter().find_map(|suffix| {
            let suffix = suffix.split(':').next().unwrap_or(suffix);
            let name = head.host.strip_suffix(suffix)?.strip_suffix('.')?;
            (!name.is_empty() && !name.contains('.')).then_some(name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_domain_has_its_own_names() {
        let names = KeyVaultNames::of_domain("example.net");
        assert_eq!(names.vault_origin("Vault-1"), "https://vault-1.vault.example.net");
        // Clients check that the challenge's host is a parent of the vault's.
        assert!(
            names
                .vault_origin("v")
                .ends_with(names.resource.trim_start_matches("https:/").trim_start_matches('/'))
        );
        assert_eq!(names.audiences[0], names.resource);
        let azure = KeyVaultNames::azure();
        assert_eq!(azure.vault_origin("v"), "https://v.vault.azure.net");
    }
}
