//! A message for which the hold has no room: its client waits for the scanners as long as it would without a hold.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use postern_sandbox::memfd;
use postern_smtp::replies;
use postern_smtp::reply::Reply;
use postern_smtp::server::Message;

use super::connection::Connection;
use super::headers::scan_fields;
use super::permit::Denial;
use super::rescan::{missing, replace};
use crate::checks::{Check, Finding};
use crate::config::CheckName;
use crate::handover::{self, HandoverError};
use crate::verdict::{Verdict, score};

/// What there was to be held.
pub(super) struct NotHeld {
    /// Sealed; it ends with the message.
    pub memory: OwnedFd,
    /// Octets of that.
    pub size: u64,
    /// Our own header fields in front of it.
    pub fields: String,
    /// What was found so far.
    pub findings: Vec<Finding>,
    /// The reverse-path was.
    pub proven: bool,
}

/// Whether the queue could not hold a message that it could take without.
pub(super) fn is_not_held(answer: &Result<handover::Reply, HandoverError>) -> bool {
    match answer {
        Ok(handover::Reply::Refused { text, .. }) => *text == replies::hold_full().text(),
        // With what was found beside the envelope.
        Err(HandoverError::TooLarge { .. }) => true,
        _ => false,
    }
}

impl Connection {
    /// Asks the scanners that had not answered once more, for as long as they may take, judges, and hands the message over.
    pub(super) async fn take_when_scanned(
        &self,
        message: &Message,
        unscanned: NotHeld,
    ) -> Result<Reply, Denial> {
        let NotHeld {
            memory,
            size,
            mut fields,
            mut findings,
            proven,
        } = unscanned;
        let broken = |error: io::Error| {
            Denial::because(replies::queue_unavailable(), format!("sealed memory: {error}"))
        };
        let mapped = memfd::map(&memory, u64::MAX).map_err(broken)?;
        let own = usize::try_from(size)
            .ok()
            .and_then(|size| mapped.len().checked_sub(size));
        let octets = own.and_then(|own| mapped.get(own + fields.len()..));
        let octets = octets.ok_or_else(|| broken(io::ErrorKind::UnexpectedEof.into()))?;
        let silent: Vec<CheckName> = missing(&findings).collect();
        let (wanted, facts) = (
            |check: &Check| silent.contains(&check.name),
            self.facts("", octets),
        );
        let found = self.server.tools.run_where(wanted, facts, None).await;
        self.tell_findings(&found);
        replace(&mut findings, found);
        let (verdict, score) = (self.verdict(&findings, false), score(&findings));
        self.tell_verdict(&verdict, score);
        if let Some(refusal) = verdict.refusal() {
            return Err(refusal.into());
        }
        if matches!(verdict, Verdict::Accept) {
            self.remember_proof(&findings).await;
        }
        self.server.events.write_out();
        fields += &scan_fields(&verdict, score);
        let scanned = || {
            let mut writer = memfd::Writer::new()?;
            writer.write_all(fields.as_bytes())?;
            writer.write_all(octets)?;
            writer.seal()
        };
        let scanned = scanned().map_err(broken)?;
        let envelope = self.envelope(message, proven, (fields.len() + octets.len()) as u64);
        drop((mapped, memory));
        let answer = self.queue().hand_over(&envelope, scanned.as_fd()).await;
        let reply = self.answered(envelope, answer)?;
        let doubtful = matches!(verdict, Verdict::Mark(_));
        self.count_accepted(message, &findings, doubtful).await;
        Ok(reply)
    }
}
