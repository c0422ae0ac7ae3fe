//! What else happens to a message that waits: the operator or time changes it, or it is carried over to another place.

use std::cmp::Reverse;

use super::super::entry::Writing;
use super::{Entry, Schedule, Unready};
use crate::spool::{Location, MessageId, Status};

impl Schedule {
    /// Begins a change by the operator. `alone`: not while it is being tried.
    pub fn begin_change(&mut self, id: MessageId, alone: bool) -> Result<&Entry, Unready> {
        let entry = self.entries.get_mut(&id).ok_or(Unready::Unknown)?;
        if !entry.rests() {
            return Err(Unready::Soon);
        }
        if alone && entry.is_tried() {
            return Err(Unready::Tried);
        }
        entry.set_writing(Writing::Change);
        Ok(entry)
    }

    /// The change has ended with these news; `held` where that changed. True where the message is done and forgotten.
    pub fn end_change(&mut self, id: MessageId, news: Vec<(u32, Status)>, held: Option<bool>) -> bool {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.set_writing(Writing::Nothing);
            entry.held = held.unwrap_or(entry.held);
        }
        let done = self.update(id, news);
        if held == Some(false) {
            self.want(id);
        }
        self.remember(id);
        done
    }

    /// It is at a new place and not held any more. However old it is by now, it is tried before it is given up.
    pub fn let_go(&mut self, id: MessageId, location: Location) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.held = false;
        }
        self.want(id);
        self.carried(id, Some(location));
    }

    /// What waits for a later time is due now, and its destinations are probed now. Not recorded: after a restart the old
    /// times count.
    pub fn retry(&mut self, id: MessageId, now: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        for (to, status) in &mut *entry.recipients {
            if let Status::Due { at, .. } = status {
                *at = now.min(*at);
                self.lanes[to.index()].health.probe_now(now);
                self.openings.push(Reverse((now, *to)));
            }
        }
        self.want(id);
        self.remember(id);
    }

    /// The operator wants it tried: it is before all others at its destinations, and is not given up untried.
    fn want(&mut self, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let mut ready = Vec::new();
        for to in entry.destinations() {
            if !entry.is_busy(to) && !entry.is_wanted(to) {
                entry.set_wanted(to, true);
                ready.extend(entry.is_ready(to).then_some(to));
            }
        }
        // Its place in the order stays: when its turn comes there it has been dealt with.
        for to in ready {
            self.lanes[to.index()].ready.push_wanted(id);
            self.take_turn(to);
        }
    }

    /// Whether the record of some message is in `segment`.
    pub fn needs(&self, segment: u64) -> bool {
        self.places.holds(segment)
    }

    /// Messages whose record is in `segment`, in the order of their coming there.
    pub fn in_segment(&self, segment: u64) -> impl Iterator<Item = MessageId> {
        let is_there = move |id: &MessageId| {
            self.entry(*id)
                .is_some_and(|entry| entry.location.segment == segment)
        };
        self.places.came(segment).filter(is_there)
    }

    /// Begins to carry a message over; `None` while it is being tried or carried.
    pub fn carry(&mut self, id: MessageId) -> Option<&Entry> {
        let entry = self.entries.get_mut(&id)?;
        if !entry.rests() || entry.is_tried() {
            return None;
        }
        entry.set_writing(Writing::Copy);
        Some(entry)
    }

    /// It is at a new place now; or, where `None`, still at the old one.
    pub fn carried(&mut self, id: MessageId, location: Option<Location>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.set_writing(Writing::Nothing);
        if let Some(new) = location {
            let old = std::mem::replace(&mut entry.location, new);
            self.places.enter(new, id);
            self.places.leave(old);
        }
        self.remember(id);
    }
}
