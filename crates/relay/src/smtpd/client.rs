//! What is known of the client itself: looked up once, at the first RCPT, before anything that costs more.

use super::connection::Connection;
use super::permit::Denial;
use crate::checks::{Finding, Observation, Phase};
use crate::verdict::judge;

/// What the checks found of a client under the name that it gave.
#[derive(Debug, Default)]
pub(super) struct Looked {
    helo: String,
    findings: Option<Vec<Finding>>,
}

impl Connection {
    /// Looks, unless that was done for this name; whether the client may go on.
    pub(super) async fn client_may_go_on(&mut self) -> Result<(), Denial> {
        let helo = self.facts("", &[]).helo.to_owned();
        if self.looked.findings.is_none() || self.looked.helo != helo {
            let findings = self.server.tools.run(Phase::Client, self.facts("", &[])).await;
            self.tell_findings(&findings);
            self.looked = Looked {
                helo,
                findings: Some(findings),
            };
        }
        let verdict = judge(&self.server.policy(false), "", self.client_findings());
        verdict.refusal().map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// What was found; nothing before the first RCPT.
    pub(super) fn client_findings(&self) -> &[Finding] {
        self.looked.findings.as_deref().unwrap_or_default()
    }

    /// Whether a list vouches for the client.
    pub(super) fn is_vouched_for(&self) -> bool {
        self.client_findings().iter().any(
            |finding| matches!(&finding.observation, Observation::Lists(listing) if listing.allowed.is_some()),
        )
    }
}
