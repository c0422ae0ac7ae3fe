//! What becomes of a message in the hold, and how that is made durable: by one record.

use std::sync::Arc;

use postern_control::EventKind;
use tokio::sync::oneshot;

use crate::handover;
use crate::queue::change::Order;
use crate::queue::job::Worker;
use crate::queue::store::message_record;
use crate::spool::hold::Standing;
use crate::spool::{Location, MessageId, Status, StoredOutcome};

/// What came of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It may go on, with these header fields behind our others.
    Clean(String),
    /// It goes on although it was found to be bad, for the operator wants that; nobody is told what becomes of it.
    LetGo,
    /// It is to stand so from now on.
    Stands(Standing),
}

/// What is to become of a message in the hold.
pub struct Judgement {
    /// Which.
    pub id: MessageId,
    /// What.
    pub found: Found,
    /// Who wants it.
    pub asker: Asker,
}

/// Who has a message judged.
pub enum Asker {
    /// Its time is over.
    Time,
    /// Who scanned it.
    Scanner(oneshot::Sender<Result<(), String>>),
    /// The operator.
    Operator(Order),
}

impl Asker {
    /// Whether it was done, for those who wait to hear.
    pub fn answer(self, result: Result<(), String>) {
        let (Self::Scanner(answer) | Self::Operator(Order { answer, .. })) = self else {
            return;
        };
        let _ = answer.send(result);
    }
}

/// A judgement that is on disk, or could not be written.
pub struct Judged {
    /// What it was.
    pub judgement: Judgement,
    /// The place of the record without a hold, or none where it stays in it.
    pub written: Result<Option<Location>, String>,
}

impl Worker {
    /// Makes a judgement durable. What may go on is written anew, with the header fields of its
    /// scan and not held: one record. `statuses`: how its recipients stand now.
    pub async fn record_judgement(
        self: &Arc<Self>,
        id: MessageId,
        from: Location,
        statuses: Vec<Status>,
        found: &Found,
    ) -> anyhow::Result<Option<Location>> {
        let fields = match found {
            Found::Stands(standing) => {
                let outcome = StoredOutcome {
                    held: Some(true),
                    standing: Some(standing.clone()),
                    ..StoredOutcome::default()
                };
                return self.record(id, "", None, &outcome).await.map(|_| None);
            }
            Found::Clean(fields) => fields.as_str(),
            Found::LetGo => "",
        };
        let read = self.read(id, from).await?;
        let stored = read.content?;
        let mut message = read.message;
        let mut at = 0;
        if let Some(hold) = &mut message.hold {
            (at, hold.standing) = (hold.unscanned.fields, None);
        }
        message.held = false;
        message.statuses = statuses;
        if *found == Found::LetGo {
            // Neither we nor a next hop that knows DSN are to send what is bad, or word of it, to whoever is said to have sent it.
            for recipient in &mut message.envelope.recipients {
                recipient.notify = Some(vec![handover::Notify::Never]);
            }
        }
        message.envelope.size += fields.len() as u64;
        let record = message_record(id, &message, stored.body_with(at, fields.as_bytes()))?;
        let places = self.store.append_own(vec![record]).await?;
        let place = places.first().copied();
        place
            .map(Some)
            .ok_or_else(|| anyhow::anyhow!("the spool gave no place"))
    }

    /// Takes a judgement over that is durable, and tells of it.
    pub fn tell_judgement(&self, id: MessageId, found: &Found) {
        let (state, detail) = match found {
            Found::Clean(_) => ("released", String::new()),
            Found::LetGo => ("released", "although it was found to be bad".into()),
            Found::Stands(Standing::Unscanned { .. }) => ("again", String::new()),
            Found::Stands(Standing::Expired) => (
                "expired",
                "no scanner has answered for all of it; it is in quarantine, and its release has it scanned"
                    .into(),
            ),
            Found::Stands(Standing::Bad { reason }) => ("quarantined", reason.to_string()),
        };
        match found {
            Found::Clean(_) | Found::LetGo => self.hold.forget(id),
            Found::Stands(standing) => self.hold.stand(id, standing.clone()),
        }
        self.tell_hold(None, id, state, detail);
    }

    /// A warning about a message.
    pub(in crate::queue) fn warn_of(&self, id: MessageId, text: &str) {
        let kind = EventKind::Warning { text: text.into() };
        self.events.emit(None, Some(&id.to_string()), kind);
    }

    /// The event of something that happens in the hold.
    pub(in crate::queue) fn tell_hold(
        &self,
        trace: Option<&str>,
        id: MessageId,
        state: &str,
        detail: String,
    ) {
        let state = state.to_owned();
        let kind = EventKind::Hold { state, detail };
        self.events.emit(trace, Some(&id.to_string()), kind);
    }
}
