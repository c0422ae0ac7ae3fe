//! Who sent it: SPF of HELO and MAIL FROM (RFC 7208), DKIM (RFC 6376), ARC (RFC 8617, in `arc.rs`), DMARC (RFC 7489), all by
//! mail-auth.
//!
//! Enters: client address, HELO, reverse-path, the message as it came. Leaves: one finding for each of the four with
//! its part of the Authentication-Results field (RFC 8601). Temporary errors are kept apart: whether they matter is
//! the verdict's business.

use std::time::Duration;

use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    AuthenticatedMessage, AuthenticationResults, DkimOutput, DkimResult, DmarcOutput, DmarcResult, DnsError,
    Error, MessageAuthenticator, SpfOutput, SpfResult,
};
use serde::{Deserialize, Serialize};

use super::arc::{self, Chain, ChainResult, Sealed};
use super::{Facts, Observation, Seeing, Tools};
use crate::config::CheckName;
use crate::reports::Seen;

/// Signatures of one message that are verified; more is a way to make us work.
const SIGNATURES: usize = 10;
/// Names that the signatures list, times fields of the header: what looking up the signed fields may cost.
pub(super) const COMPARISONS: usize = 1_000_000;
/// Time for SPF and for DKIM, each. Both depend on name servers of the client's choice; if they could use up the time of
/// the whole check, DMARC, which asks the author's, would never be judged.
pub(super) const PART: Duration = Duration::from_secs(15);
/// Wait for SPF where it only spares a sender a wait.
const SOON: Duration = Duration::from_secs(5);
/// Octets of one line of Authentication-Results; the next hop refuses lines over 998.
const RESULT_LINE: usize = 800;

/// What one of the methods saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Authenticated {
    /// The result.
    pub result: AuthResult,
    /// `method=result …` parts for Authentication-Results, each led by `;` and folding white space.
    #[serde(skip)]
    pub results: String,
    /// Whether this proves the reverse-path: SPF pass of MAIL FROM, or a DKIM signature of its domain.
    pub proves_reverse_path: bool,
    /// For DMARC that did not pass: what the domain's owner asks for.
    pub policy: DomainPolicy,
    /// DMARC's domain, else empty.
    pub domain: String,
    /// For DMARC that did not pass: the trusted sealer of an ARC chain who saw it pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouched_by: Option<String>,
    /// For DMARC that failed beside an ARC chain that holds: who sealed it, the last one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sealed: Vec<Sealed>,
    /// For DMARC where the domain asks for reports: what is to be reported.
    #[serde(skip)]
    pub report: Option<Box<Seen>>,
}

/// Result of a method, reduced to what decisions need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthResult {
    /// Proven.
    Pass,
    /// Disproven, or not aligned.
    Fail,
    /// DNS did not answer.
    Temporary,
    /// Nothing to judge by, or a broken record.
    None,
    /// The message has not one From field with one author domain: no policy covers it.
    Ambiguous,
}

/// What a domain's owner asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainPolicy {
    /// Nothing.
    None,
    /// Treat with suspicion.
    Quarantine,
    /// Refuse.
    Reject,
    /// The record could not be fetched.
    Unknown,
}

impl Authenticated {
    /// One word for the trace.
    pub fn word(&self) -> &'static str {
        match self.result {
            AuthResult::Pass => "pass",
            AuthResult::Fail => "fail",
            AuthResult::Temporary => "temperror",
            AuthResult::None => "none",
            AuthResult::Ambiguous => "ambiguous",
        }
    }
}

/// The row of the table: makes the findings, of those that the instance lists.
pub fn see<'a>(tools: &'a Tools, facts: Facts<'a>) -> Seeing<'a> {
    Box::pin(async move {
        let hostname = &tools.config.hostname;
        let all = observe(
            &tools.authenticator,
            hostname,
            &tools.config.trusted_sealers,
            facts,
        )
        .await;
        all.into_iter()
            .filter(|(name, _, _)| tools.enabled.contains(name))
            .map(|(name, seen, evidence)| (name, Observation::Authenticated(seen), evidence))
            .collect()
    })
}

/// Whether SPF says that the client may send for the domain of the reverse-path, as far as that is known soon: it
/// only spares a sender the greylist's wait.
pub async fn spf_passes(authenticator: &MessageAuthenticator, hostname: &str, facts: Facts<'_>) -> bool {
    if facts.reverse_path.is_empty() {
        return false;
    }
    let parameters = SpfParameters::verify_mail_from(facts.peer, facts.helo, hostname, facts.reverse_path);
    tokio::time::timeout(SOON, authenticator.verify_spf(parameters))
        .await
        .is_ok_and(|output| output.result() == SpfResult::Pass)
}

async fn observe(
    authenticator: &MessageAuthenticator,
    hostname: &str,
    trusted_sealers: &[String],
    facts: Facts<'_>,
) -> Vec<(CheckName, Authenticated, String)> {
    let helo = spf_in_time(
        authenticator.verify_spf(SpfParameters::verify_ehlo(facts.peer, facts.helo, hostname)),
        facts.helo,
    );
    let mail = async {
        if facts.reverse_path.is_empty() {
            return None;
        }
        let parameters =
            SpfParameters::verify_mail_from(facts.peer, facts.helo, hostname, facts.reverse_path);
        Some(spf_in_time(authenticator.verify_spf(parameters), facts.reverse_path).await)
    };
    let message = AuthenticatedMessage::parse(facts.message).map(bounded);
    let dkim = async {
        match &message {
            Some(message) => tokio::time::timeout(PART, authenticator.verify_dkim(message))
                .await
                .unwrap_or_else(|_| dkim_out_of_time(message)),
            None => Vec::new(),
        }
    };
    let chain = async {
        match &message {
            Some(message) => arc::observe(authenticator, message, trusted_sealers).await,
            None => Chain::none(),
        }
    };
    let (helo, mail, dkim, chain) = tokio::join!(helo, mail, dkim, chain);
    // RFC 7208 section 2.4: with a null reverse-path the HELO name stands in for MAIL FROM.
    let spf = mail.as_ref().unwrap_or(&helo);
    let mail_domain = facts
        .reverse_path
        .rsplit_once('@')
        .map_or(facts.helo, |(_, domain)| domain);
    let (dmarc, ambiguous) = match &message {
        Some(message) => {
            let parameters = DmarcParameters::new(message, &dkim, mail_domain, spf);
            let ambiguous = from_fields(message) != 1 || author_domains(&message.from).len() != 1;
            (authenticator.verify_dmarc(parameters).await, ambiguous)
        }
        None => (DmarcOutput::default(), true),
    };
    let mut judged = dmarc_finding(hostname, &dmarc, ambiguous, &chain);
    if !ambiguous {
        let vouched_by = judged.1.vouched_by.as_deref();
        judged.1.report = Seen::new(facts, spf, mail_domain, &dkim, &dmarc, vouched_by)
            .filter(|_| judged.1.result != AuthResult::Temporary)
            .map(Box::new);
    }
    vec![
        spf_finding(hostname, facts, &helo, mail.as_ref()),
        dkim_finding(hostname, &dkim, mail_domain),
        arc_finding(&chain),
        judged,
    ]
}

/// Leaves only as many signatures, and errors of signatures, as may cost us work and room.
fn bounded(mut message: AuthenticatedMessage<'_>) -> AuthenticatedMessage<'_> {
    let fields = message.headers.len();
    let mut comparisons = 0_usize;
    message.errors.truncate(SIGNATURES);
    message.dkim_headers.truncate(SIGNATURES);
    message.dkim_headers.retain(|signature| {
        comparisons = comparisons.saturating_add(signature.header.h.len().saturating_mul(fields));
        comparisons <= COMPARISONS
    });
    message
}

async fn spf_in_time(check: impl Future<Output = SpfOutput>, identity: &str) -> SpfOutput {
    tokio::time::timeout(PART, check).await.unwrap_or_else(|_| {
        let domain = identity.rsplit_once('@').map_or(identity, |(_, domain)| domain);
        SpfOutput::new(domain.to_owned()).with_result(SpfResult::TempError)
    })
}

fn dkim_out_of_time<'x>(message: &'x AuthenticatedMessage<'x>) -> Vec<DkimOutput<'x>> {
    let late = || Error::Dns(DnsError::Resolver("no answer in time".to_owned()));
    message
        .dkim_headers
        .iter()
        .map(|signature| DkimOutput::temp_err(late()).with_signature(&signature.header))
        .collect()
}

fn from_fields(message: &AuthenticatedMessage<'_>) -> usize {
    let is_from = |name: &[u8]| name.trim_ascii().eq_ignore_ascii_case(b"from");
    message.headers.iter().filter(|(name, _)| is_from(name)).count()
}

fn spf_finding(
    hostname: &str,
    facts: Facts<'_>,
    helo: &SpfOutput,
    mail: Option<&SpfOutput>,
) -> (CheckName, Authenticated, String) {
    let mut results = AuthenticationResults::new(hostname);
    let mut evidence = format!("helo {} {}", facts.helo, helo.result());
    if let Some(mail) = mail {
        results = results.with_spf_mailfrom_result(mail, facts.peer, facts.reverse_path, facts.helo);
        evidence = format!("mail {} {}; {evidence}", facts.reverse_path, mail.result());
    }
    results = results.with_spf_ehlo_result(helo, facts.peer, facts.helo);
    let result = match mail.unwrap_or(helo).result() {
        SpfResult::Pass => AuthResult::Pass,
        SpfResult::Fail | SpfResult::SoftFail => AuthResult::Fail,
        SpfResult::TempError => AuthResult::Temporary,
        SpfResult::Neutral | SpfResult::PermError | SpfResult::None => AuthResult::None,
    };
    let seen = Authenticated {
        result,
        results: parts(&results),
        proves_reverse_path: mail.is_some_and(|mail| mail.result() == SpfResult::Pass),
        policy: DomainPolicy::None,
        domain: String::new(),
        vouched_by: None,
        sealed: Vec::new(),
        report: None,
    };
    (CheckName::Spf, seen, evidence)
}

fn dkim_finding(
    hostname: &str,
    dkim: &[DkimOutput<'_>],
    mail_domain: &str,
) -> (CheckName, Authenticated, String) {
    let results = AuthenticationResults::new(hostname).with_dkim_results(dkim, "");
    let mut evidence = Vec::new();
    let mut result = AuthResult::None;
    let mut proves_reverse_path = false;
    for output in dkim {
        let domain = output.signature().map_or("?", |signature| signature.d.as_str());
        evidence.push(format!("{domain} {}", output.result()));
        match output.result() {
            DkimResult::Pass => {
                result = AuthResult::Pass;
                proves_reverse_path |= same_or_below(mail_domain, domain);
            }
            DkimResult::TempError(_) if result != AuthResult::Pass => result = AuthResult::Temporary,
            DkimResult::Fail(_) | DkimResult::PermError(_) | DkimResult::Neutral(_)
                if result == AuthResult::None =>
            {
                result = AuthResult::Fail;
            }
            _ => {}
        }
    }
    let evidence = if evidence.is_empty() {
        "no signature".to_owned()
    } else {
        evidence.join("; ")
    };
    let results = if dkim.is_empty() {
        ";\r\n\tdkim=none".to_owned()
    } else {
        parts(&results)
    };
    let seen = Authenticated {
        result,
        results,
        proves_reverse_path,
        policy: DomainPolicy::None,
        domain: String::new(),
        vouched_by: None,
        sealed: Vec::new(),
        report: None,
    };
    (CheckName::Dkim, seen, evidence)
}

fn arc_finding(chain: &Chain) -> (CheckName, Authenticated, String) {
    let seen = Authenticated {
        result: match chain.result {
            ChainResult::Pass => AuthResult::Pass,
            ChainResult::Fail => AuthResult::Fail,
            ChainResult::Temporary => AuthResult::Temporary,
            ChainResult::None => AuthResult::None,
        },
        results: chain.results.clone(),
        proves_reverse_path: false,
        policy: DomainPolicy::None,
        domain: String::new(),
        vouched_by: None,
        sealed: Vec::new(),
        report: None,
    };
    (CheckName::Arc, seen, chain.evidence.clone())
}

/// A failure that a trusted sealer would excuse waits while his keys cannot be fetched.
fn dmarc_finding(
    hostname: &str,
    dmarc: &DmarcOutput,
    ambiguous: bool,
    chain: &Chain,
) -> (CheckName, Authenticated, String) {
    let temporary = |result: &DmarcResult| matches!(result, DmarcResult::TempError(_));
    let passed = *dmarc.spf_result() == DmarcResult::Pass || *dmarc.dkim_result() == DmarcResult::Pass;
    let undecided = temporary(dmarc.spf_result()) || temporary(dmarc.dkim_result());
    let published = dmarc.dmarc_record().is_some();
    let excuse_pending = chain.voucher.is_some() && chain.result == ChainResult::Temporary;
    let result = if ambiguous {
        AuthResult::Ambiguous
    } else if passed {
        AuthResult::Pass
    } else if undecided || published && excuse_pending {
        AuthResult::Temporary
    } else if published {
        AuthResult::Fail
    } else {
        AuthResult::None
    };
    let policy = match dmarc.policy() {
        _ if !published && undecided => DomainPolicy::Unknown,
        Policy::Reject => DomainPolicy::Reject,
        Policy::Quarantine => DomainPolicy::Quarantine,
        Policy::None | Policy::Unspecified => DomainPolicy::None,
    };
    let seen = Authenticated {
        result,
        results: parts(&AuthenticationResults::new(hostname).with_dmarc_result(dmarc)),
        proves_reverse_path: false,
        policy,
        domain: dmarc.domain().to_owned(),
        vouched_by: chain.voucher.clone().filter(|_| result == AuthResult::Fail),
        sealed: if result == AuthResult::Fail {
            chain.sealed.clone()
        } else {
            Vec::new()
        },
        report: None,
    };
    let mut evidence = format!(
        "{} policy {:?}, spf {}, dkim {}",
        dmarc.domain(),
        policy,
        dmarc.spf_result(),
        dmarc.dkim_result()
    )
    .to_lowercase();
    if let Some(sealer) = &seen.vouched_by {
        let excuse = [
            "; overridden by local policy: the trusted sealer ",
            sealer,
            " saw it pass (ARC)",
        ];
        evidence.extend(excuse);
    }
    (CheckName::Dmarc, seen, evidence)
}

/// The parts after the authserv-id. Of a line that is too long only the result stays.
fn parts(results: &AuthenticationResults<'_>) -> String {
    let mut field = Vec::new();
    results.write_header(&mut field);
    let field = String::from_utf8_lossy(&field).into_owned();
    field.split_once(';').map_or(String::new(), |(_, parts)| {
        bounded_lines(&format!(";{}", parts.trim_end()))
    })
}

fn bounded_lines(parts: &str) -> String {
    let lines = parts.split("\r\n\t").map(|line| match line.split_once(' ') {
        Some((result, _)) if line.len() > RESULT_LINE && line.ends_with(';') => format!("{result};"),
        Some((result, _)) if line.len() > RESULT_LINE => result.to_owned(),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n\t")
}

/// Distinct domains in From, in lower case.
pub(super) fn author_domains(from: &[String]) -> Vec<String> {
    let mut domains: Vec<String> = from
        .iter()
        .filter_map(|author| author.rsplit_once('@'))
        .map(|(_, domain)| domain.to_lowercase())
        .collect();
    domains.sort();
    domains.dedup();
    domains
}

fn same_or_below(domain: &str, parent: &str) -> bool {
    let (domain, parent) = (domain.to_ascii_lowercase(), parent.to_ascii_lowercase());
    domain == parent
        || domain
            .strip_suffix(&parent)
            .is_some_and(|head| head.ends_with('.'))
}

#[cfg(test)]
#[path = "authentication_tests.rs"]
mod tests;
