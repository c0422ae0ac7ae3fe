//! The segment that grows: a file to whose end records are written, through a buffer.

use std::io;
use std::os::unix::fs::FileExt;

use super::disk::{Append, Disk};
use super::index::Index;
use super::writer::{Body, Started, segment_name};

/// Octets collected before they go to the kernel.
const BUFFER: usize = 1 << 20;

/// A segment and how far it is written.
pub(super) struct Segment {
    pub(super) file: Box<dyn Append>,
    pub(super) number: u64,
    pub(super) salt: u64,
    /// Octets given to the file or in the buffer.
    pub(super) length: u64,
    /// Octets known to be on stable storage.
    pub(super) durable: u64,
    /// Of all records so far.
    pub(super) index: Index,
    buffer: Vec<u8>,
}

impl Segment {
    pub(super) fn create(disk: &mut dyn Disk, next: &mut u64, started: &dyn Fn(Started)) -> io::Result<Self> {
        let mut salt = [0; 8];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| io::Error::other("no random numbers"))?;
        let (number, salt) = (*next, u64::from_le_bytes(salt));
        *next += 1;
        let name = segment_name(number, salt);
        let file = disk.create(&name)?;
        if let Err(error) = disk.sync() {
            let _ = disk.remove(&name);
            return Err(error);
        }
        started(Started {
            segment: number,
            salt,
        });
        Ok(Self {
            file,
            number,
            salt,
            length: 0,
            durable: 0,
            index: Index::new(salt),
            buffer: Vec::new(),
        })
    }

    pub(super) fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(octets);
        self.length += octets.len() as u64;
        if self.buffer.len() >= BUFFER {
            self.drain()
        } else {
            Ok(())
        }
    }

    /// The checksum of the whole.
    pub(super) fn put_body(&mut self, body: &Body) -> io::Result<u32> {
        let mut checksum = crc32fast::Hasher::new();
        self.put_part(body, &mut checksum)?;
        Ok(checksum.finalize())
    }

    fn put_part(&mut self, body: &Body, checksum: &mut crc32fast::Hasher) -> io::Result<()> {
        match body {
            Body::Octets(octets) => {
                checksum.update(octets);
                self.put(octets)
            }
            Body::Parts(parts) => parts.iter().try_for_each(|part| self.put_part(part, checksum)),
            Body::File { file, offset, length } => {
                let mut chunk = vec![0; usize::try_from(*length).unwrap_or(BUFFER).min(BUFFER / 4)];
                let mut at = 0;
                while at < *length {
                    let take = usize::try_from(length - at)
                        .unwrap_or(usize::MAX)
                        .min(chunk.len());
                    file.read_exact_at(&mut chunk[..take], offset + at)?;
                    checksum.update(&chunk[..take]);
                    self.put(&chunk[..take])?;
                    at += take as u64;
                }
                Ok(())
            }
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        self.file.append(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// The segment is closed, and all of it flushed. Its index must not cost anything that is acknowledged: without it the
    /// next start only takes longer.
    pub(super) fn seal(self, disk: &mut dyn Disk) {
        let _ = self.index.write(disk, &segment_name(self.number, self.salt));
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.durable < self.length {
            self.drain()?;
            self.file.flush()?;
            self.durable = self.length;
        }
        Ok(())
    }
}
