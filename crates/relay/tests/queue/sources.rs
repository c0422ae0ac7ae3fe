//! Mail leaves from the addresses of its pool, and says the pool's name.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postern_sandbox::{child, seqpacket};

use crate::names::World;
use crate::outward::configuration;
use crate::process::{Queue, envelope, hand_over};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 30, 1);
const POOLS: &str = "
[[source-pool]]
name = \"news\"
addresses = [\"127.0.30.11\", \"127.0.30.12\"]
helo = \"news.example.org\"
class = \"bulk\"
[[source-pool]]
name = \"shop\"
addresses = [\"127.0.30.13\"]
senders = [\"Shop.example\"]
";

/// A mail host that keeps, for each recipient, where the connection came from and what it said.
fn host() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let kept = kept.clone();
            std::thread::spawn(move || {
                let peer = stream.peer_addr().unwrap().ip();
                let mut write = stream.try_clone().unwrap();
                let (mut hello, mut in_data) = (String::new(), false);
                let _ = write.write_all(b"220 host\r\n");
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let reply: &[u8] = match line.get(..4).unwrap_or(&line) {
                        _ if in_data && line != "." => continue,
                        "EHLO" => {
                            line.clone_into(&mut hello);
                            b"250 host\r\n"
                        }
                        "RCPT" => {
                            kept.lock().unwrap().push(format!("{line} {peer} {hello}"));
                            b"250 ok\r\n"
                        }
                        "DATA" => b"354 go on\r\n",
                        "QUIT" => b"221 bye\r\n",
                        _ => b"250 ok\r\n",
                    };
                    in_data = line == "DATA";
                    if write.write_all(reply).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, seen)
}

/// Sends; what the host saw of it.
async fn send(queue: &Queue, seen: &Mutex<Vec<String>>, from: &str, to: &str, header: &str) -> String {
    let message = format!("From: <{from}>\r\n{header}\r\nHi.\r\n");
    let envelope = envelope(from, &[to], message.len());
    hand_over(&queue.client("inside"), &envelope, message.as_bytes())
        .await
        .unwrap();
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        let line = seen
            .lock()
            .unwrap()
            .iter()
            .find(|line| line.contains(to))
            .cloned();
        if let Some(line) = line {
            return line.split_once("> ").unwrap().1.to_owned();
        }
        assert!(Instant::now() < until, "{to}: {:#?}", queue.events());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn world() -> World {
    let mut world = World::default();
    world
        .mx("far.example", 10, "mx.far.example")
        .address("mx.far.example", HOST);
    world
}

#[tokio::test]
async fn class_and_sender_choose_where_mail_leaves_from() {
    let directory = tempfile::tempdir().unwrap();
    let (port, seen) = host();
    let queue = Queue::start(directory.path(), &configuration(world().serve(), port, POOLS));
    let bulk = "List-Id: <news.example.org>\r\n";
    let by_turns = [
        send(&queue, &seen, "news@example.org", "n1@far.example", bulk).await,
        // From a pool of its own, and not over the session of the other.
        send(&queue, &seen, "orders@shop.example", "s1@far.example", "").await,
    ];
    assert!(by_turns[0].starts_with("127.0.30.1") && by_turns[0].ends_with(" EHLO news.example.org"));
    assert_eq!(by_turns[1], "127.0.30.13 EHLO mail.example.org");
    // The first pool that fits.
    let both = send(&queue, &seen, "orders@shop.example", "s2@far.example", bulk).await;
    assert!(both.ends_with(" EHLO news.example.org"), "{both}");
    // Nothing fits: the system chooses.
    let none = send(&queue, &seen, "app@example.org", "a1@far.example", "").await;
    assert_eq!(none, "127.0.0.1 EHLO mail.example.org");
    queue.stop();
    let pool = |line: &String| line.contains("127.0.30.11") || line.contains("127.0.30.12");
    assert_eq!(seen.lock().unwrap().iter().filter(|line| pool(line)).count(), 2);
}

#[test]
fn an_address_that_is_not_on_the_node_is_an_error_at_start() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("state")).unwrap();
    let pools = POOLS.replace("127.0.30.12", "192.0.2.12");
    let file = directory.path().join("relay.toml");
    std::fs::write(&file, configuration(([127, 0, 0, 1], 9).into(), 25, &pools)).unwrap();
    let socket = seqpacket::listen(&directory.path().join("inside.sock")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-relay"));
    command
        .args(["queue", "--config"])
        .arg(&file)
        .stdin(Stdio::null());
    child::pass_descriptors(&mut command, vec![("handover-inside".to_owned(), socket)]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(
        said.contains("[[source-pool]] news: the address 192.0.2.12 is not on this node"),
        "{said}"
    );
}
