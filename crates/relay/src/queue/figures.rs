//! The node's figures: the queue's own, and what each instance of smtpd told last.

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
    instances: Mutex<BTreeMap<Provenance, (Instant, Vec<Series>)>>,
}

impl Figures {
    /// With the queue's own.
    pub fn new(own: Arc<Meter>) -> Self {
        Self {
            own,
            instances: Mutex::default(),
        }
    }

    fn instances(&self) -> MutexGuard<'_, BTreeMap<Provenance, (Instant, Vec<Series>)>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an instance tells, if it could be one's figures.
    pub fn put(&self, instance: Provenance, series: Vec<Series>) -> Answer {
        if !are_sound(&series) {
            return Answer::Failed("these are no figures of ours".into());
        }
        self.instances().insert(instance, (Instant::now(), series));
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
        for (instance, (told, series)) in self.instances().iter() {
            if told.elapsed() < FRESH {
                processes.insert(format!("smtpd/{instance}"), series.clone());
            }
        }
        text(&processes)
    }
}
