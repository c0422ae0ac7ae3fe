//! The manager: one task owns the schedule. It starts jobs when they are due and a place is free, takes their
//! results, and keeps the spool small.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_control::{EventKind, QueueStatus};
use tokio::sync::{mpsc, oneshot};

use super::job::{Finished, Queued, Worker};
use super::provenance::Provenance;
use super::reasons;
use super::router::{Destination, Router};
use super::schedule::Schedule;
use crate::events::unix_millis;
use crate::spool::{Location, MessageId, Status, StoredMessage};

/// Sessions to all destinations together.
const SESSIONS: usize = 400;
/// Between two looks at whether the spool can shrink.
const COMPACTION: Duration = Duration::from_secs(5);
/// In-flight jobs have so long to end when the process stops.
const DRAIN: Duration = Duration::from_secs(25);

/// What the manager is told or asked.
pub enum Command {
    /// A message is in the spool.
    Insert(Box<Queued>),
    /// A job has ended.
    Finished(Box<Finished>),
    /// A message was carried over, or was not.
    Carried(MessageId, Option<Location>),
    /// How the queue stands.
    Status(oneshot::Sender<QueueStatus>),
    /// The oldest messages, at most so many.
    List(usize, oneshot::Sender<Listing>),
    /// Start nothing more; answer when all jobs have ended, or their time is over.
    Drain(oneshot::Sender<usize>),
}

/// The oldest messages.
pub struct Listing {
    /// Place, and how the recipients stand, in the envelope's order.
    pub messages: Vec<(MessageId, Location, Vec<Status>)>,
    /// There are more.
    pub truncated: bool,
}

/// Owner of the schedule.
pub struct Manager {
    schedule: Schedule,
    worker: Arc<Worker>,
    commands: mpsc::UnboundedReceiver<Command>,
    sender: mpsc::UnboundedSender<Command>,
    draining: Option<oneshot::Sender<usize>>,
}

impl Manager {
    /// A manager with an empty schedule, and its door.
    pub fn new(worker: Arc<Worker>) -> (Self, mpsc::UnboundedSender<Command>) {
        let (sender, commands) = mpsc::unbounded_channel();
        let schedule = Schedule::new(worker.queue.concurrency_per_destination, SESSIONS);
        (
            Self {
                schedule,
                worker,
                commands,
                sender: sender.clone(),
                draining: None,
            },
            sender,
        )
    }

    /// Takes a message into the schedule.
    pub fn insert(&mut self, id: MessageId, location: Location, message: StoredMessage) {
        let StoredMessage {
            envelope,
            provenance,
            arrived,
            statuses,
        } = message;
        let recipients = envelope
            .recipients
            .iter()
            .zip(statuses)
            .map(|(recipient, status)| (self.destination(provenance, &recipient.address), status))
            .collect();
        self.schedule
            .insert(id, location, provenance, arrived, recipients);
    }

    fn destination(&self, provenance: Provenance, address: &str) -> Destination {
        self.worker
            .router
            .destination(provenance, address)
            .unwrap_or_else(|| Router::nowhere(address))
    }

    /// Runs until drained.
    pub async fn run(mut self) {
        let mut compaction = tokio::time::interval(COMPACTION);
        let mut deadline = None;
        // At the start too: the clock may have been put back while the process did not run.
        let mut last = u64::MAX;
        loop {
            let now = unix_millis(SystemTime::now());
            if now < last {
                self.schedule.not_after(now + self.worker.queue.longest_wait());
            }
            last = now;
            if self.draining.is_none() {
                self.start(now);
            } else {
                let until = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + DRAIN);
                if self.schedule.active() == 0 || tokio::time::Instant::now() >= until {
                    let _ = self.draining.take().map(|done| done.send(self.schedule.active()));
                    return;
                }
            }
            let due = self
                .schedule
                .next_due()
                .map_or(60_000, |at| at.saturating_sub(now).clamp(1, 60_000));
            // Places that become free come with a command, so a full schedule need not be looked at again and again.
            let full = self.schedule.active() >= SESSIONS;
            let wake = Duration::from_millis(if full || self.draining.is_some() {
                1000
            } else {
                due
            });
            tokio::select! {
                Some(command) = self.commands.recv() => {
                    self.command(command);
                    while let Ok(command) = self.commands.try_recv() {
                        self.command(command);
                    }
                }
                () = tokio::time::sleep(wake) => {}
                _ = compaction.tick() => self.compact(),
            }
        }
    }

    fn start(&mut self, now: u64) {
        while let Some(job) = self.schedule.next(now) {
            let (worker, sender) = (self.worker.clone(), self.sender.clone());
            tokio::spawn(async move {
                // A fault in one attempt must neither keep its place for ever nor end the others.
                let finished = match tokio::spawn(worker.clone().run(job.clone())).await {
                    Ok(finished) => finished,
                    Err(fault) => worker.postpone(job, &reasons::fault(fault)).await,
                };
                let _ = sender.send(Command::Finished(Box::new(finished)));
            });
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Insert(queued) => {
                let Queued {
                    id,
                    location,
                    message,
                } = *queued;
                self.insert(id, location, message);
            }
            Command::Finished(finished) => {
                let Finished { job, news, queued } = *finished;
                if let Some(queued) = queued {
                    self.insert(queued.id, queued.location, queued.message);
                }
                if self.schedule.finish(job.id, job.to, news) {
                    self.worker
                        .events
                        .emit(None, Some(&job.id.to_string()), EventKind::Removed);
                }
            }
            Command::Carried(id, location) => self.schedule.carried(id, location),
            Command::Status(answer) => drop(answer.send(self.status())),
            Command::List(most, answer) => drop(answer.send(self.list(most))),
            Command::Drain(done) => self.draining = Some(done),
        }
    }

    fn status(&self) -> QueueStatus {
        let waiting = self.schedule.entries().flat_map(|(_, entry)| entry.statuses());
        let oldest = self.schedule.entries().next().map(|(_, entry)| entry.arrived);
        let now = unix_millis(SystemTime::now());
        QueueStatus {
            messages: self.schedule.len() as u64,
            recipients_due: waiting.filter(|status| !status.is_final()).count() as u64,
            oldest_age_seconds: oldest.map_or(0, |arrived| now.saturating_sub(arrived) / 1000),
            spool_octets: self.worker.store.octets(),
        }
    }

    fn list(&self, most: usize) -> Listing {
        let messages = self
            .schedule
            .entries()
            .take(most)
            .map(|(id, entry)| (id, entry.location, entry.statuses().cloned().collect()));
        Listing {
            messages: messages.collect(),
            truncated: self.schedule.len() > most,
        }
    }

    fn compact(&mut self) {
        super::compaction::step(&mut self.schedule, &self.worker, &self.sender);
    }
}
