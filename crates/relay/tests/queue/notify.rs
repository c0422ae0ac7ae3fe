//! What becomes of mail that cannot be delivered, and who is told.

use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use postern_control::EventKind;
use postern_relay::handover::{Notify, Reply};

use crate::process::{HEAD, Queue, envelope, hand_over, to_lmtp};
use crate::sink::Sink;

const MESSAGE: &[u8] = b"From: <a@a.example>\r\nSubject: Hello\r\n\r\nHi.\r\n";

async fn give(
    queue: &Queue,
    instance: &str,
    from: &str,
    to: &[&str],
    change: impl Fn(&mut postern_relay::handover::Envelope),
) -> Reply {
    let mut envelope = envelope(from, to, MESSAGE.len());
    change(&mut envelope);
    hand_over(&queue.client(instance), &envelope, MESSAGE)
        .await
        .unwrap()
}

#[tokio::test]
async fn failures_are_told_to_the_sender_and_others_get_their_mail() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let mut queue = Queue::start(directory.path(), &to_lmtp(sink.address));
    let to = ["user@example.org", "refuse@example.org", "later@example.org"];
    let Reply::Queued { id } = give(&queue, "inside", "app@example.org", &to, |_| ()).await else {
        panic!()
    };
    let taken = sink.wait("three messages", |taken| taken.len() == 3);
    let to: Vec<&str> = taken.iter().map(|taken| taken.to.as_str()).collect();
    assert_eq!(to[0], "user@example.org");
    assert!(to.contains(&"later@example.org") && to.contains(&"app@example.org"));
    let dsn = taken.iter().find(|taken| taken.to == "app@example.org").unwrap();
    assert_eq!(dsn.from, "");
    for line in [
        "Content-Type: multipart/report; report-type=delivery-status;",
        "Final-Recipient: rfc822; refuse@example.org",
        "Status: 5.1.1",
        "Diagnostic-Code: smtp; 550 5.1.1 no such mailbox",
        "Subject: Hello",
    ] {
        assert!(
            dsn.content.contains(&format!("{line}\r\n")),
            "{line} is not in\n{}",
            dsn.content
        );
    }
    assert!(!dsn.content.contains("Hi.\r\n") && !dsn.content.contains("user@example.org"));
    queue.wait(
        "the delay",
        |kind| matches!(kind, EventKind::Deferred { recipient, .. } if recipient.starts_with("later")),
    );
    let delivered = queue.wait("delivery", |kind| matches!(kind, EventKind::Delivered { .. }));
    let EventKind::Delivered { reply, .. } = delivered else {
        unreachable!()
    };
    assert_eq!(reply, "250 2.0.0 queued as SINK");
    queue.wait("the end", |kind| matches!(kind, EventKind::Removed));
    assert_eq!(id.len(), 14);
    queue.stop();
}

#[tokio::test]
async fn strangers_who_prove_nothing_are_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let mut queue = Queue::start(directory.path(), &to_lmtp(sink.address));
    give(
        &queue,
        "public",
        "victim@example.org",
        &["refuse@example.org"],
        |envelope| {
            envelope.return_path_proven = false;
        },
    )
    .await;
    let taken = sink.wait("the postmaster's notification", |taken| !taken.is_empty());
    assert_eq!(
        (taken[0].from.as_str(), taken[0].to.as_str()),
        ("", "postmaster@example.org")
    );
    assert!(
        taken[0]
            .content
            .contains("The sender, victim@example.org, was not told")
    );
    assert!(
        taken[0].content.contains("Hi.\r\n"),
        "the whole message is returned"
    );
    // The null reverse-path and NOTIFY=NEVER: nobody is told.
    give(&queue, "inside", "", &["refuse2@example.org"], |_| ()).await;
    give(
        &queue,
        "inside",
        "app@example.org",
        &["refuse3@example.org"],
        |envelope| {
            envelope.recipients[0].notify = Some(vec![Notify::Never]);
        },
    )
    .await;
    for mailbox in ["refuse2@example.org", "refuse3@example.org"] {
        queue.wait(
            mailbox,
            |kind| matches!(kind, EventKind::Bounced { recipient, .. } if recipient == mailbox),
        );
    }
    give(&queue, "inside", "app@example.org", &["last@example.org"], |_| ()).await;
    let taken = sink.wait("the last", |taken| taken.len() == 2);
    assert_eq!(taken[1].to, "last@example.org");
    queue.stop();
}

#[tokio::test]
async fn what_has_no_route_is_refused_and_the_rest_waits_where_it_can_be_seen() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let queue = Queue::start(directory.path(), &to_lmtp(sink.address));
    let refused = give(
        &queue,
        "public",
        "a@a.example",
        &["user@example.org", "b@far.example"],
        |_| (),
    )
    .await;
    let Reply::Refused { code, enhanced, .. } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((code, enhanced.as_str()), (550, "5.7.1"));
    assert!(matches!(
        give(
            &queue,
            "inside",
            "a@a.example",
            &["not an address@example.org"],
            |_| ()
        )
        .await,
        Reply::Refused { code: 500.., .. }
    ));
    give(&queue, "inside", "a@a.example", &["later7@example.org"], |_| ()).await;
    sink.wait("the mail", |taken| taken.len() == 1);
    assert!(
        queue
            .events()
            .iter()
            .any(|kind| matches!(kind, EventKind::Deferred { .. }))
    );
    queue.stop();
}

#[tokio::test]
async fn time_runs_out_and_the_list_shows_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let configuration = format!(
        "{HEAD}
[next-hop.dead]
kind = \"lmtp\"
socket = \"{nobody}\"
[next-hop.mailboxes]
kind = \"lmtp\"
socket = \"{}\"
[[route]]
from = [\"inside\"]
domains = [\"dead.example\"]
next-hop = \"dead\"
[[route]]
from = [\"inside\"]
domains = [\"example.org\"]
next-hop = \"mailboxes\"
",
        sink.address
    )
    .replace("expire = 20", "expire = 12");
    let mut queue = Queue::start(directory.path(), &configuration);
    give(&queue, "inside", "app@example.org", &["x@dead.example"], |_| ()).await;
    queue.wait("a delay", |kind| matches!(kind, EventKind::Deferred { .. }));
    // The event comes first, then the record on disk, then the list.
    let until = Instant::now() + Duration::from_secs(10);
    let waiting = loop {
        let waiting = queue.ask(r#"{"request":"queue-list"}"#)["messages"][0]["recipients"][0].clone();
        if waiting["attempts"] != 0 || Instant::now() > until {
            break waiting;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(waiting["address"], "x@dead.example");
    assert!(
        waiting["last_reply"].as_str().unwrap().starts_with("451 4.4.1"),
        "{waiting}"
    );
    assert_eq!(queue.ask(r#"{"request":"status"}"#)["queue"]["recipients_due"], 1);
    assert_eq!(queue.ask(r#"{"request":"reboot"}"#)["reply"], "error");
    // The schedule survives a restart: the message is not forgotten, nor does its time begin anew.
    queue.kill();
    let queue = Queue::start(directory.path(), &configuration);
    let taken = sink.wait("the notification", |taken| !taken.is_empty());
    assert!(taken[0].content.contains("Status: 4.4.7\r\n"));
    queue.stop();
}

#[tokio::test]
async fn of_mail_that_the_spool_does_not_give_back_the_sender_is_told() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody listens yet, so that it waits.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // It is given up because it cannot be read, long before its time runs out.
    let configuration = to_lmtp(address).replace("expire = 20", "expire = 3000");
    let mut queue = Queue::start(directory.path(), &configuration);
    give(&queue, "inside", "app@example.org", &["user@example.org"], |_| ()).await;
    let segment = std::fs::read_dir(directory.path().join("state/spool"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .unwrap();
    let octets = std::fs::read(&segment).unwrap();
    let content = octets.windows(5).position(|part| part == b"Hello").unwrap();
    let file = std::fs::File::options().write(true).open(&segment).unwrap();
    file.write_all_at(b"J", content as u64).unwrap();
    // An attempt that is under way has read it before.
    queue.wait("the damage is seen", |kind| {
        matches!(kind, EventKind::Warning { .. })
    });
    let sink = Sink::start_at(address);
    let taken = sink.wait("a notification", |taken| !taken.is_empty());
    assert_eq!((taken.len(), taken[0].to.as_str()), (1, "app@example.org"));
    for line in ["Final-Recipient: rfc822; user@example.org", "Status: 5.3.0"] {
        assert!(
            taken[0].content.contains(&format!("{line}\r\n")),
            "{}",
            taken[0].content
        );
    }
    assert!(!taken[0].content.contains("ello"), "damaged content was returned");
    queue.stop();
}

#[tokio::test]
async fn a_late_message_is_told_once_even_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    // Strangers may write to far.example, too, so that one of them is late.
    let configuration = crate::operator::configuration(dead, &sink)
        .replace(
            r#"["example.org"]
postmaster"#,
            r#"["example.org", "far.example"]
postmaster"#,
        )
        .replace(
            "from = [\"inside\"]\ndomains = [\"far",
            "from = [\"inside\", \"public\"]\ndomains = [\"far",
        )
        .replace("expire = 300", "expire = 300\ndelay-warning = 1");
    let mut queue = Queue::start(directory.path(), &configuration);
    let never = |envelope: &mut postern_relay::handover::Envelope| {
        envelope.recipients[0].notify = Some(vec![Notify::Failure]);
    };
    let unproven = |envelope: &mut postern_relay::handover::Envelope| envelope.return_path_proven = false;
    give(
        &queue,
        "inside",
        "failures@example.org",
        &["x@far.example"],
        never,
    )
    .await;
    give(&queue, "inside", "", &["x@far.example"], |_| ()).await;
    give(
        &queue,
        "public",
        "stranger@example.org",
        &["x@far.example"],
        unproven,
    )
    .await;
    give(
        &queue,
        "inside",
        "app@example.org",
        &["late@far.example"],
        |envelope| {
            envelope.envid = Some("order 7".into());
            envelope.ret = Some(postern_relay::handover::Ret::Full);
        },
    )
    .await;
    let told = |taken: &[crate::sink::Taken]| {
        let told = taken.iter().filter(|taken| taken.from.is_empty());
        told.map(|taken| taken.to.clone()).collect::<Vec<_>>()
    };
    sink.wait("the warning", |taken| !told(taken).is_empty());
    queue.wait("its end", |kind| matches!(kind, EventKind::Removed));
    queue.kill();
    let mut queue = Queue::start(directory.path(), &configuration);
    // Another message that becomes late: whoever was to be told again would have been told before.
    give(
        &queue,
        "inside",
        "second@example.org",
        &["late2@far.example"],
        |_| (),
    )
    .await;
    let taken = sink.wait("the second warning", |taken| {
        told(taken).contains(&"second@example.org".to_owned())
    });
    assert_eq!(told(&taken), ["app@example.org", "second@example.org"]);
    let warning = taken.iter().find(|taken| taken.to == "app@example.org").unwrap();
    for line in [
        "Action: delayed",
        "Status: 4.4.1",
        "Original-Envelope-Id: order 7",
    ] {
        assert!(
            warning.content.contains(&format!("{line}\r\n")),
            "{line} is not in\n{}",
            warning.content
        );
    }
    assert!(warning.content.contains("\r\nWill-Retry-Until: "));
    assert!(!warning.content.contains("Hi.\r\n"), "RET=FULL is for failures");
    queue.wait(
        "an attempt after the warning",
        |kind| matches!(kind, EventKind::Attempt { recipient, .. } if recipient == "late@far.example"),
    );
    queue.stop();
}

#[tokio::test]
async fn a_delivery_is_told_where_it_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let queue = Queue::start(directory.path(), &to_lmtp(sink.address));
    give(&queue, "inside", "quiet@example.org", &["a@example.org"], |_| ()).await;
    give(
        &queue,
        "inside",
        "curious@example.org",
        &["b@example.org"],
        |envelope| {
            envelope.recipients[0].notify = Some(vec![Notify::Success]);
        },
    )
    .await;
    let taken = sink.wait("mail and notification", |taken| taken.len() == 3);
    let dsn = taken.iter().find(|taken| taken.from.is_empty()).unwrap();
    assert_eq!(dsn.to, "curious@example.org");
    for line in [
        "Action: delivered",
        "Final-Recipient: rfc822; b@example.org",
        "Status: 2.0.0",
    ] {
        assert!(
            dsn.content.contains(&format!("{line}\r\n")),
            "{line} is not in\n{}",
            dsn.content
        );
    }
    queue.stop();
}

#[tokio::test]
async fn a_next_hop_that_knows_dsn_is_told_what_the_sender_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::with_dsn();
    let mut queue = Queue::start(directory.path(), &to_lmtp(sink.address));
    give(
        &queue,
        "inside",
        "app@example.org",
        &["user@example.org"],
        |envelope| {
            envelope.envid = Some("order+7".into());
            envelope.ret = Some(postern_relay::handover::Ret::Hdrs);
            envelope.recipients[0].notify = Some(vec![Notify::Success, Notify::Delay]);
            envelope.recipients[0].orcpt = Some("rfc822;a+2Bb@example.org".into());
        },
    )
    .await;
    queue.wait("its end", |kind| matches!(kind, EventKind::Removed));
    assert_eq!(
        sink.commands(),
        [
            "MAIL FROM:<app@example.org> RET=HDRS ENVID=order+2B7",
            "RCPT TO:<user@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@example.org"
        ]
    );
    let told = |kind: &&EventKind| matches!(kind, EventKind::Dsn { .. });
    assert_eq!(queue.events().iter().find(told), None, "the next hop tells");
    queue.stop();
}
