//! Intake: takes handovers from smtpd, refuses what has no route or no room, and answers after stable storage.

mod hold;

use std::borrow::Cow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_control::EventKind;
use postern_smtp::replies;
use postern_smtp::reply::Reply as SmtpReply;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::figures::Figures;
use super::job::{Queued, Worker};
use super::mail;
use super::manager::Command;
use super::priority;
use super::provenance::Provenance;
use super::reports::Reports;
use super::reports::dmarc::Aggregate;
use super::snapshots::Snapshots;
use super::store::message_record;
use crate::events::unix_millis;
use crate::handover::kept::Answer;
use crate::handover::{Asked, Connection, Listener, Received, Reply};
use crate::spool::writer::{AppendError, Body};
use crate::spool::{Status, StoredMessage};

/// Octets in which fields that mark mass mail are looked for.
const HEADER: usize = 64 << 10;
/// When the queue stops, an instance that stops too has so long to give its snapshot.
const LAST_KEEP: Duration = Duration::from_secs(2);

/// Takes what comes through one handover socket.
pub struct Intake {
    /// What the socket says about the mail.
    pub provenance: Provenance,
    /// Spool, routes, events.
    pub worker: Arc<Worker>,
    /// Who delivers it.
    pub manager: UnboundedSender<Command>,
    /// What instances count.
    pub figures: Arc<Figures>,
    /// What instances give to keep besides mail.
    pub snapshots: Arc<Snapshots>,
    /// Larger messages are refused; smtpd has said so before.
    pub max_octets: u64,
    /// What a bare `postmaster` stands for.
    pub postmaster: String,
    /// Takes what smtpd saw; absent where no reports are sent.
    pub reports: Option<Arc<Reports<Aggregate>>>,
}

impl Intake {
    /// Serves until it is told to stop; then what was received is still taken and answered, so that no client sends
    /// again what is in the spool.
    pub async fn serve(self: Arc<Self>, listener: Listener, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.changed() => break,
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok(connection) => {
                    connections.spawn(self.clone().connection(connection, stop.clone()));
                }
                Err(error) => {
                    self.worker
                        .events
                        .warn(format!("the handover socket {}: {error}", self.provenance));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    async fn connection(self: Arc<Self>, mut connection: Connection, mut stop: watch::Receiver<bool>) {
        let mut keeps = false;
        let mut lent = None;
        loop {
            let received = tokio::select! {
                biased;
                _ = stop.changed() => {
                    if keeps {
                        self.last_keep(&mut connection).await;
                    }
                    return;
                }
                received = connection.receive(self.max_octets) => received,
            };
            let received = match received {
                Ok(Some(Asked::Message(received))) => *received,
                Ok(Some(Asked::Observations(batch))) => {
                    if let Some(reports) = &self.reports {
                        reports.note(batch);
                    }
                    if connection.reply(&Reply::Noted).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Some(Asked::Figures(series))) => {
                    let answer = match self.figures.put(self.provenance, series) {
                        Answer::Kept => self.room().await,
                        failed => failed,
                    };
                    if connection.answer(&answer, None).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Some(Asked::ProxyFigures(series))) => {
                    let answer = self.figures.put_of_proxy(self.provenance, series);
                    if connection.answer(&answer, None).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Some(Asked::NextToScan)) => {
                    let next = tokio::select! {
                        biased;
                        _ = stop.changed() => return,
                        next = self.next_to_scan(&mut lent) => next,
                    };
                    if connection.answer(&next.0, next.1).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Some(Asked::Scanned(outcome))) => {
                    let answer = self.scanned(outcome, &mut lent).await;
                    if connection.answer(&answer, None).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Some(asked)) => {
                    keeps = true;
                    if self
                        .snapshots
                        .answer(self.provenance, asked, &connection)
                        .await
                        .is_err()
                    {
                        return;
                    }
                    continue;
                }
                Ok(None) => return,
                Err(error) => {
                    let text = format!("a handover through {} was broken off: {error}", self.provenance);
                    return self.worker.events.warn(text);
                }
            };
            // Its smtpd has given up waiting, or died, and its client was told to come again.
            if connection.is_gone() {
                return;
            }
            let reply = self.take(received).await;
            if connection.reply(&reply).await.is_err() {
                return;
            }
        }
    }

    /// What the disk has room for, so that smtpd need not receive what would be refused.
    async fn room(&self) -> Answer {
        let store = self.worker.store.clone();
        match tokio::task::spawn_blocking(move || store.room()).await {
            Ok(Ok(octets)) => Answer::Room(octets),
            // A disk that cannot even be measured is told by who writes to it.
            _ => Answer::Kept,
        }
    }

    /// Where a node stops as a whole, the instance gives its last snapshot about now.
    async fn last_keep(&self, connection: &mut Connection) {
        let last = tokio::time::timeout(LAST_KEEP, connection.receive(self.max_octets));
        if let Ok(Ok(Some(asked @ Asked::Keep(_)))) = last.await {
            // Whether its client still hears the answer does not matter.
            let _ = self.snapshots.answer(self.provenance, asked, connection).await;
        }
    }

    async fn take(&self, received: Received) -> Reply {
        let Received {
            mut envelope,
            message: body,
            unscanned,
        } = received;
        for recipient in &mut envelope.recipients {
            if recipient.address.eq_ignore_ascii_case("postmaster") {
                recipient.address.clone_from(&self.postmaster);
            }
        }
        if mail::check(&envelope).is_err() {
            return refused(&replies::not_allowed_here());
        }
        let unrouted = |address: &str| self.worker.router.destination(self.provenance, address).is_none();
        if let Some(recipient) = envelope
            .recipients
            .iter()
            .find(|recipient| unrouted(&recipient.address))
        {
            return refused(&replies::no_route(&super::router::domain_of(&recipient.address)));
        }
        let now = unix_millis(SystemTime::now());
        let due = Status::Due {
            at: now,
            attempts: 0,
            warned: false,
            reply: "".into(),
        };
        let statuses = vec![due; envelope.recipients.len()];
        let bulk = priority::is_bulk(&header(&body), envelope.recipients.len());
        let message = StoredMessage {
            envelope,
            provenance: self.provenance,
            arrived: now,
            statuses,
            held: unscanned.is_some(),
            bulk,
            hold: Self::hold_of(unscanned, now),
        };
        let store = &self.worker.store;
        let id = store.new_id();
        let octets = match &body {
            Body::Octets(octets) => Some(octets.clone()),
            Body::File { .. } | Body::Parts(_) => None,
        };
        let Ok(record) = message_record(id, &message, body) else {
            return refused(&replies::queue_unavailable());
        };
        if !self.keeps_room(id, &message) {
            return refused(&replies::hold_full());
        }
        let _under_way = store.under_way();
        let location = match store.append(vec![record]).await {
            Ok(locations) => locations.first().copied(),
            Err(error) => {
                self.worker.hold.forget(id);
                self.worker.events.warn(error.to_string());
                return refused(&match error {
                    AppendError::Full { .. } => replies::queue_full(),
                    _ => replies::queue_unavailable(),
                });
            }
        };
        let Some(location) = location else {
            self.worker.hold.forget(id);
            return refused(&replies::queue_unavailable());
        };
        if let Some(octets) = octets {
            store.keep_fresh(location, &message, octets);
        }
        let kind = EventKind::Queued {
            from: message.envelope.reverse_path.clone(),
            to: message
                .envelope
                .recipients
                .iter()
                .map(|recipient| recipient.address.clone())
                .collect(),
            size: message.envelope.size,
            provenance: Some(self.provenance.to_string()),
        };
        self.worker
            .events
            .emit(Some(&message.envelope.trace), Some(&id.to_string()), kind);
        self.tell_held(id, &message);
        // If the manager has ended, the message is in the spool and the next start delivers it.
        let _ = self.manager.send(Command::Insert(Box::new(Queued {
            id,
            location,
            message,
        })));
        Reply::Queued { id: id.to_string() }
    }
}

/// The beginning of the message; what cannot be read is empty, and found out when it is written to the spool.
fn header(message: &Body) -> Cow<'_, [u8]> {
    match message {
        Body::Octets(octets) => Cow::Borrowed(&octets[..octets.len().min(HEADER)]),
        Body::File { file, offset, length } => {
            let mut octets = vec![0; usize::try_from(*length).unwrap_or(HEADER).min(HEADER)];
            let read = file.read_at(&mut octets, *offset).unwrap_or(0);
            octets.truncate(read);
            Cow::Owned(octets)
        }
        // What is handed over is in one piece.
        Body::Parts(_) => Cow::Borrowed(&[]),
    }
}

fn refused(reply: &SmtpReply) -> Reply {
    let enhanced = reply.enhanced.map_or(String::new(), |code| code.to_string());
    Reply::Refused {
        code: reply.code.value(),
        enhanced,
        text: reply.text(),
    }
}
