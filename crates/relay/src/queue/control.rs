//! The control socket: one JSON request per line, one JSON reply per line ([`postern_control`]).
//!
//! Who may connect is a matter of the socket's mode; who may change something, of the user id that the kernel names: root
//! and the queue's own user. The console's user is neither, so that the console only reads, whatever it is made to ask.

use std::sync::Arc;
use std::time::Duration;

use postern_control::{Change, DkimRecord, MAX_IDS, NotChanged, Reply, Request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc::UnboundedSender, oneshot};

use super::change::Order;
use super::figures::Figures;
use super::job::Worker;
use super::manager::Command;
use super::page::Query;
use super::published::Published;

/// Octets of a request at most.
const REQUEST: u64 = 64 << 10;
/// Octets of the operator's reason at most; it goes into events and notifications.
const REASON: usize = 500;
/// A client that is silent for so long is dropped.
const IDLE: Duration = Duration::from_mins(5);

/// A client takes an answer within this time.
const TAKE: Duration = Duration::from_secs(30);
/// Connections at a time; who comes on top waits.
const CONNECTIONS: usize = 32;
/// Lists and messages that are put together at a time: each holds a page in memory.
const READERS: usize = 2;

/// What bounds the work for those who ask.
pub struct Bounds {
    connections: Arc<Semaphore>,
    readers: Semaphore,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            readers: Semaphore::new(READERS),
        }
    }
}

/// Answers requests.
pub struct Control {
    /// Name of the node.
    pub node: String,
    /// `gateway` or `internal`.
    pub role: &'static str,
    /// DNS records of the DKIM keys.
    pub records: Vec<DkimRecord>,
    /// What was counted.
    pub figures: Arc<Figures>,
    /// Spool and events.
    pub worker: Arc<Worker>,
    /// Who knows the queue.
    pub manager: UnboundedSender<Command>,
    /// The user as which the queue runs.
    pub own_user: u32,
    /// Looks at our own domains; absent where the configuration does not want it.
    pub published: Option<Arc<Published>>,
    /// How much at a time.
    pub bounds: Bounds,
}

impl Control {
    /// Serves until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        while let Ok(place) = self.bounds.connections.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let control = self.clone();
                    tokio::spawn(async move {
                        control.connection(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    self.worker.events.warn(format!("the control socket: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: UnixStream) {
        let user = stream.peer_cred().map(|peer| peer.uid()).ok();
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
                Ok(request) => self.answer(request, user).await,
                Err(error) => Reply::Error {
                    text: format!("the request cannot be read: {error}"),
                },
            };
            let Ok(mut answer) = serde_json::to_vec(&reply) else {
                return;
            };
            answer.push(b'\n');
            // Who does not read what he asked for must not hold it in our memory for ever.
            let written = tokio::time::timeout(TAKE, write.write_all(&answer)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    }

    async fn answer(&self, request: Request, user: Option<u32>) -> Reply {
        if request.changes() && !may_change(user, self.own_user) {
            return refused(user);
        }
        let query = Query {
            worker: &self.worker,
            manager: &self.manager,
        };
        let answered = match request {
            Request::Status => ask(&self.manager, Command::Status)
                .await
                .map(|queue| Reply::Status {
                    node: self.node.clone(),
                    role: self.role.into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                    queue,
                }),
            Request::Metrics => ask(&self.manager, Command::Status).await.map(|queue| {
                self.worker.hold.measure(self.worker.events.meter());
                Reply::Metrics {
                    text: self.figures.text(&queue),
                }
            }),
            Request::QueueList { filter, after, limit } => {
                let _one_of_few = self.bounds.readers.acquire().await;
                query.list(filter, after, limit).await
            }
            Request::QueueShow { id } => query.show(&id).await,
            Request::QueueChange { change, ids, reason } => {
                let by = user.map_or(String::new(), |user| format!("user id {user}"));
                self.change(change, ids, reason, &by).await
            }
            Request::DkimRecords => Some(Reply::DkimRecords {
                records: self.records.clone(),
            }),
            Request::DnsCheck => Some(self.check_dns().await),
        };
        answered.unwrap_or_else(|| Reply::Error {
            text: "the queue is stopping; ask again when it has started".into(),
        })
    }

    async fn check_dns(&self) -> Reply {
        match &self.published {
            Some(published) => Reply::DnsCheck {
                domains: published.domains(),
                findings: published.check().await,
            },
            None => Reply::Error {
                text: "this node does not look at the domains' records; ask a gateway, whose relay.toml has [self-check]".into(),
            },
        }
    }

    /// All changes are under way together, so that they share flushes.
    async fn change(
        &self,
        change: Change,
        ids: Vec<String>,
        reason: Option<String>,
        by: &str,
    ) -> Option<Reply> {
        if let Some(text) = unusable(&ids, reason.as_deref()) {
            return Some(Reply::Error { text });
        }
        let (by, reason): (Arc<str>, Option<Arc<str>>) = (by.into(), reason.map(Into::into));
        let mut under_way = Vec::new();
        let mut failed = Vec::new();
        for text in ids {
            let id = match text.parse() {
                Ok(id) => id,
                Err(error) => {
                    let why = format!("{error}");
                    failed.push(NotChanged { id: text, why });
                    continue;
                }
            };
            let (answer, answered) = oneshot::channel();
            let order = Order {
                id,
                change,
                by: by.clone(),
                reason: reason.clone(),
                answer,
            };
            self.manager.send(Command::Change(Box::new(order))).ok()?;
            under_way.push((text, answered));
        }
        let mut done = Vec::new();
        for (id, answered) in under_way {
            match answered.await {
                Ok(Ok(())) => done.push(id),
                Ok(Err(why)) => failed.push(NotChanged { id, why }),
                Err(_) if self.manager.is_closed() => return None,
                Err(_) => {
                    let why = "the change ended by a fault; the journal says more".into();
                    failed.push(NotChanged { id, why });
                }
            }
        }
        Some(Reply::QueueChanged { done, failed })
    }
}

/// Asks the manager; `None` where it has ended.
pub async fn ask<T>(
    manager: &UnboundedSender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    manager.send(command(answer)).ok()?;
    answered.await.ok()
}

fn may_change(user: Option<u32>, own: u32) -> bool {
    user.is_some_and(|user| user == 0 || user == own)
}

fn refused(user: Option<u32>) -> Reply {
    let who = user.map_or("a user that the kernel does not name".into(), |user| {
        format!("user id {user}")
    });
    Reply::Error {
        text: format!("{who} may only read; only root and the queue's own user may change the queue"),
    }
}

fn unusable(ids: &[String], reason: Option<&str>) -> Option<String> {
    if ids.len() > MAX_IDS {
        return Some(format!(
            "{} ids in one request; ask for at most {MAX_IDS}",
            ids.len()
        ));
    }
    let reason = reason?;
    (reason.len() > REASON || reason.contains(char::is_control))
        .then(|| format!("the reason must be one line of at most {REASON} octets"))
}

#[cfg(test)]
mod tests {
    use super::super::manager::Listing;
    use super::super::testing::Bench;
    use super::*;
    use crate::events::Events;

    #[test]
    fn only_root_and_the_queue_itself_may_change_something() {
        assert!(may_change(Some(0), 3002) && may_change(Some(3002), 3002));
        assert!(!may_change(Some(3008), 3002) && !may_change(None, 3002));
    }

    /// Whoever asks for many lists at a time waits for the first ones: each holds a page in memory.
    #[tokio::test]
    async fn few_lists_are_put_together_at_a_time() {
        let bench = Bench::new(Events::to("queue", std::io::sink()), &[60]);
        let (manager, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let control = Arc::new(Control {
            node: "n".into(),
            role: "internal",
            records: Vec::new(),
            figures: Arc::new(Figures::new(bench.worker.events.meter().clone())),
            published: None,
            worker: bench.worker.clone(),
            manager,
            own_user: 0,
            bounds: Bounds::default(),
        });
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let control = control.clone();
            answers.spawn(async move { control.answer(Request::list_all(), None).await });
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(asked.len(), READERS);
        for _ in 0..10 {
            let Some(Command::List(_, _, answer)) = asked.recv().await else {
                panic!("no list is asked for")
            };
            let nothing = Listing {
                messages: Vec::new(),
                more: false,
            };
            assert!(answer.send(nothing).is_ok());
        }
        assert_eq!(answers.join_all().await.len(), 10);
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(unusable(&[], Some("spam run, ticket 7")), None);
        assert!(unusable(&[], Some("two\r\nlines")).is_some());
        assert!(unusable(&[], Some(&"x".repeat(501))).is_some());
        assert!(unusable(&vec![String::new(); MAX_IDS + 1], None).is_some());
    }
}
