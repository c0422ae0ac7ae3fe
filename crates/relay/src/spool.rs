//! The spool: the durability boundary. What it has acknowledged survives a kill and a power cut.
//!
//! Enters: messages and delivery outcomes. Leaves: their places on disk, after `fdatasync`.
//!
//! It is one log, cut into append-only segment files of bounded size that are removed oldest first; messages
//! that are still wanted are appended again before their segment goes (`crate::queue::compaction`). So what a
//! record says is never overruled by an older one, and the whole state is rebuilt by reading the log once.
//!
//! - [`record`]: how a record looks, and its checksums.
//! - [`disk`]: the few file operations that durability rests on, behind a trait so that tests can make them fail.
//! - [`writer`], `segment`: group commit. All requests that wait are written together and share one flush.
//! - [`summary`], [`index`]: what the schedule needs of a closed segment, beside it, so that a start is short.
//! - [`scan`], [`recovery`]: reading segments back; damage is reported, never skipped in silence.
//! - [`hold`]: messages that wait for their scan.
//! - [`body`]: reading a message's octets by their place, when they are sent.
//!
//! RFC 5321 6.1: a server that answered 250 must not lose the message for trivial reasons such as a crash.

pub mod body;
pub mod disk;
pub mod hold;
pub mod index;
pub mod record;
pub mod recovery;
pub mod scan;
mod segment;
pub mod summary;
pub mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::handover::Envelope;
use crate::queue::provenance::Provenance;
use hold::{Hold, Mark, Standing};
use summary::Brief;

/// A message's name in the queue of this node: microseconds since 1970 at its arrival, made unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub u64);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014x}", self.0)
    }
}

/// An id as it is written, and nothing else.
impl std::str::FromStr for MessageId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let number = u64::from_str_radix(text, 16).map(Self).ok();
        number.filter(|id| id.to_string() == text).ok_or(BadId)
    }
}

/// Not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a queue id is 14 hexadecimal digits in lower case, as in `queued as 0656c0aa4c6000`")]
pub struct BadId;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the record's first octet.
    pub offset: u64,
    /// Octets of the record's JSON part.
    pub meta_length: u32,
    /// Octets of the message; 0 for outcomes.
    pub body_length: u64,
}

/// The JSON part of a message record. `E` and `H` are less than envelope and hold where a reader needs less ([`Digest`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage<E = Envelope, H = Hold> {
    /// What smtpd handed over.
    pub envelope: E,
    /// Through which socket.
    pub provenance: Provenance,
    /// Milliseconds since 1970.
    pub arrived: u64,
    /// How each recipient stood when the record was written, in the envelope's order.
    pub statuses: Vec<Status>,
    /// Not to be tried until the operator releases it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Mass mail by its header or its recipients.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bulk: bool,
    /// Not yet scanned, or found to be bad; `held` is set then, too.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub hold: Option<Box<H>>,
}

/// No more of a message than the schedule needs.
pub type Digest = StoredMessage<Brief, Mark>;

impl StoredMessage {
    /// The same with no more than the schedule needs.
    pub fn brief(&self) -> Digest {
        StoredMessage {
            envelope: Brief::from(&self.envelope),
            provenance: self.provenance,
            arrived: self.arrived,
            statuses: self.statuses.clone(),
            held: self.held,
            bulk: self.bulk,
            hold: self.hold.as_deref().map(|hold| Box::new(Mark::from(hold))),
        }
    }
}

/// The JSON part of an outcome record: news of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutcome {
    /// Index of the recipient in the envelope, and how it stands.
    pub recipients: Vec<(u32, Status)>,
    /// From here on it is held, or is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
    /// From here on it stands so in the hold. What is released (`held` is false) is not in it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
}

/// How delivery to one recipient stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// To be tried at a time.
    Due {
        /// Milliseconds since 1970.
        at: u64,
        /// Tries so far.
        attempts: u32,
        /// Why the last try did not succeed; empty before the first.
        reply: Box<str>,
        /// The sender was told of the delay, or nobody is to be told.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        warned: bool,
    },
    /// The next hop has taken it.
    Delivered,
    /// Given up; whoever was to be told has been told.
    Failed,
}

impl Status {
    /// Nothing is left to do.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Due { .. })
    }

    /// Takes over news. What is final stays final, tries are not uncounted, and warnings not forgotten, whatever order a
    /// log has.
    pub fn update(&mut self, mut news: Status) {
        let Self::Due {
            attempts: known,
            warned: told,
            ..
        } = self
        else {
            return;
        };
        if let Self::Due { attempts, warned, .. } = &mut news {
            *told |= *warned;
            *warned = *told;
            if attempts < known {
                return;
            }
        }
        *self = news;
    }
}

/// Why the spool cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory cannot be used.
    #[error("cannot {operation} {}: {source}; the spool must be a directory that the queue's user owns", path.display())]
    Directory {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A segment cannot be read.
    #[error("cannot read the spool segment {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A record is not what was written.
    #[error("the record at offset {offset} of the spool segment {} is damaged: {detail}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// The reading ended by a fault of this program.
    #[error("reading ended by a fault: {0}")]
    Fault(String),
    /// The writer could not be started.
    #[error("cannot start the spool's writer: {0}")]
    Writer(io::Error),
}
