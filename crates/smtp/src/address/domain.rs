//! Domains and address literals (RFC 5321 sections 4.1.2 and 4.1.3; U-labels by RFC 6531 section 3.3).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{AddressError, MAX_DOMAIN};

/// A host name, or an address literal with its brackets. Comparison does not regard ASCII case.
#[derive(Clone, Debug)]
pub struct Domain {
    text: String,
    literal: Option<IpAddr>,
}

impl Domain {
    /// The text as it was given, with the brackets of a literal.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address, where the domain is an address literal.
    pub fn literal(&self) -> Option<IpAddr> {
        self.literal
    }

    /// The text in ASCII lower case: the form for keys and look-ups.
    pub fn to_lowercase(&self) -> String {
        self.text.to_ascii_lowercase()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_DOMAIN {
            return Err(AddressError::TooLong);
        }
        let literal = match text.strip_prefix('[') {
            Some(rest) => Some(parse_literal(rest)?),
            None if is_host_name(text) => None,
            None => return Err(AddressError::Domain),
        };
        Ok(Self {
            text: text.to_owned(),
            literal,
        })
    }
}

fn parse_literal(rest: &str) -> Result<IpAddr, AddressError> {
    let inner = rest.strip_suffix(']').ok_or(AddressError::Literal)?;
    let parsed = match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inner[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    parsed.ok_or(AddressError::Literal)
}

/// Labels of at most 63 octets. An underscore is let through: real hosts greet with it, and nothing is built on it.
fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(is_label_character)
        })
}

fn is_label_character(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, '-' | '_')
        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace() && !is_foreign_dot(c))
}

/// Characters that IDNA maps to a dot: they would split a label behind our back.
fn is_foreign_dot(c: char) -> bool {
    matches!(c, '\u{3002}' | '\u{ff0e}' | '\u{ff61}')
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        self.text.eq_ignore_ascii_case(&other.text)
    }
}

impl Eq for Domain {}

impl PartialEq<str> for Domain {
    fn eq(&self, other: &str) -> bool {
        self.text.eq_ignore_ascii_case(other)
    }
}

impl PartialEq<&str> for Domain {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl Hash for Domain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for octet in self.text.bytes() {
            state.write_u8(octet.to_ascii_lowercase());
        }
        state.write_u8(0xff);
    }
}

impl PartialOrd for Domain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Domain {
    fn cmp(&self, other: &Self) -> Ordering {
        let lower = |text: &str| -> Vec<u8> { text.bytes().map(|b| b.to_ascii_lowercase()).collect() };
        lower(&self.text).cmp(&lower(&other.text))
    }
}
