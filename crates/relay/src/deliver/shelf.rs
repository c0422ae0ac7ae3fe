//! Sessions that have delivered a message and may take the next one for the same destination.
//!
//! They are kept for moments only, and for a bounded number of messages: a host has better use for its places than our
//! silence. A session that the host closes meanwhile is no failure of anybody's message.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::policy::Proof;
use super::session::Connection;
use crate::queue::router::Destination;

/// Messages over one session at most.
const MESSAGES: u32 = 100;
/// A session waits so long for the next message.
const IDLE: Duration = Duration::from_secs(5);

/// A session between two messages.
pub struct Kept {
    /// The session.
    pub connection: Connection,
    /// With whom, as attempts name him.
    pub host: String,
    /// How it proved itself.
    pub proof: Proof,
    /// Messages so far.
    pub messages: u32,
    since: Instant,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("host", &self.host)
            .field("messages", &self.messages)
            .finish_non_exhaustive()
    }
}

impl Kept {
    /// After so many messages.
    pub fn new(connection: Connection, host: String, proof: Proof, messages: u32) -> Self {
        Self {
            connection,
            host,
            proof,
            messages,
            since: Instant::now(),
        }
    }
}

/// All of them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<HashMap<Destination, Vec<Kept>>>>);

impl Shelf {
    /// The session that was used last and still stands.
    pub async fn take(&self, destination: &Destination) -> Option<Kept> {
        loop {
            let mut kept = {
                let mut all = self.lock();
                let sessions = all.get_mut(destination)?;
                let kept = sessions.pop();
                if sessions.is_empty() {
                    all.remove(destination);
                }
                kept?
            };
            if kept.connection.is_quiet().await {
                return Some(kept);
            }
        }
    }

    /// Keeps a session for the next message, unless it has carried enough.
    pub fn put(&self, destination: &Destination, kept: Kept) {
        let takes = kept.connection.takes_messages().unwrap_or(MESSAGES);
        if kept.messages >= takes.min(MESSAGES) {
            return kept.connection.end();
        }
        self.lock().entry(destination.clone()).or_default().push(kept);
        let (all, destination) = (self.clone(), destination.clone());
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            all.sweep(&destination);
        });
    }

    /// Ends the sessions that have waited too long.
    fn sweep(&self, destination: &Destination) {
        let mut all = self.lock();
        let Some(sessions) = all.get_mut(destination) else {
            return;
        };
        for old in sessions.extract_if(.., |kept| kept.since.elapsed() >= IDLE) {
            old.connection.end();
        }
        if sessions.is_empty() {
            all.remove(destination);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Destination, Vec<Kept>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
