//! Group commit: one thread owns the segment that grows. It takes all requests that wait, writes their records,
//! flushes once, and then answers them all.
//!
//! Nobody waits for an outcome as a client waits for its 250: a batch of outcomes alone waits a little for the next
//! message and shares its flush.
//!
//! A failed write or flush abandons the segment: its requests are answered with the error and the next ones get a
//! new segment. A flush is never tried again, because after a failed one the kernel may have dropped the pages and a
//! second would succeed without them.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::disk::Disk;
use super::record::{Header, Kind, trailer};
use super::segment::Segment;
use super::{Location, MessageId};

/// How the writer behaves.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A segment that would grow beyond is closed; a single larger record gets a segment of its own.
    pub segment_octets: u64,
    /// Octets of the file system that messages may not use, so that outcomes can still be recorded.
    pub reserve_octets: u64,
    /// How long outcomes wait for a message whose flush they can share. A crash in this time repeats their deliveries.
    pub outcomes_wait: Duration,
}

impl Options {
    /// Fit for a file system of this size: on a small one smaller segments, so that its space comes back.
    pub fn for_disk(octets: u64) -> Self {
        Self {
            segment_octets: (octets / 16).clamp(1 << 20, 64 << 20),
            reserve_octets: (octets / 32).clamp(1 << 20, 64 << 20),
            ..Self::default()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_octets: 64 << 20,
            reserve_octets: 8 << 20,
            outcomes_wait: Duration::from_millis(5),
        }
    }
}

/// Octets of message bodies in one batch; more wait for the next flush.
const BATCH: u64 = 32 << 20;

/// One record to append.
#[derive(Debug, Clone)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// Of which message.
    pub id: MessageId,
    /// The JSON part.
    pub meta: Vec<u8>,
    /// What the schedule needs of that ([`super::summary`]).
    pub summary: Vec<u8>,
    /// The message; empty for outcomes.
    pub body: Body,
}

/// Where the writer takes a body from.
#[derive(Debug, Clone)]
pub enum Body {
    /// From memory.
    Octets(Arc<[u8]>),
    /// From a file: sealed memory, or another segment when a message is carried over.
    File {
        /// The file.
        file: Arc<File>,
        /// Where the body begins.
        offset: u64,
        /// Its length.
        length: u64,
    },
    /// One behind the other.
    Parts(Vec<Body>),
}

impl Body {
    /// No body.
    pub fn none() -> Self {
        Self::Octets(Arc::new([]))
    }

    fn length(&self) -> u64 {
        match self {
            Self::Octets(octets) => octets.len() as u64,
            Self::File { length, .. } => *length,
            Self::Parts(parts) => parts.iter().map(Self::length).sum(),
        }
    }
}

/// Why records were not made durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Nothing was written: the disk is too full for a message.
    #[error(
        "the spool's file system has {free} octets left and the message needs {needed}; free space on it"
    )]
    Full {
        /// What is left above the reserve.
        free: u64,
        /// What the records need.
        needed: u64,
    },
    /// Writing failed; the segment was abandoned.
    #[error("writing to the spool failed: {0}; see the kernel's log for errors of the disk")]
    Io(Arc<io::Error>),
    /// The writer has ended.
    #[error("the spool is closed")]
    Closed,
}

/// Where the records are: in which segment (see [`Started`]) and at which offset, in the request's order.
type Answer = Result<Vec<Location>, AppendError>;

struct Request {
    records: Vec<Record>,
    /// What the queue itself must write to get rid of mail may use part of the reserve.
    own: bool,
    answer: oneshot::Sender<Answer>,
}

/// The writer's door. Cheap to clone; the thread ends when the last clone is gone.
#[derive(Clone)]
pub struct Writer {
    requests: mpsc::UnboundedSender<Request>,
}

/// A segment has been started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its number.
    pub segment: u64,
    /// Its salt.
    pub salt: u64,
}

/// Name of a segment's file.
pub fn segment_name(segment: u64, salt: u64) -> String {
    format!("{segment:016x}-{salt:016x}.segment")
}

impl Writer {
    /// Starts the thread. The first segment it makes is `next_segment`. `started` is called for each new segment
    /// before any record in it is acknowledged.
    pub fn start(
        disk: Box<dyn Disk>,
        options: Options,
        next_segment: u64,
        started: impl Fn(Started) + Send + 'static,
    ) -> io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (requests, waiting) = mpsc::unbounded_channel();
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let log = Log {
            disk,
            options,
            next_segment,
            started: Box::new(started),
            open: None,
        };
        let thread = std::thread::Builder::new()
            .name("spool".into())
            .spawn(move || serve(log, waiting, &clock))?;
        Ok((Self { requests }, thread))
    }

    /// Waits for the end of the thread; while a writer lives it ends only by a fault.
    pub async fn closed(&self) {
        self.requests.closed().await;
    }

    /// Appends records; they are in the log in this order, and durable when this returns.
    pub async fn append(&self, records: Vec<Record>) -> Answer {
        self.request(records, false).await
    }

    /// The same for what the queue itself writes, notifications and copies: half of the reserve is theirs, for without them
    /// a full spool would never empty.
    pub async fn append_own(&self, records: Vec<Record>) -> Answer {
        self.request(records, true).await
    }

    async fn request(&self, records: Vec<Record>, own: bool) -> Answer {
        let (answer, answered) = oneshot::channel();
        let request = Request { records, own, answer };
        self.requests.send(request).map_err(|_| AppendError::Closed)?;
        answered.await.unwrap_or(Err(AppendError::Closed))
    }
}

/// Requests that share a flush.
#[derive(Default)]
struct Batch {
    requests: VecDeque<Request>,
    octets: u64,
    messages: bool,
}

impl Batch {
    fn push(&mut self, request: Request) {
        self.octets += request.records.iter().map(length).sum::<u64>();
        self.messages |= !only_outcomes(&request.records);
        self.requests.push_back(request);
    }

    fn full(&self) -> bool {
        self.octets >= BATCH
    }

    /// Takes what waits.
    fn gather(&mut self, waiting: &mut mpsc::UnboundedReceiver<Request>) {
        while !self.full()
            && let Ok(request) = waiting.try_recv()
        {
            self.push(request);
        }
    }

    /// Waits for a message.
    async fn wait(&mut self, waiting: &mut mpsc::UnboundedReceiver<Request>, until: Instant) {
        while !self.messages
            && !self.full()
            && let Ok(Some(request)) = tokio::time::timeout_at(until, waiting.recv()).await
        {
            self.push(request);
        }
    }
}

fn serve(mut log: Log, mut waiting: mpsc::UnboundedReceiver<Request>, clock: &Runtime) {
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = Batch::default();
        batch.push(first);
        batch.gather(&mut waiting);
        if !batch.messages && !log.options.outcomes_wait.is_zero() {
            clock.block_on(async {
                let until = Instant::now() + log.options.outcomes_wait;
                batch.wait(&mut waiting, until).await;
            });
            batch.gather(&mut waiting);
        }
        log.commit(batch.requests);
    }
    // What has failed was abandoned: all of it is flushed.
    if let Some(segment) = log.open.take() {
        segment.seal(&mut *log.disk);
    }
}

fn answer_all(written: &mut Vec<(oneshot::Sender<Answer>, Vec<Location>)>) {
    for (answer, locations) in written.drain(..) {
        let _ = answer.send(Ok(locations));
    }
}

fn only_outcomes(records: &[Record]) -> bool {
    records.iter().all(|record| record.kind == Kind::Outcome)
}

fn header(record: &Record) -> Option<Header> {
    Some(Header {
        kind: record.kind,
        meta_length: u32::try_from(record.meta.len()).ok()?,
        body_length: record.body.length(),
        id: record.id,
    })
}

fn length(record: &Record) -> u64 {
    header(record).map_or(0, |header| header.record_length())
}

struct Log {
    disk: Box<dyn Disk>,
    options: Options,
    next_segment: u64,
    started: Box<dyn Fn(Started) + Send>,
    open: Option<Segment>,
}

impl Log {
    /// Writes a batch, flushes, answers.
    fn commit(&mut self, batch: VecDeque<Request>) {
        let mut written: Vec<(oneshot::Sender<Answer>, Vec<Location>)> = Vec::new();
        let mut free = None;
        let mut requests = batch.into_iter();
        let mut failure = None;
        for request in requests.by_ref() {
            if let Err(error) = self.room(&request, &mut free) {
                let _ = request.answer.send(Err(error));
                continue;
            }
            match request.records.iter().map(|record| self.write(record)).collect() {
                Ok(locations) => {
                    let locations: Vec<Location> = locations;
                    let last = |locations: &[Location]| locations.last().map(|location| location.segment);
                    // A segment that was closed is flushed: what it holds is durable, whatever becomes of the rest.
                    if written
                        .last()
                        .is_some_and(|(_, before)| last(before) < last(&locations))
                    {
                        answer_all(&mut written);
                    }
                    written.push((request.answer, locations));
                }
                Err(error) => {
                    failure = Some((error, Some(request.answer)));
                    break;
                }
            }
        }
        if failure.is_none()
            && let Some(segment) = &mut self.open
            && let Err(error) = segment.flush()
        {
            failure = Some((error, None));
        }
        let Some((error, answer)) = failure else {
            return answer_all(&mut written);
        };
        self.abandon();
        let error = AppendError::Io(Arc::new(error));
        let unanswered = written.into_iter().map(|(answer, _)| answer).chain(answer);
        for answer in unanswered.chain(requests.map(|request| request.answer)) {
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// Whether the disk takes these records, before anything of them is written. Outcomes may use the reserve:
    /// recording them is what empties the spool. Free space is asked for once in a batch.
    fn room(&mut self, request: &Request, free: &mut Option<u64>) -> Result<(), AppendError> {
        let Request { records, own, .. } = request;
        if only_outcomes(records) {
            return Ok(());
        }
        let needed: u64 = records.iter().map(length).sum();
        let left = match *free {
            Some(left) => left,
            None => self
                .disk
                .free()
                .map_err(|error| AppendError::Io(Arc::new(error)))?,
        };
        let reserve = self.options.reserve_octets;
        let usable = left.saturating_sub(if *own { reserve / 2 } else { reserve });
        *free = Some(left);
        if needed > usable {
            return Err(AppendError::Full { free: usable, needed });
        }
        *free = Some(left - needed);
        Ok(())
    }

    fn write(&mut self, record: &Record) -> io::Result<Location> {
        let header = header(record).ok_or_else(|| io::Error::other("an envelope of more than 4 GiB"))?;
        let full = |segment: &Segment| {
            segment.length > 0 && segment.length + header.record_length() > self.options.segment_octets
        };
        if self.open.as_ref().is_some_and(full)
            && let Some(mut closing) = self.open.take()
        {
            // Its records are acknowledged with this batch, so they must be durable too.
            if let Err(error) = closing.flush() {
                self.open = Some(closing);
                return Err(error);
            }
            closing.seal(&mut *self.disk);
        }
        let segment = match &mut self.open {
            Some(segment) => segment,
            None => self.open.insert(Segment::create(
                &mut *self.disk,
                &mut self.next_segment,
                &self.started,
            )?),
        };
        let location = Location {
            segment: segment.number,
            offset: segment.length,
            meta_length: header.meta_length,
            body_length: header.body_length,
        };
        segment.put(&header.encode(segment.salt))?;
        segment.put(&record.meta)?;
        let checksum = segment.put_body(&record.body)?;
        segment.put(&trailer(crc32fast::hash(&record.meta), checksum))?;
        segment.index.add(&header, &record.summary);
        Ok(location)
    }

    /// Gives the segment up. What was durable stays; what was refused is cut off if that still works, so that it is
    /// not delivered after a restart besides the client's own next try.
    fn abandon(&mut self) {
        if let Some(mut segment) = self.open.take() {
            let _ = segment.file.cut(segment.durable);
            if segment.durable == 0 {
                let _ = self.disk.remove(&segment_name(segment.number, segment.salt));
            }
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
