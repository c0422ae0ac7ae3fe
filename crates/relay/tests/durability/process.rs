//! One process of the workload: takes mail, has it delivered, and compacts, as the queue does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use postern_relay::config::{Config, Hybrid};
use postern_relay::deliver::{Attempt, Contact};
use postern_relay::events::{Events, unix_millis};
use postern_relay::handover::{Envelope, Recipient};
use postern_relay::queue::bounce::Identity;
use postern_relay::queue::compaction;
use postern_relay::queue::damage::Unreadable;
use postern_relay::queue::hold::{Found, Holding};
use postern_relay::queue::job::{Finished, Queued, Worker};
use postern_relay::queue::manager::Command;
use postern_relay::queue::outward;
use postern_relay::queue::provenance::Provenance;
use postern_relay::queue::rebuild::routed;
use postern_relay::queue::router::Router;
use postern_relay::queue::schedule::{Job, Reach, Schedule};
use postern_relay::queue::store::{Store, UnderWay, message_record};
use postern_relay::spool::hold::{Hold, Standing, Unscanned};
use postern_relay::spool::writer::Body;
use postern_relay::spool::{Digest, Location, MessageId, Status, StoredMessage};
use postern_smtp::client::Outcome;
use postern_smtp::reply::Reply;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::log::{Note, Offered, Tried};
use crate::recorder::{Fault, Recorder};

const CONFIGURATION: &str = r#"
role = "internal"
hostname = "mail.example.org"
local-domains = ["example.org"]
postmaster = "postmaster@example.org"
state-directory = "state"
runtime-directory = "run"
[resolver]
address = "127.0.0.1:9"
[instance.public]
tls = "off"
relay-for = "local-domains"
authentication = "none"
[next-hop.mailboxes]
kind = "lmtp"
socket = "127.0.0.1:9"
[next-hop.archive]
kind = "lmtp"
socket = "127.0.0.1:10"
[[route]]
from = ["inside"]
domains = ["example.org"]
next-hop = "mailboxes"
[[route]]
from = ["inside"]
domains = ["archive.example"]
next-hop = "archive"
"#;

/// What a scan adds to the header.
const FIELDS: &str = "X-Scanned: yes\r\n";

/// A queue without sockets.
pub(crate) struct Process {
    recorder: Recorder,
    worker: Arc<Worker>,
    schedule: Schedule,
    sender: mpsc::UnboundedSender<Command>,
    commands: mpsc::UnboundedReceiver<Command>,
    rng: Rng,
    /// To be killed some time, for which compaction is a good moment.
    killed: bool,
    /// As intake does: no segment goes that may hold a message which is under way.
    protects: bool,
    /// Some of its mail is held for its scan.
    holds: bool,
}

/// A message that was handed over, and what keeps its segment until it is in the schedule.
type Taken = (Option<Queued>, Option<UnderWay>);

impl Process {
    pub(crate) fn new(recorder: Recorder, store: Store, rng: Rng, killed: bool) -> Self {
        let config = Config::parse("proof", CONFIGURATION, "/".into(), None).unwrap();
        let worker = Worker {
            store: Arc::new(store),
            router: Router::new(&config),
            hops: std::collections::BTreeMap::new(),
            courier: outward::courier(&config, None, std::collections::BTreeMap::new(), None),
            signers: None,
            queue: config.queue.clone(),
            identity: Identity {
                hostname: config.hostname.clone(),
                postmaster: config.postmaster.clone(),
            },
            events: Events::to("queue", std::io::sink()),
            unreadable: Unreadable::default(),
            hold: Holding::new(Hybrid::default(), 60),
        };
        let (sender, commands) = mpsc::unbounded_channel();
        Self {
            recorder,
            worker: Arc::new(worker),
            schedule: Schedule::new(10_000, 10_000),
            sender,
            commands,
            rng,
            killed,
            protects: true,
            holds: false,
        }
    }

    /// The same without what keeps segments of messages that are under way.
    pub(crate) fn unprotected(self) -> Self {
        Self {
            protects: false,
            ..self
        }
    }

    /// The same with mail that is held for its scan.
    pub(crate) fn holding(self, holds: bool) -> Self {
        Self { holds, ..self }
    }

    /// Something happens.
    pub(crate) async fn step(&mut self) {
        match self.rng.u8(..10) {
            0..4 => {
                let messages = self.rng.usize(1..7);
                if self.rng.u8(..6) == 0 {
                    let faults = [Fault::Flush, Fault::FlushAndCut, Fault::Write, Fault::Create];
                    self.recorder.fail(faults[self.rng.usize(..4)]);
                }
                self.take(messages).await;
            }
            4..7 => self.deliver().await,
            7..9 => {
                if self.holds {
                    self.scan().await;
                }
                self.compact().await;
            }
            _ => self.roll_over().await,
        }
    }

    /// Mail comes in.
    async fn take(&mut self, messages: usize) {
        let mut requests = JoinSet::new();
        if messages > 1 {
            self.recorder.hold();
        }
        for _ in 0..messages {
            requests.spawn(self.message());
            if messages > 1 && !self.recorder.waits() {
                self.until_held().await;
            }
        }
        self.release().await;
        self.finish_taking(requests).await;
        self.recorder.mend();
    }

    async fn finish_taking(&mut self, mut requests: JoinSet<Taken>) {
        let (mut taken, mut under_way) = (Vec::new(), Vec::new());
        while let Some(request) = requests.join_next().await {
            let (queued, kept) = request.unwrap();
            taken.extend(queued);
            under_way.push(kept);
        }
        taken.sort_by_key(|queued| queued.id);
        for Queued {
            id,
            location,
            message,
        } in taken
        {
            self.insert(id, location, message.brief());
        }
    }

    /// One handover, as [`postern_relay::queue::intake`] does it.
    fn message(&mut self) -> impl Future<Output = Taken> + Send + use<> {
        let length = match self.rng.u8(..40) {
            // More than the writer's buffer: several writes to one flush.
            0 => 1_100_000,
            1 => 20_000,
            2..10 => 4000,
            _ => self.rng.usize(10..1200),
        };
        self.message_of(length)
    }

    fn message_of(&mut self, length: usize) -> impl Future<Output = Taken> + Send + use<> {
        let id = self.worker.store.new_id();
        let now = unix_millis(SystemTime::now());
        let recipients = 1 + self.rng.usize(..3);
        let body: Vec<u8> = std::iter::repeat_with(|| self.rng.u8(b' '..b'~'))
            .take(length)
            .collect();
        let unscanned = (self.holds && self.rng.u8(..4) == 0).then(|| {
            let unscanned = Unscanned {
                fields: 5,
                evidence: "[]".into(),
            };
            let standing = Some(Standing::Unscanned { since: now });
            Box::new(Hold { unscanned, standing })
        });
        let message = StoredMessage {
            envelope: envelope(id, recipients, length),
            provenance: Provenance::Inside,
            arrived: now,
            statuses: vec![
                Status::Due {
                    at: now,
                    attempts: 0,
                    reply: "".into(),
                    warned: false,
                };
                recipients
            ],
            held: unscanned.is_some(),
            bulk: false,
            hold: unscanned,
        };
        let record = message_record(id, &message, Body::Octets(body.as_slice().into())).unwrap();
        self.offer(id, message.clone(), body);
        let (worker, recorder) = (self.worker.clone(), self.recorder.clone());
        let under_way = self.protects.then(|| worker.store.under_way());
        async move {
            let Ok(places) = worker.store.append(vec![record]).await else {
                return (None, under_way);
            };
            recorder.note(Note::Acknowledged(id));
            let queued = Queued {
                id,
                location: places[0],
                message,
            };
            (Some(queued), under_way)
        }
    }

    pub(crate) fn offer(&self, id: MessageId, message: StoredMessage, body: Vec<u8>) {
        self.recorder
            .note(Note::Offered(id, Arc::new(Offered { message, body })));
    }

    pub(crate) fn insert(&mut self, id: MessageId, location: Location, message: Digest) {
        if let Some(standing) = message.hold.as_ref().and_then(|hold| hold.standing.clone()) {
            let (octets, hold) = (location.body_length, &self.worker.hold);
            hold.place(id, message.provenance, octets, standing);
        }
        let new = routed(&mut self.schedule, &self.worker.router, location, message);
        self.schedule.insert(id, new);
    }

    /// Mail goes out. A destination has few places until it has proved itself, so that one round tries little.
    async fn deliver(&mut self) {
        for _ in 0..self.rng.usize(1..6) {
            self.round().await;
        }
    }

    /// Of all that is due and has a place a part is tried, with all kinds of outcomes.
    async fn round(&mut self) {
        let later = unix_millis(SystemTime::now()) + 24 * 3_600_000;
        let mut due: Vec<Job> = std::iter::from_fn(|| self.schedule.next(later)).collect();
        due.sort_by_key(|job| (job.id, job.to));
        let likely = [0.2, 0.6, 1.0][self.rng.usize(..3)];
        let (tried, left): (Vec<_>, Vec<_>) = due.into_iter().partition(|_| self.rng.f64() < likely);
        for job in left {
            self.schedule.finish(job.id, job.to, Vec::new(), &Reach::Unknown);
        }
        let Some(last) = tried.len().checked_sub(1) else {
            return;
        };
        if last == 0 && self.rng.u8(..4) == 0 {
            self.recorder
                .fail([Fault::Flush, Fault::Write][self.rng.usize(..2)]);
        }
        if last > 0 {
            self.recorder.hold();
        }
        let mut attempts = JoinSet::new();
        for (number, job) in tried.into_iter().enumerate() {
            // A notification is appended before its outcome: only the last may fail, or batches would hang on time.
            let fails = number == last && self.rng.bool();
            attempts.spawn(self.attempt(job, fails));
            if last > 0 && !self.recorder.waits() {
                self.until_held().await;
            }
        }
        self.release().await;
        let mut finished = Vec::new();
        while !attempts.is_empty() {
            // The recording of outcomes never gives up; a killed process does.
            if self.recorder.dead() {
                attempts.shutdown().await;
                return;
            }
            let patience = Duration::from_millis(500);
            if let Ok(Some(one)) = tokio::time::timeout(patience, attempts.join_next()).await {
                finished.push(one.unwrap());
            }
        }
        self.recorder.mend();
        finished.sort_by_key(|one| (one.job.id, one.job.to));
        for Finished {
            job,
            news,
            queued,
            reach,
        } in finished
        {
            if let Some(Queued {
                id,
                location,
                message,
            }) = queued
            {
                self.insert(id, location, message.brief());
            }
            self.schedule.finish(job.id, job.to, news, &reach);
        }
    }

    fn attempt(&mut self, job: Job, fails: bool) -> impl Future<Output = Finished> + Send + use<> {
        let stored = self.worker.store.message(job.location).unwrap();
        let outcomes: Vec<Tried> = job
            .recipients
            .iter()
            .map(|_| match self.rng.u8(..5) {
                0 => Tried::Deferred,
                _ if fails => Tried::Failed,
                _ => Tried::Delivered,
            })
            .collect();
        let indexes = job.recipients.iter().map(|(index, _)| *index);
        let results = indexes.zip(outcomes.iter().copied()).collect();
        self.recorder.note(Note::Tried(job.id, results));
        let reply = |tried: &Tried| match tried {
            Tried::Delivered => Outcome::Delivered(Reply::new(250, (2, 0, 0), "taken")),
            Tried::Deferred => Outcome::Transient(Reply::new(451, (4, 2, 1), "later")),
            Tried::Failed => Outcome::Permanent(Reply::new(550, (5, 1, 1), "unknown")),
        };
        let attempt = Attempt {
            outcomes: outcomes.iter().map(reply).collect(),
            host: None,
            tls: None,
            proof: None,
            contact: Contact::Made,
            knows_dsn: true,
            session: None,
        };
        let (worker, recorder) = (self.worker.clone(), self.recorder.clone());
        async move {
            let id = job.id;
            let finished = worker
                .conclude(job, &stored.message, Some(&stored), &attempt)
                .await;
            if let Some(dsn) = &finished.queued {
                let stored = worker.store.message(dsn.location).unwrap();
                let body = stored.read(0, usize::MAX).unwrap();
                let message = dsn.message.clone();
                recorder.note(Note::Offered(dsn.id, Arc::new(Offered { message, body })));
                recorder.note(Note::Acknowledged(dsn.id));
            }
            recorder.note(Note::Recorded(id, finished.news.clone()));
            finished
        }
    }

    /// What is in the hold is scanned, as [`postern_relay::queue::manager`] has it written: one after the other.
    async fn scan(&mut self) {
        for _ in 0..self.rng.usize(..3) {
            let now = unix_millis(SystemTime::now());
            let Some(id) = self.worker.hold.lend(Provenance::Inside, now, |_| true) else {
                return;
            };
            let found = match self.rng.u8(..3) {
                0 => Found::Stands(Standing::Bad {
                    reason: "virus".into(),
                }),
                _ => Found::Clean(FIELDS.into()),
            };
            let judged = self.judge(id, &found).await;
            self.worker.hold.give_back(id);
            if !judged {
                return;
            }
            // Some of what was found to be bad the operator lets go.
            if found != Found::Clean(FIELDS.into()) && self.rng.bool() && !self.judge(id, &Found::LetGo).await
            {
                return;
            }
        }
    }

    /// Has a judgement written; false where it was not.
    async fn judge(&mut self, id: MessageId, found: &Found) -> bool {
        let Ok(entry) = self.schedule.begin_change(id, true) else {
            return true;
        };
        let (location, statuses) = (entry.location, entry.statuses().cloned().collect());
        self.recorder.note(Note::Judging(id, found.clone()));
        let written = self.worker.record_judgement(id, location, statuses, found).await;
        self.schedule.end_change(id, Vec::new(), None);
        let Ok(place) = written else { return false };
        self.recorder.note(Note::Judged(id, found.clone()));
        if let Some(place) = place {
            self.schedule.let_go(id, place);
        }
        self.worker.tell_judgement(id, found);
        true
    }

    /// Segments go, and what still waits in the oldest is carried over, in one batch behind a message.
    pub(crate) async fn compact(&mut self) {
        self.recorder.hold();
        let mut first = JoinSet::new();
        first.spawn(self.message());
        self.until_held().await;
        self.compact_behind(first).await;
    }

    /// The same while a batch has begun in one segment and goes on in the next: the first is closed, its messages have their
    /// 250, and the schedule knows of none.
    pub(crate) async fn roll_over(&mut self) {
        self.recorder.hold();
        let mut requests = JoinSet::new();
        requests.spawn(self.message_of(4000));
        self.until_held().await;
        for _ in 0..5 {
            requests.spawn(self.message_of(4000));
        }
        for _ in 0..2 {
            self.let_answers_come().await;
            self.recorder.pass();
            self.until_held().await;
        }
        self.let_answers_come().await;
        self.compact_behind(requests).await;
    }

    async fn compact_behind(&mut self, requests: JoinSet<Taken>) {
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let settled = self.worker.store.settled_below();
        compaction::step(&mut self.schedule, &self.worker, &self.sender, settled);
        let carried = tasks().saturating_sub(before);
        if carried > 0 {
            let segment = self.worker.store.oldest(u64::MAX).unwrap();
            self.recorder.note(Note::Carrying(segment));
            if self.killed && self.rng.bool() {
                self.recorder.kill_after(self.rng.usize(1..7));
            }
        }
        // The copies are read one after the other by one thread: when this has been done, all are read.
        self.let_answers_come().await;
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        self.release().await;
        self.finish_taking(requests).await;
        for _ in 0..carried {
            if let Some(Command::Carried(id, location)) = self.commands.recv().await {
                self.schedule.carried(id, location);
            }
        }
    }

    /// Waits until the first request has come to its flush, or has ended.
    async fn until_held(&self) {
        let tasks = || Handle::current().metrics().num_alive_tasks();
        while !self.recorder.waits() && !self.recorder.dead() && tasks() > 0 {
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
    }

    /// Lets all requests be sent, and then the batches through.
    async fn release(&self) {
        self.let_answers_come().await;
        self.recorder.release();
    }

    /// Lets all tasks go as far as they can without the disk.
    async fn let_answers_come(&self) {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
}

fn envelope(id: MessageId, recipients: usize, length: usize) -> Envelope {
    let recipient = |index| {
        let domain = ["example.org", "archive.example"][index % 2];
        Recipient {
            address: format!("r{index}.{id}@{domain}"),
            orcpt: None,
            notify: None,
        }
    };
    Envelope {
        trace: id.to_string(),
        reverse_path: format!("app.{id}@example.org"),
        recipients: (0..recipients).map(recipient).collect(),
        ret: None,
        envid: None,
        smtputf8: false,
        require_tls: false,
        eight_bit: false,
        peer: "192.0.2.1".into(),
        helo: "client.example".into(),
        tls: None,
        authenticated_user: None,
        return_path_proven: true,
        size: length as u64,
    }
}
