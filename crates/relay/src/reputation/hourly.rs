//! Messages per hour of one client address (a /64 counts as one IPv6 client), counted where it outlives the process.

use std::net::IpAddr;
use std::time::Duration;

use super::{Answer, Key, Question, Reputation, millis};
use crate::rate::client;

const HOUR: Duration = Duration::from_hours(1);

/// Whether `peer` may begin another message; `limit` messages per hour, 0 = none.
pub async fn allows(reputation: &Reputation, peer: IpAddr, limit: u32) -> bool {
    let (key, window) = (key(peer), millis(HOUR));
    limit == 0 || reputation.ask(Question::Allows { key, limit, window }).await != Answer::No
}

/// Counts a message of `peer`; false where it is one too many, and then it is not counted.
pub async fn take(reputation: &Reputation, peer: IpAddr, limit: u32) -> bool {
    let (key, window) = (key(peer), millis(HOUR));
    limit == 0 || reputation.ask(Question::Take { key, limit, window }).await != Answer::No
}

fn key(peer: IpAddr) -> Key {
    Key::new("messages-per-hour", &[&client(peer).to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn one_too_many_is_refused_and_the_neighbour_is_not() {
        let reputation = Reputation::new();
        for _ in 0..100 {
            assert!(take(&reputation, ip("192.0.2.1"), 100).await);
        }
        assert!(!take(&reputation, ip("192.0.2.1"), 100).await);
        assert!(!allows(&reputation, ip("192.0.2.1"), 100).await);
        assert!(take(&reputation, ip("192.0.2.2"), 100).await);
    }

    #[tokio::test]
    async fn a_64_is_one_client() {
        let reputation = Reputation::new();
        assert!(take(&reputation, ip("2001:db8::1"), 1).await);
        assert!(!take(&reputation, ip("2001:db8::2"), 1).await);
        assert!(take(&reputation, ip("2001:db8:0:1::1"), 1).await);
    }

    #[tokio::test]
    async fn zero_is_no_limit() {
        let reputation = Reputation::new();
        for _ in 0..1000 {
            assert!(take(&reputation, ip("192.0.2.1"), 0).await);
        }
        assert!(reputation.local().is_empty());
    }
}
