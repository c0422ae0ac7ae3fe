//! What is sent to a real Postfix, whatever it offers, and what is never sent to any host.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use postern_control::EventKind;
use postern_relay::handover::{Envelope, Notify, Ret};

use crate::postfix::Postfix;
use crate::process::{HEAD, Queue, envelope, hand_over};
use crate::sink::Sink;

/// A message of dots, ends of DATA and commands, with the line ends of the standard.
const LOOKALIKE: &[u8] =
    b"Received: from a\r\nSubject: x\r\n\r\n.\r\n..\r\n.x\r\n\r\n.\r\nMAIL FROM:<evil@far.example>\r\n\
    RCPT TO:<victim@far.example>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\nBDAT 4 LAST\r\nQUIT\r\n.";
const PLAIN: &[u8] = b"Received: from a\r\nSubject: x\r\n\r\nHi.\r\n";

/// Everything goes to one host, in clear.
fn to(host: SocketAddr) -> String {
    format!(
        "{HEAD}
[next-hop.peer]
kind = \"smtp\"
host = \"{}\"
port = {}
tls = \"off\"
[[route]]
from = [\"inside\"]
domains = [\"*\"]
next-hop = \"peer\"
",
        host.ip(),
        host.port()
    )
}

/// What became of one message.
async fn send(queue: &mut Queue, envelope: &Envelope, message: &[u8]) -> Vec<EventKind> {
    let before = queue.events().len();
    hand_over(&queue.client("inside"), envelope, message)
        .await
        .unwrap();
    let count = envelope.recipients.len();
    // A notification about this message has its own outcome, for somebody else.
    let is_outcome = |kind: &&EventKind| match kind {
        EventKind::Delivered { recipient, .. }
        | EventKind::Deferred { recipient, .. }
        | EventKind::Bounced { recipient, .. } => {
            envelope.recipients.iter().any(|one| one.address == *recipient)
        }
        _ => false,
    };
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let events = queue.events();
        let outcomes: Vec<EventKind> = events[before..].iter().filter(is_outcome).cloned().collect();
        if outcomes.len() >= count {
            return outcomes;
        }
        assert!(std::time::Instant::now() < until, "{events:#?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn from_us(to: &[&str], message: &[u8]) -> Envelope {
    envelope("app@example.org", to, message.len())
}

#[tokio::test]
async fn postfix_takes_the_same_message_by_chunks_and_by_data() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let postfix = Postfix::start(&sink, &["", "chunking", "pipelining,chunking", "pipelining"]);
    let large: Vec<u8> = [PLAIN, &b".a line\r\n".repeat(20_000)].concat();
    let mut number = 0;
    for (port, chunks) in postfix.ports.iter().zip([true, false, false, true]) {
        let (bdat, data) = (postfix.counted("bdat"), postfix.counted("data"));
        let mut queue = Queue::start(directory.path(), &to(([127, 0, 0, 1], *port).into()));
        for message in [LOOKALIKE, PLAIN, &large] {
            let user = format!("u{number}@far.example");
            let envelope = from_us(&[&user, "refused@far.example"], message);
            let outcomes = send(&mut queue, &envelope, message).await;
            assert!(
                outcomes
                    .iter()
                    .any(|kind| matches!(kind, EventKind::Delivered { recipient, .. } if *recipient == user)),
                "{outcomes:#?}"
            );
            assert!(
                outcomes.iter().any(|kind| matches!(kind, EventKind::Bounced { reply, .. } if reply.contains("no such mailbox"))),
                "{outcomes:#?}"
            );
            number += 1;
            // The notification about the refused one has no route that leads to its sender's mailbox: it goes to Postfix, too.
            let taken = sink.wait(&user, |taken| taken.iter().any(|one| one.to == user));
            let got = taken.iter().find(|one| one.to == user).unwrap();
            let end = String::from_utf8(message.to_vec()).unwrap();
            let end = end
                .strip_suffix("\n.")
                .map_or(end.clone(), |clean| format!("{clean}\n.\r\n"));
            assert!(got.content.ends_with(&end), "{:?}\n{:?}", got.content, end);
            assert_eq!(got.content.matches("Subject: x").count(), 1);
            assert!(taken.iter().all(|one| !one.to.contains("victim")), "smuggled");
        }
        queue.stop();
        if chunks {
            postfix.wait_counted("bdat", bdat + 3);
            assert_eq!(postfix.counted("data"), data);
        } else {
            postfix.wait_counted("data", data + 3);
            assert_eq!(postfix.counted("bdat"), bdat);
        }
    }
}

#[tokio::test]
async fn what_is_not_strict_is_refused_before_any_host_has_it_whole() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let postfix = Postfix::start(&sink, &["", "chunking"]);
    let long = [&b"Received: from a\r\n\r\n"[..], &b"x".repeat(999), b"\r\n"].concat();
    let cases: [(&str, &[u8]); 9] = [
        ("bare LF", b"Received: from a\r\n\r\na\nb\r\n"),
        (
            "bare LF with a dot",
            b"Received: from a\r\n\r\na\n.\r\nMAIL FROM:<e@f>\r\n",
        ),
        (
            "bare LF after a dot",
            b"Received: from a\r\n\r\na\r\n.\nMAIL FROM:<e@f>\r\n",
        ),
        ("bare CR", b"Received: from a\r\n\r\na\r.\r\nMAIL FROM:<e@f>\r\n"),
        ("bare CR before CRLF", b"Received: from a\r\n\r\na\r\r\n.\r\n"),
        ("bare CR at the end", b"Received: from a\r\n\r\na\r"),
        ("NUL", b"Received: from a\r\n\r\na\0b\r\n"),
        ("bare LF in the first line", b"Received: from a\nb\r\n\r\na\r\n"),
        ("an over-long line", &long),
    ];
    for port in &postfix.ports {
        let mut queue = Queue::start(directory.path(), &to(([127, 0, 0, 1], *port).into()));
        for (what, message) in &cases {
            // A session that knows chunks, too.
            for user in ["first@far.example", "again@far.example"] {
                let outcomes = send(&mut queue, &from_us(&[user], message), message).await;
                let [EventKind::Bounced { reply, .. }] = &outcomes[..] else {
                    panic!("{what}: {outcomes:#?}")
                };
                assert!(reply.starts_with("554 5.6.0"), "{what}: {reply}");
                let outcomes = send(&mut queue, &from_us(&["good@far.example"], PLAIN), PLAIN).await;
                assert!(
                    matches!(outcomes[..], [EventKind::Delivered { .. }]),
                    "{what}: {outcomes:#?}"
                );
            }
        }
        queue.stop();
    }
    let good = |to: &str| to == "good@far.example";
    let expected = 2 * 2 * cases.len();
    let taken = sink.wait("the good mail", |taken| {
        taken.iter().filter(|one| good(&one.to)).count() == expected
    });
    let bad: Vec<_> = taken
        .iter()
        .filter(|one| one.to.ends_with("far.example") && !good(&one.to))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[tokio::test]
async fn a_message_that_the_next_host_cannot_carry_goes_back_with_the_reason() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::with_dsn());
    let postfix = Postfix::start(&sink, &["", "8bitmime", "smtputf8"]);
    let eight_bit =
        "Received: from a\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\u{fc}\u{df}e\r\n".as_bytes();
    let mut outcomes = Vec::new();
    for (at, port) in postfix.ports.iter().enumerate() {
        let mut queue = Queue::start(directory.path(), &to(([127, 0, 0, 1], *port).into()));
        let mut of_eight_bits = from_us(&[&format!("eight{at}@far.example")], eight_bit);
        of_eight_bits.eight_bit = true;
        let mut international = from_us(&[&format!("utf{at}@far.example")], PLAIN);
        international.smtputf8 = true;
        for (envelope, message) in [(of_eight_bits, eight_bit), (international, PLAIN)] {
            outcomes.push(match &send(&mut queue, &envelope, message).await[..] {
                [EventKind::Delivered { .. }] => "delivered".to_owned(),
                [EventKind::Bounced { reply, .. }] => reply[..9].to_owned(),
                other => panic!("{other:#?}"),
            });
        }
        queue.stop();
    }
    let expected = [
        "delivered",
        "delivered",
        "554 5.6.3",
        "delivered",
        "delivered",
        "550 5.6.7",
    ];
    assert_eq!(outcomes, expected);
    let taken = sink.wait("the mail", |taken| {
        taken.iter().any(|one| one.to.starts_with("eight2"))
    });
    let eight = taken.iter().find(|one| one.to.starts_with("eight2")).unwrap();
    assert!(eight.mail.contains("BODY=8BITMIME"), "{}", eight.mail);
    assert!(eight.content.as_bytes().ends_with(eight_bit));
}

#[tokio::test]
async fn recipients_that_were_too_many_at_a_time_go_at_once_in_the_next_transaction() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::with_dsn());
    let postfix = Postfix::with_options(&sink, &[vec!["smtpd_recipient_limit=2".to_owned()]], |_| ());
    // What waits for another attempt waits a day.
    let config = to(([127, 0, 0, 1], postfix.ports[0]).into()).replace("retry = [1]", "retry = [86400]");
    let queue = Queue::start(directory.path(), &config);
    let users: Vec<String> = (0..5).map(|n| format!("user{n}@far.example")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    hand_over(&queue.client("inside"), &from_us(&users, PLAIN), PLAIN)
        .await
        .unwrap();
    let taken = sink.wait("all recipients", |taken| taken.len() == 5);
    let mut to: Vec<&str> = taken.iter().map(|one| one.to.as_str()).collect();
    to.sort_unstable();
    assert_eq!(to, users);
    queue.stop();
    // Postfix tells of a session a moment after its end.
    postfix.wait_counted("mail", 3);
    assert_eq!(postfix.counted("mail"), 3);
}

#[tokio::test]
async fn what_the_sender_asked_of_notifications_goes_on_through_postfix() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::with_dsn());
    let postfix = Postfix::start(&sink, &[""]);
    let mut queue = Queue::start(directory.path(), &to(([127, 0, 0, 1], postfix.ports[0]).into()));
    let mut envelope = from_us(&["user@far.example"], PLAIN);
    (envelope.ret, envelope.envid) = (Some(Ret::Hdrs), Some("bill 7".into()));
    envelope.recipients[0].notify = Some(vec![Notify::Success, Notify::Delay]);
    envelope.recipients[0].orcpt = Some("rfc822;first@far.example".into());
    send(&mut queue, &envelope, PLAIN).await;
    sink.wait("the mail", |taken| !taken.is_empty());
    let commands = sink.commands().join(" ");
    for parameter in [
        "RET=HDRS",
        "ENVID=bill+207",
        "NOTIFY=SUCCESS,DELAY",
        "ORCPT=rfc822;first@far.example",
    ] {
        assert!(commands.contains(parameter), "{parameter}: {commands}");
    }
    assert!(
        !queue
            .events()
            .iter()
            .any(|kind| matches!(kind, EventKind::Dsn { .. })),
        "the next host knows DSN and tells the sender itself"
    );
    queue.stop();
}

/// A stand-in for a host that offers `keyword`, refuses `refused` for now, does not know BDAT, and takes whatever follows for
/// commands. It keeps the lines.
fn stand_in(keyword: &'static str, refused: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = lines.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut write = stream.try_clone().unwrap();
            let mut read = BufReader::new(stream).lines();
            let _ = write.write_all(b"220 liar\r\n");
            let mut in_data = false;
            while let Some(Ok(line)) = read.next() {
                kept.lock().unwrap().push(line.clone());
                let reply = match line.get(..4).unwrap_or(&line) {
                    _ if in_data && line != "." => continue,
                    "EHLO" => format!("250-mx\r\n250-PIPELINING\r\n250 {keyword}\r\n"),
                    "DATA" => "354 go on\r\n".to_owned(),
                    "RCPT" if line.contains(refused) => "450 4.2.1 later\r\n".to_owned(),
                    "MAIL" | "RCPT" | "." | "RSET" => "250 ok\r\n".to_owned(),
                    "QUIT" => "221 bye\r\n".to_owned(),
                    _ => "500 5.5.1 what\r\n".to_owned(),
                };
                in_data = line == "DATA";
                // Each reply apart, as a host without PIPELINING in its heart writes them.
                if write.write_all(reply.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (address, lines)
}

#[tokio::test]
async fn a_host_that_lies_about_chunking_gets_the_mail_by_data_and_no_content_as_commands() {
    let directory = tempfile::tempdir().unwrap();
    let (address, lines) = stand_in("CHUNKING", "nobody@");
    let mut queue = Queue::start(directory.path(), &to(address));
    for user in ["one@far.example", "two@far.example"] {
        let outcomes = send(&mut queue, &from_us(&[user], LOOKALIKE), LOOKALIKE).await;
        assert!(
            matches!(outcomes[..], [EventKind::Delivered { .. }]),
            "{outcomes:#?}"
        );
    }
    queue.stop();
    let lines = lines.lock().unwrap().clone();
    let count = |wanted: &str| lines.iter().filter(|line| line.starts_with(wanted)).count();
    // One look at BDAT; the session that took the first message is not asked again.
    assert_eq!(count("BDAT 1"), 1, "{lines:#?}");
    // Twice each by us, and in the content of both messages.
    assert_eq!(count("MAIL FROM:<app@example.org>"), 3, "{lines:#?}");
    let commands: Vec<&str> = commands_of(&lines);
    assert!(
        commands.iter().all(|line| !line.contains("evil")),
        "{commands:#?}"
    );
}

#[tokio::test]
async fn a_recipient_who_is_refused_for_now_keeps_no_other_from_a_host_that_takes_one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let (address, _) = stand_in("LIMITS RCPTMAX=1", "full@far.example");
    let queue = Queue::start(directory.path(), &to(address));
    let users = ["full@far.example", "one@far.example", "two@far.example"];
    hand_over(&queue.client("inside"), &from_us(&users, PLAIN), PLAIN)
        .await
        .unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    let outcomes = loop {
        let mut outcomes: Vec<String> = queue
            .events()
            .into_iter()
            .filter_map(|kind| match kind {
                EventKind::Delivered { recipient, .. } => Some(format!("delivered {recipient}")),
                EventKind::Bounced { recipient, reply } => {
                    Some(format!("bounced {recipient} {}", &reply[..9]))
                }
                _ => None,
            })
            .collect();
        if outcomes.len() == users.len() {
            outcomes.sort();
            break outcomes;
        }
        assert!(std::time::Instant::now() < until, "{outcomes:#?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    queue.stop();
    assert_eq!(
        outcomes,
        [
            "bounced full@far.example 450 4.2.1",
            "delivered one@far.example",
            "delivered two@far.example"
        ]
    );
}

/// The lines outside of DATA.
fn commands_of(lines: &[String]) -> Vec<&str> {
    let mut in_data = false;
    let outside = lines.iter().filter(|line| {
        let inside = in_data;
        in_data = if in_data { *line != "." } else { *line == "DATA" };
        !inside
    });
    outside.map(String::as_str).collect()
}
