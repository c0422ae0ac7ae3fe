//! Whether the queue's disk has room for one more message: asked at MAIL, so that no client sends a whole message for a 452
//! (RFC 1870 section 6.1, RFC 5321 section 4.2.3).
//!
//! The queue says its room with each exchange of figures; a message that it had no room for is news at once. It is a courtesy:
//! several clients may be told of the same room, and the queue itself looks again before it writes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postern_smtp::replies;
use postern_smtp::server::MailCommand;

use super::connection::Connection;
use super::permit::Denial;

/// What was said is believed for so long: three exchanges of figures. A queue that is silent then is asked with the message.
const BELIEVED: Duration = Duration::from_secs(30);
/// Octets that a message takes besides its declared size, and one of undeclared size at least: our fields, and the envelope.
const BESIDES: u64 = 64 * 1024;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Option<(Instant, u64)>>);

impl Room {
    fn known(&self) -> MutexGuard<'_, Option<(Instant, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue has told how many octets messages may still take; `None` where it cannot tell.
    pub(super) fn told(&self, octets: Option<u64>, now: Instant) {
        *self.known() = octets.map(|octets| (now, octets));
    }

    /// The queue had no room for a message of so many octets.
    pub(super) fn lacked(&self, octets: u64, now: Instant) {
        let left = self.left(now).map_or(octets, |left| left.min(octets));
        self.told(Some(left), now);
    }

    /// Octets that are left, where that is known and a message of this declared size would not fit into them.
    fn too_little_for(&self, size: Option<u64>, now: Instant) -> Option<u64> {
        let needed = size.unwrap_or(0).saturating_add(BESIDES);
        self.left(now).filter(|left| needed > *left)
    }

    fn left(&self, now: Instant) -> Option<u64> {
        let known = *self.known();
        known
            .filter(|(told, _)| now.saturating_duration_since(*told) < BELIEVED)
            .map(|(_, octets)| octets)
    }
}

impl Connection {
    /// Refuses what this node's queue has no room for.
    pub(super) fn has_room(&self, mail: &MailCommand) -> Result<(), Denial> {
        let Some(left) = self.server.room.too_little_for(mail.size, Instant::now()) else {
            return Ok(());
        };
        let reply = match mail.size {
            Some(size) if left >= BESIDES => replies::no_room(size),
            _ => replies::queue_full(),
        };
        let evidence =
            format!("{left} octets are left for messages in the spool; free space on its file system");
        Err(Denial::because(reply, evidence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_queue_said_counts_until_it_is_old() {
        let (room, now) = (Room::default(), Instant::now());
        assert_eq!(room.too_little_for(Some(u64::MAX), now), None, "nothing is known");
        room.told(Some(1_000_000), now);
        assert_eq!(room.too_little_for(None, now), None);
        assert_eq!(room.too_little_for(Some(1_000_000 - BESIDES), now), None);
        assert_eq!(room.too_little_for(Some(1_000_000), now), Some(1_000_000));
        room.told(Some(BESIDES - 1), now);
        assert_eq!(room.too_little_for(None, now), Some(BESIDES - 1));
        assert_eq!(room.too_little_for(None, now + BELIEVED), None, "forgotten");
        room.told(None, now);
        assert_eq!(room.too_little_for(None, now), None, "the queue cannot tell");
    }

    #[test]
    fn a_message_that_did_not_fit_is_not_sent_again_and_a_smaller_one_may() {
        let (room, now) = (Room::default(), Instant::now());
        // As it was declared, and as it was handed over with our fields.
        let (declared, stored) = (2_000_000, 2_001_000);
        room.lacked(stored, now);
        assert_eq!(room.too_little_for(Some(declared), now), Some(stored));
        assert_eq!(room.too_little_for(Some(1_000_000), now), None);
        room.lacked(3_000_000, now);
        assert_eq!(
            room.too_little_for(Some(declared), now),
            Some(stored),
            "less is known to lack"
        );
        room.told(Some(10_000_000), now);
        assert_eq!(room.too_little_for(Some(declared), now), None, "space came back");
    }
}
