//! What time does to messages that wait: senders are told, mail is given up, and a clock that was wrong is borne.

use std::cmp::Reverse;

use super::{Command, Manager, NOTICES};
use crate::queue::config::Queue;
use crate::queue::notice::{self, GivenUp};
use crate::spool::MessageId;

/// Milliseconds between two looks at a message that is late.
const LOOK_AGAIN: u64 = 600_000;

/// When a message that arrived then is looked at first, milliseconds since 1970.
pub(super) fn first_look(queue: &Queue, id: MessageId, arrived: u64) -> Reverse<(u64, MessageId)> {
    Reverse((queue.late_at(arrived).min(queue.over_at(arrived)), id))
}

impl Manager {
    /// The time is `now`. Where it has been later, nothing waits for the old time to come again.
    pub(super) fn tick(&mut self, now: u64) {
        if now < self.last {
            let queue = &self.worker.queue;
            self.schedule.not_after(now + queue.longest_wait());
            self.schedule.arrived_by(now, |attempts| queue.waited(attempts));
            self.worker.hold.not_after(now);
            self.look_at_all();
        }
        self.last = now;
    }

    /// Notes for all messages when they are to be looked at first.
    pub(super) fn look_at_all(&mut self) {
        let (queue, arrivals) = (&self.worker.queue, self.schedule.arrivals());
        self.looks = arrivals
            .map(|(id, arrived)| first_look(queue, id, arrived))
            .collect();
    }

    /// Looks at messages whose time may have run out.
    pub(super) fn look(&mut self, now: u64) {
        while let Some(Reverse((at, id))) = self.looks.peek().copied()
            && at <= now
            && self.under_way < NOTICES
        {
            self.looks.pop();
            let Some(entry) = self.schedule.entry(id) else {
                continue;
            };
            let queue = &self.worker.queue;
            let (late_at, over_at) = (queue.late_at(entry.arrived), queue.over_at(entry.arrived));
            // What is just being tried or held, or could not be recorded, is looked at again.
            let next = [late_at, over_at].into_iter().filter(|at| *at > now);
            let again = next.chain([now + queue.longest_wait().min(LOOK_AGAIN)]).min();
            self.looks.extend(again.map(|at| Reverse((at, id))));
            let (mut expired, mut late) = (Vec::new(), Vec::new());
            if over_at <= now {
                expired = notice::expired(&self.schedule, entry, queue.retry.len());
            } else if late_at <= now {
                late = notice::late(&self.schedule, entry);
            }
            if entry.held || expired.is_empty() && late.is_empty() {
                continue;
            }
            if let Ok(entry) = self.schedule.begin_change(id, true) {
                let (location, until) = (entry.location, over_at);
                self.under_way += 1;
                let (worker, sender) = (self.worker.clone(), self.sender.clone());
                tokio::spawn(async move {
                    let doer = worker.clone();
                    let work = async move {
                        if expired.is_empty() {
                            doer.warn_sender(id, location, late, until, now).await
                        } else {
                            doer.give_up(id, location, GivenUp::expired(expired), now).await
                        }
                    };
                    let changed = worker.see_through(id, work).await;
                    let _ = sender.send(Command::Changed(Box::new(changed)));
                });
            }
        }
    }
}
