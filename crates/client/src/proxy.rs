//! Which way to go: straight, or by CONNECT through an HTTP proxy.

use http::Uri;

use crate::ClientFault;
use crate::origin::is_loopback;

/// An HTTP proxy that is asked to CONNECT, for example `http://127.0.0.1:3128`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The value of `Proxy-Authorization`, when the address named a user.
    pub(crate) authorization: Option<String>,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port][/]` or `host:port`. Port 80 when none is given, as curl.
    pub fn parse(address: &str) -> Result<Self, ClientFault> {
        let wrong = || {
            ClientFault::Options(
                "the proxy's address is not usable; write it as http://127.0.0.1:PORT".to_owned(),
            )
        };
        let text = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("http") || authority.host().is_empty() {
            return Err(wrong());
        }
        let authorization = authority.as_str().rsplit_once('@').map(|(user, _)| {
            let user = percent_encoding::percent_decode_str(user).collect::<Vec<u8>>();
            format!("Basic {}", arcadia_crypto::b64(&user))
        });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: authority.port_u16().unwrap_or(80), authorization })
    }
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}")
        } else {
            write!(f, "http://{host}:{port}")
        }
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Hosts that are reached without the proxy, as `NO_PROXY` lists them: names match themselves and what is below
/// them, a leading dot is ignored, `*` is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<String>);

/// More entries than anyone writes by hand.
const ENTRIES_MAX: usize = 256;

impl NoProxy {
    pub fn parse(list: &str) -> Self {
        let entry = |text: &str| text.trim().trim_start_matches('.').to_ascii_lowercase();
        Self(list.split(',').map(entry).filter(|entry| !entry.is_empty()).take(ENTRIES_MAX).collect())
    }

    pub(crate) fn covers(&self, host: &str) -> bool {
        self.0.iter().any(|entry| {
            entry == "*"
                || entry == host
                || host.strip_suffix(entry.as_str()).is_some_and(|rest| rest.ends_with('.'))
                || (entry == "localhost" && is_loopback(host))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies() {
        let proxy = Proxy::parse("http://127.0.0.1:8118/").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("127.0.0.1", 8118));
        assert_eq!(
            Proxy::parse("proxy.example.net:3128").unwrap().to_string(),
            "http://proxy.example.net:3128"
        );
        let with_user = Proxy::parse("http://nina:p%40ss@[::1]:1").unwrap();
        assert_eq!(with_user.authorization.as_deref(), Some("Basic bmluYTpwQHNz"));
        assert_eq!(format!("{with_user:?}"), "Proxy(http://[::1]:1)");
        for text in ["", "socks5://h:1", "https://h:1", "http://", "http://a b"] {
            assert!(Proxy::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn exceptions() {
        let list = NoProxy::parse(" localhost,127.0.0.1, .example.net ,,");
        for host in ["localhost", "127.0.0.1", "::1", "example.net", "a.b.example.net"] {
            assert!(list.covers(host), "{host}");
        }
        for host in ["badexample.net", "example.net.evil.org", "10.0.0.1"] {
            assert!(!list.covers(host), "{host}");
        }
        assert!(NoProxy::parse("*").covers("anything"));
        assert!(!NoProxy::default().covers("localhost"));
    }
}
