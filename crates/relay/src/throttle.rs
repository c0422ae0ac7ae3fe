//! Guessing of passwords is slowed down: by address and network where clients connect, by account where passwords are checked.
//!
//! Each wrong password counts against a bucket, and one is forgiven every [`FORGIVEN`]. An attempt is counted before its
//! answer is known, so that many at a time are no way around; what turns out right, or cannot be checked, is taken back. A
//! success forgives nothing that was wrong. Who has logged in is remembered: the address for its network's sake, the pair of
//! account and network for the account's, so that strangers who guess do not lock out the owner where he always is.
//! Tables are bounded and in memory; a restart forgives everything.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::rate::client;
use crate::table::Table;

/// After this long one wrong password is forgotten.
const FORGIVEN: Duration = Duration::from_mins(5);
/// How long a success is remembered.
const REMEMBERED: Duration = Duration::from_hours(24 * 30);
const BUCKETS: usize = 65_536;
/// Wrong passwords that one address may have open.
const OF_ADDRESS: u32 = 6;
/// Of all addresses of a /24 or /48 that never logged in.
const OF_NETWORK: u32 = 40;
/// For one account, from wherever it never logged in from.
const OF_ACCOUNT: u32 = 20;
/// For one account, from one network where it has.
const OF_PAIR: u32 = 10;
/// The longest wait before a wrong password is answered.
const LONGEST_DELAY: u32 = 16;

/// An attempt is not made; the whole minutes to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// At least 1.
    pub minutes: u64,
}

/// Wrong passwords that count now.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    wrong: u32,
    /// When the next of them is forgiven.
    forgiven: Instant,
}

#[derive(Debug)]
struct Buckets(Table<Bucket>);

impl Buckets {
    fn new() -> Self {
        Self(Table::new(BUCKETS))
    }

    fn at(&mut self, key: &impl std::hash::Hash, now: Instant) -> Bucket {
        let Some(mut bucket) = self.0.get(key, now).copied() else {
            return Bucket {
                wrong: 0,
                forgiven: now + FORGIVEN,
            };
        };
        while bucket.wrong > 0 && bucket.forgiven <= now {
            bucket.wrong -= 1;
            bucket.forgiven += FORGIVEN;
        }
        if bucket.wrong == 0 {
            bucket.forgiven = now + FORGIVEN;
        }
        bucket
    }

    fn room(&mut self, key: &impl std::hash::Hash, most: u32, now: Instant) -> Result<(), Throttled> {
        let bucket = self.at(key, now);
        if bucket.wrong < most {
            return Ok(());
        }
        let seconds = bucket.forgiven.saturating_duration_since(now).as_secs()
            + u64::from(bucket.wrong - most) * FORGIVEN.as_secs();
        Err(Throttled {
            minutes: seconds.div_ceil(60).max(1),
        })
    }

    /// Counts one; gives how many there are.
    fn add(&mut self, key: &impl std::hash::Hash, now: Instant) -> u32 {
        let mut bucket = self.at(key, now);
        bucket.wrong += 1;
        let expires = bucket.forgiven + FORGIVEN * bucket.wrong;
        self.0.insert(key, bucket, expires, now);
        bucket.wrong
    }

    fn take_back(&mut self, key: &impl std::hash::Hash, now: Instant) {
        if let Some(bucket) = self.0.get(key, now) {
            bucket.wrong = bucket.wrong.saturating_sub(1);
        }
    }
}

/// Addresses and networks, where clients connect.
#[derive(Debug)]
pub struct Origins {
    addresses: Buckets,
    networks: Buckets,
    known: Table<()>,
}

impl Default for Origins {
    fn default() -> Self {
        Self {
            addresses: Buckets::new(),
            networks: Buckets::new(),
            known: Table::new(BUCKETS),
        }
    }
}

impl Origins {
    /// Counts an attempt from `peer`, or says that it is not to be made. What it costs if it is wrong is the time to wait
    /// before that is told.
    pub fn attempt(&mut self, peer: IpAddr, now: Instant) -> Result<Duration, Throttled> {
        let address = client(peer);
        self.addresses.room(&address, OF_ADDRESS, now)?;
        if self.known.get(&address, now).is_none() {
            self.networks.room(&network(peer), OF_NETWORK, now)?;
            self.networks.add(&network(peer), now);
        }
        let wrong = self.addresses.add(&address, now);
        let delay = 2_u32.saturating_pow(wrong).min(LONGEST_DELAY);
        Ok(Duration::from_secs(u64::from(delay)))
    }

    /// The attempt was right.
    pub fn succeeded(&mut self, peer: IpAddr, now: Instant) {
        self.unanswered(peer, now);
        self.known.insert(&client(peer), (), now + REMEMBERED, now);
    }

    /// The attempt could not be judged.
    pub fn unanswered(&mut self, peer: IpAddr, now: Instant) {
        let address = client(peer);
        self.addresses.take_back(&address, now);
        if self.known.get(&address, now).is_none() {
            self.networks.take_back(&network(peer), now);
        }
    }
}

/// Accounts, where passwords are checked.
#[derive(Debug)]
pub struct Accounts {
    all: Buckets,
    pairs: Buckets,
    known: Table<()>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            all: Buckets::new(),
            pairs: Buckets::new(),
            known: Table::new(BUCKETS),
        }
    }
}

impl Accounts {
    /// Counts an attempt at `account` from `peer`, or says that it is not to be made.
    pub fn attempt(&mut self, account: &str, peer: IpAddr, now: Instant) -> Result<(), Throttled> {
        let (account, pair) = keys(account, peer);
        if self.known.get(&pair, now).is_some() {
            self.pairs.room(&pair, OF_PAIR, now)?;
            self.pairs.add(&pair, now);
        } else {
            self.all.room(&account, OF_ACCOUNT, now)?;
            self.all.add(&account, now);
        }
        Ok(())
    }

    /// The attempt was right.
    pub fn succeeded(&mut self, account: &str, peer: IpAddr, now: Instant) {
        self.unanswered(account, peer, now);
        let (_, pair) = keys(account, peer);
        self.known.insert(&pair, (), now + REMEMBERED, now);
    }

    /// The attempt could not be judged.
    pub fn unanswered(&mut self, account: &str, peer: IpAddr, now: Instant) {
        let (account, pair) = keys(account, peer);
        if self.known.get(&pair, now).is_some() {
            self.pairs.take_back(&pair, now);
        } else {
            self.all.take_back(&account, now);
        }
    }
}

fn keys(account: &str, peer: IpAddr) -> (String, (String, IpAddr)) {
    let account = account.to_lowercase();
    (account.clone(), (account, network(peer)))
}

/// An IPv4 /24, an IPv6 /48.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) & !0xff).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 80 << 80).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_waits_longer_each_time_and_then_is_not_asked() {
        let (mut origins, now, peer) = (Origins::default(), Instant::now(), address("192.0.2.1"));
        let waits: Vec<u64> = (0..OF_ADDRESS)
            .map(|_| origins.attempt(peer, now).unwrap().as_secs())
            .collect();
        assert_eq!(waits, [2, 4, 8, 16, 16, 16]);
        assert_eq!(origins.attempt(peer, now), Err(Throttled { minutes: 5 }));
        assert!(
            origins.attempt(address("192.0.2.2"), now).is_ok(),
            "a neighbour may"
        );
        assert!(origins.attempt(peer, now + FORGIVEN).is_ok(), "one is forgiven");
        assert!(origins.attempt(peer, now + FORGIVEN).is_err(), "one only");
    }

    #[test]
    fn a_success_forgives_nothing() {
        let (mut origins, now, peer) = (Origins::default(), Instant::now(), address("192.0.2.1"));
        for _ in 1..OF_ADDRESS {
            origins.attempt(peer, now).unwrap();
        }
        for _ in 0..10 {
            origins.attempt(peer, now).unwrap();
            origins.succeeded(peer, now);
        }
        origins.attempt(peer, now).unwrap();
        assert!(origins.attempt(peer, now).is_err());
    }

    #[test]
    fn a_network_of_guessers_does_not_shut_out_who_logged_in_there() {
        let (mut origins, now) = (Origins::default(), Instant::now());
        let owner = address("192.0.2.250");
        origins.attempt(owner, now).unwrap();
        origins.succeeded(owner, now);
        let tries = (0..200).map(|n| address(&format!("192.0.2.{n}")));
        let made = tries.filter(|peer| origins.attempt(*peer, now).is_ok()).count();
        assert_eq!(made, OF_NETWORK as usize);
        assert!(origins.attempt(address("192.0.2.251"), now).is_err());
        assert!(origins.attempt(owner, now).is_ok());
        assert!(origins.attempt(address("192.0.3.1"), now).is_ok());
    }

    #[test]
    fn an_account_is_guessed_at_from_everywhere_and_its_owner_still_gets_in() {
        let (mut accounts, now, owner) = (Accounts::default(), Instant::now(), address("198.51.100.7"));
        accounts.attempt("ann@example.org", owner, now).unwrap();
        accounts.succeeded("ann@example.org", owner, now);
        let everywhere = (0..250).map(|n| address(&format!("10.0.{n}.1")));
        let made = everywhere
            .filter(|peer| accounts.attempt("Ann@Example.org", *peer, now).is_ok())
            .count();
        assert_eq!(made, OF_ACCOUNT as usize);
        assert!(
            accounts
                .attempt("ann@example.org", address("198.51.100.8"), now)
                .is_ok()
        );
        assert!(
            accounts
                .attempt("bob@example.org", address("10.0.0.1"), now)
                .is_ok()
        );
        // Who sits in the owner's network has less to guess with, and does not spend what is everybody's.
        let made = (0..100)
            .filter(|_| accounts.attempt("ann@example.org", owner, now).is_ok())
            .count();
        assert_eq!(made, OF_PAIR as usize - 1);
    }

    #[test]
    fn what_could_not_be_checked_is_no_guess() {
        let (mut accounts, mut origins, now) = (Accounts::default(), Origins::default(), Instant::now());
        let peer = address("2001:db8:1:2::3");
        for _ in 0..100 {
            accounts.attempt("ann@example.org", peer, now).unwrap();
            accounts.unanswered("ann@example.org", peer, now);
            origins.attempt(peer, now).unwrap();
            origins.unanswered(peer, now);
        }
    }

    #[test]
    fn networks_are_a_24_and_a_48() {
        assert_eq!(network(address("192.0.2.77")), address("192.0.2.0"));
        assert_eq!(network(address("2001:db8:1:2::3")), address("2001:db8:1::"));
    }
}
