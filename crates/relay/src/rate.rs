//! What one client may have done for him in an hour, by this process: a client is an address (a /64 counts as one IPv6 client).
//! Messages are counted where the count outlives the process ([`crate::reputation::hourly`]).
//!
//! Two neighbouring hours are kept per client and weighted, so that the limit slides without a list of times. Memory is bounded.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::table::Table;

const HOUR: Duration = Duration::from_hours(1);
const CLIENTS: usize = 262_144;

#[derive(Debug, Clone, Copy)]
struct Count {
    hour_began: Instant,
    this_hour: u32,
    hour_before: u32,
}

impl Count {
    fn none(now: Instant) -> Self {
        Self {
            hour_began: now,
            this_hour: 0,
            hour_before: 0,
        }
    }

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
            Self::none(now)
        }
    }

    fn weighted(self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.hour_began).as_secs_f64() / HOUR.as_secs_f64();
        f64::from(self.this_hour) + f64::from(self.hour_before) * (1.0 - passed.min(1.0))
    }
}

/// Counts of all clients of one process, with one limit.
#[derive(Debug)]
pub struct Rate {
    limit: u32,
    clients: Table<Count>,
}

impl Rate {
    /// A limit of `limit` per hour; 0 = none.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            clients: Table::new(CLIENTS),
        }
    }

    /// Counts one of `peer`; false where it is one too many, and then it is not counted.
    pub fn take(&mut self, peer: IpAddr, now: Instant) -> bool {
        let key = client(peer);
        if self.limit == 0 {
            return true;
        }
        let known = self.clients.get(&key, now);
        let mut count = known.map_or(Count::none(now), |count| count.at(now));
        if count.weighted(now) >= f64::from(self.limit) {
            return false;
        }
        count.this_hour += 1;
        self.clients.insert(&key, count, count.hour_began + 2 * HOUR, now);
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
    fn zero_is_no_limit() {
        let mut rate = Rate::new(0);
        assert!((0..1000).all(|_| rate.take("192.0.2.1".parse().unwrap(), Instant::now())));
    }
}
