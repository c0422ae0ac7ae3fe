//! A clock that was wrong: times of the spool that lie in the future are brought back to what can be true.

use std::cmp::Reverse;

use super::{DestinationId, Schedule};
use crate::spool::{MessageId, Status};

impl Schedule {
    /// Nothing waits beyond `latest`: what was to be tried later is due then. For a clock that was put back, so that mail
    /// does not wait until the old time comes again.
    pub fn not_after(&mut self, latest: u64) {
        for (to, lane) in (0..).map(DestinationId).zip(&mut self.lanes) {
            lane.health.not_after(latest);
            let closed = lane.health.closed();
            self.openings.extend(closed.map(|(at, _)| Reverse((at, to))));
        }
        for (id, entry) in &mut self.entries {
            for (to, status) in &mut *entry.recipients {
                if let Status::Due { at, .. } = status
                    && *at > latest
                {
                    *at = latest;
                    self.due.push(Reverse((latest, *id, *to)));
                }
            }
        }
    }

    /// Nothing has arrived after `now`. `waited`: the milliseconds that a message has waited for so many tries at least,
    /// so that it is not young again at each start.
    pub fn arrived_by(&mut self, now: u64, waited: impl Fn(u32) -> u64) {
        for entry in self.entries.values_mut() {
            entry.arrived = believable(entry.arrived, entry.statuses(), now, &waited);
        }
    }

    /// Messages with the times of their arrival.
    pub fn arrivals(&self) -> impl Iterator<Item = (MessageId, u64)> {
        self.entries.iter().map(|(id, entry)| (*id, entry.arrived))
    }
}

/// When a message arrived, milliseconds since 1970: what is written, or, where that has not come yet, as long ago as its
/// tries show.
pub fn believable<'a>(
    arrived: u64,
    statuses: impl Iterator<Item = &'a Status>,
    now: u64,
    waited: impl Fn(u32) -> u64,
) -> u64 {
    if arrived <= now {
        return arrived;
    }
    let tries = statuses.filter_map(|status| match status {
        Status::Due { attempts, .. } => Some(*attempts),
        _ => None,
    });
    now.saturating_sub(tries.max().map_or(0, waited))
}
