//! What time does to a message without an attempt of its own. Its sender is told once that it is late (RFC 3461 NOTIFY=DELAY,
//! RFC 3464 `Action: delayed`). While its destination is closed as a whole one message probes for all; a message whose
//! time has run out meanwhile is given up with the destination's last answer.

use postern_control::EventKind;

use super::bounce;
use super::change::Changed;
use super::job::Worker;
use super::schedule::{Entry, Schedule};
use crate::dsn::{Action, Reported};
use crate::spool::{Location, MessageId, Status, StoredOutcome};

/// Recipients whose time has run out, and why they were not reached.
pub type Expired = Vec<(u32, Box<str>)>;

/// Which recipients of a message are given up. Its tries and those that others made for it count alike: a clock that is
/// set forward by years must not fail all mail at once.
pub fn expired(schedule: &Schedule, entry: &Entry, enough: usize) -> Expired {
    let recipients = (0..).zip(entry.recipients());
    recipients
        .filter_map(|(index, (to, status))| {
            let health = schedule.health(*to);
            let (Status::Due { attempts, .. }, Some((_, reply))) = (status, health.closed()) else {
                return None;
            };
            let tried = attempts.saturating_add(health.failures()) as usize;
            (tried >= enough).then(|| (index, reply.into()))
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

impl Worker {
    /// Tells the sender that recipients are late, where he is to be told; then it is not looked at again.
    pub async fn warn_sender(
        &self,
        id: MessageId,
        location: Location,
        late: Vec<(u32, Status, Box<str>)>,
        now: u64,
    ) -> Changed {
        let written = self.write_warning(id, location, &late, now).await;
        let news = late.into_iter().map(|(index, status, _)| (index, status));
        let (queued, result) = match written {
            Ok(queued) => (queued, Ok(())),
            Err(error) => (None, Err(error.to_string())),
        };
        if let Err(error) = &result {
            let text = format!("its sender is not told of the delay yet: {error}");
            self.events
                .emit(None, Some(&id.to_string()), EventKind::Warning { text });
        }
        Changed {
            id,
            order: None,
            news: if result.is_ok() {
                news.collect()
            } else {
                Vec::new()
            },
            held: None,
            queued,
            result,
        }
    }

    async fn write_warning(
        &self,
        id: MessageId,
        location: Location,
        late: &[(u32, Status, Box<str>)],
        now: u64,
    ) -> anyhow::Result<Option<super::job::Queued>> {
        let store = self.store.clone();
        let stored = tokio::task::spawn_blocking(move || store.message(location)).await??;
        let message = &stored.message;
        let until = message
            .arrived
            .saturating_add(self.queue.expire.saturating_mul(1000));
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
        let notification = self.notification(id, message, Some(&stored), &reported, now);
        if notification.is_none() {
            return Ok(None);
        }
        let outcome = StoredOutcome {
            recipients: late
                .iter()
                .map(|(index, status, _)| (*index, status.clone()))
                .collect(),
            held: None,
        };
        self.record(id, &message.envelope.trace, notification.as_ref(), &outcome)
            .await
    }

    /// Gives recipients up. `now` in milliseconds since 1970.
    pub async fn expire(&self, id: MessageId, location: Location, expired: Expired, now: u64) -> Changed {
        let news: Vec<_> = expired
            .iter()
            .map(|(index, _)| (*index, Status::Failed))
            .collect();
        let written = self.write_expired(id, location, &expired, &news, now).await;
        if let Err(error) = &written {
            let text = format!("it is not given up yet: {error}");
            self.events
                .emit(None, Some(&id.to_string()), EventKind::Warning { text });
        }
        let (queued, result) = match written {
            Ok(queued) => (queued, Ok(())),
            Err(error) => (None, Err(error.to_string())),
        };
        Changed {
            id,
            order: None,
            news: if result.is_ok() { news } else { Vec::new() },
            held: None,
            queued,
            result,
        }
    }

    async fn write_expired(
        &self,
        id: MessageId,
        location: Location,
        expired: &Expired,
        news: &[(u32, Status)],
        now: u64,
    ) -> anyhow::Result<Option<super::job::Queued>> {
        let store = self.store.clone();
        let stored = tokio::task::spawn_blocking(move || store.message(location)).await??;
        let envelope = &stored.message.envelope;
        let told: Vec<_> = expired
            .iter()
            .filter_map(|(index, reply)| Some((envelope.recipients.get(*index as usize)?, reply)))
            .collect();
        let failed: Vec<Reported> = told
            .iter()
            .filter(|(recipient, _)| bounce::wants_failure(recipient))
            .map(|(recipient, reply)| Reported {
                address: recipient.address.clone(),
                orcpt: recipient.orcpt.clone(),
                status: "4.4.7".into(),
                remote: None,
                reply: reply.to_string(),
                action: Action::Failed { expired: true },
            })
            .collect();
        let notification = self.notification(id, &stored.message, Some(&stored), &failed, now);
        let outcome = StoredOutcome {
            recipients: news.to_vec(),
            held: None,
        };
        let queued = self
            .record(id, &envelope.trace, notification.as_ref(), &outcome)
            .await?;
        for (recipient, reply) in told {
            let kind = EventKind::Bounced {
                recipient: recipient.address.clone(),
                reply: reply.to_string(),
            };
            self.events
                .emit(Some(&envelope.trace), Some(&id.to_string()), kind);
        }
        Ok(queued)
    }
}
