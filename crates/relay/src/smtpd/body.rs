//! The message as it comes in: in memory, against a budget that all connections share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const KIB: usize = 1024;
/// Budget is taken in steps of this many KiB.
const STEP: u32 = 64;

/// Octets of one message, or the fact that they did not fit.
#[derive(Debug)]
pub(super) struct Body {
    octets: Vec<u8>,
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    overflow: bool,
}

impl Body {
    pub(super) fn new(budget: Arc<Semaphore>) -> Self {
        Self {
            octets: Vec::new(),
            budget,
            held: None,
            overflow: false,
        }
    }

    /// Forgets the message and gives its memory back.
    pub(super) fn clear(&mut self) {
        self.octets = Vec::new();
        self.held = None;
        self.overflow = false;
    }

    /// Adds octets; over budget the message is dropped and only remembered as too much.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let wanted = self.octets.len() + chunk.len();
        while !self.overflow && wanted > self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * KIB
        {
            let Ok(more) = Arc::clone(&self.budget).try_acquire_many_owned(STEP) else {
                self.clear();
                self.overflow = true;
                return;
            };
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
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
        let (mut one, mut two) = (Body::new(Arc::clone(&budget)), Body::new(Arc::clone(&budget)));
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
}
