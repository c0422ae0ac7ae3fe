//! A node of its own: `postern-relay run` with a greylist and nothing behind it, and a client that asks RCPT.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_mins(1);

/// A running node.
pub(crate) struct Node {
    child: Child,
    address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Starts it in `directory`, with `more` tables in its configuration.
    pub(crate) fn start(directory: &Path, more: &str) -> Self {
        Self::limited(directory, "", more)
    }

    /// Also with `limits`.
    pub(crate) fn limited(directory: &Path, limits: &str, more: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port");
        let file = directory.join("relay.toml");
        std::fs::write(&file, configuration(address, limits, more)).expect("it can be written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_postern-relay"))
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let out = BufReader::new(child.stdout.take().expect("its output is piped"));
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                kept.lock().expect("no thread panicked").push(line);
            }
        });
        let node = Self {
            child,
            address,
            lines,
        };
        node.wait_for("smtpd/public: event", r#""event":"started""#);
        node
    }

    /// Waits for a line that has both words.
    pub(crate) fn wait_for(&self, one: &str, other: &str) {
        until(
            &format!("a line with {one} and {other}; there are: {}", self.said()),
            || {
                self.said()
                    .lines()
                    .any(|line| line.contains(one) && line.contains(other))
            },
        );
    }

    /// All that was said.
    pub(crate) fn said(&self) -> String {
        self.lines.lock().expect("no thread panicked").join("\n")
    }

    /// The reply to RCPT for this reverse-path.
    pub(crate) fn rcpt(&self, reverse_path: &str) -> String {
        self.rcpt_to(reverse_path, "user")
    }

    /// The same for a mailbox of example.org.
    pub(crate) fn rcpt_to(&self, reverse_path: &str, mailbox: &str) -> String {
        self.talk(&[
            "EHLO client.example",
            &format!("MAIL FROM:<{reverse_path}>"),
            &format!("RCPT TO:<{mailbox}@example.org>"),
        ])
    }

    /// The reply to a whole message for this reverse-path.
    pub(crate) fn send(&self, reverse_path: &str) -> String {
        self.send_to(reverse_path, "user")
    }

    /// The same for a mailbox of example.org.
    pub(crate) fn send_to(&self, reverse_path: &str, mailbox: &str) -> String {
        self.talk(&[
            "EHLO client.example",
            &format!("MAIL FROM:<{reverse_path}>"),
            &format!("RCPT TO:<{mailbox}@example.org>"),
            "DATA",
            "From: <a@sender.example>\r\n\r\nhello\r\n.",
        ])
    }

    /// The last reply.
    fn talk(&self, commands: &[&str]) -> String {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let mut read = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut reply = String::new();
        for command in std::iter::once(None).chain(commands.iter().map(Some)) {
            if let Some(command) = command {
                (&stream)
                    .write_all(format!("{command}\r\n").as_bytes())
                    .expect("it reads");
            }
            loop {
                reply.clear();
                read.read_line(&mut reply).expect("it replies");
                if reply.as_bytes().get(3) != Some(&b'-') {
                    break;
                }
            }
        }
        reply
    }

    /// Asks until the triplet has waited.
    pub(crate) fn rcpt_until_known(&self, reverse_path: &str) {
        until("a triplet that has waited", || {
            self.rcpt(reverse_path).starts_with("250")
        });
    }

    /// Ends all its processes at once, as the power does.
    pub(crate) fn cut(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
        // Its children die with it, by the kernel's hand.
        until("its sockets are free", || {
            TcpStream::connect(self.address).is_err()
        });
    }

    /// Asks it to stop, and waits.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).expect("it runs");
        let status = self.child.wait().expect("it has ended");
        assert!(status.success(), "{status}: {}", self.said());
    }
}

/// Waits, and gives up in time.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn configuration(address: SocketAddr, limits: &str, more: &str) -> String {
    format!(
        r#"
role = "gateway"
hostname = "mx1.example.org"
local-domains = ["example.org"]
postmaster = "chief@example.org"
state-directory = "state"
runtime-directory = "run"
[resolver]
address = "127.0.0.1:9"
[limits]
greeting-delay = 0
{limits}
[instance.public]
listen = ["{address}"]
tls = "off"
relay-for = "local-domains"
authentication = "none"
checks = ["greylist"]
[greylist]
delay = 2
[next-hop.inside]
kind = "smtp"
host = "127.0.0.1"
port = 9
tls = "off"
[[route]]
from = ["public"]
domains = ["example.org"]
next-hop = "inside"
{more}
"#
    )
}
