//! Does the mailbox exist? Asked at RCPT, cached, never guessed.
//!
//! On the gateway the proxy process is asked, on the internal node the mailbox server by LMTP. An error is not cached
//! and not an answer: the verdict on it is 451.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::queue::config::LmtpSocket;
use crate::table::Table;

const ANSWERS: usize = 65_536;
/// An unknown mailbox may be made any minute, a full one emptied.
const OTHERS_KEPT: Duration = Duration::from_mins(1);
const ASKED_AT_A_TIME: usize = 32;

/// What the mailbox server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Existence {
    /// The mailbox takes mail.
    Exists,
    /// There is no such mailbox.
    Unknown,
    /// The mailbox has no room.
    Full,
}

impl Existence {
    pub(super) fn evidence(self, recipient: &str) -> String {
        match self {
            Self::Exists => format!("{recipient} exists"),
            Self::Unknown => format!("{recipient} is unknown"),
            Self::Full => format!("{recipient} is full"),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The one to ask could not be reached or broke off.
    #[error("the proxy at {}: {source}", path.display())]
    Io {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It answered that it does not know now.
    #[error("{0}")]
    Temporary(String),
}

/// Who is asked.
#[derive(Debug, Clone)]
pub enum Oracle {
    /// The proxy's socket.
    Proxy(PathBuf),
    /// The mailbox server's LMTP socket, and our name for LHLO.
    Lmtp(LmtpSocket, String),
}

/// Asks and remembers.
pub struct Verifier {
    oracle: Oracle,
    kept: Duration,
    answers: Mutex<Table<Existence>>,
    asking: Semaphore,
}

impl Verifier {
    /// A verifier that keeps positive answers for `kept`.
    pub fn new(oracle: Oracle, kept: Duration) -> Self {
        Self {
            oracle,
            kept,
            answers: Mutex::new(Table::new(ANSWERS)),
            asking: Semaphore::new(ASKED_AT_A_TIME),
        }
    }

    /// Whether `recipient` (bare address) exists.
    pub async fn verify(&self, recipient: &str) -> Result<Existence, VerifyError> {
        // Domains are the same in any case; local parts are the mailbox server's to fold.
        let key = match recipient.rsplit_once('@') {
            Some((local, domain)) => format!("{local}@{}", domain.to_ascii_lowercase()),
            None => recipient.to_owned(),
        };
        if let Some(known) = self.answers().get(&key, Instant::now()) {
            return Ok(*known);
        }
        let _permit = self.asking.acquire().await;
        let existence = match &self.oracle {
            Oracle::Proxy(path) => crate::proxy::ask(path, recipient).await?,
            Oracle::Lmtp(socket, name) => crate::proxy::ask_lmtp(socket, name, recipient).await?,
        };
        let now = Instant::now();
        let kept = if existence == Existence::Exists {
            self.kept
        } else {
            OTHERS_KEPT.min(self.kept)
        };
        self.answers().insert(&key, existence, now + kept, now);
        Ok(existence)
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Table<Existence>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
