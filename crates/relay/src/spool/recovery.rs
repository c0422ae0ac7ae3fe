//! Opens the spool: reads the whole log and says which messages are still wanted, where they are and how their
//! recipients stand.
//!
//! Of a segment that was closed the index is read ([`super::index`]), of any other, or where that cannot be believed,
//! every octet. What an index speaks of is not looked at: a message is checked when it is read for its delivery, and what is
//! damaged then is dealt with there ([`crate::queue::damage`]). No index is written here: of what a process before this one
//! left in the page cache, nobody can say that it is on the disk.
//!
//! New records always go to a new segment: a torn tail stays as it is, is reported, and goes with its segment.
//!
//! A process that was killed may leave a log of which the kernel has more than the disk. So each segment is flushed
//! before it is read: on what a power cut could still take away, nothing may be built.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::body::Stored;
use super::disk::Disk;
use super::hold::{Mark, Standing};
use super::index::{Sealed, beside};
use super::record::{Header, Kind};
use super::scan::{Damage, Found, Headed, scan};
use super::summary;
use super::{Digest, Location, MessageId, SpoolError, Status, StoredOutcome};

/// A segment on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// The whole path.
    pub path: PathBuf,
    /// The number that every header repeats.
    pub salt: u64,
}

/// What a reader keeps of a message: what the news in the log change.
pub trait Kept {
    /// There is a later one.
    fn move_to(&mut self, location: Location);
    /// It is held from here on, or is not.
    fn hold(&mut self, held: bool);
    /// It stands so in the hold from here on, or is not in it.
    fn stand(&mut self, standing: Option<Standing>);
    /// News of a recipient, as by [`Status::update`].
    fn update(&mut self, recipient: usize, news: Status);
    /// No recipient is left.
    fn is_done(&self) -> bool;
}

/// A message that is still wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveMessage {
    /// Where its latest record is.
    pub location: Location,
    /// What it is and how its recipients stand.
    pub message: Digest,
}

impl LiveMessage {
    /// All that is known of it.
    pub fn new(location: Location, message: Digest) -> Self {
        Self { location, message }
    }
}

impl Kept for LiveMessage {
    fn move_to(&mut self, location: Location) {
        self.location = location;
    }

    fn hold(&mut self, held: bool) {
        self.message.held = held;
    }

    fn stand(&mut self, standing: Option<Standing>) {
        self.message.hold = standing.map(|standing| {
            Box::new(Mark {
                standing: Some(standing),
            })
        });
    }

    fn update(&mut self, recipient: usize, news: Status) {
        if let Some(status) = self.message.statuses.get_mut(recipient) {
            status.update(news);
        }
    }

    fn is_done(&self) -> bool {
        self.message.statuses.iter().all(Status::is_final)
    }
}

/// Messages by their ids. Boxed, for the nodes of the tree are half empty.
pub type Messages<E> = BTreeMap<MessageId, Box<E>>;

/// What was found. `E` is what the reader keeps of a message.
#[derive(Debug)]
pub struct Recovered<E = LiveMessage> {
    /// All segments, by number.
    pub segments: BTreeMap<u64, SegmentFile>,
    /// Octets of each.
    pub sizes: BTreeMap<u64, u64>,
    /// How many of them were read by their index.
    pub indexed: u64,
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
    recover_as(directory, disk, LiveMessage::new)
}

/// The same, and of each message that is kept which `keep` makes of it.
pub fn recover_as<E: Kept>(
    directory: &Path,
    disk: &mut dyn Disk,
    keep: impl FnMut(Location, Digest) -> E,
) -> Result<Recovered<E>, SpoolError> {
    let Listed { segments, indexes } = list(directory)?;
    let mut reader = Reader {
        recovered: Recovered {
            segments: segments.clone(),
            sizes: BTreeMap::new(),
            indexed: 0,
            messages: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            damage: Vec::new(),
            keep: BTreeSet::new(),
            last_id: 0,
        },
        keep,
    };
    let failed = |operation| {
        let path = directory.to_owned();
        move |source| SpoolError::Directory {
            operation,
            path,
            source,
        }
    };
    disk.sync().map_err(failed("flush"))?;
    for (&number, segment) in &segments {
        let name = segment
            .path
            .file_name()
            .map_or(String::new(), |name| name.to_string_lossy().into_owned());
        let settled = disk.settle(&name);
        if let Err(error) = &settled {
            let recovered = &mut reader.recovered;
            recovered.whole(
                number,
                format!("it cannot be flushed, see the kernel's log: {error}"),
            );
            // What it says may not be on the disk: what it overrules must not go.
            recovered
                .keep
                .extend(segments.range(..=number).map(|(older, _)| *older));
        }
        if let Err(error) = reader.read(number, segment, settled.is_ok()) {
            reader
                .recovered
                .whole(number, format!("it cannot be opened: {error}"));
        }
    }
    // What was left when its segment went.
    for name in indexes {
        if !segments
            .values()
            .any(|segment| beside(&segment.path).ends_with(&name))
        {
            let _ = disk.remove(&name);
        }
    }
    let mut recovered = reader.recovered;
    for messages in [&mut recovered.messages, &mut recovered.unreadable] {
        messages.retain(|_, kept| !kept.is_done());
    }
    Ok(recovered)
}

impl<E> Recovered<E> {
    /// What can be read, and what cannot.
    pub fn all_messages(self) -> Messages<E> {
        let mut all = self.messages;
        all.extend(self.unreadable);
        all
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
}

/// What is known of a message's content.
enum Content<'a> {
    Intact,
    Damaged,
    /// In this segment; nobody has looked.
    Unread(&'a SegmentFile),
}

impl Content<'_> {
    fn can_be_read(&self, location: Location) -> bool {
        match self {
            Self::Intact => true,
            Self::Damaged => false,
            Self::Unread(segment) => Stored::open(segment, location).is_ok(),
        }
    }
}

/// A recovery that is under way.
struct Reader<E, K> {
    recovered: Recovered<E>,
    keep: K,
}

impl<E: Kept, K: FnMut(Location, Digest) -> E> Reader<E, K> {
    /// Reads a segment. `settled`: it could be flushed before.
    fn read(&mut self, number: u64, segment: &SegmentFile, settled: bool) -> io::Result<()> {
        let file = File::open(&segment.path)?;
        let size = file.metadata()?.len();
        self.recovered.sizes.insert(number, size);
        let sealed = Sealed::read(&segment.path, segment.salt);
        if let Some(sealed) = sealed.as_ref().filter(|sealed| settled && sealed.length == size)
            && let Some(mut records) = sealed.records(number)
            && records.all(|(header, location, summary)| self.by_index(segment, &header, location, summary))
        {
            self.recovered.indexed += 1;
            return Ok(());
        }
        let durable = sealed.map_or(0, |sealed| sealed.length);
        scan(&file, size, durable, number, segment.salt, |found| {
            self.take(number, found);
        });
        if size < durable {
            let missing = Damage {
                offset: size,
                length: durable - size,
                tail: false,
                detail: "the file was longer when it was closed".into(),
                record: None,
            };
            self.recovered.damaged(number, missing);
        }
        Ok(())
    }

    /// A record as its segment's index has it. False where that is not understood: then the segment is read, and what was
    /// taken from the index is only said once more.
    fn by_index(&mut self, segment: &SegmentFile, header: &Header, at: Location, octets: &[u8]) -> bool {
        self.recovered.last_id = self.recovered.last_id.max(header.id.0);
        let understood = match header.kind {
            Kind::Message => summary::message(octets)
                .map(|message| self.message(header.id, at, message, &Content::Unread(segment))),
            Kind::Outcome => summary::outcome(octets).map(|outcome| self.outcome(header.id, outcome)),
        };
        understood.is_some()
    }

    fn take(&mut self, segment: u64, found: Found) {
        let (record, content) = match found {
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
                Content::Intact,
            ),
            Found::Damage(mut damage) => {
                // What ends the segment may be a write that nobody was told of.
                let record = damage.record.take();
                let record = record.filter(|record| !damage.tail && record.header.kind == Kind::Message);
                self.recovered.damaged(segment, damage);
                match record {
                    Some(record) => (*record, Content::Damaged),
                    None => return,
                }
            }
        };
        let Headed {
            header,
            location,
            meta,
        } = record;
        self.recovered.last_id = self.recovered.last_id.max(header.id.0);
        let result = match header.kind {
            Kind::Message => serde_json::from_slice(&meta).map(|message: Digest| {
                self.message(header.id, location, message, &content);
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
            self.recovered.damaged(segment, damage);
        }
    }

    /// A message, or the later copy of one that was carried over. Of a copy whose content is damaged only the news count
    /// where there is an older record, so a copy is looked at, whatever an index says of it. An older record that has
    /// gone went because the copy was on the disk.
    fn message(&mut self, id: MessageId, location: Location, mut message: Digest, content: &Content<'_>) {
        let Recovered {
            messages, unreadable, ..
        } = &mut self.recovered;
        let standing = message.hold.as_mut().and_then(|hold| hold.standing.take());
        // A copy that lets a message out of the hold counts only with its content: there are the header fields of its scan.
        let later = |known: &mut E| {
            known.move_to(location);
            known.hold(message.held);
            known.stand(standing.clone());
        };
        let news = |known: &mut E| {
            for (index, status) in message.statuses.iter().enumerate() {
                known.update(index, status.clone());
            }
        };
        if let Some(known) = messages.get_mut(&id) {
            if content.can_be_read(location) {
                later(known);
            }
            return news(known);
        }
        if let Some(mut known) = unreadable.remove(&id) {
            later(&mut known);
            news(&mut known);
            let readable = content.can_be_read(location);
            let messages = if readable { messages } else { unreadable };
            messages.insert(id, known);
            return;
        }
        let damaged = matches!(content, Content::Damaged);
        let messages = if damaged { unreadable } else { messages };
        let mut kept = (self.keep)(location, message);
        kept.stand(standing);
        messages.insert(id, Box::new(kept));
    }

    /// News of a message; of one whose record is gone already, it means nothing.
    fn outcome(&mut self, id: MessageId, outcome: StoredOutcome) {
        let known = self.recovered.messages.get_mut(&id);
        let Some(known) = known.or_else(|| self.recovered.unreadable.get_mut(&id)) else {
            return;
        };
        // Changes of one message wait for each other, so the later record is the one that counts.
        if let Some(held) = outcome.held {
            known.hold(held);
            if !held {
                known.stand(None);
            }
        }
        if outcome.standing.is_some() {
            known.stand(outcome.standing);
        }
        for (index, status) in outcome.recipients {
            known.update(index as usize, status);
        }
    }
}

/// What lies in the spool.
struct Listed {
    /// By number.
    segments: BTreeMap<u64, SegmentFile>,
    /// Names of all indexes.
    indexes: Vec<String>,
}

/// Other files are left alone.
fn list(directory: &Path) -> Result<Listed, SpoolError> {
    let failed = |source| SpoolError::Directory {
        operation: "read",
        path: directory.to_owned(),
        source,
    };
    let (mut segments, mut indexes) = (BTreeMap::new(), Vec::new());
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some((number, salt)) = parse_name(name, ".segment") {
            segments.insert(number, SegmentFile { path, salt });
        } else if parse_name(name, ".index").is_some() {
            indexes.push(name.to_owned());
        }
    }
    indexes.sort_unstable();
    Ok(Listed { segments, indexes })
}

fn parse_name(name: &str, ending: &str) -> Option<(u64, u64)> {
    let (number, salt) = name.strip_suffix(ending)?.split_once('-')?;
    Some((
        u64::from_str_radix(number, 16).ok()?,
        u64::from_str_radix(salt, 16).ok()?,
    ))
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
