use std::sync::Mutex;

use super::*;
use crate::reputation::local::Local;
use crate::reputation::{FORGIVEN, Millis, millis};

const NOW: Millis = 1_800_000_000_000;

/// One process, in whose tables only passwords count.
struct Tried(Local, Mutex<Option<Key>>);

impl Tried {
    fn new() -> Self {
        Self(Local::new(100_000), Mutex::default())
    }

    fn attempt(&self, attempt: Attempt, now: Millis) -> Result<Duration, Throttled> {
        *self.1.lock().unwrap() = Some(attempt.id);
        judged(self.0.answer(&Question::Attempt(attempt), now))
    }

    fn succeeded(&self, attempt: Attempt) {
        self.0.answer(&Question::Right(self.last(attempt)), NOW);
    }

    fn unanswered(&self, attempt: Attempt) {
        self.0.answer(&Question::Unjudged(self.last(attempt)), NOW);
    }

    /// It is the one that was made last.
    fn last(&self, attempt: Attempt) -> Attempt {
        let id = self.1.lock().unwrap().unwrap_or(attempt.id);
        Attempt { id, ..attempt }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_address_waits_longer_each_time_and_then_is_not_asked() {
    let (tried, peer) = (Tried::new(), address("192.0.2.1"));
    let waits: Vec<u64> = (0..OF_ADDRESS)
        .map(|_| tried.attempt(from(peer), NOW).unwrap().as_secs())
        .collect();
    assert_eq!(waits, [2, 4, 8, 16, 16, 16]);
    assert_eq!(tried.attempt(from(peer), NOW), Err(Throttled { minutes: 5 }));
    assert!(
        tried.attempt(from(address("192.0.2.2")), NOW).is_ok(),
        "a neighbour may"
    );
    assert!(
        tried.attempt(from(peer), NOW + millis(FORGIVEN)).is_ok(),
        "one is forgiven"
    );
    assert!(
        tried.attempt(from(peer), NOW + millis(FORGIVEN)).is_err(),
        "one only"
    );
}

#[test]
fn a_success_forgives_nothing() {
    let (tried, peer) = (Tried::new(), address("192.0.2.1"));
    for _ in 1..OF_ADDRESS {
        tried.attempt(from(peer), NOW).unwrap();
    }
    for _ in 0..10 {
        tried.attempt(from(peer), NOW).unwrap();
        tried.succeeded(from(peer));
    }
    tried.attempt(from(peer), NOW).unwrap();
    assert!(tried.attempt(from(peer), NOW).is_err());
}

#[test]
fn a_network_of_guessers_does_not_shut_out_who_logged_in_there() {
    let tried = Tried::new();
    let owner = address("192.0.2.250");
    tried.attempt(from(owner), NOW).unwrap();
    tried.succeeded(from(owner));
    let all = (0..200).map(|n| address(&format!("192.0.2.{n}")));
    let made = all.filter(|peer| tried.attempt(from(*peer), NOW).is_ok()).count();
    assert_eq!(made, OF_NETWORK as usize);
    assert!(tried.attempt(from(address("192.0.2.251")), NOW).is_err());
    assert!(tried.attempt(from(owner), NOW).is_ok());
    assert!(tried.attempt(from(address("192.0.3.1")), NOW).is_ok());
}

#[test]
fn an_account_is_guessed_at_from_everywhere_and_its_owner_still_gets_in() {
    let (tried, owner) = (Tried::new(), address("198.51.100.7"));
    tried.attempt(at("ann@example.org", owner), NOW).unwrap();
    tried.succeeded(at("ann@example.org", owner));
    let everywhere = (0..250).map(|n| address(&format!("10.0.{n}.1")));
    let made = everywhere
        .filter(|peer| tried.attempt(at("Ann@Example.org", *peer), NOW).is_ok())
        .count();
    assert_eq!(made, OF_ACCOUNT as usize);
    assert!(
        tried
            .attempt(at("ann@example.org", address("198.51.100.8")), NOW)
            .is_ok()
    );
    assert!(
        tried
            .attempt(at("bob@example.org", address("10.0.0.1")), NOW)
            .is_ok()
    );
    // Who sits in the owner's network has less to guess with, and does not spend what is everybody's.
    let made = (0..100)
        .filter(|_| tried.attempt(at("ann@example.org", owner), NOW).is_ok())
        .count();
    assert_eq!(made, OF_PAIR as usize - 1);
}

#[test]
fn what_could_not_be_checked_is_no_guess() {
    let tried = Tried::new();
    let peer = address("2001:db8:1:2::3");
    for _ in 0..100 {
        tried.attempt(at("ann@example.org", peer), NOW).unwrap();
        tried.unanswered(at("ann@example.org", peer));
        tried.attempt(from(peer), NOW).unwrap();
        tried.unanswered(from(peer));
    }
}

#[test]
fn networks_are_a_24_and_a_48() {
    assert_eq!(network(address("192.0.2.77")), address("192.0.2.0"));
    assert_eq!(network(address("2001:db8:1:2::3")), address("2001:db8:1::"));
}
