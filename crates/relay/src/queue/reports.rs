//! DMARC aggregate reports to those who ask for them (RFC 7489 section 7.2, RFC 9990 for the format).
//!
//! Enters: what smtpd saw, in batches. Leaves: one message for each domain and period, to the addresses in `rua=` of the record
//! that the domain publishes at that time, each of another domain only where that domain agrees (section 7.1). A report is our
//! own mail: signed as such, and with the null reverse-path, so that a report that cannot be delivered makes no notification.

pub mod kept;
mod message;

use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use hickory_resolver::proto::rr::Name;
use mail_auth::dmarc::Dmarc;
use mail_auth::report::Report;
use postern_control::EventKind;
use tokio::sync::mpsc::UnboundedSender;

use super::bounce::own_message;
use super::job::{Queued, Worker};
use super::mail;
use super::manager::Command;
use super::provenance::Provenance;
use super::router::domain_of;
use super::store::message_record;
use crate::config::Config;
use crate::deliver::dns::Dns;
use crate::events::{Events, trace_id, unix_millis};
use crate::handover::{Notify, Recipient};
use crate::reports::Batch;
use crate::reports::observer::record_of;
use crate::spool::writer::Body;
use kept::{Due, Kept};

/// Addresses of one record that get its report (RFC 7489 section 6.2 asks for two at least).
const ADDRESSES: usize = 4;
/// How often what was collected is written, and what is due is looked for.
const TICK: Duration = Duration::from_mins(1);

/// Collects and sends.
pub struct Reports {
    kept: Kept,
    from: String,
    organization: String,
    interval: u64,
    dns: Dns,
    worker: Arc<Worker>,
    manager: UnboundedSender<Command>,
}

/// Why a report is not sent now.
enum Failure {
    /// It may be later.
    Later(String),
    /// Nobody is to get it.
    Never(String),
}

/// What was collected before, where reports are sent; makes the directory for it, so it belongs before the sandbox.
pub fn open(config: &Config, events: &Events) -> anyhow::Result<Option<Kept>> {
    let Some(settings) = &config.reports else {
        return Ok(None);
    };
    let directory = config.state_directory.join(&settings.directory);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .with_context(|| {
            format!(
                "cannot make {}; state-directory must be on a disk that the queue's user may write to",
                directory.display()
            )
        })?;
    let (kept, damage) = Kept::open(&directory, settings.interval);
    if let Some(damage) = damage {
        events.warn(format!("what was collected for DMARC reports is lost: {damage}"));
    }
    Ok(Some(kept))
}

impl Reports {
    /// Sends what `kept` holds when it is due; `None` where reports are off.
    pub fn new(
        config: &Config,
        kept: Option<Kept>,
        worker: Arc<Worker>,
        manager: UnboundedSender<Command>,
    ) -> Option<Arc<Self>> {
        let settings = config.reports.as_ref()?;
        Some(Arc::new(Self {
            kept: kept?,
            from: settings.from.clone(),
            organization: settings
                .organization
                .clone()
                .unwrap_or_else(|| domain_of(&settings.from)),
            interval: settings.interval,
            dns: Dns::new(config.resolver.address),
            worker,
            manager,
        }))
    }

    /// Takes what an smtpd saw.
    pub fn note(&self, batch: Batch) {
        self.kept.note(batch, now());
    }

    /// Until the process ends. What is collected is written before anything is sent, and a report counts as sent before it
    /// is: a crash costs a report, and never makes a second one.
    pub async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK.min(Duration::from_secs(self.interval)));
        loop {
            tick.tick().await;
            let due = self.kept.take_due(now());
            self.write().await;
            for due in due {
                let domain = due.domain.clone();
                let reason = match self.report(&due).await {
                    Ok(()) => continue,
                    Err(Failure::Later(_)) if self.kept.put_back(due, now()) => continue,
                    Err(Failure::Later(reason) | Failure::Never(reason)) => reason,
                };
                self.worker
                    .events
                    .warn(format!("no DMARC report for {domain}: {reason}"));
            }
        }
    }

    /// Makes what was collected durable.
    pub async fn write(&self) {
        let kept = self.kept.clone();
        let written = tokio::task::spawn_blocking(move || kept.write()).await;
        let written = written.map_err(|error| error.to_string());
        if let Err(error) = written.and_then(|written| written.map_err(|error| error.to_string())) {
            self.worker.events.warn(format!(
                "what is collected for DMARC reports is not durable: {error}"
            ));
        }
    }

    async fn report(&self, due: &Due) -> Result<(), Failure> {
        let record = record_of(self.dns, &due.domain).await.map_err(Failure::Later)?;
        let record = record.ok_or_else(|| Failure::Never("it publishes no record any more".into()))?;
        let id = format!("{}.{}", due.begin, trace_id());
        let hostname = &self.worker.identity.hostname;
        let octets = message::write(&message::Envelope {
            hostname,
            from: &self.from,
            id: &id,
            domain: &due.domain,
            begin: due.begin,
            end: due.end,
            time: SystemTime::now(),
            report: &self.content(due, &id),
        })
        .map_err(|error| Failure::Never(error.to_string()))?;
        let addresses = self.addresses(&due.domain, &record, octets.len()).await?;
        let head = message::to(&addresses);
        let octets = [head.as_bytes(), &octets].concat();
        self.queue(addresses, octets).await
    }

    fn content(&self, due: &Due, id: &str) -> Report {
        let mut report = Report::new()
            .with_version(1.0)
            .with_org_name(&self.organization)
            .with_email(&self.from)
            .with_report_id(id)
            .with_date_range_begin(due.begin)
            .with_date_range_end(due.end - 1)
            .with_generator(concat!("Postern ", env!("CARGO_PKG_VERSION")))
            .with_policy_published(due.content.policy.clone());
        if due.content.dropped > 0 {
            report = report.with_error(format!(
                "{} more messages are not listed: the report is full",
                due.content.dropped
            ));
        }
        for row in &due.content.rows {
            report.add_record(row.clone());
        }
        report
    }

    /// Those who may get a report of so many octets.
    async fn addresses(&self, domain: &str, record: &Dmarc, octets: usize) -> Result<Vec<String>, Failure> {
        let mut agreed = Vec::new();
        let mut reasons = Vec::new();
        for uri in record.rua.iter().take(ADDRESSES) {
            let address = uri.uri();
            if !is_mailbox(address) {
                reasons.push("an address in rua= is none".to_owned());
            } else if (1..octets).contains(&uri.max_size()) {
                reasons.push(format!("{octets} octets are more than {address} takes"));
            } else if !self
                .agrees(domain, &domain_of(address))
                .await
                .map_err(Failure::Later)?
            {
                reasons.push(format!("the domain of {address} does not say that it wants them"));
            } else if !agreed.iter().any(|other| other == address) {
                agreed.push(address.to_owned());
            }
        }
        if agreed.is_empty() {
            return Err(Failure::Never(reasons.join("; ")));
        }
        Ok(agreed)
    }

    /// Whether reports about `domain` may go to `destination` (RFC 7489 section 7.1).
    async fn agrees(&self, domain: &str, destination: &str) -> Result<bool, String> {
        let below = destination
            .strip_suffix(domain)
            .is_some_and(|head| head.is_empty() || head.ends_with('.'));
        if below {
            return Ok(true);
        }
        let Ok(name) = Name::from_utf8(format!("{domain}._report._dmarc.{destination}.")) else {
            return Ok(false);
        };
        let texts = self.dns.texts(name).await?;
        let agreement = |text: &Vec<u8>| {
            let tag = text.split(|octet| *octet == b';').next().unwrap_or_default();
            let tag: Vec<u8> = tag
                .iter()
                .copied()
                .filter(|octet| !octet.is_ascii_whitespace())
                .collect();
            tag == b"v=DMARC1"
        };
        Ok(texts.iter().any(agreement))
    }

    async fn queue(&self, addresses: Vec<String>, octets: Vec<u8>) -> Result<(), Failure> {
        let now = unix_millis(SystemTime::now());
        let mut message = own_message(&self.worker.identity, &trace_id(), "", false, octets.len(), now);
        let due = message.statuses[0].clone();
        message.statuses = vec![due; addresses.len()];
        message.envelope.recipients = addresses
            .into_iter()
            .map(|address| Recipient {
                address,
                orcpt: None,
                notify: Some(vec![Notify::Never]),
            })
            .collect();
        message.envelope.eight_bit = false;
        message.bulk = true;
        let unrouted = |recipient: &Recipient| {
            let router = &self.worker.router;
            router.destination(Provenance::Own, &recipient.address).is_none()
        };
        if mail::check(&message.envelope).is_err() || message.envelope.recipients.iter().any(unrouted) {
            return Err(Failure::Never("no route leads to an address in rua=".into()));
        }
        let never = |error: &dyn std::fmt::Display| Failure::Never(error.to_string());
        let store = &self.worker.store;
        let id = store.new_id();
        let body = Body::Octets(octets.into());
        let record = message_record(id, &message, body).map_err(|error| never(&error))?;
        let _under_way = store.under_way();
        let locations = store
            .append(vec![record])
            .await
            .map_err(|error| Failure::Later(error.to_string()))?;
        let location = *locations
            .first()
            .ok_or_else(|| never(&"the spool gave no place"))?;
        let kind = EventKind::Queued {
            from: String::new(),
            to: message
                .envelope
                .recipients
                .iter()
                .map(|to| to.address.clone())
                .collect(),
            size: message.envelope.size,
            provenance: Some(Provenance::Own.to_string()),
        };
        self.worker
            .events
            .emit(Some(&message.envelope.trace), Some(&id.to_string()), kind);
        // If the manager has ended, the next start delivers it.
        let _ = self.manager.send(Command::Insert(Box::new(Queued {
            id,
            location,
            message,
        })));
        Ok(())
    }
}

/// Plain enough to stand in our header and to be routed: no quoted local part, no address literal, ASCII.
fn is_mailbox(address: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '=' | '@');
    address.len() <= 254
        && address.matches('@').count() == 1
        && address.chars().all(plain)
        && domain_of(address).contains('.')
}

/// Seconds since 1970.
fn now() -> u64 {
    unix_millis(SystemTime::now()) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_written_to() {
        for address in ["dmarc@example.org", "a+b=c@reports.example.org"] {
            assert!(is_mailbox(address), "{address}");
        }
        for address in [
            "example.org",
            "a@b@example.org",
            "a@localhost",
            "a b@example.org",
            "a\r\nBcc:x@example.org",
            "<a@example.org>",
            "a,b@example.org",
            "\u{e4}@example.org",
        ] {
            assert!(!is_mailbox(address), "{address}");
        }
    }
}
