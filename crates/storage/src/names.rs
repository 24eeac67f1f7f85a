//! Where accounts are reached, and what their challenge names.

/// What tokens for storage name as their audience, whichever account they are for. Clients have it built in, so that
/// it is taken in every cloud.
const RESOURCE: &str = "https://storage.azure.com";

/// Host names and origins of the data plane. An own domain hands in its own; see [`StorageNames::azure`].
#[derive(Clone, Debug)]
pub struct StorageNames {
    /// What follows an account's name in its host name, without a leading dot: `blob.core.windows.net`.
    pub blob_suffix: String,
    /// `https://login.microsoftonline.com`; the tenant's id is added.
    pub login_origin: String,
    /// What a token may name as its audience, besides an account's own origin. The first is what a challenge names.
    pub audiences: Vec<String>,
}

impl StorageNames {
    /// Azure's own names.
    pub fn azure() -> Self {
        Self {
            blob_suffix: "blob.core.windows.net".to_owned(),
            login_origin: "https://login.microsoftonline.com".to_owned(),
            audiences: vec![RESOURCE.to_owned()],
        }
    }

    /// The names of a site under a domain of its own: `*.blob.DOMAIN`, `login.DOMAIN`.
    pub fn of_domain(domain: &str) -> Self {
        Self {
            blob_suffix: format!("blob.{domain}"),
            login_origin: format!("https://login.{domain}"),
            audiences: vec![format!("https://storage.{domain}"), RESOURCE.to_owned()],
        }
    }

    /// What a challenge names.
    pub(crate) fn resource(&self) -> &str {
        self.audiences.first().map_or(RESOURCE, String::as_str)
    }

    /// `https://{name}.blob.core.windows.net`, without a slash at the end.
    pub(crate) fn blob_origin(&self, name: &str) -> String {
        format!("https://{name}.{}", self.blob_suffix)
    }

    /// The port that follows the hosts, where it is not the usual one.
    pub(crate) fn blob_port(&self) -> Option<&str> {
        self.blob_suffix.split_once(':').map(|(_, port)| port)
    }

    /// The account that a host names, lower case: exactly one label below the suffix.
    pub(crate) fn account_name<'a>(&self, host: &'a str) -> Option<&'a str> {
        let suffix = self.blob_suffix.split(':').next().unwrap_or(&self.blob_suffix);
        let name = host.strip_suffix(suffix)?.strip_suffix('.')?;
        (!name.is_empty() && !name.contains('.')).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_names_an_account_by_one_label() {
        let names = StorageNames::azure();
        assert_eq!(names.account_name("a1.blob.core.windows.net"), Some("a1"));
        for host in [
            "blob.core.windows.net",
            ".blob.core.windows.net",
            "a.b.blob.core.windows.net",
            "a1blob.core.windows.net",
        ] {
            assert_eq!(names.account_name(host), None, "{host}");
        }
    }
}
