//! Reads and plays one dialogue; `tests/protocol/README.md` explains the language.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind, connect, socket,
};
use rustls::{ClientConnection, StreamOwned};

use crate::daemon::Daemon;

const PATIENCE: Duration = Duration::from_secs(20);

/// The kind of daemon that a dialogue wants.
pub(crate) fn daemon_of(text: &str) -> &str {
    text.lines()
        .find_map(|line| line.strip_prefix("daemon "))
        .map_or("default", str::trim)
}

/// Plays `text`, and returns what must not reach the next hop later either. An error begins with the line number.
pub(crate) fn run(text: &str, daemon: &Daemon) -> Result<Vec<String>, String> {
    let mut player = Player {
        daemon,
        wire: None,
        kept: Vec::new(),
        reply: String::new(),
        delivered: String::new(),
        undelivered: Vec::new(),
        mark: daemon.mark(),
    };
    let mut did = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') || line.starts_with("daemon ") {
            continue;
        }
        did += 1;
        player.step(line).map_err(|why| {
            format!(
                "{}: {line}\n    {why}\n    last reply: {:?}",
                number + 1,
                player.reply
            )
        })?;
    }
    if did == 0 {
        Err("1: the dialogue does nothing".into())
    } else {
        Ok(player.undelivered)
    }
}

struct Player<'a> {
    daemon: &'a Daemon,
    wire: Option<Wire>,
    /// Connections held open beside the one in use.
    kept: Vec<Wire>,
    reply: String,
    delivered: String,
    undelivered: Vec<String>,
    mark: usize,
}

struct Wire {
    tcp: TcpStream,
    tls: Option<StreamOwned<ClientConnection, TcpStream>>,
    buffer: Vec<u8>,
}

impl Player<'_> {
    fn step(&mut self, line: &str) -> Result<(), String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "connect" => self.connect(rest),
            "another" => {
                self.kept.extend(self.wire.take());
                self.connect(rest)
            }
            ">" => self.wire()?.send(format!("{rest}\r\n").as_bytes()),
            "send" => self.wire()?.send(&unescape(rest)?),
            "repeat" => {
                let (count, what) = rest.split_once(' ').ok_or("repeat COUNT \"octets\"")?;
                let count = count.parse::<usize>().map_err(|error| error.to_string())?;
                self.wire()?.send(&unescape(what)?.repeat(count))
            }
            "<" => {
                self.reply = self.wire()?.reply()?;
                let last = self.reply.lines().last().unwrap_or_default();
                check(last.starts_with(rest), || format!("the reply is {last:?}"))
            }
            "&" => check(self.reply.contains(rest), || "the reply does not have it".into()),
            "!" => check(!self.reply.contains(rest), || "the reply has it".into()),
            "tls" => {
                let daemon = self.daemon;
                self.wire()?.handshake(daemon, rest)
            }
            "closed" => self.wire()?.expect_end(),
            "hang-up" => self
                .wire
                .take()
                .map(|wire| drop(wire.tcp.shutdown(Shutdown::Both)))
                .ok_or("not connected".into()),
            "wait" => {
                std::thread::sleep(Duration::from_millis(
                    rest.parse().map_err(|_| "wait MILLISECONDS")?,
                ));
                Ok(())
            }
            "delivered" => {
                self.delivered = self
                    .daemon
                    .sink
                    .wait_for(rest, PATIENCE)
                    .ok_or("it did not arrive")?;
                Ok(())
            }
            "undelivered" => {
                self.undelivered.push(rest.into());
                let arrived = self.daemon.sink.wait_for(rest, Duration::ZERO);
                check(arrived.is_none(), || "it arrived".into())
            }
            "has" => check(self.delivered.contains(&text(rest)?), || {
                format!("the message is {}", self.delivered)
            }),
            "has-not" => check(!self.delivered.contains(&text(rest)?), || {
                format!("the message is {}", self.delivered)
            }),
            "signed" => {
                let message = self.daemon.dns.signed(&text(rest)?);
                self.wire()?.send(message.as_bytes())
            }
            "sealed" => {
                let message = self.daemon.dns.sealed(&text(rest)?);
                self.wire()?.send(message.as_bytes())
            }
            "file" => {
                let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../../tests/protocol")
                    .join(rest);
                let lines = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
                self.wire()?.send(lines.replace('\n', "\r\n").as_bytes())
            }
            "still-signed" => {
                let start = self.delivered.find("Received:").ok_or("no Received field")?;
                self.daemon.dns.verifies(&self.delivered[start..])
            }
            "event" => self.event(rest),
            "no-event" => check(!self.has_line(self.mark, rest), || {
                "an event has all of it".into()
            }),
            "figure" => self.figure(rest),
            "said" => check(self.has_line(0, rest), || "no line has all of it".into()),
            "back" => {
                check(!self.kept.is_empty(), || "no connection was kept".into())?;
                let first = self.kept.remove(0);
                self.kept.extend(self.wire.replace(first));
                Ok(())
            }
            _ => Err("there is no such step".into()),
        }
    }

    /// `PORT` or `PORT from ADDRESS`.
    fn connect(&mut self, words: &str) -> Result<(), String> {
        let (port, source) = words.split_once(" from ").unwrap_or((words, "127.0.0.1"));
        let address = self.daemon.address(port).ok_or("there is no such port")?;
        let source = source.parse().map_err(|_| "from ADDRESS, of 127.0.0.0/8")?;
        let tcp = connect_from(source, address).map_err(|error| error.to_string())?;
        tcp.set_read_timeout(Some(PATIENCE))
            .map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        self.wire = Some(Wire {
            tcp,
            tls: None,
            buffer: Vec::new(),
        });
        Ok(())
    }

    fn wire(&mut self) -> Result<&mut Wire, String> {
        self.wire.as_mut().ok_or_else(|| "not connected".into())
    }

    fn has_line(&self, mark: usize, words: &str) -> bool {
        let has_all = |line: &String| words.split_whitespace().all(|word| line.contains(word));
        self.daemon.since(mark).iter().any(has_all)
    }

    /// All words in one event line since the dialogue began.
    fn event(&self, words: &str) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.has_line(self.mark, words) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("no event has all of it".into())
    }

    /// `VALUE WORD…`: a figure whose name and labels hold all words has that value.
    fn figure(&self, rest: &str) -> Result<(), String> {
        let (value, words) = rest.split_once(' ').ok_or("figure VALUE WORD…")?;
        let is = |line: &str| {
            let sample = line.rsplit_once(' ');
            sample.is_some_and(|(name, is)| is == value && words.split(' ').all(|word| name.contains(word)))
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let figures = self.daemon.figures().map_err(|error| error.to_string())?;
            if figures.lines().any(is) {
                return Ok(());
            }
            check(Instant::now() < until, || format!("the figures are\n{figures}"))?;
            // The processes tell theirs every few seconds.
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Wire {
    fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        let sent = match &mut self.tls {
            Some(tls) => tls.write_all(octets).and_then(|()| tls.flush()),
            None => self.tcp.write_all(octets),
        };
        sent.map_err(|error| format!("cannot send: {error}"))
    }

    fn receive(&mut self) -> Result<usize, String> {
        let mut chunk = [0; 4096];
        let length = match &mut self.tls {
            Some(tls) => tls.read(&mut chunk),
            None => self.tcp.read(&mut chunk),
        }
        .map_err(|error| format!("cannot receive: {error}"))?;
        self.buffer.extend_from_slice(&chunk[..length]);
        Ok(length)
    }

    fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..end + 2).collect::<Vec<_>>();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.receive()? == 0 {
                return Err("the connection closed instead of a reply".into());
            }
        }
    }

    /// One reply with all its lines.
    fn reply(&mut self) -> Result<String, String> {
        let mut reply = String::new();
        loop {
            let line = self.line()?;
            let last = line.as_bytes().get(3) != Some(&b'-');
            reply += &line;
            if last {
                return Ok(reply);
            }
            reply.push('\n');
        }
    }

    fn handshake(&mut self, daemon: &Daemon, certificate: &str) -> Result<(), String> {
        check(self.buffer.is_empty(), || {
            format!("clear text before the handshake: {:?}", self.buffer)
        })?;
        let config = daemon.names.client(certificate);
        let name = "mx1.example.org".try_into().map_err(|_| "bad name")?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        let tcp = self.tcp.try_clone().map_err(|error| error.to_string())?;
        let mut tls = StreamOwned::new(connection, tcp);
        while tls.conn.is_handshaking() {
            tls.conn
                .complete_io(&mut tls.sock)
                .map_err(|error| format!("the handshake failed: {error}"))?;
        }
        self.tls = Some(tls);
        Ok(())
    }

    /// Nothing but the end comes.
    fn expect_end(&mut self) -> Result<(), String> {
        check(self.buffer.is_empty(), || {
            format!("before the end came {:?}", String::from_utf8_lossy(&self.buffer))
        })?;
        match self.receive() {
            Ok(0) => Ok(()),
            Ok(_) => Err(format!(
                "before the end came {:?}",
                String::from_utf8_lossy(&self.buffer)
            )),
            Err(error) if error.contains("reset") || error.contains("close_notify") => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn connect_from(source: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(
        socket.as_raw_fd(),
        &SockaddrIn::from(SocketAddrV4::new(source, 0)),
    )?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(socket))
}

fn check(holds: bool, why: impl Fn() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn text(quoted: &str) -> Result<String, String> {
    String::from_utf8(unescape(quoted)?).map_err(|error| error.to_string())
}

/// `"text\r\n\x00"` as octets.
fn unescape(quoted: &str) -> Result<Vec<u8>, String> {
    let inner = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or("octets stand in quotes")?;
    let mut octets = Vec::new();
    let mut rest = inner.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        octets.push(match rest.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'x') => {
                let digits = [rest.next().unwrap_or(b'?'), rest.next().unwrap_or(b'?')];
                let digits = std::str::from_utf8(&digits).map_err(|error| error.to_string())?;
                u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?
            }
            Some(other) => other,
            None => return Err("a backslash at the end".into()),
        });
    }
    Ok(octets)
}
