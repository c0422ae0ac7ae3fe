//! A message in the schedule: how its recipients stand, and what is under way with it.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::slice;

use super::priority::Sender;
use super::provenance::Provenance;
use super::schedule::DestinationId;
use crate::spool::hold::Standing;
use crate::spool::recovery::Kept;
use crate::spool::{Location, Status};

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
    pub(super) bulk: bool,
    pub(super) sender: Sender,
    pub(super) recipients: Recipients,
    /// What happens with it just now. Apart, because most messages only wait, and there may be a million of them.
    activity: Option<Box<Activity>>,
}

/// Recipients with the indexes of their destinations, in the envelope's order. Most messages have one, which needs no
/// allocation of its own.
#[derive(Debug)]
pub(super) enum Recipients {
    One((DestinationId, Status)),
    Other(Box<[(DestinationId, Status)]>),
}

impl From<Vec<(DestinationId, Status)>> for Recipients {
    fn from(mut all: Vec<(DestinationId, Status)>) -> Self {
        match (all.pop(), all.is_empty()) {
            (Some(one), true) => Self::One(one),
            (last, _) => {
                all.extend(last);
                Self::Other(all.into())
            }
        }
    }
}

impl Deref for Recipients {
    type Target = [(DestinationId, Status)];
    fn deref(&self) -> &Self::Target {
        match self {
            Self::One(one) => slice::from_ref(one),
            Self::Other(all) => all,
        }
    }
}

impl DerefMut for Recipients {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::One(one) => slice::from_mut(one),
            Self::Other(all) => all,
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Activity {
    /// Destinations that are being tried.
    busy: Vec<DestinationId>,
    /// Destinations at which it is ready.
    ready: Vec<DestinationId>,
    /// Destinations that have not been tried since the operator asked for it.
    wanted: Vec<DestinationId>,
    /// What is being written of it.
    writing: Writing,
    /// How it stands in the hold, between its recovery and [`super::hold::Holding`]'s.
    standing: Option<Standing>,
}

/// What is being written of a message. Until that is done nothing may be tried, and nothing else be written but outcomes of
/// what is being tried: records of one message must be in the order in which they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Writing {
    /// Nothing.
    #[default]
    Nothing,
    /// All of it, to another place.
    Copy,
    /// A change by the operator or by time.
    Change,
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
    /// Mass mail by its header or its recipients.
    pub bulk: bool,
    /// Whose turn it takes.
    pub sender: Sender,
    /// Recipients with the indexes of their destinations, in the envelope's order.
    pub recipients: Vec<(DestinationId, Status)>,
}

impl From<New> for Entry {
    fn from(new: New) -> Self {
        Self {
            location: new.location,
            provenance: new.provenance,
            arrived: new.arrived,
            held: new.held,
            bulk: new.bulk,
            sender: new.sender,
            recipients: new.recipients.into(),
            activity: None,
        }
    }
}

/// As it is read from the spool.
impl Kept for Entry {
    fn move_to(&mut self, location: Location) {
        self.location = location;
    }

    fn hold(&mut self, held: bool) {
        self.held = held;
    }

    fn stand(&mut self, standing: Option<Standing>) {
        if standing.is_some() || self.activity.is_some() {
            self.change(|activity| activity.standing = standing);
        }
    }

    fn update(&mut self, recipient: usize, news: Status) {
        if let Some((_, status)) = self.recipients.get_mut(recipient) {
            status.update(news);
        }
    }

    fn is_done(&self) -> bool {
        self.statuses().all(Status::is_final)
    }
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

    /// Whether its recipients at this destination may be tried.
    pub(super) fn may_try(&self, to: DestinationId) -> bool {
        self.rests() && !self.held && !self.is_busy(to)
    }

    /// Nothing is being written of it.
    pub(super) fn rests(&self) -> bool {
        self.activity
            .as_ref()
            .is_none_or(|activity| activity.writing == Writing::Nothing)
    }

    /// Some of its recipients are being tried.
    pub(super) fn is_tried(&self) -> bool {
        self.activity
            .as_ref()
            .is_some_and(|activity| !activity.busy.is_empty())
    }

    /// Its recipients at this destination are being tried.
    pub(super) fn is_busy(&self, to: DestinationId) -> bool {
        self.activity
            .as_ref()
            .is_some_and(|activity| activity.busy.contains(&to))
    }

    /// It waits for its turn at this destination.
    pub(super) fn is_ready(&self, to: DestinationId) -> bool {
        self.activity
            .as_ref()
            .is_some_and(|activity| activity.ready.contains(&to))
    }

    /// The operator wants it tried there, and it has not been since.
    pub(super) fn is_wanted(&self, to: DestinationId) -> bool {
        self.activity
            .as_ref()
            .is_some_and(|activity| activity.wanted.contains(&to))
    }

    /// It is tried at this destination, or is no more.
    pub(super) fn set_busy(&mut self, to: DestinationId, busy: bool) {
        self.change(|activity| mark(&mut activity.busy, to, busy));
    }

    /// It waits for its turn at this destination, or does no more.
    pub(super) fn set_ready(&mut self, to: DestinationId, ready: bool) {
        self.change(|activity| mark(&mut activity.ready, to, ready));
    }

    /// The operator wants it tried there, or it is tried.
    pub(super) fn set_wanted(&mut self, to: DestinationId, wanted: bool) {
        self.change(|activity| mark(&mut activity.wanted, to, wanted));
    }

    /// Something is written of it, or nothing more.
    pub(super) fn set_writing(&mut self, writing: Writing) {
        self.change(|activity| activity.writing = writing);
    }

    /// How it was found to stand in the hold, once.
    pub(super) fn take_standing(&mut self) -> Option<Standing> {
        let mut standing = None;
        if self.activity.is_some() {
            self.change(|activity| standing = activity.standing.take());
        }
        standing
    }

    fn change(&mut self, change: impl FnOnce(&mut Activity)) {
        let mut activity = self.activity.take().unwrap_or_default();
        change(&mut activity);
        self.activity = (*activity != Activity::default()).then_some(activity);
    }

    /// Destinations of all its recipients, done or not.
    pub(super) fn lanes(&self) -> BTreeSet<DestinationId> {
        self.recipients.iter().map(|(to, _)| *to).collect()
    }

    /// Destinations of the recipients that are not done.
    pub(super) fn destinations(&self) -> BTreeSet<DestinationId> {
        self.recipients
            .iter()
            .filter(|(_, status)| !status.is_final())
            .map(|(to, _)| *to)
            .collect()
    }

    /// When the first recipient at a destination is due.
    pub(super) fn next(&self, to: DestinationId) -> Option<u64> {
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

    /// Recipients at a destination that are due, with their tries so far; those with the fewest first.
    pub(super) fn due(&self, to: DestinationId, now: u64) -> Vec<(u32, u32)> {
        let mut due: Vec<(u32, u32)> = (0..)
            .zip(&*self.recipients)
            .filter_map(|(index, (other, status))| match status {
                Status::Due { at, attempts, .. } if *other == to && *at <= now => Some((index, *attempts)),
                _ => None,
            })
            .collect();
        due.sort_by_key(|(_, attempts)| *attempts);
        due
    }
}

fn mark(places: &mut Vec<DestinationId>, to: DestinationId, present: bool) {
    places.retain(|place| *place != to);
    if present {
        places.push(to);
    }
}
