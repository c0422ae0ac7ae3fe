//! The proxy's figures. It connects to nobody but the internal node and the host of the shared state, so that it is asked:
//! smtpd, which has its socket, gives the queue what it answers.

use std::io;
use std::path::Path;
use std::sync::Arc;

use postern_sandbox::packet::Connection;
use serde::{Deserialize, Serialize};

use super::traffic::Traffic;
use crate::checks::recipient::Existence;
use crate::events::Events;
use crate::metrics::{Family, Meter, Series, approximate};

/// What is asked: one packet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Asked {
    /// The figures as they are now.
    Figures,
}

/// The counts of the process.
pub(super) struct Figures {
    meter: Arc<Meter>,
    /// To the internal node, about recipients.
    pub(super) recipients: Arc<Traffic>,
    /// To the internal node, with users' submissions.
    pub(super) submissions: Arc<Traffic>,
    /// To the host of the shared state.
    pub(super) state: Arc<Traffic>,
}

impl Figures {
    pub(super) fn new(events: &Events) -> Self {
        Self {
            meter: Arc::clone(events.meter()),
            recipients: Arc::default(),
            submissions: Arc::default(),
            state: Arc::default(),
        }
    }

    /// What came of a question about a recipient.
    pub(super) fn recipient(&self, answer: Result<&Existence, ()>) {
        let word = match answer {
            Ok(Existence::Exists) => "exists",
            Ok(Existence::Unknown) => "unknown",
            Ok(Existence::Full) => "full",
            Err(()) => "unavailable",
        };
        self.meter.count(Family::ProxyAnswers, &["recipient", word]);
    }

    /// What came of a user's login: `granted`, `refused`, `busy` or `unavailable`.
    pub(super) fn login(&self, word: &str) {
        self.meter.count(Family::ProxyAnswers, &["login", word]);
    }

    /// What came of a question about what gateways remember.
    pub(super) fn remembered(&self, answered: bool) {
        let word = if answered { "answered" } else { "unavailable" };
        self.meter.count(Family::ProxyAnswers, &["state", word]);
    }

    /// All as it is now.
    pub(super) fn series(&self) -> Vec<Series> {
        for (destination, purpose, traffic) in [
            ("internal", "recipient", &self.recipients),
            ("internal", "submission", &self.submissions),
            ("dmz-state", "state", &self.state),
        ] {
            let labels = [destination, purpose];
            let (sent, received) = traffic.octets();
            let tell = |family, value| self.meter.set(family, &labels, approximate(value));
            tell(Family::ProxyConnections, traffic.made_count());
            tell(Family::ProxyOpen, traffic.open_count());
            tell(Family::ProxyFailed, traffic.failed_count());
            for (direction, octets) in [("sent", sent), ("received", received)] {
                let labels = [destination, purpose, direction];
                self.meter.set(Family::ProxyOctets, &labels, approximate(octets));
            }
        }
        self.meter.series()
    }
}

/// smtpd's side: asks the proxy at `path`.
pub async fn ask(path: &Path) -> io::Result<Vec<Series>> {
    let connection = Connection::connect(path).await?;
    connection
        .send(&serde_json::to_vec(&Asked::Figures)?, None)
        .await?;
    let mut buffer = vec![0; super::ANSWER];
    let packet = connection.recv(&mut buffer).await?;
    if packet.len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&buffer[..packet.len])?)
}
