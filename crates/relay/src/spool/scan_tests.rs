//! Sectors that the disk does not give.

use super::*;
use crate::spool::MessageId;
use crate::spool::record::Kind;

/// A file with a bad page.
struct Bad {
    octets: Vec<u8>,
    page: std::ops::Range<u64>,
}

impl FileExt for Bad {
    fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = offset + octets.len() as u64;
        if offset < self.page.end && end > self.page.start {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        let at = usize::try_from(offset).unwrap();
        octets.copy_from_slice(&self.octets[at..at + octets.len()]);
        Ok(octets.len())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

const SALT: u64 = 0x0123_4567_89ab_cdef;

/// A segment of messages of about 1,000 octets, and where each begins.
fn segment(messages: u64) -> (Vec<u8>, Vec<u64>) {
    let (mut octets, mut places) = (Vec::new(), Vec::new());
    for id in 1..=messages {
        let body = vec![b'x'; 900 + usize::try_from(id * 13 % 100).unwrap()];
        let header = Header {
            kind: Kind::Message,
            meta_length: 2,
            body_length: body.len() as u64,
            id: MessageId(id),
        };
        places.push(octets.len() as u64);
        octets.extend_from_slice(&header.encode(SALT));
        octets.extend_from_slice(b"{}");
        octets.extend_from_slice(&body);
        octets.extend_from_slice(&trailer(crc32fast::hash(b"{}"), crc32fast::hash(&body)));
    }
    places.push(octets.len() as u64);
    (octets, places)
}

fn found(file: &Bad) -> (Vec<u64>, Vec<Damage>) {
    let (mut records, mut damage) = (Vec::new(), Vec::new());
    scan(file, file.octets.len() as u64, 0, 1, SALT, |found| match found {
        Found::Record { header, .. } => records.push(header.id.0),
        Found::Damage(stretch) => damage.push(stretch),
    });
    (records, damage)
}

#[test]
fn a_bad_page_costs_the_records_that_touch_it_and_no_others() {
    // More than one chunk, so that the search begins with large reads.
    let (octets, places) = segment(400);
    for page in [0, 4096, 40_960, 258_048, 262_144, 266_240] {
        let bad = page..page + PAGE as u64;
        let file = Bad {
            octets: octets.clone(),
            page: bad.clone(),
        };
        let (records, damage) = found(&file);
        let whole: Vec<u64> = (1..=400)
            .zip(places.windows(2))
            .filter(|(_, place)| place[1] <= bad.start || place[0] >= bad.end)
            .map(|(id, _)| id)
            .collect();
        assert_eq!(records, whole, "bad page at {page}");
        assert!(whole.len() >= 394 && !damage.is_empty());
        assert!(damage.iter().all(|damage| !damage.tail));
    }
}

#[test]
fn a_bad_last_page_is_no_torn_tail() {
    let (octets, _) = segment(4);
    let last = octets.len() as u64 - 10;
    let (records, damage) = found(&Bad {
        octets,
        page: last..last + 10,
    });
    assert_eq!(records, [1, 2, 3]);
    assert_eq!((damage.len(), damage[0].tail), (1, false));
}
