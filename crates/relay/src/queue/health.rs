//! How a destination is: how many sessions it bears, and whether it can be reached at all. Pure: time is given.
//!
//! Each message that gets through makes room for one session more, up to the limit; each failure to reach the destination
//! halves the room. When a failure leaves no session that could still get through, the destination is closed as a whole:
//! its messages wait, whatever times of their own they have, and one at a time probes whether it is back, at the same
//! growing intervals at which a message would be tried again.

/// Sessions to a destination of which nothing is known.
const FIRST: usize = 5;

/// State of a destination.
#[derive(Debug)]
pub struct Health {
    limit: usize,
    most: usize,
    /// Closings in a row.
    failures: u32,
    /// Milliseconds since 1970; `None` while it is open.
    closed_until: Option<u64>,
    /// Why it is closed.
    reply: Box<str>,
}

impl Health {
    /// Open, for at most `most` sessions.
    pub fn new(most: usize) -> Self {
        Self {
            limit: FIRST.min(most),
            most,
            failures: 0,
            closed_until: None,
            reply: "".into(),
        }
    }

    /// Whether one session more may begin beside `active` others.
    pub fn has_room(&self, active: usize, now: u64) -> bool {
        match self.closed_until {
            None => active < self.limit,
            Some(until) => active == 0 && now >= until,
        }
    }

    /// It was reached.
    pub fn reached(&mut self) {
        self.failures = 0;
        self.closed_until = None;
        self.limit = (self.limit + 1).min(self.most);
    }

    /// It could not be reached, while `others` sessions are still under way. `until`: when to probe, if it is closed now.
    pub fn failed(&mut self, others: usize, until: u64, reply: &str) {
        self.limit = (self.limit / 2).max(1);
        if others == 0 {
            self.failures = self.failures.saturating_add(1);
            self.closed_until = Some(until);
            self.reply = reply.into();
        }
    }

    /// The operator wants it tried: the next message probes.
    pub fn probe_now(&mut self, now: u64) {
        self.closed_until = self.closed_until.map(|until| until.min(now));
    }

    /// Nothing waits beyond `latest`, for a clock that was put back.
    pub fn not_after(&mut self, latest: u64) {
        self.probe_now(latest);
    }

    /// Closings in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When it is probed next, and why it is closed; `None` while it is open.
    pub fn closed(&self) -> Option<(u64, &str)> {
        self.closed_until.map(|until| (until, &*self.reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_success_and_halves_with_failure() {
        let mut health = Health::new(8);
        let room = |health: &Health| (0..100).take_while(|active| health.has_room(*active, 0)).count();
        assert_eq!(room(&health), 5);
        for _ in 0..9 {
            health.reached();
        }
        assert_eq!(room(&health), 8);
        health.failed(7, 50, "");
        assert_eq!((room(&health), health.closed()), (4, None));
        for _ in 0..4 {
            health.failed(1, 50, "");
        }
        assert_eq!((room(&health), health.closed()), (1, None));
        assert_eq!(room(&Health::new(2)), 2);
    }

    #[test]
    fn a_closed_destination_is_probed_by_one_until_it_is_reached() {
        let mut health = Health::new(8);
        health.failed(0, 50, "451 4.4.1 no");
        assert_eq!(health.closed(), Some((50, "451 4.4.1 no")));
        assert!(!health.has_room(0, 49) && health.has_room(0, 50) && !health.has_room(1, 50));
        health.failed(0, 90, "");
        assert_eq!(health.failures(), 2);
        health.probe_now(60);
        assert!(health.has_room(0, 60) && !health.has_room(1, 60));
        health.reached();
        assert_eq!((health.failures(), health.closed()), (0, None));
        assert!(health.has_room(1, 60) && !health.has_room(4, 60));
    }
}
