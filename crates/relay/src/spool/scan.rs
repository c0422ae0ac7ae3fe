//! Reads one segment from its first octet to its last: every intact record, and every stretch that is none.
//!
//! Memory is bounded whatever the file holds. Bodies are read for their checksum and not kept. What the disk does not
//! give is damage like any other: it costs the records it belongs to and no others.

use std::io;
use std::os::unix::fs::FileExt;

use super::Location;
use super::record::{HEADER, Header, TRAILER, trailer};

/// Octets read at a time.
const CHUNK: usize = 256 << 10;
/// The same where the disk refuses a part: what is lost with a bad sector is a page of the kernel.
const PAGE: usize = 4 << 10;
/// Largest JSON part that is read; the handover's packets are smaller by far.
const MAX_META: u32 = 16 << 20;

/// What a segment holds at some place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An intact record.
    Record {
        /// Its header.
        header: Header,
        /// Its place.
        location: Location,
        /// Its JSON part.
        meta: Vec<u8>,
    },
    /// Octets that are not an intact record.
    Damage(Damage),
}

/// A stretch that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub offset: u64,
    /// Its octets.
    pub length: u64,
    /// Nothing intact follows, as after a write that a crash interrupted. Such a write was not acknowledged; but the
    /// disk may also have damaged the last record. Not set where the disk gave an error, nor where all of it is known to
    /// have been flushed.
    pub tail: bool,
    /// What is wrong, with the message id and, where it can be read, the envelope.
    pub detail: String,
    /// The record whose content alone is damaged: its JSON part is what was written.
    pub record: Option<Box<Headed>>,
}

/// A record without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headed {
    /// Its header.
    pub header: Header,
    /// Its place.
    pub location: Location,
    /// Its JSON part.
    pub meta: Vec<u8>,
}

/// Reads the segment in `file`, which has `size` octets. The first `durable` are known to have been flushed once.
pub fn scan(
    file: &impl FileExt,
    size: u64,
    durable: u64,
    segment: u64,
    salt: u64,
    mut found: impl FnMut(Found),
) {
    let mut at = 0;
    // Damage is held back until it is known whether anything intact follows.
    let mut held: Vec<Damage> = Vec::new();
    let mut window = Window {
        file,
        size,
        at: 0,
        octets: Vec::new(),
    };
    let beyond = |at: u64| find_header(file, salt, at + 1, size).unwrap_or(size);
    while at < size {
        let (next, torn, detail, record) = match read_record(&mut window, segment, salt, at) {
            Ok(Outcome::Intact(record, next)) => {
                for damage in held.drain(..) {
                    found(Found::Damage(Damage {
                        tail: false,
                        ..damage
                    }));
                }
                found(record);
                at = next;
                continue;
            }
            Ok(Outcome::Damaged {
                next,
                torn,
                detail,
                record,
            }) => (next, torn, detail, record),
            // The file was cut. Intact records can only follow if the cut part was written over: look for them.
            Ok(Outcome::Cut(detail)) => (beyond(at), true, detail, None),
            Ok(Outcome::NoHeader) => (beyond(at), true, "no record begins here".into(), None),
            Err(error) => {
                let detail = format!("the disk does not give it: {error}");
                (beyond(at), false, detail, None)
            }
        };
        held.push(Damage {
            offset: at,
            length: next - at,
            tail: torn && at >= durable,
            detail,
            record,
        });
        at = next;
    }
    held.into_iter().map(Found::Damage).for_each(found);
}

/// Reads ahead: most records are much smaller than what is best read at a time.
struct Window<'a, F> {
    file: &'a F,
    size: u64,
    /// Where in the file its octets begin.
    at: u64,
    octets: Vec<u8>,
}

impl<F: FileExt> Window<'_, F> {
    /// `length` octets from `at`, which the file has.
    fn get(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let end = at + length as u64;
        if at < self.at || end > self.at + self.octets.len() as u64 {
            let ahead = (self.size - at).min(CHUNK as u64);
            let ahead = usize::try_from(ahead).unwrap_or(CHUNK).max(length);
            // What the disk refuses may lie behind what is wanted.
            self.fill(at, ahead).or_else(|_| self.fill(at, length))?;
        }
        let from = usize::try_from(at - self.at).unwrap_or(usize::MAX);
        Ok(&self.octets[from..from + length])
    }

    fn fill(&mut self, at: u64, length: usize) -> io::Result<()> {
        self.octets.resize(length, 0);
        self.at = at;
        let read = self.file.read_exact_at(&mut self.octets, at);
        if read.is_err() {
            self.octets.clear();
        }
        read
    }

    /// CRC-32 of a stretch that the file has.
    fn checksum(&mut self, offset: u64, length: u64) -> io::Result<u32> {
        let mut checksum = crc32fast::Hasher::new();
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let take = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            checksum.update(self.get(at, take)?);
            at += take as u64;
        }
        Ok(checksum.finalize())
    }
}

enum Outcome {
    Intact(Found, u64),
    Damaged {
        next: u64,
        /// An interrupted write may look so.
        torn: bool,
        detail: String,
        record: Option<Box<Headed>>,
    },
    Cut(String),
    NoHeader,
}

/// An error means that not even the header could be read.
fn read_record<F: FileExt>(
    window: &mut Window<'_, F>,
    segment: u64,
    salt: u64,
    at: u64,
) -> io::Result<Outcome> {
    if window.size - at < HEADER as u64 {
        return Ok(Outcome::NoHeader);
    }
    let header = window.get(at, HEADER)?.try_into().ok();
    let Some(header) = header.and_then(|octets| Header::decode(octets, salt)) else {
        return Ok(Outcome::NoHeader);
    };
    let of = format!("{:?} record of message {}", header.kind, header.id);
    let end = at.checked_add(header.record_length());
    let Some(next) = end.filter(|end| *end <= window.size && header.meta_length <= MAX_META) else {
        return Ok(Outcome::Cut(format!("{of}: cut off")));
    };
    let location = Location {
        segment,
        offset: at,
        meta_length: header.meta_length,
        body_length: header.body_length,
    };
    let damaged = |torn, detail, record| {
        Ok(Outcome::Damaged {
            next,
            torn,
            detail,
            record,
        })
    };
    let refused = |error: io::Error| format!("{of}: the disk does not give it: {error}");
    let (meta, stored) = match envelope(window, location) {
        Ok(read) => read,
        Err(error) => return damaged(false, refused(error), None),
    };
    let whole = trailer(crc32fast::hash(&meta), 0);
    if stored[..4] != whole[..4] {
        return damaged(true, format!("{of}: its envelope is damaged"), None);
    }
    let body = window.checksum(body_at(location), location.body_length);
    if matches!(&body, Ok(checksum) if stored[4..] == checksum.to_le_bytes()) {
        let record = Found::Record {
            header,
            location,
            meta,
        };
        return Ok(Outcome::Intact(record, next));
    }
    let (torn, why) = match body {
        Ok(_) => (true, format!("{of}: its content is damaged")),
        Err(error) => (false, refused(error)),
    };
    let detail = format!("{why}; envelope: {}", String::from_utf8_lossy(&meta));
    let record = Headed {
        header,
        location,
        meta,
    };
    damaged(torn, detail, Some(Box::new(record)))
}

fn body_at(location: Location) -> u64 {
    location.offset + HEADER as u64 + u64::from(location.meta_length)
}

/// The JSON part, and the trailer as it was written.
fn envelope<F: FileExt>(
    window: &mut Window<'_, F>,
    location: Location,
) -> io::Result<(Vec<u8>, [u8; TRAILER])> {
    let length = location.meta_length as usize;
    let meta = window.get(location.offset + HEADER as u64, length)?.to_vec();
    let mut stored = [0; TRAILER];
    let at = body_at(location) + location.body_length;
    // A long body is not read for what stands behind it: the window stays where the body begins.
    if at + TRAILER as u64 <= window.at + window.octets.len() as u64 {
        stored.copy_from_slice(window.get(at, TRAILER)?);
    } else {
        window.file.read_exact_at(&mut stored, at)?;
    }
    Ok((meta, stored))
}

/// CRC-32 of a stretch.
pub fn checksum(file: &impl FileExt, offset: u64, length: u64) -> io::Result<u32> {
    let mut checksum = crc32fast::Hasher::new();
    let mut chunk = vec![0; usize::try_from(length).unwrap_or(CHUNK).min(CHUNK)];
    let mut at = 0;
    while at < length {
        let take = usize::try_from(length - at)
            .unwrap_or(usize::MAX)
            .min(chunk.len());
        file.read_exact_at(&mut chunk[..take], offset + at)?;
        checksum.update(&chunk[..take]);
        at += take as u64;
    }
    Ok(checksum.finalize())
}

/// The next place from `from` on where a true header stands. Pages that the disk does not give are stepped over.
fn find_header(file: &impl FileExt, salt: u64, from: u64, size: u64) -> Option<u64> {
    let needle = salt.to_le_bytes();
    let (mut at, mut step) = (from, CHUNK as u64);
    // What was read before `at` and may be a header's beginning, and then the octets from `at` on.
    let mut read: Vec<u8> = Vec::new();
    while at < size {
        let end = size.min((at / step + 1) * step);
        let kept = read.len();
        read.resize(kept + usize::try_from(end - at).unwrap_or(CHUNK), 0);
        if file.read_exact_at(&mut read[kept..], at).is_err() {
            if step > PAGE as u64 {
                step = PAGE as u64;
                read.truncate(kept);
            } else {
                read.clear();
                at = end;
            }
            continue;
        }
        let header = |window: &[u8]| {
            window.starts_with(&needle)
                && window
                    .try_into()
                    .is_ok_and(|octets| Header::decode(octets, salt).is_some())
        };
        if let Some(index) = read.windows(HEADER).position(header) {
            return Some(at - kept as u64 + index as u64);
        }
        read.drain(..read.len().saturating_sub(HEADER - 1));
        at = end;
    }
    None
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
