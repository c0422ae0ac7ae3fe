//! The snapshot as smtpd sees it: recalled at start, kept every few minutes and at stop, by the queue.
//!
//! Nothing is kept before the last snapshot was recalled, or is known to be gone: an empty memory must not replace it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::{Reputation, snapshot};
use crate::events::{Events, unix_millis};
use crate::handover::kept::Client;

/// How long the start waits for the queue, which may be reading a large spool; then it serves, and asks again.
const AT_START: Duration = Duration::from_secs(10);
/// How long the queue may take at other times.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the stop waits for it.
const AT_STOP: Duration = Duration::from_secs(5);

/// Keeps the memory of one instance.
pub struct Keeper {
    path: PathBuf,
    reputation: Arc<Reputation>,
    events: Events,
    client: Option<Client>,
    recalled: bool,
}

impl Keeper {
    /// For the instance whose handover socket is `path`.
    pub fn new(path: PathBuf, reputation: Arc<Reputation>, events: Events) -> Self {
        Self {
            path,
            reputation,
            events,
            client: None,
            recalled: false,
        }
    }

    /// Recalls the snapshot before anybody is served.
    pub async fn start(&mut self) {
        self.within(
            AT_START,
            "greylist and limits begin empty until it is asked again",
        )
        .await;
    }

    /// Keeps until the process stops, and once more then.
    pub async fn run(mut self, interval: Duration, mut stopped: watch::Receiver<bool>) {
        loop {
            let stop = tokio::time::timeout(interval, async {
                // An error means that the accept loop is gone, which is the same.
                let _ = stopped.wait_for(|stopped| *stopped).await.map(|_| ());
            });
            if stop.await.is_ok() {
                self.within(AT_STOP, "what was learned since the last snapshot is forgotten")
                    .await;
                return;
            }
            self.within(LIMIT, "it is tried again").await;
        }
    }

    async fn within(&mut self, limit: Duration, therefore: &str) {
        let done = tokio::time::timeout(limit, self.turn()).await;
        let error = match done {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {} s", limit.as_secs()),
        };
        self.client = None;
        let what = if self.recalled { "kept" } else { "recalled" };
        self.events.warn(format!(
            "the snapshot of greylist and limits was not {what} by the queue at {}: {error}; {therefore}",
            self.path.display()
        ));
    }

    /// One step: recall, where that was not done, else keep. A queue that was restarted has closed the connection.
    async fn turn(&mut self) -> io::Result<()> {
        if let Some(client) = self.client.take()
            && self.step(&client).await.is_ok()
        {
            self.client = Some(client);
            return Ok(());
        }
        let client = Client::connect(&self.path).await?;
        self.step(&client).await?;
        self.client = Some(client);
        Ok(())
    }

    async fn step(&mut self, client: &Client) -> io::Result<()> {
        let now = unix_millis(SystemTime::now());
        let reputation = self.reputation.clone();
        if self.recalled {
            // A full memory takes a moment to copy and sum up; others are served meanwhile.
            let snapshot = tokio::task::spawn_blocking(move || {
                postern_sandbox::memfd::sealed(&snapshot::write(&reputation.local().tables(now)))
            });
            return client.keep(&snapshot.await??).await;
        }
        if let Some(octets) = client.recall().await? {
            match snapshot::read(&octets) {
                Ok(tables) => reputation.local().restore(tables, now),
                Err(error) => self.events.warn(format!(
                    "the snapshot of greylist and limits cannot be used: {error}; they begin empty"
                )),
            }
        }
        self.recalled = true;
        Ok(())
    }
}
