//! SIGKILL at a fixed sample of moments under load: what was acknowledged arrives, unaltered; duplicates are no more
//! than what was under way.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postern_relay::handover::Reply;

use crate::process::{Queue, envelope, hand_over, to_lmtp};
use crate::sink::Sink;

/// Milliseconds under load before each kill.
const MOMENTS: [u64; 12] = [3, 5, 9, 14, 22, 35, 55, 80, 120, 180, 260, 400];
const CLIENTS: usize = 8;
/// `concurrency-per-destination` by default.
pub(crate) const UNDER_WAY: usize = 10;

/// Content of message `number`: sizes from 100 octets to over a megabyte, recognisable, with dots to stuff.
pub(crate) fn content(number: usize) -> String {
    let lines = match number % 20 {
        0 => 20_000,
        1..5 => 700,
        _ => 1 + number % 7,
    };
    let mut body = String::new();
    for line in 0..lines {
        let _ = write!(body, ".{number} line {line} of a message that must arrive\r\n");
    }
    format!("From: <app@example.org>\r\nX-Number: {number}\r\n\r\n{body}")
}

pub(crate) fn number_of(content: &str) -> usize {
    let line = content
        .lines()
        .find_map(|line| line.strip_prefix("X-Number: "))
        .unwrap();
    line.parse().unwrap()
}

/// Hands over until the queue goes away; says which messages were acknowledged.
fn load(queue: Queue, numbers: &Arc<Mutex<usize>>, moment: Duration) -> Vec<usize> {
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, numbers, acknowledged) =
                (queue.client("inside"), numbers.clone(), acknowledged.clone());
            clients.spawn(async move {
                loop {
                    let number = {
                        let mut numbers = numbers.lock().unwrap();
                        *numbers += 1;
                        *numbers
                    };
                    let message = content(number);
                    let envelope = envelope("app@example.org", &["user@example.org"], message.len());
                    match hand_over(&client, &envelope, message.as_bytes()).await {
                        Some(Reply::Queued { .. }) => acknowledged.lock().unwrap().push(number),
                        Some(refused) => panic!("{refused:?}"),
                        None => return,
                    }
                }
            });
        }
        while acknowledged.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(moment).await;
        queue.kill();
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    });
    Arc::try_unwrap(acknowledged).unwrap().into_inner().unwrap()
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sink = Sink::start();
    let configuration = to_lmtp(sink.address);
    let numbers = Arc::new(Mutex::new(0));
    let mut acknowledged = Vec::new();
    for moment in MOMENTS {
        let queue = Queue::start(directory.path(), &configuration);
        acknowledged.extend(load(queue, &numbers, Duration::from_millis(moment)));
    }
    let queue = Queue::start(directory.path(), &configuration);
    let arrived = |taken: &[crate::sink::Taken]| {
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        for taken in taken {
            *times.entry(number_of(&taken.content)).or_default() += 1;
        }
        times
    };
    let taken = sink.wait("all acknowledged messages", |taken| {
        let times = arrived(taken);
        acknowledged.iter().all(|number| times.contains_key(number))
    });
    assert!(acknowledged.len() > MOMENTS.len());
    for taken in &taken {
        assert_eq!(taken.content, content(number_of(&taken.content)), "altered");
    }
    let duplicates: usize = arrived(&taken).values().map(|times| times - 1).sum();
    assert!(duplicates <= MOMENTS.len() * UNDER_WAY, "{duplicates} duplicates");
    println!(
        "{} acknowledged, {duplicates} duplicates, {} kills",
        acknowledged.len(),
        MOMENTS.len()
    );
    queue.stop();
}
