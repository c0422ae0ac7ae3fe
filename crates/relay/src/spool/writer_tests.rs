//! The writer against a disk whose operations fail at will.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::spool::disk::Append;
use crate::spool::record::HEADER;

/// What a file holds.
type Octets = Arc<Mutex<Vec<u8>>>;

/// What the disk did, and what it shall refuse to do.
#[derive(Default)]
struct Script {
    flushes: AtomicU64,
    writes: AtomicU64,
    free: AtomicU64,
    fail_flush: Mutex<bool>,
    /// The flush with this number fails; the first is 1.
    fail_flush_number: AtomicU64,
    fail_write: Mutex<bool>,
    /// A flush waits for this lock, so that a test can let requests gather.
    gate: Mutex<()>,
    files: Mutex<Vec<(String, Octets)>>,
}

struct Scripted(Arc<Script>);
struct ScriptedFile(Arc<Script>, Arc<Mutex<Vec<u8>>>);

impl Disk for Scripted {
    fn create(&mut self, name: &str) -> io::Result<Box<dyn Append>> {
        let octets = Arc::new(Mutex::new(Vec::new()));
        self.0.files.lock().unwrap().push((name.into(), octets.clone()));
        Ok(Box::new(ScriptedFile(self.0.clone(), octets)))
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.files.lock().unwrap().retain(|(known, _)| known != name);
        Ok(())
    }
    fn settle(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn rename(&mut self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn free(&mut self) -> io::Result<u64> {
        Ok(self.0.free.load(Ordering::SeqCst))
    }
}

impl Append for ScriptedFile {
    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        if std::mem::take(&mut *self.0.fail_write.lock().unwrap()) {
            self.1
                .lock()
                .unwrap()
                .extend_from_slice(&octets[..octets.len() / 2]);
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        self.1.lock().unwrap().extend_from_slice(octets);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        let _gate = self.0.gate.lock().unwrap();
        let number = self.0.flushes.fetch_add(1, Ordering::SeqCst) + 1;
        if std::mem::take(&mut *self.0.fail_flush.lock().unwrap())
            || number == self.0.fail_flush_number.load(Ordering::SeqCst)
        {
            return Err(io::Error::other("the disk lost it"));
        }
        Ok(())
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.1.lock().unwrap().truncate(usize::try_from(length).unwrap());
        Ok(())
    }
}

fn writer(options: Options) -> (Arc<Script>, Writer) {
    let script = Arc::new(Script {
        free: AtomicU64::new(1 << 40),
        ..Script::default()
    });
    let (writer, _) = Writer::start(Box::new(Scripted(script.clone())), options, 1, |_| ()).unwrap();
    (script, writer)
}

fn message(id: u64, octets: usize) -> Vec<Record> {
    let body = Body::Octets(vec![b'x'; octets].into());
    vec![Record {
        kind: Kind::Message,
        id: MessageId(id),
        meta: b"{}".to_vec(),
        summary: Vec::new(),
        body,
    }]
}

#[tokio::test]
#[allow(
    clippy::await_holding_lock,
    reason = "the lock holds up the writer's thread, not this task's"
)]
async fn requests_that_wait_share_one_flush() {
    let (script, writer) = writer(Options::default());
    let gate = script.gate.lock().unwrap();
    let first = tokio::spawn({
        let writer = writer.clone();
        async move { writer.append(message(0, 10)).await }
    });
    while script.writes.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // The first is being flushed; a hundred gather behind it.
    let (answers, mut requests) = (mpsc::unbounded_channel(), Vec::new());
    for id in 1..=100 {
        let (writer, done) = (writer.clone(), answers.0.clone());
        let mut append = Box::pin(async move { done.send(writer.append(message(id, 10)).await.is_ok()) });
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(append.as_mut().poll(cx).is_pending())).await
        );
        requests.push(append);
    }
    drop(gate);
    first.await.unwrap().unwrap();
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!(script.flushes.load(Ordering::SeqCst), 2);
    assert_eq!(script.writes.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_failed_flush_abandons_the_segment_and_is_not_tried_again() {
    let (script, writer) = writer(Options::default());
    let kept = writer.append(message(1, 10)).await.unwrap();
    *script.fail_flush.lock().unwrap() = true;
    assert!(matches!(
        writer.append(message(2, 10)).await,
        Err(AppendError::Io(_))
    ));
    assert_eq!(script.flushes.load(Ordering::SeqCst), 2);
    let after = writer.append(message(3, 10)).await.unwrap();
    assert_eq!((kept[0].segment, after[0].segment, after[0].offset), (1, 2, 0));
    // What was refused is cut off, what was acknowledged is not.
    let first = script.files.lock().unwrap()[0].1.lock().unwrap().len();
    assert_eq!(first, HEADER + 2 + 10 + 8);
}

#[tokio::test]
async fn a_failed_write_refuses_and_leaves_no_empty_segment() {
    let (script, writer) = writer(Options::default());
    *script.fail_write.lock().unwrap() = true;
    assert!(matches!(
        writer.append(message(1, 10)).await,
        Err(AppendError::Io(_))
    ));
    assert!(script.files.lock().unwrap().is_empty());
    assert_eq!(writer.append(message(2, 10)).await.unwrap()[0].segment, 2);
}

#[tokio::test]
async fn a_full_disk_takes_outcomes_and_refuses_messages_before_writing() {
    let (script, writer) = writer(Options::default());
    script
        .free
        .store(Options::default().reserve_octets + 100, Ordering::SeqCst);
    assert!(matches!(
        writer.append(message(1, 200)).await,
        Err(AppendError::Full { free: 100, .. })
    ));
    assert_eq!(script.writes.load(Ordering::SeqCst), 0);
    let outcome = Record {
        kind: Kind::Outcome,
        id: MessageId(1),
        meta: vec![b' '; 200],
        summary: Vec::new(),
        body: Body::none(),
    };
    writer.append(vec![outcome]).await.unwrap();
    writer.append(message(2, 10)).await.unwrap();
    // Notifications and copies, without which it would never empty, have half of the reserve.
    writer.append_own(message(3, 200)).await.unwrap();
    script
        .free
        .store(Options::default().reserve_octets / 2 + 100, Ordering::SeqCst);
    assert!(matches!(
        writer.append_own(message(4, 200)).await,
        Err(AppendError::Full { free: 100, .. })
    ));
}

#[tokio::test]
#[allow(
    clippy::await_holding_lock,
    reason = "the lock holds up the writer's thread, not this task's"
)]
async fn what_a_closed_segment_holds_is_acknowledged_even_if_the_next_fails() {
    let (script, writer) = writer(Options {
        segment_octets: 1000,
        ..Options::default()
    });
    let gate = script.gate.lock().unwrap();
    let first = tokio::spawn({
        let writer = writer.clone();
        async move { writer.append(message(0, 10)).await }
    });
    while script.writes.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // One batch: 1 and 2 end the first segment, whose flush is the second; 3 begins the next, whose flush is lost.
    script.fail_flush_number.store(3, Ordering::SeqCst);
    let mut requests: Vec<_> = (1..=3)
        .map(|id| {
            let writer = writer.clone();
            Box::pin(async move { writer.append(message(id, 300)).await })
        })
        .collect();
    for request in &mut requests {
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(request.as_mut().poll(cx).is_pending())).await
        );
    }
    drop(gate);
    assert_eq!(first.await.unwrap().unwrap()[0].segment, 1);
    let mut answers = Vec::new();
    for request in requests {
        answers.push(request.await.map(|places| places[0].segment).ok());
    }
    assert_eq!(answers, [Some(1), Some(1), None]);
}

#[tokio::test]
async fn segments_are_bounded() {
    let (script, writer) = writer(Options {
        segment_octets: 1000,
        ..Options::default()
    });
    let mut segments = Vec::new();
    for id in 0..10 {
        segments.push(writer.append(message(id, 300)).await.unwrap()[0].segment);
    }
    assert_eq!(segments, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    assert_eq!(
        writer.append(message(10, 5000)).await.unwrap()[0],
        Location {
            segment: 6,
            offset: 0,
            meta_length: 2,
            body_length: 5000
        }
    );
    assert_eq!(writer.append(message(11, 10)).await.unwrap()[0].segment, 7);
    assert!(
        script
            .files
            .lock()
            .unwrap()
            .iter()
            .all(|(_, octets)| octets.lock().unwrap().len() < 6000)
    );
}

fn outcome(id: u64) -> Vec<Record> {
    vec![Record {
        kind: Kind::Outcome,
        id: MessageId(id),
        meta: b"{}".to_vec(),
        summary: Vec::new(),
        body: Body::none(),
    }]
}

#[tokio::test]
async fn outcomes_share_the_flush_of_the_next_message() {
    let patient = Options {
        outcomes_wait: Duration::from_mins(10),
        ..Options::default()
    };
    let (script, writer) = writer(patient);
    let (first, second) = (writer.append(outcome(1)), writer.append(outcome(2)));
    // The test would time out if outcomes held up a message.
    let message = writer.append(message(3, 10));
    let (first, second, message) = tokio::join!(first, second, message);
    let places = [first, second, message].map(|answer| answer.unwrap()[0].offset);
    assert_eq!(places, [0, 46, 92]);
    assert_eq!(script.flushes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn outcomes_do_not_wait_for_ever() {
    let (script, writer) = writer(Options::default());
    writer.append(outcome(1)).await.unwrap();
    assert_eq!(script.flushes.load(Ordering::SeqCst), 1);
}
