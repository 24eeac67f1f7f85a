//! Fuzz target for the names by which services are asked for.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use arcadia_kernel::{Body, Endpoint, Incoming, OpInfo, full_body};

use super::{HostTable, Route, fold_host};
use crate::names::SiteNames;

/// What answers nothing; only its name matters.
struct Named(&'static str);

impl Endpoint for Named {
    fn service_name(&self) -> &'static str {
        self.0
    }

    fn catalogue(&self) -> Vec<OpInfo> {
        Vec::new()
    }

    fn serve(self: Arc<Self>, _: Incoming) -> Pin<Box<dyn Future<Output = http::Response<Body>> + Send>> {
        Box::pin(async { http::Response::new(full_body(Vec::new())) })
    }
}

arcadia_fuzz::target!(host_names, |data: &[u8]| names_lead_where_they_are_certified(data));

fn tables() -> &'static [(SiteNames, HostTable); 2] {
    static TABLES: OnceLock<[(SiteNames, HostTable); 2]> = OnceLock::new();
    TABLES.get_or_init(|| {
        [SiteNames::azure(), SiteNames::of_domain("Arcadia.Example")].map(|names| {
            let mut table = HostTable::default();
            for (pattern, _) in names.hosts() {
                match (pattern.strip_prefix("*."), names.domain()) {
                    (Some(rest), Some(domain)) if rest == domain => {
                        table.serve_rest(domain, Arc::new(Named("rest")))
                    }
                    _ => table.serve(&pattern, Arc::new(Named("one"))),
                }
            }
            (names, table)
        })
    })
}

/// A name that is answered here is one that the authority certifies, in every spelling; a name of Azure's that is not
/// answered is not passed on.
fn names_lead_where_they_are_certified(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for (names, table) in tables() {
        let shown = |host: &str| match table.route(host) {
            Route::Here => "here",
            Route::Withheld(_) => "withheld",
            Route::Outside => "outside",
        };
        let route = shown(&text);
        assert_eq!(table.find(&text).is_some(), route == "here");
        let folded = fold_host(&text);
        assert_eq!((route, route), (shown(&folded), shown(&text.to_ascii_uppercase())));
        let below = |parent: &str| {
            folded.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if route == "here" {
            assert!(
                names.certified_subtrees().into_iter().any(below),
                "{folded:?} is answered and not certified"
            );
            assert!(names.hosts().iter().any(|(pattern, _)| match pattern.strip_prefix("*.") {
                Some(parent) => below(parent),
                None => folded == *pattern,
            }));
        }
        let kept = [
            "vault.azure.net",
            "blob.core.windows.net",
            "database.azure.com",
            "management.azure.com",
            "his.arc.azure.com",
            "login.microsoft.com",
        ];
        if kept.into_iter().any(|parent| below(parent) && folded != parent) {
            assert_ne!(route, "outside", "{folded:?} would be passed on");
        }
        if names.domain().is_some_and(below) {
            assert_eq!(route, "here", "{folded:?}");
        }
    }
}
