//! One connection to the server that knows the mailboxes: SMTP over TCP with mutual TLS, or LMTP on a unix socket.
//!
//! The dialogue is [`postern_smtp::client`]; here is only the I/O. What a refusal means is decided by its enhanced
//! status code (RFC 3463): 5.1.x is about the address; every other refusal is about us and proves nothing.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use postern_smtp::address::{ForwardPath, ReversePath};
use postern_smtp::client::{self, Dialect, Envelope, Outcome, Recipient, Session, Step};
use postern_smtp::reply::{Parser, Reply};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::traffic::{Counted, Traffic};
use crate::checks::recipient::{Existence, VerifyError};
use crate::checks::scanner::Stream;
use crate::config::Config;
use crate::queue::config::{LmtpSocket, NextHop, OutboundTls};

/// From connecting to the answer.
const LIMIT: Duration = Duration::from_secs(15);
/// An idle connection is not used after this; the server's own limit is minutes.
const FRESH: Duration = Duration::from_secs(20);

/// Where the proxy connects to.
pub(super) struct Hop {
    address: IpAddr,
    port: u16,
    hello: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Hop {
    /// The next hop that `[proxy]` names, with its credentials read.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let proxy = config
            .proxy
            .as_ref()
            .context("the configuration has no [proxy] table; add it with `next-hop`")?;
        let name = &proxy.next_hop;
        let Some(NextHop::Smtp(hop)) = config.next_hop.get(name) else {
            bail!("[next-hop.{name}] must be of kind \"smtp\": the proxy asks one fixed host");
        };
        let address = hop.host.parse().with_context(|| {
            format!(
                "[next-hop.{name}] host = {:?} must be an address: the proxy asks no DNS",
                hop.host
            )
        })?;
        let tls = match hop.tls {
            OutboundTls::Mutual => Some(crate::tls::mutual(config, name, hop)?),
            OutboundTls::Off => None,
            OutboundTls::Required | OutboundTls::Opportunistic => bail!(
                "[next-hop.{name}] tls must be \"mutual\" for the proxy: an unproved server could say that any mailbox exists"
            ),
        };
        Ok(Self {
            address,
            port: hop.port,
            hello: config.hostname.clone(),
            tls,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// A connection with its dialogue.
pub(super) struct Link {
    stream: Box<dyn Stream>,
    session: Session,
    received: Vec<u8>,
    used: Instant,
}

impl Link {
    /// Connects and says hello.
    pub(super) async fn open(hop: &Hop, traffic: &Arc<Traffic>) -> Result<Self, String> {
        let opened = async {
            let stream = TcpStream::connect((hop.address, hop.port))
                .await
                .map_err(|error| error.to_string())?;
            // Commands are gathered by the session: waiting for more to send would only delay them.
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let tls = if hop.tls.is_some() {
                client::Tls::Required
            } else {
                client::Tls::Never
            };
            let mut link = Self::new(
                Box::new(Counted::new(stream, traffic)),
                Dialect::Smtp,
                &hop.hello,
                tls,
            );
            link.hello(hop.tls.as_ref()).await?;
            Ok(link)
        };
        let whom = format!("{}:{}", hop.address, hop.port);
        let opened = match tokio::time::timeout(LIMIT, opened).await {
            Ok(result) => result.map_err(|why: String| format!("{whom}: {why}")),
            Err(_) => Err(format!("{whom}: no answer in {} s", LIMIT.as_secs())),
        };
        opened.inspect_err(|_| traffic.failed())
    }

    fn new(stream: Box<dyn Stream>, dialect: Dialect, hello: &str, tls: client::Tls) -> Self {
        let session = Session::new(client::Config {
            dialect,
            helo: hello.to_owned(),
            tls,
            pipelining: true,
        });
        Self {
            stream,
            session,
            received: Vec::new(),
            used: Instant::now(),
        }
    }

    /// What the server offered.
    pub(super) fn offers(&self) -> &client::Extensions {
        self.session.extensions()
    }

    /// One command outside the session's own transactions, and its reply; to be used instead of them from the first on.
    pub(super) async fn command(&mut self, line: &str) -> Result<Reply, String> {
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    pub(super) async fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        let sent = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error: io::Error| error.to_string())
    }

    /// The next reply. The server speaks when it is spoken to: octets behind a reply are an error.
    pub(super) async fn reply(&mut self) -> Result<Reply, String> {
        let mut parser = Parser::default();
        loop {
            let mut input = &self.received[..];
            let read = parser.input(&mut input).map_err(|error| error.to_string())?;
            let more = !input.is_empty();
            self.received.clear();
            match read {
                Some(_) if more => return Err("it answered what was not asked".into()),
                Some(reply) => return Ok(reply),
                None => self.read().await?,
            }
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        let mut buffer = [0; 4096];
        let length = self
            .stream
            .read(&mut buffer)
            .await
            .map_err(|error: io::Error| error.to_string())?;
        if length == 0 {
            return Err("it closed the connection".into());
        }
        self.received.extend_from_slice(&buffer[..length]);
        Ok(())
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.used.elapsed() < FRESH
    }

    /// Runs the dialogue until it is ready for a transaction.
    async fn hello(&mut self, tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>) -> Result<(), String> {
        loop {
            match self.step().await? {
                Step::Ready => return Ok(()),
                Step::StartTls => {
                    let (client, name) = tls.ok_or("STARTTLS was not asked for")?;
                    let plain: Box<dyn Stream> =
                        std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
                    let connector = TlsConnector::from(Arc::clone(client));
                    let encrypted = connector
                        .connect(name.clone(), plain)
                        .await
                        .map_err(|error| format!("TLS: {error}"))?;
                    self.stream = Box::new(encrypted);
                    self.session.tls_established();
                }
                Step::Failed(failure) => return Err(described(&failure.outcome())),
                _ => return Err("the dialogue went astray before its first transaction".into()),
            }
        }
    }

    /// Asks for one recipient and leaves the connection ready for the next.
    pub(super) async fn verify(&mut self, recipient: &str) -> Result<Existence, String> {
        match tokio::time::timeout(LIMIT, self.transaction(recipient)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer in {} s", LIMIT.as_secs())),
        }
    }

    async fn transaction(&mut self, recipient: &str) -> Result<Existence, String> {
        let path: ForwardPath = recipient
            .parse()
            .map_err(|error| format!("{recipient:?} is no address: {error}"))?;
        let smtputf8 = !recipient.is_ascii();
        self.session.verify(Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient {
                path,
                notify: None,
                orcpt: None,
            }],
            size: 0,
            eight_bit: false,
            smtputf8,
            require_tls: false,
            ret: None,
            envid: None,
        });
        let mut answer = None;
        loop {
            match self.step().await? {
                Step::Done(outcomes) => answer = outcomes.into_iter().next(),
                Step::Ready => break,
                Step::Failed(failure) => return Err(described(&failure.outcome())),
                _ => return Err("the dialogue went astray".into()),
            }
        }
        self.used = Instant::now();
        meaning(&answer.ok_or("the server did not say anything of the recipient")?)
    }

    /// The next step that is not I/O.
    async fn step(&mut self) -> Result<Step, String> {
        loop {
            let mut input = &self.received[..];
            let step = self.session.input(&mut input);
            let left = input.len();
            self.received.drain(..self.received.len() - left);
            match step {
                Step::Send(bytes) => self.send(&bytes).await?,
                Step::NeedInput => self.read().await?,
                other => return Ok(other),
            }
        }
    }
}

fn described(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered(reply) | Outcome::Transient(reply) | Outcome::Permanent(reply) => {
            reply.to_string()
        }
    }
}

fn meaning(outcome: &Outcome) -> Result<Existence, String> {
    match outcome {
        Outcome::Delivered(_) => Ok(Existence::Exists),
        Outcome::Transient(reply) | Outcome::Permanent(reply) if is_about(reply, 2, 2) => Ok(Existence::Full),
        Outcome::Permanent(reply) if is_unknown(reply) => Ok(Existence::Unknown),
        Outcome::Transient(reply) | Outcome::Permanent(reply) => Err(format!("the server said {reply}")),
    }
}

fn is_about(reply: &Reply, subject: u16, detail: u16) -> bool {
    reply
        .enhanced
        .is_some_and(|code| code.subject == subject && code.detail == detail)
}

/// 5.1.x is the address; without an enhanced code, 550 is (RFC 5321 section 4.2.3).
fn is_unknown(reply: &Reply) -> bool {
    match reply.enhanced {
        Some(code) => code.subject == 1,
        None => reply.code.value() == 550,
    }
}

/// Asks the mailbox server itself, by LMTP (RFC 2033) on its socket.
pub async fn ask_lmtp(socket: &LmtpSocket, hello: &str, recipient: &str) -> Result<Existence, VerifyError> {
    let asked = async {
        let stream: io::Result<Box<dyn Stream>> = match socket {
            LmtpSocket::Unix(path) => UnixStream::connect(path)
                .await
                .map(|stream| Box::new(stream) as _),
            LmtpSocket::Tcp(address) => TcpStream::connect(address)
                .await
                .map(|stream| Box::new(stream) as _),
        };
        let stream = stream.map_err(|error| error.to_string())?;
        let mut link = Link::new(stream, Dialect::Lmtp, hello, client::Tls::Never);
        link.hello(None).await?;
        link.transaction(recipient).await
    };
    let answer = tokio::time::timeout(LIMIT, asked)
        .await
        .unwrap_or_else(|_| Err("no answer".into()));
    answer.map_err(|why| VerifyError::Temporary(format!("the mailbox server: {why}")))
}
