//! The back end in the process: bounded tables.
//!
//! Triplets that wait and triplets that passed have room of their own: a flood of new ones, which costs a stranger
//! nothing, must not make those forgotten that proved themselves. What a clock that was set back has put into the future
//! begins anew, so that nobody waits or is blocked until then.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    Answer, Backend, Key, Millis, PASS_WINDOW, PROOFS, Question, RETRY_WINDOW, Triplet, Unavailable, millis,
};
use crate::table::Table;

/// Entries of each table of one process.
pub const ENTRIES: usize = 262_144;

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

/// All that is kept, a list for each table: waiting, passed, clients, counts; what is forgotten first comes first.
pub type Tables = [Vec<Kept>; 4];

#[derive(Debug, Clone, Copy)]
struct Known<V> {
    key: Key,
    value: V,
}

type Of<V> = Table<Known<V>, Millis>;

#[derive(Debug, Clone, Copy)]
struct Count {
    began: Millis,
    this: u32,
    before: u32,
}

impl Count {
    fn new(now: Millis) -> Self {
        Self {
            began: now,
            this: 0,
            before: 0,
        }
    }

    fn at(self, now: Millis, window: Millis) -> Self {
        let Some(passed) = now.checked_sub(self.began) else {
            return Self::new(now);
        };
        if passed < window {
            self
        } else if passed < 2 * window {
            Self {
                began: self.began + window,
                this: 0,
                before: self.this,
            }
        } else {
            Self::new(now)
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "windows are far below 2^52 ms")]
    fn weighted(self, now: Millis, window: Millis) -> f64 {
        let passed = now.saturating_sub(self.began) as f64 / window as f64;
        f64::from(self.this) + f64::from(self.before) * (1.0 - passed.min(1.0))
    }
}

#[derive(Debug)]
struct State {
    /// Since when.
    waiting: Of<Millis>,
    passed: Of<()>,
    /// For how many triplets the client came back.
    clients: Of<u32>,
    counts: Of<Count>,
}

/// The tables of one process.
#[derive(Debug)]
pub struct Local(Mutex<State>);

impl Local {
    /// Empty tables with room for so many entries each.
    pub fn new(entries: usize) -> Self {
        Self(Mutex::new(State {
            waiting: Table::new(entries),
            passed: Table::new(entries),
            clients: Table::new(entries),
            counts: Table::new(entries),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer.
    pub fn answer(&self, question: &Question, now: Millis) -> Answer {
        let mut state = self.state();
        let yes = |yes| if yes { Answer::Yes } else { Answer::No };
        match *question {
            Question::Allows { key, limit, window } => yes(state.allows(key, limit, window, now)),
            Question::Take { key, limit, window } => yes(state.take(key, limit, window, now)),
            Question::Knows { triplet } => yes(state.knows(triplet, now)),
            Question::See { triplet, delay } => state.see(triplet, delay, now),
            Question::Learn { triplet } => {
                state.pass(triplet.whole, now);
                Answer::Yes
            }
            Question::Prove { client } => {
                state.set_proofs(client, PROOFS, now);
                Answer::Yes
            }
        }
    }

    /// Entries held of each table, in the order of [`Tables`].
    pub fn len(&self) -> [usize; 4] {
        let state = self.state();
        [
            state.waiting.len(),
            state.passed.len(),
            state.clients.len(),
            state.counts.len(),
        ]
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == [0; 4]
    }

    /// What is remembered at `now`.
    pub fn tables(&self, now: Millis) -> Tables {
        let state = self.state();
        [
            kept(&state.waiting, now, |since| [*since, 0]),
            kept(&state.passed, now, |()| [0, 0]),
            kept(&state.clients, now, |proofs| [u64::from(*proofs), 0]),
            kept(&state.counts, now, |count| {
                [count.began, u64::from(count.this) << 32 | u64::from(count.before)]
            }),
        ]
    }

    /// Takes in what was kept. What is known already is newer and stays; what would hold longer than anything put in
    /// now is cut to that.
    pub fn restore(&self, tables: Tables, now: Millis) {
        let mut state = self.state();
        let [waiting, passed, clients, counts] = tables;
        let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        fill(
            &mut state.waiting,
            waiting,
            millis(RETRY_WINDOW),
            now,
            |[since, _]| since.min(now),
        );
        fill(&mut state.passed, passed, millis(PASS_WINDOW), now, |_| ());
        fill(
            &mut state.clients,
            clients,
            millis(PASS_WINDOW),
            now,
            |[proofs, _]| low(proofs),
        );
        fill(
            &mut state.counts,
            counts,
            millis(PASS_WINDOW),
            now,
            |[began, both]| Count {
                began,
                this: low(both >> 32),
                before: low(both),
            },
        );
    }
}

impl Backend for Local {
    async fn ask(&self, question: &Question, now: Millis) -> Result<Answer, Unavailable> {
        Ok(self.answer(question, now))
    }
}

impl State {
    fn allows(&mut self, key: Key, limit: u32, window: Millis, now: Millis) -> bool {
        self.counts
            .get(&key, now)
            .is_none_or(|known| known.value.at(now, window).weighted(now, window) < f64::from(limit))
    }

    fn take(&mut self, key: Key, limit: u32, window: Millis, now: Millis) -> bool {
        if !self.allows(key, limit, window, now) {
            return false;
        }
        let known = self.counts.get(&key, now);
        let mut value = known.map_or(Count::new(now), |known| known.value.at(now, window));
        value.this += 1;
        let expires = value.began + 2 * window;
        self.counts.insert(&key, Known { key, value }, expires, now);
        true
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
        self.clients.insert(&key, Known { key, value }, expires, now);
    }
}

fn kept<V>(table: &Of<V>, now: Millis, value: impl Fn(&V) -> [u64; 2]) -> Vec<Kept> {
    let live = table.iter().filter(|(_, expires)| *expires > now);
    live.map(|(known, expires)| Kept {
        key: known.key,
        expires,
        value: value(&known.value),
    })
    .collect()
}

fn fill<V>(table: &mut Of<V>, kept: Vec<Kept>, longest: Millis, now: Millis, value: impl Fn([u64; 2]) -> V) {
    for Kept {
        key,
        expires,
        value: numbers,
    } in kept
    {
        if expires > now && table.get(&key, now).is_none() {
            let known = Known {
                key,
                value: value(numbers),
            };
            table.insert(&key, known, expires.min(now + longest), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Millis = 300_000;
    const HOUR: Millis = 3_600_000;

    fn triplet(from: &str) -> Triplet {
        Triplet {
            whole: Key::new("t", &[from]),
            client: Key::new("c", &[from]),
        }
    }

    fn see(from: &str) -> Question {
        Question::See {
            triplet: triplet(from),
            delay: DELAY,
        }
    }

    #[test]
    fn a_flood_of_new_triplets_leaves_the_known_ones() {
        let local = Local::new(100);
        local.answer(&see("known"), 1000);
        assert_eq!(local.answer(&see("known"), 1000 + DELAY), Answer::Yes);
        for number in 0..200 {
            local.answer(&see(&number.to_string()), 1000 + DELAY);
        }
        assert_eq!(local.answer(&see("known"), 1000 + DELAY), Answer::Yes);
        assert_eq!(local.len(), [100, 1, 1, 0]);
    }

    #[test]
    fn a_clock_that_is_set_back_blocks_nobody() {
        let local = Local::new(100);
        let year = 365 * 24 * HOUR;
        let take = Question::Take {
            key: Key::new("k", &[]),
            limit: 1,
            window: HOUR,
        };
        local.answer(&see("a"), year);
        assert_eq!(local.answer(&take, year), Answer::Yes);
        assert_eq!(local.answer(&take, year), Answer::No);
        assert_eq!(local.answer(&take, HOUR), Answer::Yes);
        assert_eq!(local.answer(&see("a"), HOUR), Answer::Wait(DELAY));
    }

    #[test]
    fn what_was_kept_is_known_again_and_no_longer_than_before() {
        let (first, second) = (Local::new(100), Local::new(100));
        let take = Question::Take {
            key: Key::new("k", &[]),
            limit: 2,
            window: HOUR,
        };
        first.answer(&see("passed"), HOUR);
        assert_eq!(first.answer(&see("passed"), HOUR + DELAY), Answer::Yes);
        first.answer(&see("waiting"), HOUR + DELAY);
        first.answer(&take, HOUR + DELAY);
        first.answer(&take, HOUR + DELAY);
        let client = Key::new("c", &["proven"]);
        first.answer(&Question::Prove { client }, HOUR);
        let now = HOUR + DELAY + 60_000;
        second.restore(first.tables(now), now);
        assert_eq!(second.answer(&take, now), Answer::No);
        assert_eq!(second.answer(&see("waiting"), now), Answer::Wait(DELAY - 60_000));
        assert_eq!(second.answer(&see("proven"), now), Answer::Yes);
        assert_eq!(second.answer(&see("passed"), now), Answer::Yes);
        let late = HOUR + DELAY + millis(PASS_WINDOW) - 1;
        let third = Local::new(100);
        third.restore(first.tables(now), late);
        assert_eq!(
            third.len(),
            [0, 1, 1, 0],
            "what has expired meanwhile is not taken in"
        );
    }

    #[test]
    fn a_kept_entry_holds_no_longer_than_a_new_one() {
        let local = Local::new(100);
        let kept = |value| Kept {
            key: triplet("a").whole,
            expires: Millis::MAX,
            value,
        };
        local.restore([vec![kept([Millis::MAX, 7])], vec![], vec![], vec![]], HOUR);
        assert_eq!(local.answer(&see("a"), HOUR + DELAY), Answer::Yes);
        let local = Local::new(100);
        local.restore([vec![], vec![kept([0, 0])], vec![], vec![]], HOUR);
        let late = HOUR + millis(PASS_WINDOW);
        assert_eq!(local.answer(&see("a"), late), Answer::Wait(DELAY));
    }
}
