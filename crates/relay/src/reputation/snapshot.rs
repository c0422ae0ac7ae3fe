//! The snapshot that outlives the process: tables as octets, in a frame by which damage is seen.
//!
//! Frame: magic, version, octets of the payload, their SHA-256, payload. smtpd writes and reads the payload; the queue, which
//! keeps the file, checks the frame and looks no further. Integers are little-endian.

use aws_lc_rs::digest::{SHA256, digest};

use super::Key;
use super::local::{ENTRIES, Kept, NAMES, Tables};

const MAGIC: &[u8; 8] = b"POSTREPU";
/// A later version says so here.
const VERSION: u32 = 2;
/// The first version had the first four tables, and is read.
const FIRST: u32 = 1;
const TABLES_OF_FIRST: usize = 4;
const HEADER: usize = 8 + 4 + 8 + 32;
const ENTRY: usize = 16 + 8 + 16;

/// Octets of a snapshot at most.
pub const MAX_OCTETS: u64 = (HEADER + NAMES.len() * 4 + OF_ALL * ENTRY) as u64;
/// Entries of seven large tables and four small ones.
const OF_ALL: usize = 7 * ENTRIES + 4 * (ENTRIES / 4);

/// Why octets are no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It begins or ends with something else.
    #[error("it is not a snapshot, or not a whole one")]
    Frame,
    /// A later or earlier version wrote it.
    #[error("it is of version {0}; this program reads up to version {VERSION}")]
    Version(u32),
    /// Its octets changed.
    #[error("its checksum is wrong")]
    Checksum,
    /// Its checksum is right and its tables are not.
    #[error("its tables cannot be read")]
    Tables,
}

/// The tables, framed.
pub fn write(tables: &Tables) -> Vec<u8> {
    let entries: usize = tables.iter().map(|table| table.len().min(ENTRIES)).sum();
    let mut payload = Vec::with_capacity(4 * NAMES.len() + entries * ENTRY);
    for table in tables {
        // What is forgotten first comes first, so the last ones are the ones to keep.
        let newest = &table[table.len().saturating_sub(ENTRIES)..];
        payload.extend(u32::try_from(newest.len()).unwrap_or(0).to_le_bytes());
        for kept in newest {
            payload.extend(kept.key.octets());
            for number in [kept.expires, kept.value[0], kept.value[1]] {
                payload.extend(number.to_le_bytes());
            }
        }
    }
    let mut octets = Vec::with_capacity(HEADER + payload.len());
    octets.extend(MAGIC);
    octets.extend(VERSION.to_le_bytes());
    octets.extend((payload.len() as u64).to_le_bytes());
    octets.extend(digest(&SHA256, &payload).as_ref());
    octets.extend(payload);
    octets
}

/// Whether the octets are a whole snapshot of a version that is read; the version and the payload.
pub fn verify(octets: &[u8]) -> Result<(u32, &[u8]), SnapshotError> {
    let mut rest = octets;
    if take::<8>(&mut rest) != Some(*MAGIC) {
        return Err(SnapshotError::Frame);
    }
    let version = take(&mut rest)
        .map(u32::from_le_bytes)
        .ok_or(SnapshotError::Frame)?;
    if version != VERSION && version != FIRST {
        return Err(SnapshotError::Version(version));
    }
    let length = take(&mut rest)
        .map(u64::from_le_bytes)
        .ok_or(SnapshotError::Frame)?;
    let checksum: [u8; 32] = take(&mut rest).ok_or(SnapshotError::Frame)?;
    if rest.len() as u64 != length {
        return Err(SnapshotError::Frame);
    }
    if digest(&SHA256, rest).as_ref() != checksum {
        return Err(SnapshotError::Checksum);
    }
    Ok((version, rest))
}

/// Verifies and reads the tables.
pub fn read(octets: &[u8]) -> Result<Tables, SnapshotError> {
    let (version, mut rest) = verify(octets)?;
    let mut tables = Tables::default();
    let written = if version == FIRST {
        TABLES_OF_FIRST
    } else {
        NAMES.len()
    };
    for table in &mut tables[..written] {
        *table = read_table(&mut rest).ok_or(SnapshotError::Tables)?;
    }
    if rest.is_empty() {
        Ok(tables)
    } else {
        Err(SnapshotError::Tables)
    }
}

fn read_table(rest: &mut &[u8]) -> Option<Vec<Kept>> {
    let entries = usize::try_from(take(rest).map(u32::from_le_bytes)?).ok()?;
    if entries > ENTRIES || entries * ENTRY > rest.len() {
        return None;
    }
    (0..entries)
        .map(|_| {
            Some(Kept {
                key: Key::from_octets(take(rest)?),
                expires: u64::from_le_bytes(take(rest)?),
                value: [u64::from_le_bytes(take(rest)?), u64::from_le_bytes(take(rest)?)],
            })
        })
        .collect()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tables(entries: usize) -> Tables {
        let table = |kind: &str| {
            (0..entries)
                .map(|number| Kept {
                    key: Key::new(kind, &[&number.to_string()]),
                    expires: number as u64,
                    value: [u64::MAX, 7],
                })
                .collect()
        };
        let mut tables = Tables::default();
        for (number, name) in NAMES.iter().enumerate().filter(|(number, _)| *number != 2) {
            tables[number] = table(name);
        }
        tables
    }

    #[test]
    fn tables_read_back() {
        for entries in [0, 1, 100] {
            assert_eq!(read(&write(&tables(entries))).unwrap(), tables(entries));
        }
    }

    #[test]
    fn every_single_wrong_octet_is_seen() {
        let whole = write(&tables(2));
        for at in 0..whole.len() {
            let mut octets = whole.clone();
            octets[at] ^= 0x10;
            assert!(read(&octets).is_err(), "octet {at}");
            assert!(read(&whole[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(read(&[&whole[..], b"x"].concat()), Err(SnapshotError::Frame));
    }

    #[test]
    fn another_version_is_told_as_that() {
        let mut octets = write(&tables(1));
        octets[8] = 9;
        assert_eq!(read(&octets), Err(SnapshotError::Version(9)));
    }

    #[test]
    fn the_first_version_is_read() {
        let mut all = tables(1);
        all[TABLES_OF_FIRST..].fill(vec![]);
        let octets = write(&all);
        let empty = 4 * (NAMES.len() - TABLES_OF_FIRST);
        let payload = &octets[HEADER..octets.len() - empty];
        let mut first = MAGIC.to_vec();
        first.extend(FIRST.to_le_bytes());
        first.extend((payload.len() as u64).to_le_bytes());
        first.extend(digest(&SHA256, payload).as_ref());
        first.extend(payload);
        assert_eq!(read(&first).unwrap(), all);
    }

    proptest! {
        #[test]
        fn whatever_the_payload_says_is_read_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut octets = MAGIC.to_vec();
            octets.extend(VERSION.to_le_bytes());
            octets.extend((payload.len() as u64).to_le_bytes());
            octets.extend(digest(&SHA256, &payload).as_ref());
            octets.extend(&payload);
            if let Ok(tables) = read(&octets) {
                prop_assert_eq!(write(&tables), octets);
            }
        }
    }
}
