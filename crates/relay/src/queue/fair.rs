//! Messages that are ready for one destination: transactional before bulk, and within a class each sender in turn, so that
//! whoever has many waits behind himself and not before others.

use std::collections::{HashMap, VecDeque};

use super::priority::{Class, Sender};
use crate::spool::MessageId;

/// Ready messages.
#[derive(Debug, Default)]
pub struct Fair {
    /// What the operator wants tried goes before all turns.
    wanted: VecDeque<MessageId>,
    turns: [Turns; 2],
}

#[derive(Debug, Default)]
struct Turns {
    messages: HashMap<Sender, VecDeque<MessageId>>,
    order: VecDeque<Sender>,
}

impl Fair {
    /// Behind all of its class and sender.
    pub fn push(&mut self, class: Class, sender: Sender, id: MessageId) {
        let turns = &mut self.turns[class as usize];
        let own = turns.messages.entry(sender).or_default();
        if own.is_empty() {
            turns.order.push_back(sender);
        }
        own.push_back(id);
    }

    /// Before all others, but for those that were pushed so already.
    pub fn push_wanted(&mut self, id: MessageId) {
        self.wanted.push_back(id);
    }

    /// The next of a class.
    pub fn pop(&mut self, class: Class) -> Option<MessageId> {
        if class == Class::Transactional
            && let Some(wanted) = self.wanted.pop_front()
        {
            return Some(wanted);
        }
        let turns = &mut self.turns[class as usize];
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
        let wanted = class == Class::Transactional && !self.wanted.is_empty();
        !wanted && self.turns[class as usize].order.is_empty()
    }
}
