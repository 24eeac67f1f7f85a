//! Which names are answered here, which are refused, and which are nobody's business but the client's.

#[cfg(test)]
mod fuzz;

use std::collections::HashMap;
use std::sync::Arc;

use arcadia_kernel::Endpoint;

/// Names and the services behind them. A pattern is a name, or `*.` and a name for exactly one label below it.
#[derive(Default)]
pub struct HostTable {
    /// The domain of the site's own names, folded, and what answers where nothing else does, there and below.
    domain: Option<(String, Arc<dyn Endpoint>)>,
    exact: HashMap<String, Arc<dyn Endpoint>>,
    one_label_below: HashMap<String, Arc<dyn Endpoint>>,
}

/// Names that are never passed on: services that Arcadia stands for but does not serve, whose clients carry
/// credentials meant for this site, and what clients send home. Each with the reason a client is told.
const WITHHELD: &[(&str, &str)] = &[
    ("azcliprod.blob.core.windows.net", "it is where az looks for updates, which a site does not need"),
    ("dc.services.visualstudio.com", "it collects telemetry, which does not leave a site"),
    ("dc.applicationinsights.azure.com", "it collects telemetry, which does not leave a site"),
    ("dc.applicationinsights.microsoft.com", "it collects telemetry, which does not leave a site"),
    ("*.in.applicationinsights.azure.com", "it collects telemetry, which does not leave a site"),
    ("*.blob.core.windows.net", NOT_SERVED),
    ("*.queue.core.windows.net", NOT_SERVED),
    ("*.table.core.windows.net", NOT_SERVED),
    ("*.file.core.windows.net", NOT_SERVED),
    ("*.dfs.core.windows.net", NOT_SERVED),
    ("*.web.core.windows.net", NOT_SERVED),
    ("management.core.windows.net", NOT_SERVED),
    ("*.database.windows.net", NOT_SERVED),
    ("*.database.azure.com", NOT_SERVED),
    ("*.vault.azure.net", NOT_SERVED),
    ("*.vaultcore.azure.net", NOT_SERVED),
    ("*.managedhsm.azure.net", NOT_SERVED),
    ("*.management.azure.com", NOT_SERVED),
    ("management.azure.com", NOT_SERVED),
    ("portal.azure.com", NOT_SERVED),
    ("*.his.arc.azure.com", NOT_SERVED),
    ("*.guestconfiguration.azure.com", NOT_SERVED),
    ("graph.microsoft.com", NOT_SERVED),
    ("graph.windows.net", NOT_SERVED),
    ("*.microsoftonline.com", NOT_SERVED),
    ("login.microsoft.com", NOT_SERVED),
    ("*.login.microsoft.com", NOT_SERVED),
    ("login.windows.net", NOT_SERVED),
    ("sts.windows.net", NOT_SERVED),
];

const NOT_SERVED: &str =
    "it belongs to a service that this site does not serve, and is not passed on to the public cloud";

/// The patterns of names that are never passed on, each with whether the site stands for the service. `*.` and a name is for
/// all that is below it.
pub fn withheld() -> impl Iterator<Item = (&'static str, bool)> {
    WITHHELD.iter().map(|(pattern, why)| (*pattern, *why == NOT_SERVED))
}

/// Where a name leads.
pub enum Route {
    Here,
    Withheld(String),
    Outside,
}

/// The one form in which names are compared: lower case, without the final dot of a fully qualified name. Of more than one,
/// which no name has, none is left: a folded name folds to itself.
pub fn fold_host(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether `host` is the folded name `name`.
pub fn is_same_host(host: &str, name: &str) -> bool {
    host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(name)
}

impl HostTable {
    /// Serves `domain` and all names below it that no pattern has, at any depth, by `endpoint`: none of them is ever
    /// passed on.
    pub fn serve_rest(&mut self, domain: &str, endpoint: Arc<dyn Endpoint>) {
        self.domain = Some((fold_host(domain), endpoint));
    }

    /// Serves `pattern` by `endpoint`.
    pub fn serve(&mut self, pattern: &str, endpoint: Arc<dyn Endpoint>) {
        match pattern.strip_prefix("*.") {
            Some(parent) => self.one_label_below.insert(fold_host(parent), endpoint),
            None => self.exact.insert(fold_host(pattern), endpoint),
        };
    }

    /// The service that answers for `host`. A name that is withheld is never served, even where a pattern fits.
    pub fn find(&self, host: &str) -> Option<&Arc<dyn Endpoint>> {
        let host = fold_host(host);
        if let Some(endpoint) = self.exact.get(&host) {
            return Some(endpoint);
        }
        if WITHHELD.iter().any(|(name, _)| *name == host) {
            return None;
        }
        let below = host.split_once('.').filter(|(label, _)| !label.is_empty());
        below.and_then(|(_, parent)| self.one_label_below.get(parent)).or_else(|| self.rest(&host))
    }

    fn rest(&self, host: &str) -> Option<&Arc<dyn Endpoint>> {
        let (domain, endpoint) = self.domain.as_ref()?;
        let before = host.strip_suffix(domain.as_str())?;
        (before.is_empty() || before.ends_with('.')).then_some(endpoint)
    }

    pub fn route(&self, host: &str) -> Route {
        if self.find(host).is_some() {
            return Route::Here;
        }
        let host = fold_host(host);
        let covers = |pattern: &str| match pattern.strip_prefix('*') {
            Some(parent) => host.ends_with(parent),
            None => host == pattern,
        };
        match (WITHHELD.iter().find(|(pattern, _)| covers(pattern)), &self.domain) {
            (None, _) => Route::Outside,
            (Some((_, NOT_SERVED)), Some((domain, _))) => Route::Withheld(format!(
                "this site's own names end in {domain}, and what is meant for it is not passed on to the public cloud; \
                 select the site's cloud (`az cloud set`) and switch instance discovery off (`arcadia env` does for az)"
            )),
            (Some((_, reason)), _) => Route::Withheld((*reason).to_owned()),
        }
    }

    /// Every pattern and the name of its service, in order of the names.
    pub fn patterns(&self) -> Vec<(String, &'static str)> {
        let exact = self.exact.iter().map(|(name, endpoint)| (name.clone(), endpoint.service_name()));
        let below = self.one_label_below.iter();
        let below = below.map(|(parent, endpoint)| (format!("*.{parent}"), endpoint.service_name()));
        let rest = self.domain.iter();
        let rest = rest.map(|(domain, endpoint)| (format!("*.{domain}"), endpoint.service_name()));
        let mut all: Vec<_> = exact.chain(below).chain(rest).collect();
        all.sort();
        all
    }
}
