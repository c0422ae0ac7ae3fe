//! MTA-STS: what a domain says by HTTPS about its mail hosts (RFC 8461).
//!
//! Enters: a recipient domain. Leaves: the [`Policy`] in force, if there is one. A policy is fetched when the domain's TXT record
//! has another id than what is kept, and again when half of its time is over; it is kept durably for `max_age`. Whatever fails on the
//! way keeps the policy that is there (RFC 8461 3.3, 5.1), so that who suppresses record or answer wins nothing.

pub mod fetch;
pub mod policy;
pub mod store;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::dns::{Dns, a_labels};
use super::observed::Fault;
use crate::events::{Events, unix_millis};
pub use fetch::FetchError;
use fetch::Fetcher;
use policy::Policy;
use store::{Kept, Store};

/// A domain whose policy could not be fetched is asked again after this (RFC 8461 3.3 asks for five minutes or more).
const AGAIN: Duration = Duration::from_mins(5);
/// Failures remembered; beyond that a domain may be asked sooner.
const MAX_FAILURES: usize = 4096;
/// How often policies are looked through for those that grow old.
const REFRESH: Duration = Duration::from_hours(1);

/// Knows policies.
pub struct MtaSts {
    dns: Dns,
    fetcher: Fetcher,
    store: Store,
    failures: Mutex<HashMap<String, Instant>>,
    events: Events,
}

impl MtaSts {
    /// With what was kept.
    pub fn new(dns: Dns, fetcher: Fetcher, store: Store, events: Events) -> Self {
        Self {
            dns,
            fetcher,
            store,
            failures: Mutex::default(),
            events,
        }
    }

    /// The policy in force for `domain`, and why it could not be fetched just now, if that was tried and failed.
    pub async fn policy(&self, domain: &str) -> (Option<Policy>, Option<Fault>) {
        let Some(domain) = a_labels(domain) else {
            return (None, None);
        };
        let now = now();
        let kept = self.store.get(&domain, now);
        let id = self.id(&domain).await;
        let fresh = match (&kept, &id) {
            // Without a record nothing new is to be had.
            (_, None) => true,
            (Some(kept), Some(id)) => kept.id == *id && !kept.is_old(now),
            (None, Some(_)) => false,
        };
        match id {
            Some(id) if !fresh && self.may_ask(&domain) => self.renew(&domain, id, kept).await,
            _ => (kept.map(|kept| kept.policy), None),
        }
    }

    /// The client that policies come by.
    pub fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// Fetches policies again that grow old, before they run out. Ends never.
    pub async fn refresh(&self) {
        loop {
            tokio::time::sleep(REFRESH).await;
            for (domain, kept) in self.store.old(now()) {
                if let Some(id) = self.id(&domain).await {
                    self.renew(&domain, id, Some(kept)).await;
                }
            }
        }
    }

    /// Fetches; what is kept stays where that fails.
    async fn renew(&self, domain: &str, id: String, kept: Option<Kept>) -> (Option<Policy>, Option<Fault>) {
        match self.fetcher.fetch(self.dns, domain).await {
            Ok(policy) => {
                let renewed = Kept {
                    id,
                    fetched: now(),
                    policy: policy.clone(),
                };
                if let Err(error) = self.store.put(domain, renewed).await {
                    self.events
                        .warn(format!("the MTA-STS policy of {domain} is not kept: {error}"));
                }
                (Some(policy), None)
            }
            Err(error) => {
                self.remember_failure(domain);
                self.events.warn(format!(
                    "the MTA-STS policy of {domain} cannot be fetched: {error}"
                ));
                let fault = Fault::new(error.result_type(), error.told());
                (kept.map(|kept| kept.policy), Some(fault))
            }
        }
    }

    /// The id in the domain's record (RFC 8461 3.1); exactly one record must be there.
    async fn id(&self, domain: &str) -> Option<String> {
        let name = Name::from_ascii(format!("_mta-sts.{domain}.")).ok()?;
        let answer = self.dns.ask(name, RecordType::TXT).await.ok()?;
        let texts = answer.data.iter().filter_map(|data| match data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        });
        policy::record_id(texts)
    }

    fn may_ask(&self, domain: &str) -> bool {
        let failures = self.failures();
        failures.get(domain).is_none_or(|at| at.elapsed() >= AGAIN)
    }

    fn remember_failure(&self, domain: &str) {
        let mut failures = self.failures();
        failures.retain(|_, at| at.elapsed() < AGAIN);
        if failures.len() < MAX_FAILURES {
            failures.insert(domain.to_owned(), Instant::now());
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.failures
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    unix_millis(SystemTime::now())
}
