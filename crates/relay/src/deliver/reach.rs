//! Where a name that strangers choose may lead our requests: to addresses of the public Internet, and to none of the site's own.
//!
//! The DNS of a domain says where its MTA-STS policy and its TLS reports are; it may as well name our loopback or an inner network. The
//! firewall stands against that, too; this is so that nothing hangs on it alone. Looked at is the very address that is connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Network;

/// IPv4 networks that are not globally reachable unicast (IANA's special-purpose registry, RFC 6890, and RFC 5771).
const NOT_GLOBAL: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    // Carrier-grade NAT (RFC 6598).
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    // Documentation (RFC 5737), here and below.
    ([192, 0, 2, 0], 24),
    // What was for 6to4 relays (RFC 7526).
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    // Benchmarks (RFC 2544).
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Multicast.
    ([224, 0, 0, 0], 4),
    // Reserved, and the limited broadcast.
    ([240, 0, 0, 0], 4),
];

/// Which addresses may be connected to.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// The site's own networks, never.
    pub own: Vec<Network>,
    /// These all the same, whatever they are.
    pub exceptions: Vec<Network>,
}

impl Reach {
    /// Whether this one may.
    pub fn allows(&self, address: IpAddr) -> bool {
        let listed = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
        listed(&self.exceptions) || (is_global(address) && !listed(&self.own))
    }
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let prefix = |octets: [u8; 4], length| u32::from_be_bytes(octets) >> (32 - length);
    NOT_GLOBAL
        .iter()
        .all(|(network, length)| prefix(address.octets(), *length) != prefix(*network, *length))
}

/// Only `2000::/3` is given out as global unicast: loopback, mapped IPv4, NAT64, unique local, link-local and multicast lie outside.
fn is_global_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocol assignments, Teredo among them (RFC 2928); documentation (RFC 3849, RFC 9637); 6to4, which names an IPv4 address.
        [0x2001, 0..0x200 | 0xdb8, ..] | [0x3fff, 0..0x1000, ..] | [0x2002, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter()
            .map(|text| Network::try_from((*text).to_owned()).unwrap())
            .collect()
    }

    fn allowed<'a>(reach: &Reach, list: &[&'a str]) -> Vec<&'a str> {
        let allows = |text: &&&str| reach.allows(text.parse().unwrap());
        list.iter().filter(allows).copied().collect()
    }

    #[test]
    fn only_global_unicast_addresses_may_be_asked() {
        let public = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:db7::1",
            "2001:4860:4860::8888",
            "2a00::1",
            "3fff:1000::1",
        ];
        let others = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "100::1",
            "2001::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff:fff::1",
            "4000::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        assert_eq!(allowed(&Reach::default(), &public), public);
        assert_eq!(allowed(&Reach::default(), &others), [""; 0]);
    }

    #[test]
    fn the_sites_own_may_not_and_exceptions_may() {
        let reach = Reach {
            own: networks(&["1.2.3.0/24", "2a00::/32"]),
            exceptions: networks(&["127.0.26.0/24", "1.2.3.4"]),
        };
        let asked = [
            "1.2.3.3",
            "1.2.3.4",
            "1.2.4.1",
            "127.0.26.1",
            "127.0.0.1",
            "2a00::1",
            "::ffff:127.0.26.1",
        ];
        assert_eq!(allowed(&reach, &asked), ["1.2.3.4", "1.2.4.1", "127.0.26.1"]);
    }
}
