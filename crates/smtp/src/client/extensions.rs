//! What a server offers with EHLO (RFC 5321 section 4.1.1.1), and whether a message can go that way.

use std::collections::HashSet;

use super::{Dialect, Envelope, Recipient};
use crate::replies;
use crate::reply::Reply;

/// The keywords that matter to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a keyword of its own, offered or not"
)]
pub struct Extensions {
    /// SIZE: the largest message in octets; 0 where no number is given.
    pub size: Option<u64>,
    /// PIPELINING.
    pub pipelining: bool,
    /// 8BITMIME.
    pub eight_bit_mime: bool,
    /// SMTPUTF8.
    pub smtp_utf8: bool,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// STARTTLS.
    pub starttls: bool,
    /// DSN.
    pub dsn: bool,
    /// CHUNKING.
    pub chunking: bool,
    /// ENHANCEDSTATUSCODES.
    pub enhanced_status_codes: bool,
    /// XSUBMIT, which an internal node offers its gateway.
    pub submission: bool,
    /// AUTH, with PLAIN.
    pub auth_plain: bool,
    /// AUTH, with LOGIN.
    pub auth_login: bool,
    /// LIMITS.
    pub limits: Limits,
}

/// What a server takes at most, where it says so (RFC 9422).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// MAILMAX: MAIL commands in a session.
    pub mails: Option<u32>,
    /// RCPTMAX: RCPT commands in a transaction.
    pub recipients: Option<u32>,
    /// RCPTDOMAINMAX: different domains of them.
    pub domains: Option<u32>,
}

impl Limits {
    /// One parameter of LIMITS. What is unknown or malformed says nothing (RFC 9422 section 4).
    fn read(&mut self, parameter: &str) {
        let Some((name, value)) = parameter.split_once('=') else {
            return;
        };
        let well_formed = (1..=6).contains(&value.len())
            && value.bytes().all(|octet| octet.is_ascii_digit())
            && !value.starts_with('0');
        let value = value.parse().ok().filter(|_| well_formed);
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.mails = value,
            "RCPTMAX" => self.recipients = value,
            "RCPTDOMAINMAX" => self.domains = value,
            _ => {}
        }
    }

    /// Which of `recipients`, in their order, may share a transaction.
    pub(super) fn admit(&self, recipients: &[Recipient]) -> Vec<bool> {
        let fits = |limit: Option<u32>, count: usize| limit.is_none_or(|limit| count <= limit as usize);
        let (mut taken, mut domains) = (0, HashSet::new());
        recipients
            .iter()
            .map(|recipient| {
                let domain = recipient
                    .path
                    .domain()
                    .map(|domain| domain.as_str().to_ascii_lowercase());
                let more = usize::from(!domains.contains(&domain));
                let admitted = fits(self.recipients, taken + 1) && fits(self.domains, domains.len() + more);
                if admitted {
                    taken += 1;
                    domains.insert(domain);
                }
                admitted
            })
            .collect()
    }
}

impl Extensions {
    /// Reads the reply to EHLO or LHLO. The first line is the server's name.
    pub(super) fn parse(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                // RFC 1870 section 3: zero and no number say that there is no fixed limit.
                "SIZE" => {
                    let limit = words.next().and_then(|number| number.parse().ok());
                    extensions.size = Some(limit.unwrap_or(0));
                }
                "PIPELINING" => extensions.pipelining = true,
                // RFC 6152.
                "8BITMIME" => extensions.eight_bit_mime = true,
                // RFC 6531.
                "SMTPUTF8" => extensions.smtp_utf8 = true,
                // RFC 8689.
                "REQUIRETLS" => extensions.require_tls = true,
                "STARTTLS" => extensions.starttls = true,
                // RFC 3461.
                "DSN" => extensions.dsn = true,
                "CHUNKING" => extensions.chunking = true,
                "XSUBMIT" => extensions.submission = true,
                "AUTH" => words.for_each(|mechanism| match mechanism.to_ascii_uppercase().as_str() {
                    "PLAIN" => extensions.auth_plain = true,
                    "LOGIN" => extensions.auth_login = true,
                    _ => {}
                }),
                "LIMITS" => words.for_each(|parameter| extensions.limits.read(parameter)),
                // RFC 2034.
                "ENHANCEDSTATUSCODES" => extensions.enhanced_status_codes = true,
                _ => {}
            }
        }
        extensions
    }

    /// Why an envelope cannot go this way, if it cannot.
    pub(super) fn refusal(&self, envelope: &Envelope, dialect: Dialect) -> Option<Reply> {
        // RFC 6531 section 3.2: nothing is rewritten.
        if envelope.needs_utf8() && !self.smtp_utf8 {
            return Some(replies::next_hop_without_utf8());
        }
        // RFC 8689 section 4.2.1. A mail store is the end of the way.
        if envelope.require_tls && !self.require_tls && dialect == Dialect::Smtp {
            return Some(replies::next_hop_without_require_tls());
        }
        // RFC 6152 section 3: nothing is re-encoded, signatures would break.
        // LMTP servers store octets as they come; not all of them say so.
        if envelope.eight_bit && !self.eight_bit_mime && dialect == Dialect::Smtp {
            return Some(replies::next_hop_without_eight_bit());
        }
        // RFC 1870 section 4: what the host would refuse is not sent.
        match self.size {
            Some(limit) if limit > 0 && envelope.size > limit => Some(replies::next_hop_size(limit)),
            _ => None,
        }
    }
}
