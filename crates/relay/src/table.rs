//! A bounded map whose entries expire: greylist triplets, hourly counts, verified recipients.
//!
//! Keys are hashed with a random key of the process, so that strangers can neither grow an entry nor aim at a bucket.
//! The clock is the caller's, and what it counts: instants of this process, or milliseconds since 1970 where entries outlive it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Instant;

type Digest = (u64, u64);

/// At most `capacity` entries; when full, the entry that was put in first and not renewed since goes.
#[derive(Debug)]
pub struct Table<V, T = Instant> {
    entries: HashMap<Digest, Entry<V, T>>,
    order: VecDeque<(Digest, T)>,
    capacity: usize,
    hashers: (RandomState, RandomState),
}

#[derive(Debug)]
struct Entry<V, T> {
    value: V,
    expires: T,
}

impl<V, T: Copy + Ord> Table<V, T> {
    /// An empty table.
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            capacity: capacity.max(1),
            hashers: (RandomState::new(), RandomState::new()),
        }
    }

    fn digest(&self, key: &impl Hash) -> Digest {
        (self.hashers.0.hash_one(key), self.hashers.1.hash_one(key))
    }

    /// The live value of `key`.
    pub fn get(&mut self, key: &impl Hash, now: T) -> Option<&mut V> {
        let digest = self.digest(key);
        self.entries
            .get_mut(&digest)
            .filter(|entry| entry.expires > now)
            .map(|entry| &mut entry.value)
    }

    /// Sets the value of `key` until `expires`.
    pub fn insert(&mut self, key: &impl Hash, value: V, expires: T, now: T) {
        let digest = self.digest(key);
        if self.entries.insert(digest, Entry { value, expires }).is_none() {
            self.order.push_back((digest, expires));
        }
        self.shrink(now);
    }

    /// Drops what has expired, then what is oldest, until the bound holds. An entry renewed since it was queued goes
    /// to the back once instead.
    fn shrink(&mut self, now: T) {
        while let Some((digest, queued_until)) = self.order.front().copied() {
            let full = self.entries.len() > self.capacity;
            let Some(current) = self.entries.get(&digest).map(|entry| entry.expires) else {
                self.order.pop_front();
                continue;
            };
            if !full && queued_until > now {
                break;
            }
            self.order.pop_front();
            if current > queued_until {
                self.order.push_back((digest, current));
            } else {
                self.entries.remove(&digest);
            }
        }
    }

    /// What is held and until when, expired entries included; what goes first comes first.
    pub fn iter(&self) -> impl Iterator<Item = (&V, T)> {
        let entries = self
            .order
            .iter()
            .filter_map(|(digest, _)| self.entries.get(digest));
        entries.map(|entry| (&entry.value, entry.expires))
    }

    /// Entries held, expired ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_entry_lives_until_it_expires() {
        let start = Instant::now();
        let mut table = Table::new(10);
        table.insert(&"a", 1, start + Duration::from_secs(10), start);
        assert_eq!(table.get(&"a", start + Duration::from_secs(9)), Some(&mut 1));
        assert_eq!(table.get(&"a", start + Duration::from_secs(10)), None);
        table.insert(
            &"b",
            2,
            start + Duration::from_secs(30),
            start + Duration::from_secs(11),
        );
        assert_eq!(table.len(), 1, "the expired entry has gone");
    }

    #[test]
    fn a_full_table_drops_the_oldest_that_was_not_renewed() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut table = Table::new(2);
        table.insert(&1, "one", later(10), start);
        table.insert(&2, "two", later(10), start);
        table.insert(&1, "one again", later(20), start);
        table.insert(&3, "three", later(10), start);
        assert_eq!(table.len(), 2);
        assert!(table.get(&1, start).is_some());
        assert!(table.get(&2, start).is_none());
        assert!(table.get(&3, start).is_some());
    }

    #[test]
    fn the_bound_holds_under_a_flood() {
        let start = Instant::now();
        let mut table = Table::new(100);
        for key in 0..10_000 {
            table.insert(&key, (), start + Duration::from_mins(1), start);
            assert!(table.len() <= 100 && table.order.len() <= 100);
        }
    }
}
