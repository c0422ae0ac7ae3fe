//! Reads a message back from its segment by its place: checked against its checksums first, then in parts, so that
//! a message is not held in memory because it waits or is sent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::record::{HEADER, Header, TRAILER, trailer};
use super::recovery::SegmentFile;
use super::scan::checksum;
use super::writer::Body;
use super::{Location, SpoolError, StoredMessage};

/// Octets in which the end of a header is looked for first.
const HEADER_FIRST: usize = 8 << 10;

/// A message in the spool, opened. It stays readable when its segment is removed meanwhile.
#[derive(Debug)]
pub struct Stored {
    octets: Octets,
    location: Location,
    /// The envelope and how recipients stood when the record was written.
    pub message: StoredMessage,
}

/// Where the octets are read.
#[derive(Debug)]
enum Octets {
    Spool(Arc<File>, PathBuf),
    /// They were just written there.
    Memory(Arc<[u8]>),
}

impl Stored {
    /// A message that is durable at `location` and still in memory.
    pub fn in_memory(location: Location, message: StoredMessage, octets: Arc<[u8]>) -> Self {
        Self {
            octets: Octets::Memory(octets),
            location,
            message,
        }
    }

    /// Opens the message at `location` in `segment` and checks all of it.
    pub fn open(segment: &SegmentFile, location: Location) -> Result<Self, SpoolError> {
        let path = segment.path.clone();
        let read = |source| SpoolError::Read {
            path: path.clone(),
            source,
        };
        let damaged = |detail: &str| SpoolError::Damaged {
            path: path.clone(),
            offset: location.offset,
            detail: detail.into(),
        };
        let file = File::open(&path).map_err(read)?;
        let mut octets = [0; HEADER];
        file.read_exact_at(&mut octets, location.offset).map_err(read)?;
        let header = Header::decode(&octets, segment.salt).ok_or_else(|| damaged("no record begins here"))?;
        if (header.meta_length, header.body_length) != (location.meta_length, location.body_length) {
            return Err(damaged("its lengths are not those that were written"));
        }
        let mut meta = vec![0; location.meta_length as usize];
        file.read_exact_at(&mut meta, location.offset + HEADER as u64)
            .map_err(read)?;
        let body = checksum(&file, body_offset(location), location.body_length).map_err(read)?;
        let mut stored = [0; TRAILER];
        file.read_exact_at(&mut stored, body_offset(location) + location.body_length)
            .map_err(read)?;
        if stored != trailer(crc32fast::hash(&meta), body) {
            return Err(damaged("its checksum is not that of its octets"));
        }
        let message = serde_json::from_slice(&meta).map_err(|error| damaged(&error.to_string()))?;
        Ok(Self {
            octets: Octets::Spool(Arc::new(file), path),
            location,
            message,
        })
    }

    /// Reads the envelope only, and checks only that.
    pub fn envelope(segment: &SegmentFile, location: Location) -> Result<StoredMessage, SpoolError> {
        let read = |source| SpoolError::Read {
            path: segment.path.clone(),
            source,
        };
        let file = File::open(&segment.path).map_err(read)?;
        let mut meta = vec![0; location.meta_length as usize];
        file.read_exact_at(&mut meta, location.offset + HEADER as u64)
            .map_err(read)?;
        let mut stored = [0; 4];
        file.read_exact_at(&mut stored, body_offset(location) + location.body_length)
            .map_err(read)?;
        let message = serde_json::from_slice(&meta).ok();
        message
            .filter(|_| stored == crc32fast::hash(&meta).to_le_bytes())
            .ok_or_else(|| SpoolError::Damaged {
                path: segment.path.clone(),
                offset: location.offset,
                detail: "its envelope is not what was written".into(),
            })
    }

    /// Octets of the message.
    pub fn size(&self) -> u64 {
        self.location.body_length
    }

    /// Up to `length` octets from `offset` of the message; fewer only at its end.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, SpoolError> {
        let left = self.size().saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        match &self.octets {
            Octets::Spool(file, path) => {
                let mut octets = vec![0; length];
                file.read_exact_at(&mut octets, body_offset(self.location) + offset)
                    .map_err(|source| SpoolError::Read {
                        path: path.clone(),
                        source,
                    })?;
                Ok(octets)
            }
            Octets::Memory(octets) => {
                let from = octets.len() - usize::try_from(left).unwrap_or(0);
                Ok(octets[from..from + length].to_vec())
            }
        }
    }

    /// The header section with the empty line; of one beyond `limit` octets the whole lines below it.
    pub fn header(&self, limit: usize) -> Result<Vec<u8>, SpoolError> {
        let mut wanted = HEADER_FIRST;
        loop {
            // Most headers end early, and the rest of a large message need not be read to find that out.
            let mut octets = self.read(0, wanted.min(limit))?;
            if let Some(end) = octets.windows(4).position(|window| window == b"\r\n\r\n") {
                octets.truncate(end + 4);
            } else if octets.len() == wanted && wanted < limit {
                wanted *= 8;
                continue;
            } else if let Some(end) = octets.windows(2).rposition(|window| window == b"\r\n") {
                octets.truncate(end + 2);
            }
            return Ok(octets);
        }
    }

    /// The message as something to append to the spool again.
    pub fn body(&self) -> Body {
        self.part(0, self.size())
    }

    /// The same with `octets` put in at an offset, at its end at the latest.
    pub fn body_with(&self, at: u64, octets: &[u8]) -> Body {
        let at = at.min(self.size());
        Body::Parts(vec![
            self.part(0, at),
            Body::Octets(octets.into()),
            self.part(at, self.size() - at),
        ])
    }

    /// `from` and `length` lie within it.
    fn part(&self, from: u64, length: u64) -> Body {
        match &self.octets {
            Octets::Spool(file, _) => Body::File {
                file: file.clone(),
                offset: body_offset(self.location) + from,
                length,
            },
            Octets::Memory(octets) => {
                let octets = octets.iter().skip(usize::try_from(from).unwrap_or(usize::MAX));
                Body::Octets(
                    octets
                        .take(usize::try_from(length).unwrap_or(usize::MAX))
                        .copied()
                        .collect(),
                )
            }
        }
    }
}

fn body_offset(location: Location) -> u64 {
    location.offset + HEADER as u64 + u64::from(location.meta_length)
}
