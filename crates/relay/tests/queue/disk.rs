//! A full disk: messages are refused with 452 4.3.1, what was acknowledged stays, and space comes back. The disk is a
//! small tmpfs that the test mounts, for which it must be root.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use postern_relay::handover::Reply;

use crate::node::{Client as SmtpClient, Node, free_at, gateway};
use crate::process::{Queue, envelope, hand_over, to_lmtp};
use crate::sink::Sink;

/// Unmounts when dropped.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(path: &Path) -> Self {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "postern-test"])
            .arg(path)
            .status()
            .unwrap();
        assert!(
            status.success(),
            "a tmpfs cannot be mounted; this test must run as root"
        );
        Self(path.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

async fn fill(queue: &Queue, message: &[u8]) -> (usize, Reply) {
    let client = queue.client("inside");
    let envelope = envelope("app@example.org", &["user@example.org"], message.len());
    for taken in 0..100 {
        match hand_over(&client, &envelope, message).await.unwrap() {
            Reply::Queued { .. } => {}
            refused => return (taken, refused),
        }
    }
    panic!("the disk never became full");
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("state")).unwrap();
    let _mount = Mount::tmpfs(&directory.path().join("state"));
    // Nobody listens yet, so that everything stays in the queue; nor does another test, whose sinks are at 127.0.0.1.
    let address = TcpListener::bind("127.0.24.1:0").unwrap().local_addr().unwrap();
    let configuration = to_lmtp(address).replace("expire = 20", "expire = 300");
    let message = format!(
        "Subject: large\r\n\r\n{}",
        "0123456789abcdef0123456789abcdef\r\n".repeat(30_000)
    );
    let queue = Queue::start(directory.path(), &configuration);
    let (taken, refused) = fill(&queue, message.as_bytes()).await;
    assert!(
        (15..24).contains(&taken),
        "{taken} messages of a megabyte fitted into 24 MiB"
    );
    let Reply::Refused { code, enhanced, .. } = refused else {
        unreachable!()
    };
    assert_eq!((code, enhanced.as_str()), (452, "4.3.1"));
    // It also starts on a full disk, and refuses again.
    queue.kill();
    let queue = Queue::start(directory.path(), &configuration);
    assert!(matches!(
        fill(&queue, message.as_bytes()).await,
        (0, Reply::Refused { code: 452, .. })
    ));
    assert_eq!(queue.ask(r#"{"request":"status"}"#)["queue"]["messages"], taken);
    let sink = Sink::start_at(address);
    sink.wait("all messages", |all| all.len() == taken);
    assert!(sink.taken().iter().all(|one| one.content == message));
    let until = Instant::now() + Duration::from_secs(30);
    let client = queue.client("inside");
    let envelope = envelope("app@example.org", &["user@example.org"], message.len());
    let taken = |reply| matches!(reply, Some(Reply::Queued { .. }));
    while !taken(hand_over(&client, &envelope, message.as_bytes()).await) {
        assert!(Instant::now() < until, "the space did not come back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    queue.stop();
}

/// Says MAIL with this size to a new connection.
fn mail(door: SocketAddr, size: usize) -> String {
    let mut client = SmtpClient::connect(door).unwrap();
    client
        .say(&format!("MAIL FROM:<app@example.net> SIZE={size}"))
        .unwrap()
}

/// Asks until the answer begins so; smtpd hears of room every ten seconds.
fn wait_for(door: SocketAddr, size: usize, wanted: &str) {
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        let reply = mail(door, size);
        if reply.starts_with(wanted) {
            return;
        }
        assert!(Instant::now() < until, "not {wanted:?} but {reply:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A client that says what it will send is not let send what would be refused.
#[test]
fn a_client_is_told_of_a_full_disk_before_it_sends_its_message() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("state")).unwrap();
    let _mount = Mount::tmpfs(&directory.path().join("state"));
    let (door, hop) = (free_at("127.0.25.3"), free_at("127.0.24.2"));
    // The mailbox is not verified: nobody listens.
    let configuration = gateway(door, hop).replace(r#"via = "proxy""#, r#"via = "off""#);
    let message = format!(
        "Subject: large\r\n\r\n{}",
        "0123456789abcdef0123456789abcdef\r\n".repeat(60_000)
    );
    let size = message.len();
    let node = Node::start(directory.path(), &configuration);
    let mut taken = 0;
    let refused = loop {
        let mut client = SmtpClient::connect(door).unwrap();
        let reply = client.send("user@example.org", &message).unwrap();
        if !reply.starts_with("250 ") {
            break reply;
        }
        taken += 1;
    };
    assert!(
        (6..12).contains(&taken),
        "{taken} messages of 2 MB fitted into 24 MiB"
    );
    assert!(refused.starts_with("452 4.3.1 "), "{refused}");
    let again = mail(door, size);
    assert!(again.starts_with("452 4.3.1 The queue's storage "), "{again}");
    // A new smtpd learns it by asking, not by a message.
    node.stop();
    let node = Node::start(directory.path(), &configuration);
    wait_for(door, size, "452 4.3.1 ");
    let sink = Sink::start_at(hop);
    sink.wait("all messages", |all| all.len() == taken);
    wait_for(door, size, "250 ");
    node.stop();
}
