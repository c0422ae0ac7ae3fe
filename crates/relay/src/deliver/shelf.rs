//! Sessions that have delivered a message and may take the next one for the same destination.
//!
//! They are kept for moments only, and for a bounded number of messages: a host has better use for its places than our
//! silence. A session that the host closes meanwhile is no failure of anybody's message.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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

/// All of them. Cheap to clone. A destination is there as long as somebody looks after its sessions.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<HashMap<Destination, Vec<Kept>>>>);

impl Shelf {
    /// The session that was used last and still stands.
    pub async fn take(&self, destination: &Destination) -> Option<Kept> {
        loop {
            let mut kept = self.lock().get_mut(destination)?.pop()?;
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
        match self.lock().entry(destination.clone()) {
            Entry::Occupied(sessions) => return sessions.into_mut().push(kept),
            Entry::Vacant(place) => drop(place.insert_entry(vec![kept])),
        }
        let (all, destination) = (self.clone(), destination.clone());
        tokio::spawn(async move {
            let mut next = Some(Instant::now() + IDLE);
            while let Some(at) = next {
                tokio::time::sleep_until(at).await;
                next = all.sweep(&destination);
            }
        });
    }

    /// Ends the sessions that have waited too long; when to look again.
    fn sweep(&self, destination: &Destination) -> Option<Instant> {
        let mut all = self.lock();
        let sessions = all.get_mut(destination)?;
        for old in sessions.extract_if(.., |kept| kept.since.elapsed() >= IDLE) {
            old.connection.end();
        }
        let oldest = sessions.iter().map(|kept| kept.since).min();
        if oldest.is_none() {
            all.remove(destination);
        }
        oldest.map(|since| since + IDLE)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Destination, Vec<Kept>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
