//! What a machine's processes find in their environment.

use crate::net::FIRST_DATABASE_ADDRESS;

use super::{HIMDS_PORT, PROXY_PORT};
use crate::environment::own_cloud_variables;

/// The folder with `azcmagent`, `himds` and the program they are links to.
pub const BIN: &str = "/opt/azcmagent/bin";

/// The roots that clients on the machine trust: a copy of the site's file that every user can read.
pub const CA_BUNDLE: &str = "/opt/azcmagent/share/ca-bundle.pem";

/// Of the caller's shell: proxies, none of which can be reached from the machine, which has no network; and whom the
/// caller is, which clients prefer to the machine's own identity.
pub const REMOVED: [&str; 15] = [
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_USERNAME",
    "AZURE_PASSWORD",
    "ARM_CLIENT_ID",
    "ARM_CLIENT_SECRET",
    "ARCADIA_USER",
    "ARCADIA_PASSWORD",
];

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
