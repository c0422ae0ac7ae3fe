//! Refusals before a verdict, and what size and recipients' domains decide: what becomes of them now.

use std::io::Write;

use postern_control::{Event, EventKind};
use postern_smtp::replies;

use super::limits::{Counted, at, is_told, told_by};
use super::{Conversation, Decision, Of, Replay};
use crate::checks::Finding;
use crate::config::RelayFor;
use crate::reputation::Limit;

impl Replay<'_> {
    /// A refusal before a verdict.
    pub(super) fn refusal(&mut self, event: &Event, of: Of<'_>, out: &mut impl Write) -> anyhow::Result<()> {
        let EventKind::Refused {
            stage,
            code,
            enhanced,
            text,
            check,
            from,
            to,
            ..
        } = &event.kind
        else {
            return Ok(());
        };
        let decision = if stage == "rcpt" && check.is_some() {
            let findings = self.findings(event);
            let recipient = to.first().map_or("", String::as_str);
            self.weigh(of.instance, of.peer, &findings, recipient, ("defer", false))
        } else if let Some(limit) = told_by(text) {
            let findings = if stage == "message" {
                self.findings(event)
            } else {
                // What was seen of other recipients belongs to the message that may still come.
                Vec::new()
            };
            let trace = event.trace.as_deref().unwrap_or_default();
            let user = self.conversations.get(trace).and_then(|known| known.user.clone());
            let message = of.counted.map(|peer| Counted {
                peer,
                user: user.as_deref(),
                from: from.as_deref().unwrap_or_default(),
                findings: &findings,
                at: at(event),
            });
            let over = message.and_then(|message| match (stage.as_str(), to.first()) {
                ("mail", _) => self.limits.may_begin(message),
                ("rcpt", Some(mailbox)) => self.limits.may_go_to(mailbox, message),
                ("rcpt", None) => None,
                _ => self.before_content(of, Some(message), &findings, "defer"),
            });
            let unknown = match limit {
                Limit::Sender => user.as_deref().or(from.as_deref()),
                Limit::Recipient => to.first().map(String::as_str),
                Limit::Address | Limit::Network => None,
            };
            if over.is_none() && unknown.is_some_and(|address| !is_told(address)) {
                self.summary.not_counted += 1;
                return Ok(());
            }
            over.unwrap_or(Decision::GOES_ON)
        } else if let Some(decision) = self.relaying(of.instance, stage, enhanced, text, to) {
            decision
        } else {
            return Ok(());
        };
        let was = if *code < 500 { "defer" } else { "reject" };
        self.compare(event, of, (from.as_deref(), to), was, &decision, out)
    }

    fn findings(&mut self, event: &Event) -> Vec<Finding> {
        let trace = event.trace.as_deref().unwrap_or_default();
        let conversation = self.conversations.get_mut(trace);
        conversation.map_or_else(Vec::new, Conversation::taken)
    }

    /// What becomes of a refusal to relay.
    fn relaying(
        &self,
        instance: &str,
        stage: &str,
        enhanced: &str,
        text: &str,
        to: &[String],
    ) -> Option<Decision> {
        let domain = to.first()?.rsplit_once('@')?.1;
        let denied = replies::relay_denied(domain);
        let is_that = stage == "rcpt"
            && Some(enhanced) == denied.enhanced.map(|code| code.to_string()).as_deref()
            && text == denied.text();
        is_that.then(|| self.envelope(instance, to, 0).unwrap_or(Decision::GOES_ON))
    }

    /// Whether size or a recipient's domain stand against a message now.
    pub(super) fn envelope(&self, instance: &str, to: &[String], size: u64) -> Option<Decision> {
        let limit = self.config.limits.max_message_size;
        if size > limit {
            return Some(Decision::refused("reject", replies::too_large(limit)));
        }
        let relay_for = self.config.instance.get(instance)?.relay_for;
        let foreign = to
            .iter()
            .filter_map(|address| address.rsplit_once('@'))
            .find(|(_, domain)| relay_for == RelayFor::LocalDomains && !self.config.is_local(domain));
        foreign.map(|(_, domain)| Decision::refused("reject", replies::relay_denied(domain)))
    }
}
