//! What a DMARC aggregate report is made of (RFC 7489 section 7.2; the format is that of RFC 9990).
//!
//! smtpd sees ([`Seen`]) and hands over in batches ([`observer`]), beside the mail and never before the client's 250; the queue,
//! which may write and send, collects and mails (`queue/reports.rs`). [`reader`] is for those that others send to us.

pub mod observer;
pub mod reader;
pub mod tls;

use mail_auth::report::{
    ActionDisposition, DKIMAuthResult, PolicyOverride, PolicyOverrideReason, PolicyPublished, Record,
    SPFDomainScope,
};
use mail_auth::{DkimOutput, DmarcOutput, DmarcResult, SpfOutput};
use serde::{Deserialize, Serialize};

use crate::checks::Facts;

/// Octets of a name in a report; no domain and no selector is longer (RFC 1035 section 2.3.4).
const NAME: usize = 253;
/// DKIM results in one row; a message may have as many signatures as its sender likes.
const SIGNATURES: usize = 4;
/// Observations in one batch: with the bounds above it fits into a packet of the handover socket.
pub const BATCH: usize = 24;

/// What was seen of one message whose author domain asks for reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The policy that was applied; its domain is the one that publishes it.
    pub policy: PolicyPublished,
    /// The row, with a count of 0.
    pub record: Record,
}

/// What goes to the queue at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// At most [`BATCH`].
    pub seen: Vec<Seen>,
}

impl Seen {
    /// What is told of a message; `None` where nobody asks, or DNS did not let us judge. `vouched_by` is the trusted sealer
    /// for whose sake a failure is excused.
    pub fn new(
        facts: Facts<'_>,
        spf: &SpfOutput,
        mail_domain: &str,
        dkim: &[DkimOutput<'_>],
        dmarc: &DmarcOutput,
        vouched_by: Option<&str>,
    ) -> Option<Self> {
        let record = dmarc.dmarc_record().filter(|record| !record.rua.is_empty())?;
        let undecided = |result: &DmarcResult| matches!(result, DmarcResult::TempError(_));
        if undecided(dmarc.spf_result()) || undecided(dmarc.dkim_result()) {
            return None;
        }
        let scope = if facts.reverse_path.is_empty() {
            SPFDomainScope::Helo
        } else {
            SPFDomainScope::MailFrom
        };
        let mut row = Record::new()
            .with_source_ip(facts.peer)
            .with_dmarc_output(dmarc)
            .with_dkim_output(dkim)
            .with_spf_output(spf, scope)
            .with_header_from(dmarc.domain());
        mail_domain.clone_into(&mut row.identifiers.envelope_from);
        if let Some(sealer) = vouched_by {
            let reason = PolicyOverrideReason::new(PolicyOverride::LocalPolicy)
                .with_comment(format!("ARC: the trusted sealer {sealer} saw it pass"));
            row = row
                .with_action_disposition(ActionDisposition::None)
                .with_policy_override_reason(reason);
        }
        Some(
            Self {
                policy: PolicyPublished::from_record(dmarc.domain(), record),
                record: row,
            }
            .bounded(),
        )
    }

    /// The same within bounds: names as long as names are, without what XML forbids; no free text of others.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.policy.domain = name(&self.policy.domain).to_lowercase();
        self.policy.fo = self.policy.fo.map(|fo| name(&fo));
        let record = &mut self.record;
        record.row.count = 0;
        record.row.policy_evaluated.reason.truncate(1);
        for reason in &mut record.row.policy_evaluated.reason {
            reason.comment = reason.comment.as_deref().map(name);
        }
        record.extensions.clear();
        let identifiers = &mut record.identifiers;
        identifiers.header_from = name(&identifiers.header_from).to_lowercase();
        identifiers.envelope_from = name(&identifiers.envelope_from);
        identifiers.envelope_to = None;
        record.auth_results.spf.truncate(1);
        for spf in &mut record.auth_results.spf {
            spf.domain = name(&spf.domain);
            spf.human_result = None;
        }
        record.auth_results.dkim.truncate(SIGNATURES);
        for dkim in &mut record.auth_results.dkim {
            *dkim = DKIMAuthResult {
                domain: name(&dkim.domain),
                selector: name(&dkim.selector),
                result: dkim.result,
                human_result: None,
            };
        }
        self
    }
}

fn name(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(NAME)];
    let forbidden = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if forbidden(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_write_stays_within_bounds() {
        let long = "d".repeat(1000);
        let dkim = DKIMAuthResult {
            domain: format!("a\u{1}\u{ffff}.{long}"),
            selector: long.clone(),
            human_result: Some(long.clone()),
            ..DKIMAuthResult::default()
        };
        let mut record = Record::new().with_count(7).with_envelope_to("secret@example.org");
        record.auth_results.dkim = vec![dkim; 100];
        record.identifiers.envelope_from = long.clone();
        record.identifiers.header_from = long;
        let policy = PolicyPublished::default();
        let seen = Seen { policy, record }.bounded();
        assert_eq!(seen.record.auth_results.dkim.len(), SIGNATURES);
        assert!(seen.record.auth_results.dkim[0].domain.starts_with("a??.ddd"));
        assert_eq!(seen.record.identifiers.envelope_to, None);
        assert_eq!(seen.record.row.count, 0);
        let batch = Batch {
            seen: vec![seen; BATCH],
        };
        let octets = serde_json::to_vec(&batch).expect("it can be written");
        assert!(octets.len() < crate::handover::MAX_PACKET, "{}", octets.len());
        assert_eq!(
            serde_json::from_slice::<Batch>(&octets).expect("it can be read"),
            batch
        );
    }
}
