//! Messages in the hold, and their way out of it: which are to be scanned and when, how much room there is, and what becomes of
//! them in the spool.
//!
//! An index like the schedule, rebuilt at every start; what counts is in the spool ([`crate::spool::hold`]). Room is bounded
//! in messages and octets, those in quarantine included: whatever is held may come to rest there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postern_control::{Change, EventKind, QueuedHold};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};

use super::change::Order;
use super::job::Worker;
use super::provenance::Provenance;
use super::store::message_record;
use crate::config::Hybrid;
use crate::metrics::{Family, Meter, approximate};
use crate::spool::hold::Standing;
use crate::spool::{Location, MessageId, StoredOutcome};

/// Milliseconds until a message for which a scanner did not answer is scanned again, the first time; then twice as long each time.
const FIRST_WAIT: u64 = 10_000;
/// And at most.
const LONGEST_WAIT: u64 = 300_000;

/// All messages in the hold.
pub struct Holding {
    settings: Hybrid,
    all: Mutex<BTreeMap<MessageId, One>>,
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
    /// It is being scanned.
    lent: bool,
    /// The schedule has it.
    placed: bool,
    /// Its expiry is not looked at before, milliseconds since 1970.
    look: u64,
}

impl Holding {
    /// Empty.
    pub fn new(settings: Hybrid) -> Self {
        Self {
            settings,
            all: Mutex::default(),
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
        let one = One {
            provenance,
            octets,
            standing: Standing::Unscanned { since: now },
            next: now,
            tries: 0,
            lent: false,
            placed: false,
            look: 0,
        };
        all.insert(id, one);
        true
    }

    /// The schedule has taken a message that is in the hold. One of an earlier process has its room, whatever the bounds are.
    pub fn place(&self, id: MessageId, provenance: Provenance, octets: u64, standing: Standing) {
        let one = One {
            provenance,
            octets,
            standing,
            next: 0,
            tries: 0,
            lent: false,
            placed: true,
            look: 0,
        };
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
        }
        self.scan_now(id);
    }

    /// Lends the message that has waited longest for its scan, of those that came through this socket.
    pub fn lend(&self, provenance: Provenance, now: u64) -> Option<MessageId> {
        let mut all = self.lock();
        let due = all.iter_mut().filter(|(_, one)| {
            // The clock may have been put back.
            let is_due = one.next <= now || one.next > now.saturating_add(LONGEST_WAIT);
            one.is_to_be_scanned() && one.placed && one.provenance == provenance && is_due
        });
        let (id, one) = due.min_by_key(|(_, one)| one.next)?;
        one.lent = true;
        Some(*id)
    }

    /// It was not scanned, and is to be scanned again: at once, or later where a scanner did not answer.
    pub fn give_back(&self, id: MessageId, answered: bool, now: u64) {
        if let Some(one) = self.lock().get_mut(&id) {
            one.lent = false;
            if !answered {
                let wait = FIRST_WAIT.saturating_mul(1 << one.tries.min(16));
                one.next = now.saturating_add(wait.min(LONGEST_WAIT));
                one.tries += 1;
            }
        }
        self.changed.notify_waiters();
    }

    /// When the next message that came through this socket is to be scanned, milliseconds since 1970.
    pub fn next(&self, provenance: Provenance) -> Option<u64> {
        let all = self.lock();
        let waiting = all
            .values()
            .filter(|one| one.is_to_be_scanned() && one.provenance == provenance);
        waiting.map(|one| one.next).min()
    }

    /// Ends when there may be something to scan that was not there when this was called.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// A message is to be scanned before all others.
    pub fn scan_now(&self, id: MessageId) {
        if let Some(one) = self.lock().get_mut(&id) {
            (one.next, one.tries) = (0, 0);
        }
        self.changed.notify_waiters();
    }

    /// Messages whose time in the hold is over.
    pub fn expired(&self, now: u64) -> Vec<MessageId> {
        let all = self.lock();
        let over = all
            .iter()
            .filter(|(_, one)| !one.lent && one.placed && self.over_at(one).is_some_and(|at| at <= now));
        over.map(|(id, _)| *id).collect()
    }

    /// When the next one's is, milliseconds since 1970.
    pub fn next_expiry(&self) -> Option<u64> {
        let all = self.lock();
        let waiting = all.values().filter(|one| !one.lent && one.placed);
        waiting.filter_map(|one| self.over_at(one)).min()
    }

    /// It could not be brought into quarantine just now.
    pub fn look_later(&self, id: MessageId, at: u64) {
        if let Some(one) = self.lock().get_mut(&id) {
            one.look = at;
        }
    }

    fn over_at(&self, one: &One) -> Option<u64> {
        match one.standing {
            Standing::Unscanned { since } => Some(
                since
                    .saturating_add(self.settings.lifetime.saturating_mul(1000))
                    .max(one.look),
            ),
            Standing::Expired | Standing::Bad { .. } => None,
        }
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
    fn is_to_be_scanned(&self) -> bool {
        !self.lent && matches!(self.standing, Standing::Unscanned { .. })
    }
}

/// How a message stands, for the operator.
pub fn told(standing: &Standing) -> QueuedHold {
    match standing {
        Standing::Unscanned { .. } => QueuedHold::Unscanned,
        Standing::Expired => QueuedHold::Expired,
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
        (Cancel, _)
        | (Hold, Standing::Expired | Standing::Bad { .. })
        | (ReleaseBad, Standing::Bad { .. }) => Means::Same,
        (Retry, Standing::Unscanned { .. }) | (Release | ReleaseBad | Retry, Standing::Expired) => {
            Means::ScanNow
        }
        (Release | ReleaseBad, Standing::Unscanned { .. }) => refused(
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

/// What came of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It may go on, with these header fields behind our others.
    Clean(String),
    /// It is to stand so from now on.
    Stands(Standing),
}

/// What is to become of a message in the hold.
pub struct Judgement {
    /// Which.
    pub id: MessageId,
    /// What.
    pub found: Found,
    /// Who wants it.
    pub asker: Asker,
}

/// Who has a message judged.
pub enum Asker {
    /// Its time is over.
    Time,
    /// Who scanned it.
    Scanner(oneshot::Sender<Result<(), String>>),
    /// The operator.
    Operator(Order),
}

impl Asker {
    /// Whether it was done, for those who wait to hear.
    pub fn answer(self, result: Result<(), String>) {
        let (Self::Scanner(answer) | Self::Operator(Order { answer, .. })) = self else {
            return;
        };
        let _ = answer.send(result);
    }
}

/// A judgement that is on disk, or could not be written.
pub struct Judged {
    /// What it was.
    pub judgement: Judgement,
    /// The place of the record without a hold, or none where it stays in it.
    pub written: Result<Option<Location>, String>,
}

impl Worker {
    /// Makes a judgement durable. What is clean is written anew, with the header fields of its
    /// scan and not held: one record.
    pub async fn record_judgement(
        self: &Arc<Self>,
        id: MessageId,
        from: Location,
        found: &Found,
    ) -> anyhow::Result<Option<Location>> {
        let fields = match found {
            Found::Stands(standing) => {
                let outcome = StoredOutcome {
                    held: Some(true),
                    standing: Some(standing.clone()),
                    ..StoredOutcome::default()
                };
                return self.record(id, "", None, &outcome).await.map(|_| None);
            }
            Found::Clean(fields) => fields,
        };
        let read = self.read(id, from).await?;
        let stored = read.content?;
        let mut message = read.message;
        let mut at = 0;
        if let Some(hold) = &mut message.hold {
            (at, hold.standing) = (hold.unscanned.fields, None);
        }
        message.held = false;
        message.envelope.size += fields.len() as u64;
        let record = message_record(id, &message, stored.body_with(at, fields.as_bytes()))?;
        let places = self.store.append_own(vec![record]).await?;
        let place = places.first().copied();
        place
            .map(Some)
            .ok_or_else(|| anyhow::anyhow!("the spool gave no place"))
    }

    /// Takes a judgement over that is durable, and tells of it.
    pub fn tell_judgement(&self, id: MessageId, found: &Found) {
        let (state, detail) = match found {
            Found::Clean(_) => ("released", String::new()),
            Found::Stands(Standing::Unscanned { .. }) => ("again", String::new()),
            Found::Stands(Standing::Expired) => (
                "expired",
                "no scanner has answered in the hold's lifetime; it is in quarantine".into(),
            ),
            Found::Stands(Standing::Bad { reason }) => ("quarantined", reason.to_string()),
        };
        match found {
            Found::Clean(_) => self.hold.forget(id),
            Found::Stands(standing) => self.hold.stand(id, standing.clone()),
        }
        self.tell_hold(None, id, state, detail);
    }

    /// A warning about a message.
    pub(super) fn warn_of(&self, id: MessageId, text: &str) {
        let kind = EventKind::Warning { text: text.into() };
        self.events.emit(None, Some(&id.to_string()), kind);
    }

    /// The event of something that happens in the hold.
    pub(super) fn tell_hold(&self, trace: Option<&str>, id: MessageId, state: &str, detail: String) {
        let state = state.to_owned();
        let kind = EventKind::Hold { state, detail };
        self.events.emit(trace, Some(&id.to_string()), kind);
    }
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
