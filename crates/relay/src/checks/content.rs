//! The question to the scan process: one message, one report. No answer is never a good one.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use postern_sandbox::packet::Connection;
use postern_sandbox::{fd, memfd};

use super::Observation;
use crate::config::CheckName;
use crate::scan::{INLINE, MEMORY, Report, Seen};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The process is not there.
    #[error("cannot reach the scan process at {path}: {source}; is postern-scan running?")]
    Connect {
        /// Its socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The worker ended: a crash, too much memory, too much time.
    #[error("the worker ended over this message")]
    Ended,
    /// The connection failed otherwise.
    #[error("the scan process: {0}")]
    Io(#[from] io::Error),
    /// Its answer is none.
    #[error("the scan process answered something else: {0}")]
    Answer(#[from] serde_json::Error),
}

/// Asks the scan process at `path` about `message`. What ends `memory` is lent to it, so that a large message is not copied.
pub async fn ask(
    path: &Path,
    message: &[u8],
    memory: Option<&memfd::View<'_>>,
) -> Result<Report, ContentError> {
    let connection = Connection::connect(path)
        .await
        .map_err(|source| ContentError::Connect {
            path: path.display().to_string(),
            source,
        })?;
    if message.len() < fd::MAX_PACKET {
        let packet = [&[INLINE], message].concat();
        connection.send(&packet, None).await?;
    } else {
        let mut packet = vec![MEMORY];
        packet.extend((message.len() as u64).to_le_bytes());
        if let Some(view) = memory {
            connection.send(&packet, Some(view.lend()?)).await?;
        } else {
            let memory = memfd::sealed(message)?;
            connection.send(&packet, Some(memory.as_fd())).await?;
        }
    }
    let mut buffer = vec![0; fd::MAX_PACKET];
    let packet = match connection.recv(&mut buffer).await {
        Ok(packet) if packet.len > 0 => packet,
        Ok(_) => return Err(ContentError::Ended),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(ContentError::Ended),
        Err(error) => return Err(error.into()),
    };
    Ok(serde_json::from_slice(&buffer[..packet.len])?)
}

/// A report as findings.
pub fn findings(report: Report) -> Vec<(CheckName, Observation, String)> {
    if report.seen.is_empty() {
        let evidence = format!(
            "{} parts, {} header fields, {} files in archives, {} octets unpacked",
            report.parts, report.header_fields, report.entries, report.unpacked
        );
        return vec![(CheckName::Content, Observation::Clean, evidence)];
    }
    report.seen.into_iter().map(finding).collect()
}

fn finding(seen: Seen) -> (CheckName, Observation, String) {
    let (observation, evidence) = match seen {
        Seen::Encrypted { attachment } => (
            Observation::Encrypted(attachment.clone()),
            format!("{attachment} has a password"),
        ),
        Seen::Unreadable { attachment, why } => {
            let evidence = format!("{attachment}: {why}");
            (Observation::Unscannable(attachment), evidence)
        }
        Seen::Denied {
            ref attachment,
            ref rule,
        } => {
            let evidence = format!("{attachment}: {rule}");
            (Observation::Content(seen), evidence)
        }
        Seen::Beyond { ref what } | Seen::Ambiguous { ref what } | Seen::Odd { ref what } => {
            let evidence = what.clone();
            (Observation::Content(seen), evidence)
        }
    };
    (CheckName::Content, observation, evidence)
}
