//! Opens the spool: reads the whole log and says which messages are still wanted, where they are and how their
//! recipients stand.
//!
//! New records always go to a new segment: a torn tail stays as it is, is reported, and goes with its segment.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

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
    /// The highest id seen.
    pub last_id: u64,
}

/// Reads all segments below `directory`.
pub fn recover(directory: &Path) -> Result<Recovered, SpoolError> {
    let mut recovered = Recovered {
        segments: list(directory)?,
        ..Recovered::default()
    };
    for (&number, segment) in &recovered.segments.clone() {
        let read = |source| SpoolError::Read {
            path: segment.path.clone(),
            source,
        };
        let file = File::open(&segment.path).map_err(read)?;
        recovered
            .sizes
            .insert(number, file.metadata().map_err(read)?.len());
        scan(&file, number, segment.salt, |found| recovered.take(number, found)).map_err(read)?;
    }
    recovered
        .messages
        .retain(|_, live| !live.message.statuses.iter().all(super::Status::is_final));
    Ok(recovered)
}

impl Recovered {
    fn take(&mut self, segment: u64, found: Found) {
        let (header, location, meta) = match found {
            Found::Record {
                header,
                location,
                meta,
            } => (header, location, meta),
            Found::Damage(damage) => return self.damage.push((segment, damage)),
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
            self.damage.push((segment, damage));
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
