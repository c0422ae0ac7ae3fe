//! The back end in the process: bounded tables.
//!
//! Every table is bounded. An entry costs a stranger a triplet, a message that the limits let through, or a guess; where a
//! count stands against him, he cannot have it forgotten by making others cheaply ([`Tiers`]).
//! Triplets that wait and triplets that passed have room of their own: a flood of new ones, which costs a stranger
//! nothing, must not make those forgotten that proved themselves. What a clock that was set back has put into the future
//! begins anew, so that nobody waits or is blocked until then.

mod keeping;
mod values;

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    Accepted, Answer, Attempt, Backend, Bucket, CLOCKS_DIFFER, Count, FORGIVEN, How, Key, LOGIN_WINDOW,
    Limit, Millis, PASS_WINDOW, PROOFS, Question, RETRY_WINDOW, Triplet, Unavailable, Weigh, millis,
};
use crate::table::Table;
use values::{Begun, Known, Messages, Of, Tiers, Wrong};

/// Entries of a large table of one process; the small ones have a quarter.
pub const ENTRIES: usize = 262_144;

/// What the tables are called where they are counted, in the order of [`Tables`].
pub const NAMES: [&str; 11] = [
    "waiting",
    "passed",
    "clients",
    "addresses",
    "networks",
    "senders",
    "recipients",
    "beginnings",
    "histories",
    "guesses",
    "logins",
];

/// An entry as a snapshot takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// What it is about.
    pub key: Key,
    /// Until when it is remembered.
    pub expires: Millis,
    /// What is remembered; two numbers are enough for every table.
    pub value: [u64; 2],
}

/// All that is kept, a list for each of [`NAMES`]; what is forgotten first comes first.
pub type Tables = [Vec<Kept>; NAMES.len()];

#[derive(Debug)]
struct State {
    /// Since when.
    waiting: Of<Millis>,
    passed: Of<()>,
    /// For how many triplets the client came back.
    clients: Of<u32>,
    /// Messages, by [`Limit`].
    messages: [Tiers<Messages>; 4],
    /// Histories that are not complete.
    beginnings: Of<Begun>,
    /// Those that are, and the domains that have one.
    histories: Of<()>,
    guesses: Tiers<Wrong>,
    /// Attempts that were counted and may be taken back; whether as those of a known login.
    open: Of<Option<bool>>,
    logins: Of<()>,
}

/// What takes long to earn is not removed because its time seems to be over: a clock that is far ahead, at boot or later, would wipe it,
/// and when it is set right all of it counts again. It goes when there is no more room, the oldest first.
const NOT_BY_THE_CLOCK: Millis = 0;

/// The tables of one process.
#[derive(Debug)]
pub struct Local(Mutex<State>);

impl Local {
    /// Empty tables with room for so many entries each; those about histories and passwords for a quarter.
    pub fn new(entries: usize) -> Self {
        let few = entries / 4;
        Self(Mutex::new(State {
            waiting: Table::new(entries),
            passed: Table::new(entries),
            clients: Table::new(entries),
            messages: std::array::from_fn(|_| Tiers::new(entries)),
            beginnings: Table::new(few),
            histories: Table::new(few),
            guesses: Tiers::new(few),
            open: Table::new(few),
            logins: Table::new(few),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer.
    pub fn answer(&self, question: &Question, now: Millis) -> Answer {
        let mut state = self.state();
        let yes = |yes| if yes { Answer::Yes } else { Answer::No };
        match question {
            Question::Weigh(weigh) => state.weigh(weigh, now),
            Question::Accepted(accepted) => yes(state.accepted(accepted, now)),
            Question::Attempt(attempt) => state.attempt(attempt, now),
            Question::Right(attempt) => {
                state.take_back(attempt, now);
                state.log_in(attempt.login, now);
                Answer::Yes
            }
            Question::Unjudged(attempt) => {
                state.take_back(attempt, now);
                Answer::Yes
            }
            Question::Knows { triplet } => yes(state.knows(*triplet, now)),
            Question::See { triplet, delay } => state.see(*triplet, *delay, now),
            Question::Learn { triplet } => {
                state.pass(triplet.whole, now);
                Answer::Yes
            }
            Question::Prove { client } => {
                state.set_proofs(*client, PROOFS, now);
                Answer::Yes
            }
        }
    }

    /// Puts into a question what another back end is to take from this one.
    pub(super) fn add_what_is_known(&self, question: &mut Question, now: Millis) {
        let mut state = self.state();
        match question {
            Question::Weigh(weigh) => {
                weigh.proven |= weigh.histories.iter().any(|key| state.has_history(*key, now));
            }
            Question::Accepted(accepted) => {
                if let Some(history) = &mut accepted.history {
                    let proofs = history.proofs.iter().copied();
                    history.proven = proofs.filter(|key| state.has_history(*key, now)).collect();
                }
            }
            Question::Attempt(attempt) | Question::Right(attempt) | Question::Unjudged(attempt) => {
                attempt.known |= state.logins.get(&attempt.login, now).is_some();
            }
            Question::Knows { .. }
            | Question::See { .. }
            | Question::Learn { .. }
            | Question::Prove { .. } => {}
        }
    }

    /// Entries held of each table, in the order of [`NAMES`].
    pub fn len(&self) -> [usize; NAMES.len()] {
        let state = self.state();
        let [addresses, networks, senders, recipients] = &state.messages;
        [
            state.waiting.len(),
            state.passed.len(),
            state.clients.len(),
            addresses.len(),
            networks.len(),
            senders.len(),
            recipients.len(),
            state.beginnings.len(),
            state.histories.len(),
            state.guesses.len(),
            state.logins.len(),
        ]
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == [0; NAMES.len()]
    }
}

impl Backend for Local {
    async fn ask(&self, question: &Question, now: Millis) -> Result<Answer, Unavailable> {
        Ok(self.answer(question, now))
    }
}

impl State {
    fn weigh(&mut self, weigh: &Weigh, now: Millis) -> Answer {
        let proven = weigh.proven || weigh.histories.iter().any(|key| self.has_history(*key, now));
        let factor = if proven { weigh.factor } else { 1 };
        for count in &weigh.counts {
            let per_hour = count.per_hour.saturating_mul(factor);
            let most = per_hour.saturating_add(u32::from(count.how == How::Taken));
            if let Some(wait) = self.messages(count.limit, count.key, now).wait(most, now) {
                return Answer::Over {
                    limit: count.limit,
                    per_hour,
                    wait,
                };
            }
        }
        for Count { limit, key, .. } in weigh.counts.iter().filter(|count| count.how == How::Take) {
            self.count(*limit, *key, now);
        }
        Answer::Yes
    }

    fn messages(&mut self, limit: Limit, key: Key, now: Millis) -> Messages {
        let known = self.messages[limit as usize].get(key, now);
        known.map_or(Messages::none(now), |known| known.at(now))
    }

    fn count(&mut self, limit: Limit, key: Key, now: Millis) {
        let messages = self.messages(limit, key, now).one_more();
        self.messages[limit as usize].insert(key, messages, messages.are_many(), messages.expire(), now);
    }

    fn has_history(&mut self, key: Key, now: Millis) -> bool {
        self.histories.get(&key, now).is_some()
    }

    /// Whether the history is complete.
    fn accepted(&mut self, accepted: &Accepted, now: Millis) -> bool {
        for key in &accepted.recipients {
            self.count(Limit::Recipient, *key, now);
        }
        let Some(history) = &accepted.history else {
            return true;
        };
        let expires = now + millis(PASS_WINDOW);
        let mut all = true;
        for key in &history.proofs {
            let begun = self.beginnings.get(key, now).map(|known| known.value);
            let none = Begun {
                first: now,
                messages: 0,
            };
            let begun = begun
                .filter(|begun| begun.first <= now + millis(CLOCKS_DIFFER))
                .unwrap_or(none);
            let messages = begun.messages.saturating_add(1);
            let complete = history.proven.contains(key)
                || self.has_history(*key, now)
                || (messages >= history.messages && now.saturating_sub(begun.first) >= history.age);
            if complete {
                for key in [*key, history.domain] {
                    self.histories
                        .insert(&key, Known { key, value: () }, expires, NOT_BY_THE_CLOCK);
                }
            } else {
                let value = Begun { messages, ..begun };
                self.beginnings
                    .insert(key, Known { key: *key, value }, expires, NOT_BY_THE_CLOCK);
            }
            all &= complete;
        }
        all
    }

    fn wrong(&mut self, key: Key, now: Millis) -> Wrong {
        let known = self.guesses.get(key, now);
        known.map_or(Wrong::none(now), |known| known.at(now))
    }

    fn attempt(&mut self, attempt: &Attempt, now: Millis) -> Answer {
        let known = attempt.known || self.logins.get(&attempt.login, now).is_some();
        let buckets = attempt.buckets(known);
        for Bucket { key, most } in buckets {
            if let Some(wait) = self.wrong(*key, now).wait(*most, now) {
                return Answer::Throttled(wait);
            }
        }
        let mut first = None;
        for Bucket { key, .. } in buckets {
            let wrong = self.wrong(*key, now).one_more();
            self.guesses
                .insert(*key, wrong, wrong.are_many(), wrong.expire(), now);
            first.get_or_insert(wrong.passwords);
        }
        let (key, value) = (attempt.id, Some(known));
        let expires = now + millis(FORGIVEN);
        self.open.insert(&key, Known { key, value }, expires, now);
        Answer::Attempted(first.unwrap_or(1))
    }

    fn take_back(&mut self, attempt: &Attempt, now: Millis) {
        let counted = self.open.get(&attempt.id, now).and_then(|open| open.value.take());
        let buckets = counted.map_or(&[][..], |known| attempt.buckets(known));
        for Bucket { key, .. } in buckets {
            let wrong = self.wrong(*key, now).one_less();
            self.guesses.change(*key, wrong, now);
        }
    }

    fn log_in(&mut self, key: Key, now: Millis) {
        let expires = now + millis(LOGIN_WINDOW);
        self.logins
            .insert(&key, Known { key, value: () }, expires, NOT_BY_THE_CLOCK);
    }

    fn knows(&mut self, triplet: Triplet, now: Millis) -> bool {
        let proofs = self.clients.get(&triplet.client, now).map(|known| known.value);
        if let Some(proofs) = proofs.filter(|proofs| *proofs >= PROOFS) {
            self.set_proofs(triplet.client, proofs, now);
            return true;
        }
        let known = self.passed.get(&triplet.whole, now).is_some();
        if known {
            self.pass(triplet.whole, now);
        }
        known
    }

    fn see(&mut self, triplet: Triplet, delay: Millis, now: Millis) -> Answer {
        if self.knows(triplet, now) {
            return Answer::Yes;
        }
        let key = triplet.whole;
        let waiting = self.waiting.get(&key, now).map(|known| known.value);
        let left = if let Some(since) = waiting.filter(|since| *since <= now) {
            (since + delay).saturating_sub(now)
        } else {
            let expires = now + millis(RETRY_WINDOW);
            self.waiting.insert(&key, Known { key, value: now }, expires, now);
            delay
        };
        if left > 0 {
            return Answer::Wait(left);
        }
        self.pass(key, now);
        let proofs = self
            .clients
            .get(&triplet.client, now)
            .map_or(0, |known| known.value);
        self.set_proofs(triplet.client, proofs + 1, now);
        Answer::Yes
    }

    fn pass(&mut self, key: Key, now: Millis) {
        let expires = now + millis(PASS_WINDOW);
        self.passed.insert(&key, Known { key, value: () }, expires, now);
    }

    fn set_proofs(&mut self, key: Key, value: u32, now: Millis) {
        let expires = now + millis(PASS_WINDOW);
        self.clients
            .insert(&key, Known { key, value }, expires, NOT_BY_THE_CLOCK);
    }
}

#[cfg(test)]
#[path = "local/tests.rs"]
mod tests;
