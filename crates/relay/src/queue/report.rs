//! The queue's own notifications on their way into the spool: written, checked for a route, queued beside the outcome
//! that they tell of.

use postern_control::EventKind;

use super::bounce;
use super::job::{Queued, Worker};
use super::store::message_record;
use crate::dsn::Reported;
use crate::spool::body::Stored;
use crate::spool::writer::{Body, Record};
use crate::spool::{Location, MessageId, StoredMessage};

/// A notification that is not yet in the spool.
pub struct Notification {
    id: MessageId,
    message: StoredMessage,
    octets: Vec<u8>,
}

impl Notification {
    /// Its record.
    pub fn record(&self) -> serde_json::Result<Record> {
        message_record(
            self.id,
            &self.message,
            Body::Octets(self.octets.as_slice().into()),
        )
    }
}

impl Worker {
    /// What is to be told of `reported` recipients of the message `id`; `None` where nobody is, or nothing can be.
    pub fn notification(
        &self,
        id: MessageId,
        stored: &Stored,
        reported: &[Reported],
        now: u64,
    ) -> Option<Notification> {
        let trace = &stored.message.envelope.trace;
        let warn = |text: String| {
            let kind = EventKind::Warning { text };
            self.events.emit(Some(trace), Some(&id.to_string()), kind);
        };
        let written =
            bounce::notification(&self.identity, id, stored, reported, now).unwrap_or_else(|error| {
                warn(format!("no notification could be written: {error}"));
                None
            });
        let (message, octets) = written?;
        let to = &message.envelope.recipients[0].address;
        if self.router.destination(message.provenance, to).is_none() {
            warn(format!(
                "no route for our own notifications leads to {to}; add one from `inside`"
            ));
            return None;
        }
        Some(Notification {
            id: self.store.new_id(),
            message,
            octets,
        })
    }

    /// It is in the spool: tells of it, beside the message `of` that it is about.
    pub fn notified(&self, of: MessageId, notification: Notification, location: Location) -> Queued {
        let Notification { id, message, .. } = notification;
        let kind = EventKind::Dsn {
            dsn: id.to_string(),
            r#for: message.envelope.recipients[0].address.clone(),
        };
        self.events
            .emit(Some(&message.envelope.trace), Some(&of.to_string()), kind);
        Queued {
            id,
            location,
            message,
        }
    }
}
