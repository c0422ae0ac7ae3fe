//! Guessing of passwords is slowed down: by address and network where clients connect, by account where passwords are checked.
//!
//! Each wrong password counts against a bucket, and one is forgiven every five minutes. An attempt is counted before its
//! answer is known, so that many at a time are no way around; what turns out right, or cannot be checked, is taken back: once, where
//! it was counted, and late if need be. What nobody can tell any more, since the process ended, stays wrong and is forgiven as such. A
//! success forgives nothing that was wrong. Who has logged in is remembered: the address for its network's sake, the pair of
//! account and network for the account's, so that strangers who guess do not lock out the owner where he always is.
//! What is counted is [`crate::reputation`]'s: it outlives the process, and gateways may share it.

use std::net::IpAddr;
use std::time::Duration;

use crate::rate::client;
use crate::reputation::{Answer, Attempt, Bucket, Key, Question, Reputation};

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

/// An attempt from `peer`, where clients connect.
pub fn from(peer: IpAddr) -> Attempt {
    let address = client(peer).to_string();
    let of_address = Bucket {
        key: Key::new("guesses from an address", &[&address]),
        most: OF_ADDRESS,
    };
    let of_network = Bucket {
        key: Key::new("guesses from a network", &[&network(peer).to_string()]),
        most: OF_NETWORK,
    };
    Attempt {
        id: Key::unique(),
        login: Key::new("login from an address", &[&address]),
        known: false,
        of_known: vec![of_address],
        of_unknown: vec![of_address, of_network],
    }
}

/// An attempt at `account` from `peer`, where passwords are checked.
pub fn at(account: &str, peer: IpAddr) -> Attempt {
    let (account, network) = (account.to_lowercase(), network(peer).to_string());
    let of_pair = Bucket {
        key: Key::new("guesses at an account from a network", &[&account, &network]),
        most: OF_PAIR,
    };
    let of_account = Bucket {
        key: Key::new("guesses at an account", &[&account]),
        most: OF_ACCOUNT,
    };
    Attempt {
        id: Key::unique(),
        login: Key::new("login of an account from a network", &[&account, &network]),
        known: false,
        of_known: vec![of_pair],
        of_unknown: vec![of_account],
    }
}

/// Counts an attempt, or says that it is not to be made. What it costs if it is wrong is the time to wait before that is
/// told.
pub async fn attempt(reputation: &Reputation, attempt: &Attempt) -> Result<Duration, Throttled> {
    judged(reputation.ask(Question::Attempt(attempt.clone())).await)
}

/// The attempt was right.
pub async fn succeeded(reputation: &Reputation, attempt: Attempt) {
    reputation.ask(Question::Right(attempt)).await;
}

/// The attempt could not be judged.
pub async fn unanswered(reputation: &Reputation, attempt: Attempt) {
    reputation.ask(Question::Unjudged(attempt)).await;
}

fn judged(answer: Answer) -> Result<Duration, Throttled> {
    match answer {
        Answer::Throttled(millis) => Err(Throttled {
            minutes: millis.div_ceil(60_000).max(1),
        }),
        Answer::Attempted(wrong) => {
            let delay = 2_u32.saturating_pow(wrong).min(LONGEST_DELAY);
            Ok(Duration::from_secs(u64::from(delay)))
        }
        _ => Ok(Duration::from_secs(u64::from(LONGEST_DELAY))),
    }
}

/// An IPv4 /24, an IPv6 /48.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) & !0xff).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 80 << 80).into()),
    }
}

#[cfg(test)]
#[path = "throttle_tests.rs"]
mod tests;
