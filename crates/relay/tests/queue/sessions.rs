//! Messages for one destination share its sessions, and a session that ends between two messages is nobody's failure.

use postern_control::EventKind;
use postern_relay::handover;

use crate::process::{Queue, envelope, hand_over, to_lmtp};
use crate::sink::Sink;

const MESSAGE: &[u8] = b"Subject: Hello\r\n\r\nHi.\r\n";

/// Hands messages over one after the other, each when the one before has arrived.
async fn send(queue: &Queue, sink: &Sink, mailbox: impl Fn(usize) -> String, count: usize) {
    for number in 0..count {
        let to = mailbox(number);
        let envelope = envelope("app@example.org", &[&to], MESSAGE.len());
        let reply = hand_over(&queue.client("inside"), &envelope, MESSAGE)
            .await
            .unwrap();
        assert!(matches!(reply, handover::Reply::Queued { .. }));
        sink.wait(&to, |taken| taken.len() > number);
    }
}

#[tokio::test]
async fn a_session_takes_one_message_after_the_other() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let queue = Queue::start(directory.path(), &to_lmtp(sink.address));
    send(&queue, &sink, |number| format!("user{number}@example.org"), 20).await;
    assert!(
        sink.sessions() < 10,
        "{} sessions for 20 messages",
        sink.sessions()
    );
    let before = sink.sessions();
    let later = envelope(
        "app@example.org",
        &["later@example.org", "user@example.org"],
        MESSAGE.len(),
    );
    hand_over(&queue.client("inside"), &later, MESSAGE).await.unwrap();
    sink.wait("both recipients", |taken| taken.len() == 22);
    assert!(sink.sessions() <= before + 2);
    queue.stop();
}

#[tokio::test]
async fn a_connection_lost_between_messages_fails_none() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let queue = Queue::start(directory.path(), &to_lmtp(sink.address));
    send(&queue, &sink, |number| format!("bye{number}@example.org"), 20).await;
    assert_eq!(sink.sessions(), 20);
    let failed = |kind: &&EventKind| matches!(kind, EventKind::Deferred { .. } | EventKind::Bounced { .. });
    assert_eq!(queue.events().iter().find(failed), None);
    assert_eq!(sink.taken().len(), 20, "something came twice");
    queue.stop();
}
