//! Messages in the hold are scanned after all: the queue hands out what this instance handed over unscanned, here the scanners
//! are asked that had not answered, and the queue is told what came of it.
//!
//! Judged is by all that was found, then and now, so that the verdict and the header fields are those of a message whose client
//! had waited. It is never refused: what would have been goes into quarantine.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use postern_control::EventKind;
use postern_sandbox::memfd;
use tokio::task::JoinSet;

use super::Server;
use crate::checks::{Facts, Finding, Observation, Phase};
use crate::config::CheckName;
use crate::handover::ROOM;
use crate::handover::hold::{Client, Outcome, ToScan};
use crate::verdict::{Policy, Verdict, judge, score};

/// Messages scanned at a time: as much memory as that many of the largest.
const AT_A_TIME: usize = 2;
/// Wait before the queue is asked again when it does not answer.
const PAUSE: Duration = Duration::from_secs(2);

/// Scans until the tasks are dropped. What is out then goes back to the hold.
pub(super) fn start(server: &Arc<Server>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let checks = &server.instance.checks;
    // Even where nothing is held any more: what was held before the configuration was changed still is.
    if checks.contains(&CheckName::Spam) || checks.contains(&CheckName::Virus) {
        for _ in 0..AT_A_TIME {
            let server = Arc::clone(server);
            tasks.spawn(async move {
                loop {
                    // A queue that does not listen refuses mail, which is told.
                    let _ = server.scan_held().await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
    }
    tasks
}

impl Server {
    /// Scans what the queue hands out, until the connection breaks.
    async fn scan_held(&self) -> std::io::Result<()> {
        let client = Client::connect(&self.config.handover_socket(&self.name)).await?;
        loop {
            let Some((message, memory)) = client.next().await? else {
                continue;
            };
            let outcome = self.scan(&message, &memory).await;
            if let Err(error) = client.scanned(outcome).await {
                let text = format!("what came of its scan was not recorded: {error}");
                let kind = EventKind::Warning { text };
                self.events.emit(Some(&message.trace), Some(&message.id), kind);
                return Err(error);
            }
        }
    }

    async fn scan(&self, message: &ToScan, memory: &OwnedFd) -> Outcome {
        let unusable = |error: &dyn std::fmt::Display| Outcome::NoAnswer(error.to_string());
        let mut findings: Vec<Finding> = match serde_json::from_str(&message.unscanned.evidence) {
            Ok(findings) => findings,
            Err(error) => return unusable(&error),
        };
        let most = self.config.limits.max_message_size + (1 << 20) + ROOM as u64;
        let memory = match memfd::map(memory, most) {
            Ok(memory) => memory,
            Err(error) => return unusable(&error),
        };
        let own = usize::try_from(message.unscanned.fields).unwrap_or(usize::MAX);
        let Some(octets) = memory.get(own..) else {
            return unusable(&"it is shorter than its own header fields");
        };
        let missing: Vec<CheckName> = missing(&findings).collect();
        // The scanners look at the message and at nothing else.
        let facts = Facts {
            peer: std::net::Ipv6Addr::UNSPECIFIED.into(),
            listed: false,
            helo: "",
            reverse_path: "",
            recipient: "",
            message: octets,
            memory: None,
        };
        let wanted = |check: &crate::checks::Check| missing.contains(&check.name);
        let found = self.tools.run_where(wanted, facts, None).await;
        for finding in &found {
            self.events
                .emit(Some(&message.trace), Some(&message.id), finding.event());
        }
        // A scanner that is switched off now has not answered either.
        for finding in found {
            if let Some(known) = findings.iter_mut().find(|known| known.check == finding.check) {
                *known = finding;
            }
        }
        self.conclude(message, &findings)
    }

    /// The verdict, as it would have been.
    fn conclude(&self, message: &ToScan, findings: &[Finding]) -> Outcome {
        // Who was impatient then is so still.
        let policy = Policy {
            may_hold: true,
            ..self.policy(true)
        };
        let (verdict, score) = (judge(&policy, "", findings), score(findings));
        let (decision, outcome) = match &verdict {
            Verdict::Accept | Verdict::Mark(_) => (
                verdict.word(),
                Outcome::Clean(super::headers::scan_fields(&verdict, score)),
            ),
            Verdict::Hold(refusal) | Verdict::Defer(refusal) => {
                let why = format!("{}: {}", refusal.check.as_str(), refusal.evidence);
                return Outcome::NoAnswer(why);
            }
            Verdict::Reject(refusal) => {
                let reason = format!("{}: {}", refusal.check.as_str(), refusal.evidence);
                ("quarantine", Outcome::Bad(reason))
            }
        };
        let event = EventKind::Verdict {
            decision: decision.into(),
            score,
        };
        self.events.emit(Some(&message.trace), Some(&message.id), event);
        outcome
    }
}

/// The scanners that have not answered.
pub(super) fn missing(findings: &[Finding]) -> impl Iterator<Item = CheckName> {
    let silent = |finding: &&Finding| {
        finding.observation == Observation::NoAnswer
            && crate::checks::CHECKS
                .iter()
                .any(|check| check.name == finding.check && check.phase == Phase::Content)
    };
    findings.iter().filter(silent).map(|finding| finding.check)
}
