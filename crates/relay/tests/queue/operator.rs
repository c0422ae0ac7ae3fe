//! What the operator sees in the queue and does with it.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use postern_control::{Change, EventKind, Filter, Reply, Request};
use postern_relay::handover;

use crate::process::{HEAD, Queue, envelope, hand_over};
use crate::sink::Sink;

const MESSAGE: &[u8] = b"From: <a@a.example>\r\nSubject: Hello\r\n\r\nHi.\r\n";

/// `far.example` by a host that can be made to answer later, `example.org` by a store that answers.
pub(crate) fn configuration(far: SocketAddr, store: &Sink) -> String {
    format!(
        "{}
[next-hop.far]
kind = \"lmtp\"
socket = \"{far}\"
[next-hop.mailboxes]
kind = \"lmtp\"
socket = \"{}\"
[[route]]
from = [\"inside\"]
domains = [\"far.example\"]
next-hop = \"far\"
[[route]]
from = [\"inside\"]
domains = [\"example.org\"]
next-hop = \"mailboxes\"
",
        HEAD.replace("expire = 20", "expire = 300"),
        store.address
    )
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) async fn give(queue: &Queue, from: &str, to: &str) -> String {
    let envelope = envelope(from, &[to], MESSAGE.len());
    match hand_over(&queue.client("inside"), &envelope, MESSAGE)
        .await
        .unwrap()
    {
        handover::Reply::Queued { id } => id,
        refused => panic!("{refused:?}"),
    }
}

/// Changes messages; waits for those that are just being tried.
fn change(queue: &Queue, change: Change, ids: &[&str]) -> Vec<String> {
    let request = Request::QueueChange {
        change,
        ids: ids.iter().map(ToString::to_string).collect(),
        reason: Some("ticket 7".into()),
    };
    loop {
        let Reply::QueueChanged { done, failed } = queue.request(&request) else {
            panic!("not changed")
        };
        if !failed.iter().any(|one| one.why.contains("just being tried")) {
            return [done, failed.into_iter().map(|one| one.why).collect()].concat();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn list(queue: &Queue, filter: Filter, after: Option<&str>, limit: u32) -> (Vec<String>, Option<String>) {
    let request = Request::QueueList {
        filter,
        after: after.map(Into::into),
        limit: Some(limit),
    };
    let Reply::QueueList { messages, next, .. } = queue.request(&request) else {
        panic!("no list")
    };
    (messages.into_iter().map(|message| message.id).collect(), next)
}

#[tokio::test]
async fn a_hold_outlives_the_process_and_ends_with_the_release() {
    let (directory, store, far) = (tempfile::tempdir().unwrap(), Sink::start(), nobody());
    let configuration = configuration(far, &store);
    let queue = Queue::start(directory.path(), &configuration);
    let held = give(&queue, "app@example.org", "held@far.example").await;
    let free = give(&queue, "app@example.org", "free@far.example").await;
    assert_eq!(change(&queue, Change::Hold, &[&held]), [held.as_str()]);
    assert!(change(&queue, Change::Retry, &[&held])[0].contains("release it first"));
    queue.kill();
    let far = Sink::start_at(far);
    let mut queue = Queue::start(directory.path(), &configuration);
    let taken = far.wait("the other message", |taken| !taken.is_empty());
    assert_eq!(taken[0].to, "free@far.example");
    queue.wait("its end", |kind| matches!(kind, EventKind::Removed));
    let Reply::QueueShow { message, details } = queue.request(&Request::QueueShow { id: held.clone() })
    else {
        panic!("not shown")
    };
    assert!(message.held && details.peer == "192.0.2.1" && details.recipients_done == 0);
    assert_eq!(message.recipients[0].next_hop, "far");
    assert_eq!(far.taken().len(), 1, "what is held is not tried");
    assert!(change(&queue, Change::Hold, &[&free])[0].contains("no such message"));
    change(&queue, Change::Release, &[&held]);
    far.wait("the held message", |taken| {
        taken.iter().any(|taken| taken.to == "held@far.example")
    });
    let changes: Vec<_> = queue
        .events()
        .into_iter()
        .filter(|kind| matches!(kind, EventKind::Changed { .. }))
        .collect();
    let by = format!("user id {}", nix::unistd::geteuid());
    assert_eq!(
        changes,
        [EventKind::Changed {
            change: "released".into(),
            by,
            reason: Some("ticket 7".into())
        }]
    );
    queue.stop();
}

#[tokio::test]
async fn what_is_cancelled_does_not_come_back_and_is_told_only_where_asked() {
    let (directory, store, far) = (tempfile::tempdir().unwrap(), Sink::start(), nobody());
    let configuration = configuration(far, &store);
    let queue = Queue::start(directory.path(), &configuration);
    let silent = give(&queue, "silent@example.org", "x@far.example").await;
    let loud = give(&queue, "loud@example.org", "y@far.example").await;
    assert_eq!(change(&queue, Change::Cancel, &[&silent]), [silent.as_str()]);
    assert_eq!(change(&queue, Change::Bounce, &[&loud]), [loud.as_str()]);
    queue.kill();
    let far = Sink::start_at(far);
    let queue = Queue::start(directory.path(), &configuration);
    let told = store.wait("a notification", |taken| !taken.is_empty());
    give(&queue, "app@example.org", "z@far.example").await;
    let taken = far.wait("new mail", |taken| !taken.is_empty());
    assert_eq!(taken[0].to, "z@far.example");
    assert!(told.iter().all(|told| told.to == "loud@example.org"), "{told:?}");
    assert!(
        told[0]
            .content
            .contains("cancelled by the operator: ticket 7\r\n"),
        "{}",
        told[0].content
    );
    assert!(told[0].content.contains("Status: 5.3.0\r\n"));
    queue.stop();
}

#[tokio::test]
async fn lists_come_in_pages_and_by_what_messages_have_in_common() {
    let (directory, store, far) = (tempfile::tempdir().unwrap(), Sink::start(), nobody());
    let queue = Queue::start(directory.path(), &configuration(far, &store));
    let mut ids = Vec::new();
    for number in 0..5 {
        let from = if number == 3 {
            "News@example.org"
        } else {
            "app@example.org"
        };
        ids.push(give(&queue, from, &format!("user{number}@far.example")).await);
    }
    let all = Filter::default;
    let (first, next) = list(&queue, all(), None, 2);
    assert_eq!(
        (first.as_slice(), next.as_deref()),
        (&ids[..2], Some(ids[1].as_str()))
    );
    assert_eq!(list(&queue, all(), Some(&ids[1]), 3), (ids[2..].to_vec(), None));
    let sender = Filter {
        sender: Some("news@Example.org".into()),
        ..all()
    };
    assert_eq!(list(&queue, sender, None, 10).0, ids[3..4]);
    let recipient = Filter {
        recipient: Some("user4@far.example".into()),
        ..all()
    };
    assert_eq!(list(&queue, recipient, None, 10).0, ids[4..]);
    let domain = |domain: &str| Filter {
        domain: Some(domain.into()),
        ..all()
    };
    assert_eq!(list(&queue, domain("far.example"), None, 10).0, ids);
    assert_eq!(list(&queue, domain("example"), None, 10).0, [""; 0]);
    for (wrong, why) in [
        (r#"{"request":"queue-list","after":"7"}"#, "14 hexadecimal digits"),
        (
            r#"{"request":"queue-show","id":"00000000000001"}"#,
            "no message 00000000000001",
        ),
        (
            r#"{"request":"queue-change","change":"hold","ids":[],"reason":"a\nb"}"#,
            "one line",
        ),
    ] {
        let text = queue.ask(wrong)["text"].as_str().unwrap().to_owned();
        assert!(text.contains(why), "{text}");
    }
    queue.stop();
}

/// Whoever reaches the socket may read; root and the queue's own user may change. The test runs as root, so that it can
/// ask as somebody else.
#[tokio::test]
async fn a_user_who_may_only_read_changes_nothing() {
    let (directory, store, far) = (tempfile::tempdir().unwrap(), Sink::start(), nobody());
    let queue = Queue::start(directory.path(), &configuration(far, &store));
    let id = give(&queue, "app@example.org", "x@far.example").await;
    for (path, mode) in [
        (directory.path(), 0o755),
        (&directory.path().join("run"), 0o755),
        (&queue.control(), 0o666),
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let ask = |request: &Request| -> Reply {
        let script = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode() + b'\\n')
print(s.makefile().readline(), end='')";
        let output = Command::new("python3")
            .args(["-c", script])
            .arg(queue.control())
            .arg(serde_json::to_string(request).unwrap())
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let Reply::QueueList { messages, .. } = ask(&Request::list_all()) else {
        panic!("reading is refused")
    };
    assert_eq!(messages[0].id, id);
    let cancel = Request::QueueChange {
        change: Change::Cancel,
        ids: vec![id.clone()],
        reason: None,
    };
    let Reply::Error { text } = ask(&cancel) else {
        panic!("a stranger may change the queue")
    };
    assert!(text.starts_with("user id 65534 may only read"), "{text}");
    assert_eq!(list(&queue, Filter::default(), None, 10).0, [id]);
    queue.stop();
}
