//! Where vaults are reached, and what their challenge names.

use arcadia_kernel::RequestHead;

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
            audiences: vec![
                "https://vault.azure.net".to_owned(),
                // The application id of Key Vault, which v2 tokens name.
                "cfa8b339-82a2-471a-a3c9-0fc0be7a4093".to_owned(),
            ],
        }
    }

    /// `https://{name}.vault.azure.net`, without a slash at the end.
    pub(crate) fn vault_origin(&self, name: &str) -> String {
        let suffix = self.suffixes.first().map_or("", String::as_str);
        format!("https://{}.{suffix}", name.to_ascii_lowercase())
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
