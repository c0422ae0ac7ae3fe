//! The hourly limits, counted again over the recorded time, as smtpd counts them.
//!
//! A limit is raised for who has a history. Most began before the journal does: whoever is proven on its first day is taken to have
//! one, and who comes later makes his own, as he did at smtpd. Of a message whose sender and mailboxes are not told, only address and
//! network are counted.

use std::net::IpAddr;

use mail_parser::DateTime;
use postern_control::Event;
use postern_smtp::replies;

use super::{CONVERSATIONS, Decision};
use crate::checks::authentication::{AuthResult, Authenticated};
use crate::checks::{Finding, Observation};
use crate::config::{CheckName, Config};
use crate::rate::client;
use crate::reputation::hourly::{Hourly, Proof, Who, within};
use crate::reputation::local::Local;
use crate::reputation::{Accepted, Answer, How, Limit, Millis, Question};

/// What stands for a local part that was left out.
const HIDDEN: &str = "*";
/// Who is proven so soon after the journal's beginning has begun before it.
const FIRST_DAY: Millis = 24 * 3_600_000;

/// Limits and counts.
pub(super) struct Limits<'a> {
    config: &'a Config,
    hourly: Hourly,
    counts: Local,
    /// When the first event was.
    began: Option<Millis>,
}

/// A message as far as limits go.
#[derive(Clone, Copy)]
pub(super) struct Counted<'a> {
    pub(super) peer: IpAddr,
    /// Who logged in; he has a sender's limit and no other.
    pub(super) user: Option<&'a str>,
    pub(super) from: &'a str,
    pub(super) findings: &'a [Finding],
    pub(super) at: Millis,
}

impl<'a> Counted<'a> {
    /// Nobody is meant by a sender that was left out.
    fn who(self) -> Who<'a> {
        Who {
            peer: self.peer,
            reverse_path: if is_told(self.from) { self.from } else { "" },
        }
    }

    fn proofs(self) -> Vec<Proof> {
        let proves = |check| self.saw(check).any(|seen| seen.proves_reverse_path);
        let spf = proves(CheckName::Spf).then_some(Proof::Spf);
        let dkim = proves(CheckName::Dkim).then_some(Proof::Dkim(client(self.peer)));
        spf.into_iter().chain(dkim).collect()
    }

    fn passed_dmarc(self) -> bool {
        self.saw(CheckName::Dmarc)
            .any(|seen| seen.result == AuthResult::Pass)
    }

    fn saw(self, check: CheckName) -> impl Iterator<Item = &'a Authenticated> {
        self.findings
            .iter()
            .filter_map(move |finding| match &finding.observation {
                Observation::Authenticated(seen) if finding.check == check => Some(seen),
                _ => None,
            })
    }
}

impl<'a> Limits<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self {
            config,
            hourly: Hourly::new(&config.limits),
            counts: Local::new(CONVERSATIONS),
            began: None,
        }
    }

    /// An event was then.
    pub(super) fn goes_on(&mut self, now: Millis) {
        self.began.get_or_insert(now);
    }

    /// At MAIL.
    pub(super) fn may_begin(&self, message: Counted<'_>) -> Option<Decision> {
        self.beginning(message, How::Look)
    }

    /// At RCPT; a user's recipients are the inside's to judge.
    pub(super) fn may_go_to(&self, mailbox: &str, message: Counted<'_>) -> Option<Decision> {
        if !is_told(mailbox) || message.user.is_some() {
            return None;
        }
        let mailbox = self.mailbox(mailbox);
        self.weigh(self.hourly.may_go_to(message.who(), &mailbox), message)
    }

    /// The message came: it is counted, where it is within the limits.
    pub(super) fn begin(&self, message: Counted<'_>) -> Option<Decision> {
        self.beginning(message, How::Take)
    }

    fn beginning(&self, message: Counted<'_>, how: How) -> Option<Decision> {
        let question = match (message.user, how) {
            (Some(user), _) if !is_told(user) => return None,
            (Some(user), how) => self.hourly.of_user(user, how),
            (None, How::Look) => self.hourly.may_begin(message.who()),
            (None, _) => self.hourly.begin(message.who()),
        };
        self.weigh(question, message)
    }

    /// It is known where it comes from: its sender is counted.
    pub(super) fn go_on(&self, message: Counted<'_>) -> Option<Decision> {
        if message.user.is_some() {
            return None;
        }
        self.weigh(self.hourly.go_on(message.who(), &message.proofs()), message)
    }

    /// It was taken; where it was not marked or held it speaks for its sender.
    pub(super) fn taken(&self, message: Counted<'_>, mailboxes: &[String], doubtful: bool) {
        if message.user.is_some() {
            return;
        }
        let told = mailboxes.iter().filter(|mailbox| is_told(mailbox));
        let told: Vec<String> = told.map(|mailbox| self.mailbox(mailbox)).collect();
        let (proofs, passed) = (message.proofs(), !doubtful && message.passed_dmarc());
        for mut question in self.hourly.accepted(message.who(), &told, &proofs, passed) {
            if let Question::Accepted(Accepted {
                history: Some(history),
                ..
            }) = &mut question
                && self.is_first_day(message.at)
            {
                history.proven.clone_from(&history.proofs);
            }
            self.counts.answer(&question, message.at);
        }
    }

    fn weigh(&self, mut question: Question, message: Counted<'_>) -> Option<Decision> {
        if let Question::Weigh(weigh) = &mut question {
            weigh.proven =
                message.user.is_none() && self.is_first_day(message.at) && !message.proofs().is_empty();
        }
        let answer: Answer = self.counts.answer(&question, message.at);
        let exceeded = within(answer).err()?;
        let reply = replies::rate_limited(exceeded.limit.of(), exceeded.per_hour, exceeded.wait);
        Some(Decision::refused("defer", reply))
    }

    fn is_first_day(&self, at: Millis) -> bool {
        self.began
            .is_none_or(|began| at < began.saturating_add(FIRST_DAY))
    }

    /// `postmaster` alone and at our domains, in whatever case, is the site's postmaster (RFC 5321 section 4.5.1), as at smtpd.
    fn mailbox(&self, address: &str) -> String {
        let (local, domain) = address.rsplit_once('@').unzip();
        let is_ours = domain.is_none_or(|domain| self.config.is_local(domain));
        if is_ours && local.unwrap_or(address).eq_ignore_ascii_case("postmaster") {
            self.config.postmaster.clone()
        } else {
            address.to_owned()
        }
    }
}

/// Which limit a refusal's text tells of.
pub(super) fn told_by(text: &str) -> Option<Limit> {
    Limit::ALL.into_iter().find(|limit| {
        let reply = replies::rate_limited(limit.of(), 0, std::time::Duration::ZERO);
        same_words(text, &reply.text())
    })
}

/// Whether an address has its local part, or something that stands for it.
pub(super) fn is_told(address: &str) -> bool {
    address.rsplit_once('@').map_or(address, |(local, _)| local) != HIDDEN
}

/// When it was; 0 where that cannot be read.
pub(super) fn at(event: &Event) -> Millis {
    let seconds = DateTime::parse_rfc3339(&event.time).map_or(0, |time| time.to_timestamp());
    Millis::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

/// Whether two texts differ only in figures.
fn same_words(a: &str, b: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(a) == words(b)
}
