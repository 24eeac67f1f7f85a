//! Where load may go: to a port of this machine's 127.0.0.1, and nowhere else.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// `http://127.0.0.1:PORT` or `https://127.0.0.1:PORT`, written exactly so. No other address can be expressed, so
/// whatever a configuration or a pattern turns into, load does not leave the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackTarget {
    tls: bool,
    port: NonZeroU16,
}

impl LoopbackTarget {
    pub fn new(tls: bool, port: u16) -> Result<Self> {
        Ok(Self { tls, port: NonZeroU16::new(port).context("a target has a port")? })
    }

    pub fn is_tls(self) -> bool {
        self.tls
    }

    pub fn address(self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.get()))
    }
}

impl FromStr for LoopbackTarget {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (tls, port) = if let Some(port) = text.strip_prefix("https://127.0.0.1:") {
            (true, port)
        } else if let Some(port) = text.strip_prefix("http://127.0.0.1:") {
            (false, port)
        } else {
            bail!("load goes to http(s)://127.0.0.1:PORT only, not to {text:?}");
        };
        let plain = (1..=5).contains(&port.len())
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && !port.starts_with('0');
        if !plain {
            bail!("load goes to http(s)://127.0.0.1:PORT only; {port:?} is not a port");
        }
        Self::new(tls, port.parse().with_context(|| format!("{port} is not a port"))?)
    }
}

impl fmt::Display for LoopbackTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://127.0.0.1:{}", if self.tls { "https" } else { "http" }, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_the_loopback_is_taken() {
        for (text, tls, port) in [("http://127.0.0.1:1", false, 1), ("https://127.0.0.1:65535", true, 65535)]
        {
            let target: LoopbackTarget = text.parse().unwrap();
            assert_eq!(target.is_tls(), tls);
            assert_eq!(target.address().to_string(), format!("127.0.0.1:{port}"));
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "127.0.0.1:80",
            "http://localhost:80",
            "http://127.0.0.1",
            "http://127.0.0.1:",
            "http://127.0.0.1:0",
            "http://127.0.0.1:080",
            "http://127.0.0.1:65536",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:80/",
            "http://127.0.0.1:80/path",
            "http://127.0.0.1:80@example.com",
            "http://127.0.0.1:+80",
            "http://127.0.0.1: 80",
            "http://127.0.0.1:٣",
            "HTTP://127.0.0.1:80",
            "http://0.0.0.127:80",
            "http://127.0.0.2:80",
            "http://127.1:80",
            "http://2130706433:80",
            "http://[::1]:80",
            "http://0.0.0.0:80",
            "http://user@127.0.0.1:80",
            "http://127.0.0.1.example.com:80",
            "ftp://127.0.0.1:80",
            "http://169.254.169.254:80",
            " http://127.0.0.1:80",
            "http://127.0.0.1:80\n",
        ] {
            assert!(text.parse::<LoopbackTarget>().is_err(), "{text:?}");
        }
        assert!(LoopbackTarget::new(true, 0).is_err());
    }
}
