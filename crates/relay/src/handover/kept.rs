//! What an instance gives the queue to keep besides mail, over its handover socket: the snapshot of its reputation
//! tables, since smtpd has no files, and its figures, since nobody may connect to it. Only the instance that owns the socket can read or replace what it gave.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use postern_sandbox::packet::Connection;
use serde::{Deserialize, Serialize};

use super::hold;
use crate::metrics::Series;
use crate::reputation::snapshot::MAX_OCTETS;

const ANSWER: usize = 4096;

/// What is asked, one packet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Keep the sealed memory beside this packet, in place of what was kept before.
    Keep,
    /// Give back what is kept.
    Recall,
    /// The instance's figures as they are now.
    Figures(Vec<Series>),
    /// The proxy's figures as they are now; only the public instance knows them.
    ProxyFigures(Vec<Series>),
    /// Something about the hold.
    Hold(hold::Ask),
}

/// What is answered, one packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is on stable storage; figures are in memory.
    Kept,
    /// The instance's figures are in memory, and messages may still take so many octets of the disk.
    Room(u64),
    /// It is in the sealed memory beside this packet.
    Recalled,
    /// There is nothing, or nothing that is whole.
    Nothing,
    /// It is to be scanned, and in the sealed memory beside this packet.
    ToScan(Box<hold::ToScan>),
    /// It could not be done.
    Failed(String),
}

/// The smtpd side: one connection of its own.
pub struct Client(Connection);

impl Client {
    /// Connects to the instance's handover socket.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        Connection::connect(path).await.map(Self)
    }

    /// Has `snapshot` kept; it is on stable storage when this returns.
    pub async fn keep(&self, snapshot: &OwnedFd) -> io::Result<()> {
        match self.ask(Ask::Keep, Some(snapshot.as_fd())).await? {
            (Answer::Kept, _) => Ok(()),
            (answer, _) => Err(unexpected(answer)),
        }
    }

    /// Gives the instance's figures; how many octets messages may still take of the queue's disk, where it can tell.
    pub async fn report(&self, series: Vec<Series>) -> io::Result<Option<u64>> {
        match self.ask(Ask::Figures(series), None).await? {
            (Answer::Room(octets), _) => Ok(Some(octets)),
            (Answer::Kept, _) => Ok(None),
            (answer, _) => Err(unexpected(answer)),
        }
    }

    /// Gives the proxy's figures.
    pub async fn report_of_proxy(&self, series: Vec<Series>) -> io::Result<()> {
        match self.ask(Ask::ProxyFigures(series), None).await? {
            (Answer::Kept, _) => Ok(()),
            (answer, _) => Err(unexpected(answer)),
        }
    }

    /// What is kept.
    pub async fn recall(&self) -> io::Result<Option<Vec<u8>>> {
        match self.ask(Ask::Recall, None).await? {
            (Answer::Recalled, Some(memory)) => postern_sandbox::memfd::read(memory, MAX_OCTETS).map(Some),
            (Answer::Nothing, _) => Ok(None),
            (answer, _) => Err(unexpected(answer)),
        }
    }

    async fn ask(&self, ask: Ask, memory: Option<BorrowedFd<'_>>) -> io::Result<(Answer, Option<OwnedFd>)> {
        self.0.send(&serde_json::to_vec(&ask)?, memory).await?;
        let mut buffer = vec![0; ANSWER];
        let packet = self.0.recv(&mut buffer).await?;
        if packet.len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((serde_json::from_slice(&buffer[..packet.len])?, packet.fd))
    }
}

pub(super) fn unexpected(answer: Answer) -> io::Error {
    io::Error::other(match answer {
        Answer::Failed(why) => why,
        other => format!("the queue answered {other:?}"),
    })
}
