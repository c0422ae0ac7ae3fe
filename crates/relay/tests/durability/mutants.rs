//! The proof can fail: each protection that is taken away is missed by it. It is taken away at the seam, out of what was
//! recorded or below the running spool, and not in the product.

use std::sync::Arc;

use fastrand::Rng;
use postern_relay::spool::index::{Index, Sealed, beside};
use postern_relay::spool::record::{HEADER, Header, TRAILER, trailer};

use crate::ledger::{Findings, Ledger};
use crate::log::{Entry, Log, Note, Op};
use crate::model::Files;
use crate::proof::{lay_out, through};
use crate::workload::{record, record_holding, record_roll_over, record_unflushed, scratch};

/// Looks at the runs of some seeds until the `wanted` kind of fault is found.
fn caught(
    log_of: impl Fn(Log) -> Log,
    spoil: impl Fn(&mut Files),
    wanted: impl Fn(&Findings) -> usize,
) -> bool {
    caught_in(|seed| log_of(record(seed)), spoil, wanted)
}

fn caught_in(
    run: impl Fn(u64) -> Log,
    spoil: impl Fn(&mut Files),
    wanted: impl Fn(&Findings) -> usize,
) -> bool {
    let place = scratch();
    (1..=40).any(|seed| {
        let log = run(seed);
        let mut found = 0;
        through(&log, &Ledger::default(), |point, model, ledger| {
            if found == 0 {
                let mut files = model.disk(&mut Rng::with_seed(seed << 32 ^ point));
                spoil(&mut files);
                lay_out(&files, place.path());
                found = wanted(&ledger.check(place.path()));
            }
        });
        found > 0
    })
}

/// The log without some operations, by their index.
fn without(mut log: Log, drop: impl Fn(&[Entry], usize, &Op) -> bool) -> Log {
    let entries = &log.entries;
    let kept = entries.iter().enumerate().filter(|(index, entry)| match entry {
        Entry::Op(op) => !drop(entries, *index, op),
        Entry::Note(_) => true,
    });
    log.entries = kept.map(|(_, entry)| entry.clone()).collect();
    log
}

fn same(log: Log) -> Log {
    log
}

fn intact(_: &mut Files) {}

#[test]
fn a_missing_flush_before_the_acknowledgement_is_caught() {
    let drop = |_: &[Entry], _, op: &Op| matches!(op, Op::Flush { .. });
    assert!(caught(|log| without(log, drop), intact, |found| found.lost.len()));
    assert!(caught(
        |log| without(log, drop),
        intact,
        |found| found.redelivered.len()
    ));
}

/// Here the spool itself runs on such a disk, and acknowledges all the same.
#[test]
fn a_flush_that_does_nothing_is_caught() {
    assert!(caught_in(record_unflushed, intact, |found| found.lost.len()));
}

#[test]
fn a_segment_whose_name_is_not_flushed_is_caught() {
    let drop = |entries: &[Entry], index: usize, op: &Op| {
        matches!(op, Op::SyncDirectory)
            && matches!(
                entries.get(index.wrapping_sub(1)),
                Some(Entry::Op(Op::Create { .. }))
            )
    };
    assert!(caught(|log| without(log, drop), intact, |found| found.lost.len()));
}

/// Puts the removal of a segment, with its flush, to where its messages began to be carried over.
fn removed_too_early(mut log: Log) -> Log {
    let entries = &mut log.entries;
    for carrying in 0..entries.len() {
        let Entry::Note(Note::Carrying(segment)) = entries[carrying] else {
            continue;
        };
        let of_it = |entry: &Entry| matches!(entry, Entry::Op(Op::Remove { name }) if name.starts_with(&format!("{segment:016x}-")));
        if let Some(ahead) = entries[carrying..].iter().position(of_it) {
            let removal = entries.remove(carrying + ahead);
            entries.insert(carrying, Entry::Op(Op::SyncDirectory));
            entries.insert(carrying, removal);
        }
    }
    log
}

#[test]
fn a_segment_that_goes_before_its_copies_are_flushed_is_caught() {
    assert!(caught(removed_too_early, intact, |found| found.lost.len()));
}

/// A batch that goes on in the next segment: nobody but its own requests knows of what the first one holds.
#[test]
fn a_segment_that_goes_before_the_schedule_knows_its_messages_is_caught() {
    let lost = |protects| {
        let run = |seed| record_roll_over(seed, protects);
        caught_in(run, intact, |found| found.lost.len())
    };
    assert!(lost(false));
    assert!(!lost(true));
}

/// Makes of all indexes such as they were one record earlier, and lets them fit their segments: to the real recovery as if
/// it compared neither lengths nor checksums.
fn stale_indexes(files: &mut Files) {
    for (name, octets) in files {
        let salt = name.strip_suffix(".index").and_then(|name| name.split_once('-'));
        let Some(salt) = salt.and_then(|(_, salt)| u64::from_str_radix(salt, 16).ok()) else {
            continue;
        };
        let mut entries = entries(octets);
        let Some((last, _)) = entries.pop() else { continue };
        let mut index = Index::new(salt);
        let records = entries.len();
        for (number, (mut header, summary)) in entries.into_iter().enumerate() {
            if number + 1 == records {
                header.body_length += last.record_length();
            }
            index.add(&header, &summary);
        }
        *octets = Arc::new(index.finish());
    }
}

/// The entries of an index that is whole.
fn entries(octets: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let directory = scratch();
    let segment = directory.path().join("x.segment");
    std::fs::write(beside(&segment), octets).unwrap();
    let salt = octets
        .get(8..16)
        .map(|salt| u64::from_le_bytes(salt.try_into().unwrap()));
    let sealed = Sealed::read(&segment, salt.unwrap_or_default());
    let records = sealed.as_ref().and_then(|sealed| sealed.records(1));
    let records = records.into_iter().flatten();
    records
        .map(|(header, _, summary)| (header, summary.to_vec()))
        .collect()
}

#[test]
fn an_index_that_is_believed_whatever_it_says_is_caught() {
    assert!(caught(same, stale_indexes, |found| found.lost.len()));
    assert!(caught(same, stale_indexes, |found| found.redelivered.len()));
}

/// Makes all checksums fit what is there: to the real recovery as if it checked none.
fn forge(files: &mut Files) {
    for (name, octets) in files {
        let salt = name
            .strip_suffix(".segment")
            .and_then(|name| name.split_once('-'));
        let Some(salt) = salt.and_then(|(_, salt)| u64::from_str_radix(salt, 16).ok()) else {
            continue;
        };
        let octets = Arc::make_mut(octets);
        let mut at = 0;
        while let Some(header) = octets.get(at..at + HEADER)
            && let Some(header) = Header::decode(header.try_into().unwrap(), salt)
        {
            let meta = at + HEADER;
            let body = meta + header.meta_length as usize;
            let end = body + usize::try_from(header.body_length).unwrap();
            if end + TRAILER > octets.len() {
                break;
            }
            let fits = trailer(
                crc32fast::hash(&octets[meta..body]),
                crc32fast::hash(&octets[body..end]),
            );
            octets[end..end + TRAILER].copy_from_slice(&fits);
            at = end + TRAILER;
        }
    }
}

#[test]
fn checksums_that_are_not_compared_are_caught() {
    assert!(caught(same, forge, |found| found.altered.len()));
}

#[test]
fn a_recovery_that_trusts_the_page_cache_is_caught() {
    let drop = |_: &[Entry], _, op: &Op| matches!(op, Op::Settle { .. });
    // What an index still speaks of is found, and cannot be read.
    let lost = |found: &Findings| found.lost.len() + found.altered.len();
    let faults = |found: &Findings| lost(found) + found.redelivered.len() + found.untold.len();
    assert!(caught(|log| without(log, drop), intact, faults));
}

#[test]
fn a_notification_that_shares_its_flush_with_its_outcome_is_caught() {
    let drop = |entries: &[Entry], index: usize, op: &Op| {
        let before = index.checked_sub(1).map(|before| &entries[before]);
        let own = br#""provenance":"own""#;
        matches!(op, Op::Flush { .. })
            && matches!(before, Some(Entry::Op(Op::Write { octets, .. }))
                if octets.windows(own.len()).any(|part| part == own))
    };
    assert!(caught(
        |log| without(log, drop),
        intact,
        |found| found.untold.len()
    ));
}

/// As if what was held had been let go, or brought into quarantine, without a scan.
fn unjudged(mut log: Log) -> Log {
    log.entries
        .retain(|entry| !matches!(entry, Entry::Note(Note::Judging(..) | Note::Judged(..))));
    log
}

#[test]
fn a_message_that_leaves_the_hold_unscanned_is_caught() {
    let run = |seed| unjudged(record_holding(seed));
    assert!(caught_in(run, intact, |found| found.wrong.len()));
}

#[test]
fn a_verdict_that_is_not_flushed_is_caught() {
    let drop = |entries: &[Entry], index: usize, op: &Op| {
        let next = entries[index..]
            .iter()
            .find(|entry| matches!(entry, Entry::Note(_)));
        matches!(op, Op::Flush { .. }) && matches!(next, Some(Entry::Note(Note::Judged(..))))
    };
    let run = |seed| without(record_holding(seed), drop);
    assert!(caught_in(run, intact, |found| found.wrong.len()));
}
