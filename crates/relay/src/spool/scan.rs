//! Reads one segment from its first octet to its last: every intact record, and every stretch that is none.
//!
//! Memory is bounded whatever the file holds. Bodies are read for their checksum and not kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Location;
use super::record::{HEADER, Header, TRAILER, trailer};

/// Octets read at a time.
const CHUNK: usize = 256 << 10;
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
    /// disk may also have damaged the last record.
    pub tail: bool,
    /// What is wrong, with the message id and, where it can be read, the envelope.
    pub detail: String,
}

/// Reads the segment in `file`.
pub fn scan(file: &File, segment: u64, salt: u64, mut found: impl FnMut(Found)) -> io::Result<()> {
    let size = file.metadata()?.len();
    let mut at = 0;
    // Damage is held back until it is known whether anything intact follows.
    let mut held: Vec<Damage> = Vec::new();
    while at < size {
        let (next, damage) = match read_record(file, segment, salt, at, size)? {
            Outcome::Intact(record, next) => {
                held.drain(..).for_each(|damage| found(Found::Damage(damage)));
                found(record);
                (next, None)
            }
            Outcome::Damaged { next, detail } => (next, Some(detail)),
            Outcome::NoHeader => {
                let next = find_header(file, salt, at + 1, size)?.unwrap_or(size);
                (next, Some("no record begins here".to_owned()))
            }
        };
        if let Some(detail) = damage {
            held.push(Damage {
                offset: at,
                length: next - at,
                tail: false,
                detail,
            });
        }
        at = next;
    }
    for damage in held {
        found(Found::Damage(Damage { tail: true, ..damage }));
    }
    Ok(())
}

enum Outcome {
    Intact(Found, u64),
    Damaged { next: u64, detail: String },
    NoHeader,
}

fn read_record(file: &File, segment: u64, salt: u64, at: u64, size: u64) -> io::Result<Outcome> {
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
        // A true header with too few octets behind it: the file was cut. Intact records can only follow if the
        // cut part was written over, so look for them.
        let next = find_header(file, salt, at + 1, size)?.unwrap_or(size);
        return Ok(Outcome::Damaged {
            next,
            detail: format!("{of}: cut off"),
        });
    };
    let mut meta = vec![0; header.meta_length as usize];
    file.read_exact_at(&mut meta, at + HEADER as u64)?;
    let body_at = at + HEADER as u64 + u64::from(header.meta_length);
    let checksum = checksum(file, body_at, header.body_length)?;
    let mut stored = [0; TRAILER];
    file.read_exact_at(&mut stored, end - TRAILER as u64)?;
    let (stored_meta, stored_body) = stored.split_at(4);
    let computed = trailer(crc32fast::hash(&meta), checksum);
    if stored_meta != &computed[..4] {
        return Ok(Outcome::Damaged {
            next: end,
            detail: format!("{of}: its envelope is damaged"),
        });
    }
    if stored_body != &computed[4..] {
        let detail = format!(
            "{of}: its content is damaged; envelope: {}",
            String::from_utf8_lossy(&meta)
        );
        return Ok(Outcome::Damaged { next: end, detail });
    }
    let location = Location {
        segment,
        offset: at,
        meta_length: header.meta_length,
        body_length: header.body_length,
    };
    Ok(Outcome::Intact(
        Found::Record {
            header,
            location,
            meta,
        },
        end,
    ))
}

/// CRC-32 of a stretch.
pub fn checksum(file: &File, offset: u64, length: u64) -> io::Result<u32> {
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

/// The next place from `from` on where a true header stands.
fn find_header(file: &File, salt: u64, from: u64, size: u64) -> io::Result<Option<u64>> {
    let needle = salt.to_le_bytes();
    let mut at = from;
    let mut chunk = vec![0; CHUNK];
    while size.saturating_sub(at) >= HEADER as u64 {
        let take = usize::try_from(size - at).unwrap_or(usize::MAX).min(CHUNK);
        file.read_exact_at(&mut chunk[..take], at)?;
        for (index, window) in chunk[..take].windows(HEADER).enumerate() {
            if window.starts_with(&needle)
                && let Ok(octets) = window.try_into()
                && Header::decode(octets, salt).is_some()
            {
                return Ok(Some(at + index as u64));
            }
        }
        // The last HEADER - 1 octets were no window's beginning.
        at += (take - (HEADER - 1)) as u64;
    }
    Ok(None)
}
