//! Messages that have just come, kept in memory for their first attempt: it would read from the spool what was in its
//! hands a moment ago. A bounded number of octets, for moments only; who is not here is read from the spool.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::spool::body::Stored;
use crate::spool::{Location, StoredMessage};

/// Octets of messages, and what each counts besides, for its envelope.
const ROOM: usize = 4 << 20;
const EACH: usize = 4096;
/// Octets of an envelope at most, as it is written.
const ENVELOPE: u32 = 8 << 10;
/// What waits longer makes room for others: its destination is closed, or it is held.
const MOMENT: Duration = Duration::from_secs(10);

/// Segment and offset.
type Place = (u64, u64);

/// The messages.
#[derive(Default)]
pub struct Fresh {
    messages: HashMap<Place, Arc<Stored>>,
    /// As they came; of some the message is gone already.
    order: VecDeque<(Instant, Place)>,
    octets: usize,
}

impl Fresh {
    /// Keeps a message that is durable at `location`, where there is room.
    pub fn put(&mut self, location: Location, message: StoredMessage, octets: Arc<[u8]>, now: Instant) {
        let size = octets.len() + EACH;
        while let Some((since, place)) = self.order.front().copied()
            && (now.duration_since(since) >= MOMENT || !self.messages.contains_key(&place))
        {
            self.order.pop_front();
            self.forget(place);
        }
        if self.octets + size <= ROOM && location.meta_length <= ENVELOPE {
            let place = (location.segment, location.offset);
            self.octets += size;
            self.order.push_back((now, place));
            let stored = Stored::in_memory(location, message, octets);
            self.messages.insert(place, Arc::new(stored));
        }
    }

    /// The message at `location`, for the one attempt.
    pub fn take(&mut self, location: Location) -> Option<Arc<Stored>> {
        self.forget((location.segment, location.offset))
    }

    fn forget(&mut self, place: Place) -> Option<Arc<Stored>> {
        let message = self.messages.remove(&place)?;
        self.octets -= usize::try_from(message.size()).unwrap_or(0) + EACH;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::testing::message;

    fn at(offset: u64, body_length: u64) -> Location {
        Location {
            segment: 1,
            offset,
            meta_length: 1,
            body_length,
        }
    }

    fn put(fresh: &mut Fresh, offset: u64, size: usize, now: Instant) {
        let place = at(offset, size as u64);
        let octets = vec![b'x'; size].into();
        fresh.put(place, message(&["user@example.org"], size), octets, now);
    }

    #[test]
    fn a_message_is_given_once_and_counted_until_then() {
        let (mut fresh, now) = (Fresh::default(), Instant::now());
        put(&mut fresh, 0, 1000, now);
        let stored = fresh.take(at(0, 1000)).unwrap();
        assert_eq!(stored.size(), 1000);
        assert_eq!(stored.read(990, 64).unwrap(), b"xxxxxxxxxx");
        assert!(fresh.take(at(0, 1000)).is_none());
        assert_eq!(fresh.octets, 0);
    }

    #[test]
    fn what_waits_is_bounded_and_does_not_shut_out_others_for_ever() {
        let (mut fresh, now) = (Fresh::default(), Instant::now());
        let most = ROOM / (1024 + EACH);
        for number in 0..2 * most {
            put(&mut fresh, number as u64, 1024, now);
        }
        assert_eq!(fresh.messages.len(), most);
        assert!(fresh.take(at(0, 1024)).is_some(), "the oldest are tried first");
        let later = now + MOMENT;
        put(&mut fresh, 1 << 20, 1024, later);
        assert!(fresh.take(at(1 << 20, 1024)).is_some());
        assert_eq!((fresh.messages.len(), fresh.octets, fresh.order.len()), (0, 0, 1));
    }
}
