//! The schedule out of the spool, at a start. Of a message only that is kept in memory which decides when and in whose
//! turn it is tried; the rest is read again when it is.

use super::priority;
use super::router::Router;
use super::schedule::{New, Schedule};
use crate::spool::{Digest, Location};

/// A message as the schedule takes it.
pub fn routed(schedule: &mut Schedule, router: &Router, location: Location, message: Digest) -> New {
    let (provenance, brief) = (message.provenance, message.envelope);
    let class = priority::class(message.bulk, 0);
    let mut index = |address: &str| {
        let to = router.destination(provenance, address);
        let to = to.unwrap_or_else(|| Router::nowhere(address));
        schedule.index(router.from_source(to, &brief.reverse_path, class))
    };
    let recipients = brief.recipients.iter().zip(message.statuses);
    New {
        location,
        provenance,
        arrived: message.arrived,
        held: message.held || message.hold.is_some_and(|hold| hold.standing.is_some()),
        bulk: message.bulk,
        sender: priority::sender(brief.authenticated_user.as_deref(), &brief.reverse_path),
        recipients: recipients
            .map(|(recipient, status)| (index(&recipient.address), status))
            .collect(),
    }
}
