//! The node's figures: the queue's own, and what each instance of smtpd told last of itself and of the proxy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postern_control::QueueStatus;

use super::provenance::Provenance;
use crate::handover::kept::Answer;
use crate::metrics::{Family, Meter, Series, approximate, are_sound, text};

/// What an instance told is shown for so long; one that is silent is not there.
const FRESH: Duration = Duration::from_mins(1);

/// All figures.
pub struct Figures {
    own: Arc<Meter>,
    instances: Mutex<Told>,
}

/// By process, with when it was told.
type Told = BTreeMap<String, (Instant, Vec<Series>)>;

impl Figures {
    /// With the queue's own.
    pub fn new(own: Arc<Meter>) -> Self {
        Self {
            own,
            instances: Mutex::default(),
        }
    }

    fn instances(&self) -> MutexGuard<'_, Told> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an instance tells, if it could be one's figures.
    pub fn put(&self, instance: Provenance, series: Vec<Series>) -> Answer {
        self.put_of(format!("smtpd/{instance}"), series)
    }

    /// Takes what the proxy has told an instance; its socket is the public one's alone.
    pub fn put_of_proxy(&self, instance: Provenance, series: Vec<Series>) -> Answer {
        if instance != Provenance::Public {
            return Answer::Failed("the proxy does not speak to this instance".into());
        }
        self.put_of("proxy".to_owned(), series)
    }

    fn put_of(&self, process: String, series: Vec<Series>) -> Answer {
        if !are_sound(&series) {
            return Answer::Failed("these are no figures of ours".into());
        }
        self.instances().insert(process, (Instant::now(), series));
        Answer::Kept
    }

    /// `OpenMetrics` text of all, with how the queue stands.
    pub fn text(&self, queue: &QueueStatus) -> String {
        for (family, value) in [
            (Family::QueueMessages, queue.messages),
            (Family::QueueRecipients, queue.recipients_due),
            (Family::QueueOldest, queue.oldest_age_seconds),
            (Family::SpoolOctets, queue.spool_octets),
        ] {
            self.own.set(family, &[], approximate(value));
        }
        let mut processes = BTreeMap::from([("queue".to_owned(), self.own.series())]);
        for (process, (told, series)) in self.instances().iter() {
            if told.elapsed() < FRESH {
                processes.insert(process.clone(), series.clone());
            }
        }
        text(&processes)
    }
}
