//! The manager: one task owns the schedule. It starts jobs when they are due and a place is free, takes their
//! results, and keeps the spool small.

mod hold;
mod listing;
mod time;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_control::{Change, EventKind, QueueStatus};
use tokio::sync::{mpsc, oneshot};

use super::change::{Changed, Order};
use super::config::Queue;
use super::hold::{Judged, Judgement};
use super::job::{Finished, Queued, Worker};
use super::provenance::Provenance;
use super::rebuild::routed;
use super::schedule::clock::believable;
use super::schedule::{Entry, Schedule, Unready};
use crate::events::unix_millis;
use crate::spool::recovery::Messages;
use crate::spool::{Location, MessageId, StoredMessage};
pub use listing::{Listed, Listing};

/// Sessions to all destinations together.
const SESSIONS: usize = 400;
/// Between two looks at whether the spool can shrink.
const COMPACTION: Duration = Duration::from_secs(5);
/// In-flight jobs have so long to end when the process stops.
const DRAIN: Duration = Duration::from_secs(25);

/// Notices written at a time: after a long stop all mail is late, and deliveries must not wait for its notices.
const NOTICES: usize = 32;

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
    /// A message that was to be carried over cannot be read and is given up, or could not be.
    GivenUp(Box<Changed>),
    /// The next message to scan that came through this socket is wanted, and lent.
    Lend(Provenance, oneshot::Sender<Option<(MessageId, Location)>>),
    /// One that is held to be scanned cannot be read, and is given up.
    Lost(MessageId),
    /// It was scanned.
    Judge(Box<Judgement>),
    /// What came of that is on disk, or could not be written.
    Judged(Box<Judged>),
    /// Start nothing more; answer when all jobs have ended, or their time is over.
    Drain(oneshot::Sender<usize>),
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
    postponed_judgements: Vec<Judgement>,
    /// Mail whose time in the hold is over could not be brought into quarantine, and that was said.
    cannot_expire: bool,
    /// Changes and notices that were begun and have not ended.
    under_way: usize,
    /// Messages that are being carried over.
    carrying: usize,
    /// Some have been: there may be more to do at once.
    carried: bool,
    /// When to look whether the time of a message has run out.
    looks: BinaryHeap<Reverse<(u64, MessageId)>>,
    /// When it was last, milliseconds since 1970. At first later than ever: the clock may have been put back while the
    /// process did not run.
    last: u64,
}

impl Manager {
    /// An empty schedule.
    pub fn empty_schedule(queue: &Queue) -> Schedule {
        Schedule::new(queue.concurrency_per_destination, SESSIONS)
    }

    /// A manager of this schedule, and its door.
    pub fn new(worker: Arc<Worker>, schedule: Schedule) -> (Self, mpsc::UnboundedSender<Command>) {
        let (sender, commands) = mpsc::unbounded_channel();
        (
            Self {
                schedule,
                worker,
                commands,
                sender: sender.clone(),
                draining: None,
                postponed: Vec::new(),
                postponed_judgements: Vec::new(),
                cannot_expire: false,
                under_way: 0,
                carrying: 0,
                carried: false,
                looks: BinaryHeap::new(),
                last: u64::MAX,
            },
            sender,
        )
    }

    /// Takes a message into the schedule.
    pub fn insert(&mut self, id: MessageId, location: Location, message: &StoredMessage) {
        let (queue, now) = (&self.worker.queue, unix_millis(SystemTime::now()));
        if let Some(standing) = message.hold.as_ref().and_then(|hold| hold.standing.clone()) {
            let (octets, hold) = (location.body_length, &self.worker.hold);
            hold.place(id, message.provenance, octets, standing);
        }
        let mut new = routed(&mut self.schedule, &self.worker.router, location, message.brief());
        let statuses = new.recipients.iter().map(|(_, status)| status);
        new.arrived = believable(new.arrived, statuses, now, |attempts| queue.waited(attempts));
        self.looks.push(time::first_look(queue, id, new.arrived));
        self.schedule.insert(id, new);
    }

    /// Takes what was found in the spool, before it runs.
    pub fn recovered(&mut self, mut messages: Messages<Entry>) {
        let (queue, now) = (&self.worker.queue, unix_millis(SystemTime::now()));
        for (id, entry) in &mut messages {
            if let Some(standing) = entry.take_standing() {
                let (octets, hold) = (entry.location.body_length, &self.worker.hold);
                hold.place(*id, entry.provenance, octets, standing);
            }
        }
        self.schedule.adopt(messages);
        self.schedule.arrived_by(now, |attempts| queue.waited(attempts));
        self.look_at_all();
        self.schedule.forget_unused();
    }

    /// Runs until drained.
    pub async fn run(mut self) {
        let mut compaction = tokio::time::interval(COMPACTION);
        let mut deadline = None;
        loop {
            let now = unix_millis(SystemTime::now());
            self.tick(now);
            if self.draining.is_none() {
                self.start(now);
                self.look(now);
                self.expire(now);
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
            let due = self.schedule.next_due().into_iter().chain(look);
            let due = due.chain(self.worker.hold.next_expiry(now)).min();
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
                    self.compact_on();
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
                let finished = worker.see_to_its_end(job).await;
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
                self.insert(id, location, &message);
            }
            Command::Finished(finished) => {
                let Finished {
                    job,
                    news,
                    queued,
                    reach,
                } = *finished;
                if let Some(queued) = queued {
                    self.insert(queued.id, queued.location, &queued.message);
                }
                if self.schedule.finish(job.id, job.to, news, &reach) {
                    self.removed(job.id);
                }
            }
            Command::Carried(id, location) => {
                self.carrying = self.carrying.saturating_sub(1);
                self.carried |= location.is_some();
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
            Command::Changed(changed) => {
                self.under_way -= 1;
                self.settle(*changed);
            }
            Command::GivenUp(changed) => {
                self.carrying = self.carrying.saturating_sub(1);
                self.settle(*changed);
            }
            Command::Lend(provenance, answer) => {
                if let Err(Some((id, _))) = answer.send(self.lend(provenance)) {
                    self.worker.hold.give_back(id);
                }
            }
            Command::Lost(id) => self.lost(id),
            Command::Judge(judgement) => self.judge(*judgement),
            Command::Judged(judged) => self.judged(*judged),
            Command::Drain(done) => self.draining = Some(done),
        }
    }

    fn removed(&self, id: MessageId) {
        self.worker.unreadable.forget(id);
        self.worker.hold.forget(id);
        self.worker
            .events
            .emit(None, Some(&id.to_string()), EventKind::Removed);
    }

    /// Begins a change, or says why not.
    fn change(&mut self, order: Order) {
        let Some(order) = self.change_in_hold(order) else {
            return;
        };
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
            (Change::Hold, true) | (Change::Release | Change::ReleaseBad, false) => Some(Ok(())),
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
            let (doer, id) = (worker.clone(), order.id);
            let work = async move { doer.change(order, location, waiting).await };
            let changed = worker.see_through(id, work).await;
            let _ = sender.send(Command::Changed(Box::new(changed)));
        });
    }

    fn settle(&mut self, changed: Changed) {
        if let Some(queued) = changed.queued {
            self.insert(queued.id, queued.location, &queued.message);
        }
        let id = changed.id;
        if self.schedule.end_change(id, changed.news, changed.held) {
            self.removed(id);
        }
        if let Some(order) = changed.order {
            if changed.result.is_ok() {
                self.worker.tell_change(&order);
            }
            let _ = order.answer.send(changed.result);
        }
        if changed.held == Some(false) {
            self.worker.hold.forget(id);
        }
        self.again();
    }

    /// A message has come to rest: changes that waited for that.
    fn again(&mut self) {
        for order in std::mem::take(&mut self.postponed) {
            self.change(order);
        }
        for judgement in std::mem::take(&mut self.postponed_judgements) {
            self.judge(judgement);
        }
    }

    fn compact(&mut self) {
        let settled = self.worker.store.settled_below();
        // What is settled may still wait in our own queue.
        while let Ok(command) = self.commands.try_recv() {
            self.command(command);
        }
        self.carrying += super::compaction::step(&mut self.schedule, &self.worker, &self.sender, settled);
    }

    /// The next step at once where the last one has ended and got somewhere: a segment may hold tens of thousands of
    /// messages, and what is relayed meanwhile fills the next ones.
    fn compact_on(&mut self) {
        if self.carrying == 0 && std::mem::take(&mut self.carried) && self.draining.is_none() {
            self.compact();
        }
    }
}

#[cfg(test)]
mod tests;
