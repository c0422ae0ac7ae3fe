//! The disks that a power cut may leave after a prefix of the operations, as POSIX allows them.
//!
//! There is all that a completed flush covers. Of everything else any part may be there or not, in any order: whole
//! writes, sectors, single octets; a file may have grown without its octets (zeros, or what the blocks held before); names
//! that were made, removed or changed since the last flush of the directory may be there, gone, or as they were.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;

use crate::log::{Log, Op};

/// Names and what their files hold.
pub(crate) type Files = BTreeMap<String, Arc<Vec<u8>>>;

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Arc<[u8]>),
    Truncate(u64),
}

#[derive(Debug, Clone)]
struct Pending {
    change: Change,
    /// A flush of it failed: no later one makes it good.
    doomed: bool,
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Arc<Vec<u8>>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
enum Entry {
    Create(String, usize),
    Remove(String),
    Rename(String, String),
}

/// What is durable after some operations, and what is not yet.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    pending: Vec<Entry>,
    /// Octets that blocks of the disk may still hold: those of a segment that has gone.
    stale: Arc<Vec<u8>>,
}

impl Model {
    pub(crate) fn new(log: &Log) -> Self {
        let file = |(_, octets): &(String, Arc<Vec<u8>>)| File {
            durable: octets.clone(),
            pending: Vec::new(),
        };
        Self {
            files: log.base.iter().map(file).collect(),
            names: log.base.iter().map(|(name, _)| name.clone()).zip(0..).collect(),
            pending: Vec::new(),
            stale: Arc::default(),
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { file, name } => {
                assert_eq!(*file, self.files.len());
                self.files.push(File::default());
                self.pending.push(Entry::Create(name.clone(), *file));
            }
            Op::Write { file, offset, octets } => self.change(*file, Change::Write(*offset, octets.clone())),
            Op::Truncate { file, length } => self.change(*file, Change::Truncate(*length)),
            Op::Flush { file } | Op::Settle { file } => self.files[*file].flush(),
            Op::FailedFlush { file } => {
                let pending = &mut self.files[*file].pending;
                for change in pending.iter_mut() {
                    change.doomed = true;
                }
            }
            Op::SyncDirectory => {
                for entry in std::mem::take(&mut self.pending) {
                    entry.apply(&mut self.names);
                }
            }
            Op::Remove { name } => {
                if let Some(file) = self.names.get(name) {
                    self.stale = self.files[*file].durable.clone();
                }
                self.pending.push(Entry::Remove(name.clone()));
            }
            Op::Rename { from, to } => self.pending.push(Entry::Rename(from.clone(), to.clone())),
        }
    }

    fn change(&mut self, file: usize, change: Change) {
        self.files[file].pending.push(Pending {
            change,
            doomed: false,
        });
    }

    /// One of the disks that a power cut may leave now.
    pub(crate) fn disk(&self, rng: &mut Rng) -> Files {
        let mut names = self.names.clone();
        let likely = [0.0, 0.5, 0.9, 1.0][rng.usize(..4)];
        for entry in &self.pending {
            if rng.f64() < likely {
                entry.apply(&mut names);
            }
        }
        let zeros = Vec::new();
        let below = if rng.u8(..4) == 0 { &*self.stale } else { &zeros };
        names
            .into_iter()
            .map(|(name, file)| (name, self.files[file].after_cut(rng, below)))
            .collect()
    }
}

impl Entry {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, octets: &mut Vec<u8>) {
        match self {
            Self::Write(offset, written) => {
                let (from, to) = (index(*offset), index(*offset) + written.len());
                octets.resize(octets.len().max(to), 0);
                octets[from..to].copy_from_slice(written);
            }
            Self::Truncate(length) => octets.truncate(index(*length)),
        }
    }

    fn from(&self) -> usize {
        match self {
            Self::Write(offset, _) => index(*offset),
            Self::Truncate(length) => index(*length),
        }
    }
}

impl File {
    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let durable = Arc::make_mut(&mut self.durable);
        let mut doomed = Vec::new();
        for pending in self.pending.drain(..) {
            match pending.change {
                _ if pending.doomed => doomed.push(pending),
                Change::Truncate(_) => {
                    doomed.clear();
                    pending.change.apply(durable);
                }
                Change::Write(..) => pending.change.apply(durable),
            }
        }
        self.pending = doomed;
    }

    fn after_cut(&self, rng: &mut Rng, below: &[u8]) -> Arc<Vec<u8>> {
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        match rng.u8(..8) {
            0 => self.durable.clone(),
            1 => self.prefix(self.pending.len(), None),
            2 | 3 => {
                // In order, and cut within the last one.
                let whole = rng.usize(..self.pending.len());
                self.prefix(whole, Some(rng.f64()))
            }
            _ => Arc::new(self.scattered(rng, below)),
        }
    }

    fn prefix(&self, whole: usize, part: Option<f64>) -> Arc<Vec<u8>> {
        let mut octets = self.durable.to_vec();
        for pending in &self.pending[..whole] {
            pending.change.apply(&mut octets);
        }
        if let Some(part) = part
            && let Change::Write(offset, written) = &self.pending[whole].change
        {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss
            )]
            let torn = (written.len() as f64 * part) as usize;
            Change::Write(*offset, written[..torn].into()).apply(&mut octets);
        }
        Arc::new(octets)
    }

    /// Each piece of the file as it was after any of the changes.
    fn scattered(&self, rng: &mut Rng, below: &[u8]) -> Vec<u8> {
        let mut versions = vec![self.durable.to_vec()];
        for pending in &self.pending {
            let mut next = versions[versions.len() - 1].clone();
            pending.change.apply(&mut next);
            versions.push(next);
        }
        let lengths = versions.iter().map(Vec::len);
        let (shortest, longest) = (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0));
        let length = match rng.u8(..4) {
            0 => versions[rng.usize(..versions.len())].len(),
            1 => rng.usize(shortest..=longest),
            _ => longest,
        };
        let first = self.pending.iter().map(|pending| pending.change.from()).min();
        let mut octets = self.durable[..first.unwrap_or(0).min(self.durable.len())].to_vec();
        let mut piece = [1, 7, 64, 512, 512, 512, 4096, 4096][rng.usize(..8)];
        if longest > 1 << 19 {
            piece = piece.max(512);
        }
        let last = [0.1, 0.5, 0.9, 0.98][rng.usize(..4)];
        octets.truncate(length);
        while octets.len() < length {
            // Pieces lie as sectors do: at multiples of their size.
            let end = length.min((octets.len() / piece + 1) * piece);
            let version = if rng.f64() < last {
                &versions[versions.len() - 1]
            } else {
                &versions[rng.usize(..versions.len())]
            };
            for at in octets.len()..end {
                let unwritten = || below.get(at).copied().unwrap_or(0);
                octets.push(version.get(at).copied().unwrap_or_else(unwritten));
            }
        }
        octets
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}
