//! Keeping the spool small: segments go oldest first, as soon as nothing in them is wanted. Where a few messages that
//! wait long hold up a spool that is mostly dead, they are appended again, as they stand now, and their old segment goes.
//! So the spool stays within a small multiple of what waits, whatever waits longest.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::job::Worker;
use super::manager::Command;
use super::schedule::Schedule;
use super::store::{Store, message_record};
use crate::spool::{Location, MessageId, Status};

/// Messages carried over at a time.
const BATCH: usize = 64;

/// One step: removes what can go, or begins to carry messages over. `settled` is what [`Store::settled_below`] said before
/// the schedule learned of all messages that it has been told of.
pub fn step(schedule: &mut Schedule, worker: &Arc<Worker>, manager: &UnboundedSender<Command>, settled: u64) {
    while let Some(oldest) = worker.store.oldest(settled) {
        let live = schedule.in_segment(oldest);
        if live.is_empty() {
            if let Err(error) = worker.store.remove(oldest) {
                return worker.events.warn(error.to_string());
            }
            continue;
        }
        if mostly_dead(schedule, &worker.store) {
            for id in live.into_iter().take(BATCH) {
                carry(schedule, worker, manager, id);
            }
        }
        return;
    }
}

fn mostly_dead(schedule: &Schedule, store: &Store) -> bool {
    store.octets() > 2 * schedule.octets() + store.slack()
}

/// Appends a message again with the statuses it has now. While that is under way it is not tried, so that no outcome
/// can come between.
fn carry(schedule: &mut Schedule, worker: &Arc<Worker>, manager: &UnboundedSender<Command>, id: MessageId) {
    let Some(entry) = schedule.carry(id) else { return };
    let (location, held) = (entry.location, entry.held);
    let statuses = entry.statuses().cloned().collect();
    let (worker, manager) = (worker.clone(), manager.clone());
    tokio::spawn(async move {
        let place = copy(&worker, id, location, statuses, held).await;
        if let Err(error) = &place {
            worker
                .events
                .warn(format!("message {id} could not be carried over: {error}"));
        }
        let _ = manager.send(Command::Carried(id, place.ok()));
    });
}

async fn copy(
    worker: &Arc<Worker>,
    id: MessageId,
    from: Location,
    statuses: Vec<Status>,
    held: bool,
) -> anyhow::Result<Location> {
    let store = worker.store.clone();
    let mut stored = tokio::task::spawn_blocking(move || store.message(from)).await??;
    stored.message.statuses = statuses;
    stored.message.held = held;
    let record = message_record(id, &stored.message, stored.body())?;
    let places = worker.store.append_own(vec![record]).await?;
    places
        .first()
        .copied()
        .ok_or_else(|| anyhow::anyhow!("the spool gave no place"))
}
