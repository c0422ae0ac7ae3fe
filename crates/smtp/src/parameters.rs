//! The parameters of MAIL and RCPT (RFC 5321 section 4.1.2; RFC 1870, 3461, 4954, 6152, 6531, 8689).
//!
//! Enters: the text after the path. Leaves: typed parameters, or a [`ParameterError`] that names the culprit.

use crate::dsn::{self, Notify, OriginalRecipient, Ret};

/// The body type that a client declares (RFC 6152).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// `BODY=7BIT`, and the default.
    #[default]
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// The parameters of MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// Declared size in octets.
    pub size: Option<u64>,
    /// Declared body type.
    pub body: Body,
    /// Whether the message is internationalised.
    pub smtputf8: bool,
    /// REQUIRETLS: the message may go only where the way is proved and encrypted.
    pub require_tls: bool,
    /// What a notification is to return.
    pub ret: Option<Ret>,
    /// The sender's identifier for the envelope, decoded.
    pub envid: Option<String>,
    /// Whether any parameter was given: HELO clients may give none.
    pub given: bool,
}

/// The parameters of RCPT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// When notifications are wanted.
    pub notify: Option<Notify>,
    /// The recipient as first named.
    pub orcpt: Option<OriginalRecipient>,
    /// Whether any parameter was given: HELO clients may give none.
    pub given: bool,
}

/// Why parameters are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A keyword that EHLO does not offer for this command.
    #[error("the parameter {0} is not offered for this command; leave it out")]
    Unknown(String),
    /// A keyword twice.
    #[error("the parameter {0} is given twice; give it once")]
    Duplicate(String),
    /// A value that the keyword does not take.
    #[error("{0}")]
    Value(String),
}

/// Reads the parameters of MAIL.
pub fn parse_mail(text: &str) -> Result<MailParameters, ParameterError> {
    let mut parameters = MailParameters::default();
    for (keyword, value) in split(text)? {
        parameters.given = true;
        match (keyword.as_str(), value) {
            ("SIZE", value) => parameters.size = Some(parse_size(value)?),
            ("BODY", value) => parameters.body = parse_body(value)?,
            ("SMTPUTF8", None) => parameters.smtputf8 = true,
            ("SMTPUTF8", Some(_)) => return Err(value_error("SMTPUTF8 takes no value")),
            ("REQUIRETLS", None) => parameters.require_tls = true,
            ("REQUIRETLS", Some(_)) => return Err(value_error("REQUIRETLS takes no value")),
            ("RET", value) => parameters.ret = Some(parse_dsn(value)?),
            ("ENVID", value) => {
                let envid = dsn::parse_envid(value.unwrap_or_default());
                parameters.envid =
                    Some(envid.map_err(|error: dsn::DsnError| value_error(error.to_string()))?);
            }
            // The identity that a trusted peer claims (RFC 4954 section 5): read for its form, believed of nobody.
            ("AUTH", Some(value)) if dsn::xtext::decode(value).is_some() => {}
            ("AUTH", _) => return Err(value_error("AUTH must be <> or an address in xtext")),
            _ => return Err(ParameterError::Unknown(keyword)),
        }
    }
    Ok(parameters)
}

/// Reads the parameters of RCPT.
pub fn parse_rcpt(text: &str) -> Result<RcptParameters, ParameterError> {
    let mut parameters = RcptParameters::default();
    for (keyword, value) in split(text)? {
        parameters.given = true;
        match keyword.as_str() {
            "NOTIFY" => parameters.notify = Some(parse_dsn(value)?),
            "ORCPT" => parameters.orcpt = Some(parse_dsn(value)?),
            _ => return Err(ParameterError::Unknown(keyword)),
        }
    }
    Ok(parameters)
}

/// Splits at white space into upper-case keywords and their values; refuses malformed and repeated keywords.
fn split(text: &str) -> Result<Vec<(String, Option<&str>)>, ParameterError> {
    let mut found: Vec<(String, Option<&str>)> = Vec::new();
    for word in text.split([' ', '\t']).filter(|word| !word.is_empty()) {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        let well_formed = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
            && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let keyword = keyword.to_ascii_uppercase();
        if !well_formed {
            return Err(ParameterError::Unknown(keyword));
        }
        if found.iter().any(|(seen, _)| *seen == keyword) {
            return Err(ParameterError::Duplicate(keyword));
        }
        found.push((keyword, value));
    }
    Ok(found)
}

fn parse_size(value: Option<&str>) -> Result<u64, ParameterError> {
    let digits = value.unwrap_or_default();
    let well_formed = (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if !well_formed {
        return Err(value_error("SIZE must be a number of octets, at most 20 digits"));
    }
    // Twenty digits may pass what 64 bits hold; such a size is over any limit all the same.
    Ok(digits.parse().unwrap_or(u64::MAX))
}

fn parse_body(value: Option<&str>) -> Result<Body, ParameterError> {
    match value.unwrap_or_default().to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        _ => Err(value_error(
            "BODY must be 7BIT or 8BITMIME; BINARYMIME is not offered here",
        )),
    }
}

fn parse_dsn<T: std::str::FromStr<Err = dsn::DsnError>>(value: Option<&str>) -> Result<T, ParameterError> {
    value
        .unwrap_or_default()
        .parse()
        .map_err(|error: dsn::DsnError| value_error(error.to_string()))
}

fn value_error(text: impl Into<String>) -> ParameterError {
    ParameterError::Value(text.into())
}

#[cfg(test)]
mod tests;
