//! The header of the PROXY protocol, versions 1 and 2: whose connection a proxy passes on.
//!
//! Enters: the octets that came first, by and by. Leaves: the client, and where the header ends; never a guess. No octet
//! beyond the header is asked for. Extensions of version 2 (TLVs) are skipped. See `proxy-protocol.txt` of its authors,
//! sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, length.
const FIXED: usize = 16;
/// The shortest header there is: `PROXY UNKNOWN` and CRLF.
const SHORTEST: usize = 15;
/// The longest line of version 1, with its CRLF.
const LINE: usize = 107;
/// The longest header of version 2 that is taken: addresses and some TLVs.
const LONGEST: usize = 2048;

/// How far a header has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It cannot end before this many octets in all.
    Needs(usize),
    /// It is whole.
    Whole(Header),
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The client; nothing where the proxy speaks for itself (LOCAL), or does not know whom for (UNKNOWN).
    pub client: Option<SocketAddr>,
    /// Octets of the header.
    pub length: usize,
}

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Something else came.
    #[error("no PROXY protocol header came first")]
    Absent,
    /// The line of version 1 has no end.
    #[error("the header of version 1 has no end within {LINE} octets")]
    LineTooLong,
    /// Version 2 announces too much.
    #[error("the header of version 2 is {0} octets long; at most {LONGEST} are taken")]
    TooLong(usize),
    /// Version 1 in a form that the protocol does not have.
    #[error("the header of version 1 is malformed")]
    Line,
    /// Neither LOCAL nor PROXY, or not version 2.
    #[error("the header has version and command {0:#04x}")]
    Command(u8),
    /// Not TCP over IPv4 or IPv6.
    #[error("the header is of the family {0:#04x}, and only TCP over IPv4 or IPv6 can be mail")]
    Family(u8),
    /// Too short for its addresses.
    #[error("the header of version 2 is too short for its addresses")]
    Short,
    /// An address that no client has.
    #[error("the header names the client {0}, which no host can be")]
    Client(IpAddr),
}

/// Reads the header at the beginning of `octets`.
pub fn parse(octets: &[u8]) -> Result<Progress, HeaderError> {
    let version2 = begins(octets, SIGNATURE);
    if !version2 && !begins(octets, b"PROXY ") {
        return Err(HeaderError::Absent);
    }
    if octets.len() < SHORTEST {
        return Ok(Progress::Needs(SHORTEST));
    }
    if version2 { binary(octets) } else { line(octets) }
}

/// Whether they are the same as far as both go.
fn begins(octets: &[u8], with: &[u8]) -> bool {
    let both = octets.len().min(with.len());
    octets[..both] == with[..both]
}

fn binary(octets: &[u8]) -> Result<Progress, HeaderError> {
    let Some((fixed, rest)) = octets.split_at_checked(FIXED) else {
        return Ok(Progress::Needs(FIXED));
    };
    let (command, family) = (fixed[12], fixed[13]);
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if !matches!(command, 0x20 | 0x21) {
        return Err(HeaderError::Command(command));
    }
    if length > LONGEST {
        return Err(HeaderError::TooLong(length));
    }
    let Some(rest) = rest.get(..length - FIXED) else {
        return Ok(Progress::Needs(length));
    };
    // Source address, destination address, source port, destination port.
    let client = match (command, family) {
        (0x20, _) | (_, 0x00) => None,
        (_, 0x11) => {
            let address = part::<4>(rest, 0)?;
            Some((Ipv4Addr::from(address).into(), part::<2>(rest, 8)?))
        }
        (_, 0x21) => {
            let address = part::<16>(rest, 0)?;
            Some((Ipv6Addr::from(address).into(), part::<2>(rest, 32)?))
        }
        (_, other) => return Err(HeaderError::Family(other)),
    };
    let client = client.map(|(address, port)| possible(address, u16::from_be_bytes(port)));
    Ok(whole(client.transpose()?, length))
}

fn part<const N: usize>(octets: &[u8], at: usize) -> Result<[u8; N], HeaderError> {
    let part = octets.get(at..at + N).ok_or(HeaderError::Short)?;
    part.try_into().map_err(|_| HeaderError::Short)
}

fn line(octets: &[u8]) -> Result<Progress, HeaderError> {
    let within = &octets[..octets.len().min(LINE)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if octets.len() < LINE {
            Ok(Progress::Needs(octets.len() + 1))
        } else {
            Err(HeaderError::LineTooLong)
        };
    };
    let text = std::str::from_utf8(&octets[..end]).map_err(|_| HeaderError::Line)?;
    let words: Vec<&str> = text.split(' ').collect();
    let client = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4", source, destination, port, to] => {
            let _: Ipv4Addr = destination.parse().map_err(|_| HeaderError::Line)?;
            let source: Ipv4Addr = source.parse().map_err(|_| HeaderError::Line)?;
            number(to)?;
            Some(possible(source.into(), number(port)?)?)
        }
        ["PROXY", "TCP6", source, destination, port, to] => {
            let _: Ipv6Addr = destination.parse().map_err(|_| HeaderError::Line)?;
            let source: Ipv6Addr = source.parse().map_err(|_| HeaderError::Line)?;
            number(to)?;
            Some(possible(source.into(), number(port)?)?)
        }
        _ => return Err(HeaderError::Line),
    };
    Ok(whole(client, end + 2))
}

/// A port in decimal, without sign or leading zero.
fn number(text: &str) -> Result<u16, HeaderError> {
    let plain = text.bytes().all(|octet| octet.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(HeaderError::Line)
}

fn possible(address: IpAddr, port: u16) -> Result<SocketAddr, HeaderError> {
    // Dual-stack proxies show IPv4 clients as ::ffff:a.b.c.d.
    let address = address.to_canonical();
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err(HeaderError::Client(address));
    }
    Ok(SocketAddr::new(address, port))
}

fn whole(client: Option<SocketAddr>, length: usize) -> Progress {
    Progress::Whole(Header { client, length })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn tcp4() -> Vec<u8> {
        [192, 0, 2, 1, 198, 51, 100, 1, 0x30, 0x39, 0, 25].to_vec()
    }

    fn says(octets: &[u8]) -> Result<Option<String>, HeaderError> {
        let mut have = 0;
        loop {
            match parse(&octets[..have])? {
                Progress::Needs(more) => {
                    assert!(more > have && more <= octets.len(), "{more} of {}", octets.len());
                    have = more;
                }
                Progress::Whole(header) => {
                    assert_eq!(header.length, octets.len());
                    assert_eq!(have, octets.len(), "no octet more than the header is read");
                    return Ok(header.client.map(|client| client.to_string()));
                }
            }
        }
    }

    #[test]
    fn clients_of_both_versions() {
        let tcp6 = [
            &[0x20, 1, 0xd, 0xb8][..],
            &[0; 11],
            &[1],
            &[0xfe; 16],
            &[0, 99, 0, 25],
        ]
        .concat();
        let mapped = [
            &[0; 10][..],
            &[0xff, 0xff, 192, 0, 2, 1],
            &[0xfe; 16],
            &[0, 99, 0, 25],
        ]
        .concat();
        let some = |text: &str| Ok(Some(text.to_owned()));
        for (octets, expected) in [
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 25\r\n".to_vec(),
                some("192.0.2.1:12345"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 1 25\r\n".to_vec(),
                some("[2001:db8::1]:1"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Ok(None)),
            (b"PROXY UNKNOWN anything at all\r\n".to_vec(), Ok(None)),
            (v2(0x21, 0x11, &tcp4()), some("192.0.2.1:12345")),
            (
                v2(0x21, 0x11, &[tcp4(), vec![4, 0, 3, 1, 2, 3]].concat()),
                some("192.0.2.1:12345"),
            ),
            (v2(0x21, 0x21, &tcp6), some("[2001:db8::1]:99")),
            (v2(0x21, 0x21, &mapped), some("192.0.2.1:99")),
            (v2(0x20, 0x00, &[]), Ok(None)),
            (v2(0x20, 0x11, &tcp4()), Ok(None)),
            (v2(0x21, 0x00, &[]), Ok(None)),
        ] {
            assert_eq!(says(&octets), expected, "{octets:x?}");
        }
    }

    #[test]
    fn hostile_octets_are_no_header() {
        let named = |octets: &[u8]| parse(octets);
        for (octets, expected) in [
            (b"EHLO client.example\r\n".to_vec(), HeaderError::Absent),
            (
                b"proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
                HeaderError::Absent,
            ),
            (b"\x16\x03\x01".to_vec(), HeaderError::Absent),
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n".to_vec(),
                HeaderError::Line,
            ),
            (
                b"PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
                HeaderError::Line,
            ),
            (
                b"PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n".to_vec(),
                HeaderError::Line,
            ),
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n".to_vec(),
                HeaderError::Line,
            ),
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n".to_vec(),
                HeaderError::Line,
            ),
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 2\r\n".to_vec(),
                HeaderError::Line,
            ),
            (
                b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(),
                HeaderError::Line,
            ),
            (
                b"PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
                HeaderError::Line,
            ),
            (b"PROXY TCP4 \xff\xff\r\n".to_vec(), HeaderError::Line),
            (
                [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; LINE]].concat(),
                HeaderError::LineTooLong,
            ),
            (
                b"PROXY TCP4 0.0.0.0 198.51.100.1 1 2\r\n".to_vec(),
                HeaderError::Client([0, 0, 0, 0].into()),
            ),
            (v2(0x11, 0x11, &tcp4()), HeaderError::Command(0x11)),
            (v2(0x22, 0x11, &tcp4()), HeaderError::Command(0x22)),
            (v2(0x21, 0x12, &tcp4()), HeaderError::Family(0x12)),
            (v2(0x21, 0x31, &[0; 216]), HeaderError::Family(0x31)),
            (v2(0x21, 0x11, &tcp4()[..9]), HeaderError::Short),
            (v2(0x21, 0x21, &tcp4()), HeaderError::Short),
            (v2(0x21, 0x11, &[0; 3000]), HeaderError::TooLong(3016)),
        ] {
            assert_eq!(named(&octets), Err(expected), "{octets:x?}");
        }
    }

    proptest! {
        /// Whatever comes, the header is asked for by and by, within its bounds, and what follows it changes nothing.
        #[test]
        fn octets_of_any_kind(
            begin in prop_oneof![
                Just(Vec::new()),
                Just(b"PROXY TCP4 ".to_vec()),
                Just(v2(0x21, 0x11, &[])[..14].to_vec()),
                Just(v2(0x21, 0x21, &[])[..15].to_vec()),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let octets = [begin, rest].concat();
            let mut have = 0;
            while let Ok(Progress::Needs(more)) = parse(&octets[..have]) {
                prop_assert!(more > have && more <= LONGEST);
                if more > octets.len() {
                    return Ok(());
                }
                have = more;
            }
            prop_assert_eq!(parse(&octets), parse(&octets[..have]));
        }
    }

    #[test]
    fn too_much_is_refused_before_it_is_read() {
        let announced = v2(0x21, 0x11, &[0; 3000]);
        assert_eq!(parse(&announced[..FIXED]), Err(HeaderError::TooLong(3016)));
    }
}
