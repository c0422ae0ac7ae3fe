//! How a record looks on disk. All integers are little-endian.
//!
//! ```text
//! octets  what
//!      8  salt of the segment: a random number that is in the file's name too
//!      1  kind: 1 message, 2 outcome
//!      3  zero
//!      4  length of the JSON part
//!      8  length of the body
//!      8  message id
//!      4  CRC-32 of the octets above
//!         JSON part, body
//!      4  CRC-32 of the JSON part
//!      4  CRC-32 of the body
//! ```
//!
//! The header has a checksum of its own, so that a reader can trust the lengths and step over a damaged part. After
//! a damaged header a reader looks for the next salt. A sender who puts records into his mail cannot forge one:
//! he does not know the salt.

use super::MessageId;

/// Octets before the JSON part.
pub const HEADER: usize = 36;
/// Octets after the body.
pub const TRAILER: usize = 8;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`super::StoredMessage`] and the message.
    Message,
    /// [`super::StoredOutcome`].
    Outcome,
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Octets of the JSON part.
    pub meta_length: u32,
    /// Octets of the body.
    pub body_length: u64,
    /// Of which message.
    pub id: MessageId,
}

impl Header {
    /// The header as it stands in the segment with this salt.
    pub fn encode(&self, salt: u64) -> [u8; HEADER] {
        let mut octets = [0; HEADER];
        octets[0..8].copy_from_slice(&salt.to_le_bytes());
        octets[8] = match self.kind {
            Kind::Message => 1,
            Kind::Outcome => 2,
        };
        octets[12..16].copy_from_slice(&self.meta_length.to_le_bytes());
        octets[16..24].copy_from_slice(&self.body_length.to_le_bytes());
        octets[24..32].copy_from_slice(&self.id.0.to_le_bytes());
        let checksum = crc32fast::hash(&octets[..32]);
        octets[32..36].copy_from_slice(&checksum.to_le_bytes());
        octets
    }

    /// Reads a header; `None` where it is not one of this segment.
    pub fn decode(octets: &[u8; HEADER], salt: u64) -> Option<Self> {
        let four = |at: usize| octets[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let eight = |at: usize| octets[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        if eight(0)? != salt || four(32)? != crc32fast::hash(&octets[..32]) || octets[9..12] != [0; 3] {
            return None;
        }
        let kind = match octets[8] {
            1 => Kind::Message,
            2 => Kind::Outcome,
            _ => return None,
        };
        Some(Self {
            kind,
            meta_length: four(12)?,
            body_length: eight(16)?,
            id: MessageId(eight(24)?),
        })
    }

    /// Octets of the whole record.
    pub fn record_length(&self) -> u64 {
        (HEADER + TRAILER) as u64 + u64::from(self.meta_length) + self.body_length
    }
}

/// The octets after the body.
pub fn trailer(meta: u32, body: u32) -> [u8; TRAILER] {
    let mut octets = [0; TRAILER];
    octets[..4].copy_from_slice(&meta.to_le_bytes());
    octets[4..].copy_from_slice(&body.to_le_bytes());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_read_back(meta_length: u32, body_length: u64, id: u64, salt: u64, outcome: bool) {
            let kind = if outcome { Kind::Outcome } else { Kind::Message };
            let header = Header { kind, meta_length, body_length, id: MessageId(id) };
            prop_assert_eq!(Header::decode(&header.encode(salt), salt), Some(header));
        }

        #[test]
        fn a_flipped_bit_or_another_salt_is_seen(bit in 0..HEADER * 8, id: u64, salt: u64) {
            let header = Header { kind: Kind::Message, meta_length: 7, body_length: 9, id: MessageId(id) };
            let mut octets = header.encode(salt);
            prop_assert_eq!(Header::decode(&octets, salt ^ 1), None);
            octets[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(&octets, salt), None);
        }
    }
}
