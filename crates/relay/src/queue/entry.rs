//! A message in the schedule: how its recipients stand, and what is under way with it.

use std::collections::BTreeSet;

use super::priority::Sender;
use super::provenance::Provenance;
use super::router::Destination;
use super::schedule::DestinationId;
use crate::spool::{Location, Status};

/// A message that waits.
#[derive(Debug)]
pub struct Entry {
    /// Where it is.
    pub location: Location,
    /// Through which socket it came.
    pub provenance: Provenance,
    /// Milliseconds since 1970.
    pub arrived: u64,
    /// Not to be tried until the operator releases it.
    pub held: bool,
    pub(super) bulk: bool,
    pub(super) sender: Sender,
    pub(super) recipients: Vec<(DestinationId, Status)>,
    /// Destinations that are being tried.
    pub(super) busy: Vec<DestinationId>,
    /// Destinations at which it is ready.
    pub(super) ready: Vec<DestinationId>,
    /// What is being written of it.
    pub(super) writing: Writing,
}

/// What is being written of a message. Until that is done nothing may be tried, and nothing else be written but outcomes of
/// what is being tried: records of one message must be in the order in which they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// Nothing.
    Nothing,
    /// All of it, to another place.
    Copy,
    /// A change by the operator or by time.
    Change,
}

/// A message to be scheduled.
#[derive(Debug)]
pub struct New {
    /// Where it is.
    pub location: Location,
    /// Through which socket it came.
    pub provenance: Provenance,
    /// Milliseconds since 1970.
    pub arrived: u64,
    /// Not to be tried until the operator releases it.
    pub held: bool,
    /// Mass mail by its header or its recipients.
    pub bulk: bool,
    /// Whose turn it takes.
    pub sender: Sender,
    /// Recipients with their destinations, in the envelope's order.
    pub recipients: Vec<(Destination, Status)>,
}

/// Why a change cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// There is no such message.
    Unknown,
    /// It is being carried over or changed: soon.
    Soon,
    /// It is being tried.
    Tried,
}

impl Entry {
    /// How its recipients stand, in the envelope's order.
    pub fn statuses(&self) -> impl Iterator<Item = &Status> {
        self.recipients.iter().map(|(_, status)| status)
    }

    /// Recipients with the indexes of their destinations, in the envelope's order.
    pub fn recipients(&self) -> &[(DestinationId, Status)] {
        &self.recipients
    }

    /// Indexes of the recipients that are not done.
    pub fn waiting(&self) -> Vec<u32> {
        (0..)
            .zip(self.statuses())
            .filter(|(_, status)| !status.is_final())
            .map(|(index, _)| index)
            .collect()
    }

    /// Whether its recipients at this destination may be tried.
    pub(super) fn may_try(&self, to: DestinationId) -> bool {
        self.rests() && !self.held && !self.busy.contains(&to)
    }

    /// Nothing is being written of it.
    pub(super) fn rests(&self) -> bool {
        self.writing == Writing::Nothing
    }

    /// Octets of its record.
    pub(super) fn octets(&self) -> u64 {
        self.location.body_length + u64::from(self.location.meta_length)
    }

    /// Destinations of all its recipients, done or not.
    pub(super) fn lanes(&self) -> BTreeSet<DestinationId> {
        self.recipients.iter().map(|(to, _)| *to).collect()
    }

    /// Destinations of the recipients that are not done.
    pub(super) fn destinations(&self) -> BTreeSet<DestinationId> {
        self.recipients
            .iter()
            .filter(|(_, status)| !status.is_final())
            .map(|(to, _)| *to)
            .collect()
    }

    /// When the first recipient at a destination is due.
    pub(super) fn next(&self, to: DestinationId) -> Option<u64> {
        let times = self
            .recipients
            .iter()
            .filter(|(other, _)| *other == to)
            .filter_map(|(_, status)| match status {
                Status::Due { at, .. } => Some(*at),
                _ => None,
            });
        times.min()
    }

    /// Recipients at a destination that are due, with their tries so far.
    pub(super) fn due(&self, to: DestinationId, now: u64) -> Vec<(u32, u32)> {
        (0..)
            .zip(&self.recipients)
            .filter_map(|(index, (other, status))| match status {
                Status::Due { at, attempts, .. } if *other == to && *at <= now => Some((index, *attempts)),
                _ => None,
            })
            .collect()
    }
}
