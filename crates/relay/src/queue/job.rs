//! One job: the recipients of one message that share a destination are tried once, and what became of them is made
//! durable, with the notification of failures before the failures themselves. A crash in between repeats work, and
//! never loses it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::SystemTime;

use postern_control::EventKind;
use postern_smtp::client::Outcome;
use postern_smtp::reply::Reply;

use super::bounce::{self, Identity};
use super::config::Queue;
use super::damage::Unreadable;
use super::hold::Holding;
use super::report::Notification;
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
    /// What the spool does not give back.
    pub unreadable: Unreadable,
    /// What is not scanned yet, or was found to be bad.
    pub hold: Holding,
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
        let fresh = self.store.take_fresh(job.location);
        let ready = match fresh {
            Some(stored) if !self.signs(&job) => Ok(Ok((stored.clone(), Content::plain(stored)))),
            fresh => {
                let (worker, job) = (self.clone(), job.clone());
                tokio::task::spawn_blocking(move || worker.make_ready(&job, fresh)).await
            }
        };
        let (stored, content) = match ready {
            Ok(Ok(ready)) => ready,
            Ok(Err(NotReady::Unreadable(reply))) => return self.postpone(job, &reply).await,
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

    /// Does a job in any case to its end: where that is a fault, its recipients are tried again. What a next hop has
    /// answered is recorded before anything else can fail, so that this seldom means to deliver twice.
    pub async fn see_to_its_end(self: &Arc<Self>, job: Job) -> Finished {
        let reply = match tokio::spawn(self.clone().run(job.clone())).await {
            Ok(finished) => return finished,
            Err(fault) => reasons::fault(fault),
        };
        let (worker, postponed, why) = (self.clone(), job.clone(), reply.clone());
        let postpone = tokio::spawn(async move { worker.postpone(postponed, &why).await });
        postpone.await.unwrap_or_else(|_| self.untouched(job, &reply))
    }

    fn hop(&self, destination: &Destination) -> Option<&Hop> {
        self.hops.get(&*destination.next_hop)
    }

    fn signs(&self, job: &Job) -> bool {
        job.destination.sign && self.signers.is_some()
    }

    /// Opens and checks the message, where it is not at hand, and signs it. Blocks.
    fn make_ready(&self, job: &Job, fresh: Option<Arc<Stored>>) -> Result<(Arc<Stored>, Content), NotReady> {
        let stored = match fresh {
            Some(stored) => stored,
            None => Arc::new(self.store.message(job.location).map_err(NotReady::unreadable)?),
        };
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
    /// tried again until its time runs out, or until it has been read in vain for long enough ([`super::damage`]), and then
    /// whoever is to be told is told. Where not even the envelope can be read, nothing is recorded, because nothing
    /// is known: should the disk give it back at the next start, it is tried again.
    pub async fn postpone(self: &Arc<Self>, job: Job, reply: &Reply) -> Finished {
        self.events.emit(
            None,
            Some(&job.id.to_string()),
            EventKind::Warning {
                text: reply.to_string(),
            },
        );
        let lost = match self.read(job.id, job.location).await {
            Ok(read) => {
                let outcome = match &read.content {
                    Err(lost) if lost.for_good => Outcome::Permanent(reasons::lost()),
                    _ => Outcome::Transient(reply.clone()),
                };
                let attempt = Attempt::not_made(vec![outcome; job.recipients.len()]);
                return self.conclude(job, &read.message, read.stored(), &attempt).await;
            }
            Err(lost) => lost,
        };
        let mut finished = self.untouched(job, reply);
        if lost.for_good {
            for (_, status) in &mut finished.news {
                *status = Status::Failed;
            }
        }
        if finished.news.iter().any(|(_, status)| status.is_final()) {
            self.tell_of_nobody(finished.job.id, &lost);
        }
        finished
    }

    /// A job that came to nothing and of which nothing was recorded: its recipients are due again, or their time is over.
    pub fn untouched(&self, job: Job, reply: &Reply) -> Finished {
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
        // What was one too many goes at once in a transaction of its own, as long as each transaction settles something. Where
        // others were asked, it counts no try: with fewer tries it comes before them the next time.
        let settled = |outcome: &Outcome| !matches!(outcome, Outcome::Transient(_));
        let in_turn = attempt.outcomes.iter().any(settled);
        let some_asked = !attempt.outcomes.iter().all(Outcome::is_one_too_many);
        let mut news = Vec::new();
        let mut reported = Vec::new();
        for ((index, attempts), outcome) in job.recipients.iter().zip(&attempt.outcomes) {
            let Some(recipient) = message.envelope.recipients.get(*index as usize) else {
                continue;
            };
            let (status, expired) = match outcome {
                Outcome::Delivered(_) => (Status::Delivered, false),
                Outcome::Permanent(_) => (Status::Failed, false),
                Outcome::Transient(reply) if some_asked && outcome.is_one_too_many() => {
                    let wait = if in_turn { 0 } else { self.queue.wait(*attempts) };
                    let status = Status::Due {
                        at: now + wait,
                        attempts: *attempts,
                        reply: reply.to_string().into(),
                        warned: false,
                    };
                    (status, false)
                }
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
            // A fault in the telling must not undo what the next hop has answered.
            let _ = unharmed(|| self.tell(&job, trace, attempt, &recipient.address, outcome, &status));
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
        let notification = self.notification(job.id, message, content, &reported, now);
        self.events.write_out();
        let (news, queued) = self
            .record_outcomes(&job, message, attempt, news, notification, now)
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

    /// Makes outcomes durable behind their notification. Where there is no room for that, nobody fails yet: what was
    /// delivered is recorded, and the others are tried again, and told when there is room.
    async fn record_outcomes(
        &self,
        job: &Job,
        message: &StoredMessage,
        attempt: &Attempt,
        mut news: Vec<(u32, Status)>,
        notification: Option<Notification>,
        now: u64,
    ) -> (Vec<(u32, Status)>, Option<Queued>) {
        let trace = &message.envelope.trace;
        let outcome = |news: &[(u32, Status)]| StoredOutcome {
            recipients: news.to_vec(),
            ..StoredOutcome::default()
        };
        if let Ok(queued) = self
            .record_surely(job.id, trace, notification, &outcome(&news))
            .await
        {
            return (news, queued);
        }
        for (index, status) in &mut news {
            let mut tried = job.recipients.iter().zip(&attempt.outcomes);
            if let Some(((_, attempts), answer)) = tried.find(|((tried, _), _)| tried == index)
                && *status == Status::Failed
            {
                *status = Status::Due {
                    at: now + self.queue.wait(*attempts),
                    attempts: attempts + 1,
                    reply: answer.reply().to_string().into(),
                    warned: false,
                };
            }
        }
        // Outcomes alone may use all of the reserve, so that only a fault of the disk holds this up.
        let _ = self.record_surely(job.id, trace, None, &outcome(&news)).await;
        (news, None)
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

/// What came of some work; `None` where it ended by a fault, of which the journal has the text.
pub(super) fn unharmed<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// The enhanced status code of a reply, or the general one of its class (RFC 3463 3.1).
fn enhanced(reply: &Reply) -> String {
    match reply.enhanced {
        Some(code) => format!("{}.{}.{}", code.class, code.subject, code.detail),
        None => format!("{}.0.0", reply.code.value() / 100),
    }
}
