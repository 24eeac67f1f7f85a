//! What a shell needs to use a site.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::Context as _;
use arcadia_client::NoProxy;

use crate::extensions::INDEX_PATH;
use crate::host::{variable, variable_os};
use crate::names::SiteNames;
use crate::net::{FIRST_DATABASE_ADDRESS, withheld};
use crate::roots;
use crate::site::{Credentials, DataDir, Running, SiteRecord, State};

/// Never through a proxy: the agent's metadata service listens on the loopback of the machine that asks.
const DIRECT: &[&str] = &["localhost", "127.0.0.1"];

/// What is asked of [`variables`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The first credentials as well.
    pub admin: bool,
    /// Around the proxy: the site's names resolve by themselves.
    pub direct: bool,
}

/// The variables, in the order they are printed.
pub fn variables(data: &DataDir, wanted: Wanted) -> anyhow::Result<Vec<(String, String)>> {
    let record = SiteRecord::expect(data)?;
    let names = record.names();
    let trusted = ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"];
    let bundle = text(roots::bundle(data, "roots", &sources(&trusted, true))?)?;
    let node = text(roots::bundle(data, "node", &sources(&["NODE_EXTRA_CA_CERTS"], false))?)?;

    let known = variable("NO_PROXY").or_else(|| variable("no_proxy"));
    let mut all = if wanted.direct {
        // A proxy that the shell uses stays, for everything else.
        let direct = around_proxy(&names, known);
        vec![("NO_PROXY", direct.clone()), ("no_proxy", direct)]
    } else {
        proxy_variables(data, &record, no_proxy(&names, known))?
    };
    all.extend(trusted.map(|name| (name, bundle.clone())));
    all.push(("NODE_EXTRA_CA_CERTS", node));
    all.push(("PGHOSTADDR", database_address(data)?.to_string()));
    all.push(("PGSSLROOTCERT", bundle));
    all.push(("AZURE_CORE_COLLECT_TELEMETRY", "no".to_owned()));
    all.push(("AZURE_EXTENSION_INDEX_URL", format!("{}{INDEX_PATH}", names.endpoints().management)));
    match names.domain() {
        Some(domain) => all.extend(own_cloud_variables(domain)),
        None if variable(DOMAIN).is_some() => all.extend(public_cloud_variables()),
        None => {}
    }
    all.push(("ARCADIA_DATA", text(data.path().to_owned())?));
    if wanted.admin {
        all.extend(admin_variables(&Credentials::expect(data)?));
    }
    Ok(all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

const AUTHORITY: &str = "AZURE_AUTHORITY_HOST";
const DISCOVERY: &str = "AZURE_CORE_INSTANCE_DISCOVERY";
const DOMAIN: &str = "ARCADIA_DOMAIN";

/// The names of [`own_cloud_variables`].
pub const OWN_CLOUD: [&str; 3] = [AUTHORITY, DISCOVERY, DOMAIN];

/// What clients need besides the names of an own cloud: SDKs its login, az the word that nobody else is to be asked
/// whether that login may be trusted, and the agent the domain.
pub fn own_cloud_variables(domain: &str) -> [(&'static str, String); 3] {
    let login = SiteNames::of_domain(domain).login_origin();
    [(AUTHORITY, login), (DISCOVERY, "false".to_owned()), (DOMAIN, domain.to_owned())]
}

/// The same for a site of Azure's names, in a shell that has those of another site: they are said back.
fn public_cloud_variables() -> [(&'static str, String); 3] {
    let login = SiteNames::azure().login_origin();
    [(AUTHORITY, login), (DISCOVERY, "true".to_owned()), (DOMAIN, String::new())]
}

fn proxy_variables(
    data: &DataDir,
    record: &SiteRecord,
    direct: String,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let port = match Running::state(data)? {
        State::Running(running) => running.proxy.port(),
        _ => record.port.with_context(|| {
            format!("the site has never been started to its end; run `arcadia up{}`", data.option())
        })?,
    };
    let proxy = format!("http://127.0.0.1:{port}");
    Ok(vec![
        ("HTTPS_PROXY", proxy.clone()),
        ("https_proxy", proxy),
        ("NO_PROXY", direct.clone()),
        ("no_proxy", direct),
        ("NODE_USE_ENV_PROXY", "1".to_owned()),
    ])
}

/// Where the site's databases are reached, whatever their names resolve to.
fn database_address(data: &DataDir) -> anyhow::Result<IpAddr> {
    let bound = match Running::state(data)? {
        State::Running(running) => running.postgres.map(|address| address.ip()),
        _ => None,
    };
    Ok(match bound {
        Some(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(address) => address,
        None => IpAddr::V4(FIRST_DATABASE_ADDRESS),
    })
}

fn admin_variables(first: &Credentials) -> Vec<(&'static str, String)> {
    let (tenant, subscription) = (first.tenant_id.to_string(), first.subscription_id.to_string());
    let (client, secret) = (first.client_id.to_string(), first.client_secret.to_string());
    vec![
        ("AZURE_TENANT_ID", tenant.clone()),
        ("AZURE_CLIENT_ID", client.clone()),
        ("AZURE_CLIENT_SECRET", secret.clone()),
        ("AZURE_SUBSCRIPTION_ID", subscription.clone()),
        ("ARM_TENANT_ID", tenant),
        ("ARM_CLIENT_ID", client),
        ("ARM_CLIENT_SECRET", secret),
        ("ARM_SUBSCRIPTION_ID", subscription),
        ("ARCADIA_USER", first.user.clone()),
        ("ARCADIA_PASSWORD", first.password.to_string()),
    ]
}

/// The files that these variables name; the system's roots where they name none.
fn sources(names: &[&str], or_system: bool) -> Vec<PathBuf> {
    let named: Vec<PathBuf> = names.iter().filter_map(|name| variable_os(name)).map(PathBuf::from).collect();
    if named.is_empty() && or_system { roots::system_bundle().into_iter().collect() } else { named }
}

/// The shell's own list stays: the site's proxy does not connect to private hosts.
fn no_proxy(names: &SiteNames, existing: Option<String>) -> String {
    let mut entries: Vec<String> = DIRECT.iter().map(|entry| (*entry).to_owned()).collect();
    for entry in NoProxy::entries(&existing.unwrap_or_default()) {
        if !leads_around(names, entry) && !entries.iter().any(|known| known == entry) {
            entries.push(entry.to_owned());
        }
    }
    entries.join(",")
}

/// The shell's own list and the site's names. A leading dot is what every client takes for "and below".
fn around_proxy(names: &SiteNames, existing: Option<String>) -> String {
    let ours = names.hosts().into_iter().map(|(pattern, _)| pattern.trim_start_matches('*').to_owned());
    let existing = existing.unwrap_or_default();
    let theirs = NoProxy::entries(&existing).map(str::to_owned);
    let mut entries: Vec<String> = DIRECT.iter().map(|entry| (*entry).to_owned()).collect();
    for entry in ours.chain(theirs) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    entries.join(",")
}

/// Whether an entry of NO_PROXY covers names that the site answers for, or withholds in place of the public cloud:
/// `*`, `.windows.net`, `vault.azure.net`. Under a domain of its own, a shell may have its reasons to go to the cloud.
/// What is only sent home, such as telemetry, does not cost an entry that covers much else (`.visualstudio.com`).
fn leads_around(names: &SiteNames, entry: &str) -> bool {
    // Some clients take a run of stars and dots for one.
    let entry = NoProxy::covered(entry.trim_start_matches(['*', '.']));
    let within = |inner: &str, outer: &str| {
        inner.strip_suffix(outer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let meets = |pattern: &str| {
        let ours = pattern.strip_prefix("*.").unwrap_or(pattern);
        within(ours, &entry) || within(&entry, ours)
    };
    let is_azure = names.domain().is_none();
    entry.is_empty()
        || names.hosts().iter().any(|(pattern, _)| meets(pattern))
        || is_azure
            && withheld().any(|(pattern, is_stood_for)| match is_stood_for {
                true => meets(pattern),
                false => within(&entry, pattern.strip_prefix("*.").unwrap_or(pattern)),
            })
}

fn text(path: PathBuf) -> anyhow::Result<String> {
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("{} is not text; use another data directory", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_direct_hosts_is_kept() {
        let azure = SiteNames::azure();
        let no_proxy = |existing| super::no_proxy(&azure, existing);
        assert_eq!(no_proxy(None), "localhost,127.0.0.1");
        assert_eq!(no_proxy(Some("localhost,127.0.0.1".into())), "localhost,127.0.0.1");
        assert_eq!(no_proxy(Some("*, .corp.example 127.0.0.1,".into())), "localhost,127.0.0.1,.corp.example");
        let around = "windows.net,.azure.com,*.vault.azure.net,kv1.vault.azure.net,net";
        assert_eq!(no_proxy(Some(format!("{around},10.0.0.0/8"))), "localhost,127.0.0.1,10.0.0.0/8");
        let withheld = "graph.windows.net,.queue.core.windows.net,portal.azure.com,*.database.windows.net";
        assert_eq!(no_proxy(Some(format!("{withheld},example.com"))), "localhost,127.0.0.1,example.com");
        // In every spelling that some client takes for one of these.
        let spelled = "azure.com.\tmicrosoftonline.com.\n*.*.azure.com,.*.vault.azure.net";
        assert_eq!(no_proxy(Some(spelled.to_owned())), "localhost,127.0.0.1");
        let home = "dc.services.visualstudio.com,.visualstudio.com";
        assert_eq!(no_proxy(Some(home.to_owned())), "localhost,127.0.0.1,.visualstudio.com");
        let own = super::no_proxy(
            &SiteNames::of_domain("site.test"),
            Some("v.vault.site.test,.test,azure.net".into()),
        );
        assert_eq!(own, "localhost,127.0.0.1,azure.net");
        let around =
            around_proxy(&SiteNames::of_domain("site.test"), Some("localhost, .corp.example".into()));
        assert!(around.starts_with("localhost,127.0.0.1,login.site.test,"), "{around}");
        assert!(around.contains(",.site.test,") && around.ends_with(",.corp.example"), "{around}");
    }
}
