//! Greylisting (RFC 6647): the first try of a triplet waits.
//!
//! The triplet is client network (/24 or /64), reverse-path, forward-path. In process and bounded; the clock is the
//! caller's. Triplets that wait and triplets that passed have room of their own: a flood of new ones, which costs a
//! stranger nothing, must not make those forgotten that proved themselves.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::table::Table;

/// How long a triplet that has not come back is remembered (RFC 6647 section 5: at least hours).
const RETRY_WINDOW: Duration = Duration::from_hours(2 * 24);
/// How long a triplet that came back is let through without delay.
const PASS_WINDOW: Duration = Duration::from_hours(35 * 24);
const TRIPLETS: usize = 262_144;

/// All triplets of one process.
#[derive(Debug)]
pub struct Greylist {
    delay: Duration,
    /// Since when.
    waiting: Table<Instant>,
    passed: Table<()>,
}

/// What the greylist knows of a triplet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Known, or waited long enough.
    Known,
    /// To wait this much longer.
    Wait(Duration),
}

impl Greylist {
    /// A greylist with this delay.
    pub fn new(delay: Duration) -> Self {
        Self::with_room(delay, TRIPLETS)
    }

    fn with_room(delay: Duration, triplets: usize) -> Self {
        Self {
            delay,
            waiting: Table::new(triplets),
            passed: Table::new(triplets),
        }
    }

    /// Looks a triplet up and remembers it.
    pub fn see(&mut self, peer: IpAddr, reverse_path: &str, forward_path: &str, now: Instant) -> Seen {
        let key = (
            network(peer),
            reverse_path.to_lowercase(),
            forward_path.to_lowercase(),
        );
        if self.passed.get(&key, now).is_none() {
            let left = if let Some(since) = self.waiting.get(&key, now) {
                (*since + self.delay).saturating_duration_since(now)
            } else {
                self.waiting.insert(&key, now, now + RETRY_WINDOW, now);
                self.delay
            };
            if left > Duration::ZERO {
                return Seen::Wait(left);
            }
        }
        self.passed.insert(&key, (), now + PASS_WINDOW, now);
        Seen::Known
    }
}

/// The /24 or /64 a client is in.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(address) => Ipv4Net::new_assert(address, 24).network().into(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 64).network().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_mins(5);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_triplet_waits_and_then_passes() {
        let start = Instant::now();
        let mut list = Greylist::new(DELAY);
        let mut see = |peer, seconds| {
            list.see(
                ip(peer),
                "a@x.example",
                "b@y.example",
                start + Duration::from_secs(seconds),
            )
        };
        assert_eq!(see("192.0.2.1", 0), Seen::Wait(DELAY));
        assert_eq!(see("192.0.2.1", 299), Seen::Wait(Duration::from_secs(1)));
        assert_eq!(
            see("192.0.2.77", 300),
            Seen::Known,
            "a neighbour in the /24 is the same sender"
        );
        assert_eq!(see("192.0.2.1", 34 * 86_400), Seen::Known);
        assert_eq!(
            see("192.0.3.1", 300),
            Seen::Wait(DELAY),
            "another /24 is another sender"
        );
    }

    #[test]
    fn each_part_of_the_triplet_counts() {
        let now = Instant::now();
        let mut list = Greylist::new(DELAY);
        list.see(ip("192.0.2.1"), "a@x.example", "b@y.example", now);
        let later = now + DELAY;
        assert_eq!(
            list.see(ip("192.0.2.1"), "A@X.example", "B@y.example", later),
            Seen::Known
        );
        assert_eq!(
            list.see(ip("192.0.2.1"), "", "b@y.example", later),
            Seen::Wait(DELAY)
        );
        assert_eq!(
            list.see(ip("192.0.2.1"), "a@x.example", "c@y.example", later),
            Seen::Wait(DELAY)
        );
        assert_eq!(
            list.see(ip("2001:db8::1"), "a@x.example", "b@y.example", later),
            Seen::Wait(DELAY)
        );
    }

    #[test]
    fn a_flood_of_new_triplets_leaves_the_known_ones() {
        let start = Instant::now();
        let mut list = Greylist::with_room(DELAY, 100);
        list.see(ip("192.0.2.1"), "a@x.example", "b@y.example", start);
        assert_eq!(
            list.see(ip("192.0.2.1"), "a@x.example", "b@y.example", start + DELAY),
            Seen::Known
        );
        for number in 0..200 {
            list.see(
                ip("198.51.100.1"),
                &number.to_string(),
                "b@y.example",
                start + DELAY,
            );
        }
        assert_eq!(
            list.see(ip("192.0.2.1"), "a@x.example", "b@y.example", start + DELAY),
            Seen::Known
        );
    }

    #[test]
    fn a_triplet_that_never_comes_back_is_forgotten() {
        let start = Instant::now();
        let mut list = Greylist::new(DELAY);
        list.see(ip("192.0.2.1"), "", "b@y.example", start);
        assert_eq!(
            list.see(ip("192.0.2.1"), "", "b@y.example", start + RETRY_WINDOW),
            Seen::Wait(DELAY)
        );
    }
}
