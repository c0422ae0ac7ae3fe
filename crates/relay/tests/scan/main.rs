//! Workers of the scan process that are lost: the message in hand is deferred, the next worker takes the next message.
//!
//! The process runs as it does on a node, behind its walls. A worker is lost as in real life: it is killed, or its time is up.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern_relay::checks::content::{ContentError, ask};
use postern_relay::scan::Seen;
use postern_sandbox::{child, memfd, seqpacket};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

/// The scan process alone.
struct Scan {
    process: Child,
    socket: PathBuf,
    said: Arc<Mutex<String>>,
    /// What the service manager hears.
    told: Receiver<String>,
    _directory: TempDir,
}

impl Scan {
    fn start(content: &str) -> Self {
        let directory = TempDir::with_prefix("postern-").expect("a directory");
        let file = directory.path().join("relay.toml");
        std::fs::write(&file, configuration(content, "127.0.0.1:1")).expect("written");
        let socket = directory.path().join("scan.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern-relay"));
        command.args(["scan", "--config"]).arg(&file);
        let notify = directory.path().join("notify");
        let manager = UnixDatagram::bind(&notify).expect("a socket");
        let (hear, told) = std::sync::mpsc::channel();
        // Like the service manager it always reads: who tells it something waits while its socket is full.
        std::thread::spawn(move || {
            let mut octets = [0; 1024];
            while let Ok(count) = manager.recv(&mut octets) {
                if hear
                    .send(String::from_utf8_lossy(&octets[..count]).into_owned())
                    .is_err()
                {
                    break;
                }
            }
        });
        command
            .env("NOTIFY_SOCKET", &notify)
            .env("WATCHDOG_USEC", "300000");
        let listener = seqpacket::listen(&socket).expect("a socket");
        child::pass_descriptors(&mut command, vec![("scan".into(), listener)]);
        let (process, said) = follow(command);
        Self {
            process,
            socket,
            said,
            told,
            _directory: directory,
        }
    }

    /// What it tells the service manager next.
    fn told(&self) -> String {
        self.told.recv_timeout(PATIENCE).expect("it says something")
    }

    /// The only worker, once there is one besides `not`.
    fn worker(&self, not: Option<Pid>) -> Pid {
        worker_of(self.process.id(), not)
    }

    /// Waits for a warning that holds `text`.
    fn warns(&self, text: &str) {
        until(text, || {
            self.said.lock().expect("no panic").contains(text).then_some(())
        });
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn follow(mut command: Command) -> (Child, Arc<Mutex<String>>) {
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let out = BufReader::new(process.stdout.take().expect("piped"));
    let said = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&said);
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            kept.lock().expect("no panic").push_str(&(line + "\n"));
        }
    });
    (process, said)
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn children(of: u32) -> Vec<i32> {
    let path = format!("/proc/{of}/task/{of}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn worker_of(supervisor: u32, not: Option<Pid>) -> Pid {
    until("a worker", || {
        children(supervisor)
            .into_iter()
            .map(Pid::from_raw)
            .find(|pid| Some(*pid) != not)
    })
}

fn configuration(content: &str, listen: &str) -> String {
    format!(
        r#"
role = "gateway"
hostname = "mx1.example.org"
local-domains = ["example.org"]
postmaster = "chief@example.org"
state-directory = "state"
runtime-directory = "run"
[resolver]
address = "127.0.0.1:53"
[instance.public]
listen = ["{listen}"]
tls = "off"
relay-for = "local-domains"
authentication = "none"
checks = ["content"]
[content]
{content}
[next-hop.sink]
kind = "smtp"
host = "127.0.0.1"
port = 1
tls = "off"
[[route]]
from = ["public"]
domains = ["example.org"]
next-hop = "sink"
"#
    )
}

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// Larger than a packet, so that it goes as sealed memory.
fn large(attachment: &str) -> Vec<u8> {
    let body = "all work and no play\r\n".repeat(20_000);
    format!("Content-Disposition: attachment; filename=\"{attachment}\"\r\n\r\n{body}").into_bytes()
}

#[test]
fn the_service_manager_hears_that_it_is_ready_and_alive() {
    let scan = Scan::start("");
    assert!(scan.told().starts_with("READY=1"));
    assert_eq!(scan.told().trim_end(), "WATCHDOG=1");
}

#[tokio::test]
async fn messages_are_looked_at_inline_and_in_sealed_memory() {
    let scan = Scan::start("workers = 1");
    assert_eq!(ask(&scan.socket, MESSAGE, None).await.expect("a report").seen, []);
    assert_eq!(
        ask(&scan.socket, &large("a.txt"), None)
            .await
            .expect("a report")
            .seen,
        []
    );
    let report = ask(&scan.socket, &large("a.exe"), None).await.expect("a report");
    assert!(
        matches!(report.seen.as_slice(), [Seen::Denied { .. }]),
        "{report:?}"
    );
    assert_eq!(ask(&scan.socket, b"", None).await.expect("a report").parts, 1);
}

#[tokio::test]
async fn a_message_is_looked_at_where_it_lies_behind_room_that_is_none_of_it() {
    let scan = Scan::start("workers = 1");
    for (attachment, is_denied) in [("a.txt", false), ("a.exe", true)] {
        let message = large(attachment);
        let mut memory = memfd::Writer::new().expect("memory");
        // Were it read from the beginning, this would be the name.
        let room = large(if is_denied { "b.txt" } else { "b.exe" });
        memory
            .write_all(&room[..1000])
            .and_then(|()| memory.write_all(&message))
            .expect("written");
        let view = memory.view(1000 + message.len()).expect("a view");
        let report = ask(&scan.socket, &view[1000..], Some(&view))
            .await
            .expect("a report");
        assert_eq!(
            matches!(report.seen.as_slice(), [Seen::Denied { attachment: of, .. }] if of == attachment),
            is_denied,
            "{report:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_over_a_message_gives_no_answer_and_the_next_one_does() {
    let scan = Scan::start(&format!("workers = 1\ntimeout = 300\n{BOUNDLESS}"));
    ask(&scan.socket, MESSAGE, None).await.expect("a report");
    let worker = scan.worker(None);
    let socket = scan.socket.clone();
    let asked = tokio::spawn(async move { ask(&socket, &endless(), None).await });
    tokio::task::block_in_place(|| kill_at_work(worker));
    let error = asked.await.expect("no panic").expect_err("no answer");
    assert!(matches!(error, ContentError::Ended), "{error}");
    assert_eq!(ask(&scan.socket, MESSAGE, None).await.expect("a report").seen, []);
    assert_ne!(scan.worker(Some(worker)), worker);
    scan.warns(&format!("content worker {worker} ended: SIGKILL"));
}

#[tokio::test]
async fn a_message_that_takes_too_long_ends_its_worker() {
    let scan = Scan::start(&format!("workers = 1\ntimeout = 1\n{BOUNDLESS}"));
    ask(&scan.socket, MESSAGE, None).await.expect("a report");
    let worker = scan.worker(None);
    let error = ask(&scan.socket, &endless(), None).await.expect_err("no answer");
    assert!(matches!(error, ContentError::Ended), "{error}");
    assert_eq!(ask(&scan.socket, MESSAGE, None).await.expect("a report").seen, []);
    scan.warns(&format!("content worker {worker} ended: its time was up"));
}

#[tokio::test]
async fn a_message_that_wants_too_much_memory_ends_its_worker() {
    let scan = Scan::start(&format!("workers = 1\ntimeout = 300\n{BOUNDLESS}"));
    ask(&scan.socket, MESSAGE, None).await.expect("a report");
    let worker = scan.worker(None);
    // The process bounds its workers; here one of them is bounded more narrowly, from outside.
    let narrowed = Command::new("prlimit")
        .args([&format!("--pid={worker}"), "--as=16777216"])
        .status();
    assert!(narrowed.expect("prlimit of util-linux").success());
    let mut tar = vec![0; 64 << 20];
    tar[257..262].copy_from_slice(b"ustar");
    let message = gzip_message(&gzip(&tar));
    let error = ask(&scan.socket, &message, None).await.expect_err("no answer");
    assert!(matches!(error, ContentError::Ended), "{error}");
    scan.warns(&format!("content worker {worker} ended: SIGABRT"));
    let report = ask(&scan.socket, &message, None)
        .await
        .expect("the next worker has room");
    assert!(report.unpacked >= 64 << 20, "{report:?}");
}

/// So that a message can keep a worker busy.
const BOUNDLESS: &str = "max-ratio = 1000000\nmax-unpacked-size = 1099511627776";

/// Twenty GiB of zeros, in thirty MiB: seconds, for the fastest worker.
fn endless() -> Vec<u8> {
    gzip_message(&gzip(&vec![0; 4 << 20]).repeat(5120))
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(content).expect("packed");
    writer.finish().expect("packed")
}

fn gzip_message(packed: &[u8]) -> Vec<u8> {
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, packed);
    let mut message = b"Content-Type: application/gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n".to_vec();
    for line in text.as_bytes().chunks(76) {
        message.extend_from_slice(line);
        message.extend_from_slice(b"\r\n");
    }
    message
}

/// Kills a worker that is at a message: idle, it takes no time of the processor.
fn kill_at_work(worker: Pid) {
    let taken = || {
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).expect("the worker lives");
        let fields = stat.rsplit_once(')').expect("proc(5)").1;
        fields
            .split_whitespace()
            .nth(11)
            .and_then(|ticks| ticks.parse::<u64>().ok())
            .expect("utime")
    };
    let idle = taken();
    until("work", || (taken() > idle + 10).then_some(()));
    kill(worker, Signal::SIGKILL).expect("killed");
}

/// A connection to the daemon, one line at a time.
struct Smtp(BufReader<TcpStream>);

impl Smtp {
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a reply");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    fn say(&mut self, line: &str) -> String {
        self.0
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .expect("sent");
        self.reply()
    }

    fn message(&mut self, message: &[u8]) -> String {
        assert!(self.say("MAIL FROM:<a@sender.example>").starts_with("250"));
        assert!(self.say("RCPT TO:<b@example.org>").starts_with("250"));
        assert!(self.say("DATA").starts_with("354"));
        self.0.get_mut().write_all(message).expect("sent");
        self.say(".")
    }
}

#[test]
fn mail_is_deferred_when_the_worker_dies_over_it_and_the_next_is_taken() {
    let directory = TempDir::with_prefix("postern-").expect("a directory");
    let listen = TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .expect("a port");
    let file = directory.path().join("relay.toml");
    let content = format!("workers = 1\ntimeout = 300\n{BOUNDLESS}");
    std::fs::write(&file, configuration(&content, &listen.to_string())).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-relay"));
    command.args(["run", "--config"]).arg(&file);
    let (mut daemon, said) = follow(command);
    until("the start of queue, scan and smtpd", || {
        let said = said.lock().expect("no panic");
        (said.matches(r#""event":"started""#).count() == 3).then_some(())
    });
    let mut smtp = connect(listen);
    assert!(smtp.reply().starts_with("220"));
    assert!(smtp.say("EHLO client.example").starts_with("250"));
    assert!(smtp.message(MESSAGE).starts_with("250 2.0.0"));

    let worker = worker_of(scan_process(daemon.id()), None);
    let answer = std::thread::spawn(move || (smtp.message(&endless()), smtp));
    kill_at_work(worker);
    let (reply, mut smtp) = answer.join().expect("an answer");
    assert!(
        reply.starts_with("451 4.7.1 The content scanner does not answer"),
        "{reply}"
    );
    assert!(smtp.message(MESSAGE).starts_with("250 2.0.0"));
    kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM).expect("asked to stop");
    drop(smtp);
    assert!(daemon.wait().expect("an end").success());
}

fn connect(address: SocketAddr) -> Smtp {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    Smtp(BufReader::new(stream))
}

fn scan_process(daemon: u32) -> u32 {
    until("the scan process", || {
        children(daemon).into_iter().map(i32::cast_unsigned).find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|octet| *octet == 0)
                .any(|argument| argument == b"scan")
        })
    })
}
