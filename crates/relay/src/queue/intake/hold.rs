//! Messages in the hold go out to be scanned, through the socket they came by, and what was found comes back.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_sandbox::memfd;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Intake;
use crate::events::unix_millis;
use crate::handover::hold::{Outcome, PATIENCE, ToScan};
use crate::handover::kept::Answer;
use crate::queue::control::ask;
use crate::queue::damage::Lost;
use crate::queue::hold::{Asker, Found, Judgement};
use crate::queue::job::Worker;
use crate::queue::manager::Command;
use crate::spool::body::Stored;
use crate::spool::hold::{Hold, Standing, Unscanned};
use crate::spool::{Location, MessageId, StoredMessage};

/// Octets copied at a time.
const PIECE: usize = 256 << 10;

/// Characters that are kept of what a scan said.
const TEXT: usize = 2000;

/// A message that is being scanned. Whoever scans it may end without a word, and be it because of the message: then it is to be
/// scanned again later, behind others.
pub(super) struct Lent {
    id: MessageId,
    worker: Arc<Worker>,
    ended: bool,
}

impl Lent {
    /// It has been dealt with.
    fn end(mut self) {
        self.ended = true;
        self.worker.hold.give_back(self.id);
    }

    /// It is to be scanned again, later.
    fn put_off(mut self, why: String) {
        self.ended = true;
        self.postpone(why);
    }

    fn postpone(&self, why: String) {
        let hold = &self.worker.hold;
        hold.put_off(self.id, &why, unix_millis(SystemTime::now()));
        // One that has been cancelled meanwhile, or is in quarantine, is scanned no more.
        if matches!(hold.standing(self.id), Some(Standing::Unscanned { .. })) {
            self.worker.tell_hold(None, self.id, "postponed", why);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.ended {
            self.postpone("whoever scanned it ended without an answer".into());
        }
    }
}

impl Intake {
    /// How a message stands that comes in now; not in the hold where it was scanned.
    pub(super) fn hold_of(unscanned: Option<Unscanned>, now: u64) -> Option<Box<Hold>> {
        let standing = Some(Standing::Unscanned { since: now });
        unscanned.map(|unscanned| Box::new(Hold { unscanned, standing }))
    }

    /// Keeps room for a message that is to be held; false where there is none.
    pub(super) fn keeps_room(&self, id: MessageId, message: &StoredMessage) -> bool {
        let (octets, now) = (message.envelope.size, message.arrived);
        message.hold.is_none() || self.worker.hold.reserve(id, self.provenance, octets, now)
    }

    /// Tells of a message that is held.
    pub(super) fn tell_held(&self, id: MessageId, message: &StoredMessage) {
        if message.hold.is_some() {
            let trace = Some(message.envelope.trace.as_str());
            let why = "the scanners have not answered in time";
            self.worker.tell_hold(trace, id, "taken", why.into());
        }
    }

    /// The next message to scan, or nothing after a while; `lent` keeps it.
    pub(super) async fn next_to_scan(&self, lent: &mut Option<Lent>) -> (Answer, Option<OwnedFd>) {
        *lent = None;
        let until = Instant::now() + PATIENCE;
        loop {
            let changed = self.worker.hold.changed();
            let next = |answer| Command::Lend(self.provenance, answer);
            if let Some((id, location)) = ask(&self.manager, next).await.flatten() {
                let borrowed = Lent {
                    id,
                    worker: self.worker.clone(),
                    ended: false,
                };
                match self.found_to_scan(id, location).await {
                    Ok((message, memory)) => {
                        *lent = Some(borrowed);
                        return (Answer::ToScan(Box::new(message)), Some(memory));
                    }
                    Err(why) => {
                        borrowed.put_off(why.to_string());
                        if why.downcast_ref().is_some_and(|lost: &Lost| lost.for_good) {
                            let _ = self.manager.send(Command::Lost(id));
                        }
                    }
                }
                continue;
            }
            let now = unix_millis(SystemTime::now());
            let next = self.worker.hold.next(self.provenance, now);
            let wait = next.map_or(PATIENCE, |at| {
                // What is just being written is not asked for again and again.
                Duration::from_millis(at.saturating_sub(now).max(100))
            });
            let wake = until.min(Instant::now() + wait);
            let _ = tokio::time::timeout_at(wake, changed).await;
            if Instant::now() >= until {
                return (Answer::Nothing, None);
            }
        }
    }

    /// The message, wherever it is by now: it may have been carried over, and its old segment may be gone.
    async fn found_to_scan(
        &self,
        id: MessageId,
        mut location: Location,
    ) -> anyhow::Result<(ToScan, OwnedFd)> {
        loop {
            let read = self.to_scan(id, location).await;
            let show = |answer| Command::Show(id, answer);
            let now = match &read {
                Ok(_) => None,
                Err(_) => ask(&self.manager, show).await.flatten(),
            };
            match now.map(|listed| listed.location) {
                Some(elsewhere) if elsewhere != location => location = elsewhere,
                _ => return read,
            }
        }
    }

    async fn to_scan(&self, id: MessageId, location: Location) -> anyhow::Result<(ToScan, OwnedFd)> {
        let read = self.worker.read(id, location).await?;
        let stored = read.content?;
        let hold = read
            .message
            .hold
            .ok_or_else(|| anyhow::anyhow!("its record does not say what is to be scanned"))?;
        let memory = tokio::task::spawn_blocking(move || copy(&stored)).await??;
        let message = ToScan {
            id: id.to_string(),
            trace: read.message.envelope.trace,
            unscanned: hold.unscanned,
        };
        Ok((message, memory))
    }

    /// What came of the message that is lent.
    pub(super) async fn scanned(&self, outcome: Outcome, lent: &mut Option<Lent>) -> Answer {
        let Some(borrowed) = lent.take() else {
            return Answer::Failed("no message is out to be scanned through this connection".into());
        };
        let (id, hold) = (borrowed.id, &self.worker.hold);
        let found = match outcome {
            Outcome::Clean(fields) => Found::Clean(fields),
            Outcome::Bad(reason) => Found::Stands(Standing::Bad {
                reason: cut(&reason).into(),
            }),
            Outcome::Unfinished(why) if hold.unfinished(id) => {
                borrowed.postpone(cut(&why));
                Found::Stands(Standing::Expired)
            }
            Outcome::NoAnswer(why) | Outcome::Unfinished(why) => {
                borrowed.put_off(cut(&why));
                return Answer::Kept;
            }
        };
        let (answer, answered) = oneshot::channel();
        let judgement = Judgement {
            id,
            found,
            asker: Asker::Scanner(answer),
        };
        let _ = self.manager.send(Command::Judge(Box::new(judgement)));
        match answered.await {
            Ok(Ok(())) => {
                borrowed.end();
                Answer::Kept
            }
            // It has been cancelled meanwhile, say: there is nothing left to do.
            Ok(Err(_)) if !matches!(hold.standing(id), Some(Standing::Unscanned { .. })) => {
                borrowed.end();
                Answer::Kept
            }
            Ok(Err(why)) => {
                borrowed.put_off(why.clone());
                Answer::Failed(why)
            }
            Err(_) => {
                borrowed.end();
                Answer::Failed("the queue is stopping".into())
            }
        }
    }
}

/// As much of a text as is kept: who scans is believed as to the message, and not as to how much he says.
fn cut(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

/// The message as sealed memory. Blocks.
fn copy(stored: &Stored) -> anyhow::Result<OwnedFd> {
    let mut writer = memfd::Writer::new()?;
    let mut at = 0;
    while at < stored.size() {
        let piece = stored.read(at, PIECE)?;
        if piece.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        writer.write_all(&piece)?;
        at += piece.len() as u64;
    }
    Ok(writer.seal()?)
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
