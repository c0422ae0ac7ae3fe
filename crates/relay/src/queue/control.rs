//! The control socket: one JSON request per line, one JSON reply per line ([`postern_control`]). It only reads.

use std::sync::Arc;
use std::time::Duration;

use postern_control::{DkimRecord, QueuedMessage, QueuedRecipient, Reply, Request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::job::Worker;
use super::manager::{Command, Listing};
use crate::events::rfc3339_millis;
use crate::spool::Status;

/// Octets of a request at most.
const REQUEST: u64 = 4096;
/// A client that is silent for so long is dropped.
const IDLE: Duration = Duration::from_mins(5);
/// Messages in a listing at most.
const LISTING: usize = 1000;

/// Answers requests.
pub struct Control {
    /// Name of the node.
    pub node: String,
    /// `gateway` or `internal`.
    pub role: &'static str,
    /// DNS records of the DKIM keys.
    pub records: Vec<DkimRecord>,
    /// Spool and events.
    pub worker: Arc<Worker>,
    /// Who knows the queue.
    pub manager: UnboundedSender<Command>,
}

impl Control {
    /// Serves until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(self.clone().connection(stream));
                }
                Err(error) => {
                    self.worker.events.warn(format!("the control socket: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: UnixStream) {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut read).take(REQUEST);
            let asked = tokio::time::timeout(IDLE, limited.read_until(b'\n', &mut line)).await;
            if !matches!(asked, Ok(Ok(1..))) || !line.ends_with(b"\n") {
                return;
            }
            let reply = match serde_json::from_slice(&line) {
                Ok(request) => self.answer(&request).await,
                Err(error) => Reply::Error {
                    text: format!("the request cannot be read: {error}"),
                },
            };
            let Ok(mut answer) = serde_json::to_vec(&reply) else {
                return;
            };
            answer.push(b'\n');
            if write.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, request: &Request) -> Reply {
        match request {
            Request::Status => match self.ask(Command::Status).await {
                Some(queue) => Reply::Status {
                    node: self.node.clone(),
                    role: self.role.into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                    queue,
                },
                None => stopping(),
            },
            Request::QueueList => match self.ask(|answer| Command::List(LISTING, answer)).await {
                Some(listing) => self.list(listing).await,
                None => stopping(),
            },
            Request::DkimRecords => Reply::DkimRecords {
                records: self.records.clone(),
            },
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.manager.send(command(answer)).ok()?;
        answered.await.ok()
    }

    /// Addresses are in the spool only; a message that has gone meanwhile is left out.
    async fn list(&self, listing: Listing) -> Reply {
        let store = self.worker.store.clone();
        let read = move || {
            let read =
                listing
                    .messages
                    .into_iter()
                    .filter_map(|(id, location, statuses)| {
                        let stored = store.envelope(location).ok()?;
                        let recipients = stored.envelope.recipients.into_iter().zip(statuses).filter_map(
                            |(to, status)| {
                                let Status::Due { at, attempts, reply } = status else {
                                    return None;
                                };
                                Some(QueuedRecipient {
                                    address: to.address,
                                    attempts,
                                    next_attempt: rfc3339_millis(at),
                                    last_reply: reply.into(),
                                })
                            },
                        );
                        Some(QueuedMessage {
                            id: id.to_string(),
                            arrived: rfc3339_millis(stored.arrived),
                            provenance: stored.provenance.to_string(),
                            from: stored.envelope.reverse_path,
                            size: location.body_length,
                            recipients: recipients.collect(),
                        })
                    });
            Reply::QueueList {
                messages: read.collect(),
                truncated: listing.truncated,
            }
        };
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| stopping())
    }
}

fn stopping() -> Reply {
    Reply::Error {
        text: "the queue is stopping; ask again when it has started".into(),
    }
}
