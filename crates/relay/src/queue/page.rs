//! Listings: the manager says which messages there are, the spool what their envelopes are. A page is bounded in messages,
//! in recipients and in envelopes that are read for it, whatever the queue holds; the next one begins behind its last.

use std::sync::Arc;

use postern_control::{Details, Filter, QueuedMessage, QueuedRecipient, Reply};
use tokio::sync::mpsc::UnboundedSender;

use super::control::ask;
use super::hold;
use super::job::Worker;
use super::manager::{Command, Listed, Listing};
use super::router::domain_of;
use crate::events::rfc3339_millis;
use crate::spool::hold::Standing;
use crate::spool::{MessageId, Status, StoredMessage};

/// Messages on a page at most.
const PAGE: usize = 1000;
/// Recipients on a page, but for those of its last message.
const RECIPIENTS: usize = 2000;
/// Envelopes read for a page, however few fit the filter.
const READ: usize = 5000;
/// Messages that the manager is asked for at a time.
const STEP: usize = 100;

/// Asks on behalf of a client.
pub struct Query<'a> {
    /// Spool.
    pub worker: &'a Arc<Worker>,
    /// Who knows the queue.
    pub manager: &'a UnboundedSender<Command>,
}

impl Query<'_> {
    /// A page; `None` where the queue is stopping.
    pub async fn list(&self, filter: Filter, after: Option<String>, limit: Option<u32>) -> Option<Reply> {
        let after = match after.map(|id| id.parse::<MessageId>()).transpose() {
            Ok(after) => after,
            Err(error) => return Some(wrong(&format!("`after` is no queue id: {error}"))),
        };
        let limit = limit.map_or(PAGE, |limit| (limit as usize).clamp(1, PAGE));
        let mut page = Page {
            filter,
            limit,
            messages: Vec::new(),
            recipients: 0,
            read: 0,
            last: after,
        };
        // The manager does nothing else while it answers, so it is asked for little at a time.
        loop {
            let listing = ask(self.manager, |answer| Command::List(page.last, STEP, answer)).await?;
            let worker = self.worker.clone();
            let filled = tokio::task::spawn_blocking(move || {
                let more = page.fill(&worker, listing);
                (page, more)
            });
            let more;
            (page, more) = match filled.await {
                Ok(filled) => filled,
                Err(error) => return Some(wrong(&error.to_string())),
            };
            if !more || page.is_full() {
                return Some(Reply::QueueList {
                    messages: page.messages,
                    truncated: more,
                    next: page.last.filter(|_| more).map(|id| id.to_string()),
                });
            }
        }
    }

    /// One message; `None` where the queue is stopping.
    pub async fn show(&self, text: &str) -> Option<Reply> {
        let id = match text.parse::<MessageId>() {
            Ok(id) => id,
            Err(error) => return Some(wrong(&format!("`{text}` is no queue id: {error}"))),
        };
        let Some(listed) = ask(self.manager, |answer| Command::Show(id, answer)).await? else {
            return Some(wrong(&format!(
                "no message {id} is in the queue: it may be done already, the journal says what became of it"
            )));
        };
        let worker = self.worker.clone();
        let read = tokio::task::spawn_blocking(move || match worker.store.envelope(listed.location) {
            Ok(stored) => {
                let (message, details) = message(listed, stored);
                Reply::QueueShow { message, details }
            }
            Err(error) => wrong(&error.to_string()),
        });
        Some(read.await.unwrap_or_else(|error| wrong(&error.to_string())))
    }
}

/// A page that is being filled.
struct Page {
    filter: Filter,
    limit: usize,
    messages: Vec<QueuedMessage>,
    /// Recipients of these.
    recipients: usize,
    /// Envelopes read for it.
    read: usize,
    /// The message that was looked at last.
    last: Option<MessageId>,
}

impl Page {
    fn is_full(&self) -> bool {
        self.messages.len() >= self.limit || self.recipients >= RECIPIENTS || self.read >= READ
    }

    /// Takes what fits; whether there is more behind. Blocks.
    fn fill(&mut self, worker: &Worker, listing: Listing) -> bool {
        let mut rest = listing.messages.into_iter();
        while !self.is_full()
            && let Some(listed) = rest.next()
        {
            self.last = Some(listed.id);
            self.read += 1;
            // A message that has gone meanwhile is left out.
            let Ok(stored) = worker.store.envelope(listed.location) else {
                continue;
            };
            if fits(&self.filter, &listed, &stored) {
                let message = message(listed, stored).0;
                self.recipients += message.recipients.len();
                self.messages.push(message);
            }
        }
        listing.more || rest.len() > 0
    }
}

fn wrong(text: &str) -> Reply {
    Reply::Error { text: text.into() }
}

fn fits(filter: &Filter, listed: &Listed, stored: &StoredMessage) -> bool {
    let waits = |wanted: &dyn Fn(&str) -> bool| {
        let all = stored.envelope.recipients.iter().zip(&listed.recipients);
        all.filter(|(_, (status, _))| !status.is_final())
            .any(|(to, _)| wanted(&to.address))
    };
    let of_domain = |domain: &String| waits(&|address| domain_of(address).eq_ignore_ascii_case(domain));
    let is_recipient = |mailbox: &String| waits(&|address| address.eq_ignore_ascii_case(mailbox));
    let quarantined = matches!(listed.standing, Some(Standing::Expired | Standing::Bad { .. }));
    filter.held.is_none_or(|held| held == listed.held)
        && filter.quarantined.is_none_or(|wanted| wanted == quarantined)
        && filter
            .sender
            .as_ref()
            .is_none_or(|sender| stored.envelope.reverse_path.eq_ignore_ascii_case(sender))
        && filter.domain.as_ref().is_none_or(of_domain)
        && filter.recipient.as_ref().is_none_or(is_recipient)
}

fn message(listed: Listed, stored: StoredMessage) -> (QueuedMessage, Details) {
    let envelope = stored.envelope;
    let mut done = 0;
    let mut recipients = Vec::new();
    for (to, (status, next_hop)) in envelope.recipients.into_iter().zip(listed.recipients) {
        if let Status::Due {
            at, attempts, reply, ..
        } = status
        {
            recipients.push(QueuedRecipient {
                address: to.address,
                attempts,
                next_attempt: rfc3339_millis(at),
                last_reply: reply.into(),
                next_hop: next_hop.to_string(),
            });
        } else {
            done += 1;
        }
    }
    let message = QueuedMessage {
        id: listed.id.to_string(),
        arrived: rfc3339_millis(stored.arrived),
        provenance: stored.provenance.to_string(),
        from: envelope.reverse_path,
        size: listed.location.body_length,
        held: listed.held,
        hold: listed
            .standing
            .map(|standing| hold::told(&standing, listed.unscanned)),
        recipients,
    };
    let details = Details {
        trace: envelope.trace,
        peer: envelope.peer,
        helo: envelope.helo,
        tls: envelope.tls,
        authenticated_user: envelope.authenticated_user,
        return_path_proven: envelope.return_path_proven,
        recipients_done: done,
    };
    (message, details)
}
