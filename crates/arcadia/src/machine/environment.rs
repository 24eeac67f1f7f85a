//! What a machine's processes find in their environment.

use crate::net::FIRST_DATABASE_ADDRESS;

use super::{HIMDS_PORT, PROXY_PORT};
use crate::environment::{OWN_CLOUD, own_cloud_variables};

/// The folder with `azcmagent`, `himds` and the program they are links to.
pub const BIN: &str = "/opt/azcmagent/bin";

/// The roots that clients on the machine trust: a copy of the site's file that every user can read.
pub const CA_BUNDLE: &str = "/opt/azcmagent/share/ca-bundle.pem";

/// Of the caller's shell: proxies, none of which can be reached from the machine, which has no network.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// How variables begin by which clients are told who they are and what they connect to, credentials above all: clients
/// prefer these to the machine's own identity.
const TOLD: [&str; 7] = ["AZURE_", "AZCOPY_", "ARM_", "MSI_", "IDENTITY_", "PG", "ARCADIA_"];

/// Of [`TOLD`], what says neither who the caller is nor what only the caller reaches. What ends in `_` is for all that
/// begins so.
const HARMLESS: [&str; 27] = [
    "ARCADIA_DATA",
    "ARM_ENVIRONMENT",
    "ARM_SUBSCRIPTION_ID",
    "ARM_TENANT_ID",
    "AZCOPY_CONCURRENCY_VALUE",
    "AZCOPY_JOB_PLAN_LOCATION",
    "AZCOPY_LOG_LOCATION",
    "AZURE_CONFIG_DIR",
    "AZURE_CORE_",
    "AZURE_DEFAULTS_",
    "AZURE_EXTENSION_",
    "AZURE_HTTP_USER_AGENT",
    "AZURE_LOGGING_",
    "AZURE_LOG_LEVEL",
    "AZURE_REGIONAL_AUTHORITY_NAME",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_AUTH_MODE",
    "AZURE_SUBSCRIPTION_ID",
    "AZURE_TENANT_ID",
    "PGAPPNAME",
    "PGCLIENTENCODING",
    "PGCONNECT_TIMEOUT",
    "PGDATESTYLE",
    "PGSSLMODE",
    "PGTZ",
    "PG_COLOR",
    "PG_COLORS",
];

/// Whether a variable of the caller's shell is one on the machine too. Those of another site's cloud are not.
pub fn is_passed_on(name: &str) -> bool {
    let fits = |known: &&str| if known.ends_with('_') { name.starts_with(known) } else { name == *known };
    let is_told = TOLD.iter().any(|start| name.starts_with(start)) && !HARMLESS.iter().any(fits);
    !is_told && !PROXIES.contains(&name) && !OWN_CLOUD.contains(&name)
}

/// Names and values that are added to the caller's. `domain` is the one of a site with names of its own.
pub fn variables(domain: Option<&str>) -> Vec<(&'static str, String)> {
    let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
    let himds = format!("http://localhost:{HIMDS_PORT}");
    let direct = "localhost,127.0.0.1".to_owned();
    let mut all = vec![
        ("HTTPS_PROXY", proxy.clone()),
        ("https_proxy", proxy),
        ("NO_PROXY", direct.clone()),
        ("no_proxy", direct),
        ("NODE_USE_ENV_PROXY", "1".to_owned()),
        ("AZURE_CORE_COLLECT_TELEMETRY", "no".to_owned()),
        ("IDENTITY_ENDPOINT", format!("{himds}/metadata/identity/oauth2/token")),
        ("IMDS_ENDPOINT", himds),
    ];
    all.push(("PGHOSTADDR", FIRST_DATABASE_ADDRESS.to_string()));
    for name in
        ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "PGSSLROOTCERT"]
    {
        all.push((name, CA_BUNDLE.to_owned()));
    }
    all.extend(domain.into_iter().flat_map(own_cloud_variables));
    all
}

/// The caller's search path with the agent's folder in front, and before it, where needed, the folder with the
/// stand-in for `sudo`.
pub fn path(callers: &str, with_fallback: bool) -> String {
    let callers = if callers.is_empty() {
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    } else {
        callers
    };
    if with_fallback {
        format!("{}:{BIN}:{callers}", super::sudo::FALLBACK_BIN)
    } else {
        format!("{BIN}:{callers}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_the_caller_is_stays_with_the_caller() {
        for name in [
            "AZURE_CLIENT_SECRET",
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_CONNECTION_STRING",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_ACCESS_TOKEN",
            "AZURE_TOKEN_CREDENTIALS",
            "AZURE_POD_IDENTITY_AUTHORITY_HOST",
            "AZCOPY_SPA_CLIENT_SECRET",
            "ARM_ACCESS_KEY",
            "ARM_CLIENT_CERTIFICATE_PASSWORD",
            "ARM_OIDC_TOKEN",
            "ARM_SAS_TOKEN",
            "MSI_ENDPOINT",
            "MSI_SECRET",
            "IDENTITY_HEADER",
            "IDENTITY_SERVER_THUMBPRINT",
            "PGHOST",
            "PGUSER",
            "PGPASSWORD",
            "PGPASSFILE",
            "PGSERVICEFILE",
            "PGSSLKEY",
            "ARCADIA_PASSPHRASE_FILE",
            "ARCADIA_PASSWORD",
            "ALL_PROXY",
            "AZURE_AUTHORITY_HOST",
            "AZURE_CORE_INSTANCE_DISCOVERY",
        ] {
            assert!(!is_passed_on(name), "{name}");
        }
        for name in [
            "HOME",
            "LANG",
            "SSH_AUTH_SOCK",
            "ARCADIA_DATA",
            "AZURE_CONFIG_DIR",
            "AZURE_CORE_OUTPUT",
            "AZURE_STORAGE_ACCOUNT",
            "AZURE_TENANT_ID",
            "PGSSLMODE",
            "PG_COLOR",
        ] {
            assert!(is_passed_on(name), "{name}");
        }
    }
}
