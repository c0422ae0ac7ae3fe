//! Keeping the spool small: segments go oldest first, as soon as nothing in them is wanted. Where a few messages that
//! wait long hold up a spool that is mostly dead, they are appended again, as they stand now, and their old segment goes.
//! So the spool stays within a small multiple of what waits, whatever waits longest.

use std::fmt::Display;
use std::sync::Arc;
use std::time::SystemTime;

use postern_control::EventKind;
use tokio::sync::mpsc::UnboundedSender;

use super::damage::Lost;
use super::job::{Worker, unharmed};
use super::manager::Command;
use super::notice::GivenUp;
use super::schedule::Schedule;
use super::store::{DAMAGED_KEPT, Removed, Store, message_record};
use crate::events::unix_millis;
use crate::spool::hold::Standing;
use crate::spool::{Location, MessageId, Status};

/// Messages carried over at a time.
const BATCH: usize = 64;

/// Segments removed at a time: each costs a flush, and the manager does nothing else meanwhile.
const REMOVALS: usize = 8;

/// One step: removes what can go, or begins to carry messages over, and says how many. `settled` is what
/// [`Store::settled_below`] said before the schedule learned of all messages that it has been told of.
pub fn step(
    schedule: &mut Schedule,
    worker: &Arc<Worker>,
    manager: &UnboundedSender<Command>,
    settled: u64,
) -> usize {
    let (mut begun, mut removals) = (0, 0);
    while let Some(oldest) = worker.store.oldest(settled) {
        if !schedule.needs(oldest) {
            removals += 1;
            if removals > REMOVALS {
                break;
            }
            match worker.store.remove(oldest) {
                Ok(removed) => tell(worker, removed),
                Err(error) => {
                    worker.events.warn(error.to_string());
                    break;
                }
            }
            continue;
        }
        if mostly_dead(schedule, &worker.store) {
            let now = unix_millis(SystemTime::now());
            let live = schedule.in_segment(oldest);
            let readable = live.filter(|id| worker.unreadable.may_read(*id, now));
            for id in readable.take(BATCH).collect::<Vec<_>>() {
                begun += usize::from(carry(schedule, worker, manager, id));
            }
        }
        break;
    }
    begun
}

/// What was damaged is kept, but not without end.
fn tell(worker: &Worker, removed: Removed) {
    if let Some(aside) = removed.aside {
        worker.events.warn(format!(
            "a damaged segment of the spool is kept as {}: all that could be read in it is done or has been copied",
            aside.display()
        ));
    }
    for dropped in removed.dropped {
        worker.events.warn(format!(
            "the damaged segment {} was deleted, for {DAMAGED_KEPT} newer ones are kept",
            dropped.display()
        ));
    }
}

fn mostly_dead(schedule: &Schedule, store: &Store) -> bool {
    store.octets() > 2 * schedule.octets() + store.slack()
}

/// How a message stands, which its old record does not say.
struct Stands {
    statuses: Vec<Status>,
    held: bool,
    standing: Option<Standing>,
}

/// Why a message was not carried over.
enum NotCopied {
    /// It cannot be read.
    Lost(Lost),
    /// It could not be written.
    Other(anyhow::Error),
}

/// Appends a message again with the statuses it has now. While that is under way it is not tried, so that no outcome
/// can come between. What cannot be read any more is given up, for it would keep the spool from shrinking for ever. False
/// where the message is just being tried or changed.
fn carry(
    schedule: &mut Schedule,
    worker: &Arc<Worker>,
    manager: &UnboundedSender<Command>,
    id: MessageId,
) -> bool {
    let Some(entry) = schedule.carry(id) else {
        return false;
    };
    let (location, held, waiting) = (entry.location, entry.held, entry.waiting());
    let now_stands = Stands {
        statuses: entry.statuses().cloned().collect(),
        held,
        standing: worker.hold.standing(id),
    };
    let silent = matches!(now_stands.standing, Some(Standing::Bad { .. }));
    let (worker, manager) = (worker.clone(), manager.clone());
    tokio::spawn(async move {
        let doer = worker.clone();
        let copy = tokio::spawn(async move { copy(&doer, id, location, now_stands).await });
        let ended = copy
            .await
            .unwrap_or_else(|fault| Err(NotCopied::Other(fault.into())));
        let command = match ended {
            Ok(place) => Command::Carried(id, Some(place)),
            Err(NotCopied::Lost(lost)) if lost.for_good => {
                let giver = worker.clone();
                let now = unix_millis(SystemTime::now());
                let work = async move {
                    giver
                        .give_up(id, location, GivenUp::lost(waiting, silent), now)
                        .await
                };
                Command::GivenUp(Box::new(worker.see_through(id, work).await))
            }
            Err(NotCopied::Lost(lost)) => not_carried(&worker, id, &lost),
            Err(NotCopied::Other(error)) => not_carried(&worker, id, &error),
        };
        let _ = manager.send(command);
    });
    true
}

fn not_carried(worker: &Worker, id: MessageId, why: &dyn Display) -> Command {
    let text = format!("it could not be carried over and stays where it is: {why}");
    let kind = EventKind::Warning { text };
    let _ = unharmed(|| worker.events.emit(None, Some(&id.to_string()), kind));
    Command::Carried(id, None)
}

async fn copy(
    worker: &Arc<Worker>,
    id: MessageId,
    from: Location,
    now_stands: Stands,
) -> Result<Location, NotCopied> {
    let read = worker.read(id, from).await.map_err(NotCopied::Lost)?;
    let stored = read.content.map_err(NotCopied::Lost)?;
    let mut message = read.message;
    message.statuses = now_stands.statuses;
    message.held = now_stands.held;
    if let Some(hold) = &mut message.hold {
        hold.standing = now_stands.standing;
    }
    let append = async {
        let record = message_record(id, &message, stored.body())?;
        let places = worker.store.append_own(vec![record]).await?;
        places
            .first()
            .copied()
            .ok_or_else(|| anyhow::anyhow!("the spool gave no place"))
    };
    append.await.map_err(NotCopied::Other)
}
