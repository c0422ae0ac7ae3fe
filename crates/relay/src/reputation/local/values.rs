//! What the tables hold: counts of two neighbouring hours, wrong passwords, beginnings of histories. The same sums are in `ask.lua`.

use crate::reputation::{CLOCKS_DIFFER, FORGIVEN, HOUR, Key, Millis, millis};
use crate::table::Table;

/// A value and whose it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<V> {
    pub(super) key: Key,
    pub(super) value: V,
}

pub(super) type Of<V> = Table<Known<V>, Millis>;

/// Two tables: keys that were seen seldom are forgotten for new ones, those that were seen often only for others seen as
/// often. Who would have his own count forgotten must fill a table with such, each of which costs him as much.
#[derive(Debug)]
pub(super) struct Tiers<V> {
    seldom: Of<V>,
    often: Of<V>,
}

impl<V: Copy> Tiers<V> {
    /// With room for so many in both.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            seldom: Table::new(entries / 2),
            often: Table::new(entries - entries / 2),
        }
    }

    pub(super) fn get(&mut self, key: Key, now: Millis) -> Option<V> {
        let known = match self.often.get(&key, now) {
            Some(known) => Some(known),
            None => self.seldom.get(&key, now),
        };
        known.map(|known| known.value)
    }

    /// Once a key was seen often, it stays so until it expires; what is left of it among the others expires before.
    pub(super) fn insert(&mut self, key: Key, value: V, often: bool, expires: Millis, now: Millis) {
        let table = if often || self.often.get(&key, now).is_some() {
            &mut self.often
        } else {
            &mut self.seldom
        };
        table.insert(&key, Known { key, value }, expires, now);
    }

    /// Changes a value and nothing else.
    pub(super) fn change(&mut self, key: Key, value: V, now: Millis) {
        for table in [&mut self.often, &mut self.seldom] {
            if let Some(known) = table.get(&key, now) {
                known.value = value;
                return;
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.seldom.len() + self.often.len()
    }

    /// What is seen often comes last, as it is forgotten last.
    pub(super) fn tables(&self) -> [&Of<V>; 2] {
        [&self.seldom, &self.often]
    }
}

/// Messages of two neighbouring hours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Messages {
    pub(super) began: Millis,
    pub(super) this: u32,
    pub(super) before: u32,
}

impl Messages {
    /// From so many on a key is one that was seen often.
    pub(super) const OFTEN: u32 = 8;

    pub(super) fn none(now: Millis) -> Self {
        Self {
            began: now,
            this: 0,
            before: 0,
        }
    }

    pub(super) fn at(self, now: Millis) -> Self {
        let hour = millis(HOUR);
        let passed = now.saturating_sub(self.began);
        if self.began > now + millis(CLOCKS_DIFFER) || passed >= 2 * hour {
            Self::none(now)
        } else if passed < hour {
            self
        } else {
            Self {
                began: self.began + hour,
                this: 0,
                before: self.this,
            }
        }
    }

    pub(super) fn one_more(self) -> Self {
        Self {
            this: self.this.saturating_add(1),
            ..self
        }
    }

    pub(super) fn are_many(self) -> bool {
        self.this.saturating_add(self.before) >= Self::OFTEN
    }

    /// Until when they count.
    pub(super) fn expire(self) -> Millis {
        self.began + 2 * millis(HOUR)
    }

    /// How long until there are fewer than `limit`; nothing where there are now.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "parts of two hours in milliseconds"
    )]
    pub(super) fn wait(self, limit: u32, now: Millis) -> Option<Millis> {
        let hour = millis(HOUR) as f64;
        let (this, before, limit) = (f64::from(self.this), f64::from(self.before), f64::from(limit));
        let passed = now.saturating_sub(self.began) as f64 / hour;
        if this + before * (1.0 - passed.min(1.0)) < limit {
            return None;
        }
        let hours = if this < limit {
            1.0 - (limit - this) / before
        } else {
            2.0 - limit / this
        };
        // A second more, so that who comes back to the second is within it.
        let falls_below = self.began + (hour * hours.clamp(0.0, 2.0)).ceil() as Millis + 1000;
        Some(falls_below.saturating_sub(now))
    }
}

/// Wrong passwords that count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wrong {
    pub(super) passwords: u32,
    /// When the next of them is forgiven.
    pub(super) forgiven: Millis,
}

impl Wrong {
    /// From so many on a key is one that was seen often.
    const OFTEN: u32 = 3;

    pub(super) fn none(now: Millis) -> Self {
        Self {
            passwords: 0,
            forgiven: now + millis(FORGIVEN),
        }
    }

    pub(super) fn at(self, now: Millis) -> Self {
        let forgiven = millis(FORGIVEN);
        if self.forgiven > now + forgiven + millis(CLOCKS_DIFFER) {
            return Self::none(now);
        }
        let over = match now.checked_sub(self.forgiven) {
            Some(passed) => u32::try_from(passed / forgiven + 1).unwrap_or(u32::MAX),
            None => 0,
        };
        if over >= self.passwords {
            return Self::none(now);
        }
        Self {
            passwords: self.passwords - over,
            forgiven: self.forgiven + Millis::from(over) * forgiven,
        }
    }

    pub(super) fn one_more(self) -> Self {
        Self {
            passwords: self.passwords.saturating_add(1),
            ..self
        }
    }

    pub(super) fn one_less(self) -> Self {
        Self {
            passwords: self.passwords.saturating_sub(1),
            ..self
        }
    }

    pub(super) fn are_many(self) -> bool {
        self.passwords >= Self::OFTEN
    }

    pub(super) fn expire(self) -> Millis {
        self.forgiven + millis(FORGIVEN) * Millis::from(self.passwords)
    }

    /// How long until there are fewer than `most`; nothing where there are now.
    pub(super) fn wait(self, most: u32, now: Millis) -> Option<Millis> {
        let over = self.passwords.checked_sub(most)?;
        Some(self.forgiven.saturating_sub(now) + Millis::from(over) * millis(FORGIVEN))
    }
}

/// The beginning of a history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) first: Millis,
    pub(super) messages: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = 3_600_000;

    #[test]
    fn who_waits_as_long_as_told_is_within_the_limit() {
        let start = 1_800_000_000_000;
        for (limit, this) in [(1, 1), (100, 100), (100, 140), (3, 7)] {
            let count = Messages {
                this,
                ..Messages::none(start)
            };
            for now in [start, start + HOUR / 2, start + HOUR - 1000] {
                let wait = count.wait(limit, now).expect("the limit is reached");
                assert!(wait > 1000, "{limit} {this}");
                assert_eq!(
                    count.at(now + wait).wait(limit, now + wait),
                    None,
                    "{limit} {this}"
                );
                let early = now + wait - 2000;
                assert!(
                    count.at(early).wait(limit, early).is_some(),
                    "not longer than needed"
                );
            }
        }
        let both = Messages {
            began: start,
            this: 60,
            before: 80,
        };
        let wait = both.wait(100, start).expect("80 + 60 are more");
        assert_eq!(wait, HOUR / 2 + 1000);
    }

    #[test]
    fn wrong_passwords_are_forgiven_one_by_one() {
        let forgiven = millis(FORGIVEN);
        let three = Wrong::none(0).one_more().one_more().one_more();
        let left: Vec<u32> = (0..5).map(|n| three.at(n * forgiven).passwords).collect();
        assert_eq!(left, [3, 2, 1, 0, 0]);
        assert_eq!(three.expire(), 4 * forgiven);
        assert_eq!(three.wait(4, 0), None);
        assert_eq!(three.wait(3, 1), Some(forgiven - 1));
        assert_eq!(three.wait(2, 0), Some(2 * forgiven));
    }
}
