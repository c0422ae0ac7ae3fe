//! Which host of a domain, and which address of it, gets the mail: each of them a listener on a real socket, or none.

use std::net::{Ipv4Addr, Ipv6Addr};

use postern_control::EventKind;

use crate::names::World;
use crate::outward::{configuration, try_all};
use crate::process::{Queue, envelope, hand_over};
use crate::sink::Sink;
use crate::tls::host_at;

const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 26, 1);
const SOMEBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 26, 2);

fn recipients(sink: &Sink) -> Vec<String> {
    let domain = |to: String| to.split_once('@').unwrap().1.to_owned();
    sink.taken().into_iter().map(|taken| domain(taken.to)).collect()
}

/// Tries these domains, whose hosts listen at `port` if they do at all.
async fn all_are_taken(world: World, port: u16, domains: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(world.serve(), port, "");
    let (results, _) = try_all(directory.path(), &configuration, domains).await;
    for (domain, result) in domains.iter().zip(results) {
        assert_eq!(result, Ok("none clear".into()), "{domain}");
    }
}

#[tokio::test]
async fn a_host_with_an_ipv6_address_alone_gets_mail() {
    let sink = Sink::start();
    let port = host_at((Ipv6Addr::LOCALHOST, 0).into(), &sink, None).port();
    let mut world = World::default();
    world
        .mx("six.example", 10, "mx.six.example")
        .address("mx.six.example", Ipv6Addr::LOCALHOST);
    world.address("implicit.example", Ipv6Addr::LOCALHOST);
    let domains = ["six.example", "implicit.example"];
    all_are_taken(world, port, &domains).await;
    assert_eq!(recipients(&sink), domains);
}

#[tokio::test]
async fn where_nobody_listens_at_the_ipv6_address_the_other_is_tried() {
    let sink = Sink::start();
    let port = host_at((SOMEBODY, 0).into(), &sink, None).port();
    let mut world = World::default();
    world
        .mx("both.example", 10, "mx.both.example")
        .address("mx.both.example", Ipv6Addr::LOCALHOST)
        .address("mx.both.example", SOMEBODY);
    all_are_taken(world, port, &["both.example"]).await;
    assert_eq!(recipients(&sink), ["both.example"]);
}

#[tokio::test]
async fn where_nobody_listens_at_the_best_host_the_next_is_tried() {
    let sink = Sink::start();
    let port = host_at((SOMEBODY, 0).into(), &sink, None).port();
    let mut world = World::default();
    world
        .mx("backup.example", 10, "first.backup.example")
        .mx("backup.example", 20, "second.backup.example");
    world
        .address("first.backup.example", NOBODY)
        .address("second.backup.example", SOMEBODY);
    all_are_taken(world, port, &["backup.example"]).await;
    assert_eq!(recipients(&sink), ["backup.example"]);
}

/// RFC 7505: given up at once, and the sender is told why.
#[tokio::test]
async fn a_domain_with_a_null_mx_is_not_tried_and_the_sender_is_told() {
    let sink = Sink::start();
    let port = host_at((SOMEBODY, 0).into(), &sink, None).port();
    let mut world = World::default();
    world
        .mx("never.example", 0, ".")
        .address("never.example", SOMEBODY);
    world
        .mx("example.org", 10, "mx.example.org")
        .address("mx.example.org", SOMEBODY);
    let directory = tempfile::tempdir().unwrap();
    let mut queue = Queue::start(directory.path(), &configuration(world.serve(), port, ""));
    let message = b"Subject: Hello\r\n\r\nHi.\r\n";
    let envelope = envelope("app@example.org", &["user@never.example"], message.len());
    hand_over(&queue.client("inside"), &envelope, message)
        .await
        .unwrap();
    let bounced = queue.wait("its end", |kind| matches!(kind, EventKind::Bounced { .. }));
    assert!(
        matches!(&bounced, EventKind::Bounced { reply, .. } if reply.starts_with("556 5.1.10")),
        "{bounced:?}"
    );
    let told = &sink.wait("the notification", |taken| !taken.is_empty())[0];
    assert_eq!((told.from.as_str(), told.to.as_str()), ("", "app@example.org"));
    for line in [
        "Final-Recipient: rfc822; user@never.example\r\n",
        "Action: failed\r\n",
        "Status: 5.1.10\r\n",
    ] {
        assert!(told.content.contains(line), "{line} in {}", told.content);
    }
    assert!(told.content.contains("takes no mail"), "{}", told.content);
    queue.stop();
}
