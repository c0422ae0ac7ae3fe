//! The schedule: which messages wait, when each is due, and which goes next. It is an index of what the spool says,
//! rebuilt at every start, and holds neither addresses nor content. Pure: time is given.
//!
//! A message that is due becomes ready at its destination ([`super::fair`]). Destinations with something ready take turns,
//! all transactional mail before all bulk; one that has no room ([`super::health`]) gives its turn up until it has.

mod changes;
pub mod clock;
mod places;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::ops::Bound;

pub use super::entry::{Entry, New, Unready};
use super::fair::Fair;
use super::health::Health;
use super::priority::{Class, Sender, class};
use super::router::Destination;
use crate::spool::recovery::Messages;
use crate::spool::{Location, MessageId, Status};
use places::Places;

/// Index of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(u32);

impl DestinationId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Recipients to try now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Of which message.
    pub id: MessageId,
    /// Where it is.
    pub location: Location,
    /// When it arrived, milliseconds since 1970.
    pub arrived: u64,
    /// Where it goes.
    pub destination: Destination,
    /// Its index.
    pub to: DestinationId,
    /// How often in a row the destination could not be reached.
    pub failures: u32,
    /// Index in the envelope and tries so far.
    pub recipients: Vec<(u32, u32)>,
}

/// Whether a job's destination was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It answered for the message.
    Reached,
    /// It answered nothing, or for all mail alike; why, and when (milliseconds since 1970) it may be tried again.
    Unreachable(Box<str>, u64),
    /// Nobody asked it.
    Unknown,
}

struct Lane {
    destination: Destination,
    health: Health,
    active: usize,
    /// Messages with a recipient here.
    messages: usize,
    ready: Fair,
    /// For each class, whether it is in the order of turns.
    queued: [bool; 2],
}

/// All messages that wait.
pub struct Schedule {
    /// Boxed, for the nodes of the tree are half empty.
    entries: Messages<Entry>,
    due: BinaryHeap<Reverse<(u64, MessageId, DestinationId)>>,
    lanes: Vec<Lane>,
    /// Lanes that no message uses.
    free: Vec<DestinationId>,
    names: HashMap<Destination, DestinationId>,
    /// Destinations with something ready, for each class.
    turns: [VecDeque<DestinationId>; 2],
    /// When closed destinations are probed.
    openings: BinaryHeap<Reverse<(u64, DestinationId)>>,
    backlog: HashMap<Sender, usize>,
    places: Places,
    /// Recipients that are not done.
    waiting: usize,
    active: usize,
    per_destination: usize,
    total: usize,
}

impl Schedule {
    /// At most `per_destination` sessions to one destination and `total` to all; bulk mail leaves an eighth of these to
    /// transactional mail.
    pub fn new(per_destination: usize, total: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            due: BinaryHeap::new(),
            lanes: Vec::new(),
            free: Vec::new(),
            names: HashMap::new(),
            turns: [VecDeque::new(), VecDeque::new()],
            openings: BinaryHeap::new(),
            backlog: HashMap::new(),
            places: Places::default(),
            waiting: 0,
            active: 0,
            per_destination,
            total,
        }
    }

    /// Takes a message.
    pub fn insert(&mut self, id: MessageId, new: New) {
        let entry = Entry::from(new);
        self.count(id, &entry);
        self.entries.insert(id, Box::new(entry));
        self.remember(id);
    }

    /// Takes what was found in the spool, once, before anything else.
    pub fn adopt(&mut self, messages: Messages<Entry>) {
        self.due.reserve(messages.len());
        for (id, entry) in &messages {
            self.count(*id, entry);
            self.due.extend(dues(*id, entry));
        }
        self.entries = messages;
    }

    fn count(&mut self, id: MessageId, entry: &Entry) {
        self.places.enter(entry.location, id);
        self.waiting += entry.statuses().filter(|status| !status.is_final()).count();
        *self.backlog.entry(entry.sender).or_default() += 1;
        for to in entry.lanes() {
            self.lanes[to.index()].messages += 1;
        }
    }

    /// The index of a destination, which holds while a message uses it.
    pub fn index(&mut self, destination: Destination) -> DestinationId {
        if let Some(known) = self.names.get(&destination) {
            return *known;
        }
        let lane = Lane {
            destination: destination.clone(),
            health: Health::new(self.per_destination),
            active: 0,
            messages: 0,
            ready: Fair::default(),
            queued: [false; 2],
        };
        let id = if let Some(free) = self.free.pop() {
            self.lanes[free.index()] = lane;
            free
        } else {
            self.lanes.push(lane);
            DestinationId(u32::try_from(self.lanes.len() - 1).unwrap_or(u32::MAX))
        };
        self.names.insert(destination, id);
        id
    }

    /// Forgets destinations that were asked for and that no message uses.
    pub fn forget_unused(&mut self) {
        let lanes = (0..).map(DestinationId).zip(&self.lanes);
        let unused = lanes.filter(|(_, lane)| lane.messages == 0);
        for to in unused.map(|(to, _)| to).collect::<Vec<_>>() {
            if self.names.remove(&self.lanes[to.index()].destination).is_some() {
                self.free.push(to);
            }
        }
    }

    /// What is to be tried next; `None` where nothing is ready or all places are taken.
    pub fn next(&mut self, now: u64) -> Option<Job> {
        self.make_ready(now);
        let for_bulk = self.total - self.total / 8;
        for (class, places) in [(Class::Transactional, self.total), (Class::Bulk, for_bulk)] {
            while self.active < places {
                let Some(to) = self.turns[class as usize].pop_front() else {
                    break;
                };
                let lane = &mut self.lanes[to.index()];
                lane.queued[class as usize] = false;
                if !lane.health.has_room(lane.active, now) {
                    continue;
                }
                let next = lane.ready.pop(class);
                self.take_turn(to);
                if let Some(job) = next.and_then(|id| self.job(id, to, now)) {
                    return Some(job);
                }
            }
        }
        None
    }

    /// The job of a message whose turn it is; `None` where it has been dealt with meanwhile.
    fn job(&mut self, id: MessageId, to: DestinationId, now: u64) -> Option<Job> {
        let entry = self.entries.get_mut(&id)?;
        entry.set_ready(to, false);
        let recipients = entry.due(to, now);
        if !entry.may_try(to) || recipients.is_empty() {
            // Where the clock was put back it is not due any more, and must be once more.
            if entry.may_try(to) {
                self.due.extend(entry.next(to).map(|at| Reverse((at, id, to))));
            }
            return None;
        }
        entry.set_busy(to, true);
        entry.set_wanted(to, false);
        self.active += 1;
        let lane = &mut self.lanes[to.index()];
        lane.active += 1;
        Some(Job {
            id,
            location: entry.location,
            arrived: entry.arrived,
            destination: lane.destination.clone(),
            to,
            failures: lane.health.failures(),
            recipients,
        })
    }

    /// What is due becomes ready, and destinations whose time has come take turns again.
    fn make_ready(&mut self, now: u64) {
        while let Some(Reverse((at, id, to))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            if let Some(entry) = self.entries.get_mut(&id)
                && entry.may_try(to)
                && !entry.is_ready(to)
                && !entry.due(to, now).is_empty()
            {
                entry.set_ready(to, true);
                let ready = &mut self.lanes[to.index()].ready;
                let backlog = self.backlog.get(&entry.sender).copied().unwrap_or_default();
                if entry.is_wanted(to) {
                    ready.push_wanted(id);
                } else {
                    ready.push(class(entry.bulk, backlog), entry.sender, id);
                }
                self.take_turn(to);
            }
        }
        while let Some(Reverse((at, to))) = self.openings.peek().copied()
            && at <= now
        {
            self.openings.pop();
            self.take_turn(to);
        }
    }

    /// A destination with something ready waits for its turn.
    fn take_turn(&mut self, to: DestinationId) {
        let lane = &mut self.lanes[to.index()];
        for class in [Class::Transactional, Class::Bulk] {
            let queued = &mut lane.queued[class as usize];
            if !*queued && !lane.ready.is_empty(class) {
                *queued = true;
                self.turns[class as usize].push_back(to);
            }
        }
    }

    /// When the next message is due, or the next destination is probed.
    pub fn next_due(&self) -> Option<u64> {
        let due = self.due.peek().map(|Reverse((at, ..))| *at);
        let opening = self.openings.peek().map(|Reverse((at, _))| *at);
        due.into_iter().chain(opening).min()
    }

    /// A job has ended with these news. True where the message is done and forgotten.
    pub fn finish(
        &mut self,
        id: MessageId,
        to: DestinationId,
        news: Vec<(u32, Status)>,
        reach: &Reach,
    ) -> bool {
        self.active = self.active.saturating_sub(1);
        let lane = &mut self.lanes[to.index()];
        lane.active = lane.active.saturating_sub(1);
        match reach {
            Reach::Reached => lane.health.reached(),
            Reach::Unreachable(reply, until) => lane.health.failed(lane.active, *until, reply),
            Reach::Unknown => {}
        }
        let closed = lane.health.closed();
        self.openings.extend(closed.map(|(at, _)| Reverse((at, to))));
        self.take_turn(to);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.set_busy(to, false);
        }
        let done = self.update(id, news);
        if let Some(entry) = self.entries.get(&id).filter(|entry| !entry.held) {
            self.due.extend(entry.next(to).map(|at| Reverse((at, id, to))));
        }
        done
    }

    /// Takes news of a message. True where it is done and forgotten.
    fn update(&mut self, id: MessageId, news: Vec<(u32, Status)>) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        for (index, status) in news {
            if let Some((_, known)) = entry.recipients.get_mut(index as usize) {
                let waited = !known.is_final();
                known.update(status);
                self.waiting -= usize::from(waited && known.is_final());
            }
        }
        if entry.statuses().all(Status::is_final) {
            self.places.leave(entry.location);
            self.forget(id);
            return true;
        }
        false
    }

    /// A message is done: it counts no more for its sender and its destinations.
    fn forget(&mut self, id: MessageId) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        if let Some(backlog) = self.backlog.get_mut(&entry.sender) {
            *backlog -= 1;
            if *backlog == 0 {
                self.backlog.remove(&entry.sender);
            }
        }
        for to in entry.lanes() {
            let lane = &mut self.lanes[to.index()];
            lane.messages -= 1;
            // What is known of its health goes too: its next message finds out.
            if lane.messages == 0 {
                self.names.remove(&lane.destination);
                for class in [Class::Transactional, Class::Bulk] {
                    while lane.ready.pop(class).is_some() {}
                }
                self.free.push(to);
            }
        }
    }

    /// Notes when a message is due, for all its destinations.
    fn remember(&mut self, id: MessageId) {
        if let Some(entry) = self.entries.get(&id) {
            self.due.extend(dues(id, entry));
        }
    }

    /// Messages by id, oldest first; only those behind `after`.
    pub fn entries(&self, after: Option<MessageId>) -> impl Iterator<Item = (MessageId, &Entry)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries
            .range((from, Bound::Unbounded))
            .map(|(id, entry)| (*id, &**entry))
    }

    /// One message.
    pub fn entry(&self, id: MessageId) -> Option<&Entry> {
        self.entries.get(&id).map(|entry| &**entry)
    }

    /// The destination of this index.
    pub fn destination(&self, to: DestinationId) -> &Destination {
        &self.lanes[to.index()].destination
    }

    /// How a destination is.
    pub fn health(&self, to: DestinationId) -> &Health {
        &self.lanes[to.index()].health
    }

    /// Octets that the records of all messages take up in the spool.
    pub fn octets(&self) -> u64 {
        self.places.octets()
    }

    /// Recipients that are not done.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Jobs under way.
    pub fn active(&self) -> usize {
        self.active
    }
}

/// When a message is due at each of its destinations where nothing is under way with it.
fn dues(id: MessageId, entry: &Entry) -> impl Iterator<Item = Reverse<(u64, MessageId, DestinationId)>> {
    let destinations = entry.destinations().into_iter();
    let rests = move |to: &DestinationId| !entry.held && !entry.is_busy(*to) && !entry.is_ready(*to);
    let next = move |to| entry.next(to).map(|at| Reverse((at, id, to)));
    destinations.filter(rests).filter_map(next)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
