//! Events: the why-trace of connections and messages. `trace` ties together what happened to one connection;
//! `id` is the queue's name for one message, and stands in its `250 … queued as <id>` answer, so that a message
//! can be followed from node to node.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What every event line starts with.
pub const LINE_PREFIX: &str = "event ";

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339, UTC, milliseconds.
    pub time: String,
    /// Which process speaks: `smtpd/public`, `proxy`, `queue`, …
    pub process: String,
    /// The connection's trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The message's id in the queue of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened. The first block is told by `smtpd`, the second by `queue`, the last by every process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "snake_case")]
#[allow(missing_docs, reason = "the field names are the documentation of a log line")]
pub enum EventKind {
    Connected {
        peer: String,
        port: Option<u16>,
        /// The proxy that named the peer (PROXY protocol).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proxy: Option<String>,
    },
    Tls {
        version: String,
        cipher: String,
        peer_name: Option<String>,
    },
    Authenticated {
        user: String,
    },
    /// A login was refused, or not even tried. `account` is what the client claimed; `peer` its own address, on the internal
    /// node too; `instance` where it logged in: public, inside, dmz.
    AuthenticationFailed {
        peer: String,
        account: String,
        instance: String,
        reason: String,
    },
    /// A gateway passes on what the client at `peer` submits.
    OnBehalf {
        peer: String,
        helo: String,
    },
    /// A command, a message or a connection was refused (4xx and 5xx alike).
    Refused {
        stage: String,
        code: u16,
        enhanced: String,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        check: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
        /// The reverse-path, once the client has told it; empty for the null one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// The recipient that was refused, or those whose message was.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        to: Vec<String>,
    },
    Check {
        check: String,
        result: String,
        evidence: String,
        millis: u64,
        /// What was seen, in full, so that another policy can weigh it (`postern policy replay`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<serde_json::Value>,
    },
    Verdict {
        decision: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        score: Option<f64>,
    },
    /// Told by smtpd (all fields) and by queue (provenance too) once the message is on stable storage.
    Queued {
        from: String,
        to: Vec<String>,
        size: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provenance: Option<String>,
    },
    /// Near capacity, limits of strangers are lower: `state` is `began` or `ended`.
    Stress {
        state: String,
        detail: String,
    },
    Disconnected {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },

    Signed {
        domain: String,
        selectors: Vec<String>,
    },
    /// One try at one host for one recipient; `tls` is absent where the session was in clear. `authentication` says how
    /// the host proved itself: `none`, `mutual`, `authority` (named by the next hop) or `dane`; absent where none was reached.
    Attempt {
        recipient: String,
        next_hop: String,
        host: String,
        tls: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        authentication: Option<String>,
        reply: String,
    },
    Delivered {
        recipient: String,
        reply: String,
    },
    Deferred {
        recipient: String,
        reply: String,
        next_attempt: String,
    },
    Bounced {
        recipient: String,
        reply: String,
    },
    /// A delivery status notification was queued as `dsn` and goes to `for`.
    Dsn {
        dsn: String,
        r#for: String,
    },
    /// A report (`DMARC`, `TLS`) about a domain was sent: queued as the event's id says, or posted to a URL. With a `reason` it
    /// was not, and `to` is whom else it was for, if anybody.
    Report {
        report: String,
        domain: String,
        to: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The operator changed what becomes of the message: `change` is held, released, retried or cancelled; `by` is the
    /// user id that the kernel names.
    Changed {
        change: String,
        by: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Something happens to a message that was taken before the scanners had answered: `state` is taken, postponed (a scanner did
    /// not answer), released (clean), quarantined (found to be bad), expired (no answer in the hold's lifetime; in quarantine)
    /// or again (the operator has an expired one scanned).
    Hold {
        state: String,
        detail: String,
    },
    DkimKey {
        domain: String,
        selector: String,
        record_name: String,
        record_value: String,
    },
    Removed,
    /// The spool was read at start: what was found.
    /// `indexed` of the segments were read by their index.
    SpoolRecovered {
        segments: u64,
        indexed: u64,
        messages: u64,
        octets: u64,
        millis: u64,
    },
    /// Part of a segment cannot be read. `kind` is `torn-tail` (an unfinished last write) or
    /// `corrupt` (anything else, errors of the disk too); a segment with the latter is kept aside.
    SpoolDamage {
        segment: String,
        offset: u64,
        length: u64,
        kind: String,
        detail: String,
    },

    /// The process is ready to serve.
    Started {
        version: String,
    },
    /// Something that the operator should know of, and how to mend it.
    Warning {
        text: String,
    },
    Stopping {
        reason: String,
    },
}

/// What happened, in words for somebody at a screen; one line as long as the values hold no line end.
impl fmt::Display for EventKind {
    #[expect(clippy::too_many_lines, reason = "a row for each kind")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { peer, proxy, .. } => {
                write!(f, "connection from {peer}")?;
                proxy
                    .iter()
                    .try_for_each(|proxy| write!(f, " through the proxy {proxy}"))
            }
            Self::Tls {
                version,
                cipher,
                peer_name,
            } => {
                write!(f, "TLS {version} {cipher}")?;
                peer_name.iter().try_for_each(|name| write!(f, ", client {name}"))
            }
            Self::Authenticated { user } => write!(f, "authenticated {user}"),
            Self::AuthenticationFailed {
                peer,
                account,
                instance,
                reason,
            } => write!(f, "login of {account} from {peer} failed at {instance}: {reason}"),
            Self::OnBehalf { peer, helo } => write!(f, "on behalf of {helo} at {peer}"),
            Self::Refused {
                stage,
                code,
                enhanced,
                text,
                check,
                evidence,
                from,
                to,
            } => {
                write!(f, "refused at {stage}: {code} {enhanced} {text}")?;
                from.iter().try_for_each(|from| write!(f, "; from <{from}>"))?;
                if !to.is_empty() {
                    write!(f, " to {}", to.join(", "))?;
                }
                match (check, evidence) {
                    (Some(check), Some(evidence)) => write!(f, " [{check}: {evidence}]"),
                    (None, Some(evidence)) => write!(f, " [{evidence}]"),
                    _ => Ok(()),
                }
            }
            Self::Check {
                check,
                result,
                evidence,
                millis,
                ..
            } => write!(f, "{check}: {result} {evidence} ({millis} ms)"),
            Self::Verdict { decision, score } => {
                write!(f, "verdict {decision}")?;
                score.iter().try_for_each(|score| write!(f, ", score {score:.1}"))
            }
            Self::Queued { from, to, size, .. } => {
                write!(f, "queued from <{from}> to {} ({size} octets)", to.join(", "))
            }
            Self::Stress { state, detail } => write!(f, "stress {state}: {detail}"),
            Self::Disconnected { reason } => {
                write!(f, "disconnected {}", reason.as_deref().unwrap_or_default())
            }
            Self::Signed { domain, selectors } => {
                write!(f, "signed for {domain} with {}", selectors.join(", "))
            }
            Self::Attempt {
                recipient,
                host,
                tls,
                authentication,
                reply,
                ..
            } => {
                let tls = tls.as_deref().unwrap_or("in clear");
                write!(f, "tried {recipient} at {host}, {tls}")?;
                if let Some(authentication) = authentication {
                    write!(f, ", authentication {authentication}")?;
                }
                write!(f, ": {reply}")
            }
            Self::Delivered { recipient, reply } => write!(f, "delivered to {recipient}: {reply}"),
            Self::Deferred {
                recipient,
                reply,
                next_attempt,
            } => write!(f, "deferred {recipient} until {next_attempt}: {reply}"),
            Self::Bounced { recipient, reply } => write!(f, "bounced {recipient}: {reply}"),
            Self::Dsn { dsn, r#for: sender } => write!(f, "notification {dsn} for {sender}"),
            Self::Report {
                report,
                domain,
                to,
                reason: None,
            } => write!(f, "{report} report about {domain} to {}", to.join(", ")),
            Self::Report {
                report,
                domain,
                to,
                reason: Some(reason),
            } => {
                write!(f, "no {report} report about {domain}")?;
                if !to.is_empty() {
                    write!(f, " to {}", to.join(", "))?;
                }
                write!(f, ": {reason}")
            }
            Self::Changed { change, by, .. } => write!(f, "{change} by {by}"),
            Self::Hold { state, detail } => write!(f, "hold: {state} {detail}"),
            Self::DkimKey { record_name, .. } => write!(f, "DKIM key to publish: {record_name}"),
            Self::Removed => f.write_str("done with; no longer in the queue"),
            Self::SpoolRecovered {
                messages,
                segments,
                indexed,
                octets,
                millis,
            } => write!(
                f,
                "spool read: {messages} messages, {octets} octets in {segments} segments, {indexed} of them by index, {millis} ms"
            ),
            Self::SpoolDamage {
                segment,
                offset,
                length,
                kind,
                detail,
            } => write!(
                f,
                "SPOOL DAMAGE ({kind}) in {segment} at {offset}, {length} octets: {detail}"
            ),
            Self::Started { version } => write!(f, "started, version {version}"),
            Self::Warning { text } => write!(f, "WARNING {text}"),
            Self::Stopping { reason } => write!(f, "stopping: {reason}"),
        }
    }
}

/// Why a line is not an event.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The line is something else than an event.
    #[error("the line does not start with \"event \"")]
    NotAnEvent,
    /// The line says it is an event and is not.
    #[error("the event line holds wrong JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Event {
    /// The event as one line, without the line end.
    pub fn to_line(&self) -> String {
        let json = serde_json::to_string(self)
            .unwrap_or_else(|error| format!("{{\"event\":\"warning\",\"text\":\"{error}\"}}"));
        format!("{LINE_PREFIX}{json}")
    }

    /// Reads a line of the journal back; text before the prefix (a journal's own stamp) must be cut off first.
    pub fn from_line(line: &str) -> Result<Self, LineError> {
        let json = line
            .trim_end()
            .strip_prefix(LINE_PREFIX)
            .ok_or(LineError::NotAnEvent)?;
        Ok(serde_json::from_str(json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> Event {
        Event {
            time: "2026-01-02T03:04:05.678Z".into(),
            process: "queue".into(),
            trace: Some("a1".into()),
            id: None,
            kind,
        }
    }

    #[test]
    fn a_line_reads_as_the_contract_says() {
        let line = event(EventKind::Delivered {
            recipient: "a@b.example".into(),
            reply: "250 ok".into(),
        })
        .to_line();
        assert_eq!(
            line,
            "event {\"time\":\"2026-01-02T03:04:05.678Z\",\"process\":\"queue\",\"trace\":\"a1\",\
             \"event\":\"delivered\",\"recipient\":\"a@b.example\",\"reply\":\"250 ok\"}"
        );
    }

    #[test]
    fn lines_read_back_as_what_was_written() {
        for kind in [
            EventKind::Removed,
            EventKind::Connected {
                peer: "192.0.2.1".into(),
                port: Some(25),
                proxy: None,
            },
            EventKind::Dsn {
                dsn: "b2".into(),
                r#for: "x@y.example".into(),
            },
            EventKind::Verdict {
                decision: "accept".into(),
                score: Some(1.5),
            },
            EventKind::DkimKey {
                domain: "d".into(),
                selector: "s".into(),
                record_name: "n".into(),
                record_value: "v".into(),
            },
        ] {
            let event = event(kind);
            assert_eq!(Event::from_line(&event.to_line()).unwrap(), event);
        }
    }

    #[test]
    fn other_lines_are_told_apart() {
        assert!(matches!(Event::from_line("hello"), Err(LineError::NotAnEvent)));
        assert!(matches!(Event::from_line("event {}"), Err(LineError::Json(_))));
    }
}
