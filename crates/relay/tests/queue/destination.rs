//! A destination that cannot be reached: its mail waits as a whole, other mail goes on, and all leaves when it is back.

use std::collections::BTreeSet;
use std::net::TcpListener;

use postern_control::{Change, EventKind, Reply, Request};
use postern_relay::handover;

use crate::operator::configuration;
use crate::process::{Queue, envelope, hand_over};
use crate::sink::Sink;

const MESSAGE: &[u8] = b"Subject: Hello\r\n\r\nHi.\r\n";
const MESSAGES: usize = 60;

async fn give(queue: &Queue, to: &str) -> String {
    give_from(queue, "app@example.org", to).await
}

async fn give_from(queue: &Queue, from: &str, to: &str) -> String {
    let envelope = envelope(from, &[to], MESSAGE.len());
    match hand_over(&queue.client("inside"), &envelope, MESSAGE)
        .await
        .unwrap()
    {
        handover::Reply::Queued { id } => id,
        refused => panic!("{refused:?}"),
    }
}

fn tried(queue: &Queue) -> BTreeSet<String> {
    let events = queue.events().into_iter();
    events
        .filter_map(|kind| match kind {
            EventKind::Attempt { recipient, .. } => Some(recipient),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn mail_for_a_dead_host_waits_together_and_leaves_when_it_is_back() {
    let (directory, store) = (tempfile::tempdir().unwrap(), Sink::start());
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // One wait, longer than the test: only `retry` opens the destination.
    let configuration = configuration(dead, &store)
        .replace("retry = [1]", "retry = [600]")
        .replace("expire = 300", "expire = 3000");
    let mut queue = Queue::start(directory.path(), &configuration);
    let mut last = String::new();
    for number in 0..MESSAGES {
        last = give(&queue, &format!("user{number}@far.example")).await;
    }
    queue.wait("a failure", |kind| matches!(kind, EventKind::Deferred { .. }));
    give(&queue, "user@example.org").await;
    store.wait("mail for another host", |taken| !taken.is_empty());
    // Five places of a destination of which nothing is known, refilled at most while one of them fails.
    let far = |tried: &BTreeSet<String>| tried.iter().filter(|to| to.ends_with("@far.example")).count();
    let before = far(&tried(&queue));
    assert!(before <= 10, "{before} of {MESSAGES} messages were tried");
    let Reply::QueueShow { message, .. } = queue.request(&Request::QueueShow { id: last.clone() }) else {
        panic!("not shown")
    };
    let waits = &message.recipients[0];
    assert_eq!(waits.attempts, 0);
    assert!(
        waits.next_attempt > message.arrived && waits.last_reply.starts_with("451 4.4.1"),
        "it is shown to wait for its destination: {waits:?}"
    );
    let back = Sink::start_at(dead);
    let retry = Request::QueueChange {
        change: Change::Retry,
        ids: vec![last],
        reason: None,
    };
    assert!(matches!(queue.request(&retry), Reply::QueueChanged { done, .. } if done.len() == 1));
    // Those that were tried have recorded a time of their own.
    let taken = back.wait("what waited", |taken| taken.len() >= MESSAGES - before);
    let mailboxes: BTreeSet<&str> = taken.iter().map(|taken| taken.to.as_str()).collect();
    assert_eq!(mailboxes.len(), taken.len(), "something came twice");
    queue.stop();
}

#[tokio::test]
async fn what_was_never_tried_is_given_up_when_its_time_runs_out() {
    let (directory, store) = (tempfile::tempdir().unwrap(), Sink::start());
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let configuration = configuration(dead, &store).replace("expire = 300", "expire = 3");
    let queue = Queue::start(directory.path(), &configuration);
    for number in 0..20 {
        give(&queue, &format!("user{number}@far.example")).await;
    }
    let told = store.wait("all notifications", |taken| taken.len() >= 20);
    assert!(told.iter().all(|told| told.content.contains("Status: 4.4.7\r\n")));
    let recipients: BTreeSet<&str> = told
        .iter()
        .filter_map(|told| {
            told.content
                .lines()
                .find(|line| line.starts_with("Final-Recipient: "))
        })
        .collect();
    assert_eq!(recipients.len(), 20);
    queue.stop();
}

#[tokio::test]
async fn a_host_that_refuses_all_mail_alike_is_not_asked_for_each_message() {
    let (directory, store, busy) = (tempfile::tempdir().unwrap(), Sink::start(), Sink::start());
    let configuration = configuration(busy.address, &store)
        .replace("retry = [1]", "retry = [600]")
        .replace("expire = 300", "expire = 3000");
    let mut queue = Queue::start(directory.path(), &configuration);
    for number in 0..MESSAGES {
        give_from(&queue, "busy@example.org", &format!("user{number}@far.example")).await;
    }
    let deferred = queue.wait("a failure", |kind| matches!(kind, EventKind::Deferred { .. }));
    assert!(matches!(deferred, EventKind::Deferred { reply, .. } if reply.starts_with("421 4.3.2")));
    give(&queue, "user@example.org").await;
    store.wait("mail for another host", |taken| !taken.is_empty());
    let asked = busy
        .commands()
        .iter()
        .filter(|line| line.starts_with("MAIL"))
        .count();
    assert!(asked <= 10, "MAIL was said {asked} times for {MESSAGES} messages");
    queue.stop();
}
