//! The next hop: an SMTP server that keeps what it gets, knows some mailboxes, and is down for others.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What arrived.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Sink {
    /// Starts one on a free port of loopback.
    pub(crate) fn start() -> (Self, SocketAddr) {
        let sink = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let messages = sink.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let messages = messages.clone();
                // A broken connection is the daemon's affair; the dialogue sees what it does about it.
                std::thread::spawn(move || drop(messages.converse(stream)));
            }
        });
        (sink, address)
    }

    /// The first message that holds `text`, envelope included, if one comes in time.
    pub(crate) fn wait_for(&self, text: &str, patience: Duration) -> Option<String> {
        let (messages, arrived) = &*self.0;
        let until = Instant::now() + patience;
        let mut kept = messages.lock().expect("no thread panicked");
        loop {
            if let Some(message) = kept.iter().find(|message| message.contains(text)) {
                return Some(message.clone());
            }
            let left = until.checked_duration_since(Instant::now())?;
            kept = arrived.wait_timeout(kept, left).expect("no thread panicked").0;
        }
    }

    fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut out = stream.try_clone()?;
        let mut lines = BufReader::new(stream);
        let mut say = |text: &str| out.write_all(format!("{text}\r\n").as_bytes());
        say("220 sink ESMTP")?;
        let mut envelope = String::new();
        loop {
            let mut line = Vec::new();
            if lines.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let verb = line
                .split([' ', ':'])
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => say(
                    "250-sink\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-PIPELINING\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES",
                )?,
                "MAIL" => {
                    envelope = format!("{line}\r\n");
                    say("250 2.1.0 ok")?;
                }
                "RCPT" if line.contains("<unknown") => say("550 5.1.1 no such mailbox")?,
                "RCPT" if line.contains("<full") => say("452 4.2.2 no room")?,
                "RCPT" if line.contains("<down") => say("451 4.3.0 ask later")?,
                "RCPT" => {
                    envelope.extend([line.as_str(), "\r\n"]);
                    say("250 2.1.5 ok")?;
                }
                "DATA" => {
                    say("354 go on")?;
                    self.keep(envelope.clone() + &content(&mut lines)?);
                    say("250 2.0.0 kept")?;
                }
                "QUIT" => return say("221 2.0.0 bye"),
                "RSET" | "HELO" | "NOOP" => say("250 2.0.0 ok")?,
                _ => say("500 5.5.1 what?")?,
            }
        }
    }

    fn keep(&self, message: String) {
        let (messages, arrived) = &*self.0;
        messages.lock().expect("no thread panicked").push(message);
        arrived.notify_all();
    }
}

/// Octets until the lone dot, with dots unstuffed.
fn content(lines: &mut impl BufRead) -> std::io::Result<String> {
    let mut content = String::new();
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line)? == 0 || line == b".\r\n" {
            return Ok(content);
        }
        let line = String::from_utf8_lossy(&line);
        content += line.strip_prefix('.').unwrap_or(&line);
    }
}
