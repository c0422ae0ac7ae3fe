//! SIGKILL of each process of a gateway in turn, under load: what was acknowledged by SMTP arrives, unaltered.
//!
//! When a process ends, `run` ends the others and itself, so each kill is followed by a start of the whole; an appliance
//! restarts the one process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::crash::{UNDER_WAY, content, number_of};
use crate::node::{Client, Node, PROCESSES, free_at, gateway};
use crate::sink::Sink;

/// Milliseconds under load before the kill.
const MOMENTS: [u64; 2] = [20, 300];
const CLIENTS: usize = 6;

/// The clients' ledger.
#[derive(Default)]
struct Ledger {
    /// The last message that was begun.
    last: AtomicUsize,
    /// Those that got their 250.
    acknowledged: Mutex<Vec<usize>>,
    /// Whether a refusal is to be expected.
    killed: AtomicBool,
}

impl Ledger {
    /// Sends messages, each to another mailbox, until one is not taken.
    fn client(&self, door: SocketAddr) {
        let Ok(mut client) = Client::connect(door) else {
            assert!(self.killed.load(Ordering::SeqCst), "the gateway does not listen");
            return;
        };
        loop {
            let number = self.last.fetch_add(1, Ordering::SeqCst) + 1;
            match client.send(&format!("user{number}@example.org"), &content(number)) {
                Ok(reply) if reply.starts_with("250 2.0.0 queued as ") => {
                    self.acknowledged.lock().unwrap().push(number);
                }
                refused => {
                    assert!(self.killed.load(Ordering::SeqCst), "{refused:?}");
                    return;
                }
            }
        }
    }

    /// Loads the gateway, kills a process of it, and waits for the end of all.
    fn round(self: &Arc<Self>, node: Node, door: SocketAddr, victim: &str, moment: Duration) {
        self.killed.store(false, Ordering::SeqCst);
        let before = self.acknowledged.lock().unwrap().len();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let ledger = self.clone();
                std::thread::spawn(move || ledger.client(door))
            })
            .collect();
        while self.acknowledged.lock().unwrap().len() == before {
            assert!(
                clients.iter().any(|client| !client.is_finished()),
                "no client is left"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(moment);
        self.killed.store(true, Ordering::SeqCst);
        kill(node.pid(victim), Signal::SIGKILL).unwrap();
        let status = node.ended();
        assert!(!status.success(), "run ended well without its {victim}");
        for client in clients {
            client.join().unwrap();
        }
    }
}

#[test]
fn whichever_process_is_killed_under_load_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (sink, door) = (Sink::start(), free_at("127.0.25.1"));
    let configuration = gateway(door, sink.address);
    let ledger = Arc::new(Ledger::default());
    let mut kills = 0;
    for moment in MOMENTS {
        for victim in PROCESSES.into_iter().chain(["run"]) {
            let node = Node::start(directory.path(), &configuration);
            ledger.round(node, door, victim, Duration::from_millis(moment));
            kills += 1;
        }
    }
    let acknowledged = ledger.acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() >= kills, "each kill came under load");
    let node = Node::start(directory.path(), &configuration);
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
    for taken in &taken {
        let number = number_of(&taken.content);
        assert_eq!(taken.to, format!("user{number}@example.org"));
        assert!(taken.content.ends_with(&content(number)), "{number} is altered");
    }
    let duplicates: usize = arrived(&taken).values().map(|times| times - 1).sum();
    assert!(duplicates <= kills * UNDER_WAY, "{duplicates} duplicates");
    println!(
        "{} acknowledged, {duplicates} duplicates, {kills} kills",
        acknowledged.len()
    );
    node.stop();
}

/// A stop of smtpd alone, as an appliance does it: the message that is coming is taken, nothing else is begun.
#[test]
fn a_stop_of_smtpd_takes_the_message_that_is_coming() {
    let directory = tempfile::tempdir().unwrap();
    let (sink, door) = (Sink::start(), free_at("127.0.25.2"));
    let mut node = Node::start(directory.path(), &gateway(door, sink.address));
    let (mut sends, mut idles) = (Client::connect(door).unwrap(), Client::connect(door).unwrap());
    for (command, code) in [
        ("MAIL FROM:<app@example.net>", "250 "),
        ("RCPT TO:<user@example.org>", "250 "),
        ("DATA", "354 "),
    ] {
        let reply = sends.say(command).unwrap();
        assert!(reply.starts_with(code), "{reply}");
    }
    sends.write("From: <app@example.net>\r\n").unwrap();
    kill(node.pid("smtpd"), Signal::SIGTERM).unwrap();
    node.wait("the stop", |line| {
        line.starts_with("smtpd") && line.contains(r#""event":"stopping""#)
    });
    assert!(idles.reply().unwrap().starts_with("421 4.3.2"));
    assert!(idles.reply().is_err(), "the connection is closed");
    assert!(Client::connect(door).is_err(), "a new client is served");
    sends.write("Subject: Hello\r\n\r\nHi.\r\n.\r\n").unwrap();
    let reply = sends.reply().unwrap();
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    assert!(
        sends.reply().unwrap().starts_with("421 4.3.2"),
        "and then it is idle, too"
    );
    sink.wait("the message", |taken| taken.len() == 1);
    node.ended();
}
