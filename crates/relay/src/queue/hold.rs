//! Messages in the hold, and their way out of it: which are to be scanned and when, how much room there is, and what becomes of
//! them in the spool.
//!
//! An index like the schedule, rebuilt at every start; what counts is in the spool ([`crate::spool::hold`]). Room is bounded
//! in messages and octets, those in quarantine included: whatever is held may come to rest there.

mod judgement;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_control::{Change, QueuedHold};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::provenance::Provenance;
use crate::config::Hybrid;
use crate::handover::hold::{AT_A_TIME, PATIENCE};
use crate::metrics::{Family, Meter, approximate};
use crate::spool::MessageId;
use crate::spool::hold::Standing;
pub use judgement::{Asker, Found, Judged, Judgement};

/// Milliseconds until a message for which a scanner did not answer is scanned again, the first time; then twice as long each time.
const FIRST_WAIT: u64 = 10_000;
/// And at most.
const LONGEST_WAIT: u64 = 300_000;
/// Scans that a scanner answered and did not get to the end of, before the message comes into quarantine.
const UNFINISHED: u32 = 3;
/// Milliseconds until a message that could not be brought into quarantine is looked at again, the first time; then twice as long
/// each time.
const LOOK_AGAIN: u64 = 10_000;
/// How often that is doubled.
const LOOKS: u32 = 6;

/// All messages in the hold.
pub struct Holding {
    settings: Hybrid,
    /// Milliseconds after which nobody waits for a scan's answer any more.
    loan: u64,
    all: Mutex<BTreeMap<MessageId, One>>,
    /// When somebody asked last for what is to be scanned, or this began.
    asked: Mutex<BTreeMap<Provenance, Instant>>,
    began: Instant,
    changed: Notify,
}

#[derive(Debug)]
struct One {
    provenance: Provenance,
    octets: u64,
    standing: Standing,
    /// When it is to be scanned, milliseconds since 1970.
    next: u64,
    /// Scans without an answer, since the start.
    tries: u32,
    /// Of these, those that a scanner answered and did not get to the end of.
    unfinished: u32,
    /// It is being scanned, since then, milliseconds since 1970.
    lent: Option<u64>,
    /// The schedule has it.
    placed: bool,
    /// Its expiry is not looked at before, milliseconds since 1970.
    look: u64,
    /// How often that was put off.
    looks: u32,
    /// Why its last scan had no answer.
    why: Option<Box<str>>,
}

impl Holding {
    /// Empty. `scan`: seconds that a scanner has for a message at most.
    pub fn new(settings: Hybrid, scan: u64) -> Self {
        Self {
            settings,
            loan: scan.saturating_mul(2000),
            all: Mutex::default(),
            asked: Mutex::default(),
            began: Instant::now(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MessageId, One>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps room for a message that is about to be written; false where there is none.
    pub fn reserve(&self, id: MessageId, provenance: Provenance, octets: u64, now: u64) -> bool {
        let mut all = self.lock();
        let used: u64 = all.values().map(|one| one.octets).sum();
        if all.len() >= self.settings.max_messages || used + octets > self.settings.max_octets {
            return false;
        }
        let standing = Standing::Unscanned { since: now };
        let one = One {
            next: now,
            placed: false,
            ..One::new(provenance, octets, standing)
        };
        all.insert(id, one);
        true
    }

    /// The schedule has taken a message that is in the hold. One of an earlier process has its room, whatever the bounds are.
    pub fn place(&self, id: MessageId, provenance: Provenance, octets: u64, standing: Standing) {
        let one = One::new(provenance, octets, standing);
        self.lock().entry(id).or_insert(one).placed = true;
        self.changed.notify_waiters();
    }

    /// It is released, done, or was never written.
    pub fn forget(&self, id: MessageId) {
        self.lock().remove(&id);
    }

    /// How a message stands; `None` where it is not in the hold.
    pub fn standing(&self, id: MessageId) -> Option<Standing> {
        self.lock().get(&id).map(|one| one.standing.clone())
    }

    fn stand(&self, id: MessageId, standing: Standing) {
        if let Some(one) = self.lock().get_mut(&id) {
            one.standing = standing;
            (one.look, one.looks) = (0, 0);
        }
        self.scan_now(id);
    }

    /// Lends a message that is to be scanned, of those that came through this socket and for which nothing is being written
    /// (`rests`): of those that were tried least often the one that has waited longest. At most [`AT_A_TIME`] are out.
    pub fn lend(
        &self,
        provenance: Provenance,
        now: u64,
        rests: impl Fn(MessageId) -> bool,
    ) -> Option<MessageId> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert(provenance, Instant::now());
        drop(asked);
        let mut all = self.lock();
        let through = |one: &One| one.provenance == provenance;
        let out = all.values().filter(|one| through(one) && self.is_out(one, now));
        if out.count() >= AT_A_TIME {
            return None;
        }
        let due = all.iter_mut().filter(|(id, one)| {
            // The clock may have been put back.
            let is_due = one.next <= now || one.next > now.saturating_add(LONGEST_WAIT);
            // What is to come into quarantine is kept from it by nobody who asks for it again and again.
            let in_time = self.over_at(one, now).is_some_and(|at| at > now);
            through(one) && one.placed && is_due && in_time && !self.is_out(one, now) && rests(**id)
        });
        // Whoever has had one until now has not said a word.
        let tries = |one: &One| one.tries + u32::from(one.lent.is_some());
        let (id, one) = due.min_by_key(|(_, one)| (tries(one), one.next))?;
        one.tries = tries(one);
        one.lent = Some(now);
        Some(*id)
    }

    /// It is not being scanned any more.
    pub fn give_back(&self, id: MessageId) {
        if let Some(one) = self.lock().get_mut(&id) {
            one.lent = None;
        }
        self.changed.notify_waiters();
    }

    /// The same where a scanner did not answer, or whoever had it ended without a word: it is to be scanned again later.
    pub fn put_off(&self, id: MessageId, why: &str, now: u64) {
        if let Some(one) = self.lock().get_mut(&id) {
            let wait = FIRST_WAIT.saturating_mul(1 << one.tries.min(16));
            one.next = now.saturating_add(wait.min(LONGEST_WAIT));
            one.tries += 1;
            one.why = Some(why.into());
        }
        self.give_back(id);
    }

    /// A scanner answered, and had not got to the end of the message. True where that was so often that it is left to the operator.
    pub fn unfinished(&self, id: MessageId) -> bool {
        self.lock().get_mut(&id).is_some_and(|one| {
            one.unfinished += 1;
            one.unfinished >= UNFINISHED
        })
    }

    /// When the next message that came through this socket may be lent, milliseconds since 1970.
    pub fn next(&self, provenance: Provenance, now: u64) -> Option<u64> {
        let all = self.lock();
        let of = all.values().filter(|one| one.provenance == provenance);
        let (out, rest): (Vec<_>, Vec<_>) = of.partition(|one| self.is_out(one, now));
        let full = out.len() >= AT_A_TIME;
        let waiting = rest
            .into_iter()
            .filter(|one| !full && matches!(one.standing, Standing::Unscanned { .. }));
        let back = out.iter().filter_map(|one| self.back_at(one));
        waiting.map(|one| one.next).chain(back).min()
    }

    /// Why a message has not been scanned, as far as is known since the start.
    pub fn why(&self, id: MessageId) -> Option<Box<str>> {
        let why = self.lock().get(&id)?.why.clone();
        if self.is_asked_for(id) {
            why
        } else {
            Some("no scanner asks for it".into())
        }
    }

    /// Whether somebody asks for what came through this socket, to scan it.
    pub fn is_asked_for(&self, id: MessageId) -> bool {
        let provenance = self.lock().get(&id).map(|one| one.provenance);
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let last = provenance.and_then(|provenance| asked.get(&provenance).copied());
        // Whoever scans just now asks when he has ended.
        let silence = 2 * PATIENCE + Duration::from_millis(self.loan);
        last.unwrap_or(self.began).elapsed() < silence
    }

    /// Ends when there may be something to scan that was not there when this was called.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// A message is to be scanned before all others.
    pub fn scan_now(&self, id: MessageId) {
        if let Some(one) = self.lock().get_mut(&id) {
            (one.next, one.tries, one.unfinished) = (0, 0, 0);
        }
        self.changed.notify_waiters();
    }

    /// Messages whose time in the hold is over.
    pub fn expired(&self, now: u64) -> Vec<MessageId> {
        let all = self.lock();
        let over = all
            .iter()
            .filter(|(_, one)| one.placed && self.over_at(one, now).is_some_and(|at| at <= now));
        over.map(|(id, _)| *id).collect()
    }

    /// When the next one's is, milliseconds since 1970.
    pub fn next_expiry(&self, now: u64) -> Option<u64> {
        let all = self.lock();
        let waiting = all.values().filter(|one| one.placed);
        waiting.filter_map(|one| self.over_at(one, now)).min()
    }

    /// It is being brought into quarantine; where that cannot be done, it is looked at again later, and then later still.
    pub fn look_later(&self, id: MessageId, now: u64) {
        if let Some(one) = self.lock().get_mut(&id) {
            one.look = now.saturating_add(LOOK_AGAIN << one.looks.min(LOOKS));
            one.looks += 1;
        }
    }

    /// The clock has been put back to `now`: nothing in the hold is younger, and nothing waits for the old time.
    pub fn not_after(&self, now: u64) {
        for one in self.lock().values_mut() {
            if let Standing::Unscanned { since } = &mut one.standing {
                *since = now.min(*since);
            }
            one.next = one.next.min(now.saturating_add(LONGEST_WAIT));
            (one.look, one.looks) = (0, 0);
        }
    }

    fn is_out(&self, one: &One, now: u64) -> bool {
        // A loan of the future is one of before the clock was put back.
        one.lent.is_some_and(|since| since <= now) && self.back_at(one).is_some_and(|at| now < at)
    }

    fn back_at(&self, one: &One) -> Option<u64> {
        one.lent.map(|since| since.saturating_add(self.loan))
    }

    /// When its time is over; not while it is being scanned.
    fn over_at(&self, one: &One, now: u64) -> Option<u64> {
        let Standing::Unscanned { since } = one.standing else {
            return None;
        };
        let lifetime = self.settings.lifetime.saturating_mul(1000);
        let back = self.back_at(one).filter(|_| self.is_out(one, now));
        Some(
            since
                .saturating_add(lifetime)
                .max(one.look)
                .max(back.unwrap_or(0)),
        )
    }

    /// Sets the figures.
    pub fn measure(&self, meter: &Meter) {
        let all = self.lock();
        for (state, wanted) in [("unscanned", true), ("quarantined", false)] {
            let of = || {
                all.values()
                    .filter(|one| matches!(one.standing, Standing::Unscanned { .. }) == wanted)
            };
            meter.set(Family::HoldMessages, &[state], approximate(of().count() as u64));
            let octets = of().map(|one| one.octets).sum();
            meter.set(Family::HoldOctets, &[state], approximate(octets));
        }
    }
}

impl One {
    /// In the schedule, and to be scanned at once.
    fn new(provenance: Provenance, octets: u64, standing: Standing) -> Self {
        Self {
            provenance,
            octets,
            standing,
            next: 0,
            tries: 0,
            unfinished: 0,
            lent: None,
            placed: true,
            look: 0,
            looks: 0,
            why: None,
        }
    }
}

/// How a message stands, for the operator. `why`: what [`Holding::why`] says.
pub fn told(standing: &Standing, why: Option<Box<str>>) -> QueuedHold {
    let why = why.map(Into::into);
    match standing {
        Standing::Unscanned { .. } => QueuedHold::Unscanned { why },
        Standing::Expired => QueuedHold::Expired { why },
        Standing::Bad { reason } => QueuedHold::Bad {
            reason: reason.to_string(),
        },
    }
}

/// What an operator's change means for a message in the hold.
pub enum Means {
    /// What it means for any other that is held.
    Same,
    /// It is scanned now, or as soon as one who scans asks.
    ScanNow,
    /// It goes on although it was found to be bad.
    LetGo,
    /// It cannot be done.
    Refused(String),
}

/// Nothing is delivered unscanned, and nobody hears of what was found late.
pub fn means(change: Change, standing: &Standing) -> Means {
    use Change::{Bounce, Cancel, Hold, Release, ReleaseBad, Retry};
    let refused = |why: &str| Means::Refused(why.into());
    match (change, standing) {
        (Bounce, _) => {
            refused("what is held for its scan or in quarantine is never bounced; cancel it without --bounce")
        }
        (Cancel, _) | (Hold, Standing::Expired | Standing::Bad { .. }) => Means::Same,
        (ReleaseBad, Standing::Bad { .. }) => Means::LetGo,
        // Behind its scan it goes on by itself.
        (Release | Retry, Standing::Unscanned { .. }) | (Release | ReleaseBad | Retry, Standing::Expired) => {
            Means::ScanNow
        }
        (ReleaseBad, Standing::Unscanned { .. }) => refused(
            "it has not been scanned, and nothing passes unscanned: it goes on by itself when the scanners have answered",
        ),
        (Hold, Standing::Unscanned { .. }) => {
            refused("it waits for its scan and would go on behind it; hold it when it has been scanned")
        }
        (Release, Standing::Bad { reason }) => Means::Refused(format!(
            "IT WAS FOUND TO BE BAD: {reason}; if it is to be delivered all the same, name its id and add --found-bad"
        )),
        (Retry, Standing::Bad { .. }) => refused("it is in quarantine"),
    }
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
