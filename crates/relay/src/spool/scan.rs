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
    /// disk may also have damaged the last record. Not set where the disk gave an error.
    pub tail: bool,
    /// What is wrong, with the message id and, where it can be read, the envelope.
    pub detail: String,
}

/// Reads the segment in `file`, which has `size` octets.
pub fn scan(file: &impl FileExt, size: u64, segment: u64, salt: u64, mut found: impl FnMut(Found)) {
    let mut at = 0;
    // Damage is held back until it is known whether anything intact follows.
    let mut held: Vec<Damage> = Vec::new();
    let damage = |from: u64, next: u64, torn: bool, detail: String| Damage {
        offset: from,
        length: next - from,
        tail: torn,
        detail,
    };
    let beyond = |at: u64| find_header(file, salt, at + 1, size).unwrap_or(size);
    while at < size {
        let (next, damage) = match read_record(file, segment, salt, at, size) {
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
            Ok(Outcome::Damaged { next, torn, detail }) => (next, damage(at, next, torn, detail)),
            Ok(Outcome::Cut(detail)) => {
                // The file was cut. Intact records can only follow if the cut part was written over: look for them.
                let next = beyond(at);
                (next, damage(at, next, true, detail))
            }
            Ok(Outcome::NoHeader) => {
                let next = beyond(at);
                (next, damage(at, next, true, "no record begins here".into()))
            }
            Err(error) => {
                let next = beyond(at);
                (
                    next,
                    damage(at, next, false, format!("the disk does not give it: {error}")),
                )
            }
        };
        held.push(damage);
        at = next;
    }
    held.into_iter().map(Found::Damage).for_each(found);
}

enum Outcome {
    Intact(Found, u64),
    Damaged {
        next: u64,
        /// An interrupted write may look so.
        torn: bool,
        detail: String,
    },
    Cut(String),
    NoHeader,
}

/// An error means that not even the header could be read.
fn read_record(file: &impl FileExt, segment: u64, salt: u64, at: u64, size: u64) -> io::Result<Outcome> {
    let mut octets = [0; HEADER];
    if size - at < HEADER as u64 {
        return Ok(Outcome::NoHeader);
    }
    file.read_exact_at(&mut octets, at)?;
    let Some(header) = Header::decode(&octets, salt) else {
        return Ok(Outcome::NoHeader);
    };
    let of = format!("{:?} record of message {}", header.kind, header.id);
    let end = at.checked_add(header.record_length());
    let Some(end) = end.filter(|end| *end <= size && header.meta_length <= MAX_META) else {
        return Ok(Outcome::Cut(format!("{of}: cut off")));
    };
    let damaged = |torn, detail| Outcome::Damaged {
        next: end,
        torn,
        detail,
    };
    let location = Location {
        segment,
        offset: at,
        meta_length: header.meta_length,
        body_length: header.body_length,
    };
    let (meta, stored, computed) = match read_parts(file, location) {
        Ok(parts) => parts,
        Err(error) => {
            return Ok(damaged(
                false,
                format!("{of}: the disk does not give it: {error}"),
            ));
        }
    };
    if stored[..4] != computed[..4] {
        return Ok(damaged(true, format!("{of}: its envelope is damaged")));
    }
    if stored[4..] != computed[4..] {
        let envelope = String::from_utf8_lossy(&meta);
        return Ok(damaged(
            true,
            format!("{of}: its content is damaged; envelope: {envelope}"),
        ));
    }
    Ok(Outcome::Intact(
        Found::Record {
            header,
            location,
            meta,
        },
        end,
    ))
}

/// The JSON part, the trailer, and the trailer that the octets should have.
fn read_parts(
    file: &impl FileExt,
    location: Location,
) -> io::Result<(Vec<u8>, [u8; TRAILER], [u8; TRAILER])> {
    let mut meta = vec![0; location.meta_length as usize];
    file.read_exact_at(&mut meta, location.offset + HEADER as u64)?;
    let body_at = location.offset + HEADER as u64 + u64::from(location.meta_length);
    let body = checksum(file, body_at, location.body_length)?;
    let mut stored = [0; TRAILER];
    file.read_exact_at(&mut stored, body_at + location.body_length)?;
    let computed = trailer(crc32fast::hash(&meta), body);
    Ok((meta, stored, computed))
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
