//! What time does to a message without an attempt of its own: while its destination is closed as a whole, one message
//! probes for all. A message whose time has run out meanwhile is given up with the destination's last answer.

use postern_control::EventKind;

use super::bounce;
use super::change::Changed;
use super::job::Worker;
use super::schedule::{Entry, Schedule};
use super::store::outcome_record;
use crate::dsn::Failed;
use crate::spool::{Location, MessageId, Status, StoredOutcome};

/// Recipients whose time has run out, and why they were not reached.
pub type Expired = Vec<(u32, Box<str>)>;

/// Which recipients of a message are given up. Its tries and those that others made for it count alike: a clock that is
/// set forward by years must not fail all mail at once.
pub fn expired(schedule: &Schedule, entry: &Entry, tries: usize) -> Expired {
    let recipients = (0..).zip(entry.recipients());
    recipients
        .filter_map(|(index, (to, status))| {
            let health = schedule.health(*to);
            let (Status::Due { attempts, .. }, Some((_, reply))) = (status, health.closed()) else {
                return None;
            };
            let tried = attempts.saturating_add(health.failures()) as usize;
            (tried >= tries).then(|| (index, reply.into()))
        })
        .collect()
}

impl Worker {
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
        let failed: Vec<Failed> = told
            .iter()
            .filter(|(recipient, _)| bounce::wants_failure(recipient))
            .map(|(recipient, reply)| Failed {
                address: recipient.address.clone(),
                orcpt: recipient.orcpt.clone(),
                status: "4.4.7".into(),
                remote: None,
                reply: reply.to_string(),
                expired: true,
            })
            .collect();
        let notification = self.notification(id, &stored, &failed, now);
        let mut records = Vec::new();
        if let Some(notification) = &notification {
            records.push(notification.record()?);
        }
        let outcome = StoredOutcome {
            recipients: news.to_vec(),
            held: None,
        };
        records.push(outcome_record(id, &outcome)?);
        let locations = self.store.append(records).await?;
        for (recipient, reply) in told {
            let kind = EventKind::Bounced {
                recipient: recipient.address.clone(),
                reply: reply.to_string(),
            };
            self.events
                .emit(Some(&envelope.trace), Some(&id.to_string()), kind);
        }
        Ok(notification
            .zip(locations.first())
            .map(|(notification, location)| self.notified(id, notification, *location)))
    }
}
