//! In which order mail goes to one destination that has a place for one message at a time, and when it goes again.

use std::sync::Arc;

use mail_parser::DateTime;
use postern_control::EventKind;
use postern_relay::handover::{Client, Reply};
use tokio::task::JoinSet;

use crate::process::{Queue, envelope, hand_over, to_lmtp};
use crate::sink::{Sink, Taken};

const NEWSLETTERS: usize = 2000;
const NEWSLETTER: &[u8] = b"Subject: News\r\nPrecedence: bulk\r\n\r\nNews.\r\n";
const RESET: &[u8] = b"Subject: Your password\r\n\r\nA link.\r\n";

async fn give(client: &Client, from: &str, to: &str, message: &[u8]) {
    let envelope = envelope(from, &[to], message.len());
    let reply = hand_over(client, &envelope, message).await;
    assert!(matches!(reply, Some(Reply::Queued { .. })), "{reply:?}");
}

/// Where in the order of arrival this sender's mail is.
fn places(taken: &[Taken], from: &str) -> Vec<usize> {
    let places = taken.iter().enumerate();
    places
        .filter_map(|(place, one)| (one.from == from).then_some(place))
        .collect()
}

#[tokio::test]
async fn what_somebody_waits_for_overtakes_newsletters_and_senders_take_turns() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let configuration =
        to_lmtp(sink.address).replace("expire = 20", "expire = 300\nconcurrency-per-destination = 1");
    let queue = Queue::start(directory.path(), &configuration);
    let client = Arc::new(queue.client("inside"));
    // It takes the only place until the test lets it go.
    give(&client, "app@example.org", "slow@example.org", RESET).await;
    sink.wait("the slow delivery", |taken| taken.len() == 1);
    let mut given = JoinSet::new();
    for number in 0..NEWSLETTERS {
        let client = client.clone();
        given.spawn(async move {
            let to = format!("reader{number}@example.org");
            give(&client, "news@example.org", &to, NEWSLETTER).await;
        });
        if given.len() == 32 {
            given.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = given.join_next().await {
        done.unwrap();
    }
    for number in 0..3 {
        let to = format!("member{number}@example.org");
        give(&client, "club@example.org", &to, NEWSLETTER).await;
    }
    for number in 0..3 {
        let to = format!("customer{number}@example.org");
        give(&client, "shop@example.org", &to, RESET).await;
    }
    sink.answer_slow();
    let all = |taken: &[Taken]| {
        places(taken, "shop@example.org").len() == 3 && places(taken, "club@example.org").len() == 3
    };
    let taken = sink.wait("resets, and the other sender's newsletters", all);
    // The slow one, and a newsletter that had its turn when that had ended.
    let resets = places(&taken, "shop@example.org");
    assert!(resets.iter().all(|place| *place <= 4), "{resets:?}");
    // Then the two who send newsletters in turn: one behind 2000 others would be last.
    let club = places(&taken, "club@example.org");
    assert!(club.iter().all(|place| *place <= 10), "{club:?}");
    let customers: Vec<&str> = resets.iter().map(|place| taken[*place].to.as_str()).collect();
    assert_eq!(
        customers,
        [
            "customer0@example.org",
            "customer1@example.org",
            "customer2@example.org"
        ]
    );
}

/// Of two waits the second is the longer one, and is the one after the second failure.
#[tokio::test]
async fn each_failure_waits_as_the_schedule_says() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let configuration = to_lmtp(sink.address)
        .replace("retry = [1]", "retry = [1, 600]")
        .replace("expire = 20", "expire = 3000");
    let mut queue = Queue::start(directory.path(), &configuration);
    give(
        &queue.client("inside"),
        "app@example.org",
        "never@example.org",
        RESET,
    )
    .await;
    let first = queue.wait("the first failure", |kind| due(kind).is_some());
    let second = queue.wait("the second", |kind| due(kind).is_some() && *kind != first);
    // That the second came at all says that the first wait was not the long one.
    let between = due(&second).unwrap() - due(&first).unwrap();
    assert!(between >= 600, "{between} s");
    queue.stop();
}

/// When a recipient that failed is tried again, in seconds since 1970.
fn due(kind: &EventKind) -> Option<i64> {
    match kind {
        EventKind::Deferred { next_attempt, .. } => {
            Some(DateTime::parse_rfc3339(next_attempt)?.to_timestamp())
        }
        _ => None,
    }
}
