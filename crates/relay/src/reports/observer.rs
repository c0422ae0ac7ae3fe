//! smtpd's side of aggregate reports: observations wait in memory, within bounds, and go to the queue a few at a time.
//!
//! Nothing here holds up mail: where the bound is reached or the queue does not answer, observations are lost, and reports
//! count less than there was.

use std::collections::BTreeMap;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::dmarc::Dmarc;
use mail_auth::report::PolicyPublished;
use tokio::sync::mpsc;

use super::{BATCH, Batch, Seen};
use crate::deliver::dns::Dns;
use crate::events::Events;
use crate::handover;

/// Observations that may wait.
const WAITING: usize = 1024;
/// How long the first of a batch waits for others.
const PAUSE: Duration = Duration::from_secs(2);
/// Names above an author domain that are looked at for the record that was applied (RFC 9989 section 4.10).
const PARENTS: usize = 8;

/// Takes observations.
pub struct Observer {
    waiting: mpsc::Sender<Seen>,
}

impl Observer {
    /// Starts to hand over, within the runtime.
    pub fn start(dns: Dns, queue: handover::Client, events: Events) -> Self {
        let (waiting, seen) = mpsc::channel(WAITING);
        tokio::spawn(hand_over(seen, dns, queue, events));
        Self { waiting }
    }

    /// Notes an observation, unless too many wait.
    pub fn note(&self, seen: Seen) {
        // What has no room is not counted; the mail itself is not concerned.
        let _ = self.waiting.try_send(seen);
    }
}

async fn hand_over(mut waiting: mpsc::Receiver<Seen>, dns: Dns, queue: handover::Client, events: Events) {
    while let Some(first) = waiting.recv().await {
        let mut seen = vec![first];
        let until = tokio::time::Instant::now() + PAUSE;
        while seen.len() < BATCH
            && let Ok(Some(next)) = tokio::time::timeout_at(until, waiting.recv()).await
        {
            seen.push(next);
        }
        let mut publishers = BTreeMap::new();
        for one in &mut seen {
            let author = one.policy.domain.clone();
            if !publishers.contains_key(&author) {
                publishers.insert(author.clone(), publisher(dns, &one.policy).await);
            }
            if let Some(Some(domain)) = publishers.get(&author) {
                one.policy.domain.clone_from(domain);
            }
        }
        seen.retain(|one| matches!(publishers.get(&one.record.identifiers.header_from), Some(Some(_))));
        if !seen.is_empty()
            && let Err(error) = queue.note(&Batch { seen }).await
        {
            events.warn(format!("observations for DMARC reports are lost: {error}"));
        }
    }
}

/// The domain whose record was applied to an author's: the author's own, or the first above it with that very record.
async fn publisher(dns: Dns, policy: &PolicyPublished) -> Option<String> {
    let mut domain = policy.domain.as_str();
    for _ in 0..PARENTS {
        if let Ok(Some(record)) = record_of(dns, domain).await {
            let same = PolicyPublished::from_record(policy.domain.as_str(), &record) == *policy;
            return same.then(|| domain.to_owned());
        }
        domain = domain.split_once('.')?.1;
    }
    None
}

/// The DMARC record that a domain publishes itself; `None` where there is not exactly one (RFC 7489 section 6.6.3).
pub async fn record_of(dns: Dns, domain: &str) -> Result<Option<Dmarc>, String> {
    let Ok(name) = Name::from_utf8(format!("_dmarc.{domain}.")) else {
        return Ok(None);
    };
    let texts = dns.texts(name).await?;
    let mut records = texts.iter().filter_map(|text| Dmarc::parse(text).ok());
    Ok(records.next().filter(|_| records.next().is_none()))
}
