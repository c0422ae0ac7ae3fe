//! The hourly limits, counted again over the recorded time, as smtpd counts them.
//!
//! A limit is raised for who has a history; of most the beginning lies before the journal, so that who is proven now is taken
//! to have one. Of a message whose sender and mailboxes are not told, only address and network are counted.

use std::net::IpAddr;

use mail_parser::DateTime;
use postern_control::Event;
use postern_smtp::replies;

use super::{CONVERSATIONS, Decision};
use crate::checks::{Finding, Observation};
use crate::config::{CheckName, Config};
use crate::rate::client;
use crate::reputation::hourly::{Hourly, Proof, Who, within};
use crate::reputation::local::Local;
use crate::reputation::{Answer, Limit, Millis, Question};

/// What stands for a local part that was left out.
const HIDDEN: &str = "*";

/// Limits and counts.
pub(super) struct Limits {
    hourly: Hourly,
    counts: Local,
}

/// A message as far as limits go.
#[derive(Clone, Copy)]
pub(super) struct Counted<'a> {
    pub(super) peer: IpAddr,
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
        let proves = |check| {
            self.findings.iter().any(|finding| {
                finding.check == check
                    && matches!(&finding.observation, Observation::Authenticated(seen) if seen.proves_reverse_path)
            })
        };
        let spf = proves(CheckName::Spf).then_some(Proof::Spf);
        let dkim = proves(CheckName::Dkim).then_some(Proof::Dkim(client(self.peer)));
        spf.into_iter().chain(dkim).collect()
    }
}

impl Limits {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            hourly: Hourly::new(&config.limits),
            counts: Local::new(CONVERSATIONS),
        }
    }

    /// At MAIL.
    pub(super) fn may_begin(&self, message: Counted<'_>) -> Option<Decision> {
        self.weigh(self.hourly.may_begin(message.who()), message)
    }

    /// At RCPT.
    pub(super) fn may_go_to(&self, mailbox: &str, message: Counted<'_>) -> Option<Decision> {
        if !is_told(mailbox) {
            return None;
        }
        self.weigh(self.hourly.may_go_to(message.who(), mailbox), message)
    }

    /// The message came: it is counted, where it is within the limits.
    pub(super) fn came(&self, message: Counted<'_>) -> Option<Decision> {
        let (who, proofs) = (message.who(), message.proofs());
        self.weigh(self.hourly.begin(who), message)
            .or_else(|| self.weigh(self.hourly.go_on(who, &proofs), message))
    }

    /// It was taken.
    pub(super) fn taken(&self, message: Counted<'_>, mailboxes: &[String]) {
        let told: Vec<String> = mailboxes
            .iter()
            .filter(|mailbox| is_told(mailbox))
            .cloned()
            .collect();
        for question in self.hourly.accepted(message.who(), &told, &[], false) {
            self.counts.answer(&question, message.at);
        }
    }

    fn weigh(&self, mut question: Question, message: Counted<'_>) -> Option<Decision> {
        if let Question::Weigh(weigh) = &mut question {
            weigh.proven = !message.proofs().is_empty();
        }
        let answer: Answer = self.counts.answer(&question, message.at);
        let exceeded = within(answer).err()?;
        let reply = replies::rate_limited(exceeded.limit.of(), exceeded.per_hour, exceeded.wait);
        Some(Decision::refused("defer", reply))
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
