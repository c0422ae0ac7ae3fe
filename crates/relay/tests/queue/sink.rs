//! A mail store that speaks LMTP (RFC 2033) on loopback and keeps what it gets. Mailboxes behave by their names:
//! `refuse…` is refused for good, `later…` once each, `never…` each time, everything else is taken; after `bye…` the connection ends,
//! `slow…` is answered when the test says so. Mail from `busy…` gets 421.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) from: String,
    pub(crate) to: String,
    /// MAIL with its parameters.
    pub(crate) mail: String,
    pub(crate) content: String,
}

/// The mail store.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
    deferred: Arc<Mutex<HashSet<String>>>,
    /// A keyword offered besides.
    keyword: Option<&'static str>,
    sessions: Arc<AtomicUsize>,
    gate: Arc<(Mutex<bool>, Condvar)>,
    commands: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    /// A store at a free port.
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    /// A store at this address.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        Self::listen(address, None)
    }

    /// A store that offers DSN.
    pub(crate) fn with_dsn() -> Self {
        Self::listen("127.0.0.1:0".parse().unwrap(), Some("DSN"))
    }

    fn listen(address: SocketAddr, keyword: Option<&'static str>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let sink = Self {
            address,
            taken: Arc::default(),
            deferred: Arc::default(),
            keyword,
            sessions: Arc::default(),
            gate: Arc::default(),
            commands: Arc::default(),
        };
        let serving = sink.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sink = serving.clone();
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    let mut write = stream.try_clone().unwrap();
                    // A client that is killed breaks off; there is nothing to do about it.
                    let _ = sink.session(&mut BufReader::new(stream), &mut write);
                });
            }
        });
        sink
    }

    /// The same store, offering one more keyword to who talks to it through this handle.
    pub(crate) fn offering(&self, keyword: &'static str) -> Self {
        Self {
            keyword: Some(keyword),
            ..self.clone()
        }
    }

    /// Everything taken so far.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    /// MAIL and RCPT as they came.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.commands.lock().unwrap().clone()
    }

    /// Lets the answers to `slow…` go.
    pub(crate) fn answer_slow(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    /// Sessions so far.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Waits until what was taken satisfies `enough`.
    pub(crate) fn wait(&self, what: &str, enough: impl Fn(&[Taken]) -> bool) -> Vec<Taken> {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let taken = self.taken();
            if enough(&taken) {
                return taken;
            }
            assert!(
                Instant::now() < until,
                "not seen: {what}; {} messages were taken",
                taken.len()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One session; LMTP answers the content once for each recipient.
    pub(crate) fn session(&self, read: &mut impl BufRead, write: &mut impl Write) -> std::io::Result<()> {
        let (mut from, mut to, mut mail, mut lmtp) = (String::new(), Vec::new(), String::new(), false);
        self.sessions.fetch_add(1, Ordering::Relaxed);
        write.write_all(b"220 sink\r\n")?;
        loop {
            let mut line = String::new();
            if read.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            if line.starts_with("MAIL") || line.starts_with("RCPT") {
                self.commands.lock().unwrap().push(line.to_owned());
            }
            let path = || line[line.find('<').unwrap() + 1..line.find('>').unwrap()].to_owned();
            match line.get(..4).unwrap_or(line) {
                "LHLO" | "EHLO" => {
                    lmtp = line.starts_with('L');
                    let keyword = self
                        .keyword
                        .map_or(String::new(), |word| format!("250-{word}\r\n"));
                    write.write_all(format!("250-sink\r\n{keyword}").as_bytes())?;
                    write.write_all(b"250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n")?;
                }
                "MAIL" if path().starts_with("busy") => {
                    return write.write_all(b"421 4.3.2 too busy for all mail\r\n");
                }
                "MAIL" => {
                    (from, to, mail) = (path(), Vec::new(), line.to_owned());
                    write.write_all(b"250 2.1.0 ok\r\n")?;
                }
                "RCPT" => {
                    let mailbox = path();
                    let reply = self.recipient(&mailbox);
                    if reply.starts_with('2') {
                        to.push(mailbox);
                    }
                    write.write_all(reply.as_bytes())?;
                }
                "DATA" if to.is_empty() => write.write_all(b"503 5.5.1 no recipients\r\n")?,
                "DATA" => {
                    write.write_all(b"354 go on\r\n")?;
                    let content = content(read)?;
                    let each = to.iter().map(|to| Taken {
                        from: from.clone(),
                        to: to.clone(),
                        mail: mail.clone(),
                        content: content.clone(),
                    });
                    self.taken.lock().unwrap().extend(each);
                    if to.iter().any(|to| to.starts_with("slow")) {
                        let closed = self.gate.0.lock().unwrap();
                        drop(self.gate.1.wait_while(closed, |open| !*open).unwrap());
                    }
                    let replies = if lmtp { to.len() } else { 1 };
                    write.write_all("250 2.0.0 queued as SINK\r\n".repeat(replies).as_bytes())?;
                    if to.iter().any(|to| to.starts_with("bye")) {
                        return Ok(());
                    }
                }
                "QUIT" => return write.write_all(b"221 2.0.0 bye\r\n"),
                _ => write.write_all(b"250 2.0.0 ok\r\n")?,
            }
        }
    }

    fn recipient(&self, mailbox: &str) -> &'static str {
        if mailbox.starts_with("refuse") {
            "550 5.1.1 no such mailbox\r\n"
        } else if mailbox.starts_with("never")
            || (mailbox.starts_with("later") && self.deferred.lock().unwrap().insert(mailbox.into()))
        {
            "450 4.2.0 not now\r\n"
        } else {
            "250 2.1.5 ok\r\n"
        }
    }
}

/// The content up to the dot, unstuffed.
fn content(read: &mut impl BufRead) -> std::io::Result<String> {
    let mut content = Vec::new();
    loop {
        let start = content.len();
        if read.by_ref().read_until(b'\n', &mut content)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if &content[start..] == b".\r\n" {
            content.truncate(start);
            return Ok(String::from_utf8(content).unwrap());
        }
        if content[start] == b'.' {
            content.remove(start);
        }
    }
}
