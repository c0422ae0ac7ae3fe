//! Where the hourly limits of strangers' messages are asked about; what they are is [`crate::reputation::hourly`]'s.

use postern_smtp::replies;
use postern_smtp::server::Message;

use super::connection::Connection;
use super::permit::Denial;
use crate::checks::authentication::AuthResult;
use crate::checks::{Finding, Observation};
use crate::config::CheckName;
use crate::rate::client;
use crate::reputation::hourly::{Hourly, Proof, Who, within};
use crate::reputation::{How, Question};

impl Connection {
    /// At MAIL.
    pub(super) async fn within_limits(&self) -> Result<(), Denial> {
        if let Some(user) = &self.user {
            return self.weighed(|hourly, _| hourly.of_user(user, How::Look)).await;
        }
        self.weighed(Hourly::may_begin).await
    }

    /// At RCPT, for a mailbox of ours.
    pub(super) async fn may_reach(&self, mailbox: &str) -> Result<(), Denial> {
        self.weighed(|hourly, who| hourly.may_go_to(who, mailbox)).await
    }

    /// At the end of the message, before it is looked at. Who logged in at a door for strangers has a sender's limit, and
    /// nothing to do with what else comes from his address.
    pub(super) async fn count_message(&self) -> Result<(), Denial> {
        if let Some(user) = &self.user {
            return self.weighed(|hourly, _| hourly.of_user(user, How::Take)).await;
        }
        self.weighed(Hourly::begin).await
    }

    /// When its origin is known, before what is in it is.
    pub(super) async fn count_sender(&self, findings: &[Finding]) -> Result<(), Denial> {
        let proofs = self.proofs(findings);
        self.weighed(|hourly, who| hourly.go_on(who, &proofs)).await
    }

    /// When the queue has it.
    pub(super) async fn count_accepted(&self, message: &Message, findings: &[Finding], marked: bool) {
        if !self.server.is_stranger(self.peer) {
            return;
        }
        let recipients = message.transaction.recipients.iter();
        let mailboxes: Vec<String> = recipients
            .map(|recipient| self.server.mailbox(&recipient.path))
            .collect();
        let passed = !marked && has_passed(findings, CheckName::Dmarc);
        let proofs = self.proofs(findings);
        let hourly = &self.server.hourly;
        for question in hourly.accepted(self.who(), &mailboxes, &proofs, passed) {
            self.server.tools.reputation.ask(question).await;
        }
    }

    fn who(&self) -> Who<'_> {
        Who {
            peer: self.peer,
            reverse_path: self.facts("", &[]).reverse_path,
        }
    }

    /// What is said to a question about a client that is counted: neither one of ours nor a listed peer.
    async fn weighed(&self, question: impl FnOnce(&Hourly, Who<'_>) -> Question) -> Result<(), Denial> {
        if !self.server.is_stranger(self.peer) {
            return Ok(());
        }
        let question = question(&self.server.hourly, self.who());
        if matches!(&question, Question::Weigh(weigh) if weigh.counts.is_empty()) {
            return Ok(());
        }
        let answer = self.server.tools.reputation.ask(question).await;
        within(answer).map_err(|exceeded| {
            Denial::because(
                replies::rate_limited(exceeded.limit.of(), exceeded.per_hour, exceeded.wait),
                format!("{} is {}", exceeded.limit.key(), exceeded.per_hour),
            )
        })
    }

    fn proofs(&self, findings: &[Finding]) -> Vec<Proof> {
        let proves = |check| {
            findings.iter().any(|finding| {
                finding.check == check
                    && matches!(&finding.observation, Observation::Authenticated(seen) if seen.proves_reverse_path)
            })
        };
        let spf = proves(CheckName::Spf).then_some(Proof::Spf);
        let dkim = proves(CheckName::Dkim).then_some(Proof::Dkim(client(self.peer)));
        spf.into_iter().chain(dkim).collect()
    }
}

fn has_passed(findings: &[Finding], check: CheckName) -> bool {
    findings.iter().any(|finding| {
        finding.check == check
            && matches!(&finding.observation, Observation::Authenticated(seen) if seen.result == AuthResult::Pass)
    })
}
