//! A stop while a delivery waits for its last reply: it ends, its outcome is kept, nothing comes twice, nothing is lost.

use postern_control::EventKind;
use postern_relay::handover::Reply;

use crate::process::{Queue, envelope, hand_over, to_lmtp};
use crate::sink::Sink;

const MESSAGE: &[u8] = b"Subject: Hello\r\n\r\nHi.\r\n";

#[tokio::test]
async fn a_stop_lets_deliveries_end_and_takes_nothing_more() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    // One session at a time, so that the second message waits behind the first.
    let configuration =
        to_lmtp(sink.address).replace("expire = 20", "expire = 300\nconcurrency-per-destination = 1");
    let mut queue = Queue::start(directory.path(), &configuration);
    let client = queue.client("inside");
    let slow = envelope("app@example.org", &["slow@example.org"], MESSAGE.len());
    let next = envelope("app@example.org", &["next@example.org"], MESSAGE.len());
    let queued = |reply| matches!(reply, Some(Reply::Queued { .. }));
    assert!(queued(hand_over(&client, &slow, MESSAGE).await));
    sink.wait("the slow delivery", |taken| taken.len() == 1);
    assert!(queued(hand_over(&client, &next, MESSAGE).await));
    queue.terminate();
    queue.wait("the stop", |kind| matches!(kind, EventKind::Stopping { .. }));
    assert!(
        !queued(hand_over(&client, &next, MESSAGE).await),
        "taken after the stop"
    );
    sink.answer_slow();
    queue.wait(
        "the outcome",
        |kind| matches!(kind, EventKind::Delivered { recipient, .. } if recipient == "slow@example.org"),
    );
    queue.ended();
    assert_eq!(sink.taken().len(), 1, "nothing new is begun");
    let mut queue = Queue::start(directory.path(), &configuration);
    sink.wait("what waited", |taken| taken.len() == 2);
    queue.wait("its end", |kind| matches!(kind, EventKind::Removed));
    let to: Vec<String> = sink.taken().into_iter().map(|taken| taken.to).collect();
    assert_eq!(to, ["slow@example.org", "next@example.org"]);
    queue.stop();
}
