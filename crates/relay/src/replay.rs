//! Recorded traffic under another policy. Enters: the events of smtpd, as the journal holds them. Leaves: a line of JSON
//! for each verdict that this configuration would change, and a sum.
//!
//! A verdict is weighed when it is known whose message it was over: with what is told next of the connection.
//! Only what was seen is weighed again; nothing is looked up or scanned. Where the configuration asks for a check that
//! was not made then, the sum says so; a recipient who would no longer be refused has no message that could be judged.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, Write};
use std::net::IpAddr;

use anyhow::Context as _;
use postern_control::{Event, EventKind, LINE_PREFIX};
use postern_smtp::reply::Reply;
use serde::Serialize;

mod limits;
mod refusals;

use crate::checks::arc;
use crate::checks::{Finding, Observation};
use crate::config::{Authentication, CheckName, Config, Submission};
use crate::reputation::Millis;
use crate::verdict::{Policy, Verdict, judge};
use limits::{Counted, Limits, at, is_told};

/// What a local part begins with that only stands for one (`postern policy replay`).
const PSEUDONYM: char = '~';
/// So long after a verdict it is told whose message it was over.
const PATIENCE: Millis = 60_000;
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
    from: Option<String>,
    to: Vec<String>,
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
    /// Messages whose sender and mailboxes could not be counted, since their local parts were left out.
    not_counted: u64,
}

/// One connection so far.
#[derive(Debug, Default)]
struct Conversation {
    peer: Option<IpAddr>,
    findings: Vec<Finding>,
    /// What was seen of the client itself, once for all its messages.
    client: Vec<Finding>,
    /// The last verdict, until it is known whose message it was over.
    pending: Option<Pending>,
    /// Its messages are passed on, and never held here.
    passed_on: bool,
    /// Who logged in.
    user: Option<String>,
    /// The hold had no room for the message, so that the scanners are asked once more.
    not_held: bool,
    /// Where only a recipient was refused, the verdict over the message is still to come.
    since: u64,
}

/// A verdict over a message.
#[derive(Debug)]
struct Pending {
    event: Event,
    was: String,
    findings: Vec<Finding>,
    /// Where a scanner had not answered, the message would have been held.
    may_hold: bool,
    user: Option<String>,
}

/// Whose connection it is.
#[derive(Clone, Copy)]
struct Of<'a> {
    instance: &'a str,
    peer: Option<IpAddr>,
    /// The client, where it is counted: neither one of ours nor a listed peer.
    counted: Option<IpAddr>,
    /// A user's, whose mail goes inward: it is only looked into for what must not pass.
    inward: bool,
}

impl Conversation {
    fn add(&mut self, finding: Finding) {
        if finding.check.is_of_client() {
            self.client.retain(|known| known.check != finding.check);
            self.client.push(finding);
        } else {
            if self.not_held {
                self.findings.retain(|known| known.check != finding.check);
            }
            self.findings.push(finding);
        }
    }

    /// What was to be held is judged again, by what the scanners say now and all else as before.
    fn judge_again(&mut self, to_hold: Pending) {
        self.not_held = true;
        let of_message = |finding: &Finding| !finding.check.is_of_client();
        self.findings = to_hold.findings.into_iter().filter(of_message).collect();
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
        limits: Limits::new(config),
        conversations: HashMap::new(),
        waiting: VecDeque::new(),
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
    replay.end(&mut out)?;
    serde_json::to_writer(&mut out, &serde_json::json!({ "summary": replay.summary }))?;
    writeln!(out)?;
    out.flush().context("cannot write the result")
}

struct Replay<'a> {
    config: &'a Config,
    limits: Limits<'a>,
    conversations: HashMap<String, Conversation>,
    /// Connections with a verdict, in order.
    waiting: VecDeque<(Millis, String)>,
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
        if !self.config.instance.contains_key(instance) {
            return Ok(());
        }
        self.events += 1;
        if let (Some(id), EventKind::Check { .. } | EventKind::Verdict { .. }) = (&event.id, &event.kind) {
            return self.scanned_late(event, id, instance, out);
        }
        let now = at(event);
        self.limits.goes_on(now);
        while let Some((then, old)) = self.waiting.pop_front_if(|(then, _)| *then + PATIENCE < now) {
            self.nothing_more(&old, then, out)?;
        }
        let conversation = self.conversations.entry(trace.clone()).or_default();
        conversation.since = self.events;
        let mut pending = conversation.pending.take();
        let scanned_again = matches!(event.kind, EventKind::Check { .. });
        if let Some(to_hold) = pending.take_if(|pending| scanned_again && pending.was == "hold") {
            conversation.judge_again(to_hold);
        }
        let of = self.of(instance, trace);
        let (from, to, its_own) = parties(&event.kind, pending.as_ref());
        if let Some(pending) = pending {
            self.verdict(&pending, of, (from, to), out)?;
            if let (EventKind::Queued { .. }, Some(id), "hold") =
                (&event.kind, &event.id, pending.was.as_str())
            {
                let held = Held {
                    peer: of.peer,
                    findings: pending.findings,
                    since: self.events,
                };
                self.held.insert(id.clone(), held);
            }
        }
        let Some(conversation) = self.conversations.get_mut(trace) else {
            return Ok(());
        };
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
                if let EventKind::Authenticated { user } = &event.kind {
                    conversation.user = Some(user.clone());
                }
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
            // A refusal by the verdict over a message was told by its `Verdict` already.
            EventKind::Refused { stage, .. }
                if !its_own && matches!(stage.as_str(), "mail" | "rcpt" | "message") =>
            {
                self.refusal(event, of, out)?;
            }
            EventKind::Verdict { decision, .. } => {
                let findings = conversation.taken();
                let not_held = std::mem::take(&mut conversation.not_held);
                self.waiting.push_back((now, trace.clone()));
                conversation.pending = Some(Pending {
                    event: event.clone(),
                    was: decision.clone(),
                    findings,
                    may_hold: self.config.hybrid.is_some() && !conversation.passed_on && !not_held,
                    user: conversation.user.clone(),
                });
            }
            EventKind::Queued { from, to, size, .. } => {
                if let Some(decision) = self.envelope(instance, to, *size) {
                    self.compare(event, of, (Some(from), to), "accept", &decision, out)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The verdicts after which nothing was told any more.
    fn end(&mut self, out: &mut impl Write) -> anyhow::Result<()> {
        while let Some((then, trace)) = self.waiting.pop_front() {
            self.nothing_more(&trace, then, out)?;
        }
        Ok(())
    }

    /// The verdict of `then`, if it still waits, is weighed as it is.
    fn nothing_more(&mut self, trace: &str, then: Millis, out: &mut impl Write) -> anyhow::Result<()> {
        let conversation = self.conversations.get_mut(trace);
        let pending = conversation
            .and_then(|conversation| conversation.pending.take_if(|pending| at(&pending.event) == then));
        let Some(pending) = pending else {
            return Ok(());
        };
        let process = pending.event.process.clone();
        let instance = process.strip_prefix("smtpd/").unwrap_or_default();
        let of = self.of(instance, trace);
        self.verdict(&pending, of, (None, &[]), out)
    }

    fn of<'e>(&self, instance: &'e str, trace: &str) -> Of<'e> {
        let conversation = self.conversations.get(trace);
        let peer = conversation.and_then(|known| known.peer);
        let settings = self.config.instance.get(instance);
        let strangers = settings.is_some_and(|instance| instance.authentication == Authentication::None);
        let passes = settings.is_some_and(|instance| instance.submission == Submission::PassInward);
        Of {
            instance,
            peer,
            counted: peer.filter(|peer| strangers && !self.config.is_listed(*peer)),
            inward: passes && conversation.is_some_and(|known| known.user.is_some()),
        }
    }

    /// A verdict over a message of `from` for `to`, as far as they are known.
    fn verdict(
        &mut self,
        pending: &Pending,
        of: Of<'_>,
        (from, to): (Option<&str>, &[String]),
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let Pending {
            event,
            was,
            findings,
            may_hold,
            user,
        } = pending;
        let message = of.counted.map(|peer| Counted {
            peer,
            user: user.as_deref(),
            from: from.unwrap_or_default(),
            findings,
            at: at(event),
        });
        if message.is_some()
            && (user.as_deref().into_iter().chain(from))
                .chain(to.iter().map(String::as_str))
                .any(|one| !is_told(one))
        {
            self.summary.not_counted += 1;
        }
        let mut mailboxes = Vec::new();
        for mailbox in to {
            match message.and_then(|message| self.limits.may_go_to(mailbox, message)) {
                // He would not have been a recipient of the message, whatever became of it.
                Some(over) => {
                    let to = std::slice::from_ref(mailbox);
                    self.compare(event, of, (from, to), was, &over, out)?;
                }
                None => mailboxes.push(mailbox.clone()),
            }
        }
        if mailboxes.is_empty() && !to.is_empty() {
            return Ok(());
        }
        let early = self.before_content(of, message, findings, was);
        let decision = if let Some(refused) = early {
            refused
        } else {
            self.missing(of, findings);
            self.weigh(of.instance, of.peer, findings, "", (was, *may_hold))
        };
        if let Some(message) = message
            && matches!(decision.word, "accept" | "mark" | "hold")
        {
            self.limits.taken(message, &mailboxes, decision.word != "accept");
        }
        self.compare(event, of, (from, &mailboxes), was, &decision, out)
    }

    /// What stands against a message before it is looked into. Who is refused for where it comes from is not counted as its sender.
    fn before_content(
        &self,
        of: Of<'_>,
        message: Option<Counted<'_>>,
        findings: &[Finding],
        was: &str,
    ) -> Option<Decision> {
        let of_content = |check| matches!(check, CheckName::Content | CheckName::Virus | CheckName::Spam);
        message
            .and_then(|message| self.limits.begin(message))
            .or_else(|| {
                let origin = findings.iter().filter(|finding| !of_content(finding.check));
                let origin: Vec<Finding> = origin.cloned().collect();
                let decision = self.weigh(of.instance, of.peer, &origin, "", (was, false));
                if matches!(decision.word, "defer" | "reject") {
                    return Some(decision);
                }
                message.and_then(|message| self.limits.go_on(message))
            })
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
                let of = Of {
                    instance,
                    peer: held.peer,
                    counted: None,
                    inward: false,
                };
                self.compare(event, of, (None, &[]), was, &decision, out)
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
            .map(|finding| under_these_sealers(finding, &self.config.trusted_sealers))
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
    fn missing(&mut self, of: Of<'_>, findings: &[Finding]) {
        let listed = of.peer.is_some_and(|peer| self.config.is_listed(peer));
        let instance = self.config.instance.get(of.instance);
        let Some(checks) = instance.map(|instance| &instance.checks) else {
            return;
        };
        let is_for = |check| !of.inward || matches!(check, CheckName::Content | CheckName::Virus);
        for check in checks.iter().filter(|check| is_for(**check)) {
            if self.asks(of.instance, *check, listed)
                && !findings.iter().any(|finding| finding.check == *check)
            {
                *self.summary.not_made.entry(check.as_str()).or_default() += 1;
            }
        }
    }

    fn compare(
        &mut self,
        event: &Event,
        of: Of<'_>,
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
            instance: of.instance,
            peer: of.peer,
            from: from.map(shown),
            to: to.iter().map(|address| shown(address)).collect(),
            was,
            becomes: decision.word,
            check: decision.check,
            reply: decision.reply.as_ref().map(ToString::to_string),
        };
        serde_json::to_writer(&mut *out, &difference)?;
        writeln!(out).context("cannot write the result")
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

/// Whose message the pending verdict was over, where this event tells it, and whether the event is that verdict's refusal.
fn parties<'e>(kind: &'e EventKind, pending: Option<&Pending>) -> (Option<&'e str>, &'e [String], bool) {
    let refused = pending.is_some_and(|pending| matches!(pending.was.as_str(), "defer" | "reject"));
    match kind {
        EventKind::Queued { from, to, .. } if pending.is_some() => (Some(from), to, false),
        EventKind::Refused { stage, from, to, .. } if refused && stage == "message" => {
            (from.as_deref(), to, true)
        }
        _ => (None, &[], false),
    }
}

/// An address without what stands for its local part.
fn shown(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) if local.starts_with(PSEUDONYM) => format!("*@{domain}"),
        _ => address.to_owned(),
    }
}

/// A trusted sealer's word is weighed by the list of now. Where the journal does not tell who sealed it (of an older version), the
/// one who vouched then counts while he is in it.
fn under_these_sealers(finding: &Finding, trusted: &[String]) -> Finding {
    let mut finding = finding.clone();
    if let (CheckName::Dmarc, Observation::Authenticated(seen)) = (finding.check, &mut finding.observation) {
        if seen.sealed.is_empty() {
            seen.vouched_by = seen
                .vouched_by
                .take()
                .filter(|sealer| trusted.iter().any(|name| name.eq_ignore_ascii_case(sealer)));
        } else {
            seen.vouched_by = arc::voucher(&seen.sealed, trusted);
        }
    }
    finding
}

#[cfg(test)]
mod tests;
