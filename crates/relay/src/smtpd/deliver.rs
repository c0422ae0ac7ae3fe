//! The answer to a whole message: checks, verdict, our header fields, handover, and only then 250.

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use postern_control::EventKind;
use postern_smtp::dsn::Ret;
use postern_smtp::parameters::Body as BodyType;
use postern_smtp::replies;
use postern_smtp::reply::Reply;
use postern_smtp::server::{Message, Recipient};
use postern_smtp::trace::Received;

use super::body::Seen;
use super::connection::Connection;
use super::headers::{PROVEN, Removal, says_proven, scan_fields};
use super::not_held::{NotHeld, is_not_held};
use super::permit::Denial;
use crate::checks::authentication::AuthResult;
use crate::checks::greylist::{Client, client_key};
use crate::checks::{Check, Finding, Observation, Phase};
use crate::config::{Authentication, CheckName, RelayFor};
use crate::handover::{self, Envelope};
use crate::reputation::Question;
use crate::spool::hold::Unscanned;
use crate::verdict::{PATIENCE, Policy, Verdict, judge, score};

impl Connection {
    /// Judges the message and hands it to the queue; what comes back is the reply to the client.
    pub(super) async fn take_message(&mut self, message: &Message) -> Reply {
        match self.taken(message).await {
            Ok(reply) => reply,
            Err(denial) => {
                let recipients = message.transaction.recipients.iter();
                let to = recipients.map(|recipient| recipient.path.to_string()).collect();
                self.refused("message", &denial.reply, denial.because.as_ref(), to);
                denial.reply
            }
        }
    }

    async fn taken(&mut self, message: &Message) -> Result<Reply, Denial> {
        let Some(octets) = self.body.octets() else {
            return Err(Denial::because(
                replies::queue_full(),
                "message-memory is used up".into(),
            ));
        };
        // It would be read as the end of the last of our own fields.
        if octets.starts_with(b" ") || octets.starts_with(b"\t") {
            return Err(Denial::because(
                replies::malformed_header(),
                "the message begins with the continuation of a field".into(),
            ));
        }
        self.count_message().await?;
        let (findings, verdict) = if self.inward.is_some() {
            self.judged_submission(&octets).await
        } else {
            self.judged(&octets).await?
        };
        self.note_for_reports(&findings);
        let score = score(&findings);
        self.tell_verdict(&verdict, score);
        if let Some(refusal) = verdict.refusal() {
            return Err(refusal.into());
        }
        if matches!(verdict, Verdict::Accept) {
            self.remember_proof(&findings).await;
        }
        let fields = self.fields(message, &findings, &verdict, score);
        let proven = proves(&findings) || self.gateway_proved(&octets);
        drop(octets);
        let removal = Removal {
            hostname: &self.server.config.hostname,
            marks: self.server.instance.authentication == Authentication::None,
        };
        // What was found and decided is told before the message is in anybody's spool.
        self.server.events.write_out();
        let unscanned = unscanned(&verdict, &findings, &fields)?;
        if self.inward.is_none()
            && unscanned.is_none()
            && let Some(octets) = self.body.small(&fields, &removal, handover::INLINE)
        {
            let envelope = self.envelope(message, proven, octets.len() as u64);
            let answer = self.queue().hand_over_small(&envelope, &octets).await;
            let reply = self.answered(envelope, answer)?;
            self.count_accepted(message, &findings, matches!(verdict, Verdict::Mark(_)))
                .await;
            return Ok(reply);
        }
        let (sealed, size) = self.body.seal(&fields, &removal).map_err(|error| {
            Denial::because(replies::queue_unavailable(), format!("sealed memory: {error}"))
        })?;
        if self.inward.is_some() {
            return self.message_inward(sealed, size).await;
        }
        let envelope = self.envelope(message, proven, size);
        let answer = match unscanned {
            None => self.queue().hand_over(&envelope, sealed.as_fd()).await,
            Some(unscanned) => {
                let queue = self.queue();
                let answer = queue
                    .hand_over_unscanned(&envelope, unscanned, sealed.as_fd())
                    .await;
                if is_not_held(&answer) {
                    let unscanned = NotHeld {
                        memory: sealed,
                        size,
                        fields,
                        findings,
                        proven,
                    };
                    return self.take_when_scanned(message, unscanned).await;
                }
                answer
            }
        };
        let reply = self.answered(envelope, answer)?;
        // Of what is not scanned nobody knows yet whether it speaks for its sender.
        let doubtful = matches!(verdict, Verdict::Mark(_) | Verdict::Hold(_));
        self.count_accepted(message, &findings, doubtful).await;
        Ok(reply)
    }

    /// What DMARC did to the message is told to the queue, whatever the other checks say.
    fn note_for_reports(&self, findings: &[Finding]) {
        let Some(observer) = &self.server.observer else {
            return;
        };
        for finding in findings {
            if let Observation::Authenticated(seen) = &finding.observation
                && let Some(seen) = &seen.report
            {
                observer.note((**seen).clone());
            }
        }
    }

    /// A domain for which SPF, and over it DMARC, passed is spared the greylist from now on.
    pub(super) async fn remember_proof(&self, findings: &[Finding]) {
        let passed = |check| {
            findings.iter().any(|finding| {
                finding.check == check
                    && matches!(&finding.observation, Observation::Authenticated(seen) if seen.result == AuthResult::Pass)
            })
        };
        if self.server.tools.greylist.is_some()
            && let Some(client) = Client::domain(self.facts("", &[]).reverse_path)
            && passed(CheckName::Spf)
            && passed(CheckName::Dmarc)
        {
            let client = client_key(&client);
            self.server.tools.reputation.ask(Question::Prove { client }).await;
        }
    }

    /// Origin and structure first; the scanners are asked only about what those leave.
    async fn judged(&self, octets: &Seen<'_>) -> Result<(Vec<Finding>, Verdict), Denial> {
        let mut findings = self.client_findings().to_vec();
        let mut verdict = Verdict::Accept;
        // What users submit through us is for the internal node to take.
        let hybrid = self.server.config.hybrid.as_ref();
        let hybrid = hybrid.filter(|_| self.submitter.is_none());
        let deadline = hybrid.map(|hybrid| Duration::from_secs(hybrid.deadline));
        for phase in [Phase::Origin, Phase::Structure, Phase::Content] {
            let (wanted, facts) = (|check: &Check| check.phase == phase, self.facts_of(octets));
            let deadline = deadline.filter(|_| phase == Phase::Content);
            let found = self.server.tools.run_where(wanted, facts, deadline).await;
            self.tell_findings(&found);
            findings.extend(found);
            verdict = self.verdict(&findings, hybrid.is_some());
            if verdict.refusal().is_some() {
                break;
            }
            if phase == Phase::Origin {
                self.count_sender(&findings).await?;
            }
        }
        Ok((findings, verdict))
    }

    /// What all of that means. `may_hold`: whether a message may be taken that is to be scanned after.
    pub(super) fn verdict(&self, findings: &[Finding], may_hold: bool) -> Verdict {
        let policy = |patience_over| Policy {
            may_hold,
            ..self.server.policy(patience_over)
        };
        let verdict = judge(&policy(false), "", findings);
        if verdict.is_for_dns() && self.patience_is_over() {
            return judge(&policy(true), "", findings);
        }
        verdict
    }

    /// Whether this sender has been deferred for temporary DNS errors for hours; remembers when that began.
    fn patience_is_over(&self) -> bool {
        let now = Instant::now();
        let key = (self.peer, self.facts("", &[]).reverse_path.to_lowercase());
        let mut deferred = self
            .server
            .deferred
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = deferred.get(&key, now) {
            return now.duration_since(*since) >= PATIENCE;
        }
        deferred.insert(&key, now, now + 8 * PATIENCE, now);
        false
    }

    /// The fields that go in front: Received on top, then what we found.
    fn fields(
        &self,
        message: &Message,
        findings: &[Finding],
        verdict: &Verdict,
        score: Option<f64>,
    ) -> String {
        let hostname = &self.server.config.hostname;
        let only = match message.transaction.recipients.as_slice() {
            [only] => Some(&only.path),
            _ => None,
        };
        let received = Received {
            helo: self.session.helo().map_or("unknown", |helo| helo.name.as_str()),
            peer: self.peer,
            peer_name: None,
            by: hostname,
            protocol: self.session.protocol(),
            tls: self.session.tls(),
            id: &self.trace,
            recipient: only,
            time: SystemTime::now(),
        };
        let mut fields = received.header();
        let results: String = findings
            .iter()
            .filter_map(|finding| match &finding.observation {
                Observation::Authenticated(seen) => Some(seen.results.as_str()),
                _ => None,
            })
            .collect();
        if !results.is_empty() {
            fields.extend(["Authentication-Results: ", hostname, &results, "\r\n"]);
        }
        if self.server.instance.authentication == Authentication::None && proves(findings) {
            fields += format!("{PROVEN}: proven\r\n").as_str();
        }
        if !matches!(verdict, Verdict::Hold(_)) {
            fields += &scan_fields(verdict, score);
        }
        fields
    }

    /// What the gateway found about the reverse-path, as it says behind its certificate.
    fn gateway_proved(&self, octets: &[u8]) -> bool {
        self.trusted
            && self.submitter.is_none()
            && self.server.instance.authentication == Authentication::ClientCertificate
            && says_proven(octets)
    }

    pub(super) fn envelope(&self, message: &Message, proven: bool, size: u64) -> Envelope {
        let mail = &message.transaction.mail;
        let own = self.user.is_some() || (self.trusted && self.server.instance.relay_for == RelayFor::Any);
        Envelope {
            trace: self.trace.clone(),
            reverse_path: mail.path.to_string(),
            recipients: self.recipients(message),
            ret: mail.ret.map(|ret| match ret {
                Ret::Full => handover::Ret::Full,
                Ret::Headers => handover::Ret::Hdrs,
            }),
            envid: mail.envid.clone(),
            smtputf8: mail.smtputf8,
            require_tls: mail.require_tls,
            eight_bit: mail.body == BodyType::EightBitMime || message.summary.eight_bit,
            peer: self.origin().to_string(),
            helo: self
                .session
                .helo()
                .map_or(String::new(), |helo| helo.name.clone()),
            tls: self
                .session
                .tls()
                .map(|tls| format!("{} {}", tls.version, tls.cipher)),
            authenticated_user: self.user.clone(),
            return_path_proven: own || proven,
            size,
        }
    }

    /// Each mailbox once, as first named.
    fn recipients(&self, message: &Message) -> Vec<handover::Recipient> {
        let mut seen = HashSet::new();
        let all = message
            .transaction
            .recipients
            .iter()
            .map(|recipient| self.recipient(recipient));
        all.filter(|recipient| seen.insert(recipient.address.clone()))
            .collect()
    }

    fn recipient(&self, recipient: &Recipient) -> handover::Recipient {
        handover::Recipient {
            address: self.server.mailbox(&recipient.path),
            orcpt: recipient.orcpt.as_ref().map(ToString::to_string),
            notify: recipient.notify.map(|notify| {
                let wanted = [
                    (notify.success, handover::Notify::Success),
                    (notify.failure, handover::Notify::Failure),
                    (notify.delay, handover::Notify::Delay),
                ];
                let wanted: Vec<_> = wanted
                    .into_iter()
                    .filter(|(is, _)| *is)
                    .map(|(_, of)| of)
                    .collect();
                if wanted.is_empty() {
                    vec![handover::Notify::Never]
                } else {
                    wanted
                }
            }),
        }
    }

    /// Its socket says whose mail it is.
    pub(super) fn queue(&self) -> &handover::Client {
        match (&self.submitter, &self.server.outside) {
            (Some(_), Some((_, submitted))) => submitted,
            _ => &self.server.queue,
        }
    }

    pub(super) fn tell_verdict(&self, verdict: &Verdict, score: Option<f64>) {
        let event = EventKind::Verdict {
            decision: verdict.word().to_owned(),
            score,
        };
        self.server.events.emit(Some(&self.trace), None, event);
    }

    /// The reply to the client that the queue's answer makes.
    pub(super) fn answered(
        &self,
        envelope: Envelope,
        answer: Result<handover::Reply, handover::HandoverError>,
    ) -> Result<Reply, Denial> {
        let broken = |error: handover::HandoverError| {
            let reply = match &error {
                handover::HandoverError::TooLarge { .. } => replies::envelope_too_large(),
                _ => replies::queue_unavailable(),
            };
            Denial::because(reply, error.to_string())
        };
        match answer.map_err(broken)? {
            handover::Reply::Queued { id } => {
                let event = EventKind::Queued {
                    from: envelope.reverse_path,
                    to: envelope
                        .recipients
                        .into_iter()
                        .map(|recipient| recipient.address)
                        .collect(),
                    size: envelope.size,
                    provenance: None,
                };
                self.server.events.emit(Some(&self.trace), Some(&id), event);
                Ok(replies::queued(&id))
            }
            handover::Reply::Noted => Err(Denial::because(
                replies::queue_unavailable(),
                "the queue took the message for something else".into(),
            )),
            handover::Reply::Refused { code, enhanced, text } => {
                let reply = format!("{code} {enhanced} {text}");
                if text == replies::queue_full().text() {
                    self.server.room.lacked(envelope.size, Instant::now());
                }
                Err(Denial::because(refusal_of_queue(code, &enhanced, text), reply))
            }
        }
    }
}

/// What the queue is told of a message that it is to hold.
fn unscanned(verdict: &Verdict, findings: &[Finding], fields: &str) -> Result<Option<Unscanned>, Denial> {
    let Verdict::Hold(refusal) = verdict else {
        return Ok(None);
    };
    let evidence = serde_json::to_string(findings)
        .map_err(|error| Denial::because(refusal.reply.clone(), error.to_string()))?;
    let fields = fields.len() as u64;
    Ok(Some(Unscanned { fields, evidence }))
}

/// Whether a check proved the reverse-path.
fn proves(findings: &[Finding]) -> bool {
    findings.iter().any(
        |finding| matches!(&finding.observation, Observation::Authenticated(seen) if seen.proves_reverse_path),
    )
}

/// The queue's own words, where they make a refusal; a queue that says anything else is not believed.
fn refusal_of_queue(code: u16, enhanced: &str, text: String) -> Reply {
    let mut parts = enhanced.split('.').map(str::parse::<u16>);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Ok(class @ (4 | 5))), Some(Ok(subject)), Some(Ok(detail))) if code / 100 == class => {
            Reply::new(code, (u8::try_from(class).unwrap_or(4), subject, detail), text)
        }
        _ => replies::queue_unavailable(),
    }
}
