//! A vault's network rules: who may reach its data plane at all.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arcadia_kernel::Fault;

use super::Vault;
use super::properties::{NetworkAction, PublicAccess};
use crate::faults;

/// The longest number of bits that a block is written with.
const PREFIX_DIGITS_MAX: usize = 3;
/// Bits before the address in an IPv4 address that is written as an IPv6 one.
const MAPPED_PREFIX: u32 = 96;

/// An address or a block of addresses, as an `ipRules` entry writes it: `203.0.113.7`, `203.0.113.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    bits: u128,
    prefix: u32,
    is_v4: bool,
}

impl Block {
    /// Of a vault as it is stored, which may be from before blocks were written anew.
    fn stored(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let digits = prefix.trim_start_matches('0');
        let prefix = if digits.is_empty() && !prefix.is_empty() { "0" } else { digits };
        let slash = if prefix.is_empty() { "" } else { "/" };
        Self::parse(&format!("{}{slash}{prefix}", address.trim()))
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((_, prefix)) if prefix.len() > PREFIX_DIGITS_MAX => return None,
            Some((_, prefix)) if !prefix.bytes().all(|byte| byte.is_ascii_digit()) => return None,
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().ok()?;
        // An IPv4 address in IPv6's form is that IPv4 address, as it is when a request comes from it.
        let address = written.to_canonical();
        let (bits, width) = bits(address);
        let prefix = match prefix {
            Some(prefix) if address != written => prefix.checked_sub(MAPPED_PREFIX)?,
            Some(prefix) => prefix,
            None => width,
        };
        (prefix <= width).then_some(Self { bits, prefix, is_v4: width == 32 })
    }

    pub fn holds(&self, address: IpAddr) -> bool {
        let (bits, width) = bits(address.to_canonical());
        let shift = width - self.prefix.min(width);
        // A shift by the whole width is not defined for integers; a prefix of 0 holds every address.
        self.is_v4 == (width == 32) && (shift == 128 || bits >> shift == self.bits >> shift)
    }
}

/// As the service shows it: the first address of the block and how many bits all of them share, `203.0.113.0/24`.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = if self.is_v4 { 32 } else { 128 };
        let shift = width - self.prefix.min(width);
        let first = if shift == 128 { 0 } else { self.bits >> shift << shift };
        match u32::try_from(first) {
            Ok(first) if self.is_v4 => write!(f, "{}/{}", Ipv4Addr::from(first), self.prefix),
            _ => write!(f, "{}/{}", Ipv6Addr::from(first), self.prefix),
        }
    }
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

/// Lets a request through that the vault's network rules allow. There are no virtual networks and no trusted
/// services here, so those exceptions allow nothing.
pub(crate) fn admit(vault: &Vault, remote: Option<IpAddr>) -> Result<(), Fault> {
    if vault.properties.public_network_access == PublicAccess::Disabled {
        return Err(faults::forbidden_by_connection(vault));
    }
    let Some(rules) = &vault.properties.network_acls else {
        return Ok(());
    };
    if rules.default_action == NetworkAction::Allow {
        return Ok(());
    }
    let named = |address: IpAddr| {
        rules.ip_rules.iter().any(|rule| Block::stored(&rule.value).is_some_and(|block| block.holds(address)))
    };
    match remote {
        Some(address) if named(address) => Ok(()),
        other => {
            let shown = other.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
            Err(faults::forbidden_by_firewall(vault, &shown))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(block: &str, address: &str) -> bool {
        Block::parse(block).unwrap().holds(address.parse().unwrap())
    }

    #[test]
    fn blocks_hold_what_they_name() {
        assert!(holds("203.0.113.7", "203.0.113.7"));
        assert!(!holds("203.0.113.7", "203.0.113.8"));
        assert!(holds("203.0.113.0/24", "203.0.113.255"));
        assert!(!holds("203.0.113.0/24", "203.0.114.0"));
        assert!(holds("203.0.113.0/24", "::ffff:203.0.113.9"));
        assert!(holds("0.0.0.0/0", "198.51.100.1"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "2001:db9::1"));
        assert!(holds("::ffff:203.0.113.7", "203.0.113.7") && !holds("::ffff:203.0.113.7", "203.0.113.8"));
        assert!(
            holds("::ffff:203.0.113.0/120", "203.0.113.9") && !holds("::ffff:203.0.113.0/120", "203.0.114.9")
        );
    }

    #[test]
    fn what_is_stored_from_before_holds_what_it_held() {
        for text in [" 203.0.113.7 ", "203.0.113.0 /24", "203.0.113.0/0024", "203.0.113.7/32", "0.0.0.0/000"]
        {
            assert!(Block::stored(text).unwrap().holds("203.0.113.7".parse().unwrap()), "{text:?}");
        }
        assert!(!Block::stored("203.0.113.0/0024").unwrap().holds("203.0.114.7".parse().unwrap()));
        assert_eq!(Block::stored("x"), None);
    }

    #[test]
    fn other_texts_are_no_block() {
        for text in [
            "",
            "x",
            "203.0.113.0/33",
            "203.0.113",
            "203.0.113.0/",
            "::/129",
            "203.0.113.0/-1",
            "203.0.113.0/+8",
            "::ffff:0:0/95",
        ] {
            assert_eq!(Block::parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_block_holds_its_own_address_and_no_text_is_too_strange(
            bits: u32,
            prefix in 0_u32..=32,
            other: u128,
            text in "[0-9a-f:./]{0,40}",
        ) {
            let address = std::net::Ipv4Addr::from(bits);
            let block = Block::parse(&format!("{address}/{prefix}")).unwrap();
            proptest::prop_assert!(block.holds(address.into()));
            if let Some(block) = Block::parse(&text) {
                block.holds(std::net::Ipv6Addr::from(other).into());
                block.holds(address.into());
            }
        }
    }
}
