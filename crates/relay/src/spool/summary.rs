//! What the schedule needs of a record, short enough that a start reads it for a million messages in a moment.
//!
//! It says nothing that the record's JSON part does not say; [`super::index`] keeps it beside the segment. All integers are
//! little-endian, a string is its length in four octets and its UTF-8.
//!
//! ```text
//! message:  provenance (1), flags (1: held, 2: bulk, 4: a user logged in), time of arrival (8), reverse-path, the user,
//!           number of recipients (4), their addresses, number of statuses (4), statuses, standing
//! outcome:  0 nothing, 1 released, 2 held from here on (1), number of news (4), for each recipient (4) and status, standing
//! standing: 0 not in the hold (or no news of it); 1 unscanned: since (8); 2 expired; 3 bad: reason
//! status:   0 delivered; 1 failed; 2 due, 3 due and warned of: time (8), tries (4), reply
//! ```

use serde::{Deserialize, Serialize};

use super::hold::{Mark, Standing};
use super::{Digest, Status, StoredMessage, StoredOutcome};
use crate::handover::Envelope;
use crate::queue::provenance::Provenance;

const HELD: u8 = 1;
const BULK: u8 = 2;
const USER: u8 = 4;

/// What decides where, when and in whose turn a message goes. Reads from the JSON of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// As in the envelope.
    pub reverse_path: String,
    /// As in the envelope.
    pub authenticated_user: Option<String>,
    /// In the envelope's order.
    pub recipients: Vec<Mailbox>,
}

/// A recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// As in the envelope.
    pub address: String,
}

impl From<&Envelope> for Brief {
    fn from(envelope: &Envelope) -> Self {
        let recipients = envelope.recipients.iter();
        Self {
            reverse_path: envelope.reverse_path.clone(),
            authenticated_user: envelope.authenticated_user.clone(),
            recipients: recipients
                .map(|recipient| Mailbox {
                    address: recipient.address.clone(),
                })
                .collect(),
        }
    }
}

/// Of a message record.
pub fn of_message(message: &Digest) -> Vec<u8> {
    let brief = &message.envelope;
    let flag = |set, flag| if set { flag } else { 0 };
    let mut octets = vec![
        number_of(message.provenance),
        flag(message.held, HELD) | flag(message.bulk, BULK) | flag(brief.authenticated_user.is_some(), USER),
    ];
    octets.extend_from_slice(&message.arrived.to_le_bytes());
    put_text(&mut octets, &brief.reverse_path);
    if let Some(user) = &brief.authenticated_user {
        put_text(&mut octets, user);
    }
    put_length(&mut octets, brief.recipients.len());
    for recipient in &brief.recipients {
        put_text(&mut octets, &recipient.address);
    }
    put_length(&mut octets, message.statuses.len());
    for status in &message.statuses {
        put_status(&mut octets, status);
    }
    let standing = message.hold.as_ref().and_then(|hold| hold.standing.as_ref());
    put_standing(&mut octets, standing);
    octets
}

/// Of an outcome record.
pub fn of_outcome(outcome: &StoredOutcome) -> Vec<u8> {
    let mut octets = vec![outcome.held.map_or(0, |held| 1 + u8::from(held))];
    put_length(&mut octets, outcome.recipients.len());
    for (index, status) in &outcome.recipients {
        octets.extend_from_slice(&index.to_le_bytes());
        put_status(&mut octets, status);
    }
    put_standing(&mut octets, outcome.standing.as_ref());
    octets
}

/// Reads what [`of_message`] has made; `None` where it is not that.
pub fn message(octets: &[u8]) -> Option<Digest> {
    let mut rest = Rest(octets);
    let (provenance, flags) = (provenance(rest.octet()?)?, rest.octet()?);
    let arrived = rest.eight()?;
    let reverse_path = rest.text()?.to_owned();
    let user = (flags & USER != 0).then(|| rest.text().map(str::to_owned));
    let authenticated_user = match user {
        Some(user) => Some(user?),
        None => None,
    };
    let recipients = rest.list(|rest| {
        rest.text().map(|address| Mailbox {
            address: address.to_owned(),
        })
    })?;
    let statuses = rest.list(Rest::status)?;
    let mut standing = None;
    rest.standing(&mut standing)?;
    let message = StoredMessage {
        envelope: Brief {
            reverse_path,
            authenticated_user,
            recipients,
        },
        provenance,
        arrived,
        statuses,
        held: flags & HELD != 0,
        bulk: flags & BULK != 0,
        hold: standing.map(|standing| {
            Box::new(Mark {
                standing: Some(standing),
            })
        }),
    };
    rest.0.is_empty().then_some(message)
}

/// Reads what [`of_outcome`] has made; `None` where it is not that.
pub fn outcome(octets: &[u8]) -> Option<StoredOutcome> {
    let mut rest = Rest(octets);
    let held = match rest.octet()? {
        0 => None,
        1 => Some(false),
        2 => Some(true),
        _ => return None,
    };
    let recipients = rest.list(|rest| Some((rest.four()?, rest.status()?)))?;
    let mut standing = None;
    rest.standing(&mut standing)?;
    rest.0.is_empty().then_some(StoredOutcome {
        recipients,
        held,
        standing,
    })
}

fn number_of(provenance: Provenance) -> u8 {
    match provenance {
        Provenance::Public => 0,
        Provenance::Inside => 1,
        Provenance::Dmz => 2,
        Provenance::Submission => 3,
        Provenance::Own => 4,
    }
}

fn provenance(number: u8) -> Option<Provenance> {
    Some(match number {
        0 => Provenance::Public,
        1 => Provenance::Inside,
        2 => Provenance::Dmz,
        3 => Provenance::Submission,
        4 => Provenance::Own,
        _ => return None,
    })
}

fn put_length(octets: &mut Vec<u8>, length: usize) {
    // A record's JSON part is bounded far below; what does not fit is refused by the reader.
    octets.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(octets: &mut Vec<u8>, text: &str) {
    put_length(octets, text.len());
    octets.extend_from_slice(text.as_bytes());
}

fn put_status(octets: &mut Vec<u8>, status: &Status) {
    match status {
        Status::Delivered => octets.push(0),
        Status::Failed => octets.push(1),
        Status::Due {
            at,
            attempts,
            reply,
            warned,
        } => {
            octets.push(2 + u8::from(*warned));
            octets.extend_from_slice(&at.to_le_bytes());
            octets.extend_from_slice(&attempts.to_le_bytes());
            put_text(octets, reply);
        }
    }
}

fn put_standing(octets: &mut Vec<u8>, standing: Option<&Standing>) {
    match standing {
        None => octets.push(0),
        Some(Standing::Unscanned { since }) => {
            octets.push(1);
            octets.extend_from_slice(&since.to_le_bytes());
        }
        Some(Standing::Expired) => octets.push(2),
        Some(Standing::Bad { reason }) => {
            octets.push(3);
            put_text(octets, reason);
        }
    }
}

/// What has not been read yet.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn octet(&mut self) -> Option<u8> {
        self.take(1).map(|octets| octets[0])
    }

    pub(super) fn four(&mut self) -> Option<u32> {
        self.take(4)?.try_into().map(u32::from_le_bytes).ok()
    }

    pub(super) fn eight(&mut self) -> Option<u64> {
        self.take(8)?.try_into().map(u64::from_le_bytes).ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.four()?;
        str::from_utf8(self.take(length as usize)?).ok()
    }

    fn list<T>(&mut self, mut next: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.four()? as usize;
        // Each takes an octet at least: a length that was made up takes no memory.
        let mut all = Vec::with_capacity(length.min(self.0.len()).min(1024));
        for _ in 0..length {
            all.push(next(self)?);
        }
        Some(all)
    }

    fn standing(&mut self, into: &mut Option<Standing>) -> Option<()> {
        *into = match self.octet()? {
            0 => None,
            1 => Some(Standing::Unscanned { since: self.eight()? }),
            2 => Some(Standing::Expired),
            3 => Some(Standing::Bad {
                reason: self.text()?.into(),
            }),
            _ => return None,
        };
        Some(())
    }

    fn status(&mut self) -> Option<Status> {
        let kind = self.octet()?;
        Some(match kind {
            0 => Status::Delivered,
            1 => Status::Failed,
            2 | 3 => Status::Due {
                at: self.eight()?,
                attempts: self.four()?,
                reply: self.text()?.into(),
                warned: kind == 3,
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statuses() -> impl Strategy<Value = Status> {
        prop_oneof![
            Just(Status::Delivered),
            Just(Status::Failed),
            (any::<u64>(), any::<u32>(), any::<String>(), any::<bool>()).prop_map(
                |(at, attempts, reply, warned)| Status::Due {
                    at,
                    attempts,
                    reply: reply.into(),
                    warned,
                }
            ),
        ]
    }

    fn standing() -> impl Strategy<Value = Option<Standing>> {
        prop_oneof![
            Just(None),
            any::<u64>().prop_map(|since| Some(Standing::Unscanned { since })),
            Just(Some(Standing::Expired)),
            any::<String>().prop_map(|reason| Some(Standing::Bad {
                reason: reason.into()
            })),
        ]
    }

    proptest! {
        #[test]
        fn a_message_reads_back_and_no_part_of_it_does(
            reverse_path: String, authenticated_user: Option<String>, addresses: Vec<String>, number in 0..5u8,
            arrived: u64, statuses in proptest::collection::vec(statuses(), 0..4), held: bool, bulk: bool, standing in standing(),
            cut in 0.0..1.0f64,
        ) {
            let recipients = addresses.into_iter().map(|address| Mailbox { address }).collect();
            let brief = Brief { reverse_path, authenticated_user, recipients };
            let provenance = provenance(number).unwrap();
            let hold = standing.map(|standing| Box::new(Mark { standing: Some(standing) }));
            let whole = StoredMessage { envelope: brief, provenance, arrived, statuses, held, bulk, hold };
            let octets = of_message(&whole);
            prop_assert_eq!(message(&octets), Some(whole));
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let cut = (octets.len() as f64 * cut) as usize;
            prop_assert_eq!(message(&octets[..cut]), None);
        }

        #[test]
        fn an_outcome_reads_back(
            recipients in proptest::collection::vec((any::<u32>(), statuses()), 0..4), held: Option<bool>, standing in standing(),
        ) {
            let whole = StoredOutcome { recipients, held, standing };
            prop_assert_eq!(outcome(&of_outcome(&whole)), Some(whole));
        }

        #[test]
        fn any_octets_are_read_without_a_fault(octets: Vec<u8>) {
            let _ = (message(&octets), outcome(&octets));
        }
    }
}
