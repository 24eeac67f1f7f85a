//! Which way to go: straight, or by CONNECT through an HTTP proxy.

use arcadia_kernel::parse_authority;

use crate::ClientFault;
use crate::origin::{authority, is_loopback};

/// As curl takes it where none is given.
const DEFAULT_PORT: u16 = 80;
/// How much of an address that cannot be used is shown.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// An HTTP proxy that is asked to CONNECT, for example `http://127.0.0.1:3128`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`, when the address named a user.
    pub(crate) authorization: Option<String>,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port][/]`; `http://` may be absent. Port 80 when none is given, as curl.
    pub fn parse(address: &str) -> Result<Self, ClientFault> {
        // A password may hold anything: what is before the last @ is the user's, and never shown.
        let shown = || -> String {
            let host = address.rsplit('@').next().unwrap_or_default();
            host.chars().filter(|c| !c.is_control()).take(SHOWN_CHARACTERS_MAX).collect()
        };
        let wrong = || {
            ClientFault::Options(format!(
                "`{}` is not the address of an HTTP proxy; write it as http://host:port",
                shown()
            ))
        };
        let rest = match address.split_once("://") {
            None => address,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(ClientFault::Options(format!(
                    "a proxy that is itself reached by TLS (`{}`) is not supported; use its http:// address",
                    shown()
                )));
            }
            // The user's, when it is not the scheme.
            Some((before, _)) if before.contains([':', '@']) => address,
            Some(_) => return Err(wrong()),
        };
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let place = place.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = parse_authority(place)
            .or_else(|| parse_authority(&format!("{place}:{DEFAULT_PORT}")))
            .ok_or_else(wrong)?;
        let authorization = user.map(|user| {
            let user = percent_encoding::percent_decode_str(user).collect::<Vec<u8>>();
            format!("Basic {}", arcadia_crypto::b64(&user))
        });
        Ok(Self { host: host.to_ascii_lowercase(), port, authorization })
    }

    /// Its name or address; an IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether its address names a user.
    pub fn has_credentials(&self) -> bool {
        self.authorization.is_some()
    }

    /// Whether it is on this machine's loopback.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Shows no credentials.
impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}", authority(&self.host, self.port))
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Hosts that are reached without the proxy, as `NO_PROXY` lists them: parted by commas or blanks, names match
/// themselves and what is below them, `.` or `*.` before a name is ignored, `*` is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<String>);

/// More entries than anyone writes by hand.
pub(crate) const ENTRIES_MAX: usize = 256;

impl NoProxy {
    pub fn parse(list: &str) -> Self {
        let entries = Self::entries(list).map(Self::covered);
        Self(entries.filter(|entry| !entry.is_empty()).take(ENTRIES_MAX).collect())
    }

    /// The entries of a list as they are written.
    pub fn entries(list: &str) -> impl Iterator<Item = &str> {
        list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty())
    }

    /// What an entry covers, with all below it: a name in lower case, or `*`.
    pub fn covered(entry: &str) -> String {
        folded(entry.trim_start_matches("*.").trim_start_matches('.'))
    }

    /// Whether `host`, a name or an address without brackets, is reached without the proxy.
    pub fn covers(&self, host: &str) -> bool {
        let host = folded(host);
        self.0.iter().any(|entry| {
            entry == "*"
                || host
                    .strip_suffix(entry.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                || (entry == "localhost" && is_loopback(&host))
        })
    }
}

/// Lower case, without the final dot of a fully qualified name.
fn folded(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for (text, shown) in [
            ("http://proxy.corp:3128", "http://proxy.corp:3128"),
            ("http://127.0.0.1:8118/", "http://127.0.0.1:8118"),
            ("Proxy.example.net:3128", "http://proxy.example.net:3128"),
            ("HTTP://10.0.0.1", "http://10.0.0.1:80"),
            ("[::1]", "http://[::1]:80"),
            ("http://[::1]:3128", "http://[::1]:3128"),
            ("http://nina:p%40ss@[::1]:1", "http://[::1]:1"),
            ("nina:a://b/c@p:1", "http://p:1"),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            assert_eq!((proxy.to_string(), format!("{proxy:?}")), (shown.into(), format!("Proxy({shown})")));
        }
        let with_user = Proxy::parse("http://nina:p%40ss@[::1]:1").unwrap();
        assert_eq!(with_user.authorization.as_deref(), Some("Basic bmluYTpwQHNz"));
        assert!(with_user.is_loopback() && (with_user.host(), with_user.port()) == ("::1", 1));
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_credentials() {
        for text in [
            "",
            "socks5://u:hush@h:1",
            "https://u:hush@h:1",
            "http://",
            "a b",
            "u:hush@h:99999",
            "u:hu/sh@h:",
        ] {
            let told = Proxy::parse(text).unwrap_err().to_string();
            assert!(told.contains("http://") && !told.contains("hu"), "{text}: {told}");
        }
        assert!(Proxy::parse("https://p:1").unwrap_err().to_string().contains("TLS (`https://p:1`)"));
    }

    #[test]
    fn hosts_that_need_no_proxy() {
        let list = " localhost,127.0.0.1, .example.net ,,*.corp.example lab.example\t10.0.0.1 Upper.Example.";
        let list = NoProxy::parse(list);
        for host in [
            "localhost",
            "127.0.0.1",
            "::1",
            "example.net",
            "a.b.example.net",
            "corp.example",
            "a.Corp.example",
            "x.lab.example.",
            "10.0.0.1",
            "upper.example",
        ] {
            assert!(list.covers(host), "{host}");
        }
        for host in ["badexample.net", "example.net.evil.org", "notcorp.example", "example", "10.0.0.11"] {
            assert!(!list.covers(host), "{host}");
        }
        assert!(NoProxy::parse("*").covers("anything"));
        assert!(!NoProxy::default().covers("localhost"));
    }
}
