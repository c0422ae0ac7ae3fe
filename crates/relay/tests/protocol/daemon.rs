//! One daemon under test: `postern-relay run` with a configuration of its own in a directory of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern_control::{Reply, Request};
use tempfile::TempDir;

use crate::dns::Dns;
use crate::names::Names;
use crate::sink::Sink;

/// A running daemon and what surrounds it.
pub(crate) struct Daemon {
    child: Child,
    ports: BTreeMap<&'static str, SocketAddr>,
    lines: Arc<Mutex<Vec<String>>>,
    pub(crate) sink: Sink,
    pub(crate) names: Names,
    pub(crate) dns: Dns,
    directory: TempDir,
    /// A scanner that accepts and never answers.
    _silent: UnixListener,
}

const PORTS: [&str; 4] = ["public", "submission", "inside", "plain"];

/// After `messages-per-hour = 2`.
const LIMITS: &str = "\
listed-peers = [\"127.0.50.0/24\"]
messages-per-hour-network = 3
messages-per-hour-sender = 4
messages-per-hour-recipient = 2
proven-factor = 3
proven-messages = 2
proven-age = 0
";

const GREYLIST: &str = "[greylist]\ndelay = 2\n";

const CLIENT: &str = r#"
[client]
reverse-dns = "mark"
helo = "reject"
[[dns-list]]
zone = "block.example"
action = "reject"
codes = ["127.0.0.2/31"]
[[dns-list]]
zone = "mark.example"
action = "mark"
[[dns-list]]
zone = "allow.example"
action = "allow"
[[dns-list]]
zone = "silent.example"
action = "reject"
[[dns-list]]
zone = "everybody.example"
action = "reject"
[[dns-list]]
zone = "nobody.example"
action = "reject"
[[dns-list]]
zone = "refusing.example"
action = "reject"
"#;

/// The hold of `hybrid`, and that of `hybrid-full` with room for one message.
const HYBRID: &str = "
[hybrid]
deadline = 1
lifetime = 3600
max-messages =";

const STRESS: &str = "
[stress]
at-percent = 50
command-timeout = 3
data-timeout = 6
max-errors = 2
max-connections-per-address = 2
";

impl Daemon {
    /// Starts the daemon of this kind and waits until it serves.
    pub(crate) fn start(kind: &str) -> Self {
        let directory = TempDir::with_prefix("postern-").expect("a directory");
        let names = Names::new(directory.path());
        let (sink, next_hop) = Sink::start();
        let dns = Dns::start();
        let ports: BTreeMap<_, _> = PORTS.into_iter().zip(free_ports()).collect();
        let silent = directory.path().join("silent.sock");
        let silent_listener = UnixListener::bind(&silent).expect("a socket");
        crate::logins::serve(&directory.path().join("auth.sock"));
        let file = directory.path().join("relay.toml");
        let stub = directory.path().join("stub.sock");
        crate::scanner::serve(&stub);
        let sockets = [&silent, &stub].map(|path| path.display().to_string());
        let sockets = sockets.each_ref().map(String::as_str);
        let text = configuration(kind, &ports, next_hop, dns.address, sockets);
        std::fs::write(&file, text).expect("the configuration can be written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_postern-relay"))
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the daemon can be started");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let out = BufReader::new(child.stdout.take().expect("its output is piped"));
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                kept.lock().expect("no thread panicked").push(line);
            }
        });
        let mut daemon = Self {
            child,
            ports,
            lines,
            sink,
            names,
            dns,
            directory,
            _silent: silent_listener,
        };
        daemon.wait_until_it_serves(kind);
        daemon
    }

    fn wait_until_it_serves(&mut self, kind: &str) {
        let until = Instant::now() + Duration::from_mins(1);
        // queue, proxy, scan, three smtpd
        while self
            .since(0)
            .iter()
            .filter(|line| line.contains(r#""event":"started""#))
            .count()
            < 6
        {
            let ended = self.child.try_wait().expect("the daemon can be asked");
            assert!(
                ended.is_none() && Instant::now() < until,
                "daemon {kind} does not serve: {}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn address(&self, port: &str) -> Option<SocketAddr> {
        self.ports.get(port).copied()
    }

    /// The file it was started with.
    pub(crate) fn configuration(&self) -> std::path::PathBuf {
        self.directory.path().join("relay.toml")
    }

    /// What `metrics` on its control socket answers.
    pub(crate) fn figures(&self) -> std::io::Result<String> {
        let stream = UnixStream::connect(self.directory.path().join("run/control.sock"))?;
        let request = serde_json::to_string(&Request::Metrics)? + "\n";
        (&stream).write_all(request.as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        match serde_json::from_str(&line)? {
            Reply::Metrics { text } => Ok(text),
            other => Err(std::io::Error::other(format!("{other:?}"))),
        }
    }

    /// Lines said so far.
    pub(crate) fn mark(&self) -> usize {
        self.lines.lock().expect("no thread panicked").len()
    }

    pub(crate) fn since(&self, mark: usize) -> Vec<String> {
        self.lines.lock().expect("no thread panicked")[mark..].to_vec()
    }

    /// The last lines, for failures.
    pub(crate) fn said(&self) -> String {
        let lines = self.since(0);
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Asks it to stop; it must end by itself, in time, and well.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)
            .map_err(|error| error.to_string())?;
        let until = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                let sockets = self.directory.path().join("run");
                drop(sockets);
                return if status.success() {
                    Ok(())
                } else {
                    Err(format!("it ended with {status}\n{}", self.said()))
                };
            }
            if Instant::now() > until {
                self.child.kill().map_err(|error| error.to_string())?;
                return Err(format!("it did not end in 40 s\n{}", self.said()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Ports that were free a moment ago; held together so that they differ.
fn free_ports() -> Vec<SocketAddr> {
    let listeners: Vec<TcpListener> = PORTS
        .iter()
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().expect("an address"))
        .collect()
}

/// `default`, `strict` (greylist and hourly limit), `limits` (the other hourly limits, and what a history does to them), `narrow`
/// (two connections an address), `sasl` (AUTH at `inside`), `origin` (SPF, DKIM, ARC, DMARC), `client` (EHLO, reverse DNS, lists in DNS, greylist), `proxied` (127.0.80.0/24 are proxies),
/// `stress` (which begins with five connections of ten), `hung-spam`, `dead-virus`, `hybrid` (scanners are stubs, and a client waits a second for them), `hybrid-full` (with room for
/// one message in the hold), `node` (`plain` asks for the
/// certificate of a node), `proven` (greylist and DMARC), `scanned` (all checks of whole messages; both scanners are stubs), `figures`
/// (the same, for one dialogue alone).
fn configuration(
    kind: &str,
    ports: &BTreeMap<&str, SocketAddr>,
    next_hop: SocketAddr,
    dns: SocketAddr,
    [silent, stub]: [&str; 2],
) -> String {
    // Room for a message that smtpd receives into a memory file.
    let size = if kind == "origin" { 600_000 } else { 100_000 };
    let limits = limits(kind);
    let more = match kind {
        "strict" | "proven" => GREYLIST.to_owned(),
        "client" => format!("{GREYLIST}{CLIENT}"),
        "stress" => STRESS.to_owned(),
        "hybrid" => format!("{HYBRID} 1000\n"),
        "hybrid-full" => format!("{HYBRID} 1\n"),
        _ => String::new(),
    };
    let (spam, virus) = match kind {
        "hung-spam" => (silent, "off"),
        "dead-virus" => ("off", "/nonexistent/clamd.sock"),
        "hybrid" | "hybrid-full" | "scanned" | "figures" => (stub, stub),
        _ => ("off", "off"),
    };
    let scan_timeout = if spam == stub { 30 } else { 1 };
    let inside_authentication = if kind == "sasl" {
        "authentication = \"sasl\"\nsend-as-any = [\"app@example.org\"]\n[sasl]\nsocket = \"auth.sock\""
    } else {
        "authentication = \"client-certificate\"\nclient-ca = \"ca.crt\"\ntrusted-names = [\"mail.example.org\"]"
    };
    let (checks, dmz) = (checks(kind), plain_door(kind));
    let [public, submission, inside, plain] = PORTS.map(|name| ports[name]);
    format!(
        r#"
role = "gateway"
hostname = "mx1.example.org"
local-domains = ["example.org"]
postmaster = "chief@example.org"
state-directory = "state"
runtime-directory = "run"
content = {{ max-parts = 6, max-depth = 4 }}
trusted-sealers = ["list.example", "forward.example", "temporary.example", "signed.example"]
[resolver]
address = "{dns}"
[limits]
max-message-size = {size}
max-recipients = 5
{limits}message-memory = 1000000
command-timeout = 8
max-errors = 5
max-hops = 5
[instance.public]
listen = ["{public}"]
listen-submission = ["{submission}"]
tls = "required"
certificate = "smtp.crt"
key = "smtp.key"
relay-for = "local-domains"
authentication = "none"
checks = {checks}
[instance.inside]
listen = ["{inside}"]
tls = "required"
certificate = "smtp.crt"
key = "smtp.key"
relay-for = "any"
{inside_authentication}
[instance.dmz]
listen = ["{plain}"]
relay-for = "local-domains"
{dmz}
{more}
[spam]
socket = "{spam}"
timeout = {scan_timeout}
mark-score = 5.0
reject-score = 10.0
[virus]
socket = "{virus}"
timeout = {scan_timeout}
[recipient]
via = "proxy"
[proxy]
next-hop = "sink"
[next-hop.sink]
kind = "smtp"
host = "127.0.0.1"
port = {}
tls = "off"
[[route]]
from = ["public", "dmz"]
domains = ["example.org"]
next-hop = "sink"
[[route]]
from = ["inside"]
domains = ["*"]
next-hop = "sink"
[reports]
from = "chief@example.org"
interval = 2
[queue]
retry = [1]
"#,
        next_hop.port()
    )
}

fn limits(kind: &str) -> String {
    let connections = if kind == "stress" { 10 } else { 1000 };
    // A kind of its own: the daemon notices the end of a dialogue's connections only after it.
    let per_address = if kind == "narrow" { 2 } else { 100 };
    let per_hour = if ["strict", "limits"].contains(&kind) {
        2
    } else {
        0
    };
    let more = if kind == "limits" { LIMITS } else { "" };
    format!(
        "max-connections = {connections}\nmax-connections-per-address = {per_address}\nmessages-per-hour = {per_hour}\n{more}"
    )
}

fn checks(kind: &str) -> &'static str {
    match kind {
        "strict" => r#"["greylist", "recipient"]"#,
        "origin" | "limits" => r#"["spf", "dkim", "arc", "dmarc", "spam", "virus"]"#,
        "proven" => r#"["greylist", "spf", "dkim", "arc", "dmarc"]"#,
        "scanned" | "figures" => r#"["spf", "dkim", "arc", "dmarc", "content", "spam", "virus"]"#,
        "client" => r#"["helo", "reverse-dns", "dns-lists", "greylist", "recipient"]"#,
        _ => r#"["content", "spam", "virus", "recipient"]"#,
    }
}

/// What stands behind the port `plain`.
fn plain_door(kind: &str) -> String {
    // The internal node's door for the gateway: whoever shows its certificate.
    if kind == "node" {
        return "tls = \"required\"\ncertificate = \"smtp.crt\"\nkey = \"smtp.key\"\nauthentication = \"client-certificate\"\n\
                client-ca = \"ca.crt\"\ntrusted-names = [\"mail.example.org\"]"
            .to_owned();
    }
    let proxies = if kind == "proxied" {
        "proxy-protocol-from = [\"127.0.80.0/24\"]\n"
    } else {
        ""
    };
    let checks = checks(kind);
    format!("{proxies}tls = \"off\"\nauthentication = \"none\"\nchecks = {checks}")
}
