//! What the operator changes: a message is held, released, tried at once or given up. Who asked and why is an event.
//!
//! A change is made durable by an outcome record before it is answered, but for `retry`, which only brings a time
//! forward. Changes of one message wait for each other and for its being carried over, so that the order of their records
//! is the order in which they were made.

use std::sync::Arc;
use std::time::SystemTime;

use postern_control::{Change, EventKind};
use tokio::sync::oneshot;

use super::bounce;
use super::job::{Queued, Worker, unharmed};
use super::reasons;
use crate::dsn::{Action, Reported};
use crate::events::unix_millis;
use crate::spool::hold::Standing;
use crate::spool::{Location, MessageId, Status, StoredMessage, StoredOutcome};

/// What is asked for.
pub struct Order {
    /// Of which message.
    pub id: MessageId,
    /// What.
    pub change: Change,
    /// Who.
    pub by: Arc<str>,
    /// Why.
    pub reason: Option<Arc<str>>,
    /// The error is for the operator.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// A change that is on disk, or could not be made.
pub struct Changed {
    /// Of which message.
    pub id: MessageId,
    /// What was asked for; absent where time did it.
    pub order: Option<Order>,
    /// How recipients stand now.
    pub news: Vec<(u32, Status)>,
    /// Whether it is held now, where that changed.
    pub held: Option<bool>,
    /// The notification that came of it.
    pub queued: Option<Queued>,
    /// Whether it was made.
    pub result: Result<(), String>,
}

impl Changed {
    /// Nothing was changed.
    pub fn not_made(id: MessageId, why: String) -> Self {
        Self {
            id,
            order: None,
            news: Vec::new(),
            held: None,
            queued: None,
            result: Err(why),
        }
    }
}

impl Worker {
    /// Does the work of a change in any case to its end: where that is a fault, the message is as it was, and goes on.
    pub async fn see_through(
        &self,
        id: MessageId,
        work: impl Future<Output = Changed> + Send + 'static,
    ) -> Changed {
        match tokio::spawn(work).await {
            Ok(changed) => changed,
            Err(fault) => {
                let text = format!("a change of the message ended by a fault, and it is as it was: {fault}");
                let kind = EventKind::Warning { text: text.clone() };
                let _ = unharmed(|| self.events.emit(None, Some(&id.to_string()), kind));
                Changed::not_made(id, text)
            }
        }
    }

    /// Makes a change durable. `waiting` are the recipients that are not done.
    pub async fn change(self: &Arc<Self>, order: Order, location: Location, waiting: Vec<u32>) -> Changed {
        let (news, held) = match order.change {
            Change::Hold => (Vec::new(), Some(true)),
            Change::Release | Change::ReleaseBad => (Vec::new(), Some(false)),
            Change::Retry => (Vec::new(), None),
            Change::Cancel | Change::Bounce => (
                waiting.into_iter().map(|index| (index, Status::Failed)).collect(),
                None,
            ),
        };
        let outcome = StoredOutcome {
            recipients: news.clone(),
            held,
            standing: None,
        };
        match self.write_change(&order, location, outcome).await {
            Ok(queued) => Changed {
                id: order.id,
                order: Some(order),
                news,
                held,
                queued,
                result: Ok(()),
            },
            Err(error) => Changed {
                id: order.id,
                order: Some(order),
                news: Vec::new(),
                held: None,
                queued: None,
                result: Err(format!("the change could not be recorded: {error}")),
            },
        }
    }

    async fn write_change(
        self: &Arc<Self>,
        order: &Order,
        location: Location,
        outcome: StoredOutcome,
    ) -> anyhow::Result<Option<Queued>> {
        if order.change != Change::Bounce {
            return self.record(order.id, "", None, &outcome).await;
        }
        let read = self.read(order.id, location).await?;
        let (message, now) = (&read.message, unix_millis(SystemTime::now()));
        let failed = cancelled(message, &outcome, order.reason.as_deref());
        let notification = self.notification(order.id, message, read.stored(), &failed, now);
        self.record(order.id, &message.envelope.trace, notification.as_ref(), &outcome)
            .await
    }

    /// The event of a change.
    pub fn tell_change(&self, order: &Order) {
        let change = match order.change {
            Change::Hold => "held",
            Change::Release => "released",
            Change::Retry => "retried",
            Change::ReleaseBad => "released-bad",
            Change::Cancel | Change::Bounce => "cancelled",
        };
        if let (Change::ReleaseBad, Some(Standing::Bad { reason })) =
            (order.change, self.hold.standing(order.id))
        {
            let text = format!(
                "RELEASED BY {}, ALTHOUGH IT WAS FOUND TO BE BAD: {reason}",
                order.by
            );
            self.warn_of(order.id, &text);
        }
        let kind = EventKind::Changed {
            change: change.into(),
            by: order.by.to_string(),
            reason: order.reason.as_deref().map(Into::into),
        };
        self.events.emit(None, Some(&order.id.to_string()), kind);
        self.events.write_out();
    }
}

/// Those who are to be told of.
fn cancelled(message: &StoredMessage, outcome: &StoredOutcome, reason: Option<&str>) -> Vec<Reported> {
    let reply = reasons::cancelled(reason).to_string();
    let recipients = outcome
        .recipients
        .iter()
        .filter_map(|(index, _)| message.envelope.recipients.get(*index as usize));
    recipients
        .filter(|recipient| bounce::wants_failure(recipient))
        .map(|recipient| Reported {
            address: recipient.address.clone(),
            orcpt: recipient.orcpt.clone(),
            status: "5.3.0".into(),
            remote: None,
            reply: reply.clone(),
            action: Action::Failed { expired: false },
        })
        .collect()
}
