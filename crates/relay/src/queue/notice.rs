//! What time does to a message without an attempt of its own. Its sender is told once that it is late (RFC 3461 NOTIFY=DELAY,
//! RFC 3464 `Action: delayed`). While its destination is closed as a whole one message probes for all; a message whose
//! time has run out meanwhile is given up with the destination's last answer.

use std::sync::Arc;

use postern_control::EventKind;

use super::change::Changed;
use super::damage::Read;
use super::job::{Queued, Worker};
use super::schedule::{Entry, Schedule};
use super::{bounce, reasons};
use crate::dsn::{Action, Reported};
use crate::spool::{Location, MessageId, Status, StoredOutcome};

/// Recipients whose time has run out, and why they were not reached.
pub type Expired = Vec<(u32, Box<str>)>;

/// Which recipients of a message are given up. Its tries and those that others made for it count alike: a clock that is
/// set forward by years must not fail all mail at once. What the operator has released or wants tried is tried first.
pub fn expired(schedule: &Schedule, entry: &Entry, enough: usize) -> Expired {
    let recipients = (0..).zip(entry.recipients());
    recipients
        .filter_map(|(index, (to, status))| {
            let health = schedule.health(*to);
            let (Status::Due { attempts, .. }, Some((_, reply))) = (status, health.closed()) else {
                return None;
            };
            let tried = attempts.saturating_add(health.failures()) as usize;
            (tried >= enough && !entry.is_wanted(*to)).then(|| (index, reply.into()))
        })
        .collect()
}

/// Recipients whose sender has not heard of the delay, as they are to stand when he has, and why they are late.
pub fn late(schedule: &Schedule, entry: &Entry) -> Vec<(u32, Status, Box<str>)> {
    let recipients = (0..).zip(entry.recipients());
    recipients
        .filter_map(|(index, (to, status))| {
            let Status::Due {
                at,
                attempts,
                reply,
                warned: false,
            } = status
            else {
                return None;
            };
            let closed = schedule.health(*to).closed().map(|(_, reply)| reply);
            let own = (!reply.is_empty()).then_some(&**reply);
            // What has only been standing still, as after a stop, leaves now.
            let why = closed.or(own)?.into();
            let warned = Status::Due {
                at: *at,
                attempts: *attempts,
                reply: reply.clone(),
                warned: true,
            };
            Some((index, warned, why))
        })
        .collect()
}

/// The enhanced status code in a reply that was kept as text, or that of a mail system with much to do (RFC 3463 3.5).
fn status_of(reply: &str) -> String {
    let code = reply.split(' ').nth(1);
    let transient = |code: &&str| code.starts_with("4.") && code.matches('.').count() == 2;
    code.filter(transient).unwrap_or("4.4.5").into()
}

/// Recipients that are given up, and why.
pub struct GivenUp {
    /// Index in the envelope, and the last answer.
    recipients: Expired,
    /// Enhanced status code.
    status: &'static str,
    /// Because their time ran out.
    expired: bool,
    /// Nobody is told: the message was found to be bad.
    silent: bool,
}

impl GivenUp {
    /// Their time has run out.
    pub fn expired(recipients: Expired) -> Self {
        Self {
            recipients,
            status: "4.4.7",
            expired: true,
            silent: false,
        }
    }

    /// The spool does not give the message back.
    pub fn lost(recipients: Vec<u32>, silent: bool) -> Self {
        let reply: Box<str> = reasons::lost().to_string().into();
        Self {
            recipients: recipients
                .into_iter()
                .map(|index| (index, reply.clone()))
                .collect(),
            status: "5.3.0",
            expired: false,
            silent,
        }
    }
}

impl Worker {
    /// Tells the sender that recipients are late, where he is to be told; then it is not looked at again.
    pub async fn warn_sender(
        self: &Arc<Self>,
        id: MessageId,
        location: Location,
        late: Vec<(u32, Status, Box<str>)>,
        until: u64,
        now: u64,
    ) -> Changed {
        match self.write_warning(id, location, &late, until, now).await {
            Ok(queued) => Changed {
                id,
                order: None,
                news: late
                    .into_iter()
                    .map(|(index, status, _)| (index, status))
                    .collect(),
                held: None,
                queued,
                result: Ok(()),
            },
            Err(error) => self.not_yet(id, format!("its sender is not told of the delay yet: {error}")),
        }
    }

    fn not_yet(&self, id: MessageId, text: String) -> Changed {
        let kind = EventKind::Warning { text: text.clone() };
        self.events.emit(None, Some(&id.to_string()), kind);
        Changed::not_made(id, text)
    }

    async fn write_warning(
        self: &Arc<Self>,
        id: MessageId,
        location: Location,
        late: &[(u32, Status, Box<str>)],
        until: u64,
        now: u64,
    ) -> anyhow::Result<Option<Queued>> {
        let read = self.read(id, location).await?;
        let message = &read.message;
        let reported: Vec<Reported> = late
            .iter()
            .filter_map(|(index, _, why)| Some((message.envelope.recipients.get(*index as usize)?, why)))
            .filter(|(recipient, _)| bounce::wants_delay(recipient))
            .map(|(recipient, why)| Reported {
                address: recipient.address.clone(),
                orcpt: recipient.orcpt.clone(),
                status: status_of(why),
                remote: None,
                reply: why.to_string(),
                action: Action::Delayed { until },
            })
            .collect();
        let notification = self.notification(id, message, read.stored(), &reported, now);
        if notification.is_none() {
            return Ok(None);
        }
        let outcome = StoredOutcome {
            recipients: late
                .iter()
                .map(|(index, status, _)| (*index, status.clone()))
                .collect(),
            ..StoredOutcome::default()
        };
        self.record(id, &message.envelope.trace, notification.as_ref(), &outcome)
            .await
    }

    /// Gives recipients up. `now` in milliseconds since 1970.
    pub async fn give_up(
        self: &Arc<Self>,
        id: MessageId,
        location: Location,
        given_up: GivenUp,
        now: u64,
    ) -> Changed {
        let news: Vec<_> = given_up
            .recipients
            .iter()
            .map(|(index, _)| (*index, Status::Failed))
            .collect();
        let read = match self.read(id, location).await {
            Ok(read) => read,
            Err(lost) if lost.for_good => {
                self.tell_of_nobody(id, &lost);
                return Changed {
                    news,
                    result: Ok(()),
                    ..Changed::not_made(id, String::new())
                };
            }
            Err(lost) => return self.not_yet(id, format!("it is not given up yet: {lost}")),
        };
        if !given_up.expired && read.stored().is_some() {
            return self.not_yet(id, "it is not given up, for it can be read again".into());
        }
        match self.write_given_up(id, &read, &given_up, &news, now).await {
            Ok(queued) => Changed {
                id,
                order: None,
                news,
                held: None,
                queued,
                result: Ok(()),
            },
            Err(error) => self.not_yet(id, format!("it is not given up yet: {error}")),
        }
    }

    async fn write_given_up(
        &self,
        id: MessageId,
        read: &Read,
        given_up: &GivenUp,
        news: &[(u32, Status)],
        now: u64,
    ) -> anyhow::Result<Option<Queued>> {
        let envelope = &read.message.envelope;
        let told: Vec<_> = given_up
            .recipients
            .iter()
            .filter_map(|(index, reply)| Some((envelope.recipients.get(*index as usize)?, reply)))
            .collect();
        let failed: Vec<Reported> = told
            .iter()
            .filter(|(recipient, _)| !given_up.silent && bounce::wants_failure(recipient))
            .map(|(recipient, reply)| Reported {
                address: recipient.address.clone(),
                orcpt: recipient.orcpt.clone(),
                status: given_up.status.into(),
                remote: None,
                reply: reply.to_string(),
                action: Action::Failed {
                    expired: given_up.expired,
                },
            })
            .collect();
        let notification = self.notification(id, &read.message, read.stored(), &failed, now);
        let outcome = StoredOutcome {
            recipients: news.to_vec(),
            ..StoredOutcome::default()
        };
        let queued = self
            .record(id, &envelope.trace, notification.as_ref(), &outcome)
            .await?;
        for (recipient, reply) in told {
            let recipient = recipient.address.clone();
            let kind = if given_up.silent {
                let text = format!(
                    "it is given up for {recipient}, and nobody is told, for it was found to be bad: {reply}"
                );
                EventKind::Warning { text }
            } else {
                EventKind::Bounced {
                    recipient,
                    reply: reply.to_string(),
                }
            };
            self.events
                .emit(Some(&envelope.trace), Some(&id.to_string()), kind);
        }
        self.events.write_out();
        Ok(queued)
    }
}
