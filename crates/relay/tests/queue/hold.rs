//! Messages that are taken before the scanners have answered. Who scans them is the test, over the handover socket as smtpd does.

use postern_control::{Change, EventKind, Filter, QueuedHold, Reply, Request};
use postern_relay::handover;
use postern_relay::handover::hold::{Client, Outcome, ToScan};
use postern_relay::spool::hold::Unscanned;
use postern_sandbox::memfd;

use std::os::fd::AsFd;
use std::path::Path;

use crate::process::{Queue, envelope, to_lmtp};
use crate::sink::Sink;

const OURS: &str = "Received: from client.example\r\n";
const THEIRS: &str = "Subject: Hello\r\n\r\nHi.\r\n";

fn configuration(sink: &Sink, hybrid: &str) -> String {
    format!(
        "{}[virus]\nsocket = \"off\"\n[hybrid]\n{hybrid}",
        to_lmtp(sink.address)
    )
}

async fn give(queue: &Queue, from: &str) -> handover::Reply {
    let message = format!("{OURS}{THEIRS}");
    let mut envelope = envelope(from, &["user@example.org"], message.len());
    envelope.recipients[0].notify = Some(vec![handover::Notify::Success, handover::Notify::Failure]);
    let unscanned = Unscanned {
        fields: OURS.len() as u64,
        evidence: "[1]".into(),
    };
    let memory = memfd::sealed(message.as_bytes()).unwrap();
    let client = queue.client("public");
    let given = client.hand_over_unscanned(&envelope, unscanned, memory.as_fd());
    given.await.unwrap()
}

async fn held(queue: &Queue, from: &str) -> String {
    match give(queue, from).await {
        handover::Reply::Queued { id } => id,
        refused => panic!("{refused:?}"),
    }
}

async fn scanner(directory: &Path) -> Client {
    Client::connect(&directory.join("run/queue/public.sock"))
        .await
        .unwrap()
}

/// The next message to scan, which must be as it was handed over.
async fn next(scanner: &Client) -> ToScan {
    let (message, memory) = loop {
        if let Some(next) = scanner.next().await.unwrap() {
            break next;
        }
    };
    assert_eq!(
        memfd::read(memory, 1000).unwrap(),
        format!("{OURS}{THEIRS}").as_bytes()
    );
    assert_eq!(
        (message.unscanned.evidence.as_str(), message.trace.len()),
        ("[1]", 16)
    );
    message
}

fn change(queue: &Queue, change: Change, id: &str) -> Result<(), String> {
    let request = Request::QueueChange {
        change,
        ids: vec![id.into()],
        reason: None,
    };
    let Reply::QueueChanged { failed, .. } = queue.request(&request) else {
        panic!("not changed")
    };
    failed.into_iter().next().map_or(Ok(()), |one| Err(one.why))
}

fn listed(queue: &Queue, filter: Filter) -> Vec<(String, bool, Option<QueuedHold>)> {
    let list = Request::QueueList {
        filter,
        after: None,
        limit: None,
    };
    let Reply::QueueList { messages, .. } = queue.request(&list) else {
        panic!("no list")
    };
    let stands = messages.into_iter().map(|one| (one.id, one.held, one.hold));
    stands.collect()
}

fn quarantined(queue: &Queue) -> Vec<(String, bool, Option<QueuedHold>)> {
    listed(
        queue,
        Filter {
            quarantined: Some(true),
            ..Filter::default()
        },
    )
}

fn state(wanted: &'static str) -> impl Fn(&EventKind) -> bool {
    move |kind| matches!(kind, EventKind::Hold { state, .. } if state == wanted)
}

fn nobody_is_told(queue: &Queue) {
    let told = |kind: &EventKind| matches!(kind, EventKind::Dsn { .. } | EventKind::Bounced { .. });
    assert!(!queue.events().iter().any(told), "{:#?}", queue.events());
}

#[tokio::test]
async fn killed_with_unscanned_mail_it_is_scanned_once_and_delivered_once() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let configuration = configuration(&sink, "");
    let queue = Queue::start(directory.path(), &configuration);
    let (one, two) = (
        held(&queue, "one@a.example").await,
        held(&queue, "two@a.example").await,
    );
    // Somebody scans the first when the power goes.
    let first = scanner(directory.path()).await;
    assert_eq!(next(&first).await.id, one);
    queue.kill();
    let mut queue = Queue::start(directory.path(), &configuration);
    let unscanned = |id: &String| (id.clone(), true, Some(QueuedHold::Unscanned { why: None }));
    assert_eq!(
        listed(&queue, Filter::default()),
        [unscanned(&one), unscanned(&two)]
    );
    for (wrong, why) in [
        (Change::ReleaseBad, "nothing passes unscanned"),
        (Change::Hold, "waits for its scan"),
        (Change::Bounce, "never bounced"),
    ] {
        let refused = change(&queue, wrong, &one).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(sink.taken(), []);
    // A release only has it scanned at once.
    change(&queue, Change::Release, &one).unwrap();
    assert_eq!(listed(&queue, Filter::default())[0], unscanned(&one));
    // Two who scan get one each, and what one drops is for the next, but not at once.
    let (first, second) = (scanner(directory.path()).await, scanner(directory.path()).await);
    assert_eq!(next(&first).await.id, one);
    assert_eq!(next(&second).await.id, two);
    drop(first);
    queue.wait("postponed", state("postponed"));
    change(&queue, Change::Retry, &one).unwrap();
    let third = scanner(directory.path()).await;
    assert_eq!(next(&third).await.id, one);
    third
        .scanned(Outcome::Clean("X-Spam-Score: 1.0\r\n".into()))
        .await
        .unwrap();
    let again = third.scanned(Outcome::Clean(String::new())).await.unwrap_err();
    assert!(again.to_string().contains("no message is out"), "{again}");
    let taken = sink.wait("the first", |taken| !taken.is_empty());
    assert_eq!(taken[0].content, format!("{OURS}X-Spam-Score: 1.0\r\n{THEIRS}"));
    assert_eq!(taken[0].from, "one@a.example");
    queue.wait("its end", |kind| matches!(kind, EventKind::Removed));
    queue.kill();
    let queue = Queue::start(directory.path(), &configuration);
    assert_eq!(listed(&queue, Filter::default()), [unscanned(&two)]);
    let last = scanner(directory.path()).await;
    assert_eq!(next(&last).await.id, two);
    last.scanned(Outcome::Clean(String::new())).await.unwrap();
    let taken = sink.wait("the second", |taken| taken.len() > 1);
    let from: Vec<_> = taken.iter().map(|taken| taken.from.as_str()).collect();
    assert_eq!(from, ["one@a.example", "two@a.example"]);
    queue.stop();
}

#[tokio::test]
async fn what_is_found_late_is_in_quarantine_and_nobody_hears_of_it() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let configuration = configuration(&sink, "");
    let queue = Queue::start(directory.path(), &configuration);
    let (one, two) = (
        held(&queue, "one@a.example").await,
        held(&queue, "two@a.example").await,
    );
    let scanner = scanner(directory.path()).await;
    for _ in 0..2 {
        next(&scanner).await;
        scanner
            .scanned(Outcome::Bad("virus: Eicar".into()))
            .await
            .unwrap();
    }
    nobody_is_told(&queue);
    queue.kill();
    let mut queue = Queue::start(directory.path(), &configuration);
    let bad = |id: &String| {
        let reason = "virus: Eicar".into();
        (id.clone(), true, Some(QueuedHold::Bad { reason }))
    };
    assert_eq!(quarantined(&queue), [bad(&one), bad(&two)]);
    let refused = change(&queue, Change::Release, &one).unwrap_err();
    assert!(
        refused.contains("IT WAS FOUND TO BE BAD: virus: Eicar"),
        "{refused}"
    );
    assert!(change(&queue, Change::Bounce, &one).is_err());
    change(&queue, Change::Cancel, &one).unwrap();
    nobody_is_told(&queue);
    assert_eq!(quarantined(&queue), [bad(&two)]);
    assert_eq!(sink.taken(), []);
    change(&queue, Change::ReleaseBad, &two).unwrap();
    let loud = queue.wait("a warning", |kind| matches!(kind, EventKind::Warning { .. }));
    assert!(
        loud.to_string()
            .contains("ALTHOUGH IT WAS FOUND TO BE BAD: virus: Eicar"),
        "{loud}"
    );
    let taken = sink.wait("what was released", |taken| !taken.is_empty());
    assert_eq!(taken[0].from, "two@a.example");
    queue.stop();
}

#[tokio::test]
async fn without_an_answer_mail_comes_into_quarantine_and_is_scanned_when_it_is_released() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let short = configuration(&sink, "lifetime = 1\n");
    let mut queue = Queue::start(directory.path(), &short);
    let id = held(&queue, "one@a.example").await;
    let first = scanner(directory.path()).await;
    next(&first).await;
    first
        .scanned(Outcome::NoAnswer("virus: clamd is dead".into()))
        .await
        .unwrap();
    queue.wait("postponed", state("postponed"));
    queue.wait("expired", state("expired"));
    nobody_is_told(&queue);
    queue.kill();
    let mut queue = Queue::start(directory.path(), &configuration(&sink, ""));
    assert_eq!(
        quarantined(&queue),
        [(id.clone(), true, Some(QueuedHold::Expired { why: None }))]
    );
    assert_eq!(sink.taken(), []);
    change(&queue, Change::Release, &id).unwrap();
    queue.wait("it is to be scanned again", state("again"));
    assert_eq!(sink.taken(), []);
    let last = scanner(directory.path()).await;
    assert_eq!(next(&last).await.id, id);
    last.scanned(Outcome::Clean(String::new())).await.unwrap();
    sink.wait("it", |taken| taken.len() == 1);
    queue.stop();
}

#[tokio::test]
async fn a_full_hold_takes_nothing_and_has_room_again() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let queue = Queue::start(directory.path(), &configuration(&sink, "max-messages = 1\n"));
    let id = held(&queue, "one@a.example").await;
    let handover::Reply::Refused { code, text, .. } = give(&queue, "two@a.example").await else {
        panic!("it was taken")
    };
    assert_eq!(code, 451);
    assert!(text.contains("no room to hold the message"), "{text}");
    let metrics = queue.ask(r#"{"request":"metrics"}"#)["text"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        metrics.contains("postern_hold_messages{process=\"queue\",state=\"unscanned\"} 1\n"),
        "{metrics}"
    );
    change(&queue, Change::Cancel, &id).unwrap();
    held(&queue, "three@a.example").await;
    assert_eq!(sink.taken(), []);
    queue.stop();
}
