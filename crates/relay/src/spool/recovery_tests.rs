//! Recovery of logs that were cut or damaged at any octet: what was acknowledged and is intact is found, and what
//! is not intact is reported.

use proptest::prelude::*;

use super::*;
use crate::handover::{Envelope, Recipient};
use crate::queue::provenance::Provenance;
use crate::queue::store::{message_record, outcome_record};
use crate::spool::body::Stored;
use crate::spool::disk::Directory;
use crate::spool::hold::{Hold, Standing, Unscanned};
use crate::spool::index::forget_entries;
use crate::spool::summary::Brief;
use crate::spool::writer::{Body, Options, Record, Writer, segment_name};
use crate::spool::{Status, StoredMessage};

fn recover(directory: &Path) -> Result<Recovered, SpoolError> {
    super::recover(directory, &mut Directory::open(directory).unwrap())
}

fn stored(recipients: usize) -> StoredMessage {
    let recipient = |index| Recipient {
        address: format!("r{index}@b.example"),
        orcpt: None,
        notify: None,
    };
    StoredMessage {
        envelope: Envelope {
            trace: "t".into(),
            reverse_path: "a@a.example".into(),
            recipients: (0..recipients).map(recipient).collect(),
            ret: None,
            envid: None,
            smtputf8: false,
            require_tls: false,
            eight_bit: false,
            peer: "192.0.2.1".into(),
            helo: "client.example".into(),
            tls: None,
            authenticated_user: None,
            return_path_proven: true,
            size: 0,
        },
        provenance: Provenance::Inside,
        arrived: 1,
        statuses: vec![
            Status::Due {
                at: 1,
                attempts: 0,
                warned: false,
                reply: "".into()
            };
            recipients
        ],
        held: false,
        bulk: false,
        hold: None,
    }
}

fn message(id: u64, recipients: usize, body: Vec<u8>) -> Record {
    message_record(MessageId(id), &stored(recipients), Body::Octets(body.into())).unwrap()
}

fn outcome(id: u64, recipients: Vec<(u32, Status)>) -> Record {
    let outcome = StoredOutcome {
        recipients,
        ..StoredOutcome::default()
    };
    outcome_record(MessageId(id), &outcome).unwrap()
}

/// Writes records one request each, into a directory of its own; says where each is. Without indexes, so that the octets
/// are read.
fn write(records: Vec<Record>, options: Options) -> (tempfile::TempDir, Vec<Location>) {
    let (directory, places) = write_indexed(records, options);
    remove_indexes(directory.path());
    (directory, places)
}

fn remove_indexes(directory: &Path) {
    for name in list(directory).unwrap().indexes {
        std::fs::remove_file(directory.join(name)).unwrap();
    }
}

fn write_indexed(records: Vec<Record>, options: Options) -> (tempfile::TempDir, Vec<Location>) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Directory::open(directory.path()).unwrap();
    let (writer, thread) = Writer::start(Box::new(disk), options, 1, |_| ()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let places = runtime.block_on(async {
        let mut places = Vec::new();
        for record in records {
            places.extend(writer.append(vec![record]).await.unwrap());
        }
        places
    });
    drop(writer);
    thread.join().unwrap();
    (directory, places)
}

fn end(place: &Location) -> u64 {
    place.offset + 44 + u64::from(place.meta_length) + place.body_length
}

fn options() -> Options {
    Options {
        reserve_octets: 0,
        ..Options::default()
    }
}

/// Five messages; the fourth is done.
fn sample() -> (tempfile::TempDir, Vec<Location>) {
    let mut records: Vec<_> = (1..=5)
        .map(|id| {
            message(
                id,
                1,
                format!(
                    "Subject: {id}\r\n\r\n{}",
                    "x".repeat(30 * usize::try_from(id).unwrap())
                )
                .into(),
            )
        })
        .collect();
    records.insert(4, outcome(4, vec![(0, Status::Delivered)]));
    write(records, options())
}

fn only_segment(directory: &Path) -> PathBuf {
    list(directory)
        .unwrap()
        .segments
        .into_values()
        .next()
        .unwrap()
        .path
}

fn ids(recovered: &Recovered) -> Vec<u64> {
    recovered.messages.keys().map(|id| id.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_log_cut_at_any_octet_gives_every_whole_record(at in 0.0..1.0f64) {
        let (directory, places) = sample();
        let path = only_segment(directory.path());
        let size = end(places.last().unwrap());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let cut = (size as f64 * at) as u64;
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        let recovered = recover(directory.path()).unwrap();
        let whole = |index: usize| end(&places[index]) <= cut;
        let mut expected: Vec<u64> = [(0, 1), (1, 2), (2, 3), (3, 4), (5, 5)]
            .into_iter().filter(|(index, _)| whole(*index)).map(|(_, id)| id).collect();
        if whole(4) {
            expected.retain(|id| *id != 4);
        }
        prop_assert_eq!(ids(&recovered), expected);
        let boundary = cut == 0 || places.iter().any(|place| end(place) == cut);
        prop_assert_eq!(recovered.damage.is_empty(), boundary);
        prop_assert!(recovered.damage.iter().all(|(_, damage)| damage.tail));
    }

    #[test]
    fn a_flipped_octet_costs_its_record_only_and_is_reported(at in 0.0..1.0f64, flip in 1u8..) {
        let (directory, places) = sample();
        let path = only_segment(directory.path());
        let mut octets = std::fs::read(&path).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let flipped = (octets.len() as f64 * at) as usize;
        octets[flipped] ^= flip;
        std::fs::write(&path, octets).unwrap();
        let recovered = recover(directory.path()).unwrap();
        let hit = places.iter().position(|place| (flipped as u64) < end(place)).unwrap();
        let expected: Vec<u64> = match hit {
            4 => vec![1, 2, 3, 4, 5], // the outcome is lost: the message is sent again rather than never
            5 => vec![1, 2, 3],
            index => [1, 2, 3, 5].into_iter().filter(|id| *id != index as u64 + 1).collect(),
        };
        prop_assert_eq!(ids(&recovered), expected);
        prop_assert_eq!(recovered.damage.len(), 1);
        let damage = &recovered.damage[0].1;
        prop_assert_eq!((damage.offset, damage.offset + damage.length), (places[hit].offset, end(&places[hit])));
        prop_assert_eq!(damage.tail, hit == 5);
    }
}

#[test]
fn bodies_read_back_and_damage_found_later_is_an_error() {
    let body: Vec<u8> = (0..700_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let (directory, places) = write(
        vec![
            message(1, 1, b"A: b\r\n\r\nc".to_vec()),
            message(2, 1, body.clone()),
        ],
        options(),
    );
    let segment = list(directory.path()).unwrap().segments[&1].clone();
    let first = Stored::open(&segment, places[0]).unwrap();
    assert_eq!(first.header(1000).unwrap(), b"A: b\r\n\r\n");
    let second = Stored::open(&segment, places[1]).unwrap();
    assert_eq!(second.read(0, 1_000_000).unwrap(), body);
    assert_eq!(second.read(699_999, 10).unwrap(), body[699_999..]);
    let mut octets = std::fs::read(&segment.path).unwrap();
    let last = octets.len() - 100;
    octets[last] ^= 1;
    std::fs::write(&segment.path, octets).unwrap();
    let error = Stored::open(&segment, places[1]).unwrap_err().to_string();
    assert!(
        error.contains("damaged: its checksum is not that of its octets"),
        "{error}"
    );
}

#[test]
fn outcomes_of_single_recipients_are_kept_across_segments_and_copies() {
    let due = |attempts| Status::Due {
        at: 9,
        attempts,
        warned: false,
        reply: "450 later".into(),
    };
    let records = vec![
        message(1, 3, vec![b'x'; 500]),
        outcome(1, vec![(0, Status::Delivered), (1, due(2))]),
        message(2, 1, vec![b'x'; 500]),
        // Carried over with what an older snapshot said: what is final stays so.
        message(1, 3, vec![b'x'; 500]),
        outcome(2, vec![(0, Status::Failed)]),
        outcome(99, vec![(0, Status::Failed)]),
    ];
    let (directory, places) = write(
        records,
        Options {
            segment_octets: 1200,
            ..options()
        },
    );
    let recovered = recover(directory.path()).unwrap();
    assert!(recovered.segments.len() > 1);
    assert_eq!(ids(&recovered), [1]);
    let live = &recovered.messages[&MessageId(1)];
    assert_eq!(live.location, places[3]);
    let fresh = Status::Due {
        at: 1,
        attempts: 0,
        warned: false,
        reply: "".into(),
    };
    assert_eq!(live.message.statuses, [Status::Delivered, due(2), fresh]);
    assert_eq!(recovered.last_id, 99);
    assert!(recovered.damage.is_empty());
}

fn unscanned(id: u64) -> Record {
    message_record(MessageId(id), &stored_unscanned(), Body::Octets(b"x"[..].into())).unwrap()
}

fn stored_unscanned() -> StoredMessage {
    let hold = Hold {
        unscanned: Unscanned {
            fields: 0,
            evidence: "[]".into(),
        },
        standing: Some(Standing::Unscanned { since: 1 }),
    };
    StoredMessage {
        held: true,
        hold: Some(Box::new(hold)),
        ..stored(1)
    }
}

fn stands(id: u64, held: bool, standing: Option<Standing>) -> Record {
    let outcome = StoredOutcome {
        recipients: Vec::new(),
        held: Some(held),
        standing,
    };
    outcome_record(MessageId(id), &outcome).unwrap()
}

#[test]
fn what_is_unscanned_stays_so_until_a_scan_or_the_operator_says_otherwise() {
    let stands = |held, standing| stands(1, held, standing);
    let bad = || Standing::Bad {
        reason: "virus".into(),
    };
    let clean = || {
        let mut stored = stored_unscanned();
        stored.held = false;
        stored.hold.as_mut().unwrap().standing = None;
        message_record(MessageId(1), &stored, Body::Octets(b"fields x"[..].into())).unwrap()
    };
    let since = Some(Standing::Unscanned { since: 1 });
    for (records, held, standing) in [
        (vec![], true, since.clone()),
        (vec![outcome(1, Vec::new())], true, since),
        (
            vec![stands(true, Some(Standing::Expired))],
            true,
            Some(Standing::Expired),
        ),
        (vec![stands(true, Some(bad()))], true, Some(bad())),
        (vec![stands(true, Some(bad())), stands(false, None)], false, None),
        (vec![clean()], false, None),
        // A release whose writing was reported as failed, and what was found the next time.
        (vec![clean(), stands(true, Some(bad()))], true, Some(bad())),
    ] {
        let all = std::iter::once(unscanned(1)).chain(records).collect();
        let (directory, _) = write(all, options());
        let recovered = recover(directory.path()).unwrap();
        let found = &recovered.messages[&MessageId(1)].message;
        assert_eq!(found.held, held);
        assert_eq!(
            found.hold.as_ref().and_then(|hold| hold.standing.clone()),
            standing
        );
    }
}

#[test]
fn a_hold_counts_until_it_is_released() {
    let change = |held| {
        let outcome = StoredOutcome {
            recipients: Vec::new(),
            held: Some(held),
            standing: None,
        };
        outcome_record(MessageId(1), &outcome).unwrap()
    };
    for (changes, held) in [
        (vec![change(true)], true),
        (vec![change(true), outcome(1, Vec::new())], true),
        (vec![change(true), change(false)], false),
    ] {
        let records = std::iter::once(message(1, 1, b"x".to_vec()))
            .chain(changes)
            .collect();
        let (directory, _) = write(records, options());
        let recovered = recover(directory.path()).unwrap();
        assert_eq!(recovered.messages[&MessageId(1)].message.held, held);
    }
}

#[test]
fn a_message_that_holds_records_cannot_forge_one() {
    let (forged, places) = write(vec![message(77, 1, b"forged".to_vec())], options());
    let octets = std::fs::read(only_segment(forged.path())).unwrap();
    let (directory, _) = write(
        vec![message(1, 1, octets), message(2, 1, b"x".to_vec())],
        options(),
    );
    let path = only_segment(directory.path());
    let mut octets = std::fs::read(&path).unwrap();
    octets[20] ^= 1; // the first header: the reader must look for the next one, through the body
    std::fs::write(&path, octets).unwrap();
    let recovered = recover(directory.path()).unwrap();
    assert_eq!(ids(&recovered), [2]);
    assert_eq!(recovered.damage.len(), 1);
    assert_eq!(places.len(), 1);
}

#[test]
fn other_files_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("notes"), "x").unwrap();
    std::fs::write(directory.path().join(segment_name(3, 4)), "").unwrap();
    let recovered = recover(directory.path()).unwrap();
    assert_eq!(recovered.segments.keys().collect::<Vec<_>>(), [&3]);
    assert!(recovered.damage.is_empty());
}

#[test]
fn a_segment_that_cannot_be_read_costs_only_itself_and_is_kept() {
    let (directory, _) = sample();
    // Opens, has a size, and gives an error for each read.
    std::fs::create_dir(directory.path().join(segment_name(2, 7))).unwrap();
    let recovered = recover(directory.path()).unwrap();
    assert_eq!(ids(&recovered), [1, 2, 3, 5]);
    assert_eq!(recovered.keep, [2].into());
    let (segment, damage) = &recovered.damage[0];
    assert_eq!((*segment, damage.tail), (2, false));
    assert!(
        damage.detail.contains("the disk does not give it"),
        "{}",
        damage.detail
    );
}

/// A directory of which one segment cannot be flushed.
struct Unsettled(Directory, String);

impl Disk for Unsettled {
    fn create(&mut self, name: &str) -> io::Result<Box<dyn crate::spool::disk::Append>> {
        self.0.create(name)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
    fn settle(&mut self, name: &str) -> io::Result<()> {
        if name == self.1 {
            return Err(io::Error::other("lost"));
        }
        self.0.settle(name)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn free(&mut self) -> io::Result<u64> {
        self.0.free()
    }
}

#[test]
fn what_a_segment_that_cannot_be_flushed_overrules_is_kept() {
    let records = (1..=6).map(|id| message(id, 1, vec![b'x'; 700])).collect();
    let small = Options {
        segment_octets: 1200,
        ..options()
    };
    let (directory, places) = write(records, small);
    let before = recover(directory.path()).unwrap();
    assert!(before.keep.is_empty() && before.segments.len() > 3);
    let third = before.segments[&3]
        .path
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let mut disk = Unsettled(Directory::open(directory.path()).unwrap(), third);
    let recovered = super::recover(directory.path(), &mut disk).unwrap();
    assert_eq!(recovered.keep, [1, 2, 3].into());
    assert_eq!(recovered.messages.len(), places.len());
    assert_eq!((recovered.damage.len(), recovered.damage[0].0), (1, 3));
}

fn flip(path: &Path, at: u64) {
    let mut octets = std::fs::read(path).unwrap();
    octets[usize::try_from(at).unwrap()] ^= 1;
    std::fs::write(path, octets).unwrap();
}

/// Where the body of a record begins.
fn body(place: &Location) -> u64 {
    place.offset + 36 + u64::from(place.meta_length)
}

#[test]
fn of_a_message_whose_content_is_damaged_the_envelope_and_its_news_are_found() {
    let later = Status::Due {
        at: 9,
        attempts: 3,
        warned: false,
        reply: "".into(),
    };
    let records = vec![
        message(1, 2, vec![b'x'; 50]),
        message(2, 1, vec![b'x'; 50]),
        outcome(1, vec![(0, Status::Delivered), (1, later.clone())]),
        outcome(2, vec![(0, Status::Delivered)]),
        message(3, 1, vec![b'x'; 50]),
    ];
    let (directory, places) = write(records, options());
    let path = only_segment(directory.path());
    for place in [0, 1, 4] {
        flip(&path, body(&places[place]));
    }
    let recovered = recover(directory.path()).unwrap();
    assert!(recovered.messages.is_empty());
    // The second is done; the third may be a write that was interrupted, for which nobody had a 250.
    let unreadable: Vec<_> = recovered.unreadable.iter().collect();
    let [(id, live)] = unreadable[..] else {
        panic!("{unreadable:?}")
    };
    assert_eq!((id.0, live.location), (1, places[0]));
    assert_eq!(live.message.envelope, Brief::from(&stored(2).envelope));
    assert_eq!(live.message.statuses, [Status::Delivered, later]);
}

#[test]
fn a_damaged_copy_does_not_overrule_what_can_be_read() {
    for (damaged, good) in [(0, 1), (1, 0)] {
        let records = vec![
            message(1, 1, vec![b'x'; 50]),
            message(1, 1, vec![b'x'; 50]),
            message(2, 1, vec![b'x'; 50]),
        ];
        let (directory, places) = write(records, options());
        flip(&only_segment(directory.path()), body(&places[damaged]));
        let recovered = recover(directory.path()).unwrap();
        assert_eq!(recovered.messages[&MessageId(1)].location, places[good]);
        assert!(recovered.unreadable.is_empty());
    }
}

/// What a recovery says of the messages, and by how many indexes.
fn found(directory: &Path) -> (Vec<(MessageId, LiveMessage)>, u64) {
    let recovered = recover(directory).unwrap();
    assert!(recovered.unreadable.is_empty() && recovered.damage.is_empty());
    let messages = recovered.messages.into_iter().map(|(id, live)| (id, *live));
    (messages.collect(), recovered.indexed)
}

/// Two segments and more: copies, holds, outcomes of all kinds.
fn full_of_news() -> Vec<Record> {
    let due = |attempts, warned| Status::Due {
        at: 9,
        attempts,
        warned,
        reply: "450 4.2.1 sp\u{e4}ter".into(),
    };
    let bad = Standing::Bad {
        reason: "Eicar".into(),
    };
    vec![
        message(1, 3, vec![b'x'; 500]),
        outcome(1, vec![(0, Status::Delivered), (1, due(2, true))]),
        message(2, 1, vec![b'x'; 500]),
        stands(2, true, None),
        unscanned(4),
        unscanned(5),
        stands(5, true, Some(bad)),
        unscanned(6),
        stands(6, false, None),
        message(1, 3, vec![b'x'; 500]),
        message(3, 1, vec![b'x'; 500]),
        outcome(3, vec![(0, Status::Failed)]),
        outcome(2, vec![(0, due(1, false))]),
    ]
}

#[test]
fn by_their_indexes_the_same_is_found_as_by_their_octets() {
    let small = Options {
        segment_octets: 1200,
        ..options()
    };
    let (directory, _) = write_indexed(full_of_news(), small);
    let segments = list(directory.path()).unwrap().segments.len() as u64;
    assert!(segments > 2);
    let (by_index, indexed) = found(directory.path());
    assert_eq!((ids_of(&by_index), indexed), (vec![1, 2, 4, 5, 6], segments));
    let standing = |at: usize| by_index[at].1.message.hold.clone().and_then(|hold| hold.standing);
    assert_eq!(standing(2), Some(Standing::Unscanned { since: 1 }));
    assert!(matches!(standing(3), Some(Standing::Bad { .. })));
    assert_eq!(standing(4), None);
    remove_indexes(directory.path());
    assert_eq!(found(directory.path()), (by_index, 0));
    // A start writes none: what it read may be in the page cache only.
    assert!(list(directory.path()).unwrap().indexes.is_empty());
}

/// Where each damage is, and whether it is a tail.
fn damage_of(recovered: &Recovered) -> Vec<(u64, bool)> {
    let place = |(_, damage): &(u64, Damage)| (damage.offset, damage.tail);
    recovered.damage.iter().map(place).collect()
}

fn ids_of(found: &[(MessageId, LiveMessage)]) -> Vec<u64> {
    found.iter().map(|(id, _)| id.0).collect()
}

#[test]
fn an_index_that_does_not_fit_is_not_believed() {
    let (directory, places) = write_indexed(full_of_news(), options());
    let path = only_segment(directory.path());
    let index = beside(&path);
    let whole = std::fs::read(&index).unwrap();
    let (other, _) = write_indexed(vec![message(7, 1, vec![b'x'; 50])], options());
    let foreign = std::fs::read(beside(&only_segment(other.path()))).unwrap();
    let torn = whole[..whole.len() / 2].to_vec();
    for wrong in [foreign, torn, Vec::new(), vec![0; whole.len()]] {
        std::fs::write(&index, &wrong).unwrap();
        assert_eq!(found(directory.path()).1, 0);
    }
    // A segment that has grown since, too.
    let mut octets = std::fs::read(&path).unwrap();
    octets.extend_from_slice(b"?");
    std::fs::write(&path, octets).unwrap();
    let recovered = recover(directory.path()).unwrap();
    let end = end(places.last().unwrap());
    assert_eq!((recovered.indexed, damage_of(&recovered)), (0, vec![(end, true)]));
}

#[test]
fn the_index_of_a_segment_that_has_gone_goes_too() {
    let (directory, _) = write_indexed(full_of_news(), options());
    std::fs::remove_file(only_segment(directory.path())).unwrap();
    assert!(recover(directory.path()).unwrap().messages.is_empty());
    assert!(list(directory.path()).unwrap().indexes.is_empty());
}

/// A message whose last octets the disk has lost, at the end of a segment that was closed: that it was whole once is known.
#[test]
fn damage_at_the_end_of_what_was_flushed_is_no_interrupted_write() {
    let (directory, places) = write_indexed(vec![message(1, 1, vec![b'x'; 50])], options());
    let path = only_segment(directory.path());
    flip(&path, body(&places[0]));
    // By the index it waits, and is found out when it is read.
    assert_eq!(ids_of(&found(directory.path()).0), [1]);
    let segment = list(directory.path()).unwrap().segments[&1].clone();
    assert!(Stored::open(&segment, places[0]).is_err());
    // Where the entries of the index are damaged, too, its beginning still says how much was flushed.
    let index = beside(&path);
    flip(&index, std::fs::metadata(&index).unwrap().len() - 1);
    let recovered = recover(directory.path()).unwrap();
    assert!(recovered.unreadable.contains_key(&MessageId(1)) && recovered.keep.contains(&1));
    assert!(!recovered.damage[0].1.tail);
    // So is an end that is missing.
    let size = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size - 60)
        .unwrap();
    let recovered = recover(directory.path()).unwrap();
    assert!(recovered.damage.len() == 2 && recovered.damage.iter().all(|(_, damage)| !damage.tail));
    assert_eq!(recovered.damage[1].1.offset + recovered.damage[1].1.length, size);
}

/// A copy whose sectors the disk has lost since its segment was closed.
#[test]
fn a_copy_that_only_an_index_knows_does_not_overrule_what_can_be_read() {
    for (damaged, good) in [(0, 1), (1, 0)] {
        let records = vec![message(1, 1, vec![b'x'; 50]), message(1, 1, vec![b'x'; 50])];
        let (directory, places) = write_indexed(records, options());
        flip(&only_segment(directory.path()), body(&places[damaged]));
        let (found, indexed) = found(directory.path());
        assert_eq!((found[0].1.location, indexed), (places[good], 1));
    }
}

#[test]
fn damage_that_was_found_is_looked_for_at_the_next_start() {
    let (directory, places) = write_indexed(
        vec![message(1, 1, vec![b'x'; 50]), message(2, 1, vec![b'y'; 50])],
        options(),
    );
    let path = only_segment(directory.path());
    let mut octets = std::fs::read(&path).unwrap();
    let last = octets.iter().rposition(|octet| *octet == b'y').unwrap();
    octets[last] = b'z';
    std::fs::write(&path, octets).unwrap();
    assert_eq!(found(directory.path()).1, 1);
    forget_entries(&mut Directory::open(directory.path()).unwrap(), &path);
    for _ in 0..2 {
        let recovered = recover(directory.path()).unwrap();
        // At the end of the segment, and no write that was interrupted.
        let there = vec![(places[1].offset, false)];
        assert_eq!((recovered.indexed, damage_of(&recovered)), (0, there));
        assert!(recovered.keep.contains(&places[1].segment));
        assert!(recovered.unreadable.contains_key(&MessageId(2)));
    }
}
