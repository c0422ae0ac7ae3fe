//! The schedule: which messages wait, when each is due, and how many sessions each destination has. It is an index of
//! what the spool says, rebuilt at every start, and holds neither addresses nor content. Pure: time is given.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::ops::Bound;

use super::provenance::Provenance;
use super::router::Destination;
use crate::spool::{Location, MessageId, Status};

/// Index of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(u32);

/// A message that waits.
#[derive(Debug)]
pub struct Entry {
    /// Where it is.
    pub location: Location,
    /// Through which socket it came.
    pub provenance: Provenance,
    /// Milliseconds since 1970.
    pub arrived: u64,
    /// Not to be tried until the operator releases it.
    pub held: bool,
    recipients: Vec<(DestinationId, Status)>,
    /// Destinations that are being tried.
    busy: Vec<DestinationId>,
    /// Being appended to the spool again; nothing may be tried until that is done.
    carried: bool,
    /// The operator's change is being recorded; nothing may be tried, nor carried, until that is done.
    changing: bool,
}

/// A message to be scheduled.
#[derive(Debug)]
pub struct New {
    /// Where it is.
    pub location: Location,
    /// Through which socket it came.
    pub provenance: Provenance,
    /// Milliseconds since 1970.
    pub arrived: u64,
    /// Not to be tried until the operator releases it.
    pub held: bool,
    /// Recipients with their destinations, in the envelope's order.
    pub recipients: Vec<(Destination, Status)>,
}

/// Why a change cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// There is no such message.
    Unknown,
    /// It is being carried over or changed: soon.
    Soon,
    /// It is being tried.
    Tried,
}

impl Entry {
    /// How its recipients stand, in the envelope's order.
    pub fn statuses(&self) -> impl Iterator<Item = &Status> {
        self.recipients.iter().map(|(_, status)| status)
    }

    /// Recipients with the indexes of their destinations, in the envelope's order.
    pub fn recipients(&self) -> &[(DestinationId, Status)] {
        &self.recipients
    }

    /// Indexes of the recipients that are not done.
    pub fn waiting(&self) -> Vec<u32> {
        (0..)
            .zip(self.statuses())
            .filter(|(_, status)| !status.is_final())
            .map(|(index, _)| index)
            .collect()
    }

    fn rests(&self) -> bool {
        !self.carried && !self.changing
    }

    fn octets(&self) -> u64 {
        self.location.body_length + u64::from(self.location.meta_length)
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
    /// Index in the envelope and tries so far.
    pub recipients: Vec<(u32, u32)>,
}

struct Lane {
    destination: Destination,
    active: usize,
    /// Messages that are due and wait for a place.
    waiting: VecDeque<MessageId>,
}

/// All messages that wait.
pub struct Schedule {
    entries: BTreeMap<MessageId, Entry>,
    due: BinaryHeap<Reverse<(u64, MessageId, DestinationId)>>,
    /// Due, and a place has become free.
    released: VecDeque<(MessageId, DestinationId)>,
    lanes: Vec<Lane>,
    names: HashMap<Destination, DestinationId>,
    by_segment: BTreeMap<u64, BTreeSet<MessageId>>,
    octets: u64,
    active: usize,
    per_destination: usize,
    total: usize,
}

impl Schedule {
    /// At most `per_destination` sessions to one destination and `total` to all.
    pub fn new(per_destination: usize, total: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            due: BinaryHeap::new(),
            released: VecDeque::new(),
            lanes: Vec::new(),
            names: HashMap::new(),
            by_segment: BTreeMap::new(),
            octets: 0,
            active: 0,
            per_destination,
            total,
        }
    }

    /// Takes a message.
    pub fn insert(&mut self, id: MessageId, new: New) {
        let recipients: Vec<_> = new
            .recipients
            .into_iter()
            .map(|(to, status)| (self.lane(to), status))
            .collect();
        self.by_segment
            .entry(new.location.segment)
            .or_default()
            .insert(id);
        let entry = Entry {
            location: new.location,
            provenance: new.provenance,
            arrived: new.arrived,
            held: new.held,
            recipients,
            busy: Vec::new(),
            carried: false,
            changing: false,
        };
        self.octets += entry.octets();
        for to in entry.destinations() {
            self.due.extend(entry.next(to).map(|at| Reverse((at, id, to))));
        }
        self.entries.insert(id, entry);
    }

    fn lane(&mut self, destination: Destination) -> DestinationId {
        if let Some(known) = self.names.get(&destination) {
            return *known;
        }
        let id = DestinationId(u32::try_from(self.lanes.len()).unwrap_or(u32::MAX));
        self.names.insert(destination.clone(), id);
        self.lanes.push(Lane {
            destination,
            active: 0,
            waiting: VecDeque::new(),
        });
        id
    }

    /// What is to be tried next; `None` where nothing is due or all places are taken.
    pub fn next(&mut self, now: u64) -> Option<Job> {
        while self.active < self.total {
            let (id, to) = if let Some(released) = self.released.pop_front() {
                released
            } else {
                let Reverse((at, ..)) = self.due.peek()?;
                if *at > now {
                    return None;
                }
                let Reverse((_, id, to)) = self.due.pop()?;
                (id, to)
            };
            let Some(lane) = self.lanes.get_mut(to.0 as usize) else {
                continue;
            };
            let entry = self
                .entries
                .get_mut(&id)
                .filter(|entry| entry.rests() && !entry.held && !entry.busy.contains(&to));
            let recipients = entry.as_ref().map_or(Vec::new(), |entry| entry.due(to, now));
            let (Some(entry), false) = (entry, recipients.is_empty()) else {
                // It has been dealt with meanwhile: its place goes to the next that waits.
                self.released
                    .extend(lane.waiting.pop_front().map(|next| (next, to)));
                continue;
            };
            if lane.active >= self.per_destination {
                lane.waiting.push_back(id);
                continue;
            }
            lane.active += 1;
            self.active += 1;
            entry.busy.push(to);
            let destination = lane.destination.clone();
            return Some(Job {
                id,
                location: entry.location,
                arrived: entry.arrived,
                destination,
                to,
                recipients,
            });
        }
        None
    }

    /// When the next message is due.
    pub fn next_due(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Nothing waits beyond `latest`: what was to be tried later is due then. For a clock that was put back, so that mail
    /// does not wait until the old time comes again.
    pub fn not_after(&mut self, latest: u64) {
        for (id, entry) in &mut self.entries {
            for (to, status) in &mut entry.recipients {
                if let Status::Due { at, .. } = status
                    && *at > latest
                {
                    *at = latest;
                    self.due.push(Reverse((latest, *id, *to)));
                }
            }
        }
    }

    /// A job has ended with these news. True where the message is done and forgotten.
    pub fn finish(&mut self, id: MessageId, to: DestinationId, news: Vec<(u32, Status)>) -> bool {
        self.active = self.active.saturating_sub(1);
        if let Some(lane) = self.lanes.get_mut(to.0 as usize) {
            lane.active = lane.active.saturating_sub(1);
            if let Some(waiting) = lane.waiting.pop_front() {
                self.released.push_back((waiting, to));
            }
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.busy.retain(|busy| *busy != to);
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
                known.update(status);
            }
        }
        if entry.statuses().all(Status::is_final) {
            let segment = entry.location.segment;
            self.octets -= entry.octets();
            self.entries.remove(&id);
            self.leave(segment, id);
            return true;
        }
        false
    }

    /// Notes when a message is due, for all its destinations.
    fn remember(&mut self, id: MessageId) {
        let Some(entry) = self.entries.get(&id).filter(|entry| !entry.held) else {
            return;
        };
        for to in entry.destinations() {
            if !entry.busy.contains(&to) {
                self.due.extend(entry.next(to).map(|at| Reverse((at, id, to))));
            }
        }
    }

    /// Begins a change by the operator. `alone`: not while it is being tried.
    pub fn begin_change(&mut self, id: MessageId, alone: bool) -> Result<&Entry, Unready> {
        let entry = self.entries.get_mut(&id).ok_or(Unready::Unknown)?;
        if !entry.rests() {
            return Err(Unready::Soon);
        }
        if alone && !entry.busy.is_empty() {
            return Err(Unready::Tried);
        }
        entry.changing = true;
        Ok(entry)
    }

    /// The change has ended with these news; `held` where that changed. True where the message is done and forgotten.
    pub fn end_change(&mut self, id: MessageId, news: Vec<(u32, Status)>, held: Option<bool>) -> bool {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.changing = false;
            entry.held = held.unwrap_or(entry.held);
        }
        let done = self.update(id, news);
        self.remember(id);
        done
    }

    /// What waits for a later time is due now. Not recorded: after a restart the old time counts.
    pub fn retry(&mut self, id: MessageId, now: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            for (_, status) in &mut entry.recipients {
                if let Status::Due { at, .. } = status {
                    *at = now.min(*at);
                }
            }
        }
        self.remember(id);
    }

    /// Messages whose record is in `segment`.
    pub fn in_segment(&self, segment: u64) -> Vec<MessageId> {
        self.by_segment
            .get(&segment)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// Begins to carry a message over; `None` while it is being tried or carried.
    pub fn carry(&mut self, id: MessageId) -> Option<&Entry> {
        let entry = self.entries.get_mut(&id)?;
        if !entry.rests() || !entry.busy.is_empty() {
            return None;
        }
        entry.carried = true;
        Some(entry)
    }

    /// It is at a new place now; or, where `None`, still at the old one.
    pub fn carried(&mut self, id: MessageId, location: Option<Location>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.carried = false;
        let old = entry.location.segment;
        self.octets -= entry.octets();
        entry.location = location.unwrap_or(entry.location);
        self.octets += entry.octets();
        let new = entry.location.segment;
        self.remember(id);
        if new != old {
            self.leave(old, id);
            self.by_segment.entry(new).or_default().insert(id);
        }
    }

    fn leave(&mut self, segment: u64, id: MessageId) {
        if let Some(ids) = self.by_segment.get_mut(&segment) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_segment.remove(&segment);
            }
        }
    }

    /// Messages by id, oldest first; only those behind `after`.
    pub fn entries(&self, after: Option<MessageId>) -> impl Iterator<Item = (MessageId, &Entry)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries
            .range((from, Bound::Unbounded))
            .map(|(id, entry)| (*id, entry))
    }

    /// One message.
    pub fn entry(&self, id: MessageId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// The destination of this index.
    pub fn destination(&self, to: DestinationId) -> Option<&Destination> {
        self.lanes.get(to.0 as usize).map(|lane| &lane.destination)
    }

    /// Octets that the records of all messages take up in the spool.
    pub fn octets(&self) -> u64 {
        self.octets
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

impl Entry {
    fn destinations(&self) -> BTreeSet<DestinationId> {
        self.recipients
            .iter()
            .filter(|(_, status)| !status.is_final())
            .map(|(to, _)| *to)
            .collect()
    }

    /// When the first recipient at a destination is due.
    fn next(&self, to: DestinationId) -> Option<u64> {
        let times = self
            .recipients
            .iter()
            .filter(|(other, _)| *other == to)
            .filter_map(|(_, status)| match status {
                Status::Due { at, .. } => Some(*at),
                _ => None,
            });
        times.min()
    }

    fn due(&self, to: DestinationId, now: u64) -> Vec<(u32, u32)> {
        (0..)
            .zip(&self.recipients)
            .filter_map(|(index, (other, status))| match status {
                Status::Due { at, attempts, .. } if *other == to && *at <= now => Some((index, *attempts)),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
