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
use super::scan::{Damage, Found, scan};
use super::{Location, MessageId, SpoolError, StoredMessage, StoredOutcome};

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
pub struct LiveMessage {
    /// Where its latest record is.
    pub location: Location,
    /// What it is and how its recipients stand.
    pub message: StoredMessage,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// All segments, by number.
    pub segments: BTreeMap<u64, SegmentFile>,
    /// Octets of each.
    pub sizes: BTreeMap<u64, u64>,
    /// Messages with a recipient that is not done.
    pub messages: BTreeMap<MessageId, LiveMessage>,
    /// What cannot be read, and in which segment.
    pub damage: Vec<(u64, Damage)>,
    /// Segments that hold more than could be read, or may: they are not to be deleted.
    pub keep: BTreeSet<u64>,
    /// The highest id seen.
    pub last_id: u64,
}

/// Makes all segments in `directory` durable through `disk` and reads them. What cannot be read is reported, and kept.
pub fn recover(directory: &Path, disk: &mut dyn Disk) -> Result<Recovered, SpoolError> {
    let mut recovered = Recovered {
        segments: list(directory)?,
        ..Recovered::default()
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
        if let Err(error) = recovered.read(number, segment) {
            recovered.whole(number, format!("it cannot be opened: {error}"));
        }
    }
    recovered
        .messages
        .retain(|_, live| !live.message.statuses.iter().all(super::Status::is_final));
    Ok(recovered)
}

impl Recovered {
    fn read(&mut self, number: u64, segment: &SegmentFile) -> io::Result<()> {
        let file = File::open(&segment.path)?;
        let size = file.metadata()?.len();
        self.sizes.insert(number, size);
        scan(&file, size, number, segment.salt, |found| {
            self.take(number, found);
        });
        Ok(())
    }

    fn whole(&mut self, segment: u64, detail: String) {
        let damage = Damage {
            offset: 0,
            length: self.sizes.get(&segment).copied().unwrap_or(0),
            tail: false,
            detail,
        };
        self.damaged(segment, damage);
    }

    fn damaged(&mut self, segment: u64, damage: Damage) {
        if !damage.tail {
            self.keep.insert(segment);
        }
        self.damage.push((segment, damage));
    }

    fn take(&mut self, segment: u64, found: Found) {
        let (header, location, meta) = match found {
            Found::Record {
                header,
                location,
                meta,
            } => (header, location, meta),
            Found::Damage(damage) => return self.damaged(segment, damage),
        };
        self.last_id = self.last_id.max(header.id.0);
        let result = match header.kind {
            Kind::Message => {
                serde_json::from_slice(&meta).map(|message| self.message(header.id, location, message))
            }
            Kind::Outcome => serde_json::from_slice(&meta).map(|outcome| self.outcome(header.id, outcome)),
        };
        if let Err(error) = result {
            let detail = format!("{:?} record of message {}: {error}", header.kind, header.id);
            let damage = Damage {
                offset: location.offset,
                length: header.record_length(),
                tail: false,
                detail,
            };
            self.damaged(segment, damage);
        }
    }

    /// A message, or the later copy of one that was carried over.
    fn message(&mut self, id: MessageId, location: Location, mut message: StoredMessage) {
        if let Some(known) = self.messages.remove(&id) {
            for (status, older) in message.statuses.iter_mut().zip(known.message.statuses) {
                let newer = std::mem::replace(status, older);
                status.update(newer);
            }
        }
        self.messages.insert(id, LiveMessage { location, message });
    }

    /// News of a message; of one whose record is gone already, it means nothing.
    fn outcome(&mut self, id: MessageId, outcome: StoredOutcome) {
        let Some(known) = self.messages.get_mut(&id) else {
            return;
        };
        // Changes of one message wait for each other, so the later record is the one that counts.
        known.message.held = outcome.held.unwrap_or(known.message.held);
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
