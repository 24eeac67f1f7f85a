//! The proxy by which the site itself reaches the Internet, where there is one.

use std::fmt;
use std::io;

use arcadia_client::{ClientFault, NoProxy, Proxy};
use tokio::net::TcpStream;

/// An HTTP proxy and the hosts that are reached without it.
#[derive(Clone)]
pub struct Upstream {
    proxy: Proxy,
    direct: NoProxy,
}

impl Upstream {
    /// Reads the values of `HTTPS_PROXY` and `NO_PROXY`.
    pub fn parse(proxy: &str, no_proxy: &str) -> Result<Self, ClientFault> {
        Ok(Self { proxy: Proxy::parse(proxy)?, direct: NoProxy::parse(no_proxy) })
    }

    /// Whether this is a proxy at `port` of this machine's loopback: the site itself, if that is its port.
    pub fn is_loopback_port(&self, port: u16) -> bool {
        self.proxy.is_loopback() && self.proxy.port() == port
    }

    /// Whether `host` is reached without this proxy.
    pub fn bypasses(&self, host: &str) -> bool {
        self.direct.covers(host)
    }

    /// A tunnel through the proxy.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        self.proxy.tunnel(host, port).await.map_err(io::Error::other)
    }
}

/// Shows no credentials.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.proxy.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_site_itself_is_recognized() {
        for (address, itself) in [
            ("http://127.0.0.1:8440", true),
            ("http://LocalHost:8440", true),
            ("http://[::1]:8440", true),
            ("http://127.0.0.1:3128", false),
            ("http://10.0.0.1:8440", false),
        ] {
            let upstream = Upstream::parse(address, "").unwrap();
            assert_eq!(upstream.is_loopback_port(8440), itself, "{address}");
            assert_eq!(upstream.to_string(), address.to_lowercase());
        }
    }
}
