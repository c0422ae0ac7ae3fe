//! Mailboxes and paths (RFC 5321 sections 4.1.2, 4.1.3 and 4.5.3.1; UTF-8 by RFC 6531 section 3.3).
//!
//! Enters: the text of an address. Leaves: a value whose parts are within the limits of the RFC, or an
//! [`AddressError`] that says what is wrong. A local part is held unquoted and is quoted again when it is shown.

mod domain;
mod local;

use std::fmt;
use std::str::FromStr;

pub use domain::Domain;

/// Most octets of a path, angle brackets included (RFC 5321 section 4.5.3.1.3).
pub const MAX_PATH: usize = 256;
/// Most octets of a local part (RFC 5321 section 4.5.3.1.1).
pub const MAX_LOCAL: usize = 64;
/// Most octets of a domain (RFC 5321 section 4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing stands where an address is needed.
    #[error("the address is empty; write local-part@domain")]
    Empty,
    /// There is no `@domain`.
    #[error("the address has no domain; write local-part@domain")]
    NoDomain,
    /// The local part is not a dot-atom and not a quoted string.
    #[error("the local part holds a character that must be quoted, or a misplaced dot or quote")]
    LocalPart,
    /// The local part is over [`MAX_LOCAL`] octets.
    #[error("the local part is longer than 64 octets")]
    LocalTooLong,
    /// The domain is not a host name.
    #[error("the domain is not a host name (labels of letters, digits and hyphens joined by dots)")]
    Domain,
    /// The text in brackets is not an IPv4 or IPv6 address.
    #[error("the address literal is neither [a.b.c.d] nor [IPv6:...]")]
    Literal,
    /// The path is over [`MAX_PATH`] octets or the domain over [`MAX_DOMAIN`].
    #[error("the address is longer than RFC 5321 allows (256 octets with its brackets)")]
    TooLong,
    /// The source route before the address is malformed.
    #[error("the source route is malformed; leave it out")]
    Route,
    /// Angle brackets are missing or unbalanced.
    #[error("the address must stand in angle brackets, like <local-part@domain>")]
    Brackets,
}

/// `local-part@domain`.
///
/// Equality compares local parts octet by octet and domains without regard to ASCII case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    local: String,
    domain: Domain,
}

impl Mailbox {
    /// The local part, unquoted.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain or address literal.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether the mailbox can travel without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii() && self.domain.as_str().is_ascii()
    }

    /// Whether the local part carries a second route: `user%host`, `host!user`, `user@host`, `host:user`.
    ///
    /// Such an address asks a relay to forward to a place that the domain does not show; policy refuses it as relaying.
    pub fn route_in_local_part(&self) -> bool {
        self.local.contains(['%', '!', '@', ':'])
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        local::write_quoted(&self.local, f)?;
        write!(f, "@{}", self.domain)
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > MAX_PATH - 2 {
            return Err(AddressError::TooLong);
        }
        let (local, rest) = local::take(text)?;
        let domain = rest.strip_prefix('@').ok_or(if rest.is_empty() {
            AddressError::NoDomain
        } else {
            AddressError::LocalPart
        })?;
        Ok(Self {
            local,
            domain: domain.parse()?,
        })
    }
}

/// The argument of MAIL: who is told when the message fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: a notification, which must never be answered by another.
    Null,
    /// A sender.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, unless the path is `<>`.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Whether the path can travel without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.mailbox().is_none_or(Mailbox::is_ascii)
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mailbox().map_or(Ok(()), |mailbox| mailbox.fmt(f))
    }
}

impl FromStr for ReversePath {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        strip_source_route(text)?.parse().map(Self::Mailbox)
    }
}

/// The argument of RCPT: who is to get the message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `postmaster` without a domain: the postmaster of this very host (RFC 5321 section 4.5.1).
    Postmaster,
    /// A recipient.
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// The mailbox, unless the path is the bare postmaster.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// The domain, unless the path is the bare postmaster.
    pub fn domain(&self) -> Option<&Domain> {
        self.mailbox().map(Mailbox::domain)
    }

    /// Whether the path can travel without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.mailbox().is_none_or(Mailbox::is_ascii)
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

impl FromStr for ForwardPath {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        strip_source_route(text)?.parse().map(Self::Mailbox)
    }
}

/// Takes `@a,@b:` away from the front: to be accepted and ignored (RFC 5321 section 4.1.1.3 and appendix C).
fn strip_source_route(text: &str) -> Result<&str, AddressError> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    if text.len() > MAX_PATH - 2 {
        return Err(AddressError::TooLong);
    }
    let mut rest = text;
    loop {
        let hop = rest.strip_prefix('@').ok_or(AddressError::Route)?;
        let end = hop_end(hop)?;
        hop[..end].parse::<Domain>().map_err(|_| AddressError::Route)?;
        rest = &hop[end + 1..];
        if hop.as_bytes()[end] == b':' {
            return Ok(rest);
        }
    }
}

/// Where a hop of a source route ends: at `,` or `:`, but not at a colon inside an address literal.
fn hop_end(hop: &str) -> Result<usize, AddressError> {
    let literal = if hop.starts_with('[') {
        hop.find(']').ok_or(AddressError::Route)?
    } else {
        0
    };
    hop[literal..]
        .find([',', ':'])
        .map(|at| literal + at)
        .ok_or(AddressError::Route)
}

/// Splits `<path>` off the front of a MAIL or RCPT argument: the text in the brackets, and what follows them.
///
/// A `>` inside a quoted local part does not end the path.
pub(crate) fn split_brackets(text: &str) -> Result<(&str, &str), AddressError> {
    let inner = text.strip_prefix('<').ok_or(AddressError::Brackets)?;
    let (mut quoted, mut escaped) = (false, false);
    for (at, octet) in inner.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Ok((&inner[..at], &inner[at + 1..])),
            _ => {}
        }
    }
    Err(AddressError::Brackets)
}

#[cfg(test)]
mod tests;
