//! The queue's own notifications on their way into the spool: written, checked for a route, and made durable before the
//! outcome that they tell of.

use std::time::Duration;

use postern_control::EventKind;

use super::bounce;
use super::job::{Queued, Worker, unharmed};
use super::store::{message_record, outcome_record};
use crate::dsn::Reported;
use crate::spool::body::Stored;
use crate::spool::writer::{AppendError, Body, Record};
use crate::spool::{MessageId, StoredMessage, StoredOutcome};

/// Wait before the spool is asked again to record what has happened already.
const AGAIN: Duration = Duration::from_secs(2);

/// A disk that is too full for a notification is asked so often. Whoever waits holds a place, and the deliveries that would
/// make room need places.
const FULL: u32 = 3;

/// The disk is too full for a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

/// A notification that is not yet in the spool.
pub struct Notification {
    id: MessageId,
    message: StoredMessage,
    record: Record,
}

impl Worker {
    /// What is to be told of `reported` recipients of the message `id`; `None` where nobody is, or nothing can be.
    /// `content` is absent where only the envelope can be read.
    pub fn notification(
        &self,
        id: MessageId,
        message: &StoredMessage,
        content: Option<&Stored>,
        reported: &[Reported],
        now: u64,
    ) -> Option<Notification> {
        let warn = |text| self.warn(id, &message.envelope.trace, text);
        let write =
            |content| unharmed(|| bounce::notification(&self.identity, id, message, content, reported, now));
        // Whatever is in the content, a fault over it must not keep anybody from being told.
        let (own, octets) = write(content).or_else(|| write(None)).unwrap_or_else(|| {
            warn("no notification could be written: a fault, see the journal".to_owned());
            None
        })?;
        let to = &own.envelope.recipients[0].address;
        if self.router.destination(own.provenance, to).is_none() {
            warn(format!(
                "no route for our own notifications leads to {to}; add one from `inside`"
            ));
            return None;
        }
        let own_id = self.store.new_id();
        match message_record(own_id, &own, Body::Octets(octets.into())) {
            Ok(record) => Some(Notification {
                id: own_id,
                message: own,
                record,
            }),
            Err(error) => {
                warn(format!("no notification could be written: {error}"));
                None
            }
        }
    }

    /// Makes a notification durable, and then the outcome of the message `of` that it tells of, with a flush between: of two
    /// records that share one, a power cut may leave the second and take the first, and then nobody would be told.
    /// After an error nothing has happened; once the notification is there, the outcome is not given up.
    pub async fn record(
        &self,
        of: MessageId,
        trace: &str,
        notification: Option<&Notification>,
        outcome: &StoredOutcome,
    ) -> anyhow::Result<Option<Queued>> {
        let outcome = outcome_record(of, outcome)?;
        let Some(notification) = notification else {
            self.store.append(vec![outcome]).await?;
            return Ok(None);
        };
        let locations = self.store.append_own(vec![notification.record.clone()]).await?;
        let location = *locations
            .first()
            .ok_or_else(|| anyhow::anyhow!("the spool gave no place"))?;
        while let Err(error) = self.store.append(vec![outcome.clone()]).await {
            self.warn(of, trace, format!("an outcome is not recorded yet: {error}"));
            tokio::time::sleep(AGAIN).await;
        }
        let kind = EventKind::Dsn {
            dsn: notification.id.to_string(),
            r#for: notification.message.envelope.recipients[0].address.clone(),
        };
        self.events.emit(Some(trace), Some(&of.to_string()), kind);
        self.events.write_out();
        Ok(Some(Queued {
            id: notification.id,
            location,
            message: notification.message.clone(),
        }))
    }

    /// The same, and not given up: the next hop has answered, and forgetting that would send the message again. `Err`:
    /// nothing was recorded, because the disk has had no room for the notification for a while.
    pub async fn record_surely(
        &self,
        of: MessageId,
        trace: &str,
        notification: Option<Notification>,
        outcome: &StoredOutcome,
    ) -> Result<Option<Queued>, NoRoom> {
        let mut full = 0;
        loop {
            let error = match self.record(of, trace, notification.as_ref(), outcome).await {
                Ok(queued) => return Ok(queued),
                Err(error) => error,
            };
            self.warn(of, trace, format!("an outcome is not recorded yet: {error}"));
            if matches!(error.downcast_ref(), Some(AppendError::Full { .. })) {
                full += 1;
                if full == FULL {
                    return Err(NoRoom);
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn warn(&self, id: MessageId, trace: &str, text: String) {
        self.events
            .emit(Some(trace), Some(&id.to_string()), EventKind::Warning { text });
    }
}
