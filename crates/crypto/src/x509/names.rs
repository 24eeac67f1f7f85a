//! DNS names, address ranges, and which of them an authority may certify.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::extensions::{GeneralName, NameConstraints as ParsedConstraints};

use super::IssueFault;

pub(super) const SUBTREES_MAX: usize = 64;
const DNS_NAME_CHARACTERS_MAX: usize = 253;
const LABEL_CHARACTERS_MAX: usize = 63;

/// A range of addresses, for example `127.0.0.0/8` or `::1/128`. Bits beyond the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpSubnet {
    address: IpAddr,
    prefix_bits: u8,
}

impl IpSubnet {
    /// `None` if the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix_bits: u8) -> Option<Self> {
        if prefix_bits > width_bits(address) {
            return None;
        }
        Some(Self { address: masked(address, prefix_bits), prefix_bits })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix_bits) == self.address
    }

    /// Address and mask as a certificate holds them; `None` if the mask is not a run of ones.
    fn from_octets(octets: &[u8]) -> Option<Self> {
        let (address, mask) = octets.split_at(octets.len() / 2);
        let (address, mask) = (address_from(address)?, address_from(mask)?);
        let (ones, all_ones) = match mask {
            IpAddr::V4(mask) => (mask.to_bits().leading_ones(), IpAddr::V4(u32::MAX.into())),
            IpAddr::V6(mask) => (mask.to_bits().leading_ones(), IpAddr::V6(u128::MAX.into())),
        };
        let prefix_bits = u8::try_from(ones).ok()?;
        (masked(all_ones, prefix_bits) == mask).then_some(())?;
        Self::new(address, prefix_bits)
    }
}

impl FromStr for IpSubnet {
    type Err = IssueFault;

    /// `address/bits`, or an address alone.
    fn from_str(text: &str) -> Result<Self, IssueFault> {
        let invalid = || IssueFault::InvalidName(text.chars().take(DNS_NAME_CHARACTERS_MAX).collect());
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits = match bits {
            None => width_bits(address),
            Some(bits) => bits.parse().map_err(|_| invalid())?,
        };
        Self::new(address, bits).ok_or_else(invalid)
    }
}

impl fmt::Display for IpSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

fn width_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    let prefix = u32::from(prefix_bits);
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(prefix).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & !host).into())
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(prefix).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & !host).into())
        }
    }
}

fn address_from(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

/// What an authority may certify: DNS names at or below some names, addresses in some ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Permitted {
    pub(super) dns_subtrees: Vec<String>,
    pub(super) ip_subnets: Vec<IpSubnet>,
}

impl Permitted {
    pub(super) fn new(dns_subtrees: &[&str], ip_subnets: &[IpSubnet]) -> Result<Self, IssueFault> {
        if !(1..=SUBTREES_MAX).contains(&dns_subtrees.len()) || ip_subnets.len() > SUBTREES_MAX {
            return Err(IssueFault::Constraints(SUBTREES_MAX));
        }
        let subtree = |name: &&str| {
            let name = dns_name(name)?;
            if name.starts_with('*') { Err(IssueFault::InvalidName(name)) } else { Ok(name) }
        };
        let dns_subtrees = dns_subtrees.iter().map(subtree).collect::<Result<_, _>>()?;
        Ok(Self { dns_subtrees, ip_subnets: ip_subnets.to_vec() })
    }

    /// What a certificate's name constraints permit; `None` if they are not of the form written here.
    pub(super) fn from_parsed(constraints: &ParsedConstraints<'_>) -> Option<Self> {
        let (mut dns_subtrees, mut ip_subnets) = (Vec::new(), Vec::new());
        for subtree in constraints.permitted_subtrees.as_ref()? {
            match &subtree.base {
                GeneralName::DNSName(name) => dns_subtrees.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => ip_subnets.push(IpSubnet::from_octets(octets)?),
                _ => return None,
            }
        }
        let borrowed: Vec<&str> = dns_subtrees.iter().map(String::as_str).collect();
        Self::new(&borrowed, &ip_subnets).ok()
    }

    /// The extension's content. A kind of name that is not mentioned would be unconstrained, so where no address
    /// is permitted all are excluded.
    pub(super) fn to_constraints(&self) -> NameConstraints {
        let dns = self.dns_subtrees.iter().cloned().map(GeneralSubtree::DnsName);
        let subnet = |subnet: &IpSubnet| {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(subnet.address, subnet.prefix_bits))
        };
        let excluded_subtrees = if self.ip_subnets.is_empty() {
            vec![
                GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
                GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
            ]
        } else {
            Vec::new()
        };
        NameConstraints {
            permitted_subtrees: dns.chain(self.ip_subnets.iter().map(subnet)).collect(),
            excluded_subtrees,
        }
    }

    /// Checks one DNS name; returns it in lower case.
    pub(super) fn check_dns(&self, name: &str) -> Result<String, IssueFault> {
        let name = dns_name(name)?;
        let host = name.strip_prefix("*.").unwrap_or(&name);
        let within = |subtree: &String| {
            host.strip_suffix(subtree.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if self.dns_subtrees.iter().any(within) { Ok(name) } else { Err(IssueFault::NotPermitted(name)) }
    }

    pub(super) fn check_ip(&self, address: IpAddr) -> Result<IpAddr, IssueFault> {
        if self.ip_subnets.iter().any(|subnet| subnet.contains(address)) {
            Ok(address)
        } else {
            Err(IssueFault::NotPermitted(address.to_string()))
        }
    }
}

/// A DNS name in lower case, without a final dot; `*` may be its first label.
fn dns_name(name: &str) -> Result<String, IssueFault> {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        (1..=LABEL_CHARACTERS_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name that reads as an address belongs among the addresses.
    if name.len() > DNS_NAME_CHARACTERS_MAX || !host.split('.').all(label) || host.parse::<IpAddr>().is_ok() {
        return Err(IssueFault::InvalidName(name.chars().take(DNS_NAME_CHARACTERS_MAX).collect()));
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> IpSubnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_contain_their_addresses_only() {
        let loopback = subnet("127.0.0.1/8");
        assert_eq!(loopback.to_string(), "127.0.0.0/8");
        assert!(loopback.contains("127.255.0.1".parse().unwrap()));
        assert!(!loopback.contains("128.0.0.1".parse().unwrap()));
        assert!(!loopback.contains("::1".parse().unwrap()));
        assert!(subnet("::1").contains("::1".parse().unwrap()));
        assert!(!subnet("::1").contains("::2".parse().unwrap()));
        assert!(subnet("0.0.0.0/0").contains("1.2.3.4".parse().unwrap()));
        for text in ["127.0.0.1/33", "::1/129", "x/8", "1.2.3.4/", "1.2.3.4/-1"] {
            assert!(text.parse::<IpSubnet>().is_err(), "{text}");
        }
        assert_eq!(IpSubnet::from_octets(&[10, 0, 0, 0, 255, 0, 0, 0]), Some(subnet("10.0.0.0/8")));
        assert_eq!(IpSubnet::from_octets(&[10, 0, 0, 0, 255, 0, 255, 0]), None);
        assert_eq!(IpSubnet::from_octets(&[10, 0, 0]), None);
    }

    #[test]
    fn names_are_matched_by_whole_labels() {
        let permitted = Permitted::new(&["Vault.Azure.net", "localhost"], &[]).unwrap();
        for name in [
            "vault.azure.net",
            "KV1.vault.azure.net",
            "*.vault.azure.net",
            "a.b.vault.azure.net",
            "localhost",
        ] {
            assert_eq!(permitted.check_dns(name), Ok(name.to_ascii_lowercase()));
        }
        for name in ["evilvault.azure.net", "azure.net", "*.azure.net", "vault.azure.net.example", "net"] {
            assert_eq!(permitted.check_dns(name), Err(IssueFault::NotPermitted(name.into())));
        }
        let long = "a".repeat(64);
        for name in [
            "",
            ".",
            "a..b",
            "a.*.vault.azure.net",
            "*",
            "-a.vault.azure.net",
            "vault.azure.net.",
            "127.0.0.1",
            "a b.vault.azure.net",
            "ä.vault.azure.net",
            long.as_str(),
        ] {
            assert!(matches!(permitted.check_dns(name), Err(IssueFault::InvalidName(_))), "{name}");
        }
        assert!(permitted.check_ip("127.0.0.1".parse().unwrap()).is_err());
    }

    #[test]
    fn an_authority_is_never_unconstrained() {
        assert_eq!(Permitted::new(&[], &[]), Err(IssueFault::Constraints(SUBTREES_MAX)));
        assert!(Permitted::new(&[".azure.net"], &[]).is_err());
        assert!(Permitted::new(&["*.azure.net"], &[]).is_err());
        assert_eq!(Permitted::new(&["azure.net"], &[]).unwrap().to_constraints().excluded_subtrees.len(), 2);
    }
}
