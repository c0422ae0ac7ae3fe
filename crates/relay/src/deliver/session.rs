//! The I/O around [`postern_smtp::client`]: one connection, and one transaction after the other ([`super::shelf`]).
//!
//! Time-outs are those of RFC 5321 4.5.3.2: 5 minutes for the greeting and most replies, 3 minutes for a block of
//! content to be taken, 10 minutes for the reply to the final dot, which is when the other side takes over. They are
//! for silence; a host that trickles is given up after [`TRICKLE`].

use std::io::ErrorKind;
use std::time::Duration;

use postern_smtp::client::{Config, Envelope, Failure, Outcome, Session, Step, Tls};
use postern_smtp::replies;
use postern_smtp::reply::Reply;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::content::{Content, PART};
use super::hop::{Door, Handshake};
use super::observed::{Fault, Negotiation};
use super::policy::Proof;
use super::shelf::Kept;
use super::{Attempt, Contact};
use crate::queue::reasons;

const REPLY: Duration = Duration::from_mins(5);
const BLOCK: Duration = Duration::from_mins(3);
const FINAL: Duration = Duration::from_mins(10);
/// Waiting without a step forward, however many octets come meanwhile: one reply to a group of commands may be many.
const TRICKLE: Duration = Duration::from_mins(30);
const HANDSHAKE: Duration = Duration::from_mins(1);
/// Nobody waits longer for the goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// A connection of any kind.
pub type Stream = Box<dyn Duplex>;

/// Reads and writes.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// What a session is led by.
pub struct Exchange<'a> {
    /// Dialect, our name, TLS.
    pub config: Config,
    /// What a TLS handshake needs, where there can be one.
    pub handshake: Option<&'a Handshake>,
    /// Name of the host, for reasons.
    pub host: &'a str,
    /// Whether content goes by BDAT where the host offers CHUNKING.
    pub chunking: bool,
    /// How the session begins.
    pub door: &'a Door,
}

/// The host could not be talked to; nothing was delivered.
#[derive(Debug)]
pub enum Unusable {
    /// It refused us, or the protocol.
    Refused(Failure),
    /// TLS failed.
    Handshake(Reply),
    /// The connection broke or was silent.
    Lost(Reply),
}

impl Unusable {
    /// What it means for the message if no other host is left.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Refused(failure) => failure.outcome(),
            Self::Handshake(reply) | Self::Lost(reply) => reply.into(),
        }
    }
}

/// What came of a transaction.
pub struct Answers {
    /// For each recipient.
    pub outcomes: Vec<Outcome>,
    /// Version and cipher; absent in clear.
    pub tls: Option<String>,
    /// Whether the host took MAIL, or refused it for what only this message is, and did not close on us.
    pub heard: bool,
    knows_dsn: bool,
    connection: Connection,
}

impl Answers {
    fn new(outcomes: Vec<Outcome>, connection: Connection) -> Self {
        let closed = |outcome: &Outcome| outcome.reply().code.value() == 421;
        let looked = connection.session.mail_accepted()
            || !outcomes.is_empty()
                && outcomes
                    .iter()
                    .all(|outcome| is_about_the_message(outcome.reply()));
        Self {
            heard: looked && !outcomes.iter().any(closed),
            outcomes,
            tls: connection.tls.clone(),
            knows_dsn: connection.session.extensions().dsn,
            connection,
        }
    }

    /// The connection is of no more use.
    fn broke(&self) -> bool {
        !self.connection.session.is_ready()
    }

    /// As an attempt at `host`, which proved itself so, and the session's `messages`th.
    pub fn attempt(self, host: String, proof: Proof, messages: u32) -> Attempt {
        let session = if self.heard && !self.broke() {
            Some(Kept::new(self.connection, host.clone(), proof, messages))
        } else {
            self.connection.end();
            None
        };
        Attempt {
            session,
            knows_dsn: self.knows_dsn,
            outcomes: self.outcomes,
            host: Some(host),
            tls: self.tls,
            proof: Some(proof),
            contact: if self.heard {
                Contact::Made
            } else {
                Contact::Failed
            },
        }
    }
}

/// A connection and what is known of it.
pub struct Connection {
    stream: Stream,
    session: Session,
    tls: Option<String>,
    /// What came of the handshake; absent where there was none.
    handshake: Option<Result<(), Fault>>,
    /// Octets that were read and not yet looked at.
    received: Vec<u8>,
    /// Content of the message under way was sent: the host may have all of it.
    content_sent: bool,
    /// Whether content goes by BDAT where the host offers CHUNKING.
    chunking: bool,
}

impl Exchange<'_> {
    /// Delivers one message over a new connection. What came of its encryption is noted in `negotiation`.
    pub async fn run(
        self,
        stream: Stream,
        envelope: Envelope,
        content: &Content,
        negotiation: &mut Negotiation,
    ) -> Result<Answers, Unusable> {
        let mut connection = Connection {
            stream,
            session: self.session(),
            tls: None,
            handshake: None,
            received: Vec::new(),
            content_sent: false,
            chunking: self.chunking,
        };
        if self.door.implicit_tls {
            self.encrypt(&mut connection).await?;
        }
        let result = self.steps(&mut connection, envelope, content).await;
        negotiation.helo = connection.session.peer_name().map(str::to_owned);
        negotiation.result = match (connection.handshake.take(), &result) {
            (Some(result), _) => Some(result),
            (None, Err(Unusable::Refused(failure))) => Fault::of_refusal(failure).map(Err),
            // It came past EHLO in clear, though we would have encrypted.
            (None, Ok(_)) if self.config.tls == Tls::IfOffered => Some(Err(Fault::not_offered())),
            _ => None,
        };
        match result {
            Ok(outcomes) => Ok(Answers::new(outcomes, connection)),
            Err(unusable) => {
                // Of a transaction under way some recipients may have their answer already.
                let outcomes = connection.session.connection_lost();
                if outcomes.is_empty() {
                    Err(unusable)
                } else {
                    Ok(Answers::new(outcomes, connection))
                }
            }
        }
    }

    fn session(&self) -> Session {
        let session = if self.door.implicit_tls {
            Session::over_tls(Config {
                tls: Tls::Never,
                ..self.config.clone()
            })
        } else {
            Session::new(self.config.clone())
        };
        session.with_login(self.door.login.clone())
    }

    async fn steps(
        &self,
        connection: &mut Connection,
        envelope: Envelope,
        content: &Content,
    ) -> Result<Vec<Outcome>, Unusable> {
        let mut envelope = Some(envelope);
        let mut wait = REPLY;
        let mut patience = Instant::now() + TRICKLE;
        connection.content_sent = false;
        loop {
            let step = connection.step();
            if !matches!(step, Step::NeedInput) {
                patience = Instant::now() + TRICKLE;
            }
            match step {
                Step::NeedInput => {
                    let left = patience.saturating_duration_since(Instant::now());
                    read(&mut connection.stream, &mut connection.received, wait.min(left)).await?;
                }
                Step::Send(octets) => write(&mut connection.stream, &octets).await?,
                Step::StartTls => {
                    self.encrypt(connection).await?;
                    connection.session.tls_established();
                }
                Step::Ready => match envelope.take() {
                    Some(envelope) if connection.chunking => {
                        let beginning = content.beginning().unwrap_or_default();
                        connection.session.deliver_chunked(envelope, &beginning);
                    }
                    Some(envelope) => connection.session.deliver(envelope),
                    None => return Err(Unusable::Lost(replies::connection_lost())),
                },
                Step::SendBody => {
                    connection.content_sent = true;
                    if let Err(outcome) = send(connection, content).await? {
                        // Without the final dot, or the rest of a chunk, the other side must not deliver (RFC 5321 4.1.1.4).
                        let count = connection.session.connection_lost().len();
                        return Ok(vec![outcome; count]);
                    }
                    wait = FINAL;
                }
                Step::Done(outcomes) => return Ok(outcomes),
                Step::Failed(failure) => return Err(Unusable::Refused(failure)),
                Step::Closed => return Err(Unusable::Lost(replies::connection_lost())),
            }
        }
    }

    async fn encrypt(&self, connection: &mut Connection) -> Result<(), Unusable> {
        let failed =
            |error: &dyn std::fmt::Display| Unusable::Handshake(reasons::tls_failed(self.host, error));
        let Some((client, name)) = self.handshake else {
            return Err(failed(&"not configured"));
        };
        let plain: Stream = std::mem::replace(&mut connection.stream, Box::new(tokio::io::empty()));
        let handshake = TlsConnector::from(client.clone()).connect(name.clone(), plain);
        let encrypted = match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(encrypted)) => encrypted,
            Ok(Err(error)) => {
                connection.handshake = Some(Err(Fault::of_handshake(&error)));
                return Err(failed(&error));
            }
            Err(_) => {
                connection.handshake = Some(Err(Fault::of_handshake(&ErrorKind::TimedOut.into())));
                return Err(failed(&"no answer"));
            }
        };
        connection.handshake = Some(Ok(()));
        let info = crate::tls::info(encrypted.get_ref().1);
        connection.tls = Some(format!("{} {}", info.version, info.cipher));
        connection.stream = Box::new(encrypted);
        Ok(())
    }
}

/// Whether a refusal of MAIL for now is about this sender or message, and other mail may get through: by the subject of its
/// enhanced status code (RFC 3463 3: addresses, mailbox, content, policy; and the size among the system's). One
/// without a code is taken to be about the host.
fn is_about_the_message(reply: &Reply) -> bool {
    let transient = (400..500).contains(&reply.code.value());
    transient
        && reply.enhanced.is_some_and(|code| {
            code.class == 4 && matches!((code.subject, code.detail), (1 | 2 | 6 | 7, _) | (3, 4))
        })
}

/// Sends the content. The inner error is about the message, the outer about the connection.
async fn send(connection: &mut Connection, content: &Content) -> Result<Result<(), Outcome>, Unusable> {
    let mut octets = Vec::new();
    for part in content.parts() {
        let part = match part {
            Ok(part) => part,
            Err(error) => return Ok(Err(reasons::damaged(error).into())),
        };
        if let Err(error) = connection.session.body(&part, &mut octets) {
            return Ok(Err(replies::content_error(error).into()));
        }
        // A small message goes out with its end, in one write.
        if octets.len() >= PART {
            write(&mut connection.stream, &octets).await?;
            octets.clear();
        }
    }
    if let Err(error) = connection.session.end_body(&mut octets) {
        return Ok(Err(replies::content_error(error).into()));
    }
    write(&mut connection.stream, &octets).await?;
    Ok(Ok(()))
}

async fn read(stream: &mut Stream, received: &mut Vec<u8>, wait: Duration) -> Result<(), Unusable> {
    match tokio::time::timeout(wait, stream.read_buf(received)).await {
        Ok(Ok(0) | Err(_)) => Err(Unusable::Lost(replies::connection_lost())),
        Ok(Ok(_)) => Ok(()),
        Err(_) => Err(Unusable::Lost(reasons::timeout(wait.as_secs()))),
    }
}

async fn write(stream: &mut Stream, octets: &[u8]) -> Result<(), Unusable> {
    let written = async {
        stream.write_all(octets).await?;
        stream.flush().await
    };
    match tokio::time::timeout(BLOCK, written).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Unusable::Lost(replies::connection_lost())),
        Err(_) => Err(Unusable::Lost(reasons::timeout(BLOCK.as_secs()))),
    }
}

impl Connection {
    fn step(&mut self) -> Step {
        let mut input = &self.received[..];
        let step = self.session.input(&mut input);
        let taken = self.received.len() - input.len();
        self.received.drain(..taken);
        step
    }

    /// Whether the host has said nothing since the last transaction, neither that it closes nor by closing.
    pub async fn is_quiet(&mut self) -> bool {
        let said = tokio::time::timeout(Duration::ZERO, self.stream.read_buf(&mut self.received)).await;
        said.is_err() && self.received.is_empty()
    }

    /// Messages that the host takes in a session, where it says so.
    pub fn takes_messages(&self) -> Option<u32> {
        self.session.extensions().limits.mails
    }

    /// Says goodbye, in its own time.
    pub fn end(self) {
        tokio::spawn(tokio::time::timeout(GOODBYE, goodbye(self)));
    }
}

impl Kept {
    /// Delivers one message more; `None` where the host could not be talked to any more and has seen no content, so that
    /// a new connection must be made.
    pub async fn deliver(self, envelope: Envelope, content: &Content) -> Option<Attempt> {
        let Self {
            mut connection,
            host,
            proof,
            messages,
            ..
        } = self;
        let exchange = Exchange {
            config: connection.session.config().clone(),
            handshake: None,
            host: &host,
            chunking: connection.chunking,
            door: &Door::default(),
        };
        let outcomes = match exchange.steps(&mut connection, envelope, content).await {
            Ok(outcomes) => outcomes,
            Err(_) => connection.session.connection_lost(),
        };
        let final_word = |outcome: &Outcome| matches!(outcome, Outcome::Permanent(_));
        // Content may go with its envelope: before MAIL is answered nothing is known to have been looked at.
        let sent = connection.content_sent && connection.session.mail_accepted();
        let answers = Answers::new(outcomes, connection);
        let answered =
            answers.heard || !answers.outcomes.is_empty() && answers.outcomes.iter().all(final_word);
        if sent || answered && !answers.broke() {
            return Some(answers.attempt(host, proof, messages + 1));
        }
        answers.connection.end();
        None
    }
}

/// RFC 5321 4.1.1.10: QUIT, and wait for the reply. The outcomes stand whatever happens here.
async fn goodbye(mut connection: Connection) {
    loop {
        let done = match connection.step() {
            Step::NeedInput => read(&mut connection.stream, &mut connection.received, GOODBYE)
                .await
                .is_err(),
            Step::Send(octets) => write(&mut connection.stream, &octets).await.is_err(),
            Step::Ready => {
                connection.session.quit();
                false
            }
            _ => true,
        };
        if done {
            let _ = connection.stream.shutdown().await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_one_sender_says_nothing_about_the_host() {
        let about = |code, enhanced| is_about_the_message(&Reply::new(code, enhanced, "no"));
        for enhanced in [(4, 1, 8), (4, 7, 1), (4, 7, 24), (4, 3, 4), (4, 6, 7)] {
            assert!(about(451, enhanced), "{enhanced:?}");
        }
        for enhanced in [(4, 3, 1), (4, 3, 2), (4, 4, 5), (4, 5, 3), (4, 0, 0)] {
            assert!(!about(452, enhanced), "{enhanced:?}");
        }
        assert!(
            !about(550, (5, 1, 8)),
            "what is refused for good closes nothing anyway"
        );
        let mut bare = Reply::new(450, (4, 0, 0), "try later");
        bare.enhanced = None;
        assert!(!is_about_the_message(&bare));
    }
}
