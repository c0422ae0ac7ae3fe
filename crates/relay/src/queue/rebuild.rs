//! The schedule out of the spool, at a start. Of an envelope only that is kept in memory which decides when and in whose
//! turn a message is tried; the rest is read again when it is.

use super::config::Queue;
use super::priority::{self, Sender};
use super::provenance::Provenance;
use super::router::Router;
use super::schedule::clock::believable;
use super::schedule::{DestinationId, New, Schedule};
use crate::handover::Envelope;
use crate::spool::{Location, StoredMessage};

/// What the schedule needs of an envelope.
#[derive(Debug)]
pub struct Routed {
    sender: Sender,
    /// Of each recipient, in the envelope's order.
    to: Box<[DestinationId]>,
}

/// An envelope as the schedule needs it.
pub fn routed(
    schedule: &mut Schedule,
    router: &Router,
    provenance: Provenance,
    bulk: bool,
    envelope: &Envelope,
) -> Routed {
    let class = priority::class(bulk, 0);
    let mut index = |address: &str| {
        let to = router.destination(provenance, address);
        let to = to.unwrap_or_else(|| Router::nowhere(address));
        schedule.index(router.from_source(to, &envelope.reverse_path, class))
    };
    Routed {
        sender: priority::sender(envelope.authenticated_user.as_deref(), &envelope.reverse_path),
        to: envelope
            .recipients
            .iter()
            .map(|recipient| index(&recipient.address))
            .collect(),
    }
}

/// A message as the schedule takes it. `now` in milliseconds since 1970.
pub fn scheduled(location: Location, message: StoredMessage<Routed>, queue: &Queue, now: u64) -> New {
    let (statuses, arrived) = (message.statuses, message.arrived);
    New {
        location,
        provenance: message.provenance,
        arrived: believable(arrived, statuses.iter(), now, |attempts| queue.waited(attempts)),
        held: message.held || message.hold.is_some_and(|hold| hold.standing.is_some()),
        bulk: message.bulk,
        sender: message.envelope.sender,
        recipients: message.envelope.to.into_iter().zip(statuses).collect(),
    }
}
