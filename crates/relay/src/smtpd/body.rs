//! The message as it comes in: in memory, against a budget that all connections share. Of it one stranger's address may hold a
//! part only, so that a few slow messages do not shut out everybody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rate::client;

const KIB: usize = 1024;
/// Budget is taken in steps of this many KiB.
const STEP: u32 = 64;

/// The budget of all connections, and of each address.
#[derive(Debug)]
pub(super) struct Memory {
    all: Arc<Semaphore>,
    /// KiB of it.
    size: usize,
    /// KiB that one address may hold.
    share: usize,
    by_address: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

impl Memory {
    /// `all` octets, of which one address may hold a quarter, and one message of `largest` octets in any case.
    pub(super) fn new(all: usize, largest: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all / KIB)),
            size: all / KIB,
            share: (all / 4).max(largest + STEP as usize * KIB).min(all) / KIB,
            by_address: Mutex::default(),
        }
    }

    /// Octets that messages under way take.
    pub(super) fn taken(&self) -> usize {
        self.size.saturating_sub(self.all.available_permits()) * KIB
    }

    /// For a client whose number of messages nobody bounds but this.
    pub(super) fn of_stranger(&self, address: IpAddr) -> Vec<Arc<Semaphore>> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let address = client(address);
        let known = by_address.get(&address).and_then(Weak::upgrade);
        let own = known.unwrap_or_else(|| {
            by_address.retain(|_, budget| budget.strong_count() > 0);
            let own = Arc::new(Semaphore::new(self.share));
            by_address.insert(address, Arc::downgrade(&own));
            own
        });
        vec![own, Arc::clone(&self.all)]
    }

    /// For our own nodes and users, and listed peers.
    pub(super) fn of_known(&self) -> Vec<Arc<Semaphore>> {
        vec![Arc::clone(&self.all)]
    }
}

/// Octets of one message, or the fact that they did not fit.
#[derive(Debug)]
pub(super) struct Body {
    octets: Vec<u8>,
    budgets: Vec<Arc<Semaphore>>,
    /// Of each budget as much.
    held: Vec<OwnedSemaphorePermit>,
    /// KiB held.
    room: usize,
    overflow: bool,
}

impl Body {
    /// A message that counts against all of `budgets` (KiB).
    pub(super) fn new(budgets: Vec<Arc<Semaphore>>) -> Self {
        Self {
            octets: Vec::new(),
            budgets,
            held: Vec::new(),
            room: 0,
            overflow: false,
        }
    }

    /// Forgets the message and gives its memory back.
    pub(super) fn clear(&mut self) {
        self.octets = Vec::new();
        self.held.clear();
        self.room = 0;
        self.overflow = false;
    }

    /// Adds octets; over budget the message is dropped and only remembered as too much.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let wanted = self.octets.len() + chunk.len();
        while !self.overflow && wanted > self.room * KIB {
            let more: Result<Vec<_>, _> = self
                .budgets
                .iter()
                .map(|budget| Arc::clone(budget).try_acquire_many_owned(STEP))
                .collect();
            let Ok(more) = more else {
                self.clear();
                self.overflow = true;
                return;
            };
            if self.held.is_empty() {
                self.held = more;
            } else {
                self.held
                    .iter_mut()
                    .zip(more)
                    .for_each(|(held, more)| held.merge(more));
            }
            self.room += STEP as usize;
        }
        if !self.overflow {
            self.octets.extend_from_slice(chunk);
        }
    }

    /// The message, if it fitted.
    pub(super) fn octets(&self) -> Option<&[u8]> {
        (!self.overflow).then_some(&self.octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let budget = Arc::new(Semaphore::new(128));
        let (mut one, mut two) = (
            Body::new(vec![Arc::clone(&budget)]),
            Body::new(vec![Arc::clone(&budget)]),
        );
        one.push(&vec![b'x'; 65 * KIB]);
        assert_eq!(one.octets().map(<[u8]>::len), Some(65 * KIB));
        two.push(b"y");
        assert_eq!(two.octets(), None);
        two.push(b"z");
        assert_eq!(two.octets(), None, "a message that lost its beginning stays lost");
        one.clear();
        two.clear();
        two.push(b"y");
        assert_eq!(two.octets(), Some(&b"y"[..]));
        drop((one, two));
        assert_eq!(budget.available_permits(), 128);
    }

    #[test]
    fn one_stranger_leaves_room_for_others() {
        let memory = Memory::new(4096 * KIB, 512 * KIB);
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut greedy: Vec<_> = (0..20).map(|_| Body::new(memory.of_stranger(a))).collect();
        for body in &mut greedy {
            body.push(&vec![b'x'; 256 * KIB]);
        }
        assert_eq!(greedy.iter().filter(|body| body.octets().is_some()).count(), 4);
        let mut other = Body::new(memory.of_stranger(b));
        other.push(&vec![b'y'; 512 * KIB]);
        assert!(other.octets().is_some());
        drop(greedy);
        let mut again = Body::new(memory.of_stranger(a));
        again.push(&vec![b'z'; 512 * KIB]);
        assert!(again.octets().is_some(), "what was held came back");
        assert_eq!(memory.by_address.lock().unwrap().len(), 2);
    }
}
