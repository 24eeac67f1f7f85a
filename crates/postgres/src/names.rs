//! Where servers are reached, and what a directory token for them is for.

/// Host names and audiences of database servers.
#[derive(Clone, Debug)]
pub struct PostgresNames {
    /// What follows a server's name in its host name, without a leading dot: `postgres.database.azure.com`.
    pub suffix: String,
    /// What a token may name as its audience, without a trailing slash.
    pub audiences: Vec<String>,
}

impl PostgresNames {
    /// Azure's own names.
    pub fn azure() -> Self {
        Self {
            suffix: "postgres.database.azure.com".to_owned(),
            audiences: vec!["https://ossrdbms-aad.database.windows.net".to_owned()],
        }
    }

    /// The names of a site under a domain of its own: `*.postgres.DOMAIN`. Its cloud's metadata names
    /// `https://ossrdbms.DOMAIN`; libraries that have Azure's name built in ask for a token under that.
    pub fn of_domain(domain: &str) -> Self {
        let azure = Self::azure();
        let audiences =
            std::iter::once(format!("https://ossrdbms.{domain}")).chain(azure.audiences).collect();
        Self { suffix: format!("postgres.{domain}"), audiences }
    }

    pub(crate) fn host(&self, name: &str) -> String {
        format!("{}.{}", name.to_ascii_lowercase(), self.suffix)
    }

    /// The name that every server's certificate is for.
    pub fn wildcard(&self) -> String {
        format!("*.{}", self.suffix)
    }

    /// Whether a host is where servers' names are, be it one's or not.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        host.strip_suffix(&self.suffix).is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }

    /// The server that a host names, lower case.
    pub(crate) fn server_of(&self, host: &str) -> Option<String> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let name = host.strip_suffix(&self.suffix)?.strip_suffix('.')?;
        (!name.is_empty() && !name.contains('.')).then(|| name.to_owned())
    }
}

/// Server names: 3 to 63 lower-case letters, digits and hyphens, no hyphen at either end.
pub(crate) fn is_server_name(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The longest name of a role. A server cuts what a client sends to this, and so takes a longer one for another role's.
pub(crate) const ROLE_BYTES_MAX: usize = 63;

/// Names of roles that clients may not have: the site's own, and those that PostgreSQL or Azure keep.
pub(crate) fn is_reserved_role(name: &str) -> bool {
    const RESERVED: [&str; 9] = [
        "azure_superuser",
        "azuresu",
        "azure_pg_admin",
        "admin",
        "administrator",
        "root",
        "guest",
        "public",
        "none",
    ];
    let folded = name.to_ascii_lowercase();
    folded.starts_with("pg_") || RESERVED.contains(&folded.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_names_one_server() {
        let names = PostgresNames::azure();
        assert_eq!(names.server_of("Pg-1.postgres.DATABASE.azure.com."), Some("pg-1".to_owned()));
        for host in
            ["postgres.database.azure.com", ".postgres.database.azure.com", "a.b.postgres.database.azure.com"]
        {
            assert!(names.server_of(host).is_none() && names.covers(host), "{host}");
        }
        for host in ["localhost", "", ".", "com", "notpostgres.database.azure.com"] {
            assert!(names.server_of(host).is_none() && !names.covers(host), "{host}");
        }
        assert_eq!(names.host("Pg-1"), "pg-1.postgres.database.azure.com");
    }

    #[test]
    fn names_of_servers_and_roles() {
        for good in ["abc", "postgres-926f133b", "0-0"] {
            assert!(is_server_name(good), "{good}");
        }
        for bad in ["ab", "Abc", "-abc", "abc-", "a.b", "a_b", &"a".repeat(64)] {
            assert!(!is_server_name(bad), "{bad}");
        }
        assert!(
            is_reserved_role("AzureSu") && is_reserved_role("pg_monitor") && !is_reserved_role("arcadmin")
        );
    }
}
