//! What is collected for reports: rows by period and domain, in memory and, a minute behind, in one small file that is replaced as
//! a whole. A crash costs that minute; a report that counts a little less than there was is none the worse.
//!
//! Everything is bounded, since strangers choose what is in it: whoever sends mail in the name of many domains, from
//! many addresses, fills his rows and no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mail_auth::report::{PolicyPublished, Record};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::reports::{BATCH, Batch, Seen};

/// Domains reported on in one period.
const DOMAINS: usize = 1000;
/// Rows of one domain.
const ROWS: usize = 500;
/// Rows of all domains in one period.
const ALL_ROWS: usize = 10_000;
/// Periods after which what could not be sent is forgotten.
const PERIODS: u64 = 3;
/// Tries to look up what a report needs.
const TRIES: u32 = 5;
/// Octets of the file; a larger one is not ours.
const MAX_FILE: u64 = 128 << 20;
const NAME: &str = "dmarc.json";

/// What is kept cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct KeptError {
    path: PathBuf,
    reason: String,
}

/// Observations of all periods. Cheap to clone.
#[derive(Clone)]
pub struct Kept {
    directory: PathBuf,
    interval: u64,
    state: Arc<Mutex<State>>,
    /// One write at a time.
    writing: Arc<Mutex<()>>,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    /// By their first second since 1970.
    periods: BTreeMap<u64, Period>,
    #[serde(skip)]
    changed: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Period {
    domains: BTreeMap<String, Content>,
    /// Domains whose report was made; nothing is collected for them any more.
    done: BTreeSet<String>,
}

/// What was seen of one domain in one period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// The newest that was applied.
    pub policy: PolicyPublished,
    /// With their counts.
    pub rows: Vec<Record>,
    /// Messages that found no row.
    pub dropped: u64,
    tries: u32,
    /// Not before this second.
    after: u64,
}

/// A report that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// Whom it is about.
    pub domain: String,
    /// First second of its period.
    pub begin: u64,
    /// First second after it.
    pub end: u64,
    /// What was seen.
    pub content: Content,
}

impl Kept {
    /// With what lies in `directory`, in periods of `interval` seconds. What cannot be read is lost, and the error says so.
    pub fn open(directory: &Path, interval: u64) -> (Self, Option<KeptError>) {
        let (state, error) = match read(&directory.join(NAME)) {
            Ok(state) => (state, None),
            Err(error) => (State::default(), Some(error)),
        };
        let kept = Self {
            directory: directory.to_owned(),
            interval,
            state: Arc::new(Mutex::new(state)),
            writing: Arc::default(),
        };
        (kept, error)
    }

    /// Adds what was seen at `now`.
    pub fn note(&self, batch: Batch, now: u64) {
        let begin = now - now % self.interval;
        let mut state = self.state();
        state.changed = true;
        let period = state.periods.entry(begin).or_default();
        for seen in batch.seen.into_iter().take(BATCH) {
            period.add(seen.bounded());
        }
    }

    /// Takes the reports whose time has come; for them nothing is collected any more. Each domain has its own time in the
    /// first quarter of the next period, so that not all reports leave at once.
    pub fn take_due(&self, now: u64) -> Vec<Due> {
        let mut taken = Vec::new();
        let mut state = self.state();
        let oldest = now.saturating_sub(self.interval.saturating_mul(PERIODS));
        let before = state.periods.len();
        state.periods.retain(|begin, _| *begin >= oldest);
        for (begin, period) in &mut state.periods {
            let end = begin.saturating_add(self.interval);
            let is_due = |domain: &str, content: &Content| {
                let offset = u64::from(crc32fast::hash(domain.as_bytes())) % (self.interval / 4).max(1);
                now >= end.saturating_add(offset).max(content.after)
            };
            let due: Vec<String> = period
                .domains
                .iter()
                .filter(|(domain, content)| is_due(domain, content))
                .map(|(domain, _)| domain.clone())
                .collect();
            for domain in due {
                if let Some(content) = period.domains.remove(&domain) {
                    period.done.insert(domain.clone());
                    taken.push(Due {
                        domain,
                        begin: *begin,
                        end,
                        content,
                    });
                }
            }
        }
        state.changed |= !taken.is_empty() || state.periods.len() != before;
        taken
    }

    /// For a report that nobody could be asked about; after some tries it is given up, and the answer is false.
    pub fn put_back(&self, mut due: Due, now: u64) -> bool {
        due.content.tries += 1;
        due.content.after = now + self.interval / 24;
        let mut state = self.state();
        if let Some(period) = state.periods.get_mut(&due.begin)
            && due.content.tries < TRIES
        {
            period.done.remove(&due.domain);
            period.domains.insert(due.domain, due.content);
            state.changed = true;
            return true;
        }
        false
    }

    /// Makes it durable, where there is something new. Blocks.
    pub fn write(&self) -> Result<(), KeptError> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let error = |reason: &dyn std::fmt::Display| KeptError {
            path: self.directory.join(NAME),
            reason: reason.to_string(),
        };
        let octets = {
            let mut state = self.state();
            if !std::mem::take(&mut state.changed) {
                return Ok(());
            }
            serde_json::to_vec(&*state).map_err(|reason| error(&reason))?
        };
        durable::replace(&self.directory.join(NAME), &octets).map_err(|reason| {
            self.state().changed = true;
            error(&reason)
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Period {
    fn add(&mut self, seen: Seen) {
        let Seen { policy, record } = seen;
        // It will stand in header fields and file names; who publishes other names gets no reports.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if policy.domain.is_empty() || !policy.domain.chars().all(is_plain) {
            return;
        }
        let known = self.domains.contains_key(&policy.domain);
        if self.done.contains(&policy.domain) || !known && self.domains.len() + self.done.len() >= DOMAINS {
            return;
        }
        let rows: usize = self.domains.values().map(|content| content.rows.len()).sum();
        let content = self
            .domains
            .entry(policy.domain.clone())
            .or_insert_with(|| Content {
                policy: policy.clone(),
                rows: Vec::new(),
                dropped: 0,
                tries: 0,
                after: 0,
            });
        content.policy = policy;
        let same = |row: &&mut Record| {
            row.row.source_ip == record.row.source_ip
                && row.row.policy_evaluated == record.row.policy_evaluated
                && row.identifiers == record.identifiers
                && row.auth_results == record.auth_results
        };
        let has_room = content.rows.len() < ROWS && rows < ALL_ROWS;
        match content.rows.iter_mut().find(same) {
            Some(row) => row.row.count = row.row.count.saturating_add(1),
            None if has_room => content.rows.push(record.with_count(1)),
            None => content.dropped += 1,
        }
    }
}

fn read(path: &Path) -> Result<State, KeptError> {
    let error = |reason: String| KeptError {
        path: path.to_owned(),
        reason,
    };
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => return Ok(State::default()),
        Err(reason) => return Err(error(reason.to_string())),
    };
    if size > MAX_FILE {
        return Err(error(format!("{size} octets are more than was ever written")));
    }
    let octets = std::fs::read(path).map_err(|reason| error(reason.to_string()))?;
    serde_json::from_slice(&octets).map_err(|reason| error(reason.to_string()))
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
