//! Policies kept over restarts: one small JSON file, replaced as a whole, so that it is always the old one or the new one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use crate::durable;

/// Domains whose policies are kept; beyond that those go that run out first.
const MAX_POLICIES: usize = 4096;
/// Octets of the file; a larger one is not ours.
const MAX_FILE: u64 = 128 << 20;
const NAME: &str = "policies.json";

/// A policy as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// That of the TXT record.
    pub id: String,
    /// Milliseconds since 1970.
    pub fetched: u64,
    /// What was fetched.
    pub policy: Policy,
}

impl Kept {
    fn ends(&self) -> u64 {
        self.fetched
            .saturating_add(self.policy.max_age.saturating_mul(1000))
    }

    /// Whether half of its time is over.
    pub fn is_old(&self, now: u64) -> bool {
        now.saturating_sub(self.fetched) >= self.policy.max_age.saturating_mul(500)
    }
}

/// The kept policies cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct StoreError {
    path: PathBuf,
    reason: String,
}

/// The kept policies.
#[derive(Clone)]
pub struct Store {
    directory: PathBuf,
    policies: Arc<Mutex<BTreeMap<String, Kept>>>,
    /// One write at a time, the newest state last.
    writing: Arc<Mutex<()>>,
}

impl Store {
    /// With what lies in `directory`. What cannot be read is lost, and the error says so: policies are fetched again.
    pub fn open(directory: &Path) -> (Self, Option<StoreError>) {
        let (policies, error) = match read(&directory.join(NAME)) {
            Ok(policies) => (policies, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        let store = Self {
            directory: directory.to_owned(),
            policies: Arc::new(Mutex::new(policies)),
            writing: Arc::default(),
        };
        (store, error)
    }

    /// The policy of `domain`, unless its time is over.
    pub fn get(&self, domain: &str, now: u64) -> Option<Kept> {
        self.policies()
            .get(domain)
            .filter(|kept| kept.ends() > now)
            .cloned()
    }

    /// Policies in force of which half the time is over.
    pub fn old(&self, now: u64) -> Vec<(String, Kept)> {
        let in_force = |(_, kept): &(&String, &Kept)| kept.ends() > now && kept.is_old(now);
        let policies = self.policies();
        let old = policies.iter().filter(in_force);
        old.map(|(domain, kept)| (domain.clone(), kept.clone())).collect()
    }

    /// Keeps a policy; it counts at once, and is durable where there is no error.
    pub async fn put(&self, domain: &str, kept: Kept) -> Result<(), StoreError> {
        let now = kept.fetched;
        {
            let mut policies = self.policies();
            policies.insert(domain.to_owned(), kept);
            policies.retain(|_, kept| kept.ends() > now);
            while policies.len() > MAX_POLICIES {
                let first = policies.iter().min_by_key(|(_, kept)| kept.ends());
                let Some(first) = first.map(|(domain, _)| domain.clone()) else {
                    break;
                };
                policies.remove(&first);
            }
        }
        let store = self.clone();
        let written = tokio::task::spawn_blocking(move || store.write()).await;
        written.unwrap_or_else(|error| Err(self.error(&error)))
    }

    fn write(&self) -> Result<(), StoreError> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let octets = serde_json::to_vec(&*self.policies()).map_err(|error| self.error(&error))?;
        durable::replace(&self.directory.join(NAME), &octets).map_err(|error| self.error(&error))
    }

    fn error(&self, reason: &dyn std::fmt::Display) -> StoreError {
        StoreError {
            path: self.directory.join(NAME),
            reason: reason.to_string(),
        }
    }

    fn policies(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, Kept>, StoreError> {
    let error = |reason: String| StoreError {
        path: path.to_owned(),
        reason,
    };
    let octets = match std::fs::metadata(path) {
        Ok(found) if found.len() > MAX_FILE => return Err(error("too large to be ours".into())),
        Ok(_) => std::fs::read(path).map_err(|e| error(e.to_string()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(error(e.to_string())),
    };
    serde_json::from_slice(&octets).map_err(|e| error(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::policy::Mode;
    use super::*;

    fn kept(fetched: u64, max_age: u64) -> Kept {
        let policy = Policy {
            mode: Mode::Enforce,
            max_age,
            hosts: vec!["mx.example".into()],
        };
        Kept {
            id: "a".into(),
            fetched,
            policy,
        }
    }

    #[tokio::test]
    async fn policies_outlive_the_process_but_not_their_time() {
        let directory = tempfile::tempdir().unwrap();
        let (store, error) = Store::open(directory.path());
        assert!(error.is_none());
        store.put("d.example", kept(1000, 10)).await.unwrap();
        let (again, error) = Store::open(directory.path());
        assert!(error.is_none());
        assert_eq!(again.get("d.example", 10_999), Some(kept(1000, 10)));
        assert_eq!(again.get("d.example", 11_000), None);
        assert!(again.old(5_999).is_empty() && again.old(11_000).is_empty());
        assert_eq!(again.old(6_000), [("d.example".into(), kept(1000, 10))]);
    }

    #[tokio::test]
    async fn there_is_a_bound_and_the_first_to_run_out_goes() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(directory.path());
        let many = (0..MAX_POLICIES).map(|n| (format!("d{n}.example"), kept(0, 100 + n as u64)));
        store.policies().extend(many);
        store.put("new.example", kept(0, 1000)).await.unwrap();
        assert_eq!(store.policies().len(), MAX_POLICIES);
        assert!(store.get("d0.example", 1).is_none());
        assert!(store.get("d1.example", 1).is_some() && store.get("new.example", 1).is_some());
    }

    #[test]
    fn a_damaged_file_is_said_and_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(NAME), "{\"d.example\":").unwrap();
        let (store, error) = Store::open(directory.path());
        assert!(error.unwrap().to_string().contains("policies.json: EOF"));
        assert!(store.get("d.example", 0).is_none());
    }
}
