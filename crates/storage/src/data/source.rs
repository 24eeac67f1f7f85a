//! Where a copy is from: a URL that names a blob of this site. Nothing else is ever read, and no other host is asked.

use arcadia_kernel::{Fault, Query, StatusCode};

use crate::{StorageNames, faults, paths};

pub(crate) const COPY_SOURCE: &str = "x-ms-copy-source";
/// The service's own bound.
const SOURCE_BYTES_MAX: usize = 2 * 1024;
const HTTPS_PORT: &str = "443";
/// Which state of a blob is meant, or whose right to read it: none of it is served.
const STATES: [&str; 4] = ["snapshot", "versionid", "sharesnapshot", "prevsnapshot"];

/// A blob of an account that the site may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// In lower case.
    pub account: String,
    pub container: String,
    pub blob: String,
    /// The URL without a query, as the copy shows it.
    pub shown: String,
}

impl Source {
    /// Reads the header's value.
    pub fn parse(names: &StorageNames, text: &str) -> Result<Self, Fault> {
        let refused = || faults::invalid_header(COPY_SOURCE, text);
        if text.len() > SOURCE_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused());
        }
        // What stands before a host, and after a path, is no part of a blob's URL.
        let (scheme, rest) = text.split_once("://").ok_or_else(refused)?;
        let (authority, path, query) = parts(rest);
        if authority.is_empty() || authority.contains('@') || rest.contains('#') {
            return Err(refused());
        }
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return Err(refused());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let host = host.to_ascii_lowercase();
        let account = names
            .account_name(&host)
            // As every account is named; nothing else may stand before what is taken for the site's own.
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            .ok_or_else(faults::copy_source_elsewhere)?
            .to_owned();
        if !is_https {
            return Err(faults::copy_source_without_tls());
        }
        if port.is_some_and(|port| port != HTTPS_PORT && Some(port) != names.blob_port()) {
            return Err(faults::copy_source_elsewhere());
        }
        check_query(query)?;
        let segments = paths::split(path).ok_or_else(refused)?;
        // A name that no container or blob can have is one that none has.
        let absent =
            || faults::copy_source_absent("ResourceNotFound", "The specified resource does not exist.");
        let Ok([container, blob]) = <[String; 2]>::try_from(segments) else { return Err(absent()) };
        paths::check_container(&container).and_then(|()| paths::check_blob(&blob)).map_err(|_| absent())?;
        let shown = format!("{}{path}", names.blob_origin(&account));
        Ok(Self { account, container, blob, shown })
    }
}

/// Authority, path with its first slash, and query.
fn parts(rest: &str) -> (&str, &str, &str) {
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    match before.find('/') {
        Some(at) => {
            let (authority, path) = before.split_at(at);
            (authority, path, query)
        }
        None => (before, "/", query),
    }
}

fn check_query(query: &str) -> Result<(), Fault> {
    let query = Query::parse(query);
    for (name, _) in query.iter() {
        if name.eq_ignore_ascii_case("sig") {
            return Err(faults::copy_source_signed());
        }
        if STATES.iter().any(|state| name.eq_ignore_ascii_case(state)) {
            let message = "The specified blob does not exist.";
            return Err(faults::copy_source(StatusCode::NOT_FOUND, "BlobNotFound", message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON_THE_SITE: &str = "https://acct1.blob.core.windows.net";

    fn parsed(text: &str) -> Result<Source, String> {
        Source::parse(&StorageNames::azure(), text)
            .map_err(|fault| format!("{} {}", fault.status.as_u16(), fault.code))
    }

    #[test]
    fn a_url_is_read_as_a_requests_path_is() {
        for (text, blob, path) in [
            ("https://acct1.blob.core.windows.net/cc1/b", "b", "/cc1/b"),
            ("HTTPS://Acct1.BLOB.core.windows.NET:443/cc1/b", "b", "/cc1/b"),
            ("https://acct1.blob.core.windows.net/cc1/a//b/?timeout=5", "a//b/", "/cc1/a//b/"),
            ("https://acct1.blob.core.windows.net/cc1/a%2Fb%2525", "a/b%25", "/cc1/a%2Fb%2525"),
            ("https://acct1.blob.core.windows.net/cc1/../k%C3%A4se", "../käse", "/cc1/../k%C3%A4se"),
        ] {
            let source = parsed(text).unwrap();
            assert_eq!(
                (&*source.account, &*source.container, &*source.blob),
                ("acct1", "cc1", blob),
                "{text}"
            );
            assert_eq!(source.shown, format!("{ON_THE_SITE}{path}"), "{text}");
        }
    }

    #[test]
    fn what_names_no_blob_of_a_site_is_refused() {
        let long = format!("{ON_THE_SITE}/cc1/{}", "a".repeat(2048));
        for (text, outcome) in [
            ("", "400 InvalidHeaderValue"),
            ("/acct1/cc1/b", "400 InvalidHeaderValue"),
            ("ftp://acct1.blob.core.windows.net/cc1/b", "400 InvalidHeaderValue"),
            ("https:///cc1/b", "400 InvalidHeaderValue"),
            ("https://a@acct1.blob.core.windows.net/cc1/b", "400 InvalidHeaderValue"),
            ("https://acct1.blob.core.windows.net/cc1/b#c", "400 InvalidHeaderValue"),
            ("https://acct1.blob.core.windows.net/cc1/a b", "400 InvalidHeaderValue"),
            ("https://acct1.blob.core.windows.net/cc1/%ff", "400 InvalidHeaderValue"),
            (&*long, "400 InvalidHeaderValue"),
            ("http://acct1.blob.core.windows.net/cc1/b", "400 CannotVerifyCopySource"),
            ("https://acct1.blob.core.windows.net:8443/cc1/b", "409 CannotVerifyCopySource"),
            ("https://example.net/cc1/b", "409 CannotVerifyCopySource"),
            ("https://127.0.0.1/cc1/b", "409 CannotVerifyCopySource"),
            ("https://[::1]/cc1/b", "409 CannotVerifyCopySource"),
            ("https://localhost:443/cc1/b", "409 CannotVerifyCopySource"),
            ("https://blob.core.windows.net/cc1/b", "409 CannotVerifyCopySource"),
            ("https://a.acct1.blob.core.windows.net/cc1/b", "409 CannotVerifyCopySource"),
            ("https://example.net:1:acct1.blob.core.windows.net:443/cc1/b", "409 CannotVerifyCopySource"),
            ("https://example-net\\acct1.blob.core.windows.net/cc1/b", "409 CannotVerifyCopySource"),
            ("https://acct1.blob.core.windows.net.example.net/cc1/b", "409 CannotVerifyCopySource"),
            ("https://example.net?.blob.core.windows.net/cc1/b", "409 CannotVerifyCopySource"),
            ("https://acct1.blob.core.windows.net/cc1/b?snapshot=x", "404 CannotVerifyCopySource"),
            ("https://acct1.blob.core.windows.net/cc1/b?VersionId=x", "404 CannotVerifyCopySource"),
            ("https://acct1.blob.core.windows.net/cc1/b?sv=1&sig=x", "403 CannotVerifyCopySource"),
            ("https://acct1.blob.core.windows.net/cc1/b?%73ig=x", "403 CannotVerifyCopySource"),
            ("https://acct1.blob.core.windows.net", "404 CannotVerifyCopySource"),
            ("https://acct1.blob.core.windows.net/cc1/", "404 CannotVerifyCopySource"),
            ("https://acct1.blob.core.windows.net/C/b", "404 CannotVerifyCopySource"),
            ("https://acct1.blob.core.windows.net/cc1/%00", "404 CannotVerifyCopySource"),
        ] {
            assert_eq!(parsed(text).unwrap_err(), outcome, "{text}");
        }
    }

    #[test]
    fn a_domain_of_ones_own_has_its_own_hosts_and_port() {
        let mut names = StorageNames::of_domain("example.net");
        names.blob_suffix.push_str(":8443");
        for port in ["", ":443", ":8443"] {
            let text = format!("https://acct1.blob.example.net{port}/cc1/b");
            assert_eq!(
                Source::parse(&names, &text).unwrap().shown,
                "https://acct1.blob.example.net:8443/cc1/b"
            );
        }
        for text in ["https://acct1.blob.core.windows.net/cc1/b", "https://acct1.blob.example.net:1/cc1/b"] {
            assert_eq!(Source::parse(&names, text).unwrap_err().code, "CannotVerifyCopySource");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_url_leads_off_the_site(text in "(https?://)?([a-z@:/.?#%\\[\\]0-9]|acct1|\\.blob\\.core\\.windows\\.net|/cc1/){0,12}") {
            if let Ok(source) = Source::parse(&StorageNames::azure(), &text) {
                proptest::prop_assert!(source.account.bytes().all(|byte| byte != b'.' && byte != b'/'));
                let again = Source::parse(&StorageNames::azure(), &source.shown).unwrap();
                proptest::prop_assert_eq!(again, source);
            }
        }
    }
}
