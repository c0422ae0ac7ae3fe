//! The handover from smtpd to queue: one packet on a `SOCK_SEQPACKET` socket carries the envelope as JSON and, as a
//! descriptor beside it, sealed memory that ends with the whole message; one packet comes back. A small message lies in the
//! packet itself: [`FRAME`], the envelope's length in four octets, envelope, message. Another packet without a descriptor
//! is what smtpd saw of mail, for reports. `queued` comes only after
//! the message is on stable storage (RFC 5321 4.2.5 and 6.1: the answer is the taking of responsibility), and only
//! then may smtpd say 250.
//!
//! The message has our own header fields in front, CRLF line ends, and no dot-stuffing. Through which socket it came
//! is its provenance; the packet cannot say otherwise.

pub mod hold;
pub mod kept;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use postern_sandbox::{fd, memfd, seqpacket};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use crate::metrics::Series;
use crate::reports::Batch;
use crate::reputation::snapshot::MAX_OCTETS;
use crate::spool::hold::Unscanned;
use crate::spool::writer::Body;

/// Largest packet in octets: an envelope of some 400 recipients with long addresses.
pub const MAX_PACKET: usize = fd::MAX_PACKET;

/// The first octet of a packet that has the message in it; no JSON begins so.
const FRAME: u8 = 0;
/// That octet, and the envelope's length, little endian.
const FRAME_HEAD: usize = 5;

/// Largest message in octets that goes inside the packet: it saves a dozen system calls, and the queue's connections keep
/// memory for the largest packet that they have seen.
pub const INLINE: usize = 32 * 1024;

/// Octets that may stand in front of the message in its memory: where smtpd receives a large one it leaves room for our own
/// fields, so that the message is not copied to put them there.
pub const ROOM: usize = 64 * 1024;

/// Octets that our own nodes may put in front of a message on its way through them: what one has taken within its limits is
/// not too large for the next.
pub const FIELDS: u64 = 256 * 1024;

/// Wait between two tries to connect to a queue that is busy accepting.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// Wait for the queue's answer; a flush of a busy disk takes seconds. The client waits ten minutes (RFC 5321 section 4.5.3.2.6).
const ANSWER: Duration = Duration::from_mins(2);

/// What smtpd knows of a message besides its octets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a parameter or a proof of its own"
)]
pub struct Envelope {
    /// The connection's trace id.
    pub trace: String,
    /// Mailbox in MAIL FROM; empty for the null reverse-path.
    pub reverse_path: String,
    /// RCPT TO, in order.
    pub recipients: Vec<Recipient>,
    /// RET (RFC 3461 4.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Ret>,
    /// ENVID, decoded (RFC 3461 4.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// MAIL had SMTPUTF8 (RFC 6531).
    #[serde(default)]
    pub smtputf8: bool,
    /// MAIL had REQUIRETLS (RFC 8689). Left out where false: an older version can read that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_tls: bool,
    /// MAIL had BODY=8BITMIME, or the content has octets above 127 (RFC 6152).
    #[serde(default)]
    pub eight_bit: bool,
    /// The client's address.
    pub peer: String,
    /// What it said in EHLO or HELO.
    pub helo: String,
    /// TLS version and cipher; absent in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// Who logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticated_user: Option<String>,
    /// The reverse-path passed SPF or an aligned DKIM signature, or is our own user's: a notification may go there.
    pub return_path_proven: bool,
    /// Octets of the message: the last so many of the descriptor's memory.
    pub size: u64,
}

/// One RCPT TO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// The mailbox.
    pub address: String,
    /// ORCPT as it came, `type;xtext` (RFC 3461 4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// NOTIFY (RFC 3461 4.1); absent means as if FAILURE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Vec<Notify>>,
}

/// RET: what a notification returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header.
    Hdrs,
}

/// NOTIFY: of what the sender wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notify {
    /// Of nothing.
    Never,
    /// Of delivery.
    Success,
    /// Of failure.
    Failure,
    /// Of delay.
    Delay,
}

/// The queue's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// On stable storage.
    Queued {
        /// The queue's name for it.
        id: String,
    },
    /// Observations were taken.
    Noted,
    /// Not taken; nothing was kept.
    Refused {
        /// SMTP reply code, 4xx or 5xx.
        code: u16,
        /// Enhanced status code (RFC 3463).
        enhanced: String,
        /// Text for the client.
        text: String,
    },
}

/// Why a handover has no answer: smtpd says 451 4.3.0. The message may nevertheless have been queued, so that the
/// client's next try makes a duplicate; it is never lost.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The queue process does not listen.
    #[error("cannot connect to the queue at {}: {source}; is postern-queue running?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The envelope is larger than a packet.
    #[error(
        "the envelope has {octets} octets, a handover takes {MAX_PACKET}; the message has too many recipients"
    )]
    TooLarge {
        /// Its size.
        octets: usize,
    },
    /// The queue took the message and says nothing.
    #[error("the queue has not answered for {} s; does its disk hang?", ANSWER.as_secs())]
    Silent,
    /// The queue went away in the middle.
    #[error("the queue broke off the handover: {0}")]
    Io(#[from] io::Error),
    /// The queue's answer cannot be read.
    #[error("the queue's answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
}

/// The smtpd side: keeps connections to one handover socket and uses them again.
pub struct Client {
    path: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
}

impl Client {
    /// A client of the handover socket at `path`; it connects when it is first used.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Hands over `message` (sealed memory) and waits for the answer.
    pub async fn hand_over(
        &self,
        envelope: &Envelope,
        message: BorrowedFd<'_>,
    ) -> Result<Reply, HandoverError> {
        self.exchange(serde_json::to_vec(envelope)?, Some(message)).await
    }

    /// The same for a message of [`INLINE`] octets at most: in the packet, unless the envelope leaves no room there.
    pub async fn hand_over_small(&self, envelope: &Envelope, message: &[u8]) -> Result<Reply, HandoverError> {
        let mut packet = Vec::with_capacity(2048 + message.len());
        packet.extend_from_slice(&[FRAME; FRAME_HEAD]);
        serde_json::to_writer(&mut packet, envelope)?;
        let length = u32::try_from(packet.len() - FRAME_HEAD).map_err(io::Error::other)?;
        packet[1..FRAME_HEAD].copy_from_slice(&length.to_le_bytes());
        if packet.len() + message.len() > MAX_PACKET {
            return self.hand_over(envelope, memfd::sealed(message)?.as_fd()).await;
        }
        packet.extend_from_slice(message);
        self.exchange(packet, None).await
    }

    /// The same with a message that the scanners have not answered for, to be held until they have.
    pub async fn hand_over_unscanned(
        &self,
        envelope: &Envelope,
        unscanned: Unscanned,
        message: BorrowedFd<'_>,
    ) -> Result<Reply, HandoverError> {
        let ask = kept::Ask::Hold(hold::Ask::Take(Box::new(envelope.clone()), unscanned));
        self.exchange(serde_json::to_vec(&ask)?, Some(message)).await
    }

    /// Hands over what was seen of mail, for reports; the queue keeps it if it sends any.
    pub async fn note(&self, batch: &Batch) -> Result<(), HandoverError> {
        self.exchange(serde_json::to_vec(batch)?, None).await.map(|_| ())
    }

    async fn exchange(
        &self,
        packet: Vec<u8>,
        message: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, HandoverError> {
        if packet.len() > MAX_PACKET {
            return Err(HandoverError::TooLarge { octets: packet.len() });
        }
        let mut answer = vec![0; 4096];
        let exchange = async {
            let stream = self.send(&packet, message).await?;
            let answered = receive_packet(&stream, &mut answer).await?;
            Ok::<_, HandoverError>((stream, answered))
        };
        let (stream, packet) = tokio::time::timeout(ANSWER, exchange)
            .await
            .map_err(|_| HandoverError::Silent)??;
        if packet.len == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let reply = serde_json::from_slice(&answer[..packet.len])?;
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(stream);
        Ok(reply)
    }

    /// Sends on an idle connection; one that the queue has closed meanwhile (it was restarted) is thrown away, which
    /// is safe because it took nothing.
    async fn send(
        &self,
        packet: &[u8],
        message: Option<BorrowedFd<'_>>,
    ) -> Result<UnixStream, HandoverError> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(stream) = idle else { break };
            if send_packet(&stream, packet, message).await.is_ok() {
                return Ok(stream);
            }
        }
        let stream = open(&self.path).await.map_err(|source| HandoverError::Connect {
            path: self.path.clone(),
            source,
        })?;
        send_packet(&stream, packet, message).await?;
        Ok(stream)
    }
}

async fn open(path: &Path) -> io::Result<UnixStream> {
    loop {
        match seqpacket::connect(path) {
            Ok(socket) => return UnixStream::from_std(std::os::unix::net::UnixStream::from(socket)),
            // The queue's backlog is full; it accepts as fast as it can.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(BACKLOG_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Sends one packet, with a descriptor beside it or without.
async fn send_packet(
    stream: &UnixStream,
    packet: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    stream
        .async_io(Interest::WRITABLE, || {
            fd::send_with_fd(stream.as_fd(), packet, descriptor)
        })
        .await
}

async fn receive_packet(stream: &UnixStream, octets: &mut [u8]) -> io::Result<fd::Packet> {
    stream
        .async_io(Interest::READABLE, || fd::recv_with_fd(stream.as_fd(), octets))
        .await
}

/// The queue's side of a handover socket.
pub struct Listener(UnixListener);

impl Listener {
    /// Serves a bound and listening SEQPACKET socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self(UnixListener::from_std(listener)?))
    }

    /// Waits for a client.
    pub async fn accept(&self) -> io::Result<Connection> {
        Ok(Connection {
            stream: self.0.accept().await?.0,
            buffer: vec![0; MAX_PACKET],
        })
    }
}

/// One client of the queue.
pub struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// What a client wants.
pub enum Asked {
    /// To hand a message over.
    Message(Box<Received>),
    /// To tell what was seen of mail.
    Observations(Batch),
    /// To have something kept, sealed memory of a bounded size.
    Keep(OwnedFd),
    /// To have it back.
    Recall,
    /// To tell its figures.
    Figures(Vec<Series>),
    /// To tell the proxy's.
    ProxyFigures(Vec<Series>),
    /// The next message to scan.
    NextToScan,
    /// To tell what came of it.
    Scanned(hold::Outcome),
}

/// A handover as it arrived.
pub struct Received {
    /// What is to be known when it is scanned; absent where it was.
    pub unscanned: Option<Unscanned>,
    /// The packet, checked for its shape.
    pub envelope: Envelope,
    /// The message, of the size that the envelope says.
    pub message: Body,
}

impl Received {
    fn asked(envelope: Envelope, unscanned: Option<Unscanned>, message: Body) -> io::Result<Asked> {
        if envelope.recipients.is_empty() {
            return Err(io::Error::other("a handover without recipients"));
        }
        if unscanned.as_ref().is_some_and(|one| one.fields > envelope.size) {
            return Err(io::Error::other("fields of more octets than the message"));
        }
        Ok(Asked::Message(Box::new(Self {
            unscanned,
            envelope,
            message,
        })))
    }

    /// A packet that has the message in it.
    fn inline(packet: &[u8], max_octets: u64) -> io::Result<Asked> {
        let broken = || io::Error::other("a packet whose lengths do not fit together");
        let (head, rest) = packet.split_first_chunk::<FRAME_HEAD>().ok_or_else(broken)?;
        let [_, length @ ..] = *head;
        let (envelope, message) = rest
            .split_at_checked(u32::from_le_bytes(length) as usize)
            .ok_or_else(broken)?;
        let envelope: Envelope = serde_json::from_slice(envelope)?;
        if envelope.size != message.len() as u64 || envelope.size > max_octets {
            return Err(broken());
        }
        Self::asked(envelope, None, Body::Octets(message.into()))
    }
}

impl Connection {
    /// The next handover or request; `None` when the client has gone. An error says that the client does not keep to the
    /// protocol: it gets no answer, the connection is to be closed.
    pub async fn receive(&mut self, max_octets: u64) -> io::Result<Option<Asked>> {
        let packet = receive_packet(&self.stream, &mut self.buffer).await?;
        if self.buffer[..packet.len].first() == Some(&FRAME) {
            return match packet.fd {
                None => Received::inline(&self.buffer[..packet.len], max_octets).map(Some),
                Some(_) => Err(io::Error::other("a message both beside its packet and in it")),
            };
        }
        match (serde_json::from_slice(&self.buffer[..packet.len]), &packet.fd) {
            (Ok(kept::Ask::Recall), None) => return Ok(Some(Asked::Recall)),
            (Ok(kept::Ask::Keep), Some(memory)) => {
                memfd::verify(memory, MAX_OCTETS)?;
                return Ok(packet.fd.map(Asked::Keep));
            }
            (Ok(kept::Ask::Figures(series)), None) => return Ok(Some(Asked::Figures(series))),
            (Ok(kept::Ask::ProxyFigures(series)), None) => return Ok(Some(Asked::ProxyFigures(series))),
            (Ok(kept::Ask::Hold(hold::Ask::Next)), None) => return Ok(Some(Asked::NextToScan)),
            (Ok(kept::Ask::Hold(hold::Ask::Scanned(outcome))), None) => {
                return Ok(Some(Asked::Scanned(outcome)));
            }
            (Ok(kept::Ask::Hold(hold::Ask::Take(envelope, unscanned))), Some(_)) => {
                return received(*envelope, Some(unscanned), packet.fd, max_octets).map(Some);
            }
            _ => {}
        }
        if packet.fd.is_none() {
            if packet.len == 0 {
                return Ok(None);
            }
            let batch = serde_json::from_slice(&self.buffer[..packet.len])?;
            return Ok(Some(Asked::Observations(batch)));
        }
        let envelope: Envelope = serde_json::from_slice(&self.buffer[..packet.len])?;
        received(envelope, None, packet.fd, max_octets).map(Some)
    }

    /// Whether the client has hung up. It says nothing before it has its answer, so there is nothing else to read.
    pub fn is_gone(&self) -> bool {
        let look = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        // The kernel is asked, because tokio may not have heard of it yet.
        recv(self.stream.as_raw_fd(), &mut [0], look) == Ok(0)
    }

    /// Answers the last request that was no handover.
    pub async fn answer(&self, answer: &kept::Answer, memory: Option<OwnedFd>) -> io::Result<()> {
        let memory = memory.as_ref().map(AsFd::as_fd);
        send_packet(&self.stream, &serde_json::to_vec(answer)?, memory).await
    }

    /// Answers the last handover.
    pub async fn reply(&self, reply: &Reply) -> io::Result<()> {
        send_packet(&self.stream, &serde_json::to_vec(reply)?, None).await
    }
}

/// A handover, checked.
fn received(
    envelope: Envelope,
    unscanned: Option<Unscanned>,
    message: Option<OwnedFd>,
    max_octets: u64,
) -> io::Result<Asked> {
    let message = message.ok_or_else(|| io::Error::other("a handover without a message"))?;
    let end = memfd::verify(&message, max_octets + ROOM as u64)?;
    let offset = end
        .checked_sub(envelope.size)
        .filter(|_| envelope.size <= max_octets);
    let Some(offset) = offset else {
        return Err(io::Error::other(
            "the message's size is not what its envelope says",
        ));
    };
    let message = Body::File {
        file: Arc::new(File::from(message)),
        offset,
        length: envelope.size,
    };
    Received::asked(envelope, unscanned, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As earlier versions wrote it into the spool.
    const EARLIER: &str = r#"{"trace":"t","reverse_path":"a@b.example","recipients":[{"address":"c@d.example"}],
        "smtputf8":false,"eight_bit":false,"peer":"192.0.2.1","helo":"h","return_path_proven":true,"size":1}"#;

    #[test]
    fn an_envelope_without_requiretls_reads_and_writes_as_before() {
        let mut envelope: Envelope = serde_json::from_str(EARLIER).unwrap();
        assert!(!envelope.require_tls);
        let written = serde_json::to_string(&envelope).unwrap();
        assert!(!written.contains("require_tls"), "{written}");
        envelope.require_tls = true;
        let written = serde_json::to_string(&envelope).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&written).unwrap(), envelope);
    }

    #[tokio::test]
    async fn a_small_message_comes_in_the_packet_and_nothing_else_passes_for_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.sock");
        let listener = Listener::new(seqpacket::listen(&path).unwrap()).unwrap();
        let mut envelope: Envelope = serde_json::from_str(EARLIER).unwrap();
        envelope.size = 3;
        let client = Client::new(&path);
        let queued = Reply::Queued { id: "1".into() };
        let (answer, received) = tokio::join!(client.hand_over_small(&envelope, b"A:\n"), async {
            let mut connection = listener.accept().await.unwrap();
            let asked = connection.receive(1000).await.unwrap();
            connection.reply(&queued).await.unwrap();
            asked
        });
        assert_eq!(answer.unwrap(), queued);
        let Some(Asked::Message(received)) = received else {
            panic!("no message came");
        };
        assert_eq!(received.envelope, envelope);
        assert!(matches!(received.message, Body::Octets(octets) if *octets == *b"A:\n"));

        let frame = |length: u32, rest: &[u8]| {
            let mut packet = vec![FRAME];
            packet.extend_from_slice(&length.to_le_bytes());
            packet.extend_from_slice(rest);
            Received::inline(&packet, 3).is_err()
        };
        let text = serde_json::to_vec(&envelope).unwrap();
        let length = u32::try_from(text.len()).unwrap();
        assert!(!frame(length, &[&text[..], b"A:\n"].concat()));
        assert!(
            frame(length, &[&text[..], b"A:"].concat()),
            "shorter than it says"
        );
        assert!(frame(length, &[&text[..], b"A:\n\n"].concat()), "longer");
        assert!(
            frame(length + 4, &[&text[..], b"A:\n"].concat()),
            "beyond the packet"
        );
        assert!(Received::inline(&[FRAME, 1], 3).is_err(), "not even a length");
        envelope.recipients.clear();
        let text = serde_json::to_vec(&envelope).unwrap();
        let length = u32::try_from(text.len()).unwrap();
        assert!(frame(length, &[&text[..], b"A:\n"].concat()), "to nobody");
    }

    #[tokio::test]
    async fn a_client_that_has_given_up_is_noticed_before_its_message_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.sock");
        let listener = Listener::new(seqpacket::listen(&path).unwrap()).unwrap();
        let mut envelope: Envelope = serde_json::from_str(EARLIER).unwrap();
        envelope.size = 3;
        let message = memfd::sealed(b"A:\n").unwrap();
        let client = Client::new(&path);
        let (gave_up, mut connection) = tokio::join!(
            tokio::time::timeout(
                Duration::from_millis(200),
                client.hand_over(&envelope, message.as_fd())
            ),
            async {
                let mut connection = listener.accept().await.unwrap();
                assert!(connection.receive(1000).await.unwrap().is_some());
                assert!(!connection.is_gone(), "it waits");
                connection
            },
        );
        assert!(gave_up.is_err());
        assert!(connection.is_gone());
        assert!(connection.receive(1000).await.unwrap().is_none());
    }
}
