//! A whole gateway, `postern-relay run`, and a client that speaks SMTP to it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What `run` starts under [`gateway`], by the first argument of each process.
pub(crate) const PROCESSES: [&str; 4] = ["queue", "proxy", "scan", "smtpd"];

/// A gateway with all of [`PROCESSES`] that listens at `door` and relays to an SMTP server at `hop`.
pub(crate) fn gateway(door: SocketAddr, hop: SocketAddr) -> String {
    format!(
        r#"
role = "gateway"
hostname = "mx1.example.org"
local-domains = ["example.org"]
postmaster = "postmaster@example.org"
state-directory = "state"
runtime-directory = "run"
content = {{}}
[resolver]
address = "127.0.0.1:9"
[limits]
max-connections-per-address = 100
messages-per-hour = 0
greeting-delay = 0
[instance.public]
listen = ["{door}"]
tls = "off"
relay-for = "local-domains"
authentication = "none"
checks = ["content", "recipient"]
[recipient]
via = "proxy"
[proxy]
next-hop = "sink"
[next-hop.sink]
kind = "smtp"
host = "{}"
port = {}
tls = "off"
[[route]]
from = ["public"]
domains = ["example.org"]
next-hop = "sink"
[queue]
retry = [1]
"#,
        hop.ip(),
        hop.port()
    )
}

/// A port that is free, at an address that no other test uses: it is still free after a restart.
pub(crate) fn free_at(address: &str) -> SocketAddr {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

/// A running gateway.
pub(crate) struct Node {
    run: Child,
    parts: Vec<(String, Pid)>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Starts it with this configuration in `directory`, and waits until all its processes serve.
    pub(crate) fn start(directory: &Path, configuration: &str) -> Self {
        let file = directory.join("relay.toml");
        std::fs::write(&file, configuration).unwrap();
        let mut run = Command::new(env!("CARGO_BIN_EXE_postern-relay"))
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, kept) = (BufReader::new(run.stdout.take().unwrap()), lines.clone());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let mut node = Self {
            run,
            parts: Vec::new(),
            lines,
        };
        for process in PROCESSES {
            node.wait(&format!("{process} serves"), |line| {
                line.starts_with(process) && line.contains(r#""event":"started""#)
            });
        }
        node.parts = children(node.run.id());
        node
    }

    /// Waits for a line of the journal.
    pub(crate) fn wait(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            if self.lines.lock().unwrap().iter().any(|line| wanted(line)) {
                return;
            }
            let ended = self.run.try_wait().unwrap();
            let said = || self.lines.lock().unwrap().join("\n");
            assert!(
                ended.is_none() && Instant::now() < until,
                "not seen: {what}; {ended:?}\n{}",
                said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process of that name; `run` is the one that started the others.
    pub(crate) fn pid(&self, name: &str) -> Pid {
        if name == "run" {
            return Pid::from_raw(self.run.id().cast_signed());
        }
        let found = self.parts.iter().find(|(process, _)| process == name);
        found
            .unwrap_or_else(|| panic!("{name} is not in {:?}", self.parts))
            .1
    }

    /// Waits until all processes are gone, `run` and what it started: when one of them ends, all are to end.
    pub(crate) fn ended(mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let status = self.run.try_wait().unwrap();
            let left: Vec<_> = self.parts.iter().filter(|(_, pid)| is_running(*pid)).collect();
            if let (Some(status), []) = (status, &left[..]) {
                return status;
            }
            assert!(Instant::now() < until, "still running: {status:?}, {left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM; the exit status must be good.
    pub(crate) fn stop(self) {
        kill(self.pid("run"), Signal::SIGTERM).unwrap();
        let status = self.ended();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its children are told by the kernel.
        let _ = self.run.kill();
        let _ = self.run.wait();
    }
}

/// First argument and id of each child.
fn children(parent: u32) -> Vec<(String, Pid)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let id = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(id) = id else { continue };
        if status(id).is_some_and(|(_, its)| its == parent) {
            let arguments = std::fs::read_to_string(path.join("cmdline")).unwrap();
            let name = arguments.split('\0').nth(1).unwrap();
            found.push((name.to_owned(), Pid::from_raw(id)));
        }
    }
    found
}

/// State and parent of a process, as long as there is one (`proc_pid_stat(5)`).
fn status(id: i32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// One that has ended may still wait for whoever reaps it.
fn is_running(pid: Pid) -> bool {
    status(pid.as_raw()).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// A client with a session.
pub(crate) struct Client {
    read: BufReader<TcpStream>,
}

impl Client {
    /// Connects and says EHLO. An error is a connection that the server does not take or breaks off.
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        let mut client = Self {
            read: BufReader::new(stream),
        };
        for wanted in ["220 ", "250 "] {
            let reply = client.reply()?;
            if !reply.starts_with(wanted) {
                return Err(io::Error::other(reply));
            }
            if wanted == "220 " {
                client.write("EHLO client.example\r\n")?;
            }
        }
        Ok(client)
    }

    /// The last line of the next reply.
    pub(crate) fn reply(&mut self) -> io::Result<String> {
        loop {
            let mut line = String::new();
            if self.read.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    /// Says something and does not wait.
    pub(crate) fn write(&mut self, text: &str) -> io::Result<()> {
        self.read.get_mut().write_all(text.as_bytes())
    }

    /// Says a command; its reply.
    pub(crate) fn say(&mut self, command: &str) -> io::Result<String> {
        self.write(&format!("{command}\r\n"))?;
        self.reply()
    }

    /// Sends a message whose size is declared; the first reply that refuses it, or the last one.
    pub(crate) fn send(&mut self, to: &str, message: &str) -> io::Result<String> {
        let size = message.len();
        for command in [
            format!("MAIL FROM:<app@example.net> SIZE={size}"),
            format!("RCPT TO:<{to}>"),
            "DATA".to_owned(),
        ] {
            let reply = self.say(&command)?;
            if !reply.starts_with(['2', '3']) {
                return Ok(reply);
            }
        }
        self.write(&format!("{}.\r\n", message.replace("\r\n.", "\r\n..")))?;
        self.reply()
    }
}
