//! The manager: one task owns the schedule. It starts jobs when they are due and a place is free, takes their
//! results, and keeps the spool small.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_control::{Change, EventKind, QueueStatus};
use tokio::sync::{mpsc, oneshot};

use super::change::{Changed, Order};
use super::job::{Finished, Queued, Worker};
use super::provenance::Provenance;
use super::reasons;
use super::router::{Destination, Router};
use super::schedule::{Entry, New, Schedule, Unready};
use super::{notice, priority};
use crate::events::unix_millis;
use crate::spool::{Location, MessageId, Status, StoredMessage};

/// Sessions to all destinations together.
const SESSIONS: usize = 400;
/// Between two looks at whether the spool can shrink.
const COMPACTION: Duration = Duration::from_secs(5);
/// In-flight jobs have so long to end when the process stops.
const DRAIN: Duration = Duration::from_secs(25);

/// Notices written at a time: after a long stop all mail is late, and deliveries must not wait for its notices.
const NOTICES: usize = 32;

/// Milliseconds between two looks at a message that is late.
const LOOK_AGAIN: u64 = 600_000;

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
    /// The oldest messages behind this id, at most so many.
    List(Option<MessageId>, usize, oneshot::Sender<Listing>),
    /// One message.
    Show(MessageId, oneshot::Sender<Option<Listed>>),
    /// The operator wants something done with a message.
    Change(Box<Order>),
    /// It is done, or could not be.
    Changed(Box<Changed>),
    /// Start nothing more; answer when all jobs have ended, or their time is over.
    Drain(oneshot::Sender<usize>),
}

/// The oldest messages.
pub struct Listing {
    /// In the order of their ids.
    pub messages: Vec<Listed>,
    /// There are more.
    pub more: bool,
}

/// A message in a listing.
pub struct Listed {
    /// Its name.
    pub id: MessageId,
    /// Its place.
    pub location: Location,
    /// Whether it is held.
    pub held: bool,
    /// How its recipients stand, and by which next hop they go, in the envelope's order.
    pub recipients: Vec<(Status, Arc<str>)>,
}

/// Owner of the schedule.
pub struct Manager {
    schedule: Schedule,
    worker: Arc<Worker>,
    commands: mpsc::UnboundedReceiver<Command>,
    sender: mpsc::UnboundedSender<Command>,
    draining: Option<oneshot::Sender<usize>>,
    /// Changes of messages that are just being carried over or changed.
    postponed: Vec<Order>,
    /// Changes and notices that were begun and have not ended.
    under_way: usize,
    /// When to look whether the time of a message has run out.
    looks: BinaryHeap<Reverse<(u64, MessageId)>>,
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
                postponed: Vec::new(),
                under_way: 0,
                looks: BinaryHeap::new(),
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
            held,
            bulk,
        } = message;
        let recipients = envelope
            .recipients
            .iter()
            .zip(statuses)
            .map(|(recipient, status)| {
                let to = self.destination(provenance, &recipient.address);
                let class = priority::class(bulk, 0);
                (
                    self.worker.router.from_source(to, &envelope.reverse_path, class),
                    status,
                )
            })
            .collect();
        let new = New {
            location,
            provenance,
            arrived,
            held,
            bulk,
            sender: priority::sender(envelope.authenticated_user.as_deref(), &envelope.reverse_path),
            recipients,
        };
        let queue = &self.worker.queue;
        self.looks
            .push(Reverse((queue.late_at(arrived).min(queue.over_at(arrived)), id)));
        self.schedule.insert(id, new);
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
                self.look(now);
            } else {
                let until = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + DRAIN);
                let busy = self.schedule.active() + self.under_way;
                if busy == 0 || tokio::time::Instant::now() >= until {
                    let _ = self.draining.take().map(|done| done.send(self.schedule.active()));
                    return;
                }
            }
            let look = self.looks.peek().map(|Reverse((at, _))| *at);
            // Places for notices come with a command, too.
            let look = look.filter(|_| self.under_way < NOTICES);
            let due = self.schedule.next_due().into_iter().chain(look).min();
            let due = due.map_or(60_000, |at| at.saturating_sub(now).clamp(1, 60_000));
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
                let Finished {
                    job,
                    news,
                    queued,
                    reach,
                } = *finished;
                if let Some(queued) = queued {
                    self.insert(queued.id, queued.location, queued.message);
                }
                if self.schedule.finish(job.id, job.to, news, &reach) {
                    self.removed(job.id);
                }
            }
            Command::Carried(id, location) => {
                self.schedule.carried(id, location);
                self.again();
            }
            Command::Status(answer) => drop(answer.send(self.status())),
            Command::List(after, most, answer) => drop(answer.send(self.list(after, most))),
            Command::Show(id, answer) => {
                let entry = self.schedule.entry(id);
                drop(answer.send(entry.map(|entry| self.listed(id, entry))));
            }
            Command::Change(order) => self.change(*order),
            Command::Changed(changed) => self.changed(*changed),
            Command::Drain(done) => self.draining = Some(done),
        }
    }

    /// Looks at messages whose time may have run out.
    fn look(&mut self, now: u64) {
        while let Some(Reverse((at, id))) = self.looks.peek().copied()
            && at <= now
            && self.under_way < NOTICES
        {
            self.looks.pop();
            let Some(entry) = self.schedule.entry(id) else {
                continue;
            };
            let queue = &self.worker.queue;
            let (late_at, over_at) = (queue.late_at(entry.arrived), queue.over_at(entry.arrived));
            // What is just being tried or held, or could not be recorded, is looked at again.
            let next = [late_at, over_at].into_iter().filter(|at| *at > now);
            let again = next.chain([now + queue.longest_wait().min(LOOK_AGAIN)]).min();
            self.looks.extend(again.map(|at| Reverse((at, id))));
            let (mut expired, mut late) = (Vec::new(), Vec::new());
            if over_at <= now {
                expired = notice::expired(&self.schedule, entry, queue.retry.len());
            } else if late_at <= now {
                late = notice::late(&self.schedule, entry);
            }
            if entry.held || expired.is_empty() && late.is_empty() {
                continue;
            }
            if let Ok(entry) = self.schedule.begin_change(id, true) {
                let location = entry.location;
                self.under_way += 1;
                let (worker, sender) = (self.worker.clone(), self.sender.clone());
                tokio::spawn(async move {
                    let changed = if expired.is_empty() {
                        worker.warn_sender(id, location, late, now).await
                    } else {
                        worker.expire(id, location, expired, now).await
                    };
                    let _ = sender.send(Command::Changed(Box::new(changed)));
                });
            }
        }
    }

    fn removed(&self, id: MessageId) {
        self.worker
            .events
            .emit(None, Some(&id.to_string()), EventKind::Removed);
    }

    /// Begins a change, or says why not.
    fn change(&mut self, order: Order) {
        let alone = matches!(order.change, Change::Cancel | Change::Bounce);
        let entry = match self.schedule.begin_change(order.id, alone) {
            Ok(entry) => entry,
            Err(Unready::Soon) => return self.postponed.push(order),
            Err(Unready::Unknown) => {
                let why = "no such message is in the queue: it may be done already";
                return drop(order.answer.send(Err(why.into())));
            }
            Err(Unready::Tried) => {
                let why = "it is just being tried; hold it, and cancel it when the attempt has ended";
                return drop(order.answer.send(Err(why.into())));
            }
        };
        let settled = match (order.change, entry.held) {
            (Change::Hold, true) | (Change::Release, false) => Some(Ok(())),
            (Change::Retry, true) => Some(Err("it is held; release it first".to_owned())),
            (Change::Retry, false) => {
                let now = unix_millis(SystemTime::now());
                self.schedule.end_change(order.id, Vec::new(), None);
                self.schedule.retry(order.id, now);
                self.worker.tell_change(&order);
                return drop(order.answer.send(Ok(())));
            }
            _ => None,
        };
        if let Some(result) = settled {
            self.schedule.end_change(order.id, Vec::new(), None);
            return drop(order.answer.send(result));
        }
        let (location, waiting) = (entry.location, entry.waiting());
        self.under_way += 1;
        let (worker, sender) = (self.worker.clone(), self.sender.clone());
        tokio::spawn(async move {
            let changed = worker.change(order, location, waiting).await;
            let _ = sender.send(Command::Changed(Box::new(changed)));
        });
    }

    fn changed(&mut self, changed: Changed) {
        self.under_way -= 1;
        if let Some(queued) = changed.queued {
            self.insert(queued.id, queued.location, queued.message);
        }
        let id = changed.id;
        if self.schedule.end_change(id, changed.news, changed.held) {
            self.removed(id);
        }
        if let Some(order) = changed.order {
            let _ = order.answer.send(changed.result);
        }
        self.again();
    }

    /// A message has come to rest: changes that waited for that.
    fn again(&mut self) {
        for order in std::mem::take(&mut self.postponed) {
            self.change(order);
        }
    }

    fn status(&self) -> QueueStatus {
        let oldest = self.schedule.entries(None).next().map(|(_, entry)| entry.arrived);
        let now = unix_millis(SystemTime::now());
        QueueStatus {
            messages: self.schedule.len() as u64,
            recipients_due: self.schedule.waiting() as u64,
            oldest_age_seconds: oldest.map_or(0, |arrived| now.saturating_sub(arrived) / 1000),
            spool_octets: self.worker.store.octets(),
        }
    }

    fn list(&self, after: Option<MessageId>, most: usize) -> Listing {
        let mut entries = self.schedule.entries(after);
        let messages = entries
            .by_ref()
            .take(most)
            .map(|(id, entry)| self.listed(id, entry));
        Listing {
            messages: messages.collect(),
            more: entries.next().is_some(),
        }
    }

    fn listed(&self, id: MessageId, entry: &Entry) -> Listed {
        // What is due waits for a destination that is closed.
        let stands = |status: &Status, to| match (status.clone(), self.schedule.health(to).closed()) {
            (
                Status::Due {
                    at,
                    attempts,
                    reply,
                    warned,
                },
                Some((until, why)),
            ) => Status::Due {
                at: at.max(until),
                attempts,
                reply: if reply.is_empty() { why.into() } else { reply },
                warned,
            },
            (status, _) => status,
        };
        let next_hop = |to| self.schedule.destination(to).next_hop.clone();
        Listed {
            id,
            location: entry.location,
            held: entry.held,
            recipients: entry
                .recipients()
                .iter()
                .map(|(to, status)| (stands(status, *to), next_hop(*to)))
                .collect(),
        }
    }

    fn compact(&mut self) {
        let settled = self.worker.store.settled_below();
        // What is settled may still wait in our own queue.
        while let Ok(command) = self.commands.try_recv() {
            self.command(command);
        }
        super::compaction::step(&mut self.schedule, &self.worker, &self.sender, settled);
    }
}
