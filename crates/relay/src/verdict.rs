//! The one place that decides: findings in, [`Verdict`] out.
//!
//! What a failing check means is the table in [`weigh`] and nowhere else. Nothing passes unscanned: a scanner, the
//! recipient check or a broken lookup that cannot answer means 451, or for a scanner, where the site chooses that
//! ([`Policy::may_hold`]), that the message is held until it does; a temporary DNS error of SPF or DKIM counts only where
//! it could change a DMARC reject or quarantine, and only for [`PATIENCE`].

use std::time::Duration;

use postern_smtp::replies;
use postern_smtp::reply::Reply;

use crate::checks::authentication::{AuthResult, Authenticated, DomainPolicy};
use crate::checks::greylist::Seen;
use crate::checks::helo::Greeting;
use crate::checks::lists::Listing;
use crate::checks::recipient::Existence;
use crate::checks::reverse::Reverse;
use crate::checks::{Finding, Observation};
use crate::config::{Attitude, CheckName, Config, Encrypted, ListAction};
use crate::scan::Seen as Structure;

/// How long one sender is deferred for temporary DNS errors before the mail is taken with a mark.
pub const PATIENCE: Duration = Duration::from_hours(6);

/// What is done with a recipient or a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Taken.
    Accept,
    /// Taken, with a mark that the mailbox owner's filter can see.
    Mark(Refusal),
    /// Taken into the hold, for only a scanner's answer is missing: not to be delivered before there is one.
    Hold(Refusal),
    /// Not now: 4xx.
    Defer(Refusal),
    /// Never: 5xx.
    Reject(Refusal),
}

/// Which check decided, and what it tells the client (a mark's reply is not sent).
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// What the client reads.
    pub reply: Reply,
    /// Which check.
    pub check: CheckName,
    /// How it knows.
    pub evidence: String,
}

/// What the site wants, as far as decisions need it.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What an address without a name that leads back to it means.
    pub reverse_dns: Attitude,
    /// What a name in EHLO that cannot be the client's means.
    pub helo: Attitude,
    /// From this spam score on a message is marked.
    pub mark_score: f64,
    /// From this spam score on a message is refused.
    pub reject_score: f64,
    /// What is done with archives that are encrypted.
    pub encrypted: Encrypted,
    /// Whether this sender has been deferred for temporary DNS errors for longer than [`PATIENCE`].
    pub patience_over: bool,
    /// Whether a message for which a scanner has not answered may be taken, to be scanned after.
    pub may_hold: bool,
}

impl Policy {
    /// What `config` says, for a sender whose patience is known.
    pub fn new(config: &Config, patience_over: bool) -> Self {
        let spam = config.spam.as_ref();
        Self {
            reverse_dns: config.client.reverse_dns,
            helo: config.client.helo,
            mark_score: spam.map_or(f64::INFINITY, |spam| spam.mark_score),
            reject_score: spam.map_or(f64::INFINITY, |spam| spam.reject_score),
            encrypted: config
                .virus
                .as_ref()
                .map_or_else(Default::default, |virus| virus.encrypted),
            patience_over,
            may_hold: false,
        }
    }
}

impl Verdict {
    /// The word for the trace.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Mark(_) => "mark",
            Self::Hold(_) => "hold",
            Self::Defer(_) => "defer",
            Self::Reject(_) => "reject",
        }
    }

    /// Whether only a temporary DNS error stands against the message; such a sender's patience has an end.
    pub fn is_for_dns(&self) -> bool {
        matches!(self, Self::Defer(refusal)
            if matches!(refusal.check, CheckName::Spf | CheckName::Dkim | CheckName::Dmarc))
    }

    /// What is told to the client, where the answer is no.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Defer(refusal) | Self::Reject(refusal) => Some(refusal),
            Self::Accept | Self::Mark(_) | Self::Hold(_) => None,
        }
    }

    fn severity(&self) -> u8 {
        match self {
            Self::Accept => 0,
            Self::Mark(_) => 1,
            Self::Hold(_) => 2,
            Self::Defer(_) => 3,
            Self::Reject(_) => 4,
        }
    }
}

/// The verdict over all findings: the severest, and of equals the first.
pub fn judge(policy: &Policy, recipient: &str, findings: &[Finding]) -> Verdict {
    let mut verdict = Verdict::Accept;
    let score = score(findings);
    for finding in findings {
        let next = weigh(policy, recipient, finding, score.unwrap_or_default());
        if next.severity() > verdict.severity() {
            verdict = next;
        }
    }
    verdict
}

/// The spam score with the weights of the lists; nothing where nobody scored.
pub fn score(findings: &[Finding]) -> Option<f64> {
    let scored = findings.iter().find_map(|finding| match finding.observation {
        Observation::Scored(score) => Some(score),
        _ => None,
    });
    let weights = findings.iter().map(|finding| match &finding.observation {
        Observation::Lists(listing) => listing.weight(),
        _ => 0.0,
    });
    scored.map(|scored| scored + weights.sum::<f64>())
}

/// What one finding means; `score` is that of all.
#[expect(clippy::match_same_arms, reason = "a table is read row by row")]
fn weigh(policy: &Policy, recipient: &str, finding: &Finding, score: f64) -> Verdict {
    let because = |reply: Reply| Refusal {
        reply,
        check: finding.check,
        evidence: finding.evidence.clone(),
    };
    match &finding.observation {
        Observation::Greeting(Greeting::Plausible) | Observation::Reverse(Reverse::Confirmed(_)) => {
            Verdict::Accept
        }
        // A name that does not exist is a fault of many honest hosts: a step milder.
        Observation::Greeting(Greeting::Unresolvable) if policy.helo == Attitude::Reject => {
            Verdict::Mark(because(replies::bad_helo()))
        }
        Observation::Greeting(Greeting::Unresolvable) => Verdict::Accept,
        Observation::Greeting(_) => wanted(policy.helo, because(replies::bad_helo())),
        Observation::Reverse(_) => wanted(policy.reverse_dns, because(replies::no_reverse_dns())),
        Observation::Lists(listing) => listed(listing, because),

        Observation::Clean
        | Observation::Recipient(Existence::Exists)
        | Observation::Greylist(Seen::Known) => Verdict::Accept,

        Observation::Encrypted(_) if policy.encrypted == Encrypted::Accept => Verdict::Accept,
        Observation::Encrypted(name) | Observation::Unscannable(name) => {
            Verdict::Reject(because(replies::unscannable(name)))
        }
        Observation::Virus(name) => Verdict::Reject(because(replies::virus(name))),
        Observation::Content(seen) => content(seen, because),
        Observation::Scored(_) if score >= policy.reject_score => {
            Verdict::Reject(because(replies::spam(score, policy.reject_score)))
        }
        Observation::Scored(_) if score >= policy.mark_score => {
            Verdict::Mark(because(replies::spam(score, policy.reject_score)))
        }
        Observation::Scored(_) => Verdict::Accept,

        Observation::Recipient(Existence::Unknown) => {
            Verdict::Reject(because(replies::unknown_recipient(recipient)))
        }
        Observation::Recipient(Existence::Full) => Verdict::Defer(because(replies::mailbox_full(recipient))),
        Observation::Greylist(Seen::Wait(left)) => {
            Verdict::Defer(because(replies::greylisted(left.as_secs().max(1))))
        }

        Observation::Authenticated(seen) if finding.check == CheckName::Dmarc => dmarc(policy, seen, because),
        // SPF and DKIM alone refuse nothing: forwarders break the one, mailing lists the other.
        Observation::Authenticated(_) => Verdict::Accept,

        Observation::NoAnswer | Observation::Unfinished => no_answer(policy, finding.check, because),
    }
}

fn wanted(attitude: Attitude, refusal: Refusal) -> Verdict {
    match attitude {
        Attitude::Mark => Verdict::Mark(refusal),
        Attitude::Reject => Verdict::Reject(refusal),
    }
}

/// A list that refuses goes before one that marks; one that scores has its say in the score, one that allows has left no other.
fn listed(listing: &Listing, because: impl Fn(Reply) -> Refusal) -> Verdict {
    let on = |action| listing.hits.iter().find(|hit| hit.action == action);
    if let Some(hit) = on(ListAction::Reject) {
        Verdict::Reject(because(replies::dns_listed(&hit.zone)))
    } else if let Some(hit) = on(ListAction::Mark) {
        Verdict::Mark(because(replies::dns_listed(&hit.zone)))
    } else {
        Verdict::Accept
    }
}

fn dmarc(policy: &Policy, seen: &Authenticated, because: impl Fn(Reply) -> Refusal) -> Verdict {
    match (seen.result, seen.policy) {
        // No policy covers several authors' domains, so that adding one would evade any (RFC 7489 section 6.6.1).
        (AuthResult::Ambiguous, _) => Verdict::Reject(because(replies::malformed_header())),
        (AuthResult::Pass | AuthResult::None, _) | (_, DomainPolicy::None) => Verdict::Accept,
        // Local policy (RFC 7489 section 6.7): somebody the site trusts saw it pass before forwarding broke it.
        (AuthResult::Fail, _) if seen.vouched_by.is_some() => Verdict::Accept,
        (AuthResult::Temporary, _) if policy.patience_over => {
            Verdict::Mark(because(replies::authentication_temporary(&seen.domain)))
        }
        (AuthResult::Temporary, _) => {
            Verdict::Defer(because(replies::authentication_temporary(&seen.domain)))
        }
        (AuthResult::Fail, DomainPolicy::Reject) => {
            Verdict::Reject(because(replies::dmarc_rejected(&seen.domain)))
        }
        (AuthResult::Fail, DomainPolicy::Quarantine | DomainPolicy::Unknown) => {
            Verdict::Mark(because(replies::dmarc_rejected(&seen.domain)))
        }
    }
}

fn content(seen: &Structure, because: impl Fn(Reply) -> Refusal) -> Verdict {
    match seen {
        Structure::Denied { attachment, rule } => {
            Verdict::Reject(because(replies::attachment_refused(attachment, rule)))
        }
        Structure::Beyond { what } => Verdict::Reject(because(replies::content_beyond(what))),
        Structure::Ambiguous { what } => Verdict::Reject(because(replies::content_ambiguous(what))),
        Structure::Odd { what } => Verdict::Mark(because(replies::content_ambiguous(what))),
        Structure::Encrypted { attachment } | Structure::Unreadable { attachment, .. } => {
            Verdict::Reject(because(replies::unscannable(attachment)))
        }
    }
}

fn no_answer(policy: &Policy, check: CheckName, because: impl Fn(Reply) -> Refusal) -> Verdict {
    let scanner = if policy.may_hold {
        Verdict::Hold
    } else {
        Verdict::Defer
    };
    match check {
        CheckName::Spam => scanner(because(replies::scanner_unavailable("spam scanner"))),
        CheckName::Virus => scanner(because(replies::scanner_unavailable("virus scanner"))),
        CheckName::Content => Verdict::Defer(because(replies::scanner_unavailable("content scanner"))),
        CheckName::Recipient => Verdict::Defer(because(replies::recipient_unverifiable())),
        CheckName::Spf | CheckName::Dkim | CheckName::Dmarc if policy.patience_over => {
            Verdict::Mark(because(replies::authentication_temporary("the sender")))
        }
        CheckName::Spf | CheckName::Dkim | CheckName::Dmarc => {
            Verdict::Defer(because(replies::authentication_temporary("the sender")))
        }
        // Without its result DMARC stands as it is; the others are signs only, and DNS is not the client's to mend.
        CheckName::Greylist
        | CheckName::Arc
        | CheckName::Helo
        | CheckName::ReverseDns
        | CheckName::DnsLists => Verdict::Accept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::lists::Hit;

    fn policy() -> Policy {
        Policy {
            reverse_dns: Attitude::Mark,
            helo: Attitude::Mark,
            mark_score: 5.0,
            reject_score: 10.0,
            encrypted: Encrypted::Refuse,
            patience_over: false,
            may_hold: false,
        }
    }

    fn found(check: CheckName, observation: Observation) -> Finding {
        Finding {
            check,
            observation,
            evidence: "e".into(),
            millis: 1,
        }
    }

    fn dmarc_saw(result: AuthResult, policy: DomainPolicy) -> Finding {
        let seen = Authenticated {
            result,
            results: String::new(),
            proves_reverse_path: false,
            policy,
            domain: "x.example".into(),
            vouched_by: None,
            sealed: Vec::new(),
            report: None,
        };
        found(CheckName::Dmarc, Observation::Authenticated(seen))
    }

    fn outcome(policy: &Policy, findings: &[Finding]) -> (&'static str, u16) {
        let verdict = judge(policy, "a@example.org", findings);
        let code = verdict.refusal().map_or(0, |refusal| refusal.reply.code.value());
        (verdict.word(), code)
    }

    #[test]
    fn no_check_that_must_answer_passes_without_an_answer() {
        let unfinished = found(CheckName::Virus, Observation::Unfinished);
        assert_eq!(outcome(&policy(), &[unfinished]), ("defer", 451));
        for check in [
            CheckName::Spam,
            CheckName::Virus,
            CheckName::Content,
            CheckName::Recipient,
            CheckName::Spf,
        ] {
            assert_eq!(
                outcome(&policy(), &[found(check, Observation::NoAnswer)]),
                ("defer", 451),
                "{check:?}"
            );
        }
    }

    #[test]
    fn only_what_a_scanner_alone_stands_against_is_held() {
        let holding = Policy {
            may_hold: true,
            ..policy()
        };
        let silent = |check| found(check, Observation::NoAnswer);
        let scored = |score| found(CheckName::Spam, Observation::Scored(score));
        let no_virus_scan = || silent(CheckName::Virus);
        for (other, expected) in [
            (scored(1.0), "hold"),
            (scored(6.0), "hold"),
            (scored(10.0), "reject"),
            (silent(CheckName::Spam), "hold"),
            (found(CheckName::Virus, Observation::Unfinished), "hold"),
            (silent(CheckName::Content), "defer"),
            (silent(CheckName::Spf), "defer"),
            (dmarc_saw(AuthResult::Temporary, DomainPolicy::Reject), "defer"),
            (dmarc_saw(AuthResult::Fail, DomainPolicy::Reject), "reject"),
            (dmarc_saw(AuthResult::Fail, DomainPolicy::Quarantine), "hold"),
        ] {
            let findings = [other, no_virus_scan()];
            assert_eq!(outcome(&holding, &findings).0, expected, "{findings:?}");
            assert_ne!(outcome(&policy(), &findings).0, "hold");
        }
    }

    #[test]
    fn the_severest_finding_decides() {
        let virus = found(CheckName::Virus, Observation::Virus("Eicar".into()));
        let silent = found(CheckName::Spam, Observation::NoAnswer);
        assert_eq!(
            outcome(&policy(), &[silent.clone(), virus.clone()]),
            ("reject", 554)
        );
        assert_eq!(outcome(&policy(), &[virus, silent]), ("reject", 554));
        let clean = found(CheckName::Virus, Observation::Clean);
        assert_eq!(outcome(&policy(), &[clean]), ("accept", 0));
    }

    #[test]
    fn what_cannot_be_scanned_is_refused_unless_the_site_wants_encrypted_archives() {
        let encrypted = found(
            CheckName::Virus,
            Observation::Encrypted("Heuristics.Encrypted.Zip".into()),
        );
        let bomb = found(
            CheckName::Virus,
            Observation::Unscannable("Heuristics.Limits.Exceeded.MaxFiles".into()),
        );
        assert_eq!(
            outcome(&policy(), std::slice::from_ref(&encrypted)),
            ("reject", 554)
        );
        assert_eq!(outcome(&policy(), std::slice::from_ref(&bomb)), ("reject", 554));
        let lenient = Policy {
            encrypted: Encrypted::Accept,
            ..policy()
        };
        assert_eq!(outcome(&lenient, &[encrypted]), ("accept", 0));
        assert_eq!(outcome(&lenient, &[bomb]), ("reject", 554));
    }

    #[test]
    fn bad_signs_of_a_client_mean_what_the_site_wants() {
        let helo = |greeting| [found(CheckName::Helo, Observation::Greeting(greeting))];
        let reverse = |reverse| [found(CheckName::ReverseDns, Observation::Reverse(reverse))];
        let strict = Policy {
            reverse_dns: Attitude::Reject,
            helo: Attitude::Reject,
            ..policy()
        };
        for (findings, mild, hard) in [
            (helo(Greeting::Plausible), "accept", "accept"),
            (helo(Greeting::Unresolvable), "accept", "mark"),
            (helo(Greeting::Ours), "mark", "reject"),
            (helo(Greeting::OthersAddress), "mark", "reject"),
            (helo(Greeting::Malformed), "mark", "reject"),
            (
                reverse(Reverse::Confirmed("a.example".into())),
                "accept",
                "accept",
            ),
            (reverse(Reverse::Missing), "mark", "reject"),
            (
                reverse(Reverse::Unconfirmed("a.example".into())),
                "mark",
                "reject",
            ),
        ] {
            assert_eq!(outcome(&policy(), &findings).0, mild, "{findings:?}");
            assert_eq!(outcome(&strict, &findings).0, hard, "{findings:?}");
        }
        for check in [CheckName::Helo, CheckName::ReverseDns, CheckName::DnsLists] {
            assert_eq!(
                outcome(&strict, &[found(check, Observation::NoAnswer)]).0,
                "accept"
            );
        }
    }

    #[test]
    fn lists_refuse_mark_or_add_to_the_score() {
        let on = |actions: &[(ListAction, f64)]| {
            let hits = actions.iter().map(|(action, weight)| Hit {
                zone: "list.example".into(),
                code: [127, 0, 0, 2].into(),
                action: *action,
                weight: *weight,
            });
            let listing = Listing {
                hits: hits.collect(),
                ..Listing::default()
            };
            found(CheckName::DnsLists, Observation::Lists(listing))
        };
        let both = on(&[(ListAction::Mark, 0.0), (ListAction::Reject, 0.0)]);
        assert_eq!(outcome(&policy(), &[both]), ("reject", 550));
        assert_eq!(outcome(&policy(), &[on(&[(ListAction::Mark, 0.0)])]).0, "mark");
        let light = on(&[(ListAction::Score, 2.0), (ListAction::Score, 1.0)]);
        let scored = |score| found(CheckName::Spam, Observation::Scored(score));
        assert_eq!(outcome(&policy(), std::slice::from_ref(&light)).0, "accept");
        for (spam, expected) in [(1.9, "accept"), (2.0, "mark"), (7.0, "reject")] {
            assert_eq!(
                outcome(&policy(), &[light.clone(), scored(spam)]).0,
                expected,
                "{spam}"
            );
        }
        assert_eq!(outcome(&policy(), &[on(&[])]).0, "accept");
    }

    #[test]
    fn scores_meet_their_limits() {
        for (score, expected) in [
            (4.9, "accept"),
            (5.0, "mark"),
            (9.9, "mark"),
            (10.0, "reject"),
            (-3.0, "accept"),
        ] {
            let scored = found(CheckName::Spam, Observation::Scored(score));
            assert_eq!(outcome(&policy(), &[scored]).0, expected, "{score}");
        }
    }

    #[test]
    fn dmarc_does_what_the_domain_asks() {
        use AuthResult::{Ambiguous, Fail, None, Pass, Temporary};
        for (result, asked, expected) in [
            (Pass, DomainPolicy::Reject, "accept"),
            (None, DomainPolicy::None, "accept"),
            (Fail, DomainPolicy::None, "accept"),
            (Fail, DomainPolicy::Quarantine, "mark"),
            (Fail, DomainPolicy::Reject, "reject"),
            (Temporary, DomainPolicy::None, "accept"),
            (Temporary, DomainPolicy::Quarantine, "defer"),
            (Temporary, DomainPolicy::Reject, "defer"),
            (Temporary, DomainPolicy::Unknown, "defer"),
            (Ambiguous, DomainPolicy::None, "reject"),
        ] {
            assert_eq!(
                outcome(&policy(), &[dmarc_saw(result, asked)]).0,
                expected,
                "{result:?} {asked:?}"
            );
        }
        let tired = Policy {
            patience_over: true,
            ..policy()
        };
        assert_eq!(
            outcome(&tired, &[dmarc_saw(Temporary, DomainPolicy::Reject)]).0,
            "mark"
        );
    }

    #[test]
    fn structure_and_attachments() {
        let what = || "x".to_owned();
        for (seen, expected) in [
            (
                Structure::Denied {
                    attachment: what(),
                    rule: what(),
                },
                "reject",
            ),
            (Structure::Beyond { what: what() }, "reject"),
            (Structure::Ambiguous { what: what() }, "reject"),
            (Structure::Odd { what: what() }, "mark"),
        ] {
            let finding = found(CheckName::Content, Observation::Content(seen.clone()));
            assert_eq!(outcome(&policy(), &[finding]).0, expected, "{seen:?}");
        }
    }

    #[test]
    fn a_trusted_sealer_excuses_a_failure_and_nothing_else() {
        use AuthResult::{Ambiguous, Fail, Temporary};
        for (result, expected) in [(Fail, "accept"), (Ambiguous, "reject"), (Temporary, "defer")] {
            let mut finding = dmarc_saw(result, DomainPolicy::Reject);
            if let Observation::Authenticated(seen) = &mut finding.observation {
                seen.vouched_by = Some("list.example".into());
            }
            assert_eq!(outcome(&policy(), &[finding]).0, expected, "{result:?}");
        }
    }

    #[test]
    fn recipients() {
        let says = |existence| [found(CheckName::Recipient, Observation::Recipient(existence))];
        assert_eq!(outcome(&policy(), &says(Existence::Exists)), ("accept", 0));
        assert_eq!(outcome(&policy(), &says(Existence::Unknown)), ("reject", 550));
        assert_eq!(outcome(&policy(), &says(Existence::Full)), ("defer", 452));
        let wait = found(
            CheckName::Greylist,
            Observation::Greylist(Seen::Wait(Duration::from_secs(9))),
        );
        assert_eq!(outcome(&policy(), &[wait]), ("defer", 451));
    }
}
