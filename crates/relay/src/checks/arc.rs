//! Who forwarded it: the Authenticated Received Chain (RFC 8617), verified by mail-auth.
//!
//! Enters: the message, the domains whose seals the site trusts. Leaves: the chain's result, its part of the
//! Authentication-Results field, and, where there is one, the trusted sealer that vouches for the author: a chain that holds
//! proves only who sealed it, not that he is honest (RFC 8617 section 7.2), so that his word counts for sealers in the list alone.

use mail_auth::{ArcOutput, AuthenticatedMessage, DkimResult, DnsError, Error, MessageAuthenticator};

use serde::{Deserialize, Serialize};

use super::authentication::{COMPARISONS, PART, author_domains};

/// Sets that a chain may have (RFC 8617 section 4.2.1).
const SETS: usize = 50;
/// Octets of all ARC fields: each seal covers every set before it, so that verifying costs the square of this.
const OCTETS: usize = 256 * 1024;

/// What the chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    /// Whether it holds.
    pub(super) result: ChainResult,
    /// `arc=result …` for Authentication-Results, led by `;` and folding white space.
    pub(super) results: String,
    /// How it is known, for the trace.
    pub(super) evidence: String,
    /// The trusted sealer that saw DMARC pass, if the chain holds: all sealers from him on are trusted.
    pub(super) voucher: Option<String>,
    /// Where it holds: who sealed it, the last one first, as far as their words could count.
    pub(super) sealed: Vec<Sealed>,
}

/// What one sealer says that he saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// His domain, in lower case.
    pub domain: String,
    /// DMARC passed for the author.
    pub dmarc_passed: bool,
    /// The chain before him held.
    pub arc_passed: bool,
}

/// Result of a chain (RFC 8617 section 4.4), with what could not be found out kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChainResult {
    /// The message has none.
    None,
    /// Every seal and the last signature hold.
    Pass,
    /// It is broken, or says so itself.
    Fail,
    /// A key could not be fetched.
    Temporary,
}

/// Verifies the chain of `message`; a sealer counts as trusted where `trusted` names its domain.
pub(super) async fn observe(
    authenticator: &MessageAuthenticator,
    message: &AuthenticatedMessage<'_>,
    trusted: &[String],
) -> Chain {
    if let Some(reason) = unusable(message) {
        return Chain::broken(reason);
    }
    let output = tokio::time::timeout(PART, authenticator.verify_arc(message))
        .await
        .unwrap_or_else(|_| {
            let late = Error::Dns(DnsError::Resolver("no answer in time".to_owned()));
            ArcOutput::default().with_result(DkimResult::TempError(late))
        });
    let result = match output.result() {
        DkimResult::None => ChainResult::None,
        DkimResult::Pass => ChainResult::Pass,
        DkimResult::TempError(_) => ChainResult::Temporary,
        DkimResult::Neutral(_) | DkimResult::Fail(_) | DkimResult::PermError(_) => ChainResult::Fail,
    };
    let author = match author_domains(&message.from).as_slice() {
        [only] => only.clone(),
        _ => String::new(),
    };
    // Out of time it has no sets, and what he who sealed it says is still to be known.
    let mut words = words(message, &author);
    let voucher = voucher(&words, trusted).filter(|_| match result {
        ChainResult::Pass => true,
        // A forger's own name server could be silent for as long as it takes.
        ChainResult::Temporary => only_trusted_keys(message, trusted),
        ChainResult::None | ChainResult::Fail => false,
    });
    let sealer = message
        .as_headers
        .last()
        .map_or(String::new(), |seal| plain(&seal.header.d));
    if result == ChainResult::None {
        return Chain::none();
    }
    if result != ChainResult::Pass {
        words.clear();
    }
    let word = if result == ChainResult::Pass {
        "pass"
    } else {
        "fail"
    };
    let why = match result {
        ChainResult::Temporary => "; its keys could not be fetched",
        _ => "",
    };
    Chain {
        results: format!(
            ";\r\n\tarc={word} (i={} sealed by {sealer}{why})",
            message.as_headers.len()
        ),
        evidence: format!(
            "{} sealed by {sealer}: {}",
            sets(message.as_headers.len()),
            output.result()
        ),
        result,
        voucher,
        sealed: words,
    }
}

impl Chain {
    /// Of a message without one.
    pub(super) fn none() -> Self {
        Self {
            result: ChainResult::None,
            results: ";\r\n\tarc=none".to_owned(),
            evidence: "no chain".to_owned(),
            voucher: None,
            sealed: Vec::new(),
        }
    }

    fn broken(reason: &str) -> Self {
        Self {
            result: ChainResult::Fail,
            results: format!(";\r\n\tarc=fail ({reason})"),
            evidence: reason.to_owned(),
            ..Self::none()
        }
    }
}

/// Why a chain is not looked at, though there is one.
fn unusable(message: &AuthenticatedMessage<'_>) -> Option<&'static str> {
    let counts = [
        message.ams_headers.len(),
        message.as_headers.len(),
        message.aar_headers.len(),
    ];
    if counts.iter().any(|count| *count > SETS) {
        return Some("more than 50 sets");
    }
    if counts != [counts[0]; 3] {
        return Some("sets that are not complete");
    }
    let size = |name: &[u8], value: &[u8]| name.len() + value.len();
    let octets: usize = message
        .ams_headers
        .iter()
        .map(|field| size(field.name, field.value))
        .chain(
            message
                .as_headers
                .iter()
                .map(|field| size(field.name, field.value)),
        )
        .chain(
            message
                .aar_headers
                .iter()
                .map(|field| size(field.name, field.value)),
        )
        .sum();
    if octets > OCTETS {
        return Some("fields beyond all bounds");
    }
    let last = &message.ams_headers.last()?.header;
    if last.h.len().saturating_mul(message.headers.len()) > COMPARISONS {
        return Some("fields beyond all bounds");
    }
    // What does not cover the author could be put in front of anybody's mail (RFC 6376 section 5.4).
    let covers_author = last.h.iter().any(|name| name.eq_ignore_ascii_case("from"));
    (!covers_author).then_some("its signature does not cover From")
}

/// What the sealers say, from the last set backwards, until one says that DMARC passed for `author`, or that he has not seen
/// a chain that holds: what is before that says nothing.
fn words(message: &AuthenticatedMessage<'_>, author: &str) -> Vec<Sealed> {
    let mut all = Vec::new();
    for (seal, results) in message.as_headers.iter().zip(&message.aar_headers).rev() {
        let said = Said::read(results.value, author);
        let domain = &seal.header.d;
        all.push(Sealed {
            // Some letters beyond ASCII have a lower case within it.
            domain: if domain.is_ascii() {
                plain(domain)
            } else {
                "?".to_owned()
            },
            dmarc_passed: said.dmarc_passed,
            arc_passed: said.arc_passed,
        });
        if said.dmarc_passed || !said.arc_passed {
            break;
        }
    }
    all
}

/// The sealer on whose word the author may be believed: from the last one backwards, as long as the sealers are trusted,
/// until one says that DMARC passed; one that saw it fail must himself have seen a chain that holds.
pub fn voucher(sealed: &[Sealed], trusted: &[String]) -> Option<String> {
    for seal in sealed {
        if !is_trusted(trusted, &seal.domain) {
            return None;
        }
        if seal.dmarc_passed {
            return Some(seal.domain.clone());
        }
        if !seal.arc_passed {
            return None;
        }
    }
    None
}

fn is_trusted(trusted: &[String], domain: &str) -> bool {
    trusted.iter().any(|name| name.eq_ignore_ascii_case(domain))
}

/// Whether every key that the chain is verified by is a trusted sealer's: those of all seals, and of the last signature.
fn only_trusted_keys(message: &AuthenticatedMessage<'_>, trusted: &[String]) -> bool {
    let signature = message.ams_headers.last();
    let seals = message.as_headers.iter().map(|seal| &seal.header.d);
    let mut all = signature
        .map(|signature| &signature.header.d)
        .into_iter()
        .chain(seals);
    all.all(|domain| is_trusted(trusted, domain))
}

/// What an ARC-Authentication-Results field says, as far as it counts here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    dmarc_passed: bool,
    arc_passed: bool,
}

impl Said {
    /// Reads the value of a field (RFC 8601 section 2.2). Of two results of one method the worse counts.
    fn read(value: &[u8], author: &str) -> Self {
        let mut dmarc = Vec::new();
        let mut arc = Vec::new();
        let value = without_comments(&String::from_utf8_lossy(value)).to_lowercase();
        for part in value.split(';') {
            let mut words = part.split_whitespace();
            let Some((method, result)) = words.next().and_then(|word| word.split_once('=')) else {
                continue;
            };
            match method {
                "dmarc" => {
                    let about = words.find_map(|word| word.strip_prefix("header.from="));
                    dmarc.push(result == "pass" && about.is_some_and(|from| from == author));
                }
                "arc" => arc.push(result == "pass"),
                _ => {}
            }
        }
        let all = |seen: &[bool]| !seen.is_empty() && seen.iter().all(|passed| *passed);
        Self {
            dmarc_passed: all(&dmarc),
            arc_passed: all(&arc),
        }
    }
}

/// Comments taken out; what stands in quotes goes with them, since no result is written so.
fn without_comments(value: &str) -> String {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut out = String::new();
    for c in value.chars() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match c {
            '\\' => escaped = true,
            '"' if depth == 0 => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            _ if depth == 0 && !quoted => out.push(c),
            _ => {}
        }
    }
    out
}

/// A domain as it may stand in a comment and in the trace.
fn plain(domain: &str) -> String {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain = domain.chars().map(|c| if allowed(c) { c } else { '?' });
    plain.take(255).collect::<String>().to_lowercase()
}

fn sets(count: usize) -> String {
    if count == 1 {
        "1 set".to_owned()
    } else {
        format!("{count} sets")
    }
}

#[cfg(test)]
#[path = "arc_tests.rs"]
mod tests;
