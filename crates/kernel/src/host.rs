//! Names of hosts and domains, as people and clients write them.

use std::net::Ipv6Addr;

/// Longest name of a host, in characters (RFC 1035).
const HOST_CHARACTERS_MAX: usize = 253;
/// Leaves room for the longest name below a site's domain, a database server's.
const SITE_DOMAIN_CHARACTERS_MAX: usize = 180;

/// Two or more labels of letters, digits and inner hyphens.
pub fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= HOST_CHARACTERS_MAX && text.contains('.') && text.split('.').all(label)
}

/// A domain that a site can have its own names below: at most 180 characters, and no IPv4 address.
pub fn is_site_domain(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    is_domain(text)
        && text.len() <= SITE_DOMAIN_CHARACTERS_MAX
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Splits `name:port`, `1.2.3.4:port` or `[::1]:port`; an address comes without its brackets.
pub fn parse_authority(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some((address.to_string(), port));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    // Resolvers differ on names with empty labels, and an upstream proxy's may take one for the name without.
    let labels = host.strip_suffix('.').unwrap_or(host).split('.').all(|label| !label.is_empty());
    let fits = labels && host.len() <= HOST_CHARACTERS_MAX && host.bytes().all(allowed);
    fits.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_those_of_sites() {
        let long = |count: usize| format!("{}.test", vec!["a"; count].join("."));
        for (text, domain, site) in [
            ("site.test", true, true),
            ("A-b.C.example", true, true),
            ("1.example", true, true),
            ("10.0.0.1", true, false),
            ("10.1", true, false),
            (&*long(88), true, true),
            (&*long(89), true, false),
            (&*long(130), false, false),
            ("example", false, false),
            ("a..b", false, false),
            ("a.b.", false, false),
            ("-a.net", false, false),
            ("a_b.net", false, false),
            ("x.net/", false, false),
            ("", false, false),
        ] {
            assert_eq!((is_domain(text), is_site_domain(text)), (domain, site), "{text:.20}");
        }
        assert_eq!(long(88).len(), SITE_DOMAIN_CHARACTERS_MAX);
    }

    #[test]
    fn hosts_and_ports() {
        let read = |text: &str| parse_authority(text).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(read("Proxy.corp:3128").unwrap(), "Proxy.corp 3128");
        assert_eq!(read("[0:0::1]:443").unwrap(), "::1 443");
        for text in
            ["", "a", ":1", "a:", "a:0", "a:65536", "a:+1", "::1:443", "[a]:1", "[::1:1", "a b:1", "a..b:1"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
