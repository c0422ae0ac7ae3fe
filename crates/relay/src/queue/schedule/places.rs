//! Where in the spool the messages are that wait: what each segment still holds, kept as it changes, so that nobody goes
//! through all messages to know whether a segment can go.

use std::collections::BTreeMap;

use crate::spool::{Location, MessageId};

/// All segments that hold something which is wanted.
#[derive(Debug, Default)]
pub(super) struct Places {
    segments: BTreeMap<u64, Segment>,
    octets: u64,
}

#[derive(Debug, Default)]
struct Segment {
    /// Messages there that are wanted.
    live: usize,
    /// Messages that came there, in the order of their coming; most of them may be done.
    came: Vec<MessageId>,
}

impl Places {
    /// A message is there from now on.
    pub(super) fn enter(&mut self, at: Location, id: MessageId) {
        let segment = self.segments.entry(at.segment).or_default();
        segment.live += 1;
        segment.came.push(id);
        self.octets += octets(at);
    }

    /// A message that was there is done, or is elsewhere.
    pub(super) fn leave(&mut self, at: Location) {
        self.octets -= octets(at);
        if let Some(segment) = self.segments.get_mut(&at.segment) {
            segment.live -= 1;
            if segment.live == 0 {
                self.segments.remove(&at.segment);
            }
        }
    }

    /// Something in this segment is wanted.
    pub(super) fn holds(&self, segment: u64) -> bool {
        self.segments.contains_key(&segment)
    }

    /// Messages that came to this segment; they may be done or elsewhere.
    pub(super) fn came(&self, segment: u64) -> impl Iterator<Item = MessageId> {
        let segment = self.segments.get(&segment).into_iter();
        segment.flat_map(|segment| segment.came.iter().copied())
    }

    /// Octets of the records of all messages.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }
}

/// Octets of a record.
fn octets(at: Location) -> u64 {
    at.body_length + u64::from(at.meta_length)
}
