//! Delivery status notification parameters (RFC 3461 section 4; `utf-8` addresses by RFC 6533 section 3).

use std::fmt;
use std::str::FromStr;

/// Most octets of an envelope identifier (RFC 3461 section 4.4).
pub const MAX_ENVID: usize = 100;
/// Most octets of an original recipient (RFC 3461 section 4.2).
pub const MAX_ORCPT: usize = 500;

/// How much of the message a notification is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole.
    Full,
    /// The header section.
    Headers,
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

impl FromStr for Ret {
    type Err = DsnError;

    fn from_str(text: &str) -> Result<Self, DsnError> {
        match text.to_ascii_uppercase().as_str() {
            "FULL" => Ok(Self::Full),
            "HDRS" => Ok(Self::Headers),
            _ => Err(DsnError::Ret),
        }
    }
}

/// Why a parameter is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// RET.
    #[error("RET must be FULL or HDRS")]
    Ret,
    /// ENVID.
    #[error("ENVID must be 1 to 100 octets of xtext that stand for printable ASCII")]
    Envid,
    /// NOTIFY.
    #[error("NOTIFY must be NEVER, or a list of SUCCESS, FAILURE and DELAY joined by commas")]
    Notify,
    /// ORCPT.
    #[error("ORCPT must be an address type, a semicolon and an address in xtext, at most 500 octets")]
    Orcpt,
}

/// When a notification is wanted; with no flag set, never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// On delivery.
    pub success: bool,
    /// On permanent failure.
    pub failure: bool,
    /// On delay.
    pub delay: bool,
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [
            (self.success, "SUCCESS"),
            (self.failure, "FAILURE"),
            (self.delay, "DELAY"),
        ];
        let set: Vec<&str> = flags
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&if set.is_empty() {
            "NEVER".to_owned()
        } else {
            set.join(",")
        })
    }
}

impl FromStr for Notify {
    type Err = DsnError;

    fn from_str(text: &str) -> Result<Self, DsnError> {
        let mut notify = Self::default();
        if text.eq_ignore_ascii_case("NEVER") {
            return Ok(notify);
        }
        for word in text.split(',') {
            match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => notify.success = true,
                "FAILURE" => notify.failure = true,
                "DELAY" => notify.delay = true,
                _ => return Err(DsnError::Notify),
            }
        }
        Ok(notify)
    }
}

/// The recipient as the first sender named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient {
    /// The address type: `rfc822`, `utf-8`, ...
    pub kind: String,
    /// The address. Of type `utf-8` it is kept as it was sent, since its encoding depends on the way it takes.
    pub address: String,
}

impl OriginalRecipient {
    fn is_utf8(&self) -> bool {
        self.kind.eq_ignore_ascii_case("utf-8")
    }
}

/// The parameter's value as it goes over the wire.
impl fmt::Display for OriginalRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_utf8() {
            return write!(f, "{};{}", self.kind, self.address);
        }
        write!(f, "{};{}", self.kind, xtext::encode(&self.address))
    }
}

impl FromStr for OriginalRecipient {
    type Err = DsnError;

    fn from_str(text: &str) -> Result<Self, DsnError> {
        let (kind, address) = text.split_once(';').ok_or(DsnError::Orcpt)?;
        let is_kind = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if text.len() > MAX_ORCPT || !is_kind || address.is_empty() {
            return Err(DsnError::Orcpt);
        }
        let utf8 = kind.eq_ignore_ascii_case("utf-8");
        let address = if utf8 {
            let clean = !address.chars().any(|c| c.is_control() || c == ' ' || c == '=');
            clean.then(|| address.to_owned())
        } else {
            xtext::decode(address)
        };
        Ok(Self {
            kind: kind.to_owned(),
            address: address.ok_or(DsnError::Orcpt)?,
        })
    }
}

/// Reads the value of ENVID; gives the identifier that the xtext stands for.
pub fn parse_envid(text: &str) -> Result<String, DsnError> {
    if text.is_empty() || text.len() > MAX_ENVID {
        return Err(DsnError::Envid);
    }
    xtext::decode(text).ok_or(DsnError::Envid)
}

/// The xtext encoding (RFC 3461 section 4).
pub mod xtext {
    use std::fmt::Write as _;

    /// Writes printable ASCII as xtext; octets that xtext has no letter for become `+XX`.
    pub fn encode(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for octet in text.bytes() {
            if matches!(octet, b'!'..=b'~') && octet != b'+' && octet != b'=' {
                out.push(char::from(octet));
            } else {
                let _ = write!(out, "+{octet:02X}");
            }
        }
        out
    }

    /// Reads xtext that stands for printable ASCII (spaces included); anything else is `None`.
    pub fn decode(text: &str) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut octets = text.bytes();
        while let Some(octet) = octets.next() {
            let meant = match octet {
                b'+' => hex(octets.next()?)? * 16 + hex(octets.next()?)?,
                b'=' => return None,
                b'!'..=b'~' => octet,
                _ => return None,
            };
            if !matches!(meant, b' '..=b'~') {
                return None;
            }
            out.push(char::from(meant));
        }
        Some(out)
    }

    /// Upper case only, as the RFC has it.
    fn hex(digit: u8) -> Option<u8> {
        match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'A'..=b'F' => Some(digit - b'A' + 10),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
