//! Recorded traffic under another policy. Enters: the events of smtpd, as the journal holds them. Leaves: a line of JSON
//! for each verdict that this configuration would change, and a sum.
//!
//! Only what was seen is weighed again; nothing is looked up or scanned. Where the configuration asks for a check that
//! was not made then, the sum says so; a recipient who would no longer be refused has no message that could be judged.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mail_parser::DateTime;
use postern_control::{Event, EventKind, LINE_PREFIX};
use postern_smtp::replies;
use postern_smtp::reply::Reply;
use serde::Serialize;

use crate::checks::{Finding, Observation};
use crate::config::{Authentication, CheckName, Config, RelayFor, Submission};
use crate::rate::{Counts, client};
use crate::verdict::{Policy, Verdict, judge};

/// Conversations that are followed at a time; beyond it those longest without an end are forgotten.
const CONVERSATIONS: usize = 100_000;

/// A verdict that would be another.
#[derive(Debug, Serialize)]
struct Difference<'a> {
    time: &'a str,
    trace: &'a str,
    instance: &'a str,
    peer: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    to: &'a [String],
    was: &'a str,
    becomes: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<&'static str>,
    /// What the client would have read.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<String>,
}

/// The sum.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Verdicts weighed again.
    judged: u64,
    /// `accept -> reject` and the like.
    changes: BTreeMap<String, u64>,
    /// Checks that the configuration asks for and that were not made, with the number of messages.
    not_made: BTreeMap<&'static str, u64>,
    /// Checks whose observation the journal does not hold (of an older version).
    not_recorded: u64,
}

/// One connection so far.
#[derive(Debug, Default)]
struct Conversation {
    peer: Option<IpAddr>,
    findings: Vec<Finding>,
    /// What was seen of the client itself, once for all its messages.
    client: Vec<Finding>,
    /// What was seen of a message that was taken into the hold, until its id is known.
    held: Option<Vec<Finding>>,
    /// Its messages are passed on, and never held here.
    passed_on: bool,
    /// Where only a recipient was refused, the verdict over the message is still to come.
    since: u64,
}

impl Conversation {
    fn add(&mut self, finding: Finding) {
        if finding.check.is_of_client() {
            self.client.retain(|known| known.check != finding.check);
            self.client.push(finding);
        } else {
            self.findings.push(finding);
        }
    }

    /// What stands for or against what comes now.
    fn taken(&mut self) -> Vec<Finding> {
        let mut all = self.client.clone();
        all.append(&mut self.findings);
        all
    }
}

/// A message that was taken before the scanners had answered.
#[derive(Debug)]
struct Held {
    peer: Option<IpAddr>,
    findings: Vec<Finding>,
    since: u64,
}

/// What the configuration makes of one moment.
struct Decision {
    word: &'static str,
    check: Option<&'static str>,
    reply: Option<Reply>,
}

impl Decision {
    const GOES_ON: Self = Self {
        word: "accept",
        check: None,
        reply: None,
    };

    fn refused(word: &'static str, reply: Reply) -> Self {
        Self {
            word,
            check: None,
            reply: Some(reply),
        }
    }
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        let word = verdict.word();
        match verdict {
            Verdict::Accept => Self::GOES_ON,
            Verdict::Mark(refusal)
            | Verdict::Hold(refusal)
            | Verdict::Defer(refusal)
            | Verdict::Reject(refusal) => Self {
                word,
                check: Some(refusal.check.as_str()),
                // A mark and a hold are not told to the client.
                reply: (!matches!(word, "mark" | "hold")).then_some(refusal.reply),
            },
        }
    }
}

/// Reads events to the end of `input`.
///
/// # Errors
/// Where `input` cannot be read or `out` cannot be written.
pub fn replay(config: &Config, mut input: impl BufRead, mut out: impl Write) -> anyhow::Result<()> {
    let mut replay = Replay {
        config,
        addresses: Counts::new(CONVERSATIONS),
        began: None,
        conversations: HashMap::new(),
        held: HashMap::new(),
        summary: Summary::default(),
        events: 0,
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        if input
            .read_until(b'\n', &mut line)
            .context("cannot read the events")?
            == 0
        {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        if text.starts_with(LINE_PREFIX)
            && let Ok(event) = Event::from_line(&text)
        {
            replay.event(&event, &mut out)?;
        }
    }
    serde_json::to_writer(&mut out, &serde_json::json!({ "summary": replay.summary }))?;
    writeln!(out)?;
    out.flush().context("cannot write the result")
}

struct Replay<'a> {
    config: &'a Config,
    /// Messages of strangers by address.
    addresses: Counts,
    /// Seconds since 1970 of the first event, and what stands for it.
    began: Option<(i64, Instant)>,
    conversations: HashMap<String, Conversation>,
    /// Messages in the hold by their ids.
    held: HashMap<String, Held>,
    summary: Summary,
    events: u64,
}

impl Replay<'_> {
    fn event(&mut self, event: &Event, out: &mut impl Write) -> anyhow::Result<()> {
        let (Some(instance), Some(trace)) = (event.process.strip_prefix("smtpd/"), &event.trace) else {
            return Ok(());
        };
        let Some(strangers) = self
            .config
            .instance
            .get(instance)
            .map(|instance| instance.authentication == Authentication::None)
        else {
            return Ok(());
        };
        self.events += 1;
        if let (Some(id), EventKind::Check { .. } | EventKind::Verdict { .. }) = (&event.id, &event.kind) {
            return self.scanned_late(event, id, instance, out);
        }
        let conversation = self.conversations.entry(trace.clone()).or_default();
        conversation.since = self.events;
        let peer = conversation.peer;
        let counted = peer.filter(|peer| strangers && !self.config.is_listed(*peer));
        match &event.kind {
            EventKind::Connected { peer, .. } => {
                conversation.peer = peer.parse().ok();
                self.forget();
            }
            EventKind::Disconnected { .. } => {
                self.conversations.remove(trace);
            }
            EventKind::Authenticated { .. } | EventKind::OnBehalf { .. } => {
                let submission = self.config.instance.get(instance).map(|one| one.submission);
                conversation.passed_on = submission.is_some_and(|one| one != Submission::Off);
            }
            EventKind::Check {
                check,
                evidence,
                millis,
                seen,
                ..
            } => match finding(check, evidence, *millis, seen.as_ref()) {
                Some(finding) => conversation.add(finding),
                None => self.summary.not_recorded += 1,
            },
            EventKind::Refused {
                stage,
                code,
                enhanced,
                text,
                check,
                from,
                to,
                ..
            } if matches!(stage.as_str(), "mail" | "rcpt" | "message") => {
                // A refusal by the verdict over a message was told by its `Verdict` already.
                let decision = if stage == "rcpt" && check.is_some() {
                    let findings = conversation.taken();
                    self.weigh(
                        instance,
                        peer,
                        &findings,
                        to.first().map_or("", String::as_str),
                        ("defer", false),
                    )
                } else if let Some(decision) = self.again(instance, stage, enhanced, text, to, counted, event)
                {
                    decision
                } else {
                    return Ok(());
                };
                let was = if *code < 500 { "defer" } else { "reject" };
                self.compare(event, instance, peer, (from.as_deref(), to), was, &decision, out)?;
            }
            EventKind::Verdict { decision: was, .. } => {
                let findings = conversation.taken();
                let may_hold = self.config.hybrid.is_some() && !conversation.passed_on;
                conversation.held = (was == "hold").then(|| findings.clone());
                let now = self.instant(event);
                let over = counted.and_then(|peer| self.over_the_limit(peer, &findings, true, now));
                let decision = if let Some(over) = over {
                    over
                } else {
                    self.missing(instance, peer, &findings);
                    self.weigh(instance, peer, &findings, "", (was, may_hold))
                };
                self.compare(event, instance, peer, (None, &[]), was, &decision, out)?;
            }
            EventKind::Queued { from, to, size, .. } => {
                if let (Some(id), Some(findings)) = (&event.id, conversation.held.take()) {
                    let since = self.events;
                    let held = Held {
                        peer,
                        findings,
                        since,
                    };
                    self.held.insert(id.clone(), held);
                }
                if let Some(decision) = self.envelope(instance, to, *size) {
                    self.compare(event, instance, peer, (Some(from), to), "accept", &decision, out)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What came of the scan of a message that was held. What would be refused is in quarantine.
    fn scanned_late(
        &mut self,
        event: &Event,
        id: &str,
        instance: &str,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        match &event.kind {
            EventKind::Check {
                check,
                evidence,
                millis,
                seen,
                ..
            } => {
                if let (Some(found), Some(held)) = (
                    finding(check, evidence, *millis, seen.as_ref()),
                    self.held.get_mut(id),
                ) {
                    held.findings.retain(|known| known.check != found.check);
                    held.findings.push(found);
                }
                Ok(())
            }
            EventKind::Verdict { decision: was, .. } => {
                // Where the journal begins later, nobody knows what was found before.
                let Some(held) = self.held.remove(id) else {
                    return Ok(());
                };
                let mut decision = self.weigh(instance, held.peer, &held.findings, "", (was, true));
                if decision.word == "reject" {
                    (decision.word, decision.reply) = ("quarantine", None);
                }
                self.compare(event, instance, held.peer, (None, &[]), was, &decision, out)
            }
            _ => Ok(()),
        }
    }

    /// The verdict over what was seen. `was` tells how long the sender had been patient.
    fn weigh(
        &self,
        instance: &str,
        peer: Option<IpAddr>,
        findings: &[Finding],
        recipient: &str,
        (was, may_hold): (&str, bool),
    ) -> Decision {
        let listed = peer.is_some_and(|peer| self.config.is_listed(peer));
        let enabled: Vec<Finding> = findings
            .iter()
            .filter(|finding| self.asks(instance, finding.check, listed))
            .cloned()
            .collect();
        let policy = |patience_over| Policy {
            may_hold,
            ..Policy::new(self.config, patience_over)
        };
        let verdict = judge(&policy(false), recipient, &enabled);
        if verdict.is_for_dns() && was != "defer" {
            return judge(&policy(true), recipient, &enabled).into();
        }
        verdict.into()
    }

    fn asks(&self, instance: &str, check: CheckName, listed: bool) -> bool {
        self.config
            .instance
            .get(instance)
            .is_some_and(|instance| instance.checks.contains(&check))
            && !(listed && (check == CheckName::Greylist || check.is_of_client()))
    }

    /// Counts the checks that are asked for and were not made.
    fn missing(&mut self, instance: &str, peer: Option<IpAddr>, findings: &[Finding]) {
        let listed = peer.is_some_and(|peer| self.config.is_listed(peer));
        let Some(checks) = self
            .config
            .instance
            .get(instance)
            .map(|instance| &instance.checks)
        else {
            return;
        };
        for check in checks {
            if self.asks(instance, *check, listed) && !findings.iter().any(|finding| finding.check == *check)
            {
                *self.summary.not_made.entry(check.as_str()).or_default() += 1;
            }
        }
    }

    /// What becomes of a refusal that no check made: the hourly limit, and relaying.
    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    fn again(
        &mut self,
        instance: &str,
        stage: &str,
        enhanced: &str,
        text: &str,
        to: &[String],
        counted: Option<IpAddr>,
        event: &Event,
    ) -> Option<Decision> {
        if same_words(text, &over_the_limit(0, Duration::ZERO).text()) {
            let Some(peer) = counted else {
                return Some(Decision::GOES_ON);
            };
            let now = self.instant(event);
            let counts = stage == "message";
            return Some(
                self.over_the_limit(peer, &[], counts, now)
                    .unwrap_or(Decision::GOES_ON),
            );
        }
        let domain = to.first()?.rsplit_once('@')?.1;
        let denied = replies::relay_denied(domain);
        if stage == "rcpt"
            && Some(enhanced) == denied.enhanced.map(|code| code.to_string()).as_deref()
            && text == denied.text()
        {
            return Some(self.envelope(instance, to, 0).unwrap_or(Decision::GOES_ON));
        }
        None
    }

    /// The hourly limit of an address, which is raised for who has a history: who is proven now is taken to have one. A message
    /// within the limit is counted if it came.
    fn over_the_limit(
        &mut self,
        peer: IpAddr,
        findings: &[Finding],
        counts: bool,
        now: Instant,
    ) -> Option<Decision> {
        let limits = &self.config.limits;
        let proven = findings.iter().any(|finding| {
            matches!(&finding.observation, Observation::Authenticated(seen) if seen.proves_reverse_path)
        });
        let factor = if proven { limits.proven_factor } else { 1 };
        let limit = limits.messages_per_hour.saturating_mul(factor);
        let wait = self.addresses.wait(&client(peer), limit, now);
        if wait.is_none() && counts {
            self.addresses.count(&client(peer), now);
        }
        wait.map(|wait| Decision::refused("defer", over_the_limit(limit, wait)))
    }

    /// Whether size or a recipient's domain stand against a message now.
    fn envelope(&self, instance: &str, to: &[String], size: u64) -> Option<Decision> {
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

    #[expect(clippy::too_many_arguments, reason = "who, what, then and now")]
    fn compare(
        &mut self,
        event: &Event,
        instance: &str,
        peer: Option<IpAddr>,
        (from, to): (Option<&str>, &[String]),
        was: &str,
        decision: &Decision,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        self.summary.judged += 1;
        if decision.word == was {
            return Ok(());
        }
        *self
            .summary
            .changes
            .entry(format!("{was} -> {}", decision.word))
            .or_default() += 1;
        let difference = Difference {
            time: &event.time,
            trace: event.trace.as_deref().unwrap_or_default(),
            instance,
            peer,
            from,
            to,
            was,
            becomes: decision.word,
            check: decision.check,
            reply: decision.reply.as_ref().map(ToString::to_string),
        };
        serde_json::to_writer(&mut *out, &difference)?;
        writeln!(out).context("cannot write the result")
    }

    /// A moment for the limits to count by; a clock that goes back stands still.
    fn instant(&mut self, event: &Event) -> Instant {
        let seconds = DateTime::parse_rfc3339(&event.time).map_or(0, |time| time.to_timestamp());
        let (first, began) = *self.began.get_or_insert((seconds, Instant::now()));
        began + Duration::from_secs(u64::try_from(seconds - first).unwrap_or(0))
    }

    /// A journal that was cut short holds connections without an end.
    fn forget(&mut self) {
        if self.conversations.len() > CONVERSATIONS {
            let old = self.events.saturating_sub(10 * CONVERSATIONS as u64);
            self.conversations
                .retain(|_, conversation| conversation.since > old);
        }
        if self.held.len() > CONVERSATIONS {
            let old = self.events.saturating_sub(10 * CONVERSATIONS as u64);
            self.held.retain(|_, held| held.since > old);
        }
    }
}

fn finding(check: &str, evidence: &str, millis: u64, seen: Option<&serde_json::Value>) -> Option<Finding> {
    Some(Finding {
        check: serde_json::from_value(check.into()).ok()?,
        observation: serde_json::from_value::<Observation>(seen?.clone()).ok()?,
        evidence: evidence.to_owned(),
        millis,
    })
}

/// The refusal by the limit of an address; those of networks, senders and mailboxes are not counted again.
fn over_the_limit(per_hour: u32, wait: Duration) -> Reply {
    replies::rate_limited("from your address", per_hour, wait)
}

/// Whether two texts differ only in figures.
fn same_words(a: &str, b: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(a) == words(b)
}

#[cfg(test)]
mod tests;
