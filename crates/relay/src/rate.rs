//! Messages per hour of one key: a client address (a /64 counts as one IPv6 client), or whatever the caller counts by.
//!
//! Two neighbouring hours are kept per key and weighted, so that the limit slides without a list of times. Memory is bounded
//! by the number of keys; who makes keys must pay for them elsewhere, or he pushes out those of others.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::table::Table;

const HOUR: Duration = Duration::from_hours(1);
const CLIENTS: usize = 262_144;

/// Counts of many keys; what limit a key has is the caller's knowledge.
#[derive(Debug)]
pub struct Counts {
    keys: Table<Count>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    hour_began: Instant,
    this_hour: u32,
    hour_before: u32,
}

impl Count {
    fn at(self, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.hour_began);
        if passed < HOUR {
            self
        } else if passed < 2 * HOUR {
            Self {
                hour_began: self.hour_began + HOUR,
                this_hour: 0,
                hour_before: self.this_hour,
            }
        } else {
            Self {
                hour_began: now,
                this_hour: 0,
                hour_before: 0,
            }
        }
    }

    fn weighted(self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.hour_began).as_secs_f64() / HOUR.as_secs_f64();
        f64::from(self.this_hour) + f64::from(self.hour_before) * (1.0 - passed.min(1.0))
    }

    /// When the weighted count, which has reached `limit`, falls below it.
    fn falls_below(self, limit: u32) -> Instant {
        let (this, before, limit) = (
            f64::from(self.this_hour),
            f64::from(self.hour_before),
            f64::from(limit),
        );
        let hours = if this < limit {
            1.0 - (limit - this) / before
        } else {
            2.0 - limit / this
        };
        self.hour_began + HOUR.mul_f64(hours.clamp(0.0, 2.0)) + Duration::from_secs(1)
    }
}

impl Counts {
    /// Counts of so many keys at most.
    pub fn new(keys: usize) -> Self {
        Self {
            keys: Table::new(keys),
        }
    }

    /// How long until another one of `key` stays within `limit` per hour; nothing where it does now. A limit of 0 is none.
    pub fn wait(&mut self, key: &impl Hash, limit: u32, now: Instant) -> Option<Duration> {
        let count = self.keys.get(key, now)?.at(now);
        (limit != 0 && count.weighted(now) >= f64::from(limit))
            .then(|| count.falls_below(limit).saturating_duration_since(now))
    }

    /// Counts one of `key`.
    pub fn count(&mut self, key: &impl Hash, now: Instant) {
        let mut count = self.keys.get(key, now).map_or(
            Count {
                hour_began: now,
                this_hour: 0,
                hour_before: 0,
            },
            |count| count.at(now),
        );
        count.this_hour = count.this_hour.saturating_add(1);
        self.keys.insert(key, count, count.hour_began + 2 * HOUR, now);
    }
}

/// Counts of all clients of one process, with one limit.
#[derive(Debug)]
pub struct Rate {
    limit: u32,
    clients: Counts,
}

impl Rate {
    /// A limit of `limit` messages per hour; 0 = none.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            clients: Counts::new(CLIENTS),
        }
    }

    /// Counts a message of `peer`; false where it is one too many, and then it is not counted.
    pub fn take(&mut self, peer: IpAddr, now: Instant) -> bool {
        let key = client(peer);
        if self.limit == 0 {
            return true;
        }
        if self.clients.wait(&key, self.limit, now).is_some() {
            return false;
        }
        self.clients.count(&key, now);
        true
    }
}

/// What counts as one client: an IPv4 address, an IPv6 /64.
pub fn client(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_is_refused_and_an_hour_heals() {
        let start = Instant::now();
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        let mut rate = Rate::new(100);
        for _ in 0..100 {
            assert!(rate.take(peer, start));
        }
        assert!(!rate.take(peer, start));
        assert!(!rate.take(peer, start + Duration::from_secs(3599)));
        assert!(
            rate.take("192.0.2.2".parse().unwrap(), start),
            "the neighbour is another client"
        );
        assert!(
            rate.take(peer, start + HOUR + HOUR / 2),
            "half an hour later half of it is forgotten"
        );
        assert!(rate.take(peer, start + 3 * HOUR));
    }

    #[test]
    fn a_64_is_one_client() {
        let start = Instant::now();
        let mut rate = Rate::new(1);
        assert!(rate.take("2001:db8::1".parse().unwrap(), start));
        assert!(!rate.take("2001:db8::2".parse().unwrap(), start));
        assert!(rate.take("2001:db8:0:1::1".parse().unwrap(), start));
    }

    #[test]
    fn who_waits_as_long_as_told_is_within_the_limit() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut counts = Counts::new(10);
        for (limit, of_this_hour) in [(1, 1), (100, 100), (100, 140), (3, 7)] {
            let key = (limit, of_this_hour);
            for _ in 0..of_this_hour {
                counts.count(&key, start);
            }
            for now in [later(0), later(1800), later(3599)] {
                let wait = counts.wait(&key, limit, now).expect("the limit is reached");
                assert!(wait > Duration::from_secs(1), "{key:?}");
                assert_eq!(counts.wait(&key, limit, now + wait), None, "{key:?}");
                let early = now + wait.saturating_sub(Duration::from_secs(2));
                assert!(
                    counts.wait(&key, limit, early).is_some(),
                    "{key:?}: not longer than needed"
                );
            }
        }
        // Both hours count.
        let key = "two hours";
        (0..80).for_each(|_| counts.count(&key, start));
        (0..60).for_each(|_| counts.count(&key, later(3600)));
        let wait = counts.wait(&key, 100, later(3600)).expect("80 + 60 are more");
        assert_eq!(wait.as_secs(), 1801);
        assert_eq!(counts.wait(&key, 100, later(3600) + wait), None);
    }

    #[test]
    fn zero_is_no_limit() {
        let mut rate = Rate::new(0);
        assert!((0..1000).all(|_| rate.take("192.0.2.1".parse().unwrap(), Instant::now())));
    }
}
