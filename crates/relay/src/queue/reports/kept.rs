//! What is collected for reports: content by period and domain, in memory and, a minute behind, in one small file that is replaced as
//! a whole. A crash costs that minute; a report that counts a little less than there was is none the worse.
//!
//! Everything is bounded, since strangers choose what is in it: whoever sends mail in the name of many domains, from
//! many addresses, fills his rows and no disk. The bounds of one domain are those of its [`Content`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::reputation::Key;

/// Periods after which what could not be sent is forgotten.
const PERIODS: u64 = 3;
/// Tries to look up what a report needs.
const TRIES: u32 = 5;
/// Domains that are named where observations found no room.
const NAMED: usize = 10;
/// Octets of the file; a larger one is not ours.
const MAX_FILE: u64 = 128 << 20;

/// What is kept cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct KeptError {
    path: PathBuf,
    reason: String,
}

/// What is collected about one domain in one period.
pub trait Content: Serialize + DeserializeOwned + Send + 'static {
    /// Name of the file.
    const FILE: &'static str;
    /// Domains reported on in one period.
    const DOMAINS: usize;
}

/// Observations of all periods. Cheap to clone.
pub struct Kept<C> {
    directory: PathBuf,
    interval: u64,
    state: Arc<Mutex<State<C>>>,
    /// One write at a time.
    writing: Arc<Mutex<()>>,
}

impl<C> Clone for Kept<C> {
    fn clone(&self) -> Self {
        Self {
            directory: self.directory.clone(),
            interval: self.interval,
            state: self.state.clone(),
            writing: self.writing.clone(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct State<C> {
    /// By their first second since 1970.
    periods: BTreeMap<u64, Period<C>>,
    #[serde(skip)]
    changed: bool,
}

impl<C> Default for State<C> {
    fn default() -> Self {
        Self {
            periods: BTreeMap::new(),
            changed: false,
        }
    }
}

/// One period.
#[derive(Serialize, Deserialize)]
pub struct Period<C> {
    domains: BTreeMap<String, Waiting<C>>,
    /// Domains whose report was made; nothing is collected for them any more.
    done: BTreeSet<String>,
    /// Octets that were collected, where the content counts them.
    #[serde(default)]
    pub octets: u64,
    /// Reports that went somewhere, by where to.
    #[serde(default)]
    sent: HashMap<Key, u32>,
    #[serde(default)]
    dropped: Dropped,
}

/// Observations that found no room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many of the first domains.
    pub named: BTreeMap<String, u64>,
    /// How many of others.
    pub others: u64,
}

impl Dropped {
    fn add(&mut self, domain: &str) {
        if let Some(count) = self.named.get_mut(domain) {
            *count += 1;
        } else if self.named.len() < NAMED {
            self.named.insert(domain.to_owned(), 1);
        } else {
            self.others += 1;
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self
            .named
            .iter()
            .map(|(domain, count)| format!("{count} of {domain}"));
        let others = (self.others > 0).then(|| format!("{} of others", self.others));
        f.write_str(&named.chain(others).collect::<Vec<_>>().join(", "))
    }
}

impl<C> Default for Period<C> {
    fn default() -> Self {
        Self {
            domains: BTreeMap::new(),
            done: BTreeSet::new(),
            octets: 0,
            sent: HashMap::new(),
            dropped: Dropped::default(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Waiting<C> {
    #[serde(flatten)]
    content: C,
    tries: u32,
    /// Not before this second.
    after: u64,
}

/// A report that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Due<C> {
    /// Whom it is about.
    pub domain: String,
    /// First second of its period.
    pub begin: u64,
    /// First second after it.
    pub end: u64,
    /// What was seen.
    pub content: C,
    tries: u32,
}

impl<C: Content> Kept<C> {
    /// With what lies in `directory`, in periods of `interval` seconds. What cannot be read is lost, and the error says so.
    pub fn open(directory: &Path, interval: u64) -> (Self, Option<KeptError>) {
        let (state, error) = match read(&directory.join(C::FILE)) {
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

    /// Seconds of a period.
    pub(super) fn interval(&self) -> u64 {
        self.interval
    }

    /// Adds to the period of `now`.
    pub(super) fn add(&self, now: u64, add: impl FnOnce(&mut Period<C>)) {
        let begin = now - now % self.interval;
        let mut state = self.state();
        state.changed = true;
        add(state.periods.entry(begin).or_default());
    }

    /// Takes the reports whose time has come; for them nothing is collected any more. Each domain has its own time in the
    /// first quarter of the next period, so that not all reports leave at once.
    pub fn take_due(&self, now: u64) -> Vec<Due<C>> {
        let mut taken = Vec::new();
        let mut state = self.state();
        let oldest = now.saturating_sub(self.interval.saturating_mul(PERIODS));
        let before = state.periods.len();
        state.periods.retain(|begin, _| *begin >= oldest);
        for (begin, period) in &mut state.periods {
            let end = begin.saturating_add(self.interval);
            let is_due = |domain: &str, waiting: &Waiting<C>| {
                let offset = u64::from(crc32fast::hash(domain.as_bytes())) % (self.interval / 4).max(1);
                now >= end.saturating_add(offset).max(waiting.after)
            };
            let due: Vec<String> = period
                .domains
                .iter()
                .filter(|(domain, waiting)| is_due(domain, waiting))
                .map(|(domain, _)| domain.clone())
                .collect();
            for domain in due {
                if let Some(waiting) = period.domains.remove(&domain) {
                    period.done.insert(domain.clone());
                    taken.push(Due {
                        domain,
                        begin: *begin,
                        end,
                        content: waiting.content,
                        tries: waiting.tries,
                    });
                }
            }
        }
        state.changed |= !taken.is_empty() || state.periods.len() != before;
        taken
    }

    /// What found no room in periods that are over, by their first second; once.
    pub fn take_dropped(&self, now: u64) -> Vec<(u64, Dropped)> {
        let mut state = self.state();
        let over = state.periods.iter_mut().filter(|(begin, period)| {
            begin.saturating_add(self.interval) <= now && period.dropped != Dropped::default()
        });
        let taken: Vec<_> = over
            .map(|(begin, period)| (*begin, std::mem::take(&mut period.dropped)))
            .collect();
        state.changed |= !taken.is_empty();
        taken
    }

    /// Counts one report of the period that begins then against all of `bounds`: where to, and how many may go there. If one is
    /// reached nothing is counted, and the answer is that bound.
    pub(super) fn may_send(&self, begin: u64, bounds: &[(Key, u32)]) -> Result<(), u32> {
        let mut state = self.state();
        let sent = &mut state.periods.entry(begin).or_default().sent;
        let count = |sent: &HashMap<Key, u32>, key| sent.get(key).copied().unwrap_or(0);
        if let Some((_, most)) = bounds.iter().find(|(key, most)| count(sent, key) >= *most) {
            return Err(*most);
        }
        for (key, _) in bounds {
            *sent.entry(*key).or_default() += 1;
        }
        state.changed = true;
        Ok(())
    }

    /// For a report that nobody could be asked about; after some tries it is given up, and the answer is false.
    pub fn put_back(&self, due: Due<C>, now: u64) -> bool {
        let waiting = Waiting {
            content: due.content,
            tries: due.tries + 1,
            after: now + self.interval / 24,
        };
        let mut state = self.state();
        if let Some(period) = state.periods.get_mut(&due.begin)
            && waiting.tries < TRIES
        {
            period.done.remove(&due.domain);
            period.domains.insert(due.domain, waiting);
            state.changed = true;
            return true;
        }
        false
    }

    /// Makes it durable, where there is something new. Blocks.
    pub fn write(&self) -> Result<(), KeptError> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let error = |reason: &dyn std::fmt::Display| KeptError {
            path: self.directory.join(C::FILE),
            reason: reason.to_string(),
        };
        let octets = {
            let mut state = self.state();
            if !std::mem::take(&mut state.changed) {
                return Ok(());
            }
            serde_json::to_vec(&*state).map_err(|reason| error(&reason))?
        };
        durable::replace(&self.directory.join(C::FILE), &octets).map_err(|reason| {
            self.state().changed = true;
            error(&reason)
        })
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Content> Period<C> {
    /// What is collected of each domain.
    pub(super) fn contents(&self) -> impl Iterator<Item = &C> {
        self.domains.values().map(|waiting| &waiting.content)
    }

    /// What is collected of this domain, if anything.
    pub(super) fn get(&self, domain: &str) -> Option<&C> {
        self.domains.get(domain).map(|waiting| &waiting.content)
    }

    /// An observation about this domain found no room.
    pub(super) fn drop_one(&mut self, domain: &str) {
        self.dropped.add(domain);
    }

    /// What is collected of this domain, `new` if it is the first; none where there is no room, or its report was made.
    pub(super) fn of(&mut self, domain: &str, new: impl FnOnce() -> C) -> Option<&mut C> {
        // It will stand in header fields and file names; who publishes other names gets no reports.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if domain.is_empty() || !domain.chars().all(is_plain) {
            return None;
        }
        let full = self.domains.len() + self.done.len() >= C::DOMAINS;
        if self.done.contains(domain) {
            return None;
        }
        if full && !self.domains.contains_key(domain) {
            self.drop_one(domain);
            return None;
        }
        let waiting = self.domains.entry(domain.to_owned());
        let waiting = waiting.or_insert_with(|| Waiting {
            content: new(),
            tries: 0,
            after: 0,
        });
        Some(&mut waiting.content)
    }
}

fn read<C: Content>(path: &Path) -> Result<State<C>, KeptError> {
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
