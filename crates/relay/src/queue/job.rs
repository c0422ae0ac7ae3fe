//! One job: the recipients of one message that share a destination are tried once, and what became of them is made
//! durable, with the notification of failures before the failures themselves. A crash in between repeats work, and
//! never loses it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use postern_control::EventKind;
use postern_smtp::client::Outcome;
use postern_smtp::reply::Reply;

use super::bounce::{self, Identity};
use super::config::Queue;
use super::router::{Destination, Router};
use super::schedule::{Job, Reach};
use super::store::Store;
use super::{mail, reasons};
use crate::deliver::content::{Content, ContentError};
use crate::deliver::hop::Hop;
use crate::deliver::{Attempt, Contact, Courier};
use crate::dkim::Signers;
use crate::dsn::{Action, Reported};
use crate::events::{Events, rfc3339_millis, unix_millis};
use crate::spool::body::Stored;
use crate::spool::{Location, MessageId, SpoolError, Status, StoredMessage, StoredOutcome};

/// What all jobs share.
pub struct Worker {
    /// The spool.
    pub store: Arc<Store>,
    /// Where to.
    pub router: Router,
    /// Next hops by name.
    pub hops: BTreeMap<String, Hop>,
    /// Goes there.
    pub courier: Courier,
    /// DKIM.
    pub signers: Option<Signers>,
    /// When again.
    pub queue: Queue,
    /// Who we are.
    pub identity: Identity,
    /// What happens.
    pub events: Events,
}

/// A message that was queued by a job.
pub struct Queued {
    /// Its name.
    pub id: MessageId,
    /// Its place.
    pub location: Location,
    /// What it is.
    pub message: StoredMessage,
}

/// How a job ended; all of it is durable.
pub struct Finished {
    /// What was to be done.
    pub job: Job,
    /// How its recipients stand.
    pub news: Vec<(u32, Status)>,
    /// The notification that came of it.
    pub queued: Option<Queued>,
    /// Whether the destination was reached.
    pub reach: Reach,
}

/// Why a message cannot be sent now.
enum NotReady {
    /// The spool does not give it.
    Unreadable(Reply),
    /// It was read and cannot be signed.
    Unsigned(Arc<Stored>, Reply),
}

impl NotReady {
    fn unreadable(error: SpoolError) -> Self {
        Self::Unreadable(reasons::damaged(error))
    }
}

impl Worker {
    /// Does a job.
    pub async fn run(self: Arc<Self>, job: Job) -> Finished {
        let ready = tokio::task::spawn_blocking({
            let (worker, job) = (self.clone(), job.clone());
            move || worker.make_ready(&job)
        });
        let (stored, content) = match ready.await {
            Ok(Ok(ready)) => ready,
            Ok(Err(NotReady::Unreadable(reply))) => {
                self.store.mark_damaged(job.location.segment);
                return self.postpone(job, &reply).await;
            }
            Ok(Err(NotReady::Unsigned(stored, reply))) => {
                let outcomes = vec![Outcome::Transient(reply); job.recipients.len()];
                let attempt = Attempt::not_made(outcomes);
                return self.conclude(job, &stored.message, Some(&stored), &attempt).await;
            }
            Err(error) => return self.postpone(job, &reasons::fault(error)).await,
        };
        let indexes: Vec<u32> = job.recipients.iter().map(|(index, _)| *index).collect();
        let attempt = match (
            mail::envelope(&stored.message.envelope, &indexes, content.size()),
            self.hop(&job.destination),
        ) {
            (Ok(envelope), Some(hop)) => {
                self.courier
                    .attempt(hop, &job.destination, envelope, &content)
                    .await
            }
            (Ok(envelope), None) => Attempt::all(
                &envelope,
                &Outcome::Transient(reasons::no_route(&job.destination.domain)),
            ),
            (Err(error), _) => {
                let outcomes = vec![Outcome::Permanent(reasons::unusable_next_hop(&error)); indexes.len()];
                Attempt::not_made(outcomes)
            }
        };
        if let Some(reply) = attempt.refused_login() {
            self.events.warn(format!(
                "mail waits at the next hop {}: {reply}. User and password are in the file that its `login` names",
                job.destination.next_hop
            ));
        }
        self.conclude(job, &stored.message, Some(&stored), &attempt).await
    }

    fn hop(&self, destination: &Destination) -> Option<&Hop> {
        self.hops.get(&*destination.next_hop)
    }

    /// Opens, checks and signs. Blocks.
    fn make_ready(&self, job: &Job) -> Result<(Arc<Stored>, Content), NotReady> {
        let stored = self.store.message(job.location).map_err(NotReady::unreadable)?;
        let stored = Arc::new(stored);
        let signers = self.signers.as_ref().filter(|_| job.destination.sign);
        let Some(signers) = signers else {
            return Ok((stored.clone(), Content::plain(stored)));
        };
        let (content, signed) = Content::signed(stored.clone(), signers).map_err(|error| match error {
            ContentError::Spool(error) => NotReady::unreadable(error),
            ContentError::Dkim(error) => NotReady::Unsigned(stored.clone(), reasons::cannot_sign(error)),
        })?;
        if let Some(signed) = signed {
            let kind = EventKind::Signed {
                domain: signed.domain,
                selectors: signed.selectors,
            };
            self.events.emit(
                Some(&stored.message.envelope.trace),
                Some(&job.id.to_string()),
                kind,
            );
        }
        Ok((stored, content))
    }

    /// The message cannot be read now, or an attempt ended by a fault. It counts as a transient failure: the message is
    /// tried again until its time runs out, and then whoever is to be told is told. Where not even the envelope can be
    /// read, nothing is recorded, because nothing is known, and each start tries it again.
    pub async fn postpone(&self, job: Job, reply: &Reply) -> Finished {
        self.events.emit(
            None,
            Some(&job.id.to_string()),
            EventKind::Warning {
                text: reply.to_string(),
            },
        );
        let (store, location) = (self.store.clone(), job.location);
        let read = move || match store.message(location) {
            Ok(stored) => Ok((stored.message.clone(), Some(stored))),
            Err(_) => store.envelope(location).map(|message| (message, None)),
        };
        if let Ok(Ok((message, content))) = tokio::task::spawn_blocking(read).await {
            let attempt = Attempt::not_made(vec![Outcome::Transient(reply.clone()); job.recipients.len()]);
            return self.conclude(job, &message, content.as_ref(), &attempt).await;
        }
        self.store.mark_damaged(job.location.segment);
        let now = unix_millis(SystemTime::now());
        let status = |attempts: u32| {
            self.again(job.arrived, attempts, attempts, reply, now)
                .unwrap_or(Status::Failed)
        };
        let news = job
            .recipients
            .iter()
            .map(|(index, attempts)| (*index, status(*attempts)))
            .collect();
        Finished {
            job,
            news,
            queued: None,
            reach: Reach::Unknown,
        }
    }

    /// When a recipient is tried again after a transient failure: `step` is how often in a row it failed, or its
    /// destination did. `None` when its time has run out and it was tried as often as there are waiting times.
    fn again(&self, arrived: u64, attempts: u32, step: u32, reply: &Reply, now: u64) -> Option<Status> {
        let at = now + self.queue.wait(step);
        let text = reply.to_string().into();
        let in_time = at <= arrived.saturating_add(self.queue.expire.saturating_mul(1000));
        let tried_little = (attempts as usize) + 1 < self.queue.retry.len();
        (in_time || tried_little).then_some(Status::Due {
            at,
            attempts: attempts + 1,
            reply: text,
            warned: false,
        })
    }

    /// An attempt has ended: what it brought is told, and made durable before this returns. `content` is absent where
    /// only the envelope of `message` can be read.
    pub async fn conclude(
        &self,
        job: Job,
        message: &StoredMessage,
        content: Option<&Stored>,
        attempt: &Attempt,
    ) -> Finished {
        let now = unix_millis(SystemTime::now());
        let unreachable = attempt.is_unreachable();
        let mut news = Vec::new();
        let mut reported = Vec::new();
        for ((index, attempts), outcome) in job.recipients.iter().zip(&attempt.outcomes) {
            let Some(recipient) = message.envelope.recipients.get(*index as usize) else {
                continue;
            };
            let (status, expired) = match outcome {
                Outcome::Delivered(_) => (Status::Delivered, false),
                Outcome::Permanent(_) => (Status::Failed, false),
                Outcome::Transient(reply) => {
                    // All its mail waits for the destination alike; but what only this message meets, it meets less often.
                    let step = if unreachable {
                        job.failures.max(*attempts)
                    } else {
                        *attempts
                    };
                    match self.again(job.arrived, *attempts, step, reply, now) {
                        Some(status) => (status, false),
                        None => (Status::Failed, true),
                    }
                }
            };
            let trace = &message.envelope.trace;
            self.tell(&job, trace, attempt, &recipient.address, outcome, &status);
            if status == Status::Failed && bounce::wants_failure(recipient) {
                reported.push(Reported {
                    address: recipient.address.clone(),
                    orcpt: recipient.orcpt.clone(),
                    status: if expired {
                        "4.4.7".into()
                    } else {
                        enhanced(outcome.reply())
                    },
                    remote: attempt.host.clone(),
                    reply: outcome.reply().to_string(),
                    action: Action::Failed { expired },
                });
            }
            // RFC 3461 5.2.2: a next hop that does not know DSN leaves it to us to say that it took the message.
            if status == Status::Delivered && !attempt.knows_dsn && bounce::wants_success(recipient) {
                let mailbox = matches!(self.hop(&job.destination), Some(Hop::Lmtp(_)));
                reported.push(Reported {
                    address: recipient.address.clone(),
                    orcpt: recipient.orcpt.clone(),
                    status: enhanced(outcome.reply()),
                    remote: attempt.host.clone(),
                    reply: outcome.reply().to_string(),
                    action: if mailbox {
                        Action::Delivered
                    } else {
                        Action::Relayed
                    },
                });
            }
            news.push((*index, status));
        }
        let outcome = StoredOutcome {
            recipients: news.clone(),
            held: None,
        };
        let notification = self.notification(job.id, message, content, &reported, now);
        let queued = self
            .record_surely(job.id, &message.envelope.trace, notification, &outcome)
            .await;
        let reach = match (attempt.outcomes.first(), attempt.contact) {
            (Some(outcome), _) if unreachable => {
                let reply = outcome.reply().to_string().into();
                Reach::Unreachable(reply, now + self.queue.wait(job.failures))
            }
            (_, Contact::Made) => Reach::Reached,
            _ => Reach::Unknown,
        };
        Finished {
            job,
            news,
            queued,
            reach,
        }
    }

    fn tell(
        &self,
        job: &Job,
        trace: &str,
        attempt: &Attempt,
        recipient: &str,
        outcome: &Outcome,
        status: &Status,
    ) {
        let (recipient, reply) = (recipient.to_owned(), outcome.reply().to_string());
        let next_hop = job.destination.next_hop.to_string();
        let host = attempt.host.clone().unwrap_or_default();
        let (trace, id) = (Some(trace), job.id.to_string());
        let tried = EventKind::Attempt {
            recipient: recipient.clone(),
            next_hop,
            host,
            tls: attempt.tls.clone(),
            authentication: attempt.proof.map(|proof| proof.as_str().to_owned()),
            reply: reply.clone(),
        };
        let became = match status {
            Status::Delivered => EventKind::Delivered { recipient, reply },
            Status::Failed => EventKind::Bounced { recipient, reply },
            Status::Due { at, .. } => EventKind::Deferred {
                recipient,
                reply,
                next_attempt: rfc3339_millis(*at),
            },
        };
        if *status == Status::Delivered {
            let now = unix_millis(SystemTime::now());
            self.events.meter().delivered(now.saturating_sub(job.arrived));
        }
        self.events.emit(trace, Some(&id), tried);
        self.events.emit(trace, Some(&id), became);
    }
}

/// The enhanced status code of a reply, or the general one of its class (RFC 3463 3.1).
fn enhanced(reply: &Reply) -> String {
    match reply.enhanced {
        Some(code) => format!("{}.{}.{}", code.class, code.subject, code.detail),
        None => format!("{}.0.0", reply.code.value() / 100),
    }
}
