//! Mail that the spool does not give back: the disk has an error there, or the octets are not those that were written.
//!
//! An error of the disk may pass, so the message is read again, at the intervals at which others are tried again. When it has
//! been read so often in vain it is given up: its sender is told by what the envelope says, and its segment is set aside,
//! so that one bad sector does not keep all that came later on the disk. What can be read is never given up here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use postern_control::EventKind;

use super::config::Queue;
use super::job::Worker;
use crate::events::unix_millis;
use crate::spool::body::Stored;
use crate::spool::{Location, MessageId, SpoolError, StoredMessage};

/// Reads in vain before a message is given up, however short the intervals are.
const READS: u32 = 3;

/// Messages that could not be read lately.
#[derive(Default)]
pub struct Unreadable(Mutex<HashMap<MessageId, Tally>>);

#[derive(Clone, Copy)]
struct Tally {
    /// Of the first read in vain, milliseconds since 1970.
    first: u64,
    reads: u32,
    /// Not to be read before, but for an attempt.
    next: u64,
}

impl Unreadable {
    /// A message could not be read. True where that has been so for long enough to give it up.
    pub fn failed(&self, id: MessageId, queue: &Queue, now: u64) -> bool {
        let mut all = self.lock();
        let tally = all.entry(id).or_insert(Tally {
            first: now,
            reads: 0,
            next: 0,
        });
        // The clock may have been put back.
        tally.first = tally.first.min(now);
        tally.next = now + queue.wait(tally.reads);
        tally.reads += 1;
        let steps = u32::try_from(queue.retry.len()).unwrap_or(READS);
        tally.reads >= steps.max(READS) && now - tally.first >= queue.waited(steps)
    }

    /// A message was read, or is done.
    pub fn forget(&self, id: MessageId) {
        self.lock().remove(&id);
    }

    /// Whether a message may be read for its being carried over.
    pub fn may_read(&self, id: MessageId, now: u64) -> bool {
        self.lock().get(&id).is_none_or(|tally| tally.next <= now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MessageId, Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the spool gives of a message.
pub struct Read {
    /// The envelope, and how its recipients stood when it was written.
    pub message: StoredMessage,
    /// The message itself, or why there is none.
    pub content: Result<Arc<Stored>, Lost>,
}

impl Read {
    /// The content, where there is one.
    pub fn stored(&self) -> Option<&Stored> {
        self.content.as_deref().ok()
    }
}

/// Something cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be read from the spool: {error}")]
pub struct Lost {
    error: SpoolError,
    /// It has been so for long enough to give the message up.
    pub for_good: bool,
}

impl Worker {
    /// Reads a message, or its envelope where there is nothing else. `Err`: not even that.
    pub async fn read(self: &Arc<Self>, id: MessageId, location: Location) -> Result<Read, Lost> {
        let worker = self.clone();
        let read = tokio::task::spawn_blocking(move || worker.read_now(id, location));
        read.await.unwrap_or_else(|fault| {
            Err(Lost {
                error: SpoolError::Fault(fault.to_string()),
                for_good: false,
            })
        })
    }

    fn read_now(&self, id: MessageId, location: Location) -> Result<Read, Lost> {
        let error = match self.store.message(location) {
            Ok(stored) => {
                self.unreadable.forget(id);
                return Ok(Read {
                    message: stored.message.clone(),
                    content: Ok(Arc::new(stored)),
                });
            }
            Err(error) => error,
        };
        self.store.mark_damaged(location.segment);
        let now = unix_millis(SystemTime::now());
        let lost = Lost {
            error,
            for_good: self.unreadable.failed(id, &self.queue, now),
        };
        match self.store.envelope(location) {
            Ok(message) => Ok(Read {
                message,
                content: Err(lost),
            }),
            Err(error) => Err(Lost { error, ..lost }),
        }
    }

    /// Tells the operator of a message that is given up, and of which nobody else can be told.
    pub fn tell_of_nobody(&self, id: MessageId, lost: &Lost) {
        let text = format!(
            "the message is given up and nobody can be told, for its envelope cannot be read either: {lost}; \
             its segment is kept in the spool as `.damaged`"
        );
        self.events
            .emit(None, Some(&id.to_string()), EventKind::Warning { text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_given_up_only_after_all_intervals_and_reads() {
        let queue = Queue {
            retry: vec![10, 20],
            ..Queue::default()
        };
        let (unreadable, id) = (Unreadable::default(), MessageId(7));
        assert!(unreadable.may_read(id, 0));
        assert!(!unreadable.failed(id, &queue, 100_000));
        assert!(!unreadable.may_read(id, 109_999) && unreadable.may_read(id, 110_000));
        assert!(!unreadable.failed(id, &queue, 110_000));
        assert!(
            !unreadable.failed(id, &queue, 129_999),
            "three reads, and too short a time"
        );
        assert!(unreadable.failed(id, &queue, 130_000));
        unreadable.forget(id);
        for at in [200_000, 200_000 - 90_000, 200_000 - 61_000] {
            assert!(
                !unreadable.failed(id, &queue, at),
                "a clock that was put back gives nothing up"
            );
        }
    }
}
