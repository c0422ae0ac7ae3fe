//! The hold over a handover socket: smtpd hands a message over before the scanners have answered, and asks later for what
//! is to be scanned. The queue does not talk to scanners, and hands each message out only through the socket it came by,
//! to one connection at a time; when that ends without an answer, the message is to be scanned again.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use postern_sandbox::packet::Connection;
use serde::{Deserialize, Serialize};

use super::{Envelope, MAX_PACKET, kept};
use crate::spool::hold::Unscanned;

/// How long the queue lets an asker wait where there is nothing to scan.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Messages of an instance that are out to be scanned at a time, each in memory of the queue's.
pub const AT_A_TIME: usize = 2;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Take the message in the sealed memory beside this packet into the hold. Answered as a handover.
    Take(Box<Envelope>, Unscanned),
    /// The next message to scan.
    Next,
    /// What came of the message that was handed out last.
    Scanned(Outcome),
}

/// What came of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It may go on with these header fields.
    Clean(String),
    /// It is to be refused, which it cannot be any more: why.
    Bad(String),
    /// A scanner did not answer: which, and why.
    NoAnswer(String),
    /// All answered, but one that did not get to the end of the message, or is asked no more: which, and why.
    Unfinished(String),
}

/// A message to scan, in the sealed memory beside the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToScan {
    /// The queue's name for it.
    pub id: String,
    /// Trace id of the connection by which it came.
    pub trace: String,
    /// What smtpd said of it.
    pub unscanned: Unscanned,
}

/// The smtpd side: one connection of its own.
pub struct Client(Connection);

impl Client {
    /// Connects to the instance's handover socket.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        Connection::connect(path).await.map(Self)
    }

    /// The next message to scan; `None` where there is none for now. Waits up to [`PATIENCE`].
    pub async fn next(&self) -> io::Result<Option<(ToScan, OwnedFd)>> {
        match self.ask(Ask::Next).await? {
            (kept::Answer::ToScan(message), Some(memory)) => Ok(Some((*message, memory))),
            (kept::Answer::Nothing, _) => Ok(None),
            (answer, _) => Err(kept::unexpected(answer)),
        }
    }

    /// Tells what came of it; it is on stable storage when this returns.
    pub async fn scanned(&self, outcome: Outcome) -> io::Result<()> {
        match self.ask(Ask::Scanned(outcome)).await? {
            (kept::Answer::Kept, _) => Ok(()),
            (answer, _) => Err(kept::unexpected(answer)),
        }
    }

    async fn ask(&self, ask: Ask) -> io::Result<(kept::Answer, Option<OwnedFd>)> {
        let packet = serde_json::to_vec(&kept::Ask::Hold(ask))?;
        self.0.send(&packet, None).await?;
        let mut buffer = vec![0; MAX_PACKET];
        let packet = self.0.recv(&mut buffer).await?;
        if packet.len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((serde_json::from_slice(&buffer[..packet.len])?, packet.fd))
    }
}
