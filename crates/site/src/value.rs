//! The values of a site file: each converter takes the text between the quotes and returns the value or the
//! fault. Domain names follow RFC 1035 section 2.3.1 as relaxed by RFC 1123 section 2.1; address forms RFC 5321 section 4.1.2.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::diagnostic::Fault;

/// A host or mail domain in lower case, without the final dot, at least two labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Domain(String);

impl Domain {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac([u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&pairs.join(":"))
    }
}

/// A DNS label, also used for the names of sites and nodes and for selectors.
pub(crate) fn label(text: &str) -> Result<String, Fault> {
    let lower = text.to_ascii_lowercase();
    if is_label(&lower) {
        return Ok(lower);
    }
    Err(Fault::new(
        format!("`{text}` is not a name"),
        "use 1 to 63 letters, digits and hyphens, without a hyphen at either end",
    ))
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

pub(crate) fn domain(text: &str) -> Result<Domain, Fault> {
    let lower = text.to_ascii_lowercase();
    if !text.is_ascii() {
        return Err(Fault::new(
            format!("`{text}` has letters outside ASCII"),
            "write the domain in its A-label form, which begins with xn--",
        ));
    }
    let labels: Vec<&str> = lower.split('.').collect();
    if lower.len() > 253 || labels.len() < 2 || !labels.iter().all(|l| is_label(l)) {
        return Err(Fault::new(
            format!("`{text}` is not a domain name"),
            "write labels of letters, digits and hyphens with dots between them, such as \"example.org\", without a final dot",
        ));
    }
    if labels
        .last()
        .is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(Fault::new(
            format!("`{text}` is not a domain name: its last label is a number"),
            "write a name, not an address",
        ));
    }
    Ok(Domain(lower))
}

/// A mail address whose local part is a dot-string of RFC 5321; the domain part becomes lower case.
pub(crate) fn mail_address(text: &str) -> Result<(String, Domain), Fault> {
    let fault = || {
        Fault::new(
            format!("`{text}` is not a mail address"),
            "write a local part, @ and a domain, such as \"postmaster@example.org\"",
        )
    };
    let (local, host) = text.rsplit_once('@').ok_or_else(fault)?;
    let atom = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    };
    if local.len() > 64 || !local.split('.').all(atom) {
        return Err(fault());
    }
    Ok((local.to_ascii_lowercase(), domain(host)?))
}

pub(crate) fn mac(text: &str) -> Result<Mac, Fault> {
    let remedy = "write six pairs of hexadecimal digits, such as \"52:54:00:c8:00:0a\"";
    let pairs: Vec<&str> = text.split(':').collect();
    let octets: Option<Vec<u8>> = pairs
        .iter()
        .map(|p| (p.len() == 2).then(|| u8::from_str_radix(p, 16).ok()).flatten())
        .collect();
    let octets: [u8; 6] = octets
        .and_then(|o| o.try_into().ok())
        .ok_or_else(|| Fault::new(format!("`{text}` is not an Ethernet address"), remedy))?;
    if octets[0] & 1 == 1 || octets == [0; 6] {
        return Err(Fault::new(
            format!("`{text}` is not the address of a network card"),
            "use the card's own unicast address, as the machine's firmware or `ip link` shows it",
        ));
    }
    Ok(Mac(octets))
}

pub(crate) fn address(text: &str) -> Result<IpAddr, Fault> {
    text.parse().map_err(|_| {
        Fault::new(
            format!("`{text}` is not an IP address"),
            "write an IPv4 or IPv6 address without a prefix length, such as \"10.200.1.12\"",
        )
    })
}

/// An address of a link with its prefix length; the host bits stay.
pub(crate) fn link_address(text: &str) -> Result<IpNet, Fault> {
    let remedy = "write the link's address with its prefix length, such as \"10.200.9.10/24\"";
    let net: IpNet = text
        .parse()
        .map_err(|_| Fault::new(format!("`{text}` is not an address with a prefix length"), remedy))?;
    let host_bits = net.max_prefix_len() - net.prefix_len();
    let ends = net.addr() == net.network() || (net.addr() == net.broadcast() && net.addr().is_ipv4());
    if host_bits > 1 && ends {
        return Err(Fault::new(
            format!("`{text}` is the network itself or its broadcast address, not an address of a link"),
            remedy,
        ));
    }
    if !is_unicast(net.addr()) {
        return Err(Fault::new(format!("`{text}` is not a unicast address"), remedy));
    }
    Ok(net)
}

/// A network: address and prefix length without host bits.
pub(crate) fn network(text: &str) -> Result<IpNet, Fault> {
    let remedy = "write a network with its prefix length, such as \"10.200.9.0/24\"";
    let net: IpNet = text
        .parse()
        .map_err(|_| Fault::new(format!("`{text}` is not a network"), remedy))?;
    if net.addr() != net.network() {
        return Err(Fault::new(
            format!("`{text}` has host bits set"),
            format!("the network that holds this address is \"{}\"", net.trunc()),
        ));
    }
    if net.prefix_len() == 0 {
        return Err(Fault::new(format!("`{text}` is every address there is"), remedy));
    }
    Ok(net)
}

/// An address or a network.
pub(crate) fn peer(text: &str) -> Result<IpNet, Fault> {
    if text.contains('/') {
        network(text)
    } else {
        address(text).map(IpNet::from)
    }
}

fn is_unicast(address: IpAddr) -> bool {
    let limited_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_multicast() || address.is_unspecified() || address.is_loopback() || limited_broadcast)
}

/// An address that the world can reach. Ranges for documentation (RFC 5737, RFC 3849) pass, because the
/// default site is written with them.
pub(crate) fn public_address(text: &str) -> Result<IpAddr, Fault> {
    let parsed = address(text)?;
    match unreachable_from_outside(parsed) {
        None => Ok(parsed),
        Some(reason) => Err(Fault::new(
            format!("the public address {text} is {reason}, which nobody outside can reach"),
            "write the address under which the Internet reaches this gateway; behind an upstream NAT that is the outer address, and the link keeps its own",
        )),
    }
}

fn unreachable_from_outside(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(a) => match a.octets() {
            _ if a.is_private() => Some("a private address (RFC 1918)"),
            _ if a.is_loopback() => Some("a loopback address"),
            _ if a.is_link_local() => Some("a link-local address"),
            _ if a.is_multicast() => Some("a multicast address"),
            [0 | 240..=255, ..] => Some("a reserved address"),
            [100, 64..=127, ..] => Some("a carrier-grade NAT address (RFC 6598)"),
            [198, 18 | 19, ..] => Some("a benchmarking address (RFC 2544)"),
            [192, 0, 0, _] => Some("a protocol assignment address (RFC 6890)"),
            _ => None,
        },
        IpAddr::V6(a) => match a.segments() {
            _ if a.is_loopback() || a.is_unspecified() => Some("a loopback or unspecified address"),
            _ if a.is_multicast() => Some("a multicast address"),
            _ if a.is_unique_local() => Some("a unique local address (RFC 4193)"),
            _ if a.is_unicast_link_local() => Some("a link-local address"),
            _ if a.to_ipv4_mapped().is_some() => Some("an IPv4 address in IPv6 form"),
            [first, ..] if first & 0xe000 != 0x2000 => Some("outside the global unicast range 2000::/3"),
            _ => None,
        },
    }
}

/// A size in octets: a whole number with `KiB`, `MiB` or `GiB`; 64 KiB (RFC 5321 section 4.5.3.1.7) to 128 MiB,
/// which clamd's `StreamMaxLength` and the memory of smtpd's unit leave room for.
pub(crate) fn size(text: &str) -> Result<u64, Fault> {
    let remedy = "write a size from \"64KiB\" to \"128MiB\", such as \"50MiB\"";
    let number = |unit: &str, factor: u64| {
        text.strip_suffix(unit)?
            .trim_end()
            .parse::<u64>()
            .ok()?
            .checked_mul(factor)
    };
    let octets = number("KiB", 1 << 10)
        .or_else(|| number("MiB", 1 << 20))
        .or_else(|| number("GiB", 1 << 30))
        .ok_or_else(|| Fault::new(format!("`{text}` is not a size"), remedy))?;
    if (64 << 10..=128 << 20).contains(&octets) {
        return Ok(octets);
    }
    Err(Fault::new(format!("the size `{text}` is out of range"), remedy))
}

/// One line for people to read.
pub(crate) fn reason(text: &str) -> Result<String, Fault> {
    let text = text.trim();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Fault::new(
            "the reason is empty or not one line",
            "say in one line why, for who reads the file next year",
        ));
    }
    Ok(text.to_owned())
}

/// The greylist's delay in seconds, 1 second to 1 day; `off` is none.
pub(crate) fn delay(text: &str) -> Result<Option<u64>, Fault> {
    if text == "off" {
        return Ok(None);
    }
    let remedy = "write \"off\" or a time from \"1s\" to \"1d\", such as \"5m\"";
    let number = |unit: &str, factor: u64| {
        text.strip_suffix(unit)?
            .trim_end()
            .parse::<u64>()
            .ok()?
            .checked_mul(factor)
    };
    let seconds = number("s", 1)
        .or_else(|| number("m", 60))
        .or_else(|| number("h", 3600))
        .or_else(|| number("d", 86_400))
        .ok_or_else(|| Fault::new(format!("`{text}` is not a time"), remedy))?;
    if (1..=86_400).contains(&seconds) {
        return Ok(Some(seconds));
    }
    Err(Fault::new(format!("the time `{text}` is out of range"), remedy))
}

/// A trust anchor of the root zone: a DS (RFC 4034 section 5.3) or DNSKEY (section 2.2) record.
pub(crate) fn trust_anchor(text: &str) -> Result<String, Fault> {
    let mut fields: Vec<&str> = text.split_ascii_whitespace().collect();
    // Zone files and tools put a TTL here; an anchor has none.
    if fields
        .get(1)
        .is_some_and(|ttl| ttl.bytes().all(|b| b.is_ascii_digit()))
    {
        fields.remove(1);
    }
    let number = |field: &str, high: u32| field.parse::<u32>().is_ok_and(|n| n <= high);
    let hex =
        |parts: &[&str]| !parts.is_empty() && parts.iter().all(|p| p.bytes().all(|b| b.is_ascii_hexdigit()));
    let base64 = |parts: &[&str]| {
        !parts.is_empty()
            && parts.iter().all(|p| {
                p.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
            })
    };
    let valid = match fields.as_slice() {
        [".", "IN", "DS", tag, algorithm, digest, rest @ ..] => {
            number(tag, 65_535) && number(algorithm, 255) && number(digest, 255) && hex(rest)
        }
        [".", "IN", "DNSKEY", flags, "3", algorithm, rest @ ..] => {
            number(flags, 65_535) && number(algorithm, 255) && base64(rest)
        }
        _ => false,
    };
    if valid {
        return Ok(fields.join(" "));
    }
    Err(Fault::new(
        "the trust anchor is not a DS or DNSKEY record of the root",
        "write it in zone-file form, such as \". IN DS 12345 13 2 0123…\"",
    ))
}
