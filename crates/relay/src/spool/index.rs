//! The index of a segment that is closed: what its records say, without bodies, so that a start need not read them.
//!
//! A file beside the segment, with the same name and the ending `.index`. All integers are little-endian.
//!
//! ```text
//! octets  what
//!      8  "PSTNIDX1"
//!      8  salt of the segment
//!      8  octets of the segment
//!      8  octets of the entries
//!      4  CRC-32 of the octets above
//!         entries, one for each record, in their order: kind (1), message id (8), length of the JSON part (4), length of the
//!         body (8), length of the summary (4), summary
//!      4  CRC-32 of the entries
//! ```
//!
//! It is written when all that it speaks of is on stable storage, and by itself it is never flushed: an index that a power
//! cut took or tore, or that does not fit its segment to the octet, is not believed, and the segment is read instead. So
//! nothing hangs on it but time, and one thing more: what it covers had been flushed, so that what is damaged there is
//! damage, and no write that was interrupted.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::record::{Header, Kind};
use super::summary::Rest;
use super::{Location, MessageId};

const MAGIC: &[u8; 8] = b"PSTNIDX1";
const PREFIX: usize = 36;
const TRAILER: usize = 4;
/// An index is written where the file system has so many times its octets left.
const ROOM: u64 = 8;

/// Name of the index of the segment with this name or path.
pub fn beside(segment: &Path) -> PathBuf {
    segment.with_extension("index")
}

/// An index that is being made.
pub struct Index {
    salt: u64,
    /// The file as it will be, so far.
    octets: Vec<u8>,
    /// Octets of the records.
    length: u64,
}

impl Index {
    /// Of the segment with this salt.
    pub fn new(salt: u64) -> Self {
        Self {
            salt,
            octets: vec![0; PREFIX],
            length: 0,
        }
    }

    /// The next record.
    pub fn add(&mut self, header: &Header, summary: &[u8]) {
        let kind = match header.kind {
            Kind::Message => 1,
            Kind::Outcome => 2,
        };
        self.octets.push(kind);
        self.octets.extend_from_slice(&header.id.0.to_le_bytes());
        self.octets.extend_from_slice(&header.meta_length.to_le_bytes());
        self.octets.extend_from_slice(&header.body_length.to_le_bytes());
        let length = u32::try_from(summary.len()).unwrap_or(u32::MAX);
        self.octets.extend_from_slice(&length.to_le_bytes());
        self.octets.extend_from_slice(summary);
        self.length += header.record_length();
    }

    /// The file.
    pub fn finish(mut self) -> Vec<u8> {
        let entries = self.octets.len() - PREFIX;
        let checksum = crc32fast::hash(&self.octets[PREFIX..]);
        self.octets.extend_from_slice(&checksum.to_le_bytes());
        let prefix = [self.salt, self.length, entries as u64];
        self.octets[..8].copy_from_slice(MAGIC);
        for (place, number) in self.octets[8..].chunks_exact_mut(8).zip(prefix) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&self.octets[..PREFIX - 4]);
        self.octets[PREFIX - 4..PREFIX].copy_from_slice(&checksum.to_le_bytes());
        self.octets
    }

    /// Writes it beside the segment of this name. An error means that there is none.
    pub fn write(self, disk: &mut dyn Disk, segment: &str) -> io::Result<()> {
        let octets = self.finish();
        if disk.free()? < ROOM * octets.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let name = beside(Path::new(segment));
        let name = name.to_string_lossy();
        let written = disk.create(&name)?.append(&octets);
        if written.is_err() {
            disk.remove(&name)?;
        }
        written
    }
}

/// Leaves of a segment's index only what says how much of it had been flushed, so that the next start reads the segment. Where
/// that cannot be written, the next start believes the index, and the damage is found again when the message is read.
pub fn forget_entries(disk: &mut dyn Disk, segment: &Path) {
    let index = beside(segment);
    let Ok(octets) = std::fs::read(&index) else {
        return;
    };
    let name = index.file_name().unwrap_or_default().to_string_lossy();
    if let Some(prefix) = octets.get(..PREFIX)
        && disk.remove(&name).is_ok()
        && let Ok(mut file) = disk.create(&name)
    {
        let _ = file.append(prefix);
    }
}

/// An index that was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Octets of the segment when it was closed, all of them on stable storage.
    pub length: u64,
    entries: Option<Vec<u8>>,
}

impl Sealed {
    /// Reads the index of the segment at `path` with this salt. `None`: there is none that can be believed in anything.
    pub fn read(path: &Path, salt: u64) -> Option<Self> {
        let mut octets = std::fs::read(beside(path)).ok()?;
        let mut rest = Rest(&octets);
        let covered = rest.0.get(..PREFIX - 4)?;
        let magic = rest.take(8)?;
        let (of, length, entries) = (rest.eight()?, rest.eight()?, rest.eight()?);
        let checksum = rest.four()?;
        if magic != MAGIC || of != salt || checksum != crc32fast::hash(covered) {
            return None;
        }
        let end = usize::try_from(entries).ok()?;
        let whole = rest.0.len().checked_sub(TRAILER) == Some(end)
            && rest.0[end..] == crc32fast::hash(&rest.0[..end]).to_le_bytes()
            && length_of(&rest.0[..end]) == Some(length);
        let entries = whole.then(|| {
            octets.truncate(PREFIX + end);
            octets.drain(..PREFIX);
            octets
        });
        Some(Self { length, entries })
    }

    /// The records, each with its summary, of segment `number`; `None` where the entries are not what was written.
    pub fn records(&self, number: u64) -> Option<impl Iterator<Item = (Header, Location, &[u8])>> {
        let (mut rest, mut offset) = (Rest(self.entries.as_ref()?), 0);
        Some(std::iter::from_fn(move || {
            let (header, summary) = entry(&mut rest)?;
            let location = Location {
                segment: number,
                offset,
                meta_length: header.meta_length,
                body_length: header.body_length,
            };
            offset += header.record_length();
            Some((header, location, summary))
        }))
    }
}

/// Octets of the records that these entries speak of; `None` where they are no entries.
fn length_of(entries: &[u8]) -> Option<u64> {
    let (mut rest, mut length) = (Rest(entries), 0_u64);
    while !rest.0.is_empty() {
        let (header, _) = entry(&mut rest)?;
        header.body_length.checked_add(u64::from(u32::MAX) * 2)?;
        length = length.checked_add(header.record_length())?;
    }
    Some(length)
}

fn entry<'a>(rest: &mut Rest<'a>) -> Option<(Header, &'a [u8])> {
    let kind = match rest.octet()? {
        1 => Kind::Message,
        2 => Kind::Outcome,
        _ => return None,
    };
    let header = Header {
        kind,
        id: MessageId(rest.eight()?),
        meta_length: rest.four()?,
        body_length: rest.eight()?,
    };
    let length = rest.four()?;
    Some((header, rest.take(length as usize)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SALT: u64 = 0x0123_4567_89ab_cdef;

    fn header(id: u64) -> Header {
        Header {
            kind: if id.is_multiple_of(3) {
                Kind::Outcome
            } else {
                Kind::Message
            },
            meta_length: u32::try_from(id).unwrap() * 10,
            body_length: id * 100,
            id: MessageId(id),
        }
    }

    fn index() -> Vec<u8> {
        let mut index = Index::new(SALT);
        for id in 0..20 {
            index.add(&header(id), format!("summary {id}").as_bytes());
        }
        index.finish()
    }

    fn read(octets: &[u8], salt: u64) -> Option<Sealed> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("1.index"), octets).unwrap();
        Sealed::read(&directory.path().join("1.segment"), salt)
    }

    #[test]
    fn an_index_reads_back() {
        let sealed = read(&index(), SALT).unwrap();
        let length: u64 = (0..20).map(|id| header(id).record_length()).sum();
        assert_eq!(sealed.length, length);
        let mut at = 0;
        for (id, (found, location, summary)) in (0..20).zip(sealed.records(7).unwrap()) {
            assert_eq!((found, location.segment, location.offset), (header(id), 7, at));
            assert_eq!(summary, format!("summary {id}").as_bytes());
            at += found.record_length();
        }
        assert_eq!(at, length);
        assert_eq!(read(&index(), SALT ^ 1), None);
        assert_eq!(read(&[], SALT), None);
    }

    proptest! {
        /// Of one with a damaged entry the length of the segment is still known.
        #[test]
        fn a_flipped_bit_or_a_missing_end_is_seen(at in 0.0..1.0f64, bit in 0..8u8, cuts: bool) {
            let mut octets = index();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let at = (octets.len() as f64 * at) as usize;
            if cuts {
                octets.truncate(at);
            } else {
                octets[at] ^= 1 << bit;
            }
            let found = read(&octets, SALT);
            if at < PREFIX {
                prop_assert_eq!(found, None);
            } else {
                let whole = read(&index(), SALT).unwrap();
                prop_assert_eq!(found, Some(Sealed { entries: None, ..whole }));
            }
        }
    }
}
