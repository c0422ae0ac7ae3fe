//! What the manager says of the messages that wait.

use std::sync::Arc;
use std::time::SystemTime;

use postern_control::QueueStatus;

use super::Manager;
use crate::events::unix_millis;
use crate::queue::schedule::Entry;
use crate::spool::hold::Standing;
use crate::spool::{Location, MessageId, Status};

/// The oldest messages.
pub struct Listing {
    /// In the order of their ids.
    pub messages: Vec<Listed>,
    /// There are more.
    pub more: bool,
}

/// A message in a listing.
pub struct Listed {
    /// Its name.
    pub id: MessageId,
    /// Its place.
    pub location: Location,
    /// Whether it is held.
    pub held: bool,
    /// How it stands in the hold, where it is there.
    pub standing: Option<Standing>,
    /// Why it has not been scanned, where that is known.
    pub unscanned: Option<Box<str>>,
    /// How its recipients stand, and by which next hop they go, in the envelope's order.
    pub recipients: Vec<(Status, Arc<str>)>,
}

impl Manager {
    pub(super) fn status(&self) -> QueueStatus {
        let oldest = self.schedule.entries(None).next().map(|(_, entry)| entry.arrived);
        let now = unix_millis(SystemTime::now());
        QueueStatus {
            messages: self.schedule.len() as u64,
            recipients_due: self.schedule.waiting() as u64,
            oldest_age_seconds: oldest.map_or(0, |arrived| now.saturating_sub(arrived) / 1000),
            spool_octets: self.worker.store.octets(),
        }
    }

    pub(super) fn list(&self, after: Option<MessageId>, most: usize) -> Listing {
        let mut entries = self.schedule.entries(after);
        let messages = entries
            .by_ref()
            .take(most)
            .map(|(id, entry)| self.listed(id, entry));
        Listing {
            messages: messages.collect(),
            more: entries.next().is_some(),
        }
    }

    pub(super) fn listed(&self, id: MessageId, entry: &Entry) -> Listed {
        // What is due waits for a destination that is closed.
        let stands = |status: &Status, to| match (status.clone(), self.schedule.health(to).closed()) {
            (
                Status::Due {
                    at,
                    attempts,
                    reply,
                    warned,
                },
                Some((until, why)),
            ) => Status::Due {
                at: at.max(until),
                attempts,
                reply: if reply.is_empty() { why.into() } else { reply },
                warned,
            },
            (status, _) => status,
        };
        let next_hop = |to| self.schedule.destination(to).next_hop.clone();
        Listed {
            id,
            location: entry.location,
            held: entry.held,
            standing: self.worker.hold.standing(id),
            unscanned: self.worker.hold.why(id),
            recipients: entry
                .recipients()
                .iter()
                .map(|(to, status)| (stands(status, *to), next_hop(*to)))
                .collect(),
        }
    }
}
