//! Messages in the hold are scanned after all: the queue hands out what this instance handed over unscanned, here the scanners
//! are asked that had not answered, and the queue is told what came of it.
//!
//! Judged is by all that was found, then and now, so that the verdict and the header fields are those of a message whose client
//! had waited. It is never refused: what would have been goes into quarantine.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use postern_control::EventKind;
use postern_sandbox::memfd;
use serde::Deserialize as _;
use tokio::task::JoinSet;

use super::Server;
use crate::checks::{CHECKS, Facts, Finding, Observation, Phase};
use crate::config::CheckName;
use crate::handover::hold::{AT_A_TIME, Client, Outcome, ToScan};
use crate::scan::Seen;
use crate::verdict::{Policy, Verdict, judge, score};

/// Wait before the queue is asked again when it does not answer.
const PAUSE: Duration = Duration::from_secs(2);

/// Scans until the tasks are dropped. What is out then goes back to the hold.
pub(super) fn start(server: &Arc<Server>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let checks = &server.instance.checks;
    // Even where nothing is held any more: what was held before the configuration was changed still is.
    if checks.contains(&CheckName::Spam) || checks.contains(&CheckName::Virus) {
        for _ in 0..AT_A_TIME {
            let (server, teller) = (Arc::clone(server), Arc::clone(server));
            let scan = move || {
                let server = Arc::clone(&server);
                async move { server.scan_held().await }
            };
            tasks.spawn(keep_on(scan, move |text| teller.events.warn(text)));
        }
    }
    tasks
}

/// Does this again and again, with a pause between, and tells of what ends it: a fault over one message must not end the
/// scanning of all others, nor go unheard.
async fn keep_on<W>(work: impl Fn() -> W, warn: impl Fn(String))
where
    W: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        let mut one = JoinSet::new();
        one.spawn(work());
        match one.join_next().await {
            Some(Err(fault)) => warn(format!(
                "the scanning of held mail ended by a fault, and begins anew: {fault}"
            )),
            // A queue that does not listen refuses mail, which is told.
            Some(Ok(Err(error)))
                if !matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                ) =>
            {
                warn(format!(
                    "the scanning of held mail was broken off, and begins anew: {error}"
                ));
            }
            _ => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Server {
    /// Scans what the queue hands out, until the connection breaks.
    async fn scan_held(&self) -> io::Result<()> {
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
                return Ok(());
            }
        }
    }

    async fn scan(&self, message: &ToScan, memory: &OwnedFd) -> Outcome {
        let unusable = |error: &dyn std::fmt::Display| Outcome::NoAnswer(error.to_string());
        let mut findings = known(&message.unscanned.evidence);
        // It was taken once, whatever the largest is now.
        let memory = match memfd::map(memory, u64::MAX) {
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
        // Nothing passes unscanned because a scanner was switched off meanwhile.
        for finding in &mut findings {
            if missing.contains(&finding.check) {
                finding.observation = Observation::Unfinished;
                finding.evidence =
                    "this scanner is asked no more: switch it on again, or cancel the message".into();
            }
        }
        replace(&mut findings, found);
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
                let silent = |finding: &Finding| finding.observation == Observation::NoAnswer;
                return if findings
                    .iter()
                    .any(|finding| is_missing(finding) && silent(finding))
                {
                    Outcome::NoAnswer(why)
                } else {
                    Outcome::Unfinished(why)
                };
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

/// What was found when the message was taken. Of what another version of this program has found, and this one cannot read, it is
/// known that it did not stand against the message; it may have marked it, so that it does now. A scanner whose finding cannot
/// be read has not answered, and none has where it cannot be told whose that is: also one that has been switched off since.
fn known(evidence: &str) -> Vec<Finding> {
    let all: Vec<serde_json::Value> = serde_json::from_str(evidence).unwrap_or_default();
    let (mut findings, mut unread) = (Vec::new(), Vec::new());
    for one in &all {
        match Finding::deserialize(one) {
            Ok(finding) => findings.push(finding),
            Err(_) => unread.push(
                one.get("check")
                    .and_then(|name| CheckName::deserialize(name).ok()),
            ),
        }
    }
    if !all.is_empty() && unread.is_empty() {
        return findings;
    }
    let anybodys = all.is_empty() || unread.contains(&None);
    let what = "what was found when it was taken cannot be read".to_owned();
    let found = |check, observation| Finding {
        check,
        observation,
        evidence: what.clone(),
        millis: 0,
    };
    let scanners = CHECKS.iter().filter(|check| check.phase == Phase::Content);
    for check in scanners.filter(|check| anybodys || unread.contains(&Some(check.name))) {
        if !findings.iter().any(|finding| finding.check == check.name) {
            findings.push(found(check.name, Observation::NoAnswer));
        }
    }
    let odd = Observation::Content(Seen::Odd { what: what.clone() });
    findings.push(found(CheckName::Content, odd));
    findings
}

/// The scanners that have not answered, or not for all of the message.
pub(super) fn missing(findings: &[Finding]) -> impl Iterator<Item = CheckName> {
    findings
        .iter()
        .filter(|finding| is_missing(finding))
        .map(|finding| finding.check)
}

fn is_missing(finding: &Finding) -> bool {
    matches!(
        finding.observation,
        Observation::NoAnswer | Observation::Unfinished
    ) && CHECKS
        .iter()
        .any(|check| check.name == finding.check && check.phase == Phase::Content)
}

/// What was found now stands in place of what the same checks had found before.
pub(super) fn replace(findings: &mut [Finding], found: Vec<Finding>) {
    for finding in found {
        if let Some(known) = findings.iter_mut().find(|known| known.check == finding.check) {
            *known = finding;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::config::Config;

    #[tokio::test(start_paused = true)]
    async fn scanning_goes_on_behind_a_fault_and_an_error_and_both_are_told() {
        let (times, said) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, heard) = (Arc::clone(&times), Arc::clone(&said));
        let work = move || {
            let time = count.fetch_add(1, Ordering::Relaxed);
            async move {
                match time {
                    0 => panic!("the test wants a fault"),
                    1 => Err(io::ErrorKind::ConnectionRefused.into()),
                    2 => Err(io::Error::other("an answer that cannot be read")),
                    _ => std::future::pending().await,
                }
            }
        };
        let warn = move |text| heard.lock().unwrap().push(text);
        let _ = tokio::time::timeout(20 * PAUSE, keep_on(work, warn)).await;
        assert_eq!(times.load(Ordering::Relaxed), 4);
        let said = said.lock().unwrap();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("a fault") && said[1].contains("an answer that cannot be read"));
    }

    #[test]
    fn where_evidence_cannot_be_read_all_scanners_are_asked_and_the_message_is_marked() {
        let finding = |check, observation| Finding {
            check,
            observation,
            evidence: "e".into(),
            millis: 1,
        };
        let scanners = [CheckName::Spam, CheckName::Virus];
        let silent = [
            finding(CheckName::Spam, Observation::Scored(1.0)),
            finding(CheckName::Virus, Observation::NoAnswer),
        ];
        let whole = serde_json::to_string(&silent).unwrap();
        assert_eq!(known(&whole), silent);
        let names = |findings: &[Finding]| missing(findings).collect::<Vec<_>>();
        for unreadable in ["", "[]", "[1]", "{}"] {
            let found = known(unreadable);
            assert_eq!(names(&found), scanners, "{unreadable}");
        }
        // Of another version: one finding that this one does not know.
        let partly = whole.replace("\"no-answer\"", "\"asleep\"");
        let mut found = known(&partly);
        assert_eq!(names(&found), [CheckName::Virus]);
        replace(&mut found, vec![finding(CheckName::Virus, Observation::Clean)]);
        let config = Config::parse("t", CONFIGURATION, "/".into(), None).unwrap();
        let policy = Policy::new(&config, false);
        assert!(matches!(judge(&policy, "", &found), Verdict::Mark(_)));
    }

    const CONFIGURATION: &str = r#"
role = "internal"
hostname = "mail.example.org"
local-domains = ["example.org"]
postmaster = "postmaster@example.org"
state-directory = "state"
runtime-directory = "run"
[resolver]
address = "127.0.0.1:9"
[instance.public]
tls = "off"
relay-for = "local-domains"
authentication = "none"
[next-hop.mailboxes]
kind = "lmtp"
socket = "127.0.0.1:9"
[[route]]
from = ["inside"]
domains = ["example.org"]
next-hop = "mailboxes"
"#;
}
