//! Whose an address is, where clients are counted.

use std::net::{IpAddr, Ipv6Addr};

/// The address under which a client is counted: an IPv6 network of 64 bits belongs to one customer, and an IPv4
/// address is itself however it is written.
pub fn counted_address(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_one_client() {
        for (remote, counted) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            assert_eq!(
                counted_address(remote.parse().unwrap()),
                counted.parse::<IpAddr>().unwrap(),
                "{remote}"
            );
        }
    }
}
