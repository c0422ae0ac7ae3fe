//! Goes through the crash points of a run.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;

use crate::ledger::{Findings, Ledger};
use crate::log::{Entry, Log, Note, Op};
use crate::model::{Files, Model};
use crate::workload::{record, record_holding, record_on, scratch};

/// Disks built for each crash point.
const DISKS: u64 = 3;
/// One disk in so many is started on again and cut off again.
const SECOND: u64 = 60;

/// What to look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// This crash point only.
    pub(crate) only: Option<u64>,
}

/// What was looked at.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) points: u64,
    pub(crate) disks: u64,
    /// Crash points after a second start.
    pub(crate) second: u64,
    /// Messages, once each.
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) kills: u64,
    pub(crate) carried: u64,
    /// Verdicts over messages in the hold.
    pub(crate) judged: u64,
    pub(crate) removed: u64,
    pub(crate) lost: usize,
    pub(crate) altered: usize,
    pub(crate) redelivered: usize,
    pub(crate) untold: usize,
    pub(crate) wrong: usize,
    pub(crate) allowed: u64,
    /// Segments that were read by their index.
    pub(crate) indexed: u64,
    pub(crate) failures: Vec<String>,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} crash points and {} second ones, {} disks, {} acknowledged messages: {} lost, {} altered, {} redelivered \
             after a durable outcome, {} given up untold, {} otherwise wrong; {} allowed duplicates; {} segments read by index",
            self.points,
            self.second,
            self.disks,
            self.acknowledged,
            self.lost,
            self.altered,
            self.redelivered,
            self.untold,
            self.wrong,
            self.allowed,
            self.indexed
        )
    }
}

impl Totals {
    fn add(&mut self, findings: &Findings, replay: &str) {
        self.disks += 1;
        self.lost += findings.lost.len();
        self.altered += findings.altered.len();
        self.redelivered += findings.redelivered.len();
        self.untold += findings.untold.len();
        self.wrong += findings.wrong.len();
        self.allowed += findings.allowed;
        self.indexed += findings.indexed;
        let faults = findings.faults().into_iter();
        self.failures
            .extend(faults.map(|fault| format!("{replay}: {fault}")));
    }
}

/// Records the run of a seed and looks at its crash points.
pub(crate) fn examine(plan: &Plan, totals: &mut Totals) {
    // Mail that is held makes other runs of it.
    let log = if plan.seed.is_multiple_of(2) {
        record(plan.seed)
    } else {
        record_holding(plan.seed)
    };
    let is_note =
        |wanted: fn(&Note) -> bool| move |entry: &Entry| matches!(entry, Entry::Note(note) if wanted(note));
    totals.kills += log.count(is_note(|note| matches!(note, Note::Killed)));
    totals.judged += log.count(is_note(|note| matches!(note, Note::Judged(..))));
    totals.carried += log.count(is_note(|note| matches!(note, Note::Carrying(_))));
    totals.removed += log.count(|entry| matches!(entry, Entry::Op(Op::Remove { .. })));
    totals.refused += log.count(is_note(|note| matches!(note, Note::Offered(..))))
        - log.count(is_note(|note| matches!(note, Note::Acknowledged(_))));
    let place = scratch();
    let ledger = through(&log, &Ledger::default(), |point, model, ledger| {
        if plan.only.is_some_and(|only| only != point) {
            return;
        }
        totals.points += 1;
        for disk in 0..DISKS {
            let mut rng = Rng::with_seed(plan.seed << 32 ^ point << 8 ^ disk);
            let replay = format!(
                "seed {} crash point {point} disk {disk} (replay: PROOF_SEED={} PROOF_POINT={point})",
                plan.seed, plan.seed
            );
            let files = model.disk(&mut rng);
            lay_out(&files, place.path());
            // One of the disks by the indexes first, and then by the octets.
            let findings = if disk == 0 {
                ledger.check_twice(place.path())
            } else {
                ledger.check(place.path())
            };
            totals.add(&findings, &replay);
            if rng.u64(..SECOND) == 0 {
                again(files, place.path(), ledger, &mut rng, &replay, totals);
            }
        }
    });
    totals.acknowledged += ledger.acknowledged();
}

/// A second process starts on what the first left, and a power cut ends it, too.
fn again(files: Files, place: &Path, ledger: &Ledger, rng: &mut Rng, replay: &str, totals: &mut Totals) {
    // The recovery that was looked at may have taken files away.
    lay_out(&files, place);
    let log = record_on(place, files.into_iter().collect(), ledger, rng);
    let every = 1 + log.entries.len() as u64 / 12;
    through(&log, ledger, |point, model, ledger| {
        if point % every == 0 {
            totals.second += 1;
            lay_out(&model.disk(rng), place);
            totals.add(
                &ledger.check(place),
                &format!("{replay}, second crash point {point}"),
            );
        }
    });
}

/// Calls `at` before the first operation, after each, and after each promise. Returns what was promised in the end.
pub(crate) fn through(log: &Log, before: &Ledger, mut at: impl FnMut(u64, &Model, &Ledger)) -> Ledger {
    let (mut model, mut ledger, mut point) = (Model::new(log), before.clone(), 0);
    at(point, &model, &ledger);
    for entry in &log.entries {
        match entry {
            Entry::Op(op) => model.apply(op),
            Entry::Note(note) => ledger.apply(note),
        }
        let promise = |note: &Note| {
            matches!(
                note,
                Note::Acknowledged(_) | Note::Recorded(..) | Note::Judged(..)
            )
        };
        if !matches!(entry, Entry::Note(note) if !promise(note)) {
            point += 1;
            at(point, &model, &ledger);
        }
    }
    ledger
}

/// Makes the directory hold these files and no others.
pub(crate) fn lay_out(files: &Files, place: &Path) {
    for entry in std::fs::read_dir(place).unwrap() {
        let entry = entry.unwrap();
        if !files.contains_key(&*entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    for (name, octets) in files {
        write(&place.join(name), octets);
    }
}

fn write(path: &Path, octets: &Arc<Vec<u8>>) {
    std::fs::write(path, &**octets).unwrap();
}
