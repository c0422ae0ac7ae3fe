//! Messages that are ready for one destination: transactional before bulk, and within a class each sender in turn, so that
//! whoever has many waits behind himself and not before others.

use std::collections::{HashMap, VecDeque};

use super::priority::{Class, Sender};
use crate::spool::MessageId;

/// Ready messages.
#[derive(Debug, Default)]
pub struct Fair([Turns; 2]);

#[derive(Debug, Default)]
struct Turns {
    messages: HashMap<Sender, VecDeque<MessageId>>,
    order: VecDeque<Sender>,
}

impl Fair {
    /// Behind all of its class and sender.
    pub fn push(&mut self, class: Class, sender: Sender, id: MessageId) {
        let turns = &mut self.0[class as usize];
        let own = turns.messages.entry(sender).or_default();
        if own.is_empty() {
            turns.order.push_back(sender);
        }
        own.push_back(id);
    }

    /// The next of a class.
    pub fn pop(&mut self, class: Class) -> Option<MessageId> {
        let turns = &mut self.0[class as usize];
        let sender = turns.order.pop_front()?;
        let own = turns.messages.get_mut(&sender)?;
        let id = own.pop_front();
        if own.is_empty() {
            turns.messages.remove(&sender);
        } else {
            turns.order.push_back(sender);
        }
        id
    }

    /// Nothing of this class is ready.
    pub fn is_empty(&self, class: Class) -> bool {
        self.0[class as usize].order.is_empty()
    }
}
