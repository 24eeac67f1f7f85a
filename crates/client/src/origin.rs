//! The part of an address that a connection belongs to.

use http::Uri;

use crate::ClientFault;

const URL_BYTES_MAX: usize = 8 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) secure: bool,
    /// Lower case, without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// An address taken apart: where to connect and what to ask for there.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) origin: Origin,
    /// Path and query, starting with `/`.
    pub(crate) path: String,
}

impl Target {
    /// Reads `https://...`, or `http://...` to this machine's own loopback: a token never travels in the clear.
    pub(crate) fn parse(url: &str) -> Result<Self, ClientFault> {
        let wrong = || ClientFault::Url(shown(url));
        if url.len() > URL_BYTES_MAX {
            return Err(wrong());
        }
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() || authority.as_str().contains('@') || (!secure && !is_loopback(&host)) {
            return Err(wrong());
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { origin: Origin { secure, host, port }, path })
    }
}

/// The address without its query, which may hold something private.
fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or("").chars().filter(|c| !c.is_control()).take(200).collect()
}

pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// `host:port`, as CONNECT wants it.
pub(crate) fn authority(host: &str, port: u16) -> String {
    format!("{}:{port}", bracketed(host))
}

impl Origin {
    pub(crate) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// The `Host` header: without the port when it is the scheme's own.
    pub(crate) fn host_header(&self) -> String {
        let usual = if self.secure { 443 } else { 80 };
        if self.port == usual { bracketed(&self.host) } else { self.authority() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts() {
        let target = Target::parse("https://Vault.Example.NET/secrets/a//b?x=%20").unwrap();
        assert_eq!(target.origin.host, "vault.example.net");
        assert_eq!((target.origin.port, target.path.as_str()), (443, "/secrets/a//b?x=%20"));
        assert_eq!(target.origin.host_header(), "vault.example.net");
        assert_eq!(Target::parse("https://[::1]:8443?a").unwrap().origin.authority(), "[::1]:8443");
        assert_eq!(Target::parse("http://localhost:40342/agentstatus").unwrap().origin.port, 40342);
    }

    #[test]
    fn refused() {
        for url in [
            "http://management.azure.com/",
            "http://127.0.0.1.example.net/",
            "https://user:password@host/",
            "ftp://host/",
            "//host/",
            "/path",
            "https://",
            "",
            &format!("https://host/{}", "x".repeat(9000)),
        ] {
            assert!(Target::parse(url).is_err(), "{url:.60}");
        }
    }

    #[test]
    fn a_fault_does_not_show_the_query() {
        let fault = Target::parse("http://elsewhere/?code=hush").unwrap_err().to_string();
        assert!(!fault.contains("hush"), "{fault}");
    }

    proptest! {
        #[test]
        fn never_panics_and_never_leaves_in_the_clear(url in ".{0,80}") {
            if let Ok(target) = Target::parse(&url) {
                prop_assert!(target.origin.secure || is_loopback(&target.origin.host));
                prop_assert!(target.path.starts_with('/'));
            }
        }
    }
}
