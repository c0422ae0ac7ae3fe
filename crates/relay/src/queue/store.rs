//! The queue's view of the spool: new ids, appending, reading back, and which segments there are.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use super::fresh::Fresh;
use crate::events::unix_millis;
use crate::spool::body::Stored;
use crate::spool::disk::{Directory, Disk};
use crate::spool::record::Kind;
use crate::spool::recovery::{Kept, LiveMessage, Recovered, SegmentFile, recover_as};
use crate::spool::summary;
use crate::spool::writer::{AppendError, Body, Options, Record, Started, Writer, segment_name};
use crate::spool::{Digest, Location, MessageId, SpoolError, StoredMessage, StoredOutcome, index};

/// The spool, opened.
pub struct Store {
    writer: Writer,
    disk: Mutex<Box<dyn Disk>>,
    directory: PathBuf,
    segments: Arc<Mutex<Segments>>,
    last_id: AtomicU64,
    slack: u64,
    reserve: u64,
    fresh: Mutex<Fresh>,
}

/// Damaged segments that are kept for the operator; of more the oldest goes, so that a failing disk does not fill itself.
pub const DAMAGED_KEPT: usize = 4;
const DAMAGED: &str = "damaged";

/// What became of a segment that was to go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// It was damaged and is kept under this name.
    pub aside: Option<PathBuf>,
    /// Older damaged ones that went instead.
    pub dropped: Vec<PathBuf>,
}

/// A message is on its way into the spool and not yet in the schedule. While this lives, no segment goes that may hold it.
pub struct UnderWay {
    segments: Arc<Mutex<Segments>>,
    floor: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut segments = lock(&self.segments);
        if let Some(count) = segments.floors.get_mut(&self.floor) {
            *count -= 1;
            if *count == 0 {
                segments.floors.remove(&self.floor);
            }
        }
    }
}

#[derive(Default)]
struct Segments {
    files: BTreeMap<u64, SegmentFile>,
    octets: BTreeMap<u64, u64>,
    /// The newest segment when a message began that is under way, and how many did.
    floors: BTreeMap<u64, usize>,
    /// Segments in which something could not be read: they are kept aside and not deleted.
    damaged: BTreeSet<u64>,
}

impl Store {
    /// Reads the spool in `directory` and starts its writer. The thread ends after the store is dropped.
    pub fn open(directory: &Path) -> Result<(Self, JoinHandle<()>, Recovered), SpoolError> {
        Self::open_as(directory, LiveMessage::new)
    }

    /// The same, and of each message that is kept which `keep` makes of it.
    pub fn open_as<E: Kept>(
        directory: &Path,
        keep: impl FnMut(Location, Digest) -> E,
    ) -> Result<(Self, JoinHandle<()>, Recovered<E>), SpoolError> {
        let failed = |operation| {
            move |source| SpoolError::Directory {
                operation,
                path: directory.to_owned(),
                source,
            }
        };
        let open = || Directory::open(directory).map_err(failed("open"));
        let (disk, writers) = (open()?, open()?);
        let options = Options::for_disk(disk.capacity().map_err(failed("measure"))?);
        Self::open_on(directory, Box::new(disk), Box::new(writers), options, keep)
    }

    /// The same through these two doors to the directory: one for what removes segments, one for what writes them.
    pub fn open_on<E: Kept>(
        directory: &Path,
        mut disk: Box<dyn Disk>,
        writers: Box<dyn Disk>,
        options: Options,
        keep: impl FnMut(Location, Digest) -> E,
    ) -> Result<(Self, JoinHandle<()>, Recovered<E>), SpoolError> {
        let recovered = recover_as(directory, &mut *disk, keep)?;
        let next = recovered
            .segments
            .last_key_value()
            .map_or(1, |(number, _)| number + 1);
        let segments = Arc::new(Mutex::new(Segments {
            files: recovered.segments.clone(),
            octets: recovered.sizes.clone(),
            floors: BTreeMap::new(),
            damaged: recovered.keep.clone(),
        }));
        let (known, path) = (segments.clone(), directory.to_owned());
        let started = move |Started { segment, salt }| {
            let file = SegmentFile {
                path: path.join(segment_name(segment, salt)),
                salt,
            };
            lock(&known).files.insert(segment, file);
        };
        let (writer, thread) = Writer::start(writers, options, next, started).map_err(SpoolError::Writer)?;
        let last_id = AtomicU64::new(recovered.last_id);
        let store = Self {
            writer,
            disk: Mutex::new(disk),
            directory: directory.to_owned(),
            segments,
            last_id,
            slack: 2 * options.segment_octets,
            reserve: options.reserve_octets,
            fresh: Mutex::default(),
        };
        Ok((store, thread, recovered))
    }

    /// A new id: the time in microseconds, or one more than the last.
    pub fn new_id(&self) -> MessageId {
        let now = unix_millis(SystemTime::now()) * 1000;
        let last = self
            .last_id
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(now.max(last + 1))
            });
        MessageId(now.max(last.unwrap_or_else(|last| last) + 1))
    }

    /// Appends; durable when this returns.
    pub async fn append(&self, records: Vec<Record>) -> Result<Vec<Location>, AppendError> {
        self.writer
            .append(records)
            .await
            .inspect(|places| self.count(places))
    }

    /// The same for notifications and copies, see [`Writer::append_own`].
    pub async fn append_own(&self, records: Vec<Record>) -> Result<Vec<Location>, AppendError> {
        self.writer
            .append_own(records)
            .await
            .inspect(|places| self.count(places))
    }

    fn count(&self, locations: &[Location]) {
        let mut segments = lock(&self.segments);
        for location in locations {
            let end = location.offset + u64::from(location.meta_length) + location.body_length;
            let octets = segments.octets.entry(location.segment).or_default();
            *octets = end.max(*octets);
        }
    }

    /// Keeps what has just been appended at hand for its first attempt, if it is small and in memory anyway.
    pub fn keep_fresh(&self, location: Location, message: &StoredMessage, octets: Arc<[u8]>) {
        lock(&self.fresh).put(location, message.clone(), octets, Instant::now());
    }

    /// A message that was kept at hand.
    pub fn take_fresh(&self, location: Location) -> Option<Arc<Stored>> {
        lock(&self.fresh).take(location)
    }

    /// Opens a message and checks it. Blocks.
    pub fn message(&self, location: Location) -> Result<Stored, SpoolError> {
        Stored::open(&self.segment(location)?, location)
    }

    /// Reads a message's envelope only. Blocks.
    pub fn envelope(&self, location: Location) -> Result<StoredMessage, SpoolError> {
        Stored::envelope(&self.segment(location)?, location)
    }

    fn segment(&self, location: Location) -> Result<SegmentFile, SpoolError> {
        lock(&self.segments)
            .files
            .get(&location.segment)
            .cloned()
            .ok_or_else(|| SpoolError::Read {
                path: self
                    .directory
                    .join(format!("{:016x}-*.segment", location.segment)),
                source: io::ErrorKind::NotFound.into(),
            })
    }

    /// Something in this segment cannot be read: it is not to be deleted, and the next start is to look at it. Blocks.
    pub fn mark_damaged(&self, segment: u64) {
        let file = {
            let mut segments = lock(&self.segments);
            let known = !segments.damaged.insert(segment);
            segments.files.get(&segment).filter(|_| !known).cloned()
        };
        if let Some(file) = file {
            index::forget_entries(&mut **lock(&self.disk), &file.path);
        }
    }

    /// Waits until nothing can be appended any more, which happens only by a fault of the writer.
    pub async fn closed(&self) {
        self.writer.closed().await;
    }

    /// Octets of all segments.
    pub fn octets(&self) -> u64 {
        lock(&self.segments).octets.values().sum()
    }

    /// Octets that messages may still take of the file system. Blocks.
    pub fn room(&self) -> io::Result<u64> {
        let free = lock(&self.disk).free()?;
        Ok(free.saturating_sub(self.reserve))
    }

    /// Dead octets that are no reason to copy anything: two segments.
    pub fn slack(&self) -> u64 {
        self.slack
    }

    /// To be called before a message is appended, and kept until the schedule's owner has been told of it. A batch may
    /// begin in one segment and end in the next: the first is closed then, and nobody knows of what it holds.
    pub fn under_way(&self) -> UnderWay {
        let mut segments = lock(&self.segments);
        let floor = segments.files.last_key_value().map_or(0, |(newest, _)| *newest);
        *segments.floors.entry(floor).or_default() += 1;
        UnderWay {
            segments: self.segments.clone(),
            floor,
        }
    }

    /// Segments below this one are closed, and the owner of the schedule has been told of all that they hold, or the
    /// telling is in his queue.
    pub fn settled_below(&self) -> u64 {
        let segments = lock(&self.segments);
        let newest = segments.files.last_key_value().map_or(0, |(newest, _)| *newest);
        segments
            .floors
            .first_key_value()
            .map_or(newest, |(floor, _)| *floor)
    }

    /// The oldest segment, if it is below this one.
    pub fn oldest(&self, below: u64) -> Option<u64> {
        let segments = lock(&self.segments);
        let oldest = segments.files.first_key_value().map(|(number, _)| *number);
        oldest.filter(|number| *number < below)
    }

    /// Removes a segment, durably, before the next may go: segments must vanish in their order, because a later one
    /// may hold what overrules an earlier one. A damaged segment is renamed to `.damaged` and stays for the operator, as one
    /// of the last [`DAMAGED_KEPT`].
    pub fn remove(&self, number: u64) -> Result<Removed, SpoolError> {
        let (file, damaged) = {
            let segments = lock(&self.segments);
            let Some(file) = segments.files.get(&number) else {
                return Ok(Removed::default());
            };
            (file.clone(), segments.damaged.contains(&number))
        };
        let failed = |operation| {
            let path = file.path.clone();
            move |source| SpoolError::Directory {
                operation,
                path,
                source,
            }
        };
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        let mut disk = lock(&self.disk);
        let mut removed = Removed::default();
        let (operation, done) = if damaged {
            let aside = Path::new(&*name).with_extension(DAMAGED);
            removed.aside = Some(self.directory.join(&aside));
            ("rename", disk.rename(&name, &aside.to_string_lossy()))
        } else {
            ("remove", disk.remove(&name))
        };
        // The writer takes a segment away itself when its first write fails; that must not hold up those behind it.
        if let Err(error) = done
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(operation)(error));
        }
        // Left behind, it would go at the next start.
        let _ = disk.remove(&index::beside(Path::new(&*name)).to_string_lossy());
        if damaged {
            for old in self
                .too_many_damaged()
                .map_err(failed("list the damaged segments beside"))?
            {
                let name = old.file_name().unwrap_or_default().to_string_lossy();
                disk.remove(&name)
                    .map_err(failed("remove a damaged segment older than"))?;
                removed.dropped.push(old);
            }
        }
        disk.sync().map_err(failed("flush"))?;
        drop(disk);
        let mut segments = lock(&self.segments);
        segments.files.remove(&number);
        segments.octets.remove(&number);
        segments.damaged.remove(&number);
        Ok(removed)
    }

    /// The oldest of the damaged segments, beyond those that are kept.
    fn too_many_damaged(&self) -> io::Result<Vec<PathBuf>> {
        let mut aside = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            aside.extend((path.extension() == Some(DAMAGED.as_ref())).then_some(path));
        }
        // Their names begin with their numbers.
        aside.sort_unstable();
        aside.truncate(aside.len().saturating_sub(DAMAGED_KEPT));
        Ok(aside)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The record of a message.
pub fn message_record(id: MessageId, message: &StoredMessage, body: Body) -> serde_json::Result<Record> {
    Ok(Record {
        kind: Kind::Message,
        id,
        meta: serde_json::to_vec(message)?,
        summary: summary::of_message(&message.brief()),
        body,
    })
}

/// The record of news about a message.
pub fn outcome_record(id: MessageId, outcome: &StoredOutcome) -> serde_json::Result<Record> {
    Ok(Record {
        kind: Kind::Outcome,
        id,
        meta: serde_json::to_vec(outcome)?,
        summary: summary::of_outcome(outcome),
        body: Body::none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch begins in segment 3 and ends in 4: until its messages are in the schedule, 3 stays.
    #[tokio::test]
    async fn a_segment_with_a_message_under_way_is_not_settled() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _, _) = Store::open(directory.path()).unwrap();
        let start = |number| {
            let path = directory.path().join(segment_name(number, 1));
            lock(&store.segments)
                .files
                .insert(number, SegmentFile { path, salt: 1 });
        };
        start(3);
        let (first, second) = (store.under_way(), store.under_way());
        start(4);
        let third = store.under_way();
        start(5);
        for (done, settled) in [(second, 3), (first, 4), (third, 5)] {
            drop(done);
            assert_eq!(store.settled_below(), settled);
        }
        assert_eq!(store.oldest(4), Some(3));
        assert_eq!(store.oldest(3), None);
    }

    /// A full disk makes the writer take a new segment away again.
    #[tokio::test]
    async fn a_segment_that_is_gone_already_does_not_hold_up_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _, _) = Store::open(directory.path()).unwrap();
        for number in [3, 4] {
            let path = directory.path().join(segment_name(number, 1));
            lock(&store.segments)
                .files
                .insert(number, SegmentFile { path, salt: 1 });
        }
        assert_eq!(store.oldest(store.settled_below()), Some(3));
        store.remove(3).unwrap();
        assert_eq!(store.oldest(store.settled_below()), None);
        store.mark_damaged(4);
        store.remove(4).unwrap();
        assert!(lock(&store.segments).files.is_empty());
    }

    #[tokio::test]
    async fn damaged_segments_are_kept_but_not_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _, _) = Store::open(directory.path()).unwrap();
        let mut dropped = Vec::new();
        for number in 1..=6 {
            let path = directory.path().join(segment_name(number, 1));
            std::fs::write(&path, b"?").unwrap();
            lock(&store.segments)
                .files
                .insert(number, SegmentFile { path, salt: 1 });
            store.mark_damaged(number);
            let removed = store.remove(number).unwrap();
            assert!(removed.aside.unwrap().exists());
            dropped.extend(removed.dropped);
        }
        let name = |number| {
            directory
                .path()
                .join(segment_name(number, 1))
                .with_extension(DAMAGED)
        };
        assert_eq!(dropped, [name(1), name(2)]);
        assert!(!name(2).exists() && (3..=6).all(|number| name(number).exists()));
    }
}
