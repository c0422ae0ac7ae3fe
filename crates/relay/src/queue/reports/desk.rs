//! Where reports of all kinds are sent from: as mail of our own, signed as such, with the null reverse-path, so that a report
//! that cannot be delivered makes no notification.

use std::sync::Arc;
use std::time::SystemTime;

use postern_control::EventKind;
use tokio::sync::mpsc::UnboundedSender;

use super::Failure;
use crate::config::Config;
use crate::deliver::dns::Dns;
use crate::events::{trace_id, unix_millis};
use crate::handover::{Notify, Recipient};
use crate::queue::bounce::own_message;
use crate::queue::job::{Queued, Worker};
use crate::queue::mail;
use crate::queue::manager::Command;
use crate::queue::provenance::Provenance;
use crate::queue::router::domain_of;
use crate::queue::store::message_record;
use crate::spool::writer::Body;

/// Sends.
pub struct Desk {
    /// Address of the From field.
    pub(super) from: String,
    /// Who reports.
    pub(super) organization: String,
    /// Knows whom to send to.
    pub(super) dns: Dns,
    /// Spool, routes, events.
    pub(super) worker: Arc<Worker>,
    manager: UnboundedSender<Command>,
}

impl Desk {
    /// As the configuration has it; `None` where no reports are sent.
    pub fn new(config: &Config, worker: Arc<Worker>, manager: UnboundedSender<Command>) -> Option<Arc<Self>> {
        let settings = config.reports.as_ref()?;
        let organization = settings.organization.clone();
        Some(Arc::new(Self {
            from: settings.from.clone(),
            organization: organization.unwrap_or_else(|| domain_of(&settings.from)),
            dns: Dns::new(config.resolver.address),
            worker,
            manager,
        }))
    }

    /// Our name.
    pub(super) fn hostname(&self) -> &str {
        &self.worker.identity.hostname
    }

    /// Says that a report was sent, or with a reason that none is.
    pub(super) fn tell(&self, report: &str, domain: &str, to: Vec<String>, reason: Option<String>) {
        let kind = EventKind::Report {
            report: report.to_owned(),
            domain: domain.to_owned(),
            to,
            reason,
        };
        self.worker.events.emit(None, None, kind);
    }

    /// Queues a report about `domain`, and says so.
    pub(super) async fn queue(
        &self,
        report: &str,
        domain: &str,
        addresses: Vec<String>,
        octets: Vec<u8>,
    ) -> Result<(), Failure> {
        let now = unix_millis(SystemTime::now());
        let mut message = own_message(&self.worker.identity, &trace_id(), "", false, octets.len(), now);
        let due = message.statuses[0].clone();
        message.statuses = vec![due; addresses.len()];
        message.envelope.recipients = addresses
            .iter()
            .map(|address| Recipient {
                address: address.clone(),
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
        let (trace, name) = (message.envelope.trace.clone(), id.to_string());
        let queued = EventKind::Queued {
            from: String::new(),
            to: addresses.clone(),
            size: message.envelope.size,
            provenance: Some(Provenance::Own.to_string()),
        };
        let sent = EventKind::Report {
            report: report.to_owned(),
            domain: domain.to_owned(),
            to: addresses,
            reason: None,
        };
        for kind in [queued, sent] {
            self.worker.events.emit(Some(&trace), Some(&name), kind);
        }
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
pub(super) fn is_mailbox(address: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '=' | '@');
    address.len() <= 254
        && address.matches('@').count() == 1
        && address.chars().all(plain)
        && domain_of(address).contains('.')
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
