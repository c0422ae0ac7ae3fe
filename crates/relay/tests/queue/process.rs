//! One queue process, started as the service manager does: with its sockets in its hands.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postern_control::{Event, EventKind};
use postern_relay::handover::{Client, Envelope, Recipient, Reply};
use postern_sandbox::{child, memfd, seqpacket};

/// A running queue. Dropping it kills it, as a crash would.
pub(crate) struct Queue {
    child: Child,
    events: Arc<Mutex<Vec<Event>>>,
    directory: PathBuf,
}

/// The configuration but for next hops and routes.
pub(crate) const HEAD: &str = r#"
role = "internal"
hostname = "mail.example.org"
local-domains = ["example.org"]
postmaster = "postmaster@example.org"
state-directory = "state"
runtime-directory = "run"
[resolver]
address = "127.0.0.1:9"
[instance.public]
tls = "off"
relay-for = "local-domains"
authentication = "none"
[queue]
retry = [1]
expire = 20
"#;

/// Routes for local mail to a mail store at this address.
pub(crate) fn to_lmtp(address: std::net::SocketAddr) -> String {
    format!(
        "{HEAD}
[next-hop.mailboxes]
kind = \"lmtp\"
socket = \"{address}\"
[[route]]
from = [\"inside\", \"public\"]
domains = [\"example.org\"]
next-hop = \"mailboxes\"
"
    )
}

impl Queue {
    /// Starts a queue with this configuration in `directory`, and waits until it serves.
    pub(crate) fn start(directory: &Path, configuration: &str) -> Self {
        let run = directory.join("run/queue");
        std::fs::create_dir_all(&run).unwrap();
        std::fs::create_dir_all(directory.join("state")).unwrap();
        let file = directory.join("relay.toml");
        std::fs::write(&file, configuration).unwrap();
        let mut sockets: Vec<(String, OwnedFd)> = Vec::new();
        for instance in ["inside", "public"] {
            let socket = seqpacket::listen(&run.join(format!("{instance}.sock"))).unwrap();
            sockets.push((format!("handover-{instance}"), socket));
        }
        let control = directory.join("run/control.sock");
        let _ = std::fs::remove_file(&control);
        sockets.push(("control".into(), UnixListener::bind(&control).unwrap().into()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern-relay"));
        command.args(["queue", "--config"]).arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        child::pass_descriptors(&mut command, sockets);
        let mut child = command.spawn().unwrap();
        drop(command);
        let events = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stdout.take().unwrap()), events.clone());
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(Event::from_line(&line).unwrap());
            }
        });
        let mut queue = Self {
            child,
            events,
            directory: directory.to_owned(),
        };
        queue.wait("it serves", |kind| matches!(kind, EventKind::Started { .. }));
        queue
    }

    /// A client of a handover socket.
    pub(crate) fn client(&self, instance: &str) -> Client {
        Client::new(self.directory.join(format!("run/queue/{instance}.sock")))
    }

    /// What the process has told so far.
    pub(crate) fn events(&self) -> Vec<EventKind> {
        self.events
            .lock()
            .unwrap()
            .iter()
            .map(|event| event.kind.clone())
            .collect()
    }

    /// Waits for an event.
    pub(crate) fn wait(&mut self, what: &str, wanted: impl Fn(&EventKind) -> bool) -> EventKind {
        let until = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(found) = self.events().into_iter().find(&wanted) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < until,
                "not seen: {what}; {ended:?}; {:#?}",
                self.events()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The control socket.
    pub(crate) fn control(&self) -> PathBuf {
        self.directory.join("run/control.sock")
    }

    /// Asks the control socket, as its contract has it.
    pub(crate) fn request(&self, request: &postern_control::Request) -> postern_control::Reply {
        let answer = self.ask(&serde_json::to_string(request).unwrap());
        serde_json::from_value(answer).unwrap()
    }

    /// Asks the control socket whatever this text says.
    pub(crate) fn ask(&self, request: &str) -> serde_json::Value {
        use std::io::Write;
        let mut stream = std::os::unix::net::UnixStream::connect(self.control()).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Runs the operator's command at the control socket.
    pub(crate) fn postern(&self, arguments: &[&str]) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_postern-relay")).with_file_name("postern");
        let mut command = Command::new(&program);
        command.args(arguments).arg("--socket").arg(self.control());
        command.output().unwrap_or_else(|error| {
            panic!(
                "{}: {error}; build it first: cargo build --workspace --bins",
                program.display()
            )
        })
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let id = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// SIGTERM; the exit status must be good.
    pub(crate) fn stop(self) {
        self.terminate();
        self.ended();
    }

    /// Waits for its end after SIGTERM; the exit status must be good.
    pub(crate) fn ended(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An envelope of a proven sender.
pub(crate) fn envelope(from: &str, to: &[&str], size: usize) -> Envelope {
    let recipient = |address: &&str| Recipient {
        address: (*address).into(),
        orcpt: None,
        notify: None,
    };
    Envelope {
        trace: "0123456789abcdef".into(),
        reverse_path: from.into(),
        recipients: to.iter().map(recipient).collect(),
        ret: None,
        envid: None,
        smtputf8: false,
        require_tls: false,
        eight_bit: false,
        peer: "192.0.2.1".into(),
        helo: "client.example".into(),
        tls: None,
        authenticated_user: None,
        return_path_proven: true,
        size: size as u64,
    }
}

/// Hands a message over; `None` where the queue went away.
pub(crate) async fn hand_over(client: &Client, envelope: &Envelope, message: &[u8]) -> Option<Reply> {
    let memory = memfd::sealed(message).unwrap();
    client.hand_over(envelope, memory.as_fd()).await.ok()
}
