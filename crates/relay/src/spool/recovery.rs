//! Opens the spool: reads the whole log and says which messages are still wanted, where they are and how their
//! recipients stand.
//!
//! New records always go to a new segment: a torn tail stays as it is, is reported, and goes with its segment.
//!
//! A process that was killed may leave a log of which the kernel has more than the disk. So each segment is flushed
//! before it is read: on what a power cut could still take away, nothing may be built.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::record::Kind;
use super::scan::{Damage, Found, Headed, scan};
use super::{Location, MessageId, SpoolError, StoredMessage, StoredOutcome};
use crate::handover::Envelope;
use crate::queue::provenance::Provenance;

/// A segment on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// The whole path.
    pub path: PathBuf,
    /// The number that every header repeats.
    pub salt: u64,
}

/// A message that is still wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveMessage<E = Envelope> {
    /// Where its latest record is.
    pub location: Location,
    /// What it is and how its recipients stand.
    pub message: StoredMessage<E>,
}

/// Messages by their ids. Boxed, for the nodes of the tree are half empty.
pub type Messages<E> = BTreeMap<MessageId, Box<LiveMessage<E>>>;

/// What was found. `E` is what the reader keeps of an envelope.
#[derive(Debug)]
pub struct Recovered<E = Envelope> {
    /// All segments, by number.
    pub segments: BTreeMap<u64, SegmentFile>,
    /// Octets of each.
    pub sizes: BTreeMap<u64, u64>,
    /// Messages with a recipient that is not done.
    pub messages: Messages<E>,
    /// The same of messages whose content alone is damaged; each of them was written whole once.
    pub unreadable: Messages<E>,
    /// What cannot be read, and in which segment.
    pub damage: Vec<(u64, Damage)>,
    /// Segments that hold more than could be read, or may: they are not to be deleted.
    pub keep: BTreeSet<u64>,
    /// The highest id seen.
    pub last_id: u64,
}

/// Makes all segments in `directory` durable through `disk` and reads them. What cannot be read is reported, and kept.
pub fn recover(directory: &Path, disk: &mut dyn Disk) -> Result<Recovered, SpoolError> {
    recover_as(directory, disk, |_, _, envelope| envelope)
}

/// The same, and of each envelope only that is kept which `digest` makes of it: a million envelopes are a gigabyte.
pub fn recover_as<E>(
    directory: &Path,
    disk: &mut dyn Disk,
    mut digest: impl FnMut(Provenance, bool, Envelope) -> E,
) -> Result<Recovered<E>, SpoolError> {
    let mut recovered = Recovered {
        segments: list(directory)?,
        sizes: BTreeMap::new(),
        messages: BTreeMap::new(),
        unreadable: BTreeMap::new(),
        damage: Vec::new(),
        keep: BTreeSet::new(),
        last_id: 0,
    };
    disk.sync().map_err(|source| SpoolError::Directory {
        operation: "flush",
        path: directory.to_owned(),
        source,
    })?;
    for (&number, segment) in &recovered.segments.clone() {
        let settled = segment
            .path
            .file_name()
            .map_or(Ok(()), |name| disk.settle(&name.to_string_lossy()));
        if let Err(error) = settled {
            recovered.whole(
                number,
                format!("it cannot be flushed, see the kernel's log: {error}"),
            );
            // What it says may not be on the disk: what it overrules must not go.
            recovered
                .keep
                .extend(recovered.segments.range(..=number).map(|(older, _)| *older));
        }
        if let Err(error) = recovered.read(number, segment, &mut digest) {
            recovered.whole(number, format!("it cannot be opened: {error}"));
        }
    }
    for messages in [&mut recovered.messages, &mut recovered.unreadable] {
        messages.retain(|_, live| !live.message.statuses.iter().all(super::Status::is_final));
    }
    Ok(recovered)
}

impl<E> Recovered<E> {
    fn read(
        &mut self,
        number: u64,
        segment: &SegmentFile,
        digest: &mut impl FnMut(Provenance, bool, Envelope) -> E,
    ) -> io::Result<()> {
        let file = File::open(&segment.path)?;
        let size = file.metadata()?.len();
        self.sizes.insert(number, size);
        scan(&file, size, number, segment.salt, |found| {
            self.take(number, found, digest);
        });
        Ok(())
    }

    fn whole(&mut self, segment: u64, detail: String) {
        let damage = Damage {
            offset: 0,
            length: self.sizes.get(&segment).copied().unwrap_or(0),
            tail: false,
            detail,
            record: None,
        };
        self.damaged(segment, damage);
    }

    fn damaged(&mut self, segment: u64, damage: Damage) {
        if !damage.tail {
            self.keep.insert(segment);
        }
        self.damage.push((segment, damage));
    }

    fn take(&mut self, segment: u64, found: Found, digest: &mut impl FnMut(Provenance, bool, Envelope) -> E) {
        let (record, readable) = match found {
            Found::Record {
                header,
                location,
                meta,
            } => (
                Headed {
                    header,
                    location,
                    meta,
                },
                true,
            ),
            Found::Damage(mut damage) => {
                // What ends the segment may be a write that nobody was told of.
                let record = damage.record.take();
                let record = record.filter(|record| !damage.tail && record.header.kind == Kind::Message);
                self.damaged(segment, damage);
                match record {
                    Some(record) => (*record, false),
                    None => return,
                }
            }
        };
        let Headed {
            header,
            location,
            meta,
        } = record;
        self.last_id = self.last_id.max(header.id.0);
        let result = match header.kind {
            Kind::Message => serde_json::from_slice(&meta).map(|message: StoredMessage| {
                self.message(header.id, location, message.digested(digest), readable);
            }),
            Kind::Outcome => serde_json::from_slice(&meta).map(|outcome| self.outcome(header.id, outcome)),
        };
        if let Err(error) = result {
            let detail = format!("{:?} record of message {}: {error}", header.kind, header.id);
            let damage = Damage {
                offset: location.offset,
                length: header.record_length(),
                tail: false,
                detail,
                record: None,
            };
            self.damaged(segment, damage);
        }
    }

    /// A message, or the later copy of one that was carried over. Of a copy whose content is damaged only the news count
    /// where the older record can be read.
    fn message(
        &mut self,
        id: MessageId,
        mut location: Location,
        mut message: StoredMessage<E>,
        readable: bool,
    ) {
        let older = self.messages.remove(&id);
        let was_readable = older.is_some();
        if let Some(known) = older.or_else(|| self.unreadable.remove(&id)) {
            if was_readable && !readable {
                location = known.location;
                // A copy that lets the message go counts only with its content, the header fields of its scan.
                message.held = known.message.held;
                message.hold = known.message.hold;
            }
            for (status, older) in message.statuses.iter_mut().zip(known.message.statuses) {
                let newer = std::mem::replace(status, older);
                status.update(newer);
            }
        }
        let messages = if readable || was_readable {
            &mut self.messages
        } else {
            &mut self.unreadable
        };
        messages.insert(id, Box::new(LiveMessage { location, message }));
    }

    /// News of a message; of one whose record is gone already, it means nothing.
    fn outcome(&mut self, id: MessageId, outcome: StoredOutcome) {
        let known = self.messages.get_mut(&id);
        let Some(known) = known.or_else(|| self.unreadable.get_mut(&id)) else {
            return;
        };
        // Changes of one message wait for each other, so the later record is the one that counts.
        known.message.held = outcome.held.unwrap_or(known.message.held);
        if outcome.held == Some(false) {
            known.message.hold = None;
        }
        if let (Some(hold), Some(standing)) = (&mut known.message.hold, outcome.standing) {
            hold.standing = Some(standing);
        }
        for (index, status) in outcome.recipients {
            if let Some(known) = known.message.statuses.get_mut(index as usize) {
                known.update(status);
            }
        }
    }
}

/// The segments in `directory` by number. Other files are left alone.
fn list(directory: &Path) -> Result<BTreeMap<u64, SegmentFile>, SpoolError> {
    let failed = |source| SpoolError::Directory {
        operation: "read",
        path: directory.to_owned(),
        source,
    };
    let mut segments = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some((number, salt)) = parse_name(name) {
            segments.insert(number, SegmentFile { path, salt });
        }
    }
    Ok(segments)
}

fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (number, salt) = name.strip_suffix(".segment")?.split_once('-')?;
    Some((
        u64::from_str_radix(number, 16).ok()?,
        u64::from_str_radix(salt, 16).ok()?,
    ))
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
