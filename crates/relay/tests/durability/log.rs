//! What is written down of a run: the operations on the directory, and between them what the spool has promised.

use std::sync::Arc;

use postern_relay::queue::hold::Found;
use postern_relay::spool::{MessageId, Status, StoredMessage};

/// One operation that has been done. Files have numbers, because names come and go.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Create {
        file: usize,
        name: String,
    },
    Write {
        file: usize,
        offset: u64,
        octets: Arc<[u8]>,
    },
    Truncate {
        file: usize,
        length: u64,
    },
    Flush {
        file: usize,
    },
    /// A flush that the kernel answered with an error: what it should have written may be lost for good.
    FailedFlush {
        file: usize,
    },
    /// A flush of what another process has written.
    Settle {
        file: usize,
    },
    SyncDirectory,
    Remove {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
}

/// A message as it was handed to the spool.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) message: StoredMessage,
    pub(crate) body: Vec<u8>,
}

/// How an attempt ended for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    Delivered,
    Deferred,
    Failed,
}

/// What happened outside of the directory.
#[derive(Debug, Clone)]
pub(crate) enum Note {
    /// From here on the message may be found.
    Offered(MessageId, Arc<Offered>),
    /// The append has returned: 250.
    Acknowledged(MessageId),
    /// From here on these outcomes may be found.
    Tried(MessageId, Vec<(u32, Tried)>),
    /// The recording of outcomes has returned.
    Recorded(MessageId, Vec<(u32, Status)>),
    /// From here on it may be found that this became of a message in the hold.
    Judging(MessageId, Found),
    /// The recording of that has returned.
    Judged(MessageId, Found),
    /// What still waits in this segment is appended again.
    Carrying(u64),
    /// The process was killed; the kernel keeps what it has.
    Killed,
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Op(Op),
    Note(Note),
}

/// A whole run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    /// What the directory held at its beginning, durably. Their numbers are the first.
    pub(crate) base: Vec<(String, Arc<Vec<u8>>)>,
    pub(crate) entries: Vec<Entry>,
}

impl Log {
    /// The operations without what is random or a time: names and octets.
    pub(crate) fn shape(&self) -> Vec<String> {
        let ops = self.entries.iter().filter_map(|entry| match entry {
            Entry::Op(op) => Some(op),
            Entry::Note(_) => None,
        });
        let shape = |op: &Op| match op {
            Op::Create { file, .. } => format!("create {file}"),
            Op::Write { file, offset, octets } => format!("write {file} {offset} {}", octets.len()),
            Op::Remove { .. } => "remove".into(),
            Op::Rename { .. } => "rename".into(),
            other => format!("{other:?}"),
        };
        ops.map(shape).collect()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Entry) -> bool) -> u64 {
        self.entries.iter().filter(|entry| wanted(entry)).count() as u64
    }
}
