//! Greylisting (RFC 6647): the first try of a triplet waits.
//!
//! The triplet is client, reverse-path, forward-path. The client is the domain of the reverse-path where SPF says that it
//! sends from this address, since large senders try again from anywhere; else the network (/24 or /64). A client that
//! came back for several triplets has shown that it tries again: it waits no more. So does a domain whose mail passed DMARC.
//!
//! In process and bounded; the clock is the caller's. Triplets that wait and triplets that passed have room of their own: a
//! flood of new ones, which costs a stranger nothing, must not make those forgotten that proved themselves.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::table::Table;

/// How long a triplet that has not come back is remembered (RFC 6647 section 5: at least hours).
const RETRY_WINDOW: Duration = Duration::from_hours(2 * 24);
/// How long a triplet, or a client, that proved itself is let through without delay.
const PASS_WINDOW: Duration = Duration::from_hours(35 * 24);
const TRIPLETS: usize = 262_144;
/// Triplets that a client came back for before it waits no more.
const PROOFS: u32 = 5;

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// Who may send for this domain, by SPF.
    Domain(String),
    /// Whoever is in this network.
    Network(IpNet),
}

impl Client {
    /// The /24 or /64 that `peer` is in.
    pub fn network(peer: IpAddr) -> Self {
        let length = if peer.is_ipv4() { 24 } else { 64 };
        Self::Network(IpNet::new_assert(peer, length).trunc())
    }

    /// The domain of a reverse-path that SPF has proven.
    pub fn domain(reverse_path: &str) -> Option<Self> {
        let (_, domain) = reverse_path.rsplit_once('@')?;
        Some(Self::Domain(domain.to_lowercase()))
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => write!(f, "{domain} (by SPF)"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// All triplets of one process.
#[derive(Debug)]
pub struct Greylist {
    delay: Duration,
    /// Since when.
    waiting: Table<Instant>,
    passed: Table<()>,
    /// For how many triplets the client came back.
    clients: Table<u32>,
}

/// What the greylist knows of a triplet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
            clients: Table::new(triplets),
        }
    }

    /// Whether the triplet, or its client, need not wait any more; such a one is remembered for longer.
    pub fn knows(&mut self, client: &Client, reverse_path: &str, forward_path: &str, now: Instant) -> bool {
        if let Some(proofs) = self.clients.get(client, now).copied()
            && proofs >= PROOFS
        {
            self.clients.insert(client, proofs, now + PASS_WINDOW, now);
            return true;
        }
        let key = triplet(client, reverse_path, forward_path);
        let known = self.passed.get(&key, now).is_some();
        if known {
            self.passed.insert(&key, (), now + PASS_WINDOW, now);
        }
        known
    }

    /// Looks a triplet up and remembers it.
    pub fn see(&mut self, client: &Client, reverse_path: &str, forward_path: &str, now: Instant) -> Seen {
        if self.knows(client, reverse_path, forward_path, now) {
            return Seen::Known;
        }
        let key = triplet(client, reverse_path, forward_path);
        let left = if let Some(since) = self.waiting.get(&key, now) {
            (*since + self.delay).saturating_duration_since(now)
        } else {
            self.waiting.insert(&key, now, now + RETRY_WINDOW, now);
            self.delay
        };
        if left > Duration::ZERO {
            return Seen::Wait(left);
        }
        self.passed.insert(&key, (), now + PASS_WINDOW, now);
        let proofs = self.clients.get(client, now).map_or(1, |proofs| *proofs + 1);
        self.clients.insert(client, proofs, now + PASS_WINDOW, now);
        Seen::Known
    }

    /// A message of this client passed DMARC and was accepted: the domain answers for its mail.
    pub fn prove(&mut self, client: &Client, now: Instant) {
        self.clients.insert(client, PROOFS, now + PASS_WINDOW, now);
    }
}

fn triplet<'a>(client: &'a Client, reverse_path: &str, forward_path: &str) -> (&'a Client, String, String) {
    (client, reverse_path.to_lowercase(), forward_path.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_mins(5);

    fn ip(text: &str) -> Client {
        Client::network(text.parse().unwrap())
    }

    #[test]
    fn a_triplet_waits_and_then_passes() {
        let start = Instant::now();
        let mut list = Greylist::new(DELAY);
        let mut see = |peer, seconds| {
            list.see(
                &ip(peer),
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
        list.see(&ip("192.0.2.1"), "a@x.example", "b@y.example", now);
        let later = now + DELAY;
        assert_eq!(
            list.see(&ip("192.0.2.1"), "A@X.example", "B@y.example", later),
            Seen::Known
        );
        assert_eq!(
            list.see(&ip("192.0.2.1"), "", "b@y.example", later),
            Seen::Wait(DELAY)
        );
        assert_eq!(
            list.see(&ip("192.0.2.1"), "a@x.example", "c@y.example", later),
            Seen::Wait(DELAY)
        );
        assert_eq!(
            list.see(&ip("2001:db8::1"), "a@x.example", "b@y.example", later),
            Seen::Wait(DELAY)
        );
    }

    #[test]
    fn a_flood_of_new_triplets_leaves_the_known_ones() {
        let start = Instant::now();
        let mut list = Greylist::with_room(DELAY, 100);
        list.see(&ip("192.0.2.1"), "a@x.example", "b@y.example", start);
        assert_eq!(
            list.see(&ip("192.0.2.1"), "a@x.example", "b@y.example", start + DELAY),
            Seen::Known
        );
        for number in 0..200 {
            list.see(
                &ip("198.51.100.1"),
                &number.to_string(),
                "b@y.example",
                start + DELAY,
            );
        }
        assert_eq!(
            list.see(&ip("192.0.2.1"), "a@x.example", "b@y.example", start + DELAY),
            Seen::Known
        );
    }

    #[test]
    fn a_triplet_that_never_comes_back_is_forgotten() {
        let start = Instant::now();
        let mut list = Greylist::new(DELAY);
        list.see(&ip("192.0.2.1"), "", "b@y.example", start);
        assert_eq!(
            list.see(&ip("192.0.2.1"), "", "b@y.example", start + RETRY_WINDOW),
            Seen::Wait(DELAY)
        );
    }

    #[test]
    fn a_client_that_keeps_coming_back_waits_no_more() {
        let start = Instant::now();
        let mut list = Greylist::new(DELAY);
        let client = Client::domain("a@Sender.example").unwrap();
        for number in 0..PROOFS {
            let to = format!("{number}@y.example");
            assert_eq!(
                list.see(&client, "a@sender.example", &to, start),
                Seen::Wait(DELAY)
            );
            assert_eq!(
                list.see(&client, "a@sender.example", &to, start + DELAY),
                Seen::Known
            );
        }
        assert_eq!(
            list.see(&client, "b@sender.example", "new@y.example", start + DELAY),
            Seen::Known
        );
        assert_eq!(
            list.see(
                &ip("192.0.2.1"),
                "b@sender.example",
                "new@y.example",
                start + DELAY
            ),
            Seen::Wait(DELAY),
            "who is not proven to be the domain is not the domain"
        );
        assert_eq!(
            list.see(
                &client,
                "c@sender.example",
                "new@y.example",
                start + DELAY + PASS_WINDOW
            ),
            Seen::Wait(DELAY),
            "forgotten"
        );
    }

    #[test]
    fn a_proven_domain_waits_no_more() {
        let now = Instant::now();
        let mut list = Greylist::new(DELAY);
        let client = Client::domain("a@sender.example").unwrap();
        list.prove(&client, now);
        assert_eq!(
            list.see(&client, "z@sender.example", "b@y.example", now),
            Seen::Known
        );
    }

    #[test]
    fn the_null_reverse_path_has_no_domain() {
        assert_eq!(Client::domain(""), None);
    }
}
