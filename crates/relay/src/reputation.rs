//! What is remembered about strangers: greylist triplets, clients that proved themselves, counts of the hour, histories of mail
//! that passed DMARC, and wrong passwords.
//!
//! Enters: a [`Question`] and the time. Leaves: an [`Answer`]. The questions are few and typed, so that every back end
//! ([`Backend`]) can answer all of them as one step, and so that they can be asked of another process. Keys are digests:
//! what strangers write has one size here, and no meaning to a back end.

pub mod hourly;
pub mod keeper;
pub mod local;
pub mod question;
pub mod shared;
pub mod snapshot;
pub mod valkey;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::events::unix_millis;
use local::Local;
pub use question::{Accepted, Answer, Attempt, Bucket, Count, History, How, Limit, Question, Triplet, Weigh};
use shared::Shared;

/// How long a triplet that has not come back is remembered (RFC 6647 section 5: at least hours).
pub const RETRY_WINDOW: Duration = Duration::from_hours(2 * 24);
/// How long a triplet, or a client, that proved itself is let through without delay.
pub const PASS_WINDOW: Duration = Duration::from_hours(35 * 24);
/// Triplets that a client came back for before it waits no more.
pub const PROOFS: u32 = 5;
/// Messages are counted by it.
pub const HOUR: Duration = Duration::from_hours(1);
/// After this long one wrong password is forgotten.
pub const FORGIVEN: Duration = Duration::from_mins(5);
/// How long a login is remembered.
pub const LOGIN_WINDOW: Duration = Duration::from_hours(30 * 24);
/// What clocks of gateways may differ by; what lies further in the future was written by a clock that was wrong.
pub const CLOCKS_DIFFER: Duration = Duration::from_mins(1);

/// Outcomes that wait to be told to the shared memory.
const UNTOLD: usize = 1024;
/// Of them with one question.
const LATE_AT_A_TIME: usize = 4;

/// Milliseconds since 1970.
pub type Millis = u64;

/// The digest of what is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Key([u8; 16]);

impl Key {
    /// The key of `parts`, which are told apart from those of another `kind`, and from each other.
    pub fn new(kind: &str, parts: &[&str]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in std::iter::once(&kind).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut key = [0; 16];
        key.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(key)
    }

    /// One that nobody else has.
    pub fn unique() -> Self {
        let mut key = [0; 16];
        // Without randomness only what is taken back too late is taken back wrongly.
        let _ = aws_lc_rs::rand::fill(&mut key);
        Self(key)
    }

    /// From the octets of [`Self::octets`].
    pub fn from_octets(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// Its octets.
    pub fn octets(self) -> [u8; 16] {
        self.0
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0.iter().fold(String::with_capacity(32), |mut text, octet| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{octet:02x}");
            text
        })
    }
}

impl TryFrom<String> for Key {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let number = (text.len() == 32 && text.bytes().all(|octet| octet.is_ascii_hexdigit()))
            .then(|| u128::from_str_radix(&text, 16).ok())
            .flatten()
            .ok_or("a key has 32 hexadecimal digits")?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// A back end that cannot answer, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Who answers.
pub trait Backend {
    /// The answer at the time `now`; the question is one step, whoever else asks.
    fn ask(
        &self,
        question: &Question,
        now: Millis,
    ) -> impl Future<Output = Result<Answer, Unavailable>> + Send;
}

/// What an instance of smtpd asks: its own memory, and where the site has one, that of all gateways.
pub struct Reputation {
    local: Local,
    shared: Option<Shared>,
    /// What came of attempts and could not be told to the shared memory, with when it was; the newest first.
    untold: Mutex<VecDeque<(Millis, Question)>>,
}

impl Reputation {
    /// Nothing is remembered yet.
    pub fn new() -> Self {
        Self {
            local: Local::new(local::ENTRIES),
            shared: None,
            untold: Mutex::default(),
        }
    }

    /// Also asks `shared`, whose answer counts. The own memory learns alongside, for when it is alone.
    #[must_use]
    pub fn sharing(mut self, shared: Option<Shared>) -> Self {
        self.shared = shared;
        self
    }

    /// The answer now. There always is one.
    pub async fn ask(&self, mut question: Question) -> Answer {
        let now = unix_millis(SystemTime::now());
        if self.shared.is_some() {
            self.local.add_what_is_known(&mut question, now);
        }
        let own = self.local.answer(&question, now);
        let Some(shared) = &self.shared else {
            return own;
        };
        // What is too much here already is too much everywhere.
        if matches!(own, Answer::Throttled(_)) {
            return own;
        }
        let Ok(theirs) = shared.ask(&question).await else {
            if matches!(question, Question::Right(_) | Question::Unjudged(_)) {
                let mut untold = self.untold();
                untold.truncate(UNTOLD - 1);
                untold.push_front((now, question));
            }
            return own;
        };
        self.tell_late(shared, now).await;
        match (question, own, theirs) {
            // Whoever has waited, at whichever of the two, has waited.
            (
                Question::Knows { triplet } | Question::See { triplet, .. },
                Answer::Yes,
                Answer::No | Answer::Wait(_),
            ) => {
                // If it is lost on the way, the next question says it again.
                let _ = shared.ask(&Question::Learn { triplet }).await;
                Answer::Yes
            }
            (Question::Knows { triplet } | Question::See { triplet, .. }, _, Answer::Yes) => {
                self.local.answer(&Question::Learn { triplet }, now);
                Answer::Yes
            }
            (Question::See { .. }, Answer::Wait(own), Answer::Wait(theirs)) => Answer::Wait(own.min(theirs)),
            // A history that is complete for all is complete here, too, for when we are alone.
            (Question::Accepted(accepted), Answer::No, Answer::Yes) => {
                self.local.answer(&Question::Accepted(accepted.all_proven()), now);
                Answer::Yes
            }
            // It is not made, so that it counts nowhere.
            (Question::Attempt(attempt), Answer::Attempted(_), Answer::Throttled(left)) => {
                self.local.answer(&Question::Unjudged(attempt), now);
                Answer::Throttled(left)
            }
            (_, _, theirs) => theirs,
        }
    }

    /// Tells the shared memory, which answers again, what it has missed; what is forgiven there by now, no more.
    async fn tell_late(&self, shared: &Shared, now: Millis) {
        for _ in 0..LATE_AT_A_TIME {
            let Some((then, question)) = self.untold().pop_front() else {
                return;
            };
            if then.saturating_add(millis(FORGIVEN)) > now && shared.ask(&question).await.is_err() {
                return self.untold().push_front((then, question));
            }
        }
    }

    fn untold(&self) -> MutexGuard<'_, VecDeque<(Millis, Question)>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process remembers itself.
    pub fn local(&self) -> &Local {
        &self.local
    }
}

impl Default for Reputation {
    fn default() -> Self {
        Self::new()
    }
}

/// Milliseconds of a duration.
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_kinds_and_parts_apart() {
        let keys = [
            Key::new("a", &["b", "c"]),
            Key::new("a", &["bc"]),
            Key::new("a", &["bc", ""]),
            Key::new("ab", &["c"]),
        ];
        for (number, key) in keys.iter().enumerate() {
            assert!(!keys[number + 1..].contains(key), "{number}");
        }
        assert_eq!(keys[0], Key::new("a", &["b", "c"]));
    }

    #[test]
    fn a_key_reads_back() {
        let key = Key::new("k", &["\0\r\n\u{ff}"]);
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text.len(), 34);
        assert_eq!(serde_json::from_str::<Key>(&text).unwrap(), key);
        for wrong in ["\"\"", "\"+0000000000000000000000000000000\"", "\"zz\"", "7"] {
            assert!(serde_json::from_str::<Key>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn questions_have_their_agreed_form() {
        let question = Question::Prove {
            client: Key::from_octets([0xab; 16]),
        };
        let text = serde_json::to_string(&question).unwrap();
        assert_eq!(text, r#"{"prove":{"client":"abababababababababababababababab"}}"#);
        assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
        assert!(serde_json::from_str::<Question>(r#"{"flush":{}}"#).is_err());
    }
}
